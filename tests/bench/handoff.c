/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long a hand-off takes, from just before the holder releases to the return of the waiter's acquire, which has a
 * deadline; against semop(2) with SEM_UNDO between the same two processes. And how often a second two processes that want
 * it all the time get it. Both run where the scheduler puts them. */
#include <sched.h>
#include <stdlib.h>

#include "bench.h"

#define NAME "handoff"
#define ROUNDS 400 /* of each kind in a run */
#define HOLD_NS 300000 /* the waiter is asleep by then */
#define PING_PONG_NS 500000000

enum kind { OURS, PEER };

struct shared {
    _Atomic uint32_t held, wanted, served; /* rounds */
    _Atomic int64_t released_at, returned_at;
    struct bench_gate start;
    _Atomic int stop;
    _Atomic uint32_t idle;
    _Atomic uint64_t acquired;
};

static struct shared *shared;
static int sem;

static struct flk_hold *take(enum kind kind)
{
    if (kind == OURS)
        return bench_acquire(NAME);
    bench_sem_take(sem);
    return NULL;
}

static void drop(enum kind kind, struct flk_hold *hold)
{
    if (kind == OURS)
        flk_hold_release(hold);
    else
        bench_sem_drop(sem);
}

static void wait_for(_Atomic uint32_t *count, uint32_t value)
{
    while (*count < value)
        bench_sleep(10000);
}

static enum kind kind_of(uint32_t round)
{
    return round % 2 ? OURS : PEER;
}

#define ALL_ROUNDS (BENCH_RUNS * 2 * ROUNDS)

static void wait_in_line(void *data)
{
    (void)data;
    for (uint32_t round = 1; round <= ALL_ROUNDS; round++) {
        wait_for(&shared->held, round);
        shared->wanted = round;
        struct flk_hold *hold = take(kind_of(round));
        shared->returned_at = bench_now();
        drop(kind_of(round), hold);
        shared->served = round;
    }
}

static double hand_over(uint32_t round)
{
    struct flk_hold *hold = take(kind_of(round));
    shared->held = round;
    wait_for(&shared->wanted, round);
    bench_sleep(HOLD_NS);
    int64_t released_at = bench_now();
    drop(kind_of(round), hold);
    wait_for(&shared->served, round);
    return (double)(shared->returned_at - released_at) / 1000;
}

static void measure_latency(void)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS], times[2][ROUNDS];
    uint32_t round = 0;
    bench_fork(wait_in_line, NULL);
    for (int run = 0; run < BENCH_RUNS; run++) {
        for (int i = 0; i < ROUNDS; i++)
            for (int kind = 0; kind < 2; kind++) {
                double time = hand_over(++round);
                times[kind_of(round)][i] = time;
            }
        ours[run] = bench_median(times[OURS], ROUNDS);
        peer[run] = bench_median(times[PEER], ROUNDS);
    }
    bench_reap(1);
    bench_print("hand-off to a sleeping waiter", "us", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 1.3);
}

/* ---- ping-pong ---- */

static void play(void *data)
{
    (void)data;
    for (uint32_t phase = 1; phase <= 2 * BENCH_RUNS; phase++) {
        bench_gate_wait(&shared->start, phase);
        while (!shared->stop) {
            drop(kind_of(phase), take(kind_of(phase)));
            shared->acquired++;
        }
        shared->idle++;
    }
}

static double rally(uint32_t phase)
{
    shared->stop = 0;
    shared->acquired = 0;
    bench_gate_open(&shared->start, phase);
    int64_t start = bench_now();
    bench_sleep(PING_PONG_NS);
    double rate = (double)shared->acquired * 1e9 / (double)(bench_now() - start);
    shared->stop = 1;
    wait_for(&shared->idle, 2 * phase);
    return rate;
}

static void measure_ping_pong(void)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    bench_fork(play, NULL);
    bench_fork(play, NULL);
    for (uint32_t run = 0; run < BENCH_RUNS; run++) {
        ours[run] = rally(2 * run + 1);
        peer[run] = rally(2 * run + 2);
    }
    bench_reap(2);
    bench_print("two in a loop", "a second", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 0);
}

int main(void)
{
    bench_root();
    bench_must(flk_row_define(NAME, 1), "define");
    shared = bench_share(sizeof *shared);
    sem = bench_sem(1);
    measure_latency();
    measure_ping_pong();
    return 0;
}
