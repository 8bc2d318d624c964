/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl prune: bounds what build-once keeps in a directory. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "exit_status.h"
#include "inspect.h"
#include "message.h"
#include "output.h"
#include "outputs.h"
#include "verbs.h"

static int compare_uses(const void *a, const void *b)
{
    const struct found_output *x = a, *y = b;
    return x->used_ms != y->used_ms ? (x->used_ms > y->used_ms) - (x->used_ms < y->used_ms) : strcmp(x->path, y->path);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct pruning {
    const struct options *options;
    struct flk_row **rows; /* --dry-run: who has what; else NULL */
    int64_t now_ms;
    uint64_t size;      /* of what is there still */
    uint64_t gone_size; /* of what went */
    size_t gone, kept;
    int status;
};

/* What has no output is of no use to anybody; what isn't what its stamp describes isn't ours to remove. */
static bool is_due(const struct pruning *pruning, const struct found_output *found)
{
    const struct options *options = pruning->options;
    if (found->state != OUTPUT_READY)
        return found->state == OUTPUT_MISSING;
    return (options->has_max_size && pruning->size > options->max_size) ||
           (options->max_age_ms != FLK_FOREVER && pruning->now_ms - found->used_ms > options->max_age_ms);
}

/* ours: we have removed it, not somebody else at the same time. */
static void note_gone(struct pruning *pruning, const struct found_output *found, bool ours)
{
    if (found->state != OUTPUT_READY)
        return;
    pruning->size -= found->size;
    if (!ours)
        return;
    pruning->gone++;
    pruning->gone_size += found->size;
    printf("%s\n", found->path);
}

static void note_kept(struct pruning *pruning, const struct found_output *found, const char *reason)
{
    char shown[FK_OUTPUT_SHOWN_SIZE];
    fk_output_show(found->path, shown);
    chat("%s is kept: %s", shown, reason);
    pruning->kept++;
}

/* Who has it, or has used it meanwhile, keeps it. */
static void prune_one(struct pruning *pruning, const struct found_output *found)
{
    enum discarded discarded;
    int code = output_discard(found->path, found->used_ms, 0, &discarded);
    if (code == -EBUSY || code == -EDEADLK)
        note_kept(pruning, found, flk_error_detail());
    else if (code < 0)
        pruning->status = complain_of(code, EXIT_OURS);
    else if (discarded == DISCARD_TOUCHED)
        note_kept(pruning, found, "it has just been used");
    else
        note_gone(pruning, found, discarded == DISCARDED);
}

static void pretend(struct pruning *pruning, const struct found_output *found)
{
    if (slot_is_taken(output_slot(pruning->rows, found->path)))
        note_kept(pruning, found, "somebody has it");
    else
        note_gone(pruning, found, true);
}

static void report(const struct pruning *pruning)
{
    char gone[SIZE_TEXT_SIZE], left[SIZE_TEXT_SIZE];
    chat("%s %zu output%s of %s; %s are left; %zu kept", pruning->rows ? "would remove" : "removed",
         pruning->gone, pruning->gone == 1 ? "" : "s", size_text(pruning->gone_size, gone),
         size_text(pruning->size, left), pruning->kept);
}

static void prune_all(struct pruning *pruning, const struct outputs *outputs)
{
    for (size_t i = 0; i < outputs->count; i++)
        pruning->size += outputs->found[i].state == OUTPUT_READY ? outputs->found[i].size : 0;
    if (outputs->count > 0)
        qsort(outputs->found, outputs->count, sizeof *outputs->found, compare_uses);
    for (size_t i = 0; i < outputs->count; i++)
        if (is_due(pruning, &outputs->found[i]))
            (pruning->rows ? pretend : prune_one)(pruning, &outputs->found[i]);
}

static int prune(const struct options *options)
{
    struct pruning pruning = {.options = options, .now_ms = now_ms()};
    struct outputs outputs;
    int code = options->dry_run ? fk_inspect_outputs(&pruning.rows) : 0;
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    if (outputs_find(options->operands[0], &outputs)) {
        pruning.status = outputs.failed ? EXIT_OURS : 0;
        prune_all(&pruning, &outputs);
        report(&pruning);
        outputs_free(&outputs);
    } else {
        pruning.status = EXIT_OURS;
    }
    flk_inspect_free(pruning.rows);
    return pruning.status;
}

static int run_prune(struct options *options)
{
    if (!check_operands(&verb_prune, options, 1, 1))
        return EXIT_OURS;
    if (!options->has_max_size && !options->has_max_age) {
        complain("how much is to stay isn't said; give --max-size, --max-age or both: flockctl prune --max-size 10G %s",
                 options->operands[0]);
        return EXIT_OURS;
    }
    return prune(options);
}

const struct verb verb_prune = {
    .name = "prune",
    .synopsis = "prune [--max-size SIZE] [--max-age TIME] [--dry-run] DIR",
    .operand = "a directory",
    .summary = "bound what once keeps in a directory",
    .help = "Removes outputs of flockctl once in DIR and below it, those whose last use is longest ago first, and prints "
            "their\n"
            "paths. Never one that is in use (once --use, flk_once_use()) or being built, nor anything that once hasn't "
            "made.\n"
            "\n"
            "      --max-size SIZE         of all outputs together, as they lie on disk: 500M, 10G\n"
            "      --max-age TIME          not used for so long: 12h, 30d\n"
            "      --dry-run               only print what would be removed\n"
            "\n"
            "Example\n"
            "  flockctl prune --max-size 10G --max-age 30d ~/.cache/layers\n",
    .groups = GROUP_PRUNE | GROUP_MAX_AGE | GROUP_DRY_RUN,
    .run = run_prune,
};
