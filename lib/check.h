/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Is a value of a pool in use by somebody who knows nothing of the pool? What a pool's check says:
 *
 *   tcp-port    a value PORT is in use when it can't be bound and listened on, on 0.0.0.0 and on [::], with SO_REUSEADDR; ADDRESS:PORT and
 *               [ADDRESS]:PORT on that address alone
 *   udp-port    the same for UDP, without SO_REUSEADDR, which would share it
 *   path-free   a path that isn't there is free. One that is there is in use when any process that we may look at has it open; a
 *               block device also when the kernel has it (mounted, part of another device, a connected nbd); a socket when
 *               somebody listens on it
 *   other       a command for /bin/sh -c, with FLOCKCTL_VALUE, FLOCKCTL_SLOT and FLOCKCTL_NAME, no input, and its output thrown
 *               away: exit status 0, the value is usable; any other, a signal, or not done in FK_CHECK_LIMIT_MS, it is in use;
 *               126 and 127, which sh says of a command that can't be run, are an error
 *
 * A command runs under the helper (run.c), in the tool as in any host: its whole tree ends with it, with its limit, and with us.
 * The others are done when the call comes back; none of them sleeps, though path-free reads all of /proc. */
#ifndef FK_CHECK_H
#define FK_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#define FK_CHECK_LIMIT_MS 10000
extern int64_t fk_check_limit_ms; /* that, but in a test */

struct fk_check; /* a command that is running */

bool fk_check_is_command(const char *check);
/* Can the value be looked at in that way? -EINVAL. name: of the pool. */
int fk_check_fits(const char *check, const char *name, const char *value);
/* 1: in use; 0: usable; or an error. Not for commands. */
int fk_check_now(const char *check, const char *name, const char *value);
/* The same without touching a port: from /proc/net. */
int fk_check_look(const char *check, const char *name, const char *value);

int fk_check_start(const char *command, const char *name, unsigned slot, const char *value, struct fk_check **check);
/* To be polled for POLLIN. */
int fk_check_fd(const struct fk_check *check);
/* -EAGAIN: it runs still. Else as fk_check_now(). */
int fk_check_result(struct fk_check *check);
void fk_check_free(struct fk_check *check); /* ends it first; NULL is fine */

#endif
