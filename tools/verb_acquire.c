/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl acquire: waits for names, runs COMMAND with them, gives them back. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "exit_status.h"
#include "message.h"
#include "acquire.h"
#include "deadline.h"
#include "job.h"
#include "pool.h"
#include "request.h"
#include "signals.h"
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
        complain("\"%s\" is not a count in \"%s\"; give NAME:COUNT with a number from 1 to %u, or all", colon + 1,
                 operand, FLK_SLOTS_MAX);
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

static struct flk_want *parse_wants(const struct options *options, const struct flk_pool *pool)
{
    if (options->slots && options->n_operands > 1) {
        complain(
            "--slots says the size of one name, and there are %zu; define them first: flockctl define NAME --slots %u",
            options->n_operands, options->slots);
        return NULL;
    }
    if (options->values && options->n_operands > 1) {
        complain("--values says what one name has, and there are %zu; define it first: flockctl define NAME --values %s",
                 options->n_operands, options->values);
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
        wants[i].pool = pool->n_values > 0 ? pool : NULL;
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

/* ---- with a command ---- */

void acquire_tell(const struct flk_hold *hold, const struct options *options)
{
    const struct flk_holder *dead = flk_hold_predecessor(hold);
    if (dead && options->on_abandoned)
        say("the last holder, pid %d, died without releasing; first comes: %s", (int)dead->pid, options->on_abandoned);
    else if (dead)
        say("the last holder, pid %d, died without releasing; what it left half-done is yours to check",
            (int)dead->pid);
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t n = flk_hold_slots(hold, i, &slots);
        chat("acquired %s, %zu slot%s from %u, after %lld ms, id %s", flk_hold_name(hold, i), n, n == 1 ? "" : "s",
             slots[0], (long long)flk_hold_waited_ms(hold), flk_hold_id(hold));
    }
}

int acquire_names(const struct options *options, int64_t wait_ms, const int *cancel_fd, struct flk_hold **hold,
                  bool *cancelled)
{
    const struct flk_options how = {.label = options->label, .cancel_fd = cancel_fd, .waiting = message_waiting};
    struct pool pool;
    struct flk_want *wants = pool_parse(options, &pool) ? parse_wants(options, &pool.pool) : NULL;
    *cancelled = false;
    if (!wants) {
        pool_clear(&pool);
        return EXIT_OURS;
    }
    unsigned flags = options->while_pid || options->detach ? 0 : FK_FOR_COMMAND;
    int code = fk_acquire_many(wants, options->n_operands, &how, flags, wait_ms, hold);
    free_wants(wants, options->n_operands);
    pool_clear(&pool);
    *cancelled = code == -ECANCELED;
    if (*cancelled)
        return EXIT_OURS;
    return code < 0 ? complain_of(code, options->conflict_status) : 0;
}

/* A process that is to stop gives its place up, so that the others go on, and queues again when it is continued. */
static int wait_for_names(const struct job *job, const struct signals *signals, struct flk_hold **hold)
{
    const struct options *options = job->options;
    int64_t until = fk_deadline_in_ms(options->wait_ms);
    for (;;) {
        bool cancelled;
        int64_t left_ms = job_left_ms(job, until);
        int status = acquire_names(options, left_ms, &signals->fd, hold, &cancelled);
        if (!cancelled) {
            if (!*hold && status == options->conflict_status)
                job_tell_late(job);
            return status;
        }
        int caught = signals_take(signals);
        if (caught == SIGTSTP)
            signals_stop();
        else if (caught)
            signals_die_of(caught);
    }
}

static int acquire_and_run(struct job *job)
{
    struct signals signals;
    struct rlimit limit;
    struct flk_hold *hold = NULL;
    int code = signals_block(&signals, true);
    if (code < 0) {
        complain("can't wait for signals: %s%s", strerrordesc_np(-code),
                 code == -EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
        return EXIT_OURS;
    }
    acquire_raise_limit(&limit);
    int status = wait_for_names(job, &signals, &hold);
    if (!hold)
        return status;
    acquire_tell(hold, job->options);
    job->files = &limit;
    return job_run(job, hold, &signals);
}

/* ---- the verb ---- */

static int run_acquire(struct options *options)
{
    struct job job;
    if (options->while_pid) {
        bool command = options->command || options->shell;
        if (command || options->needs_command) {
            complain("--while holds without a command; leave %s%s out", command ? "" : "--",
                     command ? "the command" : options->needs_command);
            return EXIT_OURS;
        }
        return check_operands(&verb_acquire, options, 1, SIZE_MAX) ? keeper_start(options) : EXIT_OURS;
    }
    int status = job_prepare(&job, options, "acquire");
    if (status == 0 && !check_operands(&verb_acquire, options, 1, SIZE_MAX))
        status = EXIT_OURS;
    return status ? status : acquire_and_run(&job);
}

const struct verb verb_acquire = {
    .name = "acquire",
    .synopsis = "acquire [OPTION]... NAME[:COUNT]... -- COMMAND [ARG]...\n"
                "flockctl acquire [OPTION]... --while PID NAME[:COUNT]...",
    .summary = "run a command while holding locks",
    .help =
        "Waits for its turn, runs COMMAND while it holds every NAME, and exits with COMMAND's status. COUNT is how "
        "many\n"
        "slots of NAME: a number, or all. A NAME that is held around this command already is drawn from that.\n"
        "\n"
        "  -n, --nonblock              try once (= -w 0)\n"
        "  -w, --wait TIME             how long to wait for the lock: 1.5, 250ms, 30s, 2m, 1h, 1d, forever (default)\n"
        "  -E, --conflict-exit-code N  instead of 75, when it wasn't acquired\n"
        "  -s, --shared                together with other shared holders (names of one slot)\n"
        "      --slots N               how many slots NAME has; checked when it exists, one NAME only\n"
        "      --values LIST           the values that it has (see define); checked when it exists, one NAME only\n"
        "  -l, --label TEXT            shown to those who wait\n"
        "      --on-abandoned CMD      must succeed first, when the last holder died holding; else exit status 69\n"
        "      --probe CMD             must succeed under the lock, before COMMAND; else exit status 69\n"
        "      --probe-timeout TIME    how long the probe may take (default 10s)\n" RUN_HELP
        "      --while PID             no command: hold until process PID ends; print the id and return once it is "
        "held\n" EXIT_STATUS_HELP(
            "69 the probe failed; 75 not acquired; ") "\n"
                                                      "Example: run the container tests of two suites one after the "
                                                      "other\n"
                                                      "  flockctl acquire podman -- ./container-tests\n",
    .groups = GROUP_WAIT | GROUP_SLOTS | GROUP_VALUES | GROUP_LOCK | GROUP_RUN | GROUP_WHILE,
    .run = run_acquire,
};
