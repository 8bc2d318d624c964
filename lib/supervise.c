/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "supervise.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "isolate.h"
#include "start.h"
#include "tree.h"

/* What a shell leaves behind in >(...) or a pipe reads its end of file just now: that isn't a straggler. */
#define SETTLE (250 * FK_MS)
#define LOOK_AGAIN (20 * FK_MS)
#define SECOND_TERM FK_SECOND
#define FIRST_PAUSE FK_MS
#define LONGEST_PAUSE (256 * FK_MS)
#define BLIND (2 * FK_SECOND)

enum state { RUNNING, ENDING, SETTLING, CLEARING, KILLING, OVER };

struct supervision {
    const struct fk_supervise_spec *spec;
    struct fk_supervise_result *result;
    struct fk_cgroup group;
    struct fk_isolate_ids ids;
    enum state state;
    pid_t pid; /* the command's own process */
    bool ended, nobody, spared;
    int signals, control, terminal; /* descriptors, or -1 */
    int stopped; /* the signal that has stopped the command; 0: it runs */
    bool followed, continued; /* we have stopped too; and were continued */
    sigset_t early; /* signals that were pending before the command was there */
    bool refused; /* somebody of the tree is another user's */
    int64_t started, limit, next, pause, first_term;
    int64_t blind; /* since when no walk has found anybody, though somebody is there; 0: one has */
};

/* ---- signals ---- */

static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
static const int of_terminal[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT};

static void list_signals(const struct fk_supervise_spec *spec, sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
        sigaddset(set, forwarded[i]);
    for (size_t i = 0; spec->flags & FK_SUPERVISE_TERMINAL && i < sizeof of_terminal / sizeof *of_terminal; i++)
        sigaddset(set, of_terminal[i]);
}

static int open_signals(struct supervision *s, sigset_t *before)
{
    sigset_t set;
    list_signals(s->spec, &set);
    signal(SIGCHLD, SIG_DFL); /* ignored by whoever started us, it would take the command's end from us */
    sigprocmask(SIG_BLOCK, &set, before);
    fk_fd_enter();
    s->signals = fk_fd_keep(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    return s->signals < 0 ? fk_fail_errno(s->signals, "can't wait for signals") : 0;
}

static void notify(const struct supervision *s, const struct fk_supervise_notice *notice)
{
    if (s->spec->notice)
        s->spec->notice(notice, s->spec->data);
}

static void start_killing(struct supervision *s, int64_t grace_ms)
{
    if (s->state >= KILLING)
        return;
    notify(s, &(struct fk_supervise_notice){.what = FK_NOTICE_KILL, .ms = grace_ms});
    s->state = KILLING;
    s->next = 0;
    s->pause = FIRST_PAUSE;
}

static void forward(const struct supervision *s, int number)
{
    if (!s->ended)
        kill(s->pid, number);
}

static void take_term(struct supervision *s)
{
    int64_t now = fk_now();
    if (!s->first_term) {
        s->first_term = now;
        if (s->state == RUNNING)
            forward(s, SIGTERM);
    } else if (now - s->first_term >= SECOND_TERM) {
        start_killing(s, -1);
    }
}

static bool has_init(const struct supervision *s)
{
    return s->spec->isolate & FLK_NS_PID;
}

/* Nobody tells us that a command below an init has stopped, but what stops it is ours as well. */
static bool stops_unseen(const struct supervision *s, int number)
{
    return has_init(s) && !s->ended && (number == SIGTSTP || number == SIGTTIN || number == SIGTTOU);
}

/* A terminal's hang-up is told only to the leader of its session. */
static bool is_for_leader(int number)
{
    return number == SIGHUP && getsid(0) == getpid();
}

/* A kernel's or terminal's signal (si_code > 0) has reached the whole process group already, with the command if it was there. */
static void take_signal(struct supervision *s, int number, bool by_process)
{
    bool ends = number == SIGTERM || number == SIGINT || number == SIGHUP || number == SIGQUIT;
    if (ends && !s->result->signalled)
        s->result->signalled = number;
    if (ends && s->ended && !s->result->interrupted)
        s->result->interrupted = number;
    if (stops_unseen(s, number) || (number == SIGTSTP && s->stopped == SIGSTOP)) {
        s->stopped = number;
        s->followed = false;
    }
    if (number == SIGCONT)
        s->continued = true;
    else if ((number == SIGINT || number == SIGQUIT) && s->state == CLEARING)
        start_killing(s, -1);
    else if (number == SIGTERM && by_process)
        take_term(s);
    else if (number != SIGCHLD && (by_process || is_for_leader(number)))
        forward(s, number);
}

static void take_signals(struct supervision *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == sizeof info) {
        int number = (int)info.ssi_signo;
        take_signal(s, number, info.ssi_code <= 0 || sigismember(&s->early, number));
    }
    sigemptyset(&s->early);
}

/* ---- job control ---- */

static void give_terminal(const struct supervision *s, pid_t from, pid_t to)
{
    if (s->terminal >= 0 && tcgetpgrp(s->terminal) == from)
        tcsetpgrp(s->terminal, to);
}

static bool is_ignored(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* In an orphaned process group nobody could continue us, and the kernel doesn't stop us. */
static void stop_like(int number)
{
    sigset_t only;
    if (is_ignored(number)) {
        raise(SIGSTOP);
        return;
    }
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    sigprocmask(SIG_BLOCK, &only, NULL);
}

/* Who sends SIGSTOP to the command will continue the command, and doesn't know of us: stopped, we would keep its lock for ever. A
 * Ctrl-Z then stops us after all. */
static void follow_stop(struct supervision *s)
{
    s->followed = true;
    if (s->stopped == SIGSTOP)
        return;
    give_terminal(s, s->pid, getpgrp());
    stop_like(s->stopped);
}

static void continue_command(struct supervision *s)
{
    s->continued = false;
    if (!s->stopped || s->ended)
        return;
    s->stopped = 0;
    s->followed = false;
    give_terminal(s, getpgrp(), s->pid);
    kill(s->spec->flags & FK_SUPERVISE_PGRP ? -s->pid : s->pid, SIGCONT);
}

/* ---- reaping ---- */

static void add_times(struct timeval *sum, const struct timeval *more)
{
    sum->tv_sec += more->tv_sec;
    sum->tv_usec += more->tv_usec;
    if (sum->tv_usec >= 1000000) {
        sum->tv_sec++;
        sum->tv_usec -= 1000000;
    }
}

static void add_usage(struct rusage *sum, const struct rusage *more)
{
    add_times(&sum->ru_utime, &more->ru_utime);
    add_times(&sum->ru_stime, &more->ru_stime);
    if (more->ru_maxrss > sum->ru_maxrss)
        sum->ru_maxrss = more->ru_maxrss;
    sum->ru_minflt += more->ru_minflt;
    sum->ru_majflt += more->ru_majflt;
    sum->ru_inblock += more->ru_inblock;
    sum->ru_oublock += more->ru_oublock;
    sum->ru_nvcsw += more->ru_nvcsw;
    sum->ru_nivcsw += more->ru_nivcsw;
}

static void note_change(struct supervision *s, pid_t pid, int status, const struct rusage *usage)
{
    bool own = pid == s->pid && !s->ended;
    if (WIFSTOPPED(status)) {
        if (own)
            s->stopped = WSTOPSIG(status);
    } else if (WIFCONTINUED(status)) {
        if (own)
            s->stopped = s->followed = 0;
    } else {
        if (!fk_tree_reaped(pid))
            add_usage(&s->result->rusage, usage);
        if (own) {
            s->ended = true;
            s->stopped = 0;
            s->result->status = status;
            s->result->ran_ms = (fk_now() - s->started) / FK_MS;
        }
    }
}

static int nothing(pid_t pid, void *data)
{
    (void)pid, (void)data;
    return 0;
}

static void reap(struct supervision *s)
{
    int status, flags = WNOHANG | (s->spec->flags & FK_SUPERVISE_TERMINAL ? WUNTRACED | WCONTINUED : 0);
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, &status, flags, &usage)) > 0)
        note_change(s, pid, status, &usage);
    s->nobody = pid < 0 && errno == ECHILD;
    if (s->spared && s->ended && fk_tree_walk(nothing, NULL) == 0)
        s->nobody = true;
}

/* ---- ending ---- */

static int name_left(pid_t pid, void *data)
{
    struct supervision *s = data;
    char command[256];
    fk_tree_command_of(pid, command, sizeof command);
    s->result->left++;
    notify(s, &(struct fk_supervise_notice){.what = FK_NOTICE_LEFT, .pid = pid, .command = command});
    return 0;
}

/* What can't be ended keeps what it has inherited; waiting for it would be of no use. */
static void leave(struct supervision *s)
{
    int count = fk_tree_walk(name_left, s);
    if (count <= 0) {
        const char *reason =
            count < 0 ? flk_error_detail() : "they are hidden from us in /proc, or a debugger has them";
        s->result->left++;
        notify(s, &(struct fk_supervise_notice){.what = FK_NOTICE_LEFT, .command = reason});
    }
    if (!s->ended) {
        s->result->status = SIGKILL; /* as good as: it was told to end and isn't waited for any more */
        s->result->ran_ms = (fk_now() - s->started) / FK_MS;
    }
    s->state = OVER;
}

/* The init of a pid namespace is us: it goes when the command does, and forwarding what it gets would send it twice. */
static int signal_tree(struct supervision *s, int number, struct fk_tree_signalled *signalled)
{
    int code = fk_tree_signal(number, &s->pid, has_init(s) && number != SIGKILL ? 1 : 0, signalled);
    if (code < 0)
        return code;
    s->refused = s->refused || signalled->refused;
    return 0;
}

/* Of those that are still there. */
static bool only_refused_are_left(struct supervision *s)
{
    struct fk_tree_signalled signalled;
    return s->refused && signal_tree(s, 0, &signalled) == 0 && signalled.refused > 0 && signalled.reached == 0;
}

/* Zombies that their debugger doesn't let go of, and another user's processes under hidepid, are never found. Who forks as we
 * look is, soon. */
static bool is_blind(struct supervision *s, unsigned found)
{
    int64_t now = fk_now();
    if (found)
        s->blind = 0;
    else if (!s->blind)
        s->blind = now;
    return !found && now - s->blind > BLIND;
}

static void wait_grace(struct supervision *s)
{
    int64_t grace_ms = s->spec->kill_after_ms;
    if (grace_ms == 0)
        start_killing(s, 0);
    else
        s->next = fk_deadline_in_ms(grace_ms);
}

static void end_tree(struct supervision *s)
{
    struct fk_tree_signalled signalled;
    s->state = ENDING;
    if (signal_tree(s, s->spec->signal, &signalled) < 0)
        forward(s, s->spec->signal);
    wait_grace(s);
}

struct clearing {
    struct supervision *s;
    unsigned found, reached;
};

static int clear_one(pid_t pid, void *data)
{
    struct clearing *clearing = data;
    struct fk_supervise_notice notice = {.what = FK_NOTICE_STRAGGLER, .pid = pid};
    char command[256];
    fk_tree_command_of(pid, command, sizeof command);
    int code = fk_tree_signal_one(pid, SIGTERM);
    clearing->found += code != -ESRCH;
    if (code == -EPERM)
        clearing->s->refused = true;
    if (code < 0)
        return 0;
    notice.command = command;
    notify(clearing->s, &notice);
    clearing->reached++;
    clearing->s->result->stragglers++;
    return 0;
}

static void clear(struct supervision *s)
{
    struct clearing clearing = {.s = s};
    if (fk_tree_walk(clear_one, &clearing) < 0 || is_blind(s, clearing.found)) {
        leave(s);
    } else if (clearing.reached) {
        s->state = CLEARING;
        notify(s, &(struct fk_supervise_notice){.what = FK_NOTICE_CLEARING});
        wait_grace(s);
    } else {
        s->next =
            fk_now() + LOOK_AGAIN; /* they were just ending; or the one that lives was being forked as we looked */
    }
}

static void kill_all(struct supervision *s)
{
    struct fk_tree_signalled signalled = {0};
    if (s->group.made) /* in one that was there before others may be as well */
        fk_cgroup_kill(&s->group);
    if (has_init(s))
        forward(s, SIGKILL);
    int code = signal_tree(s, SIGKILL, &signalled);
    if (code < 0)
        forward(s, SIGKILL);
    if (code < 0 ? s->ended : is_blind(s, signalled.reached + signalled.refused))
        leave(s);
    s->next = fk_now() + s->pause;
    if (s->pause < LONGEST_PAUSE)
        s->pause *= 2;
}

/* ---- the loop ---- */

/* True: the tree is to be ended. */
static bool take_request(struct supervision *s, const struct pollfd *control)
{
    struct fk_tree_signalled signalled;
    unsigned char number = 0;
    ssize_t got = s->control >= 0 && control->revents ? recv(s->control, &number, 1, MSG_DONTWAIT) : -2;
    if (got == -2 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    if (got <= 0) {
        s->control = -1;
        return !(s->spec->flags & FK_SUPERVISE_DETACH);
    }
    if (number == SIGKILL)
        start_killing(s, -1);
    else if (number)
        signal_tree(s, number, &signalled);
    return number == 0;
}

static void run_on(struct supervision *s, bool asked)
{
    bool late = s->limit <= fk_now();
    if (s->ended && s->spec->flags & FK_SUPERVISE_DETACH) {
        s->state = OVER;
    } else if (s->ended) {
        s->state = SETTLING;
        s->next = fk_now() + SETTLE;
    } else if (late || asked) {
        s->result->timed_out = late;
        if (late)
            notify(s, &(struct fk_supervise_notice){.what = FK_NOTICE_TIMEOUT, .ms = s->spec->limit_ms});
        end_tree(s);
    }
}

static void step(struct supervision *s, bool asked)
{
    if (s->nobody && s->ended) {
        s->state = OVER;
        return;
    }
    if (s->state == RUNNING)
        run_on(s, asked);
    bool due = s->next <= fk_now();
    if (s->state == SETTLING && due)
        clear(s);
    else if ((s->state == CLEARING || s->state == ENDING) && due)
        start_killing(s, s->spec->kill_after_ms);
    if (s->state != OVER && s->state != RUNNING && only_refused_are_left(s))
        leave(s);
    else if (s->state == KILLING && s->next <= fk_now())
        kill_all(s);
}

static void sleep_until(int64_t until, struct pollfd *fds)
{
    struct timespec left = {0};
    int64_t now = fk_now();
    if (until > now)
        left = (struct timespec){(time_t)((until - now) / FK_SECOND), (long)((until - now) % FK_SECOND)};
    if (ppoll(fds, 2, until == FK_NEVER ? NULL : &left, NULL) < 0)
        fds[1].revents = 0;
}

static void supervise(struct supervision *s)
{
    while (s->state != OVER) {
        struct pollfd fds[] = {{.fd = s->signals, .events = POLLIN}, {.fd = s->control, .events = POLLIN}};
        sleep_until(s->state == RUNNING ? s->limit : s->next, fds);
        take_signals(s);
        reap(s);
        if (s->continued)
            continue_command(s);
        else if (s->stopped && !s->followed)
            follow_stop(s);
        step(s, take_request(s, &fds[1]));
    }
    give_terminal(s, s->pid, getpgrp());
}

/* ---- start ---- */

/* The terminal of which we are in front: a new process group takes our place there. */
static int find_terminal(const struct fk_supervise_spec *spec)
{
    pid_t group = getpgrp();
    if (!(spec->flags & FK_SUPERVISE_PGRP) || !(spec->flags & FK_SUPERVISE_TERMINAL))
        return -1;
    for (int fd = 0; fd < 3; fd++)
        if (tcgetpgrp(fd) == group)
            return fd;
    return -1;
}

/* A shell that had children before its exec made it us. */
static int spare_children(struct supervision *s)
{
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return 0;
    int count = fk_tree_spare_children();
    s->spared = count > 0;
    return count < 0 ? count : 0;
}

static int start(struct supervision *s, bool *at_exec)
{
    const struct fk_start_place place = {&s->group, &s->ids, s->terminal};
    int code = fk_tree_check();
    if (code == 0)
        code = spare_children(s);
    if (code == 0)
        code = fk_tree_adopt();
    if (code == 0 && s->spec->cgroup)
        code = fk_cgroup_open(s->spec->cgroup, &s->group);
    if (code == 0 && s->spec->isolate)
        fk_isolate_prepare(&s->ids);
    sigpending(&s->early);
    if (code == 0)
        code = fk_start(s->spec, &place, &s->pid, at_exec);
    s->started = fk_now();
    s->limit = s->spec->limit_ms > 0 ? fk_deadline_in_ms(s->spec->limit_ms) : FK_NEVER;
    s->next = FK_NEVER;
    return code;
}

int fk_supervise(const struct fk_supervise_spec *spec, struct fk_supervise_result *result, bool *at_exec)
{
    struct fk_supervise_result here = {0};
    struct supervision s = {.spec = spec,
                            .result = &here,
                            .group = {.directory = -1},
                            .ids = {.parent = -1},
                            .signals = -1,
                            .control = spec->control};
    sigset_t before;
    *at_exec = false;
    s.terminal = find_terminal(spec);
    int code = open_signals(&s, &before);
    if (code == 0)
        code = start(&s, at_exec);
    if (code == 0)
        supervise(&s);
    if (spec->isolate)
        here.status = fk_isolate_status(&s.ids, here.status);
    if (spec->cgroup)
        fk_cgroup_close(&s.group);
    fk_fd_close(&s.signals);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (code == 0)
        *result = here;
    return code;
}
