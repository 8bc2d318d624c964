/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the two forms of `flockctl acquire` share: with a command (verb_acquire.c), and with --while (keeper.c), where a keeper in
 * the background has the hold and the tool returns.
 *
 * The keeper is a fork made before anything is acquired, so that the record names a process that lives as long as the hold. It
 * gives up when the one that started it dies before it has heard of the lock. */
#ifndef ACQUIRE_H
#define ACQUIRE_H

#include <flockctl.h>
#include <sys/resource.h>

#include "options.h"

/* Waits at most wait_ms. The exit status; *hold stays NULL unless it is ours (-E 0 is possible). *cancelled: cancel_fd was readable, and nothing has
 * been said. */
int acquire_names(const struct options *options, int64_t wait_ms, const int *cancel_fd, struct flk_hold **hold,
                  bool *cancelled);
/* Says what the user should know of it. */
void acquire_tell(const struct flk_hold *hold, const struct options *options);
/* Large rows and numbers of 200 and above for inherited slots need more descriptors than a low soft limit allows. */
void acquire_raise_limit(struct rlimit *before);

/* The exit status of `acquire --while`. */
int keeper_start(struct options *options);

#endif
