/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slots: the FIFOs slots/0 .. N-1 of a row.
 *
 * States of a slot, which the kernel keeps: free (no flock on it); held (a descriptor opened O_RDWR|O_NONBLOCK has it
 * flocked, LOCK_EX or, in rows of one, LOCK_SH). Taken under the latch only; left without it, by LOCK_UN, one byte and
 * close, or by the death of the last process that has the descriptor. The kernel drops the flock before it releases the
 * pipe's end, so whoever sees the hang-up finds the slot free.
 *
 * A watch is a read-only descriptor of the FIFO: POLLHUP says that no writer is left, a byte that a holder has unlocked
 * while a copy of its descriptor (made by a fork of a sibling thread) still holds the hang-up back. What keeps waiters from
 * sleeping through it:
 *   (a) a free slot shows a hang-up or has a byte in it. Who takes bytes out and finds the slot free but doesn't take it puts
 *       one back.
 *   (b) bytes are taken out before the flock is tried, so one that comes later is news.
 *   (c) a watch never shows a hang-up until a writer has come and gone, so it is primed: opened O_RDWR and closed.
 * A holder killed between LOCK_UN and the byte while a copy lives, and an outsider that unlocks without closing, leave
 * neither: hence the waiter's look once a second (`sweep`), which flocks every slot. */
#ifndef FK_SLOT_H
#define FK_SLOT_H

#include <poll.h>
#include <stdbool.h>

#include "row.h"

/* Takes count slots, the lowest that are seen to be free, in one step or not at all; under the latch. mode: LOCK_EX or LOCK_SH. sweep:
 * flock every slot, whatever the watches say. slots and fds have room for count. -EAGAIN: fewer are free; those that aren't
 * are in *busy (a row's worth of room; may be NULL), to be slept on: *n_busy. What was slept on before may stand there, with
 * what poll(2) said of it: it is tried first. */
int fk_slots_take(struct fk_section *section, unsigned count, int mode, bool sweep, unsigned *slots, int *fds,
                  struct pollfd *busy, unsigned *n_busy);

/* Puts what was taken into the order of the slots' numbers. */
void fk_slots_sort(unsigned count, unsigned *slots, int *fds);

/* The watches of all slots, opened if need be, into polls (a row's worth of room). False: they can't all be had. Under the
 * latch; the row keeps them, so they can be polled without it. */
bool fk_slots_watch(struct fk_row *row, struct pollfd *polls);

/* Unlocks for everybody who has a copy, and says so. */
void fk_slot_unlock(int fd);
/* And closes. */
void fk_slot_drop(int *fd);

#endif
