/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl supervise FD: the library's helper (flk_run_start(), lib/helper.h). Not for people: no help lists it.
 *
 * It is executed with all signals blocked and with the host's standard files, the socket FD and the slots of a hold, whose numbers
 * are in the order. The command gets none but the standard files and, not with DETACH, the slots. */
#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "exit_status.h"
#include "helper.h"
#include "message.h"
#include "supervise.h"
#include "verbs.h"

/* What a program ignores for its own sake (PIPE, CHLD) isn't for its commands; nohup(1) and a shell's & are. */
static void reset_signals(void)
{
    for (int number = 1; number <= SIGRTMAX; number++)
        if (number != SIGHUP && number != SIGINT && number != SIGQUIT)
            signal(number, SIG_DFL);
}

static void take_mask(uint64_t bits, sigset_t *mask)
{
    sigemptyset(mask);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (bits >> (number - 1) & 1)
            sigaddset(mask, number);
}

static void keep_slots(const struct fk_helper_order *order)
{
    for (size_t i = 0; i < order->n_slots; i++)
        fcntl(order->slots[i], F_SETFD, FD_CLOEXEC);
}

/* Before the host hears that all is over: it may try for them at once. */
static void close_slots(const struct fk_helper_order *order)
{
    for (size_t i = 0; i < order->n_slots; i++)
        close(order->slots[i]);
}

static struct fk_helper_answer carry_out(int socket, struct fk_helper_order *order)
{
    struct fk_supervise_result result = {.status = 0};
    struct fk_helper_answer answer;
    bool at_exec;
    memset(&answer, 0, sizeof answer); /* its padding is sent too */
    order->spec.stdio[0] = order->spec.stdio[1] = order->spec.stdio[2] = -1;
    order->spec.control = socket;
    take_mask(order->mask, &order->spec.mask);
    if (!order->spec.envp)
        order->spec.envp = (const char *const *)environ;
    if (order->spec.flags & FK_SUPERVISE_DETACH)
        keep_slots(order);
    answer.code = fk_supervise(&order->spec, &result, &at_exec);
    answer.status = result.status;
    answer.timed_out = result.timed_out;
    answer.stragglers = result.stragglers;
    answer.left = result.left;
    answer.ran_ms = result.ran_ms;
    answer.rusage = result.rusage;
    if (answer.code < 0)
        snprintf(answer.detail, sizeof answer.detail, "%s", flk_error_detail());
    return answer;
}

static int run_supervise(struct options *options)
{
    unsigned long number;
    struct fk_helper_order order;
    if (options->n_operands != 1 || !parse_number(options->operands[0], STDERR_FILENO + 1, INT_MAX, &number)) {
        complain("%s is for programs that use libflockctl; yours is: flockctl run -- COMMAND", verb_supervise.name);
        return EXIT_OURS;
    }
    int socket = (int)number;
    if (fcntl(socket, F_SETFD, FD_CLOEXEC) < 0 || fk_helper_receive(socket, &order) < 0)
        return EXIT_OURS; /* the host is gone, or has been told */
    reset_signals();
    struct fk_helper_answer answer = carry_out(socket, &order);
    close_slots(&order);
    int code = fk_helper_answer(socket, &answer);
    fk_helper_clear(&order);
    return code < 0 ? EXIT_OURS : 0;
}

const struct verb verb_supervise = {
    .name = FK_HELPER_VERB,
    .synopsis = FK_HELPER_VERB " FD",
    .summary = "look after a command of a program that uses the library",
    .help = "",
    .without_locks = true,
    .run = run_supervise,
};
