/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl version */
#include <flockctl.h>
#include <stdio.h>

#include "exit_status.h"
#include "verbs.h"

static int run_version(struct options *options)
{
    if (!options->version && !check_operands(&verb_version, options, 0, 0))
        return EXIT_OURS;
    printf("flockctl %s\n", flk_version());
    return 0;
}

const struct verb verb_version = {
    .name = "version",
    .synopsis = "version",
    .summary = "print the version",
    .help = "Example\n"
            "  flockctl version\n",
    .without_locks = true,
    .run = run_version,
};
