/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Acquire and release of a name that the process has used before and that nobody else wants, against open, flock and close of
 * a file beside it; and the system calls of one such cycle. */
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define CYCLES 20000 /* of each, in a run */
#define BATCH 100    /* before the other's turn */
#define CALLS_GOAL 12

static char peer_path[PATH_MAX];

static void cycle(const char *name, unsigned flags)
{
    struct flk_hold *hold;
    bench_must(flk_acquire(name, flags, -1, &hold), "acquire");
    flk_hold_release(hold);
}

static void peer_cycle(void)
{
    int fd = open(peer_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bench_check(fd >= 0 && flock(fd, LOCK_EX) == 0, "peer");
    close(fd);
}

static void compare(const char *what, const char *name, unsigned flags)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    cycle(name, flags);
    cycle(name, flags);
    for (int run = 0; run < BENCH_RUNS; run++) {
        int64_t times[2] = {0};
        for (int batch = 0; batch < CYCLES / BATCH; batch++) {
            int64_t start = bench_now();
            for (int i = 0; i < BATCH; i++)
                cycle(name, flags);
            int64_t middle = bench_now();
            for (int i = 0; i < BATCH; i++)
                peer_cycle();
            times[0] += middle - start;
            times[1] += bench_now() - middle;
        }
        ours[run] = (double)times[0] / CYCLES / 1000;
        peer[run] = (double)times[1] / CYCLES / 1000;
    }
    bench_print(what, "us", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 3);
}

/* ---- system calls, counted by tracing a child that marks begin and end with getppid(2) ---- */

static void traced(const char *name, unsigned flags)
{
    cycle(name, flags);
    cycle(name, flags);
    bench_check(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "ptrace");
    raise(SIGSTOP);
    getppid();
    cycle(name, flags);
    getppid();
    _exit(0);
}

static long next_call(pid_t pid, int *status)
{
    struct __ptrace_syscall_info info = {0};
    do {
        bench_check(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, status, 0) == pid, "trace");
        if (WIFEXITED(*status))
            errx(1, "the traced child has gone");
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info);
    } while (info.op != PTRACE_SYSCALL_INFO_ENTRY);
    return (long)info.entry.nr;
}

#include <sys/syscall.h>

/* Tracer and child take turns faster on one processor. */
static void stay_here(void)
{
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    bench_check(sched_setaffinity(0, sizeof here, &here) == 0, "sched_setaffinity");
}

static int count_once(const char *name, unsigned flags)
{
    int status, count = 0;
    pid_t pid = fork();
    bench_check(pid >= 0, "fork");
    if (pid == 0)
        traced(name, flags);
    bench_check(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "no traced child");
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    while (next_call(pid, &status) != SYS_getppid)
        ;
    while (next_call(pid, &status) != SYS_getppid)
        count++;
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    waitpid(pid, &status, 0);
    return count;
}

/* The least of some: to be traced makes a hold long, and after a long one a release looks who waits. */
static void count_calls(const char *what, const char *name, unsigned flags)
{
    int count = INT_MAX;
    for (int run = 0; run < BENCH_RUNS; run++) {
        int once = count_once(name, flags);
        count = once < count ? once : count;
    }
    printf("%s: %d system calls (goal <= %d: %s)\n", what, count, CALLS_GOAL, count <= CALLS_GOAL ? "met" : "MISSED");
    fflush(stdout);
}

int main(void)
{
    const char *root = bench_root();
    bench_must(flk_row_define("one", 1), "define");
    bench_must(flk_row_define("four", 4), "define");
    bench_must(flk_row_define("shared", 1), "define");
    snprintf(peer_path, sizeof peer_path, "%.3000s/peer", root);
    bench_check(mkdir(peer_path, 0700) == 0, peer_path);
    snprintf(peer_path, sizeof peer_path, "%.3000s/peer/directory", root);
    bench_check(mkdir(peer_path, 0700) == 0, peer_path);
    snprintf(peer_path, sizeof peer_path, "%.3000s/peer/directory/file", root);
    compare("row of one", "one", 0);
    compare("row of four", "four", 0);
    compare("shared", "shared", FLK_SHARED);
    stay_here();
    count_calls("row of one", "one", 0);
    count_calls("row of four", "four", 0);
    count_calls("shared", "shared", FLK_SHARED);
    return 0;
}
