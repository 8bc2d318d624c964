/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl define: says how many slots a name has. */
#include <flockctl.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

static int run_define(struct options *options)
{
    if (!check_operands(&verb_define, options, 1, 1))
        return EXIT_OURS;
    if (!options->slots) {
        complain("define needs the number of slots: flockctl define %s --slots N", options->operands[0]);
        return EXIT_OURS;
    }
    int code = flk_row_define(options->operands[0], options->slots);
    return code < 0 ? complain_of(code, EXIT_OURS) : 0;
}

const struct verb verb_define = {
    .name = "define",
    .synopsis = "define NAME --slots N",
    .summary = "say how many slots a name has",
    .help = "Makes NAME a row of N slots (1 to 4096). When it has as many already, all is well; when it has another "
            "number, that is\n"
            "an error (see resize).\n"
            "\n"
            "      --slots N               how many\n"
            "\n"
            "Example: at most two container tests at a time\n"
            "  flockctl define podman --slots 2\n",
    .groups = GROUP_SLOTS,
    .run = run_define,
};
