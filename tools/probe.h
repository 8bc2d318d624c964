/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --on-abandoned and --probe: commands that must succeed under the lock before COMMAND starts. What they print is kept, the last of
 * it, for the case that they don't. */
#ifndef PROBE_H
#define PROBE_H

#include "job.h"

struct probe {
    const char *what; /* for sentences */
    const char *command;
    int64_t limit_ms; /* 0: none of its own */
};

/* mask: the probe's and COMMAND's. 0, or the exit status after having complained; *signalled: of what we are to die instead. */
int probe_run(const struct job *job, const struct probe *probe, char *const *environment, const sigset_t *mask,
              int *signalled);

#endif
