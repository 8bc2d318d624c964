/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Nobody is told "busy" by a row that is never full: as many processes as slots, or one fewer, each with at most one
 * slot, all trying without waiting. What could make a free slot look taken: a neighbour that looks at it, a
 * neighbour's try at the same moment, and copies of a holder's descriptors, which other threads' clones and forks make
 * all the time.
 *
 * STRESS_SCALE multiplies the tries (1: 10,000 a process for the plain rows, a tenth of that beside clones
 * and forks). */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "flockctl.h"
#include "tap.h"

#define PROCESSES 8

enum beside { NOTHING, RAW_CLONES, FORKS };

static struct common {
    _Atomic unsigned started, tries, busy, errors, copies;
    char message[200];
} *common;

static _Atomic int over;

/* A child that has a copy of all that its parent has open at the moment, for a while, or until fork's handlers close
   it. */
static void make_copy(enum beside beside)
{
    pid_t pid = beside == FORKS ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0ul);
    if (pid == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        _exit(0);
    }
    atomic_fetch_add(&common->copies, pid > 0);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static void *make_copies(void *data)
{
    while (!over)
        make_copy(*(enum beside *)data);
    return NULL;
}

/* Holds it for a moment: only when most slots are taken does one that wrongly seems to be count. */
static void try_once(const char *name, bool pause)
{
    struct flk_hold *hold;
    int code = flk_acquire(name, 0, 0, &hold);
    atomic_fetch_add(&common->tries, 1);
    if (code == 0 && pause)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    if (code == 0)
        flk_hold_release(hold);
    else if (code == -EBUSY)
        atomic_fetch_add(&common->busy, 1);
    else if (atomic_fetch_add(&common->errors, 1) == 0)
        snprintf(common->message, sizeof common->message, "%s", flk_error_detail());
}

static void be_process(const char *name, unsigned tries, enum beside beside)
{
    pthread_t thread;
    if (beside != NOTHING && pthread_create(&thread, NULL, make_copies, &beside) != 0)
        _exit(1);
    /* All at once: a process that is done before the next one begins disturbs nobody. */
    for (atomic_fetch_add(&common->started, 1); common->started < PROCESSES;)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    for (unsigned i = 0; i < tries; i++)
        try_once(name, beside != NOTHING || i % 4 == 0);
    over = 1;
    if (beside != NOTHING)
        pthread_join(thread, NULL);
    _exit(0);
}

static void torture(const char *name, unsigned slots, unsigned tries, enum beside beside)
{
    static const char *const what[] = {"", " beside raw clones", " beside forks"};
    pid_t pids[PROCESSES];
    unsigned failed = 0;
    *common = (struct common){0};
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            be_process(name, tries, beside);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = -1;
        while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
            ;
        failed += status != 0;
    }
    is_int(failed + common->errors, 0, "%u slots%s: no error", slots, what[beside]);
    if (common->errors)
        diag("%s", common->message);
    is_int(common->tries, (long long)PROCESSES * tries, "%u slots%s: everybody tried", slots, what[beside]);
    is_int(common->busy, 0, "%u slots%s: no false \"busy\"", slots, what[beside]);
    if (beside != NOTHING)
        ok(common->copies > 0, "%u slots%s: there were %u", slots, what[beside], common->copies);
}

int main(void)
{
    const char *text = getenv("STRESS_SCALE");
    double scale = text ? strtod(text, NULL) : 1;
    unsigned tries = (unsigned)(10000 * scale);
    char root[4096];
    tap_deadline((unsigned)(120 + 60 * scale));
    snprintf(root, sizeof root, "%s/locks", tap_directory());
    setenv("FLOCKCTL_DIR", root, 1);
    common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (common == MAP_FAILED)
        bail_out("no shared memory");
    torture("eight", PROCESSES, tries, NOTHING);
    torture("nine", PROCESSES + 1, tries, NOTHING);
    torture("eight", PROCESSES, tries / 10, RAW_CLONES);
    torture("eight", PROCESSES, tries / 10, FORKS);
    return done_testing();
}
