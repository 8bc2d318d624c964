/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl: options, the table of verbs, and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "exit_status.h"
#include "helper.h"
#include "message.h"
#include "reap.h"
#include "signals.h"
#include "states.h"
#include "verbs.h"

const struct verb *const verbs[] = {
    &verb_acquire, &verb_run,  &verb_once,   &verb_define,  &verb_resize,  &verb_remove,
    &verb_path,    &verb_dir,  &verb_status, &verb_holders, &verb_evict,   &verb_log,
    &verb_state,   &verb_reap, &verb_gc,     &verb_prune,   &verb_id,      &verb_help,
    &verb_version, NULL,
};

const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; verbs[i]; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* How many letters must be changed, added or taken away (Levenshtein). Verbs are short. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[32];
    size_t length = strlen(b);
    if (length >= sizeof row / sizeof *row)
        return UINT_MAX;
    for (unsigned j = 0; j <= length; j++)
        row[j] = j;
    for (; *a; a++) {
        unsigned corner = row[0]++;
        for (size_t j = 1; j <= length; j++) {
            unsigned above = row[j];
            row[j] = least(least(above, row[j - 1]) + 1, corner + (*a != b[j - 1]));
            corner = above;
        }
    }
    return row[length];
}

/* NULL: there is none, or more than one. */
static const struct verb *only_verb_that_begins_so(const char *name)
{
    const struct verb *only = NULL;
    for (size_t i = 0; verbs[i]; i++) {
        if (strncmp(verbs[i]->name, name, strlen(name)) != 0)
            continue;
        if (only)
            return NULL;
        only = verbs[i];
    }
    return only;
}

const struct verb *nearest_verb(const char *name)
{
    const struct verb *nearest = only_verb_that_begins_so(name);
    if (nearest)
        return nearest;
    unsigned shortest = 3; /* further away it is another word */
    for (size_t i = 0; verbs[i]; i++) {
        unsigned letters = distance(name, verbs[i]->name);
        if (letters < shortest && 2 * letters < strlen(name)) {
            shortest = letters;
            nearest = verbs[i];
        }
    }
    return nearest;
}

/* The others are in the verb's help. */
static int first_form(const struct verb *verb)
{
    return (int)strcspn(verb->synopsis, "\n");
}

bool check_operands(const struct verb *verb, const struct options *options, size_t least_number, size_t most)
{
    if (options->command && !(verb->groups & GROUP_RUN)) {
        complain("%s runs no command; leave \"--\" and what follows out: flockctl %.*s", verb->name, first_form(verb),
                 verb->synopsis);
        return false;
    }
    if (options->n_operands >= least_number && options->n_operands <= most)
        return true;
    if (options->n_operands < least_number)
        complain("%s needs %s; it is used so: flockctl %.*s", verb->name,
                 least_number > 1 ? "more operands"
                 : verb->operand  ? verb->operand
                                  : "a name",
                 first_form(verb), verb->synopsis);
    else
        complain("%s doesn't take \"%s\"; it is used so: flockctl %.*s", verb->name, options->operands[most],
                 first_form(verb), verb->synopsis);
    return false;
}

static int refuse_verb(int argc, char **argv, const char *word)
{
    const struct verb *nearest = nearest_verb(word);
    bool command = false;
    for (int i = 1; i < argc; i++)
        command = command || strcmp(argv[i], "--") == 0;
    if (nearest)
        complain("there is no verb \"%s\"; did you mean %s? All of them: flockctl help", word, nearest->name);
    else if (command)
        complain("there is no verb \"%s\"; did you mean: flockctl acquire %s -- ...", word, word);
    else
        complain("there is no verb \"%s\"; all of them: flockctl help", word);
    return EXIT_OURS;
}

int prepare_root(const struct options *options)
{
    char *path;
    int code = options->dir ? flk_root_set(options->dir) : 0;
    if (code == 0)
        code = flk_root_get(&path);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    if (flk_root_warning())
        say("%s", flk_root_warning());
    free(path);
    return 0;
}

static int run_verb(const struct verb *verb, struct options *options)
{
    if (options->help) {
        print_verb_help(verb);
        return 0;
    }
    bool needless = verb->without_locks && !cleanup_is_wanted(options);
    int status = needless ? 0 : prepare_root(options);
    return status ? status : verb->run(options);
}

/* A closed stdin, stdout or stderr would be a file that is opened next: messages would end up in it. */
static void open_standard_files(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct options options = {.line = argv + 1};
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 || fcntl(STDOUT_FILENO, F_GETFD) < 0 || fcntl(STDERR_FILENO, F_GETFD) < 0)
        open_standard_files();
    signals_survive_size_limit();
    fk_helper_is_this_program();
    fk_reap_output = STDERR_FILENO;
    fk_reap_teller = states_tell;
    int at = options_parse_global(argc, argv, &options);
    if (at < 0)
        return EXIT_OURS;
    if (options.version)
        return verb_version.run(&options);
    if (at >= argc || strcmp(argv[at], "--") == 0) {
        if (options.help)
            return verb_help.run(&options);
        complain("what to do is missing; for example: flockctl acquire NAME -- COMMAND. More: flockctl help");
        return EXIT_OURS;
    }
    const struct verb *verb = strcmp(argv[at], verb_supervise.name) == 0 ? &verb_supervise : find_verb(argv[at]);
    if (!verb)
        return refuse_verb(argc, argv, argv[at]);
    int status = EXIT_OURS;
    if (options_parse(argc - at, argv + at, verb->groups | GROUP_GLOBAL, &options))
        status = options.version ? verb_version.run(&options) : run_verb(verb, &options);
    free(options.operands);
    free(options.paths);
    free(options.inputs);
    free(options.variables);
    if (fflush(stdout) != 0 && status == 0) {
        complain("can't write to stdout: %s", strerrordesc_np(errno));
        return EXIT_OURS;
    }
    return status;
}
