/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

#define PROCESSES 4

static struct {
    _Atomic int done;
    unsigned removed, counter, overlaps;
    _Atomic int inside;
} * shared;

struct seen {
    unsigned of[FK_GC_PROBLEM + 1];
    char name[PATH_MAX];
};

static void note(const struct fk_gc_found *found, void *data)
{
    struct seen *seen = data;
    seen->of[found->what]++;
    snprintf(seen->name, sizeof seen->name, "%s", found->name);
}

static struct seen collect(int64_t max_age_ms, bool dry_run)
{
    struct seen seen = {0};
    const struct fk_gc_spec spec = {.max_age_ms = max_age_ms, .dry_run = dry_run, .tell = note, .data = &seen};
    if (fk_gc(&spec) < 0)
        bail_out("%s", flk_error_detail());
    return seen;
}

/* ---- locks of outputs ---- */

static int build(const char *path, void *data)
{
    (void)data;
    test_write_file(path, "built");
    return 0;
}

static void outputs(void)
{
    const char *path = test_path("place/output");
    const struct flk_once_spec spec = {.output = path, .build = build};
    mkdir(test_path("place"), 0700);
    if (flk_once(&spec, FLK_FOREVER) < 0)
        bail_out("%s", flk_error_detail());
    struct seen seen = collect(-1, false);
    is_int(seen.of[FK_GC_OUTPUT_GONE] + seen.of[FK_GC_OUTPUT], 0, "the lock of an output that is there stays");
    unlink(path);
    seen = collect(-1, true);
    ok(seen.of[FK_GC_OUTPUT_GONE] == 1 && strcmp(seen.name, path) == 0, "that of one that is gone is found: %s",
       seen.name);
    seen = collect(-1, false);
    is_int(seen.of[FK_GC_OUTPUT_GONE], 1, "and goes");
    is_int(test_entries(test_path("root/once")), 0, "for good");
    if (flk_once(&spec, FLK_FOREVER) < 0)
        bail_out("%s", flk_error_detail());
    rename(test_path("place"), test_path("elsewhere"));
    mkdir(test_path("place"), 0700);
    test_write_file(path, "another one, whose lock is another");
    seen = collect(-1, false);
    is_int(seen.of[FK_GC_OUTPUT_GONE], 1, "so does that of a directory that isn't the one at its path any more");
    unlink(path);
    if (flk_once(&spec, FLK_FOREVER) < 0)
        bail_out("%s", flk_error_detail());
    seen = collect(0, false);
    is_int(seen.of[FK_GC_OUTPUT], 1, "and that of one that is there, when nobody has used it for so long");
}

/* ---- while others come and go ---- */

static int use(void *data)
{
    unsigned count = *(unsigned *)data;
    for (unsigned i = 0; i < count; i++) {
        struct flk_hold *hold;
        if (flk_acquire("busy", 0, FLK_FOREVER, &hold) < 0) {
            diag("%s", flk_error_detail());
            return 1;
        }
        if (atomic_fetch_add(&shared->inside, 1) > 0)
            shared->overlaps++;
        shared->counter++;
        atomic_fetch_sub(&shared->inside, 1);
        flk_hold_release(hold);
        if (i % 16 == 0)
            usleep(100); /* nobody has it for a moment */
    }
    return 0;
}

static int collect_all_the_time(void *data)
{
    (void)data;
    while (!shared->done)
        shared->removed += collect(0, false).of[FK_GC_ROW];
    return 0;
}

static void race(void)
{
    const char *scale = getenv("STRESS_SCALE");
    unsigned count = 2000 * (scale ? (unsigned)atoi(scale) : 1) / (test_is_slow() ? 10 : 1);
    pid_t pids[PROCESSES], collector = tap_fork();
    if (collector == 0)
        _exit(collect_all_the_time(NULL));
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            _exit(use(&count));
    }
    int failed = 0;
    for (int i = 0; i < PROCESSES; i++)
        failed += test_reap(pids[i]) != 0;
    for (int tries = 0; shared->removed == 0 && tries < 20000; tries++)
        usleep(1000);
    shared->done = 1;
    is_int(test_reap(collector), 0, "gc runs all the time, while %d processes use a name %u times each", PROCESSES,
           count);
    is_int(failed, 0, "none of them fails");
    ok(shared->removed > 0, "the row goes, and comes again (%u times)", shared->removed);
    is_int(shared->counter, PROCESSES * count, "each has had it so often");
    is_int(shared->overlaps, 0, "never two at once");
}

int main(void)
{
    tap_deadline(120);
    test_root();
    shared = test_shared(sizeof *shared);
    outputs();
    race();
    return done_testing();
}
