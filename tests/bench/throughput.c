/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Acquisitions a second of many processes that want more than there is, against semop(2) with SEM_UNDO. All processes are
 * there, and have acquired once, before any is let go.
 *
 * Usage: throughput [PROCESSES SLOTS HOLD_US]; $BENCH_SECONDS of each measurement, 2. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define NAME "throughput"
#define PHASES (2 * BENCH_RUNS + 1) /* after the first, which warms up: ours, the peer's, ours ... */

struct shared {
    struct bench_gate start;
    _Atomic uint32_t ready, done; /* processes, in all phases together */
    _Atomic int stop;
    _Atomic uint64_t acquired;
};

struct setting {
    struct shared *shared;
    unsigned processes, slots;
    int64_t hold_ns;
    int sem;
};

static double seconds = 2;

static int is_ours(uint32_t phase)
{
    return phase % 2 == 1;
}

static void once(const struct setting *setting, int ours)
{
    struct shared *shared = setting->shared;
    struct flk_hold *hold = NULL;
    if (ours)
        hold = bench_acquire(NAME);
    else
        bench_sem_take(setting->sem);
    if (!shared->stop) {
        shared->acquired++;
        bench_sleep(setting->hold_ns);
    }
    if (ours)
        flk_hold_release(hold);
    else
        bench_sem_drop(setting->sem);
}

static void work(void *data)
{
    const struct setting *setting = data;
    struct shared *shared = setting->shared;
    once(setting, 0);
    once(setting, 1);
    for (uint32_t phase = 1; phase < PHASES; phase++) {
        shared->ready++;
        bench_gate_wait(&shared->start, phase);
        while (!shared->stop)
            once(setting, is_ours(phase));
        shared->done++;
    }
}

static void wait_for(_Atomic uint32_t *count, uint32_t value)
{
    while (*count < value)
        bench_sleep(1000000);
}

static double measure(struct setting *setting, uint32_t phase)
{
    struct shared *shared = setting->shared;
    wait_for(&shared->ready, phase * setting->processes);
    shared->acquired = 0;
    shared->stop = 0;
    int64_t start = bench_now();
    bench_gate_open(&shared->start, phase);
    bench_sleep((int64_t)(seconds * 1e9));
    uint64_t acquired = shared->acquired;
    int64_t end = bench_now();
    shared->stop = 1;
    wait_for(&shared->done, phase * setting->processes);
    return (double)acquired * 1e9 / (double)(end - start);
}

static void compare(unsigned processes, unsigned slots, int64_t hold_ns, double goal)
{
    struct setting setting = {.processes = processes, .slots = slots, .hold_ns = hold_ns};
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    char what[100];
    bench_must(flk_row_remove(NAME, -1), "remove");
    bench_must(flk_row_define(NAME, slots), "define");
    setting.shared = bench_share(sizeof *setting.shared);
    setting.sem = bench_sem(slots);
    setting.shared->stop = 1;
    for (unsigned i = 0; i < processes; i++)
        bench_fork(work, &setting);
    for (uint32_t run = 0; run < BENCH_RUNS; run++) {
        ours[run] = measure(&setting, 2 * run + 1);
        peer[run] = measure(&setting, 2 * run + 2);
    }
    bench_reap(processes);
    snprintf(what, sizeof what, "%u processes, %u slot%s, held %.1f ms", processes, slots, slots == 1 ? "" : "s", (double)hold_ns / 1e6);
    bench_print(what, "a second", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), -goal);
}

int main(int argc, char **argv)
{
    const char *text = getenv("BENCH_SECONDS");
    seconds = text && atof(text) > 0 ? atof(text) : seconds;
    bench_root();
    if (argc == 4) {
        compare((unsigned)atoi(argv[1]), (unsigned)atoi(argv[2]), atoll(argv[3]) * 1000, 0);
        return 0;
    }
    compare(64, 4, 1000000, 0.9);
    compare(1000, 1, 100000, 0.85);
    compare(256, 64, 2000000, 0.5);
    return 0;
}
