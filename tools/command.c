/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exit_status.h"
#include "message.h"

static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
#define FORWARDED (sizeof forwarded / sizeof *forwarded)

static bool is_ignored(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void list_ours(sigset_t *ours, bool with_ignored)
{
    sigemptyset(ours);
    sigaddset(ours, SIGCHLD);
    for (size_t i = 0; i < FORWARDED; i++)
        if (with_ignored || !is_ignored(forwarded[i]))
            sigaddset(ours, forwarded[i]);
}

int signals_block(struct signals *signals)
{
    sigset_t ours;
    /* Ignored by whoever started us, it would take the command's end from us. */
    signal(SIGCHLD, SIG_DFL);
    list_ours(&ours, false); /* blocked, an ignored one (nohup) would come nevertheless */
    if (sigprocmask(SIG_BLOCK, &ours, &signals->before) < 0)
        return -errno;
    signals->fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    return signals->fd < 0 ? -errno : 0;
}

int signals_take(const struct signals *signals)
{
    struct signalfd_siginfo info;
    while (read(signals->fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD)
            return (int)info.ssi_signo;
    return 0;
}

void signals_die_of(int number)
{
    sigset_t only;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* the core would be ours, of no use to anybody */
    signal(number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    _exit(EXIT_SIGNALLED + number);
}

/* ---- start ---- */

static bool is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* exec says "no such file" also when a script's interpreter is what is missing. The exit status is as env(1) has it. */
static int complain_of_command(const char *name, int code)
{
    if (code == ENOENT && strchr(name, '/') && is_file(name))
        complain("the command %s can't be run: the interpreter that its first line or its program header names isn't "
                 "there; install that, or correct the line",
                 name);
    else if (code == ENOENT)
        complain("the command %s wasn't found%s", name,
                 strchr(name, '/')
                     ? "; check the path"
                     : " in PATH, or the interpreter that it names; check the spelling, or give its path");
    if (code == ENOENT)
        return EXIT_NOT_FOUND;
    if (code == EACCES)
        complain("the command %s can't be run: it isn't an executable file, or a directory above it is closed to us; "
                 "chmod +x may help",
                 name);
    else
        complain("the command %s can't be run: %s", name, strerrordesc_np(code));
    return EXIT_CANNOT_RUN;
}

/* In the child of a vfork, in the parent's memory: nothing but system calls, and *failure as the one result. execvpe also
 * hands a script without a "#!" line to the shell, as env(1) does. */
static void become(char *const *command, char *const *environment, const struct signals *signals, volatile int *failure)
{
    sigprocmask(SIG_SETMASK, &signals->before, NULL);
    execvpe(command[0], command, environment);
    *failure = errno;
    _exit(EXIT_NOT_FOUND);
}

/* What we ignore isn't ours to die of, but the command may have a handler for it. */
static void take_ignored_too(const struct signals *signals)
{
    sigset_t ours;
    list_ours(&ours, true);
    if (signalfd(signals->fd, &ours, 0) == signals->fd)
        sigprocmask(SIG_BLOCK, &ours, NULL);
}

/* vfork and not posix_spawn: that one sets 60 signals to their defaults, one by one, which are ours already. */
int command_start(char *const *command, char *const *environment, const struct signals *signals, pid_t *pid)
{
    volatile int failure = 0;
    take_ignored_too(signals);
    pid_t child = vfork();
    if (child == 0)
        become(command, environment, signals, &failure);
    if (child < 0) {
        complain("can't start a process for %s: %s; end some, or raise the limit (ulimit -u)", command[0],
                 strerrordesc_np(errno));
        return EXIT_OURS;
    }
    if (failure) {
        waitpid(child, NULL, 0);
        return complain_of_command(command[0], failure);
    }
    *pid = child;
    return 0;
}

/* ---- wait ---- */

/* A kernel's or terminal's signal (si_code > 0) has reached the whole process group already. */
static void forward(pid_t pid, const struct signals *signals)
{
    struct signalfd_siginfo info;
    while (read(signals->fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD && info.ssi_code <= 0)
            kill(pid, (int)info.ssi_signo);
}

int command_wait(pid_t pid, const struct signals *signals)
{
    struct pollfd event = {.fd = signals->fd, .events = POLLIN};
    int status;
    for (;;) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid)
            return status;
        if (ended < 0)
            return EXIT_OURS << 8;
        poll(&event, 1, -1);
        forward(pid, signals);
    }
}
