/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl holders: the processes that have names, for scripts. */
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

struct pids {
    pid_t *pids;
    size_t count, unseen;
};

/* Only numbers that mean something here. */
static void add_holder(struct pids *pids, const struct flk_holder *holder)
{
    if (holder->pid == 0 || (holder->foreign & FLK_FOREIGN_PID)) {
        pids->unseen++;
        return;
    }
    for (size_t i = 0; i < pids->count; i++)
        if (pids->pids[i] == holder->pid)
            return;
    pids->pids[pids->count++] = holder->pid;
}

static size_t count_holders(struct flk_row **rows)
{
    size_t count = 0;
    for (size_t i = 0; rows[i]; i++)
        for (size_t j = 0; j < rows[i]->n_slots; j++)
            count += rows[i]->slots[j]->n_holders;
    return count;
}

/* Those of a nested row have the outer one's slots, too. */
static int print_holders(struct flk_row **rows)
{
    struct pids pids = {.pids = calloc(count_holders(rows) + 1, sizeof *pids.pids)};
    int status = 0;
    if (!pids.pids) {
        complain("out of memory");
        return EXIT_OURS;
    }
    for (size_t i = 0; rows[i]; i++) {
        if (rows[i]->problem) {
            complain("%s", rows[i]->problem);
            status = EXIT_OURS;
        }
        for (size_t j = 0; j < rows[i]->n_slots; j++)
            for (size_t k = 0; k < rows[i]->slots[j]->n_holders; k++)
                add_holder(&pids, rows[i]->slots[j]->holders[k]);
    }
    for (size_t i = 0; i < pids.count; i++)
        printf("%d\n", (int)pids.pids[i]);
    if (pids.unseen > 0)
        say("%zu more that have no number here: of another pid namespace, or not ours to see; flockctl status shows "
            "them",
            pids.unseen);
    if (status == 0 && pids.count + pids.unseen == 0)
        status = EXIT_NO;
    free(pids.pids);
    return status;
}

static int run_holders(struct options *options)
{
    struct flk_row **rows;
    if (!check_operands(&verb_holders, options, 1, SIZE_MAX))
        return EXIT_OURS;
    int code = flk_inspect((const char *const *)options->operands, &rows);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    int status = print_holders(rows);
    flk_inspect_free(rows);
    return status;
}

const struct verb verb_holders = {
    .name = "holders",
    .synopsis = "holders NAME...",
    .summary = "print the pids of those who have names",
    .help = "Prints the process ids of all that have a slot of a NAME, one a line. Exit status 1 when there are none.\n"
            "\n"
            "Example\n"
            "  ps -p \"$(flockctl holders podman | paste -sd,)\"\n",
    .run = run_holders,
};
