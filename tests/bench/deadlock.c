/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long a waiter that holds something takes until it sleeps, or is told that it would close a deadlock: the ticket, its publication
 * and the search. In a chain of 10 or of 1,000, each holding what the next one wants, that is closed or that ends at one who runs; beside
 * 1,000 others that wait with something in hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "bench.h"

#define OTHERS 1000
#define A_PROCESS 50 /* waiters in one */
#define TIMES 21
#define MS 1000000.0

static struct bench_gate *stop, *ready;

/* Link K holds name K + 1 and waits for name K. A request takes its names in the order of their bytes, so these fall. */
static void name_of(char name[32], unsigned chain, unsigned number)
{
    snprintf(name, 32, "c%u-%06u", chain, 999999 - number);
}

struct links {
    unsigned chain, first, count;
};

static void want_two(const char *held, const char *wanted, struct flk_request **request)
{
    const struct flk_want wants[] = {{.name = held}, {.name = wanted}};
    struct flk_hold *hold;
    bench_must(flk_request_start(wants, 2, NULL, FLK_FOREVER, request), "start");
    bench_check(flk_request_step(*request, &hold) == -EAGAIN, "nobody else waits for that");
}

static void wait_in_links(void *data)
{
    const struct links *links = data;
    struct flk_request *requests[A_PROCESS];
    for (unsigned i = 0; i < links->count; i++) {
        char held[32], wanted[32];
        name_of(held, links->chain, links->first + i + 1);
        name_of(wanted, links->chain, links->chain ? links->first + i : 0);
        want_two(held, wanted, &requests[i]);
    }
    bench_gate_open(ready, links->first + links->count);
    bench_gate_wait(stop, 1);
    for (unsigned i = links->count; i-- > 0;)
        flk_request_cancel(requests[i]);
}

/* As many links, in as many processes as that takes. Those of chain 0 all wait for name 0. */
static size_t start_links(unsigned chain, unsigned count)
{
    size_t processes = 0;
    ready->value = 0;
    for (unsigned first = 0; first < count; first += A_PROCESS, processes++) {
        struct links links = {chain, first, count - first < A_PROCESS ? count - first : A_PROCESS};
        bench_fork(wait_in_links, &links);
        bench_gate_wait(ready, links.first + links.count);
    }
    return processes;
}

static void hold_one(void *data)
{
    struct flk_hold *hold = bench_acquire(data);
    bench_gate_open(ready, 1);
    bench_gate_wait(stop, 1);
    flk_hold_release(hold);
}

static void hold_in_child(char *name)
{
    ready->value = 0;
    bench_fork(hold_one, name);
    bench_gate_wait(ready, 1);
}

/* The cancel descriptor is readable, so who isn't told of a deadlock doesn't sleep. */
static double wait_once(const char *name, int expected)
{
    static int cancel = -1;
    if (cancel < 0)
        cancel = eventfd(1, EFD_CLOEXEC);
    const struct flk_options options = {.cancel_fd = &cancel};
    struct flk_hold *hold;
    int64_t begin = bench_now();
    int code = flk_acquire_many(&(struct flk_want){.name = name}, 1, &options, FLK_FOREVER, &hold);
    int64_t took = bench_now() - begin;
    bench_check(code == expected, "it is a deadlock where none is, or none is found");
    return (double)took / MS;
}

static void measure(unsigned chain, unsigned length, int closed, double goal)
{
    char first[32], last[32];
    double took[TIMES];
    name_of(first, chain, 0);
    name_of(last, chain, length - 1);
    if (!closed)
        hold_in_child(first);
    struct flk_hold *hold = bench_acquire(closed ? first : "something-else");
    size_t processes = start_links(chain, length - 1) + !closed;
    for (size_t i = 0; i < TIMES; i++)
        took[i] = wait_once(last, closed ? -EDEADLK : -ECANCELED);
    double median = bench_median(took, TIMES);
    printf("%s chain of %u among %u others: %.2f ms (goal <= %.0f ms: %s)\n", closed ? "closed" : "open", length,
           OTHERS, median, goal, median <= goal ? "met" : "MISSED");
    fflush(stdout);
    flk_hold_release(hold);
    bench_gate_open(stop, 1);
    bench_reap(processes);
    stop->value = 0;
}

/* They have a gate of their own, to be there all the time. */
static size_t start_others(struct bench_gate *end)
{
    char name[32];
    struct bench_gate *measured = stop;
    stop = end;
    name_of(name, 0, 0);
    hold_in_child(name);
    size_t processes = start_links(0, OTHERS) + 1;
    stop = measured;
    return processes;
}

int main(void)
{
    bench_root();
    struct bench_gate *end = bench_share(sizeof *end);
    stop = bench_share(sizeof *stop);
    ready = bench_share(sizeof *ready);
    size_t others = start_others(end);
    measure(1, 10, 1, 2);
    measure(2, 10, 0, 2);
    measure(3, 1000, 1, 20);
    measure(4, 1000, 0, 20);
    bench_gate_open(end, 1);
    bench_reap(others);
    return 0;
}
