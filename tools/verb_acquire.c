/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl acquire: waits for names, runs COMMAND with them, gives them back. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exit_status.h"
#include "message.h"
#include "acquire.h"
#include "command.h"
#include "verbs.h"

/* ---- NAME[:COUNT] ---- */

/* The operand stays as it is: it is our command line, which others are shown. */
static bool parse_want(const char *operand, const struct options *options, struct flk_want *want)
{
    unsigned long count = 1;
    const char *colon = strrchr(operand, ':');
    char *name = strndup(operand, colon ? (size_t)(colon - operand) : strlen(operand));
    *want = (struct flk_want){.name = name, .slots = options->slots, .flags = options->shared ? FLK_SHARED : 0};
    if (!name) {
        complain("out of memory");
        return false;
    }
    if (!colon)
        return true;
    if (strcmp(colon + 1, "all") == 0) {
        want->count = FLK_ALL;
    } else if (parse_number(colon + 1, 1, FLK_SLOTS_MAX, &count)) {
        want->count = (unsigned)count;
    } else {
        complain("%s is not a count in %s; give NAME:COUNT with a number from 1 to %u, or all", colon + 1, operand,
                 FLK_SLOTS_MAX);
        return false;
    }
    return true;
}

static void free_wants(struct flk_want *wants, size_t n_wants)
{
    for (size_t i = 0; i < n_wants; i++)
        free((char *)wants[i].name);
    free(wants);
}

static struct flk_want *parse_wants(const struct options *options)
{
    if (options->slots && options->n_operands > 1) {
        complain(
            "--slots says the size of one name, and there are %zu; define them first: flockctl define NAME --slots %u",
            options->n_operands, options->slots);
        return NULL;
    }
    struct flk_want *wants = calloc(options->n_operands, sizeof *wants);
    if (!wants)
        complain("out of memory");
    for (size_t i = 0; wants && i < options->n_operands; i++) {
        if (!parse_want(options->operands[i], options, &wants[i])) {
            free_wants(wants, options->n_operands);
            return NULL;
        }
    }
    return wants;
}

/* ---- limits ---- */

void acquire_raise_limit(struct rlimit *before)
{
    if (getrlimit(RLIMIT_NOFILE, before) < 0) {
        before->rlim_cur = before->rlim_max = RLIM_INFINITY;
        return;
    }
    if (before->rlim_cur < before->rlim_max)
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){before->rlim_max, before->rlim_max});
}

/* The command gets back what we were started with. */
static void restore_limit(const struct rlimit *before)
{
    if (before->rlim_cur < before->rlim_max)
        setrlimit(RLIMIT_NOFILE, before);
}

/* ---- with a command ---- */

void acquire_tell(const struct flk_hold *hold)
{
    const struct flk_holder *dead = flk_hold_predecessor(hold);
    if (dead)
        say("the last holder, pid %d, died without releasing; what it left half-done is yours to check",
            (int)dead->pid);
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t n = flk_hold_slots(hold, i, &slots);
        chat("acquired %s, %zu slot%s from %u, after %lld ms, id %s", flk_hold_name(hold, i), n, n == 1 ? "" : "s",
             slots[0], (long long)flk_hold_waited_ms(hold), flk_hold_id(hold));
    }
}

int acquire_names(struct options *options, const int *cancel_fd, struct flk_hold **hold, bool *cancelled)
{
    const struct flk_options how = {.label = options->label, .cancel_fd = cancel_fd, .waiting = message_waiting};
    struct flk_want *wants = parse_wants(options);
    *cancelled = false;
    if (!wants)
        return EXIT_OURS;
    int code = flk_acquire_many(wants, options->n_operands, &how, options->wait_ms, hold);
    free_wants(wants, options->n_operands);
    *cancelled = code == -ECANCELED;
    if (*cancelled)
        return EXIT_OURS;
    return code < 0 ? complain_of(code, options->conflict_status) : 0;
}

/* What the shell would say: died by signal n is 128 + n. Of the signals that people end things with we die too, so that a
 * loop around us stops as it would without us. */
static int exit_as(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    int number = WTERMSIG(status);
    if (number == SIGINT || number == SIGQUIT || number == SIGTERM || number == SIGHUP)
        signals_die_of(number);
    return EXIT_SIGNALLED + number;
}

/* Commands that are told of a directory by name must find the same one, wherever they are started. */
static int export_root(const struct options *options)
{
    const char *named = getenv("FLOCKCTL_DIR");
    char *path;
    if (!options->dir && (!named || !*named))
        return 0;
    int code = flk_root_get(&path);
    if (code == 0) {
        setenv("FLOCKCTL_DIR", path, 1);
        free(path);
    }
    return code;
}

/* Takes over the hold. */
static int run_held(struct flk_hold *hold, const struct options *options, char **command, const struct signals *signals,
                    const struct rlimit *limit)
{
    char **environment;
    pid_t pid;
    int status = 0, code = export_root(options);
    if (code == 0)
        code = flk_hold_environ(hold, &environment);
    if (code == 0 && !options->detach)
        code = flk_hold_inherit(hold, 1);
    if (code < 0) {
        flk_hold_decline(hold);
        return complain_of(code, EXIT_OURS);
    }
    restore_limit(limit);
    int caught = signals_take(signals);
    if (caught) { /* between the acquiring and the exec: the command doesn't start */
        flk_hold_decline(hold);
        signals_die_of(caught);
    }
    status = command_start(command, environment, signals, &pid);
    free(environment);
    if (status) {
        flk_hold_decline(hold);
        return status;
    }
    status = command_wait(pid, signals);
    flk_hold_release(hold);
    return exit_as(status);
}

static int acquire_and_run(struct options *options, char **command)
{
    struct signals signals;
    struct rlimit limit;
    struct flk_hold *hold = NULL;
    int code = signals_block(&signals);
    if (code < 0) {
        complain("can't wait for signals: %s%s", strerrordesc_np(-code),
                 code == -EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
        return EXIT_OURS;
    }
    acquire_raise_limit(&limit);
    bool cancelled;
    int status = acquire_names(options, &signals.fd, &hold, &cancelled);
    if (cancelled) {
        int caught = signals_take(&signals);
        signals_die_of(caught ? caught : SIGTERM);
    }
    if (!hold)
        return status;
    acquire_tell(hold);
    return run_held(hold, options, command, &signals, &limit);
}

/* ---- the verb ---- */

static void complain_of_missing_command(const struct options *options)
{
    char *words = NULL;
    size_t size;
    FILE *out = open_memstream(&words, &size);
    for (size_t i = 1; out && i < options->n_operands; i++)
        fprintf(out, " %s", options->operands[i]);
    bool written = out && fclose(out) == 0;
    complain("acquire needs \"--\" between the names and the command; for example: flockctl acquire %s --%s",
             options->n_operands ? options->operands[0] : "NAME", written && *words ? words : " COMMAND");
    free(words);
}

static int run_acquire(struct options *options)
{
    char *shell[] = {(char *)"sh", (char *)"-c", (char *)options->shell, NULL};
    char **command = options->shell ? shell : options->command;
    if (options->shell && options->command) {
        complain("-c and \"-- COMMAND\" can't both be given; leave one out");
        return EXIT_OURS;
    }
    if (options->while_pid && (command || options->detach)) {
        complain("--while holds without a command; leave %s out", command ? "the command" : "--detach");
        return EXIT_OURS;
    }
    if (!options->while_pid && !command) {
        complain_of_missing_command(options);
        return EXIT_OURS;
    }
    if (command && !command[0]) {
        complain("there is no command behind \"--\"; for example: flockctl acquire %s -- COMMAND",
                 options->n_operands ? options->operands[0] : "NAME");
        return EXIT_OURS;
    }
    if (!check_operands(&verb_acquire, options, 1, SIZE_MAX))
        return EXIT_OURS;
    return options->while_pid ? keeper_start(options) : acquire_and_run(options, command);
}

const struct verb verb_acquire = {
    .name = "acquire",
    .synopsis = "acquire [OPTION]... NAME[:COUNT]... -- COMMAND [ARG]...\n"
                "flockctl acquire [OPTION]... --while PID NAME[:COUNT]...",
    .summary = "run a command while holding locks",
    .help =
        "Waits for its turn, runs COMMAND while it holds every NAME, and exits with COMMAND's status. COUNT is how "
        "many\n"
        "slots of NAME: a number, or all.\n"
        "\n"
        "  -n, --nonblock              try once (= -w 0)\n"
        "  -w, --wait TIME             how long to wait for the lock: 1.5, 250ms, 30s, 2m, 1h, 1d, forever (default)\n"
        "  -E, --conflict-exit-code N  instead of 75, when it wasn't acquired\n"
        "  -s, --shared                together with other shared holders (names of one slot)\n"
        "      --slots N               how many slots NAME has; checked when it exists, one NAME only\n"
        "  -l, --label TEXT            shown to those who wait\n"
        "  -c, --shell TEXT            instead of -- COMMAND: sh -c TEXT\n"
        "      --detach                processes that outlive COMMAND don't keep the lock\n"
        "      --while PID             no command: hold until process PID ends; print the id and return once it is "
        "held\n"
        "\n"
        "Example: run the container tests of two suites one after the other\n"
        "  flockctl acquire podman -- ./container-tests\n",
    .groups = GROUP_WAIT | GROUP_SLOTS | GROUP_LOCK | GROUP_RUN | GROUP_WHILE,
    .run = run_acquire,
};
