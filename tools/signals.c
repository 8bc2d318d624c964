/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "signals.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "exit_status.h"

static bool is_ignored(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

bool signals_size_limit_is_ours;

void signals_survive_size_limit(void)
{
    signals_size_limit_is_ours = signal(SIGXFSZ, SIG_IGN) == SIG_DFL;
}

static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP};

/* Blocked, an ignored one would come nevertheless. */
static void list_ours(sigset_t *ours, bool stops)
{
    sigemptyset(ours);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if ((stops || numbers[i] != SIGTSTP) && !is_ignored(numbers[i]))
            sigaddset(ours, numbers[i]);
}

int signals_block(struct signals *signals, bool stops)
{
    sigset_t ours;
    list_ours(&ours, stops);
    if (sigprocmask(SIG_BLOCK, &ours, &signals->before) < 0)
        return -errno;
    signals->fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals->fd < 0 ? -errno : 0;
}

int signals_take(const struct signals *signals)
{
    struct signalfd_siginfo info;
    return read(signals->fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

/* All but TSTP, which stops us when it is let come. */
static void list_late(sigset_t *late)
{
    sigemptyset(late);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i] != SIGTSTP)
            sigaddset(late, numbers[i]);
}

void signals_hold(void)
{
    sigset_t late;
    list_late(&late);
    sigprocmask(SIG_BLOCK, &late, NULL);
}

int signals_take_late(void)
{
    static const struct timespec now = {0};
    int number, first = 0;
    sigset_t late;
    list_late(&late);
    while ((number = sigtimedwait(&late, NULL, &now)) > 0)
        if (!first && number != SIGUSR1 && number != SIGUSR2 && !is_ignored(number))
            first = number;
    return first;
}

static void let_come(int number)
{
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    sigprocmask(SIG_BLOCK, &only, NULL);
}

void signals_stop(void)
{
    let_come(SIGTSTP);
}

void signals_die_of(int number)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* the core would be ours, of no use to anybody */
    signal(number, SIG_DFL);
    let_come(number);
    _exit(EXIT_SIGNALLED + number);
}
