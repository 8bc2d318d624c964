/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long after the end of a build the last of 64 processes goes on that wait for it; against as many hand-offs of a lock, from
 * the holder's release to the last one's acquire. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "bench.h"

#define NAME "handoff"
#define WAITERS 64
#define ROUNDS (2 * BENCH_RUNS)
#define SETTLE_NS 100000000 /* they are asleep by then */

static struct shared {
    struct bench_gate start;
    _Atomic uint32_t asked, done;
    int64_t ended;
    int64_t returned[WAITERS];
} * shared;

static bool is_build(uint32_t round)
{
    return round % 2;
}

static void wait_for(_Atomic uint32_t *count, uint32_t value)
{
    while (*count < value)
        bench_sleep(1000000);
}

/* All of the round's waiters ask for what the caller has. */
static void let_them_wait(uint32_t round)
{
    bench_gate_open(&shared->start, round);
    wait_for(&shared->asked, round * WAITERS);
    bench_sleep(SETTLE_NS);
    shared->ended = bench_now();
}

static int build(const char *path, void *data)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    bench_check(fd >= 0, path);
    close(fd);
    let_them_wait(*(const uint32_t *)data);
    return 0;
}

static int build_again(const char *path, void *data)
{
    (void)path;
    (void)data;
    return -EEXIST;
}

static void ask(int (*builder)(const char *path, void *data), uint32_t round)
{
    char key[16];
    snprintf(key, sizeof key, "%u", round);
    const struct flk_once_spec spec = {.output = "output", .key = key, .build = builder, .data = &round};
    bench_must(flk_once(&spec, 60000), "build");
}

static void wait_in_line(void *data)
{
    int64_t *returned = data;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        bench_gate_wait(&shared->start, round);
        shared->asked++;
        if (is_build(round))
            ask(build_again, round);
        else
            flk_hold_release(bench_acquire(NAME));
        *returned = bench_now();
        shared->done++;
    }
}

static double ms_of_last(uint32_t round)
{
    int64_t last = 0;
    if (is_build(round)) {
        ask(build, round);
    } else {
        struct flk_hold *hold = bench_acquire(NAME);
        let_them_wait(round);
        flk_hold_release(hold);
    }
    wait_for(&shared->done, round * WAITERS);
    for (int i = 0; i < WAITERS; i++)
        last = shared->returned[i] > last ? shared->returned[i] : last;
    return (double)(last - shared->ended) / 1e6;
}

int main(void)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    const char *root = bench_root();
    bench_check(chdir(root) == 0, root);
    bench_must(flk_row_define(NAME, 1), "define");
    shared = bench_share(sizeof *shared);
    for (int i = 0; i < WAITERS; i++)
        bench_fork(wait_in_line, &shared->returned[i]);
    for (uint32_t run = 0; run < BENCH_RUNS; run++) {
        ours[run] = ms_of_last(2 * run + 1);
        peer[run] = ms_of_last(2 * run + 2);
    }
    bench_reap(WAITERS);
    bench_print("the last of 64 that wait for a build", "ms", bench_median(ours, BENCH_RUNS),
                bench_median(peer, BENCH_RUNS), 1);
    return 0;
}
