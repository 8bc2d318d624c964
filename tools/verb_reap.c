/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl reap: cleans up what processes that have ended left behind. */
#include <flockctl.h>
#include <stdio.h>

#include "exit_status.h"
#include "json.h"
#include "message.h"
#include "reap.h"
#include "states.h"
#include "verbs.h"

struct tally {
    const struct options *options;
    size_t shown; /* in JSON */
    unsigned cleaned, failed, damaged;
};

static const char *const result_words[] = {"cleaned", "would clean", "failed", "later", "busy", "alive", "damaged"};

static void show_json(struct tally *tally, const struct flk_state *state, enum fk_reap_result result, const char *detail)
{
    printf("%s{", tally->shown++ ? "," : "");
    states_put_json(state);
    fk_json_put_text(stdout, "detail", detail);
    printf(",\"result\":\"%s\"}", result == FK_REAP_WOULD ? "would" : result_words[result]);
}

static void count(struct tally *tally, enum fk_reap_result result)
{
    tally->cleaned += result == FK_REAP_CLEANED || result == FK_REAP_WOULD;
    tally->failed += result == FK_REAP_FAILED;
    tally->damaged += result == FK_REAP_DAMAGED;
}

static void tell(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data)
{
    struct tally *tally = data;
    char purpose[512];
    count(tally, result);
    if (tally->options->json)
        show_json(tally, state, result, detail);
    if (result == FK_REAP_WOULD && !tally->options->json)
        printf("%s\t%s\n", state->id, states_purpose(state, purpose, sizeof purpose));
    else if (result == FK_REAP_CLEANED)
        chat("cleaned up %s, which pid %d left (%s): %s", state->id, (int)state->owner, state->reason,
             states_purpose(state, purpose, sizeof purpose));
    else if (result != FK_REAP_WOULD)
        states_tell(state, result, detail, NULL);
}

static int reap(const char *name, struct tally *tally)
{
    const struct fk_reap_spec spec = {
        .name = name,
        .flags = FK_REAP_NOW | FK_REAP_LEND | (tally->options->dry_run ? FK_REAP_DRY_RUN : 0),
        .tell = tell,
        .data = tally,
    };
    int code = fk_reap_run(&spec, -1);
    return code < 0 ? complain_of(code, EXIT_OURS) : 0;
}

static int run_reap(struct options *options)
{
    struct tally tally = {.options = options};
    int status = 0;
    if (!check_operands(&verb_reap, options, 0, SIZE_MAX))
        return EXIT_OURS;
    if (options->json)
        printf("{\"schema\":1,\"items\":[");
    for (size_t i = 0; status == 0 && i < options->n_operands; i++)
        status = reap(options->operands[i], &tally);
    if (options->n_operands == 0)
        status = reap(NULL, &tally);
    if (options->json)
        printf("],\"cleaned\":%u}\n", tally.cleaned);
    chat("%u %scleaned up, %u failed", tally.cleaned, options->dry_run ? "would be " : "", tally.failed);
    return status == 0 && (tally.failed || tally.damaged) ? EXIT_OURS : status;
}

const struct verb verb_reap = {
    .name = "reap",
    .synopsis = "reap [--dry-run] [--json] [NAME]...",
    .summary = "clean up what processes that have ended left",
    .help = "Cleans up what has been registered (flockctl state add) by or for processes that are proven dead: of each "
            "NAME, or all.\n"
            "That is done by itself, too: before NAME is acquired, and by somebody who waits. A cleanup that fails stays, "
            "and is tried\n"
            "again. Exit status 125 when one has failed, or is damaged. -v says what was done, and why the rest was not.\n"
            "\n"
            "      --dry-run               only print what would be cleaned up\n"
            "      --json                  for programs\n"
            "\n"
            "Example\n"
            "  flockctl reap --dry-run podman\n",
    .groups = GROUP_JSON | GROUP_DRY_RUN,
    .run = run_reap,
};
