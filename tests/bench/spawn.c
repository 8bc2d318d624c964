/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Times two command lines, started in turn, and tells the most memory that the first one had resident.
 *
 * Usage: spawn PAIRS GOAL COMMAND... --- PEER... */
#include <err.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define RESIDENT_GOAL 3072 /* KiB */
#define SEPARATOR "---"

static double time_of(char **argv, long *resident)
{
    pid_t pid;
    int status;
    struct rusage usage;
    int64_t start = bench_now();
    int code = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (code != 0)
        errx(1, "%s: %s", argv[0], strerror(code));
    bench_check(wait4(pid, &status, 0, &usage) == pid, "wait4");
    if (status != 0)
        errx(1, "%s ended with status %d", argv[0], status);
    if (resident && usage.ru_maxrss > *resident)
        *resident = usage.ru_maxrss;
    return (double)(bench_now() - start) / 1000;
}

static void compare(size_t pairs, double goal, char **ours, char **peer)
{
    double *times = calloc(2 * pairs, sizeof *times);
    long resident = 0;
    bench_check(times != NULL, "calloc");
    time_of(ours, NULL);
    time_of(peer, NULL);
    for (size_t i = 0; i < pairs; i++) {
        times[i] = time_of(ours, &resident);
        times[pairs + i] = time_of(peer, NULL);
    }
    bench_print("a whole command", "us", bench_median(times, pairs), bench_median(times + pairs, pairs), goal);
    printf("most memory resident: %ld KiB (goal <= %d: %s)\n", resident, RESIDENT_GOAL, resident <= RESIDENT_GOAL ? "met" : "MISSED");
    free(times);
}

int main(int argc, char **argv)
{
    int at = 3;
    while (at < argc && strcmp(argv[at], SEPARATOR) != 0)
        at++;
    if (at < 4 || at + 1 >= argc)
        errx(2, "usage: spawn PAIRS GOAL COMMAND... " SEPARATOR " PEER...");
    argv[at] = NULL;
    compare((size_t)atoi(argv[1]), atof(argv[2]), argv + 3, argv + at + 1);
    return 0;
}
