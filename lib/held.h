/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a thread holds while it waits, in the words of $ROOT/waiting (waiting.h): parts of its request, holds that it has acquired, slots
 * that the process has inherited. The last are descriptors that it executed or forked with, found in /proc/self/fd by their
 * path and their lock; there can only be some where the environment tells of an outer command or a fork took inherited holds along. */
#ifndef FK_HELD_H
#define FK_HELD_H

#include <stdio.h>

#include "deadlock.h"

bool fk_held_something(const struct fk_deadlock_wait *wait);
/* The lines; how many. */
int fk_held_write(const struct fk_deadlock_wait *wait, FILE *out);

#endif
