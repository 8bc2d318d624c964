/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What comes after COMMAND: --cleanup and --tmpdir. Both are one item of state (lib/state.h) whose owner we are, so that whoever
 * reaps does it should we be killed.
 *
 * States, and what a kill -9 leaves:
 *   chosen      the directory has a name and is in the environment, nothing is on disk
 *   registered  the item is there; then the directory is made. Killed from here on: the reaper runs the command and removes the
 *               directory, whether COMMAND has begun or not
 *   begun       the command runs, outside of the namespaces and the cgroup of COMMAND, and has the item's lock, too: killed, the
 *               reaper waits for it, then runs it again (FLOCKCTL_STATE_ATTEMPT=2)
 *   done        the directory is removed and the item dropped. What has failed stays registered, and is tried again */
#ifndef CLEANUP_H
#define CLEANUP_H

#include <flockctl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>

#include "options.h"

struct cleanup {
    char id[FLK_ID_SIZE]; /* "": nothing is registered */
    char tmpdir[PATH_MAX]; /* "": none */
};

bool cleanup_is_wanted(const struct options *options);
/* Before anything is waited for. 0, or the exit status after having complained. */
int cleanup_check(const struct options *options);
/* The directory's name, into our own environment. 0, or a negative errno with a sentence; so the next. */
int cleanup_choose(struct cleanup *cleanup, const struct options *options);
/* name: the lock before whose next acquisition it is to be done; NULL: none. environment: COMMAND's. */
int cleanup_register(struct cleanup *cleanup, const struct options *options, const char *name,
                     char *const *environment);
/* COMMAND has ended. mask: the signal mask of the command. A signal that came meanwhile, of those that end, or 0. */
int cleanup_run(struct cleanup *cleanup, const sigset_t *mask);
/* COMMAND wasn't started: nothing is to be undone but the directory. */
void cleanup_forget(struct cleanup *cleanup);

#endif
