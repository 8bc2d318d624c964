/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flk_run() of `true` with a hold, from a process with 2 GiB resident, against posix_spawn of `flock FILE true` from the same. */
#include <err.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define PAIRS 200
#define MOST_MIB 2048L
#define GOAL 1.0

static char peer_path[PATH_MAX];

/* Half of what is there, so that the machine has enough left. */
static long choose_size(void)
{
    char line[256];
    long available_kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %ld", &available_kib) == 1)
            break;
    if (file)
        fclose(file);
    long mib = available_kib / 1024 / 2;
    return mib < MOST_MIB ? mib : MOST_MIB;
}

static void fill_memory(long mib)
{
    size_t size = (size_t)mib << 20;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_check(memory != MAP_FAILED, "mmap");
    madvise(memory, size, MADV_NOHUGEPAGE); /* as small allocations would be */
    memset(memory, 1, size);
}

static void run_ours(void)
{
    static const char *const argv[] = {"true", NULL};
    struct flk_run_result result;
    struct flk_hold *hold = bench_acquire("x");
    bench_must(flk_run(&(struct flk_run_spec){.argv = argv, .hold = hold}, &result), "run");
    flk_hold_release(hold);
    if (result.exit_code != 0)
        errx(1, "true ended with %d", result.exit_code);
}

static void run_peer(void)
{
    char *argv[] = {(char *)"flock", peer_path, (char *)"true", NULL};
    pid_t pid;
    int status, code = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (code != 0)
        errx(1, "flock: %s", strerror(code));
    bench_check(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status != 0)
        errx(1, "flock ended with status %d", status);
}

static double time_of(void (*run)(void))
{
    int64_t start = bench_now();
    run();
    return (double)(bench_now() - start) / 1000;
}

int main(void)
{
    double ours[PAIRS], peer[PAIRS];
    const char *tool = getenv("FLOCKCTL");
    if (tool && *tool)
        setenv("FLOCKCTL_TOOL", tool, 1);
    snprintf(peer_path, sizeof peer_path, "%s/peer", bench_root());
    long mib = choose_size();
    fill_memory(mib);
    printf("resident: %ld MiB\n", mib);
    run_ours();
    run_peer();
    for (int i = 0; i < PAIRS; i++) {
        ours[i] = time_of(run_ours);
        peer[i] = time_of(run_peer);
    }
    bench_print("acquire, run, release", "us", bench_median(ours, PAIRS), bench_median(peer, PAIRS), GOAL);
    return 0;
}
