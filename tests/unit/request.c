/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "tap.h"

static struct log *book;

#define SHARED .flags = FLK_SHARED
#define LOCKER(letter_, ...)                                                                    \
    {                                                                                           \
        .letter = (letter_), .log = book, .timeout_ms = FLK_FOREVER, .wants = { {__VA_ARGS__} } \
    }

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

static int try_once(const char *name, unsigned count, unsigned flags)
{
    struct flk_hold *hold;
    int code = flk_acquire_many(&(struct flk_want){.name = name, .count = count, .flags = flags}, 1, NULL, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return code;
}

/* ---- one after the other ---- */

static void killed_holder(void)
{
    log_clear(book);
    struct locker first = LOCKER('a', .name = "killed"), second = LOCKER('b', .name = "killed");
    is_int(locker_start(&first), 'h', "the first exclusive holder gets it at once");
    locker_wait(&first);
    is_int(locker_start(&second), 'q', "a second one queues");
    ok(locker_waits(&second), "a second exclusive holder waits");
    locker_kill(&first);
    is_int(locker_wait(&second), 0, "until the first is killed");
    locker_release(&second);
    is_int(test_tickets("killed"), 0, "and leaves no ticket");
}

static void released_holder(void)
{
    log_clear(book);
    struct locker first = LOCKER('a', .name = "released"), second = LOCKER('b', .name = "released");
    locker_start(&first);
    locker_wait(&first);
    locker_start(&second);
    locker_release(&first);
    is_int(locker_wait(&second), 0, "a second exclusive holder waits until the first releases");
    locker_release(&second);
    is_int((int)book->most, 1, "and the two are never in at once");
}

static void exited_holder(void)
{
    log_clear(book);
    struct locker first = LOCKER('a', .name = "exited"), second = LOCKER('b', .name = "exited");
    first.early = true;
    locker_start(&first);
    locker_wait(&first);
    locker_start(&second);
    locker_release(&first);
    is_int(locker_wait(&second), 0, "a holder that exits without a word has released");
    locker_release(&second);
}

/* Whoever is killed in the middle of the queue is not missed. */
static void killed_waiter(void)
{
    log_clear(book);
    struct locker lockers[5];
    for (int i = 0; i < 5; i++) {
        lockers[i] = (struct locker)LOCKER((char)('a' + i), .name = "middle");
        locker_start(&lockers[i]);
    }
    locker_wait(&lockers[0]);
    locker_kill(&lockers[2]);
    locker_kill(&lockers[1]);
    ok(locker_waits(&lockers[3]), "a killed waiter doesn't let in who is behind it");
    locker_release(&lockers[0]);
    is_int(locker_wait(&lockers[3]), 0, "who waits behind killed waiters comes next");
    ok(locker_waits(&lockers[4]), "alone");
    locker_kill(&lockers[3]);
    is_int(locker_wait(&lockers[4]), 0, "and then the one behind");
    locker_release(&lockers[4]);
}

/* ---- exclusion by numbers ---- */

struct tally {
    unsigned plain; /* not atomic on purpose */
    _Atomic unsigned inside, most, failures;
};

static void work(struct tally *tally, const struct flk_want *want, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        struct flk_hold *hold;
        if (flk_acquire_many(want, 1, NULL, FLK_FOREVER, &hold) < 0) {
            atomic_fetch_add(&tally->failures, 1);
            return;
        }
        unsigned inside = atomic_fetch_add(&tally->inside, 1) + 1, most = atomic_load(&tally->most);
        while (inside > most && !atomic_compare_exchange_weak(&tally->most, &most, inside))
            ;
        unsigned seen = tally->plain;
        sched_yield();
        *(volatile unsigned *)&tally->plain = seen + 1;
        atomic_fetch_sub(&tally->inside, 1);
        flk_hold_release(hold);
    }
}

static struct tally *crowd(const struct flk_want *want, int processes, int rounds)
{
    struct tally *tally = test_shared(sizeof *tally);
    pid_t pids[16];
    for (int i = 0; i < processes; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0) {
            work(tally, want, rounds);
            _exit(0);
        }
    }
    for (int i = 0; i < processes; i++)
        test_reap(pids[i]);
    return tally;
}

static void exclusion(void)
{
    struct tally *tally = crowd(&(struct flk_want){.name = "crowd"}, 8, 100);
    is_int(tally->failures, 0, "8 processes acquire 100 times each");
    is_int(tally->most, 1, "never two at once");
    is_int(tally->plain, 800, "and no increment of a plain counter is lost");
    define("crowd3", 3);
    tally = crowd(&(struct flk_want){.name = "crowd3"}, 8, 100);
    is_int(tally->failures, 0, "the same with a semaphore of three");
    ok(tally->most >= 1 && tally->most <= 3, "never four at once (%u)", tally->most);
    tally = crowd(&(struct flk_want){.name = "crowd3", .count = FLK_ALL}, 4, 50);
    is_int(tally->plain, 200, "who asks for all slots is alone");
}

static void semaphore(void)
{
    log_clear(book);
    define("three", 3);
    struct locker lockers[4];
    for (int i = 0; i < 3; i++) {
        lockers[i] = (struct locker)LOCKER((char)('a' + i), .name = "three");
        is_int(locker_start(&lockers[i]), 'h', "holder %d of a semaphore of three gets in at once", i + 1);
        locker_wait(&lockers[i]);
    }
    lockers[3] = (struct locker)LOCKER('d', .name = "three");
    is_int(locker_start(&lockers[3]), 'q', "the fourth waits");
    locker_release(&lockers[1]);
    is_int(locker_wait(&lockers[3]), 0, "until one of them is through");
    for (int i = 0; i < 4; i++)
        if (i != 1)
            locker_release(&lockers[i]);
    is_int((int)book->most, 3, "three were in at once");
}

static void shared_holders(void)
{
    log_clear(book);
    struct locker a = LOCKER('a', .name = "shared", SHARED), b = LOCKER('b', .name = "shared", SHARED),
                  writer = LOCKER('w', .name = "shared"), c = LOCKER('c', .name = "shared", SHARED);
    is_int(locker_start(&a), 'h', "a shared holder gets in");
    locker_wait(&a);
    is_int(locker_start(&b), 'h', "with another one");
    locker_wait(&b);
    is_int(locker_start(&writer), 'q', "an exclusive one waits for shared holders");
    is_int(locker_start(&c), 'q', "and nobody overtakes it: a later shared one queues");
    locker_release(&a);
    ok(locker_waits(&writer), "one of two shared holders has gone: it still waits");
    locker_release(&b);
    is_int(locker_wait(&writer), 0, "both have gone: it gets in, so readers can't starve a writer");
    ok(locker_waits(&c), "the later shared one waits for it");
    locker_release(&writer);
    is_int(locker_wait(&c), 0, "and comes next");
    locker_release(&c);
    is_str(book->letters, "abwc", "in the order of arrival");
}

static void all_is_not_starved(void)
{
    log_clear(book);
    define("pool", 3);
    struct locker single = LOCKER('a', .name = "pool"), all = LOCKER('L', .name = "pool", .count = FLK_ALL),
                  later = LOCKER('b', .name = "pool");
    locker_start(&single);
    locker_wait(&single);
    is_int(locker_start(&all), 'q', "who wants all slots waits for the one that is taken");
    is_int(locker_start(&later), 'q', "a later request for one waits, though two slots are free");
    is_int(try_once("pool", 1, 0), -EBUSY, "and so does one that won't wait");
    locker_release(&single);
    is_int(locker_wait(&all), 0, "requests for one can't starve the one for all");
    ok(locker_waits(&later), "while all are taken, the later one waits");
    locker_release(&all);
    is_int(locker_wait(&later), 0, "and comes next");
    locker_release(&later);
}

#define ONE(count_)                       \
    {                                     \
        .name = "mix1", .count = (count_) \
    }
#define ONE_SHARED             \
    {                          \
        .name = "mix1", SHARED \
    }
#define OF_FOUR(count_)                   \
    {                                     \
        .name = "mix4", .count = (count_) \
    }

/* Whatever each asks for, no two neighbours fit together. All but the first are in the queue when that lets go, so the
 * order is the queue's. */
static void first_come_first_served(void)
{
    static const struct flk_want mixes[][8] = {
        {ONE(1), ONE(1), ONE(1), ONE(1), ONE(1), ONE(1), ONE(1), ONE(1)},
        {ONE(1), ONE_SHARED, ONE(1), ONE_SHARED, ONE(1), ONE(FLK_ALL), ONE_SHARED, ONE(1)},
        {OF_FOUR(4), OF_FOUR(3), OF_FOUR(2), OF_FOUR(4), OF_FOUR(3), OF_FOUR(FLK_ALL), OF_FOUR(2), OF_FOUR(3)},
        {OF_FOUR(FLK_ALL), OF_FOUR(4), OF_FOUR(1), OF_FOUR(FLK_ALL), OF_FOUR(1), OF_FOUR(4), OF_FOUR(3), OF_FOUR(2)},
    };
    define("mix4", 4);
    for (size_t mix = 0; mix < sizeof mixes / sizeof *mixes; mix++) {
        struct locker lockers[8];
        log_clear(book);
        for (int i = 0; i < 8; i++) {
            lockers[i] = (struct locker){
                .letter = (char)('a' + i), .log = book, .timeout_ms = FLK_FOREVER, .wants = {mixes[mix][i]}};
            locker_start(&lockers[i]);
        }
        locker_wait(&lockers[0]);
        for (int i = 0; i + 1 < 8; i++) {
            ok(locker_waits(&lockers[i + 1]), "mix %zu: number %d waits for the one before", mix + 1, i + 1);
            locker_release(&lockers[i]);
            locker_wait(&lockers[i + 1]);
        }
        locker_release(&lockers[7]);
        is_str(book->letters, "abcdefgh", "mix %zu is served first come, first served", mix + 1);
        is_int((int)book->by_look, 0, "and by events, not by the look once a second");
    }
}

/* ---- several names ---- */

static void several_names(void)
{
    struct flk_want forward[] = {{.name = "n1"}, {.name = "n2"}, {.name = "n3"}},
                    backward[] = {{.name = "n3"}, {.name = "n2"}, {.name = "n1"}};
    int failures = 0, rounds = test_is_slow() ? 50 : 200;
    pid_t pids[4];
    struct tally *tally = test_shared(sizeof *tally);
    for (int i = 0; i < 4; i++) {
        pids[i] = tap_fork();
        for (int round = 0; pids[i] == 0 && round < rounds; round++) {
            struct flk_hold *hold;
            if (flk_acquire_many(i % 2 ? forward : backward, 3, NULL, 15000, &hold) < 0)
                _exit(1);
            if (atomic_fetch_add(&tally->inside, 1) > 0)
                _exit(2);
            atomic_fetch_sub(&tally->inside, 1);
            flk_hold_release(hold);
        }
        if (pids[i] == 0)
            _exit(0);
    }
    for (int i = 0; i < 4; i++)
        failures += test_reap(pids[i]) != 0;
    is_int(failures, 0, "several names in whatever order: no deadlock, and nobody is in with another one");
    struct flk_hold *hold;
    is_int(flk_acquire_many(backward, 3, NULL, 0, &hold), 0, "several names at once");
    is_str(flk_hold_name(hold, 0), "n3", "stand in the hold in the order asked for");
    is_str(flk_hold_name(hold, 2), "n1", "to the last");
    flk_hold_release(hold);
}

static void half_of_several(void)
{
    struct flk_hold *hold;
    struct locker holder = LOCKER(0, .name = "half2");
    locker_start(&holder);
    locker_wait(&holder);
    struct flk_want both[] = {{.name = "half2"}, {.name = "half1"}};
    is_int(flk_acquire_many(both, 2, NULL, 0, &hold), -EBUSY, "several names, one of them taken: busy");
    is_int(try_once("half1", 1, 0), 0, "and what was got of the others is let go");
    is_int(flk_acquire_many(both, 2, NULL, 30, &hold), -ETIMEDOUT, "the same with a deadline");
    is_int(try_once("half1", 1, 0), 0, "is let go too");
    is_int(flk_held("half1"), 0, "and not held by us");
    locker_release(&holder);
}

/* ---- what can't be ---- */

static void check_refused(const char *what, struct flk_want want, int code)
{
    struct flk_hold *hold = NULL;
    is_int(flk_acquire_many(&want, 1, NULL, 0, &hold), code, "%s is refused", what);
    ok(!hold && strlen(flk_error_detail()) > 10, "with a sentence: %s", flk_error_detail());
}

static void refusals(void)
{
    struct flk_hold *hold;
    define("two", 2);
    check_refused("more than there are", (struct flk_want){.name = "two", .count = 3}, -EINVAL);
    check_refused("sharing a row of two", (struct flk_want){.name = "two", SHARED}, -EINVAL);
    check_refused("sharing a row to be made of two", (struct flk_want){.name = "fresh", .slots = 2, SHARED}, -EINVAL);
    check_refused("sharing two", (struct flk_want){.name = "two", .count = 2, SHARED}, -EINVAL);
    check_refused("another number of slots", (struct flk_want){.name = "two", .slots = 3}, -EUSERS);
    ok(strstr(flk_error_detail(), "2 slots") && strstr(flk_error_detail(), "not 3"), "which says both numbers");
    check_refused("a count of a name that isn't defined", (struct flk_want){.name = "undefined", .count = 2}, -ENOENT);
    check_refused("all of a name that isn't defined", (struct flk_want){.name = "undefined", .count = FLK_ALL},
                  -ENOENT);
    check_refused("4097 slots", (struct flk_want){.name = "many", .slots = 4097}, -EINVAL);
    check_refused("an unknown flag", (struct flk_want){.name = "two", .flags = 2}, -EINVAL);
    check_refused("something in reserved fields", (struct flk_want){.name = "two", .reserved = {1}}, -EINVAL);
    check_refused("a bad name", (struct flk_want){.name = "../two"}, -EINVAL);
    struct flk_want twice[] = {{.name = "two"}, {.name = "one"}, {.name = "two"}};
    is_int(flk_acquire_many(twice, 3, NULL, 0, &hold), -EINVAL, "a name twice is refused");
    ok(strstr(flk_error_detail(), "two") != NULL, "by name");
    is_int(flk_acquire_many(twice, 0, NULL, 0, &hold), -EINVAL, "no name at all is refused");
    is_int(flk_acquire_many(twice, 1, &(struct flk_options){.reserved = {1}}, 0, &hold), -EINVAL,
           "options of a later release are refused");
    is_int(test_entries(test_path("root/rows/undefined")), -1, "a refused request makes no row");
}

/* ---- giving up ---- */

static void trying_once(void)
{
    struct locker holder = LOCKER(0, .name = "once");
    locker_start(&holder);
    locker_wait(&holder);
    is_int(try_once("once", 1, 0), -EBUSY, "trying once what is taken says busy");
    is_int(try_once("once", 1, FLK_SHARED), -EBUSY, "shared as well");
    is_int(test_tickets("once"), 0, "and leaves no ticket");
    locker_release(&holder);
    is_int(try_once("once", 1, 0), 0, "trying once what is free takes it");
    int wrong = 0;
    for (int i = 0; i < 1000; i++)
        wrong += try_once("once", 1, 0) != 0;
    is_int(wrong, 0, "a thousand times");
}

static void deadlines(void)
{
    struct flk_hold *hold;
    struct locker holder = LOCKER(0, .name = "deadline");
    locker_start(&holder);
    locker_wait(&holder);
    int64_t before = fk_now();
    is_int(flk_acquire("deadline", 0, 50, &hold), -ETIMEDOUT, "a deadline ends the wait");
    ok(fk_now() - before >= 50 * FK_MS, "not before it has passed");
    is_int(test_tickets("deadline"), 0, "and no ticket is left");
    struct locker waiter = LOCKER(0, .name = "deadline"), behind = LOCKER(0, .name = "deadline");
    waiter.timeout_ms = 50;
    locker_start(&waiter);
    locker_start(&behind);
    is_int(locker_wait(&waiter), -ETIMEDOUT, "one in the middle of the queue gives up");
    locker_release(&waiter);
    ok(locker_waits(&behind), "who is behind it waits on");
    locker_release(&holder);
    is_int(locker_wait(&behind), 0, "and comes next");
    locker_release(&behind);
}

static void *make_readable(void *event)
{
    test_wait_queued("cancel", 1);
    eventfd_write(*(int *)event, 1);
    return NULL;
}

static void cancelling(void)
{
    struct flk_hold *hold;
    pthread_t thread;
    int event = eventfd(0, EFD_CLOEXEC);
    struct locker holder = LOCKER(0, .name = "cancel");
    locker_start(&holder);
    locker_wait(&holder);
    pthread_create(&thread, NULL, make_readable, &event);
    is_int(flk_acquire_many(&(struct flk_want){.name = "cancel"}, 1, &(struct flk_options){.cancel_fd = &event},
                            FLK_FOREVER, &hold),
           -ECANCELED, "a descriptor that becomes readable ends the wait");
    pthread_join(thread, NULL);
    is_int(test_tickets("cancel"), 0, "and no ticket is left");
    locker_release(&holder);
    close(event);
}

/* ---- requests as descriptors ---- */

#define MANY 100

static void many_requests_in_one_thread(void)
{
    struct flk_request *requests[MANY];
    struct flk_hold *hold, *first;
    struct epoll_event event;
    int epoll = epoll_create1(EPOLL_CLOEXEC), served = 0, in_order = 0, before = test_descriptors();
    if (flk_acquire("hundred", 0, 0, &first) < 0)
        bail_out("%s", flk_error_detail());
    for (int i = 0; i < MANY; i++) {
        int fd = -1;
        if (flk_request_start(&(struct flk_want){.name = "hundred"}, 1, NULL, FLK_FOREVER, &requests[i]) == 0)
            fd = flk_request_fd(requests[i]);
        if (fd < 0 || flk_request_step(requests[i], &hold) != -EAGAIN ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.u32 = (uint32_t)i}) < 0)
            bail_out("request %d: %s", i, flk_error_detail());
    }
    is_int(test_tickets("hundred"), MANY, "a hundred requests of one thread stand in the queue");
    int code0 = flk_request_step(requests[0], &hold); /* so that its look once a second isn't due */
    ok(code0 == -EAGAIN && !test_readable(flk_request_fd(requests[0]), 0),
       "the descriptor of one that waits isn't readable");
    flk_hold_release(first);
    while (served < MANY && epoll_wait(epoll, &event, 1, 10000) == 1) {
        int code = flk_request_step(requests[event.data.u32], &hold);
        if (code == -EAGAIN)
            continue;
        if (code < 0)
            break;
        in_order += (int)event.data.u32 == served++;
        flk_request_cancel(requests[event.data.u32]);
        flk_hold_release(hold);
    }
    is_int(served, MANY, "their descriptors tell by epoll when to go on, until all are served");
    is_int(in_order, MANY, "in the order of arrival");
    ok(test_descriptors() <= before + 3, "and nothing but the idle row stays open");
    close(epoll);
}

static void descriptor_before_the_first_step(void)
{
    struct flk_request *request;
    struct flk_hold *hold = NULL;
    if (flk_request_start(&(struct flk_want){.name = "early"}, 1, NULL, FLK_FOREVER, &request) < 0)
        bail_out("%s", flk_error_detail());
    int fd = flk_request_fd(request);
    ok(test_readable(fd, 5000), "a request's descriptor is readable before its first step");
    is_int(flk_request_step(request, &hold), 0, "which is served");
    is_int(flk_request_step(request, &hold), -EINVAL, "a step after that is refused");
    is_int(flk_request_fd(request), fd, "the descriptor stays the same");
    flk_request_cancel(request);
    flk_request_cancel(NULL);
    is_int(try_once("early", 1, 0), -EBUSY, "ending a request doesn't touch the hold that was got");
    flk_hold_release(hold);
    is_int(try_once("early", 1, 0), 0, "which is released on its own");
}

static void deadline_by_descriptor(void)
{
    struct flk_hold *holder, *hold;
    struct flk_request *request;
    if (flk_acquire("late", 0, 0, &holder) < 0 ||
        flk_request_start(&(struct flk_want){.name = "late"}, 1, NULL, 40, &request) < 0)
        bail_out("%s", flk_error_detail());
    int fd = flk_request_fd(request), code;
    while ((code = flk_request_step(request, &hold)) == -EAGAIN && test_readable(fd, 5000))
        ;
    is_int(code, -ETIMEDOUT, "the descriptor tells of the deadline");
    flk_request_cancel(request);
    flk_hold_release(holder);
}

static int use_copies(void *data)
{
    struct flk_hold *hold;
    int code = flk_request_step(data, &hold);
    flk_request_cancel(data);
    return code == -EINVAL ? 0 : 1;
}

static void forked_request(void)
{
    struct flk_hold *holder, *hold;
    struct flk_request *request;
    if (flk_acquire("forked", 0, 0, &holder) < 0 ||
        flk_request_start(&(struct flk_want){.name = "forked"}, 1, NULL, FLK_FOREVER, &request) < 0 ||
        flk_request_step(request, &hold) != -EAGAIN)
        bail_out("%s", flk_error_detail());
    is_int(test_in_child(use_copies, request), 0, "a forked child can't go on with its parent's request, only free it");
    is_int(test_tickets("forked"), 1, "which doesn't touch the parent's ticket");
    flk_hold_release(holder);
    is_int(flk_request_step(request, &hold), 0, "and the parent goes on");
    flk_request_cancel(request);
    flk_hold_release(hold);
}

/* ---- stopped waiters ---- */

static void stopped_waiter(void)
{
    log_clear(book);
    struct locker holder = LOCKER('a', .name = "stopped"), stopped = LOCKER('s', .name = "stopped"),
                  later = LOCKER('b', .name = "stopped"), last = LOCKER('c', .name = "stopped");
    locker_start(&holder);
    locker_wait(&holder);
    locker_start(&stopped);
    test_stop(stopped.pid);
    locker_start(&later);
    int64_t since = fk_now();
    locker_release(&holder);
    is_int(locker_wait(&later), 0, "a stopped waiter is passed over");
    int64_t took = fk_now() - since;
    ok(took >= FK_SECOND * 9 / 10, "after a second (%lld ms)", (long long)(took / FK_MS));
    ok(took < 25 * FK_SECOND / 10 * (test_is_slow() ? 2 : 1), "and before two and a half");
    locker_start(&last);
    kill(stopped.pid, SIGCONT);
    ok(locker_waits(&stopped), "continued, it waits");
    test_wait_queued("stopped", 2);
    locker_release(&later);
    is_int(locker_wait(&last), 0, "at the end of the queue");
    locker_release(&last);
    is_int(locker_wait(&stopped), 0, "and is served from there");
    locker_release(&stopped);
    is_int((int)book->most, 1, "and nobody was in with another one");
}

static void trying_past_the_stopped(void)
{
    struct locker holder = LOCKER(0, .name = "past"), stopped = LOCKER(0, .name = "past"),
                  other = LOCKER(0, .name = "past");
    locker_start(&holder);
    locker_wait(&holder);
    locker_start(&stopped);
    locker_start(&other);
    test_stop(stopped.pid);
    is_int(try_once("past", 1, 0), -EBUSY, "trying once what is taken says busy, whoever queues");
    test_stop(other.pid);
    locker_release(&holder);
    is_int(try_once("past", 1, 0), 0, "trying once what is free passes over stopped waiters");
    kill(other.pid, SIGCONT);
    kill(stopped.pid, SIGCONT);
    is_int(locker_wait(&stopped), 0, "which keep their places");
    is_int(try_once("past", 1, 0), -EBUSY, "and it never passes those that go on");
    locker_release(&stopped);
    is_int(locker_wait(&other), 0, "in their order");
    locker_release(&other);
}

/* One whose deadline comes while all before it are stopped takes what is free; those behind it still come after them.
 */
static void deadline_past_the_stopped(void)
{
    struct locker holder = LOCKER(0, .name = "pastlate"), stopped = LOCKER(0, .name = "pastlate"),
                  hasty = LOCKER(0, .name = "pastlate"), behind = LOCKER(0, .name = "pastlate");
    locker_start(&holder);
    locker_wait(&holder);
    locker_start(&stopped);
    hasty.timeout_ms = 200;
    locker_start(&hasty);
    locker_start(&behind);
    test_stop(stopped.pid);
    locker_release(&holder);
    is_int(locker_wait(&hasty), 0, "a deadline that comes while those before are stopped takes what is free");
    locker_release(&hasty);
    ok(!test_readable(behind.socket, 100), "those behind it have still somebody before them");
    kill(stopped.pid, SIGCONT);
    is_int(locker_wait(&stopped), 0, "who goes on within the second keeps the place");
    locker_release(&stopped);
    is_int(locker_wait(&behind), 0, "and then they come");
    locker_release(&behind);
}

/* ---- callbacks ---- */

struct seen {
    int calls, latch;
    pid_t holder, first;
    unsigned ahead, holders, slots;
    int64_t waited_ms;
    char label[32], name[32];
};

static void waiting(const struct flk_waiting *now, void *data)
{
    struct seen *seen = data;
    seen->calls++;
    seen->holder = now->holder ? now->holder->pid : 0;
    seen->first = now->first ? now->first->pid : 0;
    seen->ahead = now->ahead;
    seen->holders = now->holders;
    seen->slots = now->slots;
    seen->waited_ms = now->waited_ms;
    snprintf(seen->name, sizeof seen->name, "%s", now->name);
    snprintf(seen->label, sizeof seen->label, "%s", now->holder ? now->holder->label : "");
    int fd = open(test_path("root/rows/%s/latch", now->name), O_RDWR | O_CLOEXEC);
    seen->latch = flock(fd, LOCK_EX | LOCK_NB);
    close(fd);
}

static void *hold_called(void *data)
{
    struct flk_hold **holder = data;
    if (flk_acquire_many(&(struct flk_want){.name = "called"}, 1, &(struct flk_options){.label = "the label"}, 0,
                         holder) < 0)
        bail_out("%s", flk_error_detail());
    return NULL;
}

static void in_another_thread(void *(*run)(void *data), void *data)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, data) != 0 || pthread_join(thread, NULL) != 0)
        bail_out("no thread");
}

static void callbacks(void)
{
    struct seen seen = {0};
    struct flk_hold *holder, *hold;
    in_another_thread(hold_called, &holder); /* whose it stays: we may wait for it */
    struct locker before = LOCKER(0, .name = "called");
    locker_start(&before);
    struct flk_options options = {.waiting = waiting, .data = &seen};
    is_int(flk_acquire_many(&(struct flk_want){.name = "called"}, 1, &options, 900, &hold), -ETIMEDOUT,
           "a wait of less than a second");
    is_int(seen.calls, 0, "is not told of");
    is_int(flk_acquire_many(&(struct flk_want){.name = "called"}, 1, &options, 1500, &hold), -ETIMEDOUT,
           "a longer one");
    is_int(seen.calls, 1, "is, once, after a second");
    ok(seen.waited_ms >= 1000, "with how long it has been");
    is_str(seen.name, "called", "of what");
    is_int(seen.holder, getpid(), "who has it");
    is_str(seen.label, "the label", "with the label");
    is_int(seen.holders, 1, "the only one");
    is_int(seen.slots, 1, "of a row of one");
    is_int(seen.first, before.pid, "who is first in line");
    is_int(seen.ahead, 1, "and how many are before us");
    is_int(seen.latch, 0, "and without the latch, which anybody can take");
    flk_hold_release(holder);
    locker_wait(&before);
    locker_release(&before);
}

static void *acquire_own(void *data)
{
    if (flk_acquire("own", 0, 0, data) < 0)
        bail_out("%s", flk_error_detail());
    return NULL;
}

/* The one that blocks could be ended by nobody but the thread that blocks in it. */
static void waiting_for_oneself(void)
{
    struct flk_hold *hold, *second, *third;
    struct flk_request *request;
    struct flk_want all = {.name = "own4", .count = FLK_ALL};
    if (flk_acquire("own", 0, 0, &hold) < 0 || flk_row_define("own4", 4) < 0)
        bail_out("%s", flk_error_detail());
    is_int(flk_acquire("own", 0, FLK_FOREVER, &second), -EDEADLK, "waiting for what this thread holds: deadlock");
    ok(strstr(flk_error_detail(), "own is held by this very thread"), "it says so: %s", flk_error_detail());
    is_int(flk_acquire("own", FLK_SHARED, 60000, &second), -EDEADLK, "shared as well, and at once");
    is_int(test_tickets("own"), 0, "it leaves nothing in the queue");
    is_int(flk_acquire("own", 0, 0, &second), -EBUSY, "trying once is busy");
    is_int(flk_row_remove("own", FLK_FOREVER), -EDEADLK, "to remove it is to wait for it");
    is_int(flk_request_start(&(struct flk_want){.name = "own"}, 1, NULL, FLK_FOREVER, &request), 0,
           "a request that doesn't block");
    is_int(flk_request_step(request, &second), -EAGAIN, "waits: its thread can still release");
    flk_hold_release(hold);
    is_int(flk_request_step(request, &second), 0, "and does");
    flk_request_cancel(request);
    flk_hold_release(second);

    if (flk_acquire("own", FLK_SHARED, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    is_int(flk_acquire("own", FLK_SHARED, FLK_FOREVER, &second), 0, "shared twice is no deadlock");
    flk_hold_release(second);
    is_int(flk_acquire("own", 0, FLK_FOREVER, &second), -EDEADLK, "exclusive under shared is one");
    flk_hold_release(hold);

    if (flk_acquire("own4", 0, 0, &hold) < 0 || flk_acquire("own4", 0, 0, &second) < 0)
        bail_out("%s", flk_error_detail());
    is_int(flk_acquire_many(&all, 1, NULL, FLK_FOREVER, &third), -EDEADLK, "two of four and all: deadlock");
    ok(strstr(flk_error_detail(), "this very thread holds 2 of the 4 slots"), "it says how many: %s",
       flk_error_detail());
    all.count = 2;
    is_int(flk_acquire_many(&all, 1, NULL, FLK_FOREVER, &third), 0, "two of four and two are none");
    flk_hold_release(third);
    flk_hold_release(second);
    flk_hold_release(hold);

    in_another_thread(acquire_own, &hold);
    is_int(flk_acquire("own", 0, 30, &second), -ETIMEDOUT, "what another thread has got is waited for, whoever has it now");
    flk_hold_release(hold);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 120 : 30);
    test_root();
    book = test_shared(sizeof *book);
    killed_holder();
    released_holder();
    exited_holder();
    killed_waiter();
    exclusion();
    semaphore();
    shared_holders();
    all_is_not_starved();
    first_come_first_served();
    several_names();
    half_of_several();
    refusals();
    trying_once();
    deadlines();
    cancelling();
    many_requests_in_one_thread();
    descriptor_before_the_first_step();
    deadline_by_descriptor();
    forked_request();
    stopped_waiter();
    trying_past_the_stopped();
    deadline_past_the_stopped();
    callbacks();
    waiting_for_oneself();
    return done_testing();
}
