/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl state: registers what is to be cleaned up when a process has ended, shows it, forgets it. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "exit_status.h"
#include "message.h"
#include "state.h"
#include "states.h"
#include "table.h"
#include "verbs.h"

/* ---- add ---- */

static int complain_of_owner(int code)
{
    if (code == -ENOENT)
        complain("whose state is it? Outside of flockctl acquire and run say so: --owner PID (of this script: --owner $$)");
    else if (code == -ESRCH)
        complain("the flockctl that FLOCKCTL_OWNER names isn't around this command any more; say whose state it is: "
                 "--owner PID");
    else
        complain("FLOCKCTL_OWNER isn't what flockctl puts there; unset it, and say whose state it is: --owner PID");
    return EXIT_OURS;
}

static int add(const struct options *options)
{
    struct fk_owner owner;
    char id[FLK_ID_SIZE];
    const char *name = NULL;
    struct flk_state_spec spec = {
        .label = options->label,
        .paths = options->paths,
        .command = options->cleanup,
        .command_limit_ms = options->cleanup_timeout_ms,
        .owner = options->owner,
    };
    if (!options->owner) {
        int code = fk_state_owner_around(getenv(FK_STATE_OWNER_VARIABLE), &owner, &name);
        if (code < 0)
            return complain_of_owner(code);
    }
    spec.name = options->n_operands ? options->operands[0] : name && *name ? name : NULL;
    int code = options->owner ? flk_state_add(&spec, id) : fk_state_add(&spec, &owner, id);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    printf("%s\n", id);
    return 0;
}

/* ---- drop ---- */

static int drop(const struct options *options)
{
    int status = 0;
    for (size_t i = 0; i < options->n_operands; i++) {
        int code = flk_state_drop(options->operands[i]);
        if (code < 0)
            status = complain_of(code, EXIT_OURS);
    }
    return status;
}

/* ---- list ---- */

enum { ID, NAME, OWNER, STATE, REASON, SINCE, CLEANUP, LABEL, N_COLUMNS };

static const struct table_column columns[N_COLUMNS] = {
    {"ID", 0}, {"NAME", 12}, {"OWNER", 0}, {"STATE", 0}, {"BECAUSE", 12}, {"SINCE", 0}, {"CLEANUP", 24}, {"LABEL", 8},
};

static enum table_color color_of(const struct flk_state *state)
{
    return state->problem || state->failures ? TABLE_RED : state->alive ? TABLE_GREEN : TABLE_YELLOW;
}

static int add_line(const struct flk_state *state, void *data)
{
    char owner[16], since[SINCE_TEXT_SIZE], purpose[1024], because[256];
    bool known = since_text(state->since_ms, since);
    snprintf(owner, sizeof owner, "%d", (int)state->owner);
    snprintf(because, sizeof because, "%s", state->reason);
    if (state->failures)
        snprintf(because, sizeof because, "%u of %u attempts failed; %s", state->failures, state->attempts, state->reason);
    const struct table_cell cells[N_COLUMNS] = {
        [ID] = {state->id, TABLE_PLAIN},
        [NAME] = {state->name ? state->name : "-", TABLE_PLAIN},
        [OWNER] = {state->owner ? owner : "-", TABLE_PLAIN},
        [STATE] = {states_word(state), color_of(state)},
        [REASON] = {because, TABLE_PLAIN},
        [SINCE] = {known ? since : "-", TABLE_PLAIN},
        [CLEANUP] = {states_purpose(state, purpose, sizeof purpose), TABLE_PLAIN},
        [LABEL] = {state->label, TABLE_PLAIN},
    };
    table_add(data, cells);
    return 0;
}

static int print_one(const struct flk_state *state, void *data)
{
    size_t *count = data;
    printf("%s{", (*count)++ ? "," : "");
    states_put_json(state);
    putchar('}');
    return 0;
}

/* After what could be shown. */
static int complain_of_one(const struct flk_state *state, void *data)
{
    int *status = data;
    if (state->problem) {
        complain("%s", state->problem);
        *status = EXIT_OURS;
    }
    return 0;
}

static int print_json(const char *name)
{
    size_t count = 0;
    printf("{\"schema\":1,\"states\":[");
    int code = flk_state_list(name, print_one, &count);
    printf("]}\n");
    return code;
}

static int print_table(const char *name)
{
    struct table table;
    struct table_form form = table_form_of_stdout();
    table_begin(&table, columns, N_COLUMNS);
    int code = flk_state_list(name, add_line, &table);
    if (code == 0 && !table_print(&table, stdout, &form))
        code = fk_fail(-ENOMEM, "out of memory");
    table_end(&table);
    return code;
}

static int list(const struct options *options)
{
    const char *name = options->n_operands ? options->operands[0] : NULL;
    int status = 0, code = options->json ? print_json(name) : print_table(name);
    if (code == 0)
        code = flk_state_list(name, complain_of_one, &status);
    return code < 0 ? complain_of(code, EXIT_OURS) : status;
}

/* ---- the verb ---- */

static const struct {
    const char *word;
    int (*run)(const struct options *options);
    size_t most;
    bool needs_id;
    bool adds, lists; /* which of the options it takes */
} actions[] = {
    {"add", add, 1, false, true, false},
    {"drop", drop, SIZE_MAX, true, false, false},
    {"list", list, 1, false, false, true},
};

static const char *misplaced(const struct options *options, bool adds, bool lists)
{
    if (options->json && !lists)
        return "--json";
    if (adds)
        return NULL;
    return options->owner                ? "--owner"
           : options->paths              ? "--path"
           : options->cleanup            ? "--cleanup"
           : options->cleanup_timeout_ms ? "--cleanup-timeout"
           : options->label              ? "--label"
                                         : NULL;
}

static int run_state(struct options *options)
{
    if (!check_operands(&verb_state, options, 1, SIZE_MAX))
        return EXIT_OURS;
    const char *word = options->operands[0];
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(word, actions[i].word) != 0)
            continue;
        const char *wrong = misplaced(options, actions[i].adds, actions[i].lists);
        if (wrong) {
            complain("state %s doesn't take %s; leave it out", word, wrong);
            return EXIT_OURS;
        }
        if (options->n_operands == 1 && actions[i].needs_id) {
            complain("state %s needs the id that flockctl state add has printed", word);
            return EXIT_OURS;
        }
        options->operands++;
        options->n_operands--;
        int status = check_operands(&verb_state, options, 0, actions[i].most) ? actions[i].run(options) : EXIT_OURS;
        options->operands--;
        return status;
    }
    complain("state \"%s\" isn't known; it is one of: flockctl state add, state drop, state list", word);
    return EXIT_OURS;
}

const struct verb verb_state = {
    .name = "state",
    .synopsis = "state add --owner PID [OPTION]... [NAME] | drop ID... | list [--json] [NAME]",
    .operand = "add, drop or list",
    .summary = "register what is to be cleaned up when a process has ended",
    .help =
        "add registers what undoes something, before it is made, and prints an id. When the owner is proven dead, it is\n"
        "cleaned up: before NAME is acquired again, by flockctl reap, or by somebody who waits anyway. drop forgets it, "
        "when\n"
        "it has been undone. list shows all, and why their owners are taken for dead or alive.\n"
        "\n"
        "      --owner PID             when that process has ended; needed but below flockctl acquire and run, which are "
        "the\n"
        "                              owner there, and NAME the name acquired\n"
        "      --path PATH             remove it, with all that is in it (may be given several times)\n"
        "      --cleanup CMD           run CMD first, in this directory and with this environment\n"
        "      --cleanup-timeout TIME  how long CMD may take (default 30s)\n"
        "  -l, --label TEXT            shown by list; FLOCKCTL_STATE_LABEL for CMD\n"
        "      --json                  list: for programs\n"
        "\n"
        "Example: a container that doesn't outlive the script\n"
        "  id=$(flockctl state add --owner $$ --cleanup 'podman rm -f web' podman)\n"
        "  podman run -d --name web nginx; ...; podman rm -f web; flockctl state drop \"$id\"\n",
    .groups = GROUP_STATE | GROUP_CLEANUP | GROUP_JSON | GROUP_LABEL,
    .run = run_state,
};
