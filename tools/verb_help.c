/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl help: what there is, or what a verb does. */
#include <stdio.h>

#include "exit_status.h"
#include "message.h"
#include "verbs.h"

static const char global_help[] = "      --dir DIR               the lock directory\n"
                                  "  -q, --quiet                 say only what went wrong\n"
                                  "  -v, --verbose               say more\n"
                                  "  -h, --help                  this text\n"
                                  "      --version               the version\n";

void print_verb_help(const struct verb *verb)
{
    printf("flockctl %s\n\n%s\nGlobal options, also before the verb\n%s", verb->synopsis, verb->help, global_help);
}

static void print_help(void)
{
    printf("flockctl [OPTION]... VERB [OPTION]... [OPERAND]... [-- COMMAND [ARG]...]\n"
           "\n"
           "Locks and semaphores shared by the processes of one user.\n"
           "\n");
    for (size_t i = 0; verbs[i]; i++)
        printf("  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    printf("\n%s\n"
           "Exit status: COMMAND's own; 1 no, of status -q, holders and evict; 35 waiting would never end; 69 a probe\n"
           "failed; 75 not acquired; 124 COMMAND's time ran out; 125 flockctl failed; 126, 127 COMMAND can't be run;\n"
           "128+n died by signal n.\n"
           "\n"
           "More about a verb: flockctl help VERB. Manual: flockctl(1), flockctl(7).\n"
           "\n"
           "Example\n"
           "  flockctl acquire podman -- podman run --rm alpine true\n",
           global_help);
}

static int run_help(struct options *options)
{
    if (options->n_operands == 0) {
        print_help();
        return 0;
    }
    if (!check_operands(&verb_help, options, 0, 1))
        return EXIT_OURS;
    const struct verb *verb = find_verb(options->operands[0]);
    if (!verb) {
        const struct verb *nearest = nearest_verb(options->operands[0]);
        complain("there is no verb \"%s\"%s%s; all of them: flockctl help", options->operands[0],
                 nearest ? "; did you mean " : "", nearest ? nearest->name : "");
        return EXIT_OURS;
    }
    print_verb_help(verb);
    return 0;
}

const struct verb verb_help = {
    .name = "help",
    .synopsis = "help [VERB]",
    .summary = "print what there is, or what a verb does",
    .help = "Example\n"
            "  flockctl help acquire\n",
    .without_locks = true,
    .run = run_help,
};
