/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether 10,000 owners live, beside as many pidfds opened and closed. And the cleaning up of 10,000 items, half of them left by dead
 * owners, a directory with two files each; beside it rm -rf of the same: the items of the dead and their directories. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "owner.h"

#define OWNERS 10000
#define PROCESSES 500
#define ITEMS 10000

static pid_t processes[PROCESSES];

static void stay(void *data)
{
    (void)data;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pause();
}

/* ---- liveness ---- */

static void liveness(void)
{
    static struct fk_owner owners[OWNERS];
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    for (size_t i = 0; i < OWNERS; i++)
        bench_must(fk_owner_of(processes[i % PROCESSES], &owners[i]), "owner");
    for (size_t run = 0; run < BENCH_RUNS; run++) {
        int64_t begin = bench_now();
        for (size_t i = 0; i < OWNERS; i++)
            if (fk_owner_is_dead(&owners[i]))
                errx(1, "a living owner was taken for dead");
        ours[run] = (double)(bench_now() - begin) / 1e6;
        begin = bench_now();
        for (size_t i = 0; i < OWNERS; i++)
            close(pidfd_open(processes[i % PROCESSES], 0));
        peer[run] = (double)(bench_now() - begin) / 1e6;
    }
    bench_print("whether 10,000 owners live", "ms", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 2);
}

/* ---- items ---- */

static void make_tree(const char *path)
{
    char file[128];
    bench_check(mkdir(path, 0700) == 0, path);
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%d", path, i);
        int fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
        bench_check(fd >= 0 && close(fd) == 0, file);
    }
}

static pid_t start_one(void)
{
    pid_t pid = bench_fork(stay, NULL);
    bench_check(pid > 0, "fork");
    return pid;
}

/* Each second one's owner is about to die. */
static void register_items(const char *trees, pid_t dying)
{
    char path[96], id[FLK_ID_SIZE];
    const char *paths[] = {path, NULL};
    for (size_t i = 0; i < ITEMS; i++) {
        snprintf(path, sizeof path, "%s/%zu", trees, i);
        make_tree(path);
        const struct flk_state_spec spec = {
            .name = "bench", .paths = paths, .owner = i % 2 ? processes[i % PROCESSES] : dying};
        bench_must(flk_state_add(&spec, id), "state");
    }
}

static void remove_all(const char *path)
{
    char *argv[] = {(char *)"rm", (char *)"-rf", (char *)path, NULL};
    pid_t pid;
    int status;
    bench_check(posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0, "rm");
    bench_check(waitpid(pid, &status, 0) == pid && status == 0, "rm -rf");
}

/* As many files as the dead have left: their items and their trees. */
static double remove_same(const char *peer)
{
    char path[96];
    bench_check(mkdir(peer, 0700) == 0, peer);
    for (size_t i = 0; i < ITEMS / 2; i++) {
        snprintf(path, sizeof path, "%s/%zu", peer, i);
        make_tree(path);
        snprintf(path, sizeof path, "%s/item%zu", peer, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        bench_check(fd >= 0 && write(fd, "an item", 7) == 7 && close(fd) == 0, path);
    }
    int64_t begin = bench_now();
    remove_all(peer);
    return (double)(bench_now() - begin) / 1e6;
}

static void reap_once(const char *root, size_t run, double *ours, double *peer)
{
    char trees[64], other[64];
    snprintf(trees, sizeof trees, "%s/trees%zu", root, run);
    snprintf(other, sizeof other, "%s/other%zu", root, run);
    bench_check(mkdir(trees, 0700) == 0, trees);
    pid_t dying = start_one();
    register_items(trees, dying);
    kill(dying, SIGKILL);
    waitpid(dying, NULL, 0);
    int64_t begin = bench_now();
    int cleaned = flk_reap("bench", 0);
    *ours = (double)(bench_now() - begin) / 1e6;
    if (cleaned != ITEMS / 2)
        errx(1, "%d were cleaned up: %s", cleaned, flk_error_detail());
    *peer = remove_same(other);
    remove_all(trees);
    char path[96];
    snprintf(path, sizeof path, "%s/rows/bench/state", root);
    remove_all(path);
}

static void reaping(const char *root)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    for (size_t run = 0; run < BENCH_RUNS; run++)
        reap_once(root, run, &ours[run], &peer[run]);
    bench_print("reap of 10,000 items, half of them dead", "ms", bench_median(ours, BENCH_RUNS),
                bench_median(peer, BENCH_RUNS), 3);
}

int main(void)
{
    const char *root = bench_root();
    for (size_t i = 0; i < PROCESSES; i++)
        processes[i] = start_one();
    liveness();
    reaping(root);
    for (size_t i = 0; i < PROCESSES; i++)
        kill(processes[i], SIGKILL);
    return 0;
}
