/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flk_held() against a bare look into liburcu's hash table, with one name and with a thousand open; and what a thousand open names
 * cost a cycle of acquire and release. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench.h"
#include "lookup.h"

#define MANY 1000
#define CYCLES 20000
#define GOAL 1.5
#define CYCLE_GOAL 1.2

static int held(void *name)
{
    return flk_held(name) == 2;
}

static void compare(const char *what, const char *name)
{
    double ours, peer;
    struct flk_hold *hold = bench_acquire(name);
    lookup_compare(held, (void *)name, name, &ours, &peer);
    flk_hold_release(hold);
    bench_print(what, "ns", ours, peer, GOAL);
}

static double cycle(void)
{
    int64_t start = bench_now();
    for (int i = 0; i < CYCLES; i++)
        flk_hold_release(bench_acquire("cycle"));
    return (double)(bench_now() - start) / CYCLES;
}

static void open_names(void)
{
    for (int i = 0; i < 2 * MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "some-test-fixture-%d", i % MANY);
        flk_hold_release(bench_acquire(name));
        if (i < MANY)
            lookup_add(strdup(name));
    }
}

/* Turns of one process that has them open and one that closes them again and again would open a thousand each time: so the two are
 * processes, which take turns by gates. */
struct turns {
    struct bench_gate gates[2];
    double ns[2][BENCH_RUNS];
};
static struct turns *turns;

static void take_turns(void *which)
{
    int side = *(int *)which;
    if (side == 1)
        open_names();
    cycle();
    for (uint32_t run = 0; run < BENCH_RUNS; run++) {
        bench_gate_wait(&turns->gates[side], run + 1);
        turns->ns[side][run] = cycle();
        bench_gate_open(&turns->gates[!side], side == 0 ? run + 1 : run + 2);
    }
}

int main(void)
{
    struct rlimit limit;
    int sides[] = {0, 1};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    bench_check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    bench_root();
    turns = bench_share(sizeof *turns);
    for (int side = 0; side < 2; side++)
        bench_fork(take_turns, &sides[side]);
    bench_gate_open(&turns->gates[0], 1);
    bench_reap(2);
    bench_print("acquire and release with 1000 names open, against one", "ns", bench_median(turns->ns[1], BENCH_RUNS),
                bench_median(turns->ns[0], BENCH_RUNS), CYCLE_GOAL);
    lookup_add("some-test-fixture");
    compare("flk_held, one name", "some-test-fixture");
    open_names();
    compare("flk_held, one of 1000 names", "some-test-fixture-77");
    return 0;
}
