/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The records of shared holders, of which a row of one has any number. Each has one of FK_SHARED_PLACES places in the latch's
 * file or, where the few that it looks at are in use, a file holders/ID.
 *
 * States of a place: in use (its first byte is FK_LIVE), free (any other). Taken under the latch; left without it, by
 * overwriting that byte. A holder that is killed leaves it in use, or its file: the next exclusive holder, who is alone, frees them. The
 * latch says that there may be some: `shared`, set before the first one is written. */
#ifndef FK_SHARED_H
#define FK_SHARED_H

#include "row.h"

#define FK_SHARED_PLACES 64
#define FK_SHARED_SIZE 512

/* Writes the record text (at most FK_SHARED_SIZE bytes); *place is for fk_shared_end(). Under the latch. */
int fk_shared_begin(struct fk_section *section, const char *id, const char *text, size_t length, int *place);
void fk_shared_end(const struct fk_row *row, const char *id, int place);
/* By an exclusive holder, under the latch: did any die? */
bool fk_shared_sweep(struct fk_section *section);
/* Calls each for what may be a record; text has length bytes. */
void fk_shared_foreach(const struct fk_row *row, void (*each)(const char *text, size_t length, void *data), void *data);

#endif
