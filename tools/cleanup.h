/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What comes after COMMAND: --cleanup and --tmpdir. Both are one item of state (lib/state.h) whose owner we are. It is done with all
 * others of ours by fk_reap_own() (lib/reap.h), or by whoever reaps first, should we be killed.
 *
 * States, and what a kill -9 leaves:
 *   chosen      the directory has a name and is in the environment, nothing is on disk
 *   registered  the item is there; then the directory is made. Killed from here on, the reaper runs the command and removes the
 *               directory, whether COMMAND has begun or not
 *   (gone)      COMMAND has ended and it has been done; or COMMAND couldn't be started, and it was forgotten */
#ifndef CLEANUP_H
#define CLEANUP_H

#include <flockctl.h>
#include <limits.h>
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
/* COMMAND wasn't started: nothing is to be undone but the directory. */
void cleanup_forget(struct cleanup *cleanup);

#endif
