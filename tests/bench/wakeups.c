/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One wake-up a release, however many wait, and first come, first served: voluntary context switches of a waiter between
 * queueing and being served, as the queue grows; in how far the order of service is that of arrival; whether newcomers
 * overtake one who sleeps. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bench.h"

#define NAME "wakeups"
#define MOST 1000
#define NEWCOMERS 4
#define TRIES 100000

struct shared {
    _Atomic uint32_t next;
    uint32_t place[MOST]; /* in the order of service */
    _Atomic uint64_t switches;
    /* newcomers */
    struct bench_gate gate;
    _Atomic uint32_t served, stop;
    _Atomic uint64_t tries, got, overtook;
};

static struct shared *shared;

static uint64_t switches(void)
{
    struct rusage usage;
    bench_check(getrusage(RUSAGE_SELF, &usage) == 0, "getrusage");
    return (uint64_t)usage.ru_nvcsw;
}

static void wait_in_line(void *data)
{
    uint32_t *place = data;
    uint64_t before = switches();
    struct flk_hold *hold = bench_acquire(NAME);
    shared->switches += switches() - before;
    *place = shared->next++;
    flk_hold_release(hold);
}

static double measure(unsigned waiters, unsigned *out_of_order)
{
    shared->next = 0;
    shared->switches = 0;
    struct flk_hold *hold = bench_acquire(NAME);
    uint64_t number = bench_tickets(NAME);
    for (unsigned i = 0; i < waiters; i++) {
        bench_fork(wait_in_line, &shared->place[i]);
        bench_wait_ticket(NAME, ++number);
    }
    bench_sleep(2000000);
    flk_hold_release(hold);
    bench_reap(waiters);
    for (unsigned i = 0; i < waiters; i++)
        *out_of_order += shared->place[i] != i;
    return (double)shared->switches / waiters;
}

static void count_switches(unsigned waiters)
{
    double values[BENCH_RUNS];
    unsigned out_of_order = 0;
    for (int run = 0; run < BENCH_RUNS; run++)
        values[run] = measure(waiters, &out_of_order);
    printf("%u waiters: %.2f voluntary switches an acquisition; out of order: %u of %u\n", waiters,
           bench_median(values, BENCH_RUNS), out_of_order, waiters * BENCH_RUNS);
    fflush(stdout);
}

/* ---- newcomers ---- */

/* The gate says which round is played: newcomers try at 2 * round - 1 and rest at 2 * round, while the next one queues. */
static void come_new(void *data)
{
    (void)data;
    for (uint32_t round = 1;; round++) {
        bench_gate_wait(&shared->gate, 2 * round - 1);
        if (shared->stop)
            return;
        while (shared->gate.value == 2 * round - 1) {
            struct flk_hold *hold;
            int code = flk_acquire(NAME, 0, 0, &hold);
            shared->tries++;
            if (code < 0)
                continue;
            shared->got++;
            if (shared->served < round)
                shared->overtook++;
            flk_hold_release(hold);
        }
    }
}

static void sleep_in_line(void *data)
{
    const uint32_t *round = data;
    struct flk_hold *hold = bench_acquire(NAME);
    shared->served = *round;
    flk_hold_release(hold);
}

static void play_round(uint32_t round)
{
    struct flk_hold *hold = bench_acquire(NAME);
    uint64_t number = bench_tickets(NAME);
    bench_fork(sleep_in_line, &round);
    bench_wait_ticket(NAME, number + 1);
    uint64_t tries = shared->tries;
    bench_gate_open(&shared->gate, 2 * round - 1);
    while (shared->tries < tries + TRIES / 1000)
        bench_sleep(50000);
    flk_hold_release(hold);
    while (shared->served < round)
        bench_sleep(20000);
    bench_gate_open(&shared->gate, 2 * round);
    bench_reap(1);
}

static void count_overtaking(void)
{
    for (int i = 0; i < NEWCOMERS; i++)
        bench_fork(come_new, NULL);
    uint32_t round = 0;
    while (shared->tries < TRIES)
        play_round(++round);
    shared->stop = 1;
    bench_gate_open(&shared->gate, 2 * round + 1);
    bench_reap(NEWCOMERS);
    printf("newcomers that overtook a sleeper: %llu of %llu tries, of which %llu got it\n", (unsigned long long)shared->overtook,
           (unsigned long long)shared->tries, (unsigned long long)shared->got);
}

int main(void)
{
    bench_root();
    bench_must(flk_row_define(NAME, 1), "define");
    shared = bench_share(sizeof *shared);
    count_switches(10);
    count_switches(100);
    count_switches(MOST);
    count_overtaking();
    return 0;
}
