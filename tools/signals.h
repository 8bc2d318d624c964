/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals while we wait for a lock, and those that we die of. (While the command runs they are lib/supervise.h's.)
 *
 * From signals_block() on those that end or inform a command (TERM INT HUP QUIT USR1 USR2), and TSTP where we stop, are blocked
 * and read from one descriptor, so that they come when we look. What our caller ignores (nohup) we ignore too. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <signal.h>
#include <stdbool.h>

struct signals {
    int fd;
    sigset_t before; /* the mask that we were started with, and that COMMAND gets */
};

/* A limit of file sizes (ulimit -f) is to be an error of ours, not our death. */
void signals_survive_size_limit(void);
extern bool signals_size_limit_is_ours; /* the command gets it back */

/* 0, or a negative errno. stops: TSTP is among them. */
int signals_block(struct signals *signals, bool stops);
/* The same without a descriptor, for signals_take_late(). */
void signals_hold(void);
/* Of those that are pending when COMMAND has ended: takes all; the first that people end things with (TERM INT HUP QUIT), or 0. The
 * others were for COMMAND. */
int signals_take_late(void);
/* One that is pending, or 0; takes it. */
int signals_take(const struct signals *signals);
/* Stops this process as TSTP would have; comes back when it is continued. */
void signals_stop(void);
/* Dies of it, as far as it lets one die; else exits with 128 + n. */
void signals_die_of(int number) __attribute__((noreturn));

#endif
