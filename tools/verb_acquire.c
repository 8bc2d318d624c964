/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl acquire: waits for names, runs COMMAND with them, gives them back. */
#include <errno.h>
#include <flockctl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "exit_status.h"
#include "message.h"
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
        complain("%s is not a count in %s; give NAME:COUNT with a number from 1 to %u, or all", colon + 1, operand, FLK_SLOTS_MAX);
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
        complain("--slots says the size of one name, and there are %zu; define them first: flockctl define %s --slots %u",
                 options->n_operands, options->operands[0], options->slots);
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

/* Large rows and numbers of 200 and above for inherited slots need more descriptors than a low soft limit allows; the command
 * gets the limit back. */
static void raise_limit(struct rlimit *before)
{
    if (getrlimit(RLIMIT_NOFILE, before) < 0) {
        before->rlim_cur = before->rlim_max = RLIM_INFINITY;
        return;
    }
    if (before->rlim_cur < before->rlim_max)
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){before->rlim_max, before->rlim_max});
}

static void restore_limit(const struct rlimit *before)
{
    if (before->rlim_cur < before->rlim_max)
        setrlimit(RLIMIT_NOFILE, before);
}

/* ---- with a command ---- */

static void tell_of(const struct flk_hold *hold)
{
    const struct flk_holder *dead = flk_hold_predecessor(hold);
    if (dead)
        say("the last holder, pid %d, died without releasing; what it left half-done is yours to check", (int)dead->pid);
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t n = flk_hold_slots(hold, i, &slots);
        chat("acquired %s, %zu slot%s from %u, after %lld ms, id %s", flk_hold_name(hold, i), n, n == 1 ? "" : "s", slots[0],
             (long long)flk_hold_waited_ms(hold), flk_hold_id(hold));
    }
}

/* The exit status; *hold stays NULL unless it is ours (-E 0 is possible). *cancelled: cancel_fd was readable, and nothing has been said. */
static int acquire(struct options *options, const int *cancel_fd, struct flk_hold **hold, bool *cancelled)
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

/* Takes over the hold. */
static int run_held(struct flk_hold *hold, const struct options *options, char **command, const struct signals *signals,
                    const struct rlimit *limit)
{
    char **environment;
    pid_t pid;
    int status = 0, code = flk_hold_environ(hold, &environment);
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
        complain("can't wait for signals: %s%s", strerrordesc_np(-code), code == -EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
        return EXIT_OURS;
    }
    raise_limit(&limit);
    bool cancelled;
    int status = acquire(options, &signals.fd, &hold, &cancelled);
    if (cancelled) {
        int caught = signals_take(&signals);
        signals_die_of(caught ? caught : SIGTERM);
    }
    if (!hold)
        return status;
    tell_of(hold);
    return run_held(hold, options, command, &signals, &limit);
}

/* ---- with --while: a keeper in the background has the hold ---- */

struct verdict {
    int status; /* the exit status */
    char id[FLK_ID_SIZE]; /* "": not acquired */
};

/* Readable when the wait is over for another reason: a signal, the end of the process, or of the one that started us. */
static int make_cancel(int parent, int process, int signals)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC), fds[] = {parent, process, signals};
    for (size_t i = 0; epoll >= 0 && i < sizeof fds / sizeof *fds; i++)
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &(struct epoll_event){.events = EPOLLIN}) < 0)
            return -1;
    return epoll;
}

static bool is_readable(int fd)
{
    struct pollfd event = {.fd = fd, .events = POLLIN};
    return poll(&event, 1, 0) > 0;
}

static void leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
}

static void keep(struct flk_hold *hold, int process, const struct signals *signals)
{
    struct pollfd events[] = {{.fd = process, .events = POLLIN}, {.fd = signals->fd, .events = POLLIN}};
    do
        poll(events, 2, -1);
    while (!(events[0].revents & POLLIN) && signals_take(signals) == 0);
    flk_hold_release(hold);
}

static int give_up(const struct options *options, int process, const struct signals *signals)
{
    if (is_readable(process)) {
        complain("process %d has ended before the lock was acquired", (int)options->while_pid);
        return options->conflict_status;
    }
    int caught = signals_take(signals);
    return caught ? EXIT_SIGNALLED + caught : EXIT_OURS;
}

static int run_keeper(struct options *options, int process, int parent, const struct signals *signals)
{
    struct verdict verdict = {0};
    struct flk_hold *hold = NULL;
    int cancel = make_cancel(parent, process, signals->fd);
    bool cancelled = false;
    if (cancel < 0)
        complain("can't wait: %s", strerrordesc_np(errno));
    verdict.status = cancel < 0 ? EXIT_OURS : acquire(options, &cancel, &hold, &cancelled);
    if (cancelled)
        verdict.status = give_up(options, process, signals);
    if (hold) {
        tell_of(hold);
        memcpy(verdict.id, flk_hold_id(hold), sizeof verdict.id);
    }
    char printed;
    ssize_t sent = send(parent, &verdict, sizeof verdict, MSG_NOSIGNAL);
    if (hold && (sent != sizeof verdict || recv(parent, &printed, 1, 0) != 1)) {
        flk_hold_decline(hold); /* nobody knows that we have it */
        return EXIT_OURS;
    }
    if (hold) {
        close(parent);
        leave_terminal();
        keep(hold, process, signals);
    }
    return verdict.status;
}

static int wait_for_keeper(int keeper)
{
    struct verdict verdict;
    if (recv(keeper, &verdict, sizeof verdict, MSG_WAITALL) != sizeof verdict) {
        complain("the process that was to keep the lock has died; nothing is held");
        return EXIT_OURS;
    }
    if (!verdict.id[0])
        return verdict.status;
    if (puts(verdict.id) == EOF || fflush(stdout) != 0) {
        complain("can't print the id of the lock: %s; nothing is held", strerrordesc_np(errno));
        return EXIT_OURS;
    }
    send(keeper, "", 1, MSG_NOSIGNAL); /* should it have died meanwhile, it died holding */
    return 0;
}

static int acquire_while(struct options *options)
{
    struct signals signals;
    struct rlimit limit;
    int ends[2], process = pidfd_open(options->while_pid, 0);
    if (process < 0) {
        complain("there is no process %d to hold it for: %s", (int)options->while_pid, strerrordesc_np(errno));
        return EXIT_OURS;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        complain("can't make a socket pair: %s", strerrordesc_np(errno));
        return EXIT_OURS;
    }
    pid_t pid = fork();
    if (pid < 0) {
        complain("can't fork: %s", strerrordesc_np(errno));
        return EXIT_OURS;
    }
    if (pid > 0) {
        close(ends[1]);
        return wait_for_keeper(ends[0]);
    }
    close(ends[0]);
    raise_limit(&limit);
    if (signals_block(&signals) < 0)
        _exit(EXIT_OURS);
    _exit(run_keeper(options, process, ends[1], &signals));
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
    return options->while_pid ? acquire_while(options) : acquire_and_run(options, command);
}

const struct verb verb_acquire = {
    .name = "acquire",
    .synopsis = "acquire [OPTION]... NAME[:COUNT]... -- COMMAND [ARG]...\n"
                "flockctl acquire [OPTION]... --while PID NAME[:COUNT]...",
    .summary = "run a command while holding locks",
    .help = "Waits for its turn, runs COMMAND while it holds every NAME, and exits with COMMAND's status. COUNT is how many\n"
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
            "      --while PID             no command: hold until process PID ends; print the id and return once it is held\n"
            "\n"
            "Example: run the container tests of two suites one after the other\n"
            "  flockctl acquire podman -- ./container-tests\n",
    .groups = GROUP_WAIT | GROUP_SLOTS | GROUP_LOCK | GROUP_RUN | GROUP_WHILE,
    .run = run_acquire,
};
