/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the last run failed that was to build an output: the file `failure` in the row of its lock, for those who waited for that run.
 *
 * Content: the builder's record (record.h), then lines code=, for= (which output and key, as hashes) and said=BYTES, then so many
 * bytes of what it printed last, as they are.
 *
 * Written by a holder of the lock, beside and renamed, so it is there whole or as it was before. It is never deleted: each run has an
 * id, and who waits notes, before it does, which failure is there already. So nobody takes an old one for that of the run that it
 * has waited for, and who comes later tries anew. A builder that is killed writes none: somebody who waited builds. */
#ifndef FK_FAILURE_H
#define FK_FAILURE_H

#include <stdbool.h>
#include <stddef.h>

#include "flockctl.h"
#include "output.h"
#include "record.h"

#define FK_SAID_MAX 4096

struct fk_failure {
    struct fk_record builder; /* its id is the run's */
    int code; /* what the builder gave */
    size_t length;
    char said[FK_SAID_MAX + 1]; /* the last that it printed to stderr; "" */
};

/* Of the failure that is there; "": none, or no such row. */
void fk_failure_note(const struct fk_output *output, char id[FLK_ID_SIZE]);
/* Is there one of another id, for that output and key (NULL: none)? */
bool fk_failure_read(const struct fk_output *output, const char *key, const char *noted, struct fk_failure *failure);
/* By a holder of the lock, whose id that is. Best effort. */
void fk_failure_write(const struct fk_output *output, const char *key, const char *id, int code, const char *said,
                      size_t length);

#endif
