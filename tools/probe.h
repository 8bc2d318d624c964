/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --probe: a command that must succeed under the lock before COMMAND starts. What it prints is kept, the last of it, for the case
 * that it doesn't. */
#ifndef PROBE_H
#define PROBE_H

#include "job.h"

/* mask: the probe's and COMMAND's. 0, or the exit status after having complained; *signalled: of what we are to die instead. */
int probe_run(const struct job *job, char *const *environment, const sigset_t *mask, int *signalled);

#endif
