/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which of a pool's free slots are taken. Without more being said, the lowest, as in any row.
 *
 * A pool that spreads takes the one that was unused longest, so that a port gets the rest that its last connections need. When that
 * was stands in the slot's record, `used=` (record.h), in nanoseconds of CLOCK_REALTIME:
 *   0 or no such line    never used, or, live, in use
 *   TIME, ended          released then
 *   TIME, live           its holder died; TIME is when somebody first saw the slot free after that. Until then nobody knows since when
 *                        it is unused
 * It is written with the record and with its end, so it costs no system call; whoever looks for a slot reads them all, under the
 * latch. A crash leaves a live record, which is the third case. */
#ifndef FK_POOL_H
#define FK_POOL_H

#include "deadline.h"
#include "row.h"
#include "values.h"

static inline bool fk_pool_spreads(const struct fk_row *row)
{
    return row && row->values && row->values->spread;
}

/* A pool with a check (check.h) passes over free slots whose values are in use by others. The file `blocked` has, in a line for each slot,
 * when that was found last, in nanoseconds of CLOCK_REALTIME; 0: it is usable as far as is known. Written under the latch, by who
 * has found it out; for people, and so that nobody looks again before FK_POOL_RETRY has passed. What a crash leaves there is
 * looked at again after that. */
#define FK_POOL_RETRY FK_SECOND

static inline bool fk_pool_checks(const struct fk_row *row)
{
    return row && row->values && row->values->check;
}

/* A row's worth of room. */
int fk_pool_read_blocked(const struct fk_row *row, int64_t *found);
/* Best effort. */
void fk_pool_note_blocked(const struct fk_row *row, unsigned slot, bool blocked);
/* How many are noted; *first: one of them. */
unsigned fk_pool_count_blocked(const struct fk_row *row, unsigned *first);
/* For how long, in ns, one found then isn't looked at again; 0: it may be now. */
int64_t fk_pool_rest_of(int64_t found);

/* Puts the slots into order (a row's worth of room), those to be taken first at the front; under the latch. is_free: of each, whether it
 * is known to be free. How many, or an error. */
int fk_pool_order(struct fk_section *section, const bool *is_free, unsigned *order);

#endif
