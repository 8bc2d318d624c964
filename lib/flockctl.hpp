/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl for C++11 and later: holds that release themselves. Header-only, over flockctl.h, which tells the story.
 *
 *     {
 *         flockctl::hold podman("podman");                              // waits for ever; throws flockctl::error
 *         ...
 *     }                                                                 // released, also by an exception
 *
 *     flockctl::hold db("db", std::chrono::seconds(30));                // flockctl::not_acquired when the time is up
 *     flockctl::hold both({"db", flockctl::want("engine").count(2)});   // two names as one hold
 *     if (flockctl::hold lock = flockctl::try_acquire("db"))            // empty: somebody else has it
 *         ...
 *
 *     flockctl::mutex engine("engine");                                 // a name as a mutex of the standard library
 *     std::lock_guard<flockctl::mutex> guard(engine);
 *
 * Exceptions: flockctl::error, a std::system_error whose what() is flk_error_detail()'s sentence and whose code() compares with
 * std::errc; of it not_acquired (busy, timed out, cancelled) and deadlock. Destructors and moves never throw. A hold that was moved
 * from is empty, as one made without arguments.
 *
 * Threads and fork: as flockctl.h says. One object is used by one thread at a time; only a mutex is made to be shared. */
#ifndef FLOCKCTL_HPP
#define FLOCKCTL_HPP

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <flockctl.h>

namespace flockctl {

/* ---- what is thrown ---- */

class error_category : public std::error_category {
public:
    const char *name() const noexcept override { return "flockctl"; }
    std::string message(int value) const override { return flk_error_string(-value); }
    /* So that code() == std::errc::timed_out and so on. */
    std::error_condition default_error_condition(int value) const noexcept override
    {
        return std::error_condition(value, std::generic_category());
    }
    static const error_category &get() noexcept
    {
        static const error_category category;
        return category;
    }
};

class error : public std::system_error {
public:
    /* code: a negative result; the sentence is this thread's. */
    explicit error(int code)
        : std::system_error(-code, error_category::get()), detail(std::make_shared<std::string>(flk_error_detail()))
    {
    }
    const char *what() const noexcept override { return detail->c_str(); }

private:
    std::shared_ptr<const std::string> detail;
};

class not_acquired : public error { /* EBUSY, ETIMEDOUT, ECANCELED: somebody else has it */
public:
    using error::error;
};

class deadlock : public error { /* EDEADLK */
public:
    using error::error;
};

inline bool is_taken(int code) noexcept
{
    return code == -EBUSY || code == -ETIMEDOUT || code == -ECANCELED;
}

/* A result that isn't negative, else throws. */
inline int check(int code)
{
    if (code == -EDEADLK)
        throw deadlock(code);
    if (is_taken(code))
        throw not_acquired(code);
    if (code < 0)
        throw error(code);
    return code;
}

/* ---- what is asked for ---- */

/* One name: want("engine").count(2).slots(4). */
class want {
public:
    want(const char *name) : name_(name), count_(0), slots_(0), flags_(0) {}
    want(std::string name) : name_(std::move(name)), count_(0), slots_(0), flags_(0) {}
    want &count(unsigned number) { return count_ = number, *this; }
    want &all() { return count(FLK_ALL); }
    want &slots(unsigned number) { return slots_ = number, *this; } /* of the row; std::errc: EUSERS when it differs */
    want &shared() { return flags_ |= FLK_SHARED, *this; }
    /* Valid as long as this. */
    flk_want get() const
    {
        flk_want raw = flk_want();
        raw.name = name_.c_str();
        raw.count = count_;
        raw.slots = slots_;
        raw.flags = flags_;
        return raw;
    }

private:
    std::string name_;
    unsigned count_, slots_, flags_;
};

typedef std::vector<want> wants;

/* How long to wait: a duration, or a point in time of any clock; nothing: for ever. Parts of a millisecond are rounded up. */
class limit {
public:
    limit() noexcept : ms(FLK_FOREVER) {}
    template <class Rep, class Period>
    limit(const std::chrono::duration<Rep, Period> &time) : ms(from(time))
    {
    }
    template <class Clock, class Duration>
    limit(const std::chrono::time_point<Clock, Duration> &time) : ms(from(time - Clock::now()))
    {
    }
    std::int64_t milliseconds() const noexcept { return ms; }

private:
    template <class Duration> static std::int64_t from(const Duration &time)
    {
        typedef std::chrono::duration<double, std::milli> fractional;
        const double wanted = std::chrono::duration_cast<fractional>(time).count();
        if (!(wanted > 0))
            return 0;
        if (wanted > 9e15) /* 285,000 years */
            return FLK_FOREVER;
        const std::int64_t whole = static_cast<std::int64_t>(wanted);
        return whole + (static_cast<double>(whole) < wanted);
    }
    std::int64_t ms;
};

/* flk_options. waiting may throw: that ends the wait. */
struct options {
    std::string label;
    std::string command;
    int cancel_fd = -1; /* none */
    std::function<void(const flk_waiting &)> waiting;
};

/* flk_options and flk_want of C, as long as this and what it was made of live. */
class specification {
public:
    specification(const wants &all, const options &from) : fd(from.cancel_fd), raw_options(flk_options())
    {
        raw_wants.reserve(all.size());
        for (const want &one : all)
            raw_wants.push_back(one.get());
        raw_options.label = from.label.empty() ? nullptr : from.label.c_str();
        raw_options.command = from.command.empty() ? nullptr : from.command.c_str();
        raw_options.cancel_fd = fd < 0 ? nullptr : &fd;
        raw_options.waiting = from.waiting ? call : nullptr;
        raw_options.data = const_cast<options *>(&from);
    }
    specification(const specification &) = delete;
    specification &operator=(const specification &) = delete;
    int acquire(const limit &time, flk_hold **hold) const
    {
        return flk_acquire_many(raw_wants.data(), raw_wants.size(), &raw_options, time.milliseconds(), hold);
    }
    int start(const limit &time, flk_request **request) const
    {
        return flk_request_start(raw_wants.data(), raw_wants.size(), &raw_options, time.milliseconds(), request);
    }

private:
    static void call(const flk_waiting *waiting, void *data) { static_cast<const options *>(data)->waiting(*waiting); }
    int fd;
    std::vector<flk_want> raw_wants;
    flk_options raw_options;
};

/* ---- hold ---- */

class hold {
public:
    hold() noexcept : raw(nullptr) {}
    explicit hold(flk_hold *got) noexcept : raw(got) {} /* takes it over */
    explicit hold(const want &what, const limit &time = limit(), const options &with = options())
        : raw(acquire(wants(1, what), time, with))
    {
    }
    explicit hold(const wants &what, const limit &time = limit(), const options &with = options())
        : raw(acquire(what, time, with))
    {
    }
    explicit hold(std::initializer_list<want> what, const limit &time = limit(), const options &with = options())
        : raw(acquire(wants(what), time, with))
    {
    }
    hold(hold &&other) noexcept : raw(other.detach()) {}
    hold &operator=(hold &&other) noexcept
    {
        if (this != &other) {
            release();
            raw = other.detach();
        }
        return *this;
    }
    hold(const hold &) = delete;
    hold &operator=(const hold &) = delete;
    ~hold() { release(); }

    explicit operator bool() const noexcept { return raw != nullptr; }
    flk_hold *get() const noexcept { return raw; }
    flk_hold *detach() noexcept /* the caller's to release */
    {
        flk_hold *got = raw;
        raw = nullptr;
        return got;
    }
    void release() noexcept { flk_hold_release(detach()); }
    void decline() noexcept { flk_hold_decline(detach()); }

    /* Of one that isn't empty. index: the position among the names. */
    std::string id() const { return flk_hold_id(raw); }
    std::size_t names() const noexcept { return flk_hold_names(raw); }
    std::string name(std::size_t index = 0) const { return flk_hold_name(raw, index); }
    std::vector<unsigned> slots(std::size_t index = 0) const
    {
        const unsigned *numbers = nullptr;
        const std::size_t count = flk_hold_slots(raw, index, &numbers);
        return std::vector<unsigned>(numbers, numbers + count);
    }
    unsigned slot(std::size_t index = 0) const { return slots(index).front(); }
    std::string value(std::size_t index = 0, std::size_t slot_index = 0) const /* "": the name is no pool */
    {
        const char *text = flk_hold_value(raw, index, slot_index);
        return text ? text : "";
    }
    bool abandoned() const noexcept { return flk_hold_abandoned(raw) != 0; }
    const flk_holder *predecessor() const noexcept { return flk_hold_predecessor(raw); }
    std::chrono::milliseconds waited() const { return std::chrono::milliseconds(flk_hold_waited_ms(raw)); }
    void inherit(bool on = true) { check(flk_hold_inherit(raw, on)); }

private:
    static flk_hold *acquire(const wants &what, const limit &time, const options &with)
    {
        flk_hold *got = nullptr;
        check(specification(what, with).acquire(time, &got));
        return got;
    }
    flk_hold *raw;
};

/* An empty hold: somebody else has it. Everything else that goes wrong is thrown, a deadlock too. */
inline hold try_acquire(const wants &what, const limit &time = std::chrono::milliseconds(0),
                        const options &with = options())
{
    flk_hold *got = nullptr;
    const int code = specification(what, with).acquire(time, &got);
    if (!is_taken(code))
        check(code);
    return hold(got);
}

inline hold try_acquire(const want &what, const limit &time = std::chrono::milliseconds(0),
                        const options &with = options())
{
    return try_acquire(wants(1, what), time, with);
}

/* By this process: 0 no, 1 shared, 2 exclusively. */
inline int held(const std::string &name) noexcept
{
    return flk_held(name.c_str());
}

/* ---- request: for programs with a loop of their own ---- */

class request {
public:
    explicit request(const wants &what, const limit &time = limit(), const options &with = options())
        : kept(new options(with)), raw(nullptr)
    {
        check(specification(what, *kept).start(time, &raw));
    }
    explicit request(const want &what, const limit &time = limit(), const options &with = options())
        : request(wants(1, what), time, with)
    {
    }
    request(request &&other) noexcept : kept(std::move(other.kept)), raw(other.raw) { other.raw = nullptr; }
    request &operator=(request &&other) noexcept
    {
        std::swap(kept, other.kept);
        std::swap(raw, other.raw);
        return *this;
    }
    request(const request &) = delete;
    request &operator=(const request &) = delete;
    ~request() { flk_request_cancel(raw); }

    int fd() const { return check(flk_request_fd(raw)); } /* poll for POLLIN, then step() */
    hold step()                                           /* empty: not yet */
    {
        flk_hold *got = nullptr;
        const int code = flk_request_step(raw, &got);
        if (code != -EAGAIN)
            check(code);
        return hold(got);
    }

private:
    std::unique_ptr<options> kept;
    flk_request *raw;
};

/* ---- mutex ---- */

/* A name of one slot as std::lock_guard, std::unique_lock, std::scoped_lock and std::lock want it: between threads and between
 * processes. Not recursive: deadlock is thrown. It may be used by any number of threads; whoever has it locked unlocks it, in the
 * thread that locked it. */
class mutex {
public:
    explicit mutex(std::string name) : name_(std::move(name)) {}
    mutex(const mutex &) = delete;
    mutex &operator=(const mutex &) = delete;

    void lock() { had = hold(exclusive()); }
    bool try_lock() { return try_lock_for(std::chrono::milliseconds(0)); }
    template <class Rep, class Period> bool try_lock_for(const std::chrono::duration<Rep, Period> &time)
    {
        return keep(try_acquire(exclusive(), time));
    }
    template <class Clock, class Duration> bool try_lock_until(const std::chrono::time_point<Clock, Duration> &time)
    {
        return keep(try_acquire(exclusive(), time));
    }
    /* had is its locker's, so it is emptied before another can have it. */
    void unlock() noexcept { hold last(std::move(had)); }

private:
    want exclusive() const { return want(name_).slots(1); }
    bool keep(hold got)
    {
        if (!got)
            return false;
        had = std::move(got);
        return true;
    }
    std::string name_;
    hold had; /* touched by who has the lock only */
};

} /* namespace flockctl */
#endif
