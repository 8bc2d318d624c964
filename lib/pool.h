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

#include "row.h"
#include "values.h"

static inline bool fk_pool_spreads(const struct fk_row *row)
{
    return row && row->values && row->values->spread;
}

/* Puts the slots into order (a row's worth of room), those to be taken first at the front; under the latch. is_free: of each, whether it
 * is known to be free. How many, or an error. */
int fk_pool_order(struct fk_section *section, const bool *is_free, unsigned *order);

#endif
