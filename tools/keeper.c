/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "acquire.h"
#include "exit_status.h"
#include "job.h"
#include "message.h"
#include "signals.h"

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

/* What it has open beside its own library's. */
struct keeper {
    int process; /* for as long as this lives */
    int parent;  /* a socket to the one that started us */
    struct signals signals;
    int *held; /* slots of holds around us, until ours is had */
    size_t n_held;
};

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The open ones of the numbers in FLOCKCTL_HELD (NAME@ID@FD,...), rising: slots that prove a hold around us. */
static void list_held(struct keeper *keeper)
{
    const char *held = getenv("FLOCKCTL_HELD");
    keeper->held = held ? calloc(strlen(held) + 1, sizeof *keeper->held) : NULL;
    while (keeper->held && *held) {
        size_t length = strcspn(held, ",");
        const char *at = memrchr(held, '@', length);
        int fd = at ? atoi(at + 1) : -1;
        if (fd > STDERR_FILENO + 2 && fcntl(fd, F_GETFD) >= 0)
            keeper->held[keeper->n_held++] = fd;
        held += length + (held[length] == ',');
    }
    if (keeper->n_held > 0)
        qsort(keeper->held, keeper->n_held, sizeof *keeper->held, compare);
}

static void close_held(struct keeper *keeper)
{
    for (size_t i = 0; i < keeper->n_held; i++)
        close(keeper->held[i]);
    free(keeper->held);
}

/* Of what the one that started us had open a keeper needs nothing: a pipe would look open to its reader, and a slot taken, for
 * as long as we live. Slots of a hold around us stay until ours is had, which may draw from it. The two that it needs get
 * the numbers above stderr. */
static void close_inherited(struct keeper *keeper)
{
    list_held(keeper);
    int high = fcntl(keeper->process, F_DUPFD_CLOEXEC, STDERR_FILENO + 3),
        other = fcntl(keeper->parent, F_DUPFD_CLOEXEC, STDERR_FILENO + 3);
    if (high < 0 || other < 0)
        return;
    keeper->process = dup3(high, STDERR_FILENO + 1, O_CLOEXEC);
    keeper->parent = dup3(other, STDERR_FILENO + 2, O_CLOEXEC);
    unsigned first = STDERR_FILENO + 3;
    for (size_t i = 0; i < keeper->n_held; first = (unsigned)keeper->held[i++] + 1)
        if (first < (unsigned)keeper->held[i])
            close_range(first, (unsigned)keeper->held[i] - 1, 0);
    close_range(first, UINT_MAX, 0);
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

static void keep(struct flk_hold *hold, const struct keeper *keeper)
{
    struct pollfd events[] = {{.fd = keeper->process, .events = POLLIN}, {.fd = keeper->signals.fd, .events = POLLIN}};
    do
        poll(events, 2, -1);
    while (!(events[0].revents & POLLIN) && signals_take(&keeper->signals) == 0);
    flk_hold_release(hold);
}

static int give_up(const struct options *options, const struct keeper *keeper)
{
    if (is_readable(keeper->process)) {
        complain("process %d has ended before the lock was acquired", (int)options->while_pid);
        return options->conflict_status;
    }
    int caught = signals_take(&keeper->signals);
    return caught ? EXIT_SIGNALLED + caught : EXIT_OURS;
}

static int run_keeper(const struct job *job, int64_t wait_ms, struct keeper *keeper)
{
    const struct options *options = job->options;
    struct verdict verdict = {0};
    struct flk_hold *hold = NULL;
    int cancel = make_cancel(keeper->parent, keeper->process, keeper->signals.fd);
    bool cancelled = false;
    if (cancel < 0)
        complain("can't wait: %s", strerrordesc_np(errno));
    verdict.status = cancel < 0 ? EXIT_OURS : acquire_names(options, wait_ms, &cancel, &hold, &cancelled);
    if (cancelled)
        verdict.status = give_up(options, keeper);
    else if (!hold && verdict.status == options->conflict_status)
        job_tell_late(job);
    close_held(keeper);
    if (hold) {
        acquire_tell(hold, options);
        memcpy(verdict.id, flk_hold_id(hold), sizeof verdict.id);
        leave_terminal();
    }
    char printed;
    ssize_t sent = send(keeper->parent, &verdict, sizeof verdict, MSG_NOSIGNAL);
    if (hold && (sent != sizeof verdict || recv(keeper->parent, &printed, 1, 0) != 1)) {
        flk_hold_decline(hold); /* nobody knows that we have it */
        return EXIT_OURS;
    }
    if (hold) {
        close(keeper->parent);
        keep(hold, keeper);
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

int keeper_start(struct options *options)
{
    struct job job;
    struct keeper keeper = {0};
    struct rlimit limit;
    int64_t wait_ms;
    int status = job_bound_wait(&job, options, &wait_ms);
    if (status)
        return status;
    int ends[2];
    keeper.process = pidfd_open(options->while_pid, 0);
    if (keeper.process < 0) {
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
    keeper.parent = ends[1];
    close_inherited(&keeper);
    acquire_raise_limit(&limit);
    if (signals_block(&keeper.signals, false) < 0)
        _exit(EXIT_OURS);
    _exit(run_keeper(&job, wait_ms, &keeper));
}
