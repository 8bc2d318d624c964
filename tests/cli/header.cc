// SPDX-License-Identifier: LGPL-2.1-or-later
// What flockctl.hpp promises, for tests/cli/header.t: TAP, with a lock directory of its own in FLOCKCTL_DIR.
#include <flockctl.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

extern "C" {
#include "tap.h"
}

using std::chrono::milliseconds;

static_assert(!std::is_copy_constructible<flockctl::hold>::value, "a hold is one");
static_assert(std::is_nothrow_move_constructible<flockctl::hold>::value, "moves never throw");
static_assert(std::is_nothrow_move_assignable<flockctl::hold>::value, "moves never throw");
static_assert(std::is_base_of<std::system_error, flockctl::not_acquired>::value, "errors are system errors");

static void scopes()
{
    {
        flockctl::hold one("one");
        ok(flk_held("one") == 2 && one, "a hold holds");
        ok(!flockctl::hold().get(), "one made of nothing is empty");
    }
    ok(!flk_held("one"), "and releases at the end of its scope");
    try {
        flockctl::hold one(std::string("one"));
        throw std::runtime_error("on the way");
    } catch (const std::runtime_error &) {
        ok(!flk_held("one"), "also by an exception");
    }
    flockctl::hold first("one"), second;
    second = std::move(first);
    ok(!first && second && flk_held("one"), "moved, it is held still");
    second = flockctl::hold("two");
    ok(!flk_held("one") && flk_held("two"), "what is assigned to releases what it had");
    flockctl::hold taken(second.detach());
    taken.release();
    ok(!taken && !flockctl::held("two"), "released by hand, and taken over");
}

static void what_it_says()
{
    flockctl::hold both({"a", "b"});
    ok(both.names() == 2 && both.name(1) == "b", "two names as a list");
    flockctl::hold many({flockctl::want("engine").count(2).slots(3), "c"}, milliseconds(0));
    ok(many.slots() == std::vector<unsigned>({0, 1}) && many.slot(1) == 0, "slots and their numbers");
    flockctl::hold rest(flockctl::want("engine"));
    is_int(rest.slot(), 2, "the third");
    const char *const ports[] = {"20001", "20002"};
    flk_pool pool = flk_pool();
    pool.values = ports;
    pool.n_values = 2;
    flockctl::check(flk_pool_define("ports", &pool));
    flockctl::hold port("ports"), all(flockctl::want("ports"));
    ok(port.value() == "20001" && all.value(0, 0) == "20002" && rest.value().empty(), "what slots stand for");
    ok(!many.abandoned() && !many.predecessor() && many.waited() >= milliseconds(0), "whether it was abandoned");
    ok(!many.id().empty() && many.id() != both.id(), "ids");
    flockctl::hold reader(flockctl::want("r").shared()), other(flockctl::want("r").shared());
    is_int(flockctl::held("r"), 1, "shared, twice");
}

template <class Exception, class Call> static std::string thrown(std::errc wanted, Call call)
{
    try {
        call();
    } catch (const Exception &exception) {
        ok(exception.code() == wanted, "its code: %s", exception.code().message().c_str());
        return exception.what();
    }
    return "";
}

// Another thread holds name while call runs: this one would be told that it has it itself.
template <class Call> static void while_held(const char *name, Call call)
{
    flockctl::hold had;
    std::thread([&] { had = flockctl::hold(name); }).join();
    call();
}

static void errors()
{
    while_held("e", [] {
        std::string text = thrown<flockctl::not_acquired>(std::errc::timed_out, [] { flockctl::hold("e", milliseconds(2)); });
        ok(text.find("e is still taken") == 0, "no time left: %s", text.c_str());
        text = thrown<flockctl::not_acquired>(std::errc::device_or_resource_busy, [] { flockctl::hold("e", milliseconds(0)); });
        ok(text.find("e is taken") == 0, "asked not to wait: %s", text.c_str());
        ok(!flockctl::try_acquire("e"), "tried: empty");
        ok(!flockctl::try_acquire("e", std::chrono::steady_clock::now() + milliseconds(2)), "tried until a point in time");
        ok(!flockctl::try_acquire("e", std::chrono::system_clock::now() - std::chrono::hours(1)), "which may have passed");
    });
    ok(bool(flockctl::try_acquire("e")), "tried when it is free");
    std::string text = thrown<flockctl::error>(std::errc::invalid_argument, [] { flockctl::try_acquire("no/name"); });
    ok(text.find("no/name") != text.npos, "a bad name, also tried: %s", text.c_str());
    flockctl::hold mine("e");
    text = thrown<flockctl::deadlock>(std::errc::resource_deadlock_would_occur, [] { flockctl::hold("e"); });
    ok(text.find("this very thread") != text.npos, "waiting for itself: %s", text.c_str());
}

static void limits()
{
    is_int(flockctl::limit().milliseconds(), FLK_FOREVER, "no limit");
    is_int(flockctl::limit(std::chrono::microseconds(1500)).milliseconds(), 2, "rounded up");
    is_int(flockctl::limit(std::chrono::duration<double>(-1.5)).milliseconds(), 0, "negative");
    is_int(flockctl::limit(std::chrono::hours(2)).milliseconds(), 7200000, "hours");
    is_int(flockctl::limit(std::chrono::hours::max()).milliseconds(), FLK_FOREVER, "the longest");
    is_int(flockctl::limit(std::chrono::steady_clock::time_point::max()).milliseconds() > 0, true, "the last point in time");
}

static void callbacks()
{
    while_held("w", [] {
        flockctl::options with;
        std::string waited_for;
        with.label = "test";
        with.waiting = [&](const flk_waiting &waiting) {
            waited_for = waiting.name;
            throw std::runtime_error("enough");
        };
        try {
            flockctl::hold never("w", std::chrono::minutes(2), with);
        } catch (const std::runtime_error &exception) {
            is_str((waited_for + " " + exception.what()).c_str(), "w enough", "an exception ends the wait");
        }
    });
    ok(bool(flockctl::try_acquire("w")), "and leaves nobody in the queue");
}

static void requests()
{
    flockctl::hold had;
    std::thread([&] { had = flockctl::hold("q"); }).join();
    flockctl::request request("q"), moved(std::move(request));
    ok(!moved.step(), "a request waits");
    had.release();
    flockctl::hold got;
    pollfd event = {moved.fd(), POLLIN, 0};
    while (!got && poll(&event, 1, 20000) > 0)
        got = moved.step();
    ok(got && flk_held("q"), "and is served");
}

// The counter is nobody's but the lock's.
static void mutexes()
{
    flockctl::mutex mutex("m");
    int counter = 0;
    std::atomic<int> inside(0), overlaps(0);
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
        threads.emplace_back([&] {
            for (int j = 0; j < 50; j++) {
                std::lock_guard<flockctl::mutex> guard(mutex);
                overlaps += inside++ != 0;
                counter++;
                inside--;
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    ok(counter == 400 && overlaps == 0, "std::lock_guard, in eight threads");
    flockctl::mutex second("n");
    {
        std::unique_lock<flockctl::mutex> a(mutex, std::defer_lock), b(second, std::defer_lock);
        std::lock(a, b);
        ok(flk_held("m") && flk_held("n"), "std::lock");
        std::thread([&] { ok(!second.try_lock_for(milliseconds(1)), "another thread's try_lock_for() is refused"); }).join();
    }
    std::unique_lock<flockctl::mutex> timed(mutex, std::chrono::seconds(20));
    ok(timed.owns_lock(), "std::unique_lock with a limit");
}

int main()
{
    tap_deadline(60);
    scopes();
    what_it_says();
    errors();
    limits();
    callbacks();
    requests();
    mutexes();
    return done_testing();
}
