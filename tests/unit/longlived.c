/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A process that goes on for long, with many names and many requests in one thread: what it costs in memory and
 * descriptors is bounded, nothing grows, and what others do to the rows meanwhile is noticed. STRESS_SCALE multiplies the
 * cycles. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

#define NAMES 1000
#define REQUESTS 1000
#define CYCLES 10000
#define PSS_PER_NAME 300
#define PSS_PER_REQUEST 4096
#define FDS_PER_REQUEST 4 /* ticket, watch, and with flk_request_fd() an epoll and a timer */

static struct flk_hold *acquire(const char *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

/* In bytes, of all memory of this process but what is in files: a share of libc's pages goes to whoever else uses them at the
 * moment, and comes back. (All of it where the kernel doesn't tell.) */
static long pss(void)
{
    char line[256];
    long kib = -1;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    if (!file)
        bail_out("smaps_rollup: %s", strerror(errno));
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Pss: %ld", &kib) != 1 && sscanf(line, "Pss_Anon: %ld", &kib) == 1)
            break;
    fclose(file);
    return kib * 1024;
}

static void check_memory(long before, int count, long goal, const char *what)
{
    long each = (pss() - before) / count;
    if (test_is_slow())
        skip("the sanitizers and Valgrind have memory of their own");
    else
        ok(each <= goal, "%s takes at most %ld bytes (%ld)", what, goal, each);
}

static rlim_t raise_limit(void)
{
    struct rlimit limit, wide = {200000, 200000};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max < wide.rlim_max && setrlimit(RLIMIT_NOFILE, &wide) == 0)
        return wide.rlim_cur;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        bail_out("setrlimit");
    return limit.rlim_cur;
}

static const char *name_of(int number)
{
    static char name[32];
    snprintf(name, sizeof name, "name-%05d", number);
    return name;
}

/* ---- many names ---- */

static int idle_names(void *data)
{
    int count = *(int *)data;
    flk_hold_release(acquire("first"));
    flk_hold_release(acquire("first"));
    int fds = test_descriptors();
    long before = pss();
    for (int i = 0; i < 2 * count; i++)
        flk_hold_release(acquire(name_of(i % count)));
    if (test_descriptors() < fds + 3 * count) {
        diag("they don't stay open: %d descriptors", test_descriptors());
        return 1;
    }
    long each = (pss() - before) / count;
    diag("an idle name takes %ld bytes and %d descriptors", each, (test_descriptors() - fds) / count);
    if (flk_root_set(NULL) < 0 || test_descriptors() >= fds)
        return 2;
    return test_is_slow() || each <= PSS_PER_NAME ? 0 : 3;
}

/* ---- many requests ---- */

static struct flk_request *requests[REQUESTS];

static void start_requests(const char *name)
{
    struct flk_hold *hold;
    for (int i = 0; i < REQUESTS; i++)
        if (flk_request_start(&(struct flk_want){.name = name}, 1, NULL, FLK_FOREVER, &requests[i]) < 0 ||
            flk_request_fd(requests[i]) < 0 || flk_request_step(requests[i], &hold) != -EAGAIN)
            bail_out("request %d: %s", i, flk_error_detail());
}

/* One that can be stepped. False: it failed. */
static bool serve(int number, int *served, int *in_order)
{
    struct flk_hold *hold;
    int code = flk_request_step(requests[number], &hold);
    if (code == -EAGAIN)
        return true;
    if (code < 0)
        return false;
    *in_order += number == (*served)++;
    flk_request_cancel(requests[number]);
    requests[number] = NULL;
    flk_hold_release(hold);
    return true;
}

static void by_epoll(int *served, int *in_order)
{
    struct epoll_event events[16];
    int epoll = epoll_create1(EPOLL_CLOEXEC), n = 1;
    for (int i = 0; i < REQUESTS; i++)
        epoll_ctl(epoll, EPOLL_CTL_ADD, flk_request_fd(requests[i]),
                  &(struct epoll_event){.events = EPOLLIN, .data.u32 = (uint32_t)i});
    while (*served < REQUESTS && n > 0) {
        n = epoll_wait(epoll, events, 16, 20000);
        for (int i = 0; i < n; i++)
            if (!serve((int)events[i].data.u32, served, in_order))
                n = 0;
    }
    close(epoll);
}

static void by_poll(int *served, int *in_order)
{
    static struct pollfd polls[REQUESTS];
    for (int i = 0; i < REQUESTS; i++)
        polls[i] = (struct pollfd){.fd = flk_request_fd(requests[i]), .events = POLLIN};
    while (*served < REQUESTS && poll(polls, REQUESTS, 20000) > 0)
        for (int i = 0; i < REQUESTS; i++) {
            if (!polls[i].revents)
                continue;
            if (!serve(i, served, in_order))
                return;
            if (!requests[i])
                polls[i].fd = -1;
        }
}

static void many_requests(void (*loop)(int *served, int *in_order), const char *what)
{
    int served = 0, in_order = 0;
    struct flk_hold *holder = acquire("many");
    int fds = test_descriptors(), tasks = test_entries("/proc/self/task");
    long before = pss();
    start_requests("many");
    check_memory(before, REQUESTS, PSS_PER_REQUEST, "a request that waits");
    int used = test_descriptors() - fds;
    ok(used <= FDS_PER_REQUEST * REQUESTS + 2, "and %d descriptors (%d for %d)", FDS_PER_REQUEST, used, REQUESTS);
    is_int(test_entries("/proc/self/task"), tasks, "and no thread");
    flk_hold_release(holder);
    loop(&served, &in_order);
    is_int(served, REQUESTS, "%d requests of one thread are served by %s", REQUESTS, what);
    is_int(in_order, REQUESTS, "in their order");
    ok(test_descriptors() <= fds + 1, "and leave no descriptor");
}

/* ---- many cycles ---- */

static void cycles(long count)
{
    struct flk_row **rows;
    int wrong = 0;
    for (int i = 0; i < 2 * NAMES; i++)
        flk_hold_release(acquire(name_of(i % NAMES)));
    malloc_trim(0);
    int fds = test_descriptors(), tasks = test_entries("/proc/self/task");
    long before = pss();
    for (long i = 0; i < count; i++) {
        struct flk_hold *hold;
        int code = flk_acquire(name_of((int)(i % NAMES)), i % 7 == 0 ? FLK_SHARED : 0, FLK_FOREVER, &hold);
        wrong += code < 0;
        if (code == 0)
            flk_hold_release(hold);
    }
    malloc_trim(0);
    is_int(wrong, 0, "%ld cycles over %d names", count, NAMES);
    is_int(test_descriptors(), fds, "leave no descriptor");
    is_int(test_entries("/proc/self/task"), tasks, "no thread");
    long grown = pss() - before;
    if (test_is_slow())
        skip("the sanitizers and Valgrind have memory of their own");
    else
        ok(grown < 64 * 1024, "no memory (%ld bytes)", grown);
    int n = flk_inspect(NULL, &rows), taken = 0;
    for (int i = 0; i < n; i++)
        for (size_t slot = 0; slot < rows[i]->n_slots; slot++)
            taken += rows[i]->slots[slot]->state != FLK_SLOT_FREE;
    ok(n >= NAMES && taken == 0, "and no record of a holder");
    flk_inspect_free(rows);
}

/* ---- rows that others change ---- */

static int change_row(void *number)
{
    int n = *(int *)number;
    if (n % 2)
        return flk_row_remove(name_of(n), FLK_FOREVER) < 0;
    return flk_row_resize(name_of(n), 1 + (unsigned)(n % 5), FLK_FOREVER) < 0;
}

static int is_busy(void *number)
{
    struct flk_hold *hold;
    const struct flk_want all = {.name = name_of(*(int *)number), .count = FLK_ALL};
    return flk_acquire_many(&all, 1, NULL, 0, &hold) == -EBUSY ? 0 : 1;
}

static void changed_rows(void)
{
    int wrong = 0, rounds = test_is_slow() ? 20 : 60;
    for (int i = 0; i < rounds; i++) {
        const unsigned *slots;
        struct flk_want want = {.name = name_of(i), .count = i % 2 ? 1 : FLK_ALL};
        struct flk_hold *hold = acquire(want.name);
        flk_hold_release(hold);
        wrong += test_in_child(change_row, &i) != 0;
        if (flk_acquire_many(&want, 1, NULL, 0, &hold) < 0) {
            diag("%s", flk_error_detail());
            wrong++;
            continue;
        }
        wrong += flk_hold_slots(hold, 0, &slots) != (i % 2 ? 1 : 1 + (size_t)(i % 5));
        wrong += test_in_child(is_busy, &i) != 0;
        flk_hold_release(hold);
    }
    is_int(wrong, 0, "%d rows removed or resized by others are noticed at the next use", rounds);
}

static int remove_one(void *name)
{
    return flk_row_remove(name, FLK_FOREVER) < 0;
}

static int make_five(void *name)
{
    return flk_row_resize(name, 5, FLK_FOREVER) < 0;
}

/* What the idle one says isn't believed where that would be an error, or where a row is promised to be there. */
static void outdated(void)
{
    struct flk_hold *hold = NULL;
    flk_hold_release(acquire("outdated"));
    is_int(test_in_child(make_five, (void *)"outdated"), 0, "a row that we have idle is made larger by others");
    is_int(flk_acquire_many(&(struct flk_want){.name = "outdated", .count = 3}, 1, NULL, 0, &hold), 0,
           "three of its slots can be had");
    flk_hold_release(hold);
    is_int(test_in_child(remove_one, (void *)"outdated"), 0, "it is removed by others");
    is_int(flk_row_define("outdated", 5), 0, "and defined again");
    is_int(test_entries(test_path("root/rows/outdated/slots")), 5, "it is there");
}

int main(void)
{
    const char *text = getenv("STRESS_SCALE");
    double scale = text ? strtod(text, NULL) : 1;
    int names = test_is_slow() ? 300 : scale < 5 ? 1000 : 10000;
    tap_deadline((unsigned)(120 + 60 * scale) * (test_is_slow() ? 3 : 1));
    test_root();
    rlim_t limit = raise_limit();
    if (limit < 6 * REQUESTS)
        skip_all("the limit of open files (%lu) is too low", (unsigned long)limit);
    if ((rlim_t)names > limit / 16) /* a quarter of the limit is kept for them, three descriptors each */
        names = (int)(limit / 16);
    is_int(test_in_child(idle_names, &names), 0, "%d names that are idle stay open, at little cost", names);
    many_requests(by_epoll, "epoll");
    many_requests(by_poll, "poll");
    cycles((long)(CYCLES * scale) / (test_is_slow() ? 10 : 1));
    changed_rows();
    outdated();
    return done_testing();
}
