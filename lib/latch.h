/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The latch: the file `latch` of a row, flocked for a few system calls at a time and never while sleeping. It makes every
 * change of a row one step: who is free, who is next, who has it.
 *
 * Content: a header of FK_LATCH_HEADER bytes, lines of fixed width,
 *     slots=   how many; fixed for the life of the file
 *     number=  the last ticket number given out; numbers are never used twice
 *     living=  the number of the ticket that was the last in the queue when somebody looked; 0: the queue was empty
 *     admitted= the last ticket that was admitted: nobody with such a number or a smaller one waits
 *     shared=  1: there may be records of shared holders
 *     pool=    enum fk_kind: what else the row has; fixed for the life of the file
 *     state=   1: there may be something to clean up, see state.h
 * and then, FK_RECORD_SIZE bytes a slot, the record of its exclusive holder; then of who waits (queue.h), and of shared holders (shared.h). They stand in this
 * file because a row's header and a lock's record then are one read. The header is written under the latch, in one pwrite: a
 * new number before its ticket is made, the number admitted after the slots were taken. A crash leaves a number that nobody
 * uses, or a living ticket that isn't there, both of which the next one notices. */
#ifndef FK_LATCH_H
#define FK_LATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "record.h"

#define FK_LATCH_HEADER 128
#define FK_WAITERS 1024u
#define FK_WAITER_SIZE 512 /* of a place: the number, a newline and a record */

enum fk_kind {
    FK_HAS_VALUES = 1 << 0, /* files of the row, see values.h */
    FK_HAS_CHECK = 1 << 1,
    FK_SPREADS = 1 << 2, /* of the free slots the one that was unused longest is taken first */
};

struct fk_latch {
    unsigned slots;
    uint64_t number, living, admitted;
    bool shared, state;
    unsigned kind;
};

/* flock belongs to the open file description, so one descriptor is used by one thread at a time. Never blocks in flock: who
 * holds the latch may be stopped, and the wait must end at `until`. -EAGAIN: it is later than that. */
int fk_latch_lock(int fd, int64_t until);
void fk_latch_unlock(int fd);

/* The header and, into record (FK_RECORD_SIZE bytes), the record of slot 0. -EBADMSG. */
int fk_latch_read(int fd, struct fk_latch *latch, char *record);
int fk_latch_write(int fd, const struct fk_latch *latch);
/* The same and the record of slot 0, length bytes, in one call: they are neighbours. */
int fk_latch_write_both(int fd, const struct fk_latch *latch, const char *record, size_t length);
/* A new latch's content. */
int fk_latch_init(int fd, unsigned slots, unsigned kind);

static inline off_t fk_latch_record_at(unsigned slot)
{
    return FK_LATCH_HEADER + (off_t)slot * FK_RECORD_SIZE;
}

static inline off_t fk_latch_waiter_at(unsigned slots, uint64_t number)
{
    return fk_latch_record_at(slots) + (off_t)(number % FK_WAITERS) * FK_WAITER_SIZE;
}

/* Whether this process may write up to there: past RLIMIT_FSIZE it would be killed (SIGXFSZ). */
bool fk_latch_reaches(off_t end);

#endif
