/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl gc: takes away what has gathered in the lock directory. */
#include <flockctl.h>
#include <stdio.h>

#include "exit_status.h"
#include "gc.h"
#include "message.h"
#include "verbs.h"

#define DEFAULT_AGE_MS ((int64_t)30 * 24 * 3600 * 1000)

static void print_found(const struct fk_gc_found *found, void *data)
{
    const struct options *options = data;
    const char *done = options->dry_run ? "would remove" : "removed", *plural = found->count == 1 ? "" : "s";
    char since[SINCE_TEXT_SIZE];
    if (found->what == FK_GC_PROBLEM)
        complain("%s", found->name);
    if (found->what == FK_GC_PROBLEM || !(options->dry_run || message_verbose))
        return;
    if (!since_text(found->used_ms, since))
        snprintf(since, sizeof since, "it was made");
    switch (found->what) {
    case FK_GC_ROW:
        printf("%s %s: unused since %s\n", done, found->name, since);
        break;
    case FK_GC_OUTPUT:
        printf("%s the lock of %s: unused since %s\n", done, found->name, since);
        break;
    case FK_GC_OUTPUT_GONE:
        printf("%s the lock of %s: there is no such file\n", done, found->name);
        break;
    case FK_GC_UNDER:
        printf("%s a row below a hold of %s: unused since %s\n", done, found->name, since);
        break;
    case FK_GC_TICKETS:
        printf("%s %u ticket%s in the queue of %s: dead\n", done, found->count, plural, found->name);
        break;
    case FK_GC_WAITERS:
        printf("%s %u record%s of waiters: dead\n", done, found->count, plural);
        break;
    case FK_GC_TEMPORARY:
        printf("%s %s: left half-made by a process that was killed\n", done, found->name);
        break;
    case FK_GC_PROBLEM:
        break;
    }
}

static int run_gc(struct options *options)
{
    if (!check_operands(&verb_gc, options, 0, 0))
        return EXIT_OURS;
    const struct fk_gc_spec spec = {
        .max_age_ms = options->has_max_age ? options->max_age_ms : DEFAULT_AGE_MS,
        .dry_run = options->dry_run,
        .tell = print_found,
        .data = options,
    };
    return fk_gc(&spec) < 0 ? EXIT_OURS : 0;
}

const struct verb verb_gc = {
    .name = "gc",
    .synopsis = "gc [--max-age TIME] [--dry-run]",
    .summary = "take away what has gathered in the lock directory",
    .help = "Removes names of one slot that nobody has used for some time, which make themselves again; locks of "
            "build-once\n"
            "outputs that aren't there any more; and what killed processes have left: tickets, records, half-made "
            "rows and\n"
            "items. What is held or waited for, was left by a holder that died, has something to clean up, or was defined "
            "with\n"
            "several slots or values, stays.\n"
            "\n"
            "      --max-age TIME          how long a name must have been unused (default 30d; 0: at all; forever: "
            "none is too old)\n"
            "      --dry-run               only print what would be removed; -v prints what is\n"
            "\n"
            "Example\n"
            "  flockctl gc --max-age 7d --dry-run\n",
    .groups = GROUP_MAX_AGE | GROUP_DRY_RUN,
    .run = run_gc,
};
