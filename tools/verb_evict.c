/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl evict: asks those who have names to end, and makes those end that don't.
 *
 * What is evicted are the holds of the moment when it begins, each by its id: whoever comes next is left alone, and so is a process
 * that has let go meanwhile. Ending the acquirer may leave heirs of its hold. So it goes in rounds: look who has those holds
 * now, signal each through a pidfd, sleep until they have ended or the grace is over; nobody is left, or nobody that could be
 * signalled. */
#include <errno.h>
#include <flockctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "deadline.h"
#include "exit_status.h"
#include "log.h"
#include "message.h"
#include "proc.h"
#include "verbs.h"

#define KILLED_WITHIN (5 * FK_SECOND) /* a process that hangs in the kernel may take longer, or for ever */
#define MOST_ANCESTORS 1024

struct target {
    pid_t pid;
    uint64_t start_time;
    int pidfd; /* -1: not opened, or ended */
    int sent; /* the last signal that it got, 0: none */
    bool refused; /* it was said why it is left alone */
    bool remains; /* it has the hold still, in this round */
};

struct eviction {
    const struct options *options;
    char (*ids)[FLK_ID_SIZE]; /* of the holds to be ended */
    size_t n_ids;
    struct target *targets;
    size_t n_targets;
    bool failed; /* out of memory */
    int64_t deadline; /* of CLOCK_MONOTONIC; FK_NEVER */
    unsigned unseen; /* holders that have no number here, in this round */
};

static const char *name_of_signal(int number)
{
    const char *name = sigabbrev_np(number);
    return name ? name : "signal";
}

/* ---- who ---- */

static void add_id(struct eviction *eviction, const char *id)
{
    for (size_t i = 0; i < eviction->n_ids; i++)
        if (strcmp(eviction->ids[i], id) == 0)
            return;
    void *ids = reallocarray(eviction->ids, eviction->n_ids + 1, sizeof *eviction->ids);
    if (!ids) {
        eviction->failed = true;
        return;
    }
    eviction->ids = ids;
    snprintf(eviction->ids[eviction->n_ids++], FLK_ID_SIZE, "%s", id);
}

static struct target *find_target(struct eviction *eviction, const struct flk_holder *holder)
{
    for (size_t i = 0; i < eviction->n_targets; i++)
        if (eviction->targets[i].pid == holder->pid && eviction->targets[i].start_time == holder->start_time)
            return &eviction->targets[i];
    return NULL;
}

static struct target *add_target(struct eviction *eviction, const struct flk_holder *holder)
{
    struct target *targets = reallocarray(eviction->targets, eviction->n_targets + 1, sizeof *targets);
    if (!targets) {
        eviction->failed = true;
        return NULL;
    }
    eviction->targets = targets;
    targets += eviction->n_targets++;
    *targets = (struct target){.pid = holder->pid, .start_time = holder->start_time, .pidfd = -1};
    return targets;
}

/* Of the holds to be ended. One without an id left no record: then it is the process that counts. */
static bool is_meant(struct eviction *eviction, const struct flk_holder *holder)
{
    for (size_t i = 0; i < eviction->n_ids; i++)
        if (holder->id[0] && strcmp(eviction->ids[i], holder->id) == 0)
            return true;
    return !holder->id[0] && find_target(eviction, holder);
}

static void for_each_holder(struct flk_row **rows,
                            void (*each)(const char *name, const struct flk_holder *holder, void *data), void *data)
{
    for (size_t i = 0; rows[i]; i++)
        for (size_t j = 0; !rows[i]->under && j < rows[i]->n_slots; j++)
            for (size_t k = 0; k < rows[i]->slots[j]->n_holders; k++)
                each(rows[i]->name, rows[i]->slots[j]->holders[k], data);
}

static void note_hold(const char *name, const struct flk_holder *holder, void *data)
{
    (void)name;
    struct eviction *eviction = data;
    if (holder->id[0])
        add_id(eviction, holder->id);
    else if (holder->pid && !find_target(eviction, holder))
        add_target(eviction, holder);
}

/* ---- one of them ---- */

/* Ours and all above. */
static bool is_above_us(pid_t pid)
{
    struct fk_proc_stat stat;
    pid_t at = getpid();
    for (unsigned i = 0; at > 0 && i < MOST_ANCESTORS; i++) {
        if (at == pid)
            return true;
        if (fk_proc_stat(at, &stat) < 0)
            return false;
        at = stat.parent;
    }
    return false;
}

static void refuse(struct target *target, const struct flk_holder *holder, const char *why)
{
    if (!target->refused)
        complain("pid %d (%s) is left alone: %s", (int)target->pid, holder->command, why);
    target->refused = true;
}

/* Opened first, then seen to be the one that was found: the number may be another's by now. */
static bool open_target(struct target *target, const struct flk_holder *holder)
{
    struct fk_proc_stat stat;
    if (target->pidfd >= 0)
        return true;
    target->pidfd = pidfd_open(target->pid, 0);
    if (target->pidfd < 0) {
        if (errno != ESRCH)
            refuse(target, holder, strerrordesc_np(errno));
        return false;
    }
    if (fk_proc_stat(target->pid, &stat) == 0 && stat.start_time == target->start_time)
        return true;
    close(target->pidfd);
    target->pidfd = -1;
    return false;
}

static void send(struct target *target, const char *name, const struct flk_holder *holder, int number)
{
    if (target->sent == number || !open_target(target, holder))
        return;
    if (pidfd_send_signal(target->pidfd, number, NULL, 0) < 0) {
        if (errno != ESRCH)
            refuse(target, holder, strerrordesc_np(errno));
        return;
    }
    if (holder->stopped && number != SIGKILL && number != SIGSTOP)
        pidfd_send_signal(target->pidfd, SIGCONT, NULL, 0); /* it wouldn't act on the signal */
    target->sent = number;
    fk_log_eviction(name, holder, number);
    say("pid %d (%s) is sent SIG%s", (int)target->pid, holder->command, name_of_signal(number));
}

struct round {
    struct eviction *eviction;
    int number; /* the signal; 0: only look */
};

static void treat(const char *name, const struct flk_holder *holder, void *data)
{
    struct round *round = data;
    struct eviction *eviction = round->eviction;
    if (holder->pid == 0 || (holder->foreign & FLK_FOREIGN_PID)) {
        eviction->unseen += !holder->id[0] || is_meant(eviction, holder);
        return;
    }
    if (!is_meant(eviction, holder))
        return;
    struct target *target = find_target(eviction, holder);
    if (!target)
        target = add_target(eviction, holder);
    if (!target || target->remains)
        return;
    target->remains = true;
    if (target->refused)
        return;
    if (is_above_us(target->pid))
        refuse(target, holder, target->pid == getpid() ? "it is this process" : "this process descends from it");
    else if (round->number)
        send(target, name, holder, round->number);
}

/* ---- rounds ---- */

static int look(struct eviction *eviction, struct flk_row ***rows)
{
    int code = flk_inspect((const char *const *)eviction->options->operands, rows);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    for (size_t i = 0; (*rows)[i]; i++)
        if ((*rows)[i]->problem)
            complain("%s", (*rows)[i]->problem);
    return 0;
}

static void close_ended(struct eviction *eviction, const struct pollfd *polls)
{
    for (size_t i = 0; i < eviction->n_targets; i++)
        if (polls[i].revents && eviction->targets[i].pidfd >= 0) {
            close(eviction->targets[i].pidfd);
            eviction->targets[i].pidfd = -1;
        }
}

/* Until all that were signalled have ended: true; or it is that late: false. */
static bool wait_for_targets(struct eviction *eviction, int64_t until)
{
    struct pollfd *polls = calloc(eviction->n_targets + 1, sizeof *polls);
    size_t left = 1;
    if (!polls)
        return false;
    while (left > 0) {
        left = 0;
        for (size_t i = 0; i < eviction->n_targets; i++) {
            polls[i] = (struct pollfd){.fd = eviction->targets[i].pidfd, .events = POLLIN};
            left += eviction->targets[i].pidfd >= 0 && eviction->targets[i].sent != 0;
        }
        int64_t now = fk_now(), ns = until == FK_NEVER ? 0 : until - now;
        struct timespec timeout = {.tv_sec = ns / FK_SECOND, .tv_nsec = ns % FK_SECOND};
        if (left == 0 || (until != FK_NEVER && ns <= 0))
            break;
        if (ppoll(polls, eviction->n_targets, until == FK_NEVER ? NULL : &timeout, NULL) > 0)
            close_ended(eviction, polls);
    }
    free(polls);
    return left == 0;
}

/* How many have one of the holds still; *reached: how many of them have got this signal now or before. Negative: it has
 * complained. */
static int go_round(struct eviction *eviction, int number, size_t *reached)
{
    struct flk_row **rows;
    struct round round = {eviction, number};
    int count = 0;
    if (look(eviction, &rows))
        return -1;
    eviction->unseen = 0;
    *reached = 0;
    for (size_t i = 0; i < eviction->n_targets; i++)
        eviction->targets[i].remains = false;
    for_each_holder(rows, treat, &round);
    for (size_t i = 0; i < eviction->n_targets; i++) {
        count += eviction->targets[i].remains;
        *reached +=
            eviction->targets[i].remains && eviction->targets[i].sent == number && eviction->targets[i].pidfd >= 0;
    }
    flk_inspect_free(rows);
    if (eviction->failed) {
        complain("out of memory");
        return -1;
    }
    return count;
}

static int tell_unseen(const struct eviction *eviction)
{
    complain("%u more %s the lock that can't be evicted from here: of another pid namespace, or not ours to see",
             eviction->unseen, eviction->unseen == 1 ? "has" : "have");
    return EXIT_NO;
}

static void tell_who_remains(const struct eviction *eviction)
{
    for (size_t i = 0; i < eviction->n_targets; i++)
        if (eviction->targets[i].remains && !eviction->targets[i].refused)
            complain("pid %d remains", (int)eviction->targets[i].pid);
}

/* Heirs that appear when the acquirer has ended are asked within the same grace. */
static int evict(struct eviction *eviction)
{
    size_t reached;
    int64_t grace = eviction->options->kill_after_ms;
    int number = eviction->options->signal, count;
    eviction->deadline = fk_deadline_in_ms(grace);
    while ((count = go_round(eviction, number, &reached)) > 0 && reached > 0) {
        bool killing = number == SIGKILL;
        bool ended = wait_for_targets(eviction, killing ? fk_now() + KILLED_WITHIN : eviction->deadline);
        if (!ended && killing) {
            count = go_round(eviction, 0, &reached);
            break;
        }
        if (!ended || fk_now() >= eviction->deadline)
            number = SIGKILL;
    }
    if (count < 0)
        return EXIT_OURS;
    if (count > 0)
        tell_who_remains(eviction);
    if (eviction->unseen > 0)
        return tell_unseen(eviction);
    return count > 0 ? EXIT_NO : 0;
}

/* ---- may we ---- */

static void name_one(const char *name, const struct flk_holder *holder, void *data)
{
    (void)name;
    (void)data;
    if (holder->pid)
        complain("pid %d (%s)%s%s%s has it", (int)holder->pid, holder->command, holder->label[0] ? " \"" : "",
                 holder->label, holder->label[0] ? "\"" : "");
}

static bool is_confirmed(struct flk_row **rows)
{
    char answer[16] = "";
    for_each_holder(rows, name_one, NULL);
    fputs("flockctl: end them? [y/N] ", stderr);
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int begin(struct eviction *eviction)
{
    struct flk_row **rows;
    int status = look(eviction, &rows);
    if (status)
        return status;
    for_each_holder(rows, note_hold, eviction);
    bool any = false;
    for (size_t i = 0; rows[i]; i++)
        for (size_t j = 0; j < rows[i]->n_slots; j++)
            any |= rows[i]->slots[j]->n_holders > 0;
    if (!any)
        say("nobody has %s%s", eviction->options->operands[0],
            eviction->options->n_operands > 1 ? " or any of the others" : "");
    else if (!eviction->options->yes && !is_confirmed(rows))
        status = EXIT_NO;
    flk_inspect_free(rows);
    return status || !any ? status : evict(eviction);
}

static int run_evict(struct options *options)
{
    struct eviction eviction = {.options = options};
    if (!check_operands(&verb_evict, options, 1, SIZE_MAX))
        return EXIT_OURS;
    if (!options->yes && !isatty(STDIN_FILENO)) {
        complain("evict asks before it ends processes, and stdin is no terminal; say --yes if you mean it");
        return EXIT_OURS;
    }
    int status = begin(&eviction);
    for (size_t i = 0; i < eviction.n_targets; i++)
        if (eviction.targets[i].pidfd >= 0)
            close(eviction.targets[i].pidfd);
    free(eviction.targets);
    free(eviction.ids);
    return status;
}

const struct verb verb_evict = {
    .name = "evict",
    .synopsis = "evict [-k TIME] [--signal SIG] [-y] NAME...",
    .summary = "make those who have names end",
    .help =
        "Asks all processes that have a slot of a NAME to end and kills those that don't, but never itself, what it "
        "descends\n"
        "from, and those who wait. Exit status 1 when somebody remains.\n"
        "\n"
        "  -k, --kill-after TIME       grace between SIGTERM and SIGKILL (default 10s)\n"
        "      --signal SIG            instead of SIGTERM\n"
        "  -y, --yes                   don't ask first; needed without a terminal\n"
        "\n"
        "Example\n"
        "  flockctl evict -k 30s podman\n",
    .groups = GROUP_END | GROUP_YES,
    .run = run_evict,
};
