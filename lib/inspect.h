/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who has it and who waits, without any lock: true of some moment, good enough to tell a person.
 *
 * A slot is taken when its FIFO has a writer, which tee(2) on a read-only descriptor tells and disturbs nobody. Who it is:
 *   1. the slot's record, when it is live and its owner is alive in our pid namespace
 *   2. else whoever has the FIFO open and locked, by /proc (proc.h): heirs of one that has died or let go, outsiders that wrote
 *      no record, holders in a pid namespace below ours. /proc is read once for all such slots together
 *   3. else a live record of another pid namespace
 *   4. else a process that we may not see
 * The row goes on meanwhile. So record and FIFO are read again after 2, and what has changed is asked anew, a few times.
 *
 * A waiter is a ticket that has a writer and no byte in it, with a number above `admitted`, whose owner isn't proven dead. */
#ifndef FK_INSPECT_H
#define FK_INSPECT_H

#include "arena.h"
#include "flockctl.h"
#include "row.h"

struct fk_picture {
    struct flk_waiting waiting; /* points into what follows */
    struct fk_record holder, first;
    struct flk_holder holder_shown, first_shown;
    struct fk_arena arena;
};

/* What the waiter with that ticket number (0: none) sees; for fk_picture_clear(). thorough: where the records name nobody, look
 * who has it; and what the holder waits for. That is for messages, not for calls that must be quick. */
void fk_inspect_wait(const struct fk_row *row, uint64_t number, int64_t waited_ms, bool thorough,
                     struct fk_picture *picture);
void fk_picture_clear(struct fk_picture *picture);

/* As flk_inspect(), of the locks of all outputs; the name of a row is that of its text, see output.h. */
int fk_inspect_outputs(struct flk_row ***rows);

#endif
