/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A thread that is cancelled while it waits, or a callback that leaves without returning, leaves nothing behind: no
 * ticket, no slot, no descriptor, no record, no memory (which AddressSanitizer and Valgrind see). */
#include "cancel.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

#ifdef __SANITIZE_THREAD__
#pragma GCC diagnostic ignored "-Wunused-function"
#endif


static struct flk_hold *acquire(const char *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

static bool was_cancelled(pthread_t thread)
{
    void *result;
    return pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED;
}

/* ---- pthread_cancel ---- */

static void *wait_for(void *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, FLK_FOREVER, &hold) == 0)
        flk_hold_release(hold);
    return NULL;
}

static void *wait_for_many(void *wide)
{
    const struct flk_want wants[] = {{.name = "a-first"}, {.name = wide, .count = FLK_ALL}};
    struct flk_hold *hold;
    if (flk_acquire_many(wants, 2, NULL, FLK_FOREVER, &hold) == 0)
        flk_hold_release(hold);
    return NULL;
}

static void *wait_disabled(void *name)
{
    struct flk_hold *hold;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    if (flk_acquire(name, 0, FLK_FOREVER, &hold) < 0)
        return NULL;
    flk_hold_release(hold);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    return before == PTHREAD_CANCEL_DISABLE ? name : NULL;
}

static void *remove_row(void *name)
{
    (void)!flk_row_remove(name, FLK_FOREVER);
    return NULL;
}

static void cancel_waiters(void)
{
    pthread_t thread, disabled;
    void *result;
    struct flk_hold *hold = acquire("wait"), *wide;
    if (flk_row_define("wide", 12) < 0 || flk_acquire("wide", 0, 0, &wide) < 0)
        bail_out("%s", flk_error_detail());
    int before = test_descriptors();
    test_start(&thread, wait_for, (void *)"wait");
    test_wait_queued("wait", 1);
    pthread_cancel(thread);
    ok(was_cancelled(thread), "a thread that waits can be cancelled");
    is_int(test_tickets("wait"), 0, "which takes it out of the queue");
    ok(test_descriptors() <= before + 1, "and closes all of its descriptors, but for the row's watch of its slot");
    test_start(&thread, wait_for_many, (void *)"wide");
    test_wait_queued("wide", 1);
    pthread_cancel(thread);
    ok(was_cancelled(thread), "one that has a name already and waits for 12 slots of another can");
    is_int(flk_held("a-first"), 0, "and gives back what it had");
    test_start(&disabled, wait_disabled, (void *)"wait");
    test_wait_queued("wait", 1);
    pthread_cancel(disabled);
    test_start(&thread, wait_for, (void *)"wait");
    test_wait_queued("wait", 2);
    pthread_cancel(thread);
    ok(was_cancelled(thread), "one behind another one can");
    is_int(test_tickets("wait"), 1, "and one that has cancellation disabled waits on");
    flk_hold_release(hold);
    pthread_join(disabled, &result);
    ok(result && result != PTHREAD_CANCELED, "until it is served");
    hold = acquire("removed");
    test_start(&thread, remove_row, (void *)"removed");
    test_wait_queued("removed", 1);
    pthread_cancel(thread);
    ok(was_cancelled(thread), "flk_row_remove() can be cancelled while it waits");
    is_int(test_tickets("removed"), 0, "and leaves the queue");
    flk_hold_release(hold);
    flk_hold_release(wide);
    test_start(&thread, wait_disabled, (void *)"alone");
    ok(pthread_join(thread, &result) == 0 && result && strcmp(result, "alone") == 0,
       "a call leaves the state of cancellation as it was");
}

/* A pending cancellation acts where the host has such a point of its own, and nowhere in what doesn't sleep. */
static void *cancelled_before(void *data)
{
    struct flk_hold **hold = data;
    pthread_cancel(pthread_self());
    *hold = acquire("pending");
    flk_hold_release(*hold);
    *hold = acquire("pending");
    pthread_testcancel();
    return NULL;
}

static void pending(void)
{
    struct flk_hold *hold = NULL;
    pthread_t thread;
    test_start(&thread, cancelled_before, &hold);
    ok(was_cancelled(thread) && hold, "who need not wait isn't cancelled by us");
    is_int(flk_held("pending"), 2, "and has what it got");
    flk_hold_release(hold);
}

/* ---- at any moment ---- */

struct host {
    _Atomic unsigned turns;
};

static void release_kept(void *hold)
{
    flk_hold_release(*(struct flk_hold **)hold);
}

static void *cycle(void *data)
{
    struct host *host = data;
    for (;;) {
        struct flk_hold *hold = NULL;
        pthread_cleanup_push(release_kept, &hold);
        if (flk_acquire("random", 0, FLK_FOREVER, &hold) == 0)
            atomic_fetch_add(&host->turns, 1);
        pthread_testcancel();
        pthread_cleanup_pop(1);
    }
    return NULL;
}

static void *cycle_requests(void *data)
{
    struct host *host = data;
    for (;;) {
        struct flk_request *request = NULL;
        struct flk_hold *hold = NULL;
        int code = flk_request_start(&(struct flk_want){.name = "random"}, 1, NULL, FLK_FOREVER, &request);
        if (code == 0 && flk_request_fd(request) >= 0)
            code = flk_request_step(request, &hold);
        flk_request_cancel(request);
        flk_hold_release(hold);
        atomic_fetch_add(&host->turns, 1);
        pthread_testcancel();
    }
    return NULL;
}

static void at_random(void)
{
    struct host host = {0};
    int rounds = test_is_slow() ? 60 : 200, not_cancelled = 0;
    unsigned seed = 1;
    flk_hold_release(acquire("random"));
    for (int i = 0; i < rounds; i++) {
        pthread_t threads[3];
        for (int t = 0; t < 3; t++)
            test_start(&threads[t], t < 2 ? cycle : cycle_requests, &host);
        unsigned seen = host.turns;
        while (host.turns == seen)
            sched_yield();
        for (int spin = rand_r(&seed) % 20000; spin > 0; spin--)
            __asm__ volatile("");
        for (int t = 0; t < 3; t++)
            pthread_cancel(threads[t]);
        for (int t = 0; t < 3; t++)
            not_cancelled += !was_cancelled(threads[t]);
    }
    is_int(not_cancelled, 0, "%d threads that acquire and wait are cancelled at random moments", 3 * rounds);
    is_int(flk_held("random"), 0, "nothing is held");
    is_int(test_tickets("random"), 0, "nobody is in the queue");
    struct flk_hold *hold = acquire("random");
    is_int(flk_hold_abandoned(hold), 0, "no record says that a holder died");
    flk_hold_release(hold);
    is_int(flk_root_set(NULL), 0, "no request is left");
}

/* ---- an eventfd ---- */

static int cancel_event = -1;

static void *wait_with_event(void *name)
{
    struct flk_hold *hold = NULL;
    int code = flk_acquire_many(&(struct flk_want){.name = name}, 1,
                                &(struct flk_options){.cancel_fd = &cancel_event}, FLK_FOREVER, &hold);
    flk_hold_release(hold);
    return code == -ECANCELED || code == 0 ? name : NULL;
}

static void by_event(void)
{
    cancel_event = eventfd(0, EFD_CLOEXEC);
    int wrong = 0, rounds = test_is_slow() ? 20 : 100;
    flk_hold_release(acquire("event"));
    int before = test_descriptors();
    for (int i = 0; i < rounds; i++) {
        pthread_t threads[4];
        void *result;
        eventfd_t ignored;
        for (int t = 0; t < 4; t++)
            test_start(&threads[t], wait_with_event, (void *)"event");
        eventfd_write(cancel_event, 1);
        for (int t = 0; t < 4; t++)
            wrong += pthread_join(threads[t], &result) != 0 || !result;
        eventfd_read(cancel_event, &ignored);
    }
    is_int(wrong, 0, "%d waits are cancelled by an eventfd, or served", 4 * rounds);
    is_int(test_tickets("event"), 0, "nobody is in the queue");
    ok(test_descriptors() <= before + 4, "and no descriptor is left but those that the row keeps");
    close(cancel_event);
}

/* ---- callbacks that don't return ---- */

static void leave(const struct flk_waiting *waiting, void *data)
{
    (void)waiting, (void)data;
    pthread_exit(data);
}

static void *wait_and_leave(void *name)
{
    struct flk_hold *hold;
    (void)!flk_acquire_many(&(struct flk_want){.name = name}, 1, &(struct flk_options){.waiting = leave, .data = name},
                            FLK_FOREVER, &hold);
    return NULL;
}

static int exit_in_callback(const struct flk_hold *hold, void *data)
{
    (void)hold;
    pthread_exit(data);
}

static void *walk_and_leave(void *data)
{
    flk_hold_foreach(exit_in_callback, data);
    return NULL;
}

static void callbacks(void)
{
    pthread_t thread;
    void *result;
    struct flk_hold *hold = acquire("callback");
    int before = test_descriptors();
    test_start(&thread, wait_and_leave, (void *)"callback");
    pthread_join(thread, &result);
    is_str(result, "callback", "the callback of a waiter may end its thread");
    is_int(test_tickets("callback"), 0, "which leaves the queue");
    ok(test_descriptors() <= before + 1, "and leaves no descriptor, but for the row's watch of its slot");
    test_start(&thread, walk_and_leave, (void *)"walk");
    pthread_join(thread, &result);
    is_str(result, "walk", "so may that of flk_hold_foreach()");
    flk_hold_release(hold);
    is_int(flk_root_set(NULL), 0, "and nothing is in use");
}

/* ---- runs ---- */

static _Atomic bool runs;

static void *run_for_ever(void *data)
{
    static const char *const argv[] = {"sleep", "1000", NULL};
    struct flk_run_result result;
    struct flk_hold *hold = data;
    atomic_store(&runs, true);
    (void)!flk_run(&(struct flk_run_spec){.argv = argv, .hold = hold}, &result);
    return NULL;
}

static void cancelled_run(void)
{
    struct flk_hold *hold = acquire("run");
    pthread_t thread;
    int before = test_descriptors();
    test_start(&thread, run_for_ever, hold);
    while (!atomic_load(&runs))
        sched_yield();
    pthread_cancel(thread);
    ok(was_cancelled(thread), "flk_run() can be cancelled");
    is_int(test_descriptors(), before, "its socket is closed");
    flk_hold_release(hold);
    hold = acquire("run");
    ok(hold != NULL, "and its command has ended, since nobody has the slots any more");
    flk_hold_release(hold);
}

/* ---- poll and signals ---- */

static void polls(void)
{
    int64_t began = fk_now();
    struct pollfd none = {.fd = -1};
    is_int(fk_poll_until(&none, 1, began + 5 * FK_MS), 0, "a poll ends at its time");
    ok(fk_now() - began >= 5 * FK_MS, "not before");
    is_int(fk_poll_until(&none, 1, began), 0, "one in the past at once");
    is_int(fk_poll_now(&none, 1), 0, "nothing is ready");
}

int main(void)
{
    tap_deadline(test_is_slow() ? 240 : 60);
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    polls();
    pending();
    by_event();
    callbacks();
#ifdef __SANITIZE_THREAD__
    skip("ThreadSanitizer doesn't see what a thread that was cancelled in poll locks on its way out");
#else
    cancel_waiters();
    at_random();
    cancelled_run();
#endif
    return done_testing();
}
