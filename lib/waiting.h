/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* $ROOT/waiting: who waits for something while it holds something else. It is there for deadlock detection alone (deadlock.h),
 * and nothing but that trusts it.
 *
 * Places of FK_WAITING_PLACE bytes. A publication takes one or several neighbours; the first begins with a mark and how many
 * they are, "+0001". Then come lines
 *     waits=INODE SLOTS TICKET COUNT MODE ROW                 the row's directory, its text (row.h), x exclusive, s shared
 *     holds=INODE SLOTS MODE ROW SLOT:FD:INODE...             one for each row; descriptor (-1: not known) and FIFO of each slot
 * and the record of the process (record.h).
 *
 * States of a run of places, by its mark:
 *   published  '+'. Written under the flock of the file: the text first, the mark last
 *   free       any other. By its writer, who overwrites the mark without the flock once it doesn't wait any more; or, under the flock,
 *              by whoever finds its writer dead
 * A crash leaves a publication whose writer is dead, or a free run: both are used again. */
#ifndef FK_WAITING_H
#define FK_WAITING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FK_WAITING_PLACE 512
#define FK_WAITING_HEAD 6 /* bytes before the first line */

/* The file, locked and read. */
struct fk_waiting {
    int fd;
    char *text;
    size_t size;
};

/* One publication in the text. */
struct fk_waiting_span {
    size_t at, size;
    bool published;
};

/* -EAGAIN: somebody had the flock until then. */
int fk_waiting_lock(int64_t until, struct fk_waiting *waiting);
/* Frees the text. The descriptor stays the caller's. */
void fk_waiting_unlock(struct fk_waiting *waiting);
/* The span at *at, which moves on to the next; false: that was all. */
bool fk_waiting_next(const struct fk_waiting *waiting, size_t *at, struct fk_waiting_span *span);
/* Writes text, whose first FK_WAITING_HEAD bytes are filled in here, where there is room; *at is its place, also in waiting->text. */
int fk_waiting_publish(struct fk_waiting *waiting, char *text, size_t length, size_t *at);
/* Still what stood there when it was read? */
bool fk_waiting_stands(const struct fk_waiting *waiting, const struct fk_waiting_span *span);
/* Needs no flock for one's own. */
void fk_waiting_withdraw(int fd, size_t at);

#endif
