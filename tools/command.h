/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* COMMAND as a child, and the signals around it.
 *
 * From signals_block() on the signals that end or inform a command (TERM INT HUP QUIT USR1 USR2) and SIGCHLD are blocked and
 * read from one descriptor, so that they come when we look. Those that a process sent are handed to the command; those of the
 * terminal have reached it already, as a member of the same process group. What our caller ignores (nohup) we ignore too until
 * the command runs. */
#ifndef COMMAND_H
#define COMMAND_H

#include <signal.h>

struct signals {
    int fd;
    sigset_t before; /* the mask that we were started with, and that COMMAND gets */
};

/* 0, or a negative errno. */
int signals_block(struct signals *signals);
/* A signal to die of that is pending, or 0; takes it. */
int signals_take(const struct signals *signals);
/* Dies of it, as far as it lets one die; else exits with 128 + n. */
void signals_die_of(int number) __attribute__((noreturn));

/* Starts command with that environment; *pid. 0, or the exit status after having complained. */
int command_start(char *const *command, char *const *environment, const struct signals *signals, pid_t *pid);
/* Waits for the end of pid, forwarding signals: its wait status. */
int command_wait(pid_t pid, const struct signals *signals);

#endif
