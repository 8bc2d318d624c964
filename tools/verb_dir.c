/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl dir: where the locks are, and why there. */
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

static int run_dir(struct options *options)
{
    char *text;
    if (!check_operands(&verb_dir, options, 0, 0))
        return EXIT_OURS;
    int code = message_quiet ? flk_root_get(&text) : flk_root_describe(&text);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    printf(message_quiet ? "%s\n" : "%s", text);
    free(text);
    return 0;
}

const struct verb verb_dir = {
    .name = "dir",
    .synopsis = "dir",
    .summary = "print the lock directory and why it is that one",
    .help = "Prints the lock directory; then, unless --quiet is given, why it was chosen and what the other candidates "
            "are.\n"
            "\n"
            "Example\n"
            "  flockctl -q dir\n",
    .run = run_dir,
};
