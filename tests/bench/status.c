/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* status of 200 names and 1,000 waiters among 500 processes of 50 descriptors; beside it the time to read the same
 * /proc directories and where their links lead, which is what anybody has to do who looks for holders there. Once with a name that
 * only that can explain, and once with none. */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define NAMES 200
#define WAITERS 1000
#define PROCESSES 500
#define DESCRIPTORS 50

static void name_of(char name[16], unsigned number)
{
    snprintf(name, 16, "name%u", number % NAMES);
}

/* Two waiters a process, so that 500 processes are 1,000 waiters. */
static void wait_with_descriptors(unsigned number)
{
    struct flk_request *requests[WAITERS / PROCESSES];
    struct flk_hold *hold;
    char name[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0; i < WAITERS / PROCESSES; i++) {
        name_of(name, number + i * PROCESSES);
        bench_must(flk_request_start(&(struct flk_want){.name = name}, 1, NULL, FLK_FOREVER, &requests[i]), "start");
        if (flk_request_step(requests[i], &hold) != -EAGAIN)
            errx(1, "%s isn't held", name);
    }
    while (open("/dev/null", O_RDONLY) < DESCRIPTORS - 1)
        ;
}

static void start_processes(pid_t *pids)
{
    int fds[2];
    char byte;
    bench_check(pipe2(fds, O_CLOEXEC) == 0, "pipe");
    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        bench_check(pids[i] >= 0, "fork");
        if (pids[i] == 0) {
            wait_with_descriptors(i);
            bench_check(write(fds[1], "x", 1) == 1, "write");
            pause();
        }
        bench_check(read(fds[0], &byte, 1) == 1, "a waiter has failed");
    }
    close(fds[0]);
    close(fds[1]);
}

static void join_by_hand(void)
{
    char path[4096];
    unsigned slots;
    char *row;
    bench_must(flk_row_path("outsider", 1, &slots, &row), "path");
    snprintf(path, sizeof path, "%s/slots/0", row);
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    bench_check(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0, path);
    free(row);
}

static size_t read_links(const char *number)
{
    char path[300];
    size_t count = 0;
    struct stat status;
    snprintf(path, sizeof path, "/proc/%s/fd", number);
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        count += entry->d_name[0] != '.' && fstatat(dirfd(directory), entry->d_name, &status, 0) == 0;
    if (directory)
        closedir(directory);
    return count;
}

static double time_of_proc(void)
{
    int64_t before = bench_now();
    size_t count = 0;
    DIR *proc = opendir("/proc");
    bench_check(proc != NULL, "/proc");
    for (struct dirent *entry; (entry = readdir(proc));)
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
            count += read_links(entry->d_name);
    closedir(proc);
    if (count < (size_t)PROCESSES * DESCRIPTORS)
        errx(1, "only %zu descriptors were seen", count);
    return (double)(bench_now() - before) / 1e6;
}

static double time_of_status(size_t names)
{
    struct flk_row **rows;
    size_t waiters = 0;
    int64_t before = bench_now();
    int count = flk_inspect(NULL, &rows);
    double ms = (double)(bench_now() - before) / 1e6;
    bench_must(count, "inspect");
    for (int i = 0; i < count; i++) {
        waiters += rows[i]->n_waiters;
        if (rows[i]->slots[0]->state != FLK_SLOT_HELD || rows[i]->slots[0]->holders[0]->pid != getpid())
            errx(1, "%s isn't seen to be held by us", rows[i]->name);
    }
    if ((size_t)count != names || waiters != WAITERS)
        errx(1, "%d names and %zu waiters were seen", count, waiters);
    flk_inspect_free(rows);
    return ms;
}

static void compare(const char *what, size_t names)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    for (int i = 0; i < BENCH_RUNS; i++) {
        peer[i] = time_of_proc();
        ours[i] = time_of_status(names);
    }
    bench_print(what, "ms", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 1.2);
}

int main(void)
{
    static pid_t pids[PROCESSES];
    char name[16];
    bench_root();
    for (unsigned i = 0; i < NAMES; i++) {
        name_of(name, i);
        bench_acquire(name);
    }
    start_processes(pids);
    compare("200 names, 1,000 waiters, all of them by their records", NAMES);
    join_by_hand();
    compare("the same, and one holder that wrote none", NAMES + 1);
    for (unsigned i = 0; i < PROCESSES; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
