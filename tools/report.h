/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --report: one line of JSON per run, appended in one piece. Fields are only ever added:
 *
 *   schema      1
 *   started     RFC 3339, UTC, when the command was started
 *   command     array: its arguments
 *   status      what flockctl exits with
 *   exit        the command's exit status; null: it died of a signal
 *   signal      the number of the signal that the command died of; null: it exited
 *   timed_out   true: its time ran out
 *   waited_ms   how long the locks were waited for; 0 for `run`
 *   ran_ms      from the command's start to the end of its own process
 *   user_ms, system_ms, max_rss_kib   of all processes of its tree that were reaped
 *   stragglers  how many had to be ended after the command's own end
 *   left        how many could not be ended
 *   id          of the hold; null for `run`
 *   slots       object: for each name an array of slot numbers
 *
 * Bytes of arguments that aren't UTF-8 are U+FFFD. */
#ifndef REPORT_H
#define REPORT_H

#include <flockctl.h>
#include <stddef.h>

#include "supervise.h"

/* A descriptor to append to, or -1 after having complained. */
int report_open(const char *path);

struct report {
    char *text; /* what is said of the hold, as long as that is there; NULL: out of memory */
    size_t size;
};
void report_begin(struct report *report, const struct flk_hold *hold);
/* Frees. Complains when it can't be written. */
void report_write(struct report *report, int fd, const char *path, char *const *command, int64_t started_ms, int status,
                  const struct fk_supervise_result *result);

#endif
