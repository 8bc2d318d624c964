/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl path: the files of a name, for those who join in by hand. */
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

static int print_paths(const struct options *options, const char *path, unsigned slots)
{
    unsigned long slot;
    if (options->latch) {
        printf("%s/latch\n", path);
        return 0;
    }
    if (options->n_operands == 2) {
        if (!parse_number(options->operands[1], 0, slots - 1, &slot)) {
            complain("%s has no slot \"%s\"; it has 0 to %u", options->operands[0], options->operands[1], slots - 1);
            return EXIT_OURS;
        }
        printf("%s/slots/%lu\n", path, slot);
        return 0;
    }
    for (slot = 0; slot < slots; slot++)
        printf("%s/slots/%lu\n", path, slot);
    return 0;
}

static int run_path(struct options *options)
{
    unsigned slots;
    char *path;
    if (!check_operands(&verb_path, options, 1, options->latch ? 1 : 2))
        return EXIT_OURS;
    int code = flk_row_path(options->operands[0], options->slots, &slots, &path);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    int status = print_paths(options, path, slots);
    free(path);
    return status;
}

const struct verb verb_path = {
    .name = "path",
    .synopsis = "path [--latch] [--slots N] NAME [SLOT]",
    .summary = "print the files of a name",
    .help = "Prints the path of each slot of NAME, one a line, or of SLOT. Makes NAME when it isn't there. flockctl(7) "
            "says how to\n"
            "join in with them from any language.\n"
            "\n"
            "      --latch                 the path of the latch instead\n"
            "      --slots N               how many slots NAME has; checked when it exists\n"
            "\n"
            "Example: take a lock in a shell script, without a child\n"
            "  slot=$(flockctl path podman); exec 8<\"${slot%slots/0}latch\"; flock 8\n"
            "  exec 9<>\"$slot\"; flock -n 9 || { echo taken; exit 75; }\n"
            "  exec 8<&-\n",
    .groups = GROUP_SLOTS | GROUP_LATCH,
    .run = run_path,
};
