/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl id: a name that nobody else gets. */
#include <flockctl.h>
#include <stdio.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

static int run_id(struct options *options)
{
    char id[FLK_ID_SIZE];
    if (!check_operands(&verb_id, options, 0, 1))
        return EXIT_OURS;
    int code = flk_id(options->n_operands ? options->operands[0] : NULL, id, sizeof id);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    puts(id);
    return 0;
}

const struct verb verb_id = {
    .name = "id",
    .synopsis = "id [PREFIX]",
    .summary = "print a name that is never given twice",
    .help = "Prints a name that is unique on this machine for ever: 24 characters of a-z and 0-9 that begin with "
            "PREFIX (at "
            "most 7\n"
            "characters, the first a letter). It is good in names of containers, databases, hosts and files.\n"
            "\n"
            "Example\n"
            "  name=$(flockctl id db) && podman run --name \"$name\" -d postgres\n",
    .without_locks = true,
    .run = run_id,
};
