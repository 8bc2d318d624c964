/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* By how much time limits are late: from the moment that flockctl has told its command as its deadline to the moment that the
 * command gets the signal. And, since timeout(1) tells nothing, for both: from before the tool is started to the signal, less
 * the limit, which is the time of the start and the lateness.
 *
 * Usage: late. $FLOCKCTL is the tool. */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define TRIES 100
#define LIMIT_NS INT64_C(20000000)

/* The command. Prints when it got the signal, and when it was to get it. */
static int be_late(void)
{
    sigset_t set;
    int number;
    const char *deadline = getenv("FLOCKCTL_DEADLINE");
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigwait(&set, &number);
    printf("%lld %lld\n", (long long)bench_now(), deadline ? atoll(deadline) : 0);
    return 0;
}

static void try_once(const char *line, double *whole, double *late)
{
    long long caught, deadline;
    int64_t start = bench_now();
    FILE *out = popen(line, "r");
    bench_check(out != NULL, "popen");
    if (fscanf(out, "%lld %lld", &caught, &deadline) != 2)
        errx(1, "%s: says nothing", line);
    pclose(out);
    *whole = (double)(caught - start - LIMIT_NS) / 1000;
    if (late)
        *late = (double)(caught - deadline) / 1000;
}

int main(int argc, char **argv)
{
    static double ours[TRIES], peer[TRIES], late[TRIES];
    char our_line[4096], peer_line[4096];
    const char *tool = getenv("FLOCKCTL");
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return be_late();
    snprintf(our_line, sizeof our_line, "exec '%s' -q run --timeout 20ms -- '%s' child", tool ? tool : "flockctl",
             argv[0]);
    snprintf(peer_line, sizeof peer_line, "exec timeout 0.02 '%s' child", argv[0]);
    for (size_t i = 0; i < TRIES; i++) {
        try_once(our_line, &ours[i], &late[i]);
        try_once(peer_line, &peer[i], NULL);
    }
    double median = bench_median(late, TRIES);
    printf("a limit of 20 ms is late by %.0f us, at most by %.0f, at least by %.0f\n", median, late[TRIES - 1],
           late[0]);
    median = bench_median(ours, TRIES);
    bench_print("with the tool's start", "us", median, bench_median(peer, TRIES), 0);
    return late[0] < 0; /* early */
}
