/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request on its way to a hold: the names in the order of their bytes, one after the other; for each
 *
 *   NEWCOMER  has no ticket. Takes the slots at once when nobody queues, else queues
 *   QUEUED    has a ticket and watches the one before it
 *   HEAD      has a ticket, nobody is before it; watches the slots that aren't free. Those that are free stay so until there
 *             are enough, since everybody else queues
 *   (served)  slots taken, ticket gone; the next name is a NEWCOMER again
 *   (reaping) all are served, and what their dead owners left is cleaned up (reap.h) before the hold is handed out. No deadline
 *             bounds that, cancel_fd does
 *
 * Where a hold of ours covers a name, its row is the one below that hold (nest.h).
 *
 * Each change is made in one section of the row's latch; only giving up needs none. A row that is no longer at its path, or
 * a ticket that others have passed, makes it a NEWCOMER again. A crash at any point leaves what slot.h, queue.h and hold.h say.
 *
 * Sleeping is one poll over what matters at the moment. It is poll and not epoll because the head of the queue watches
 * every slot of the row but seldom sleeps long: 64 slots cost 2 us to poll and 100 us to enter in an epoll and to remove again.
 * Only who asked for a descriptor (flk_request_fd) pays for the epoll. */
#ifndef FK_REQUEST_H
#define FK_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "flockctl.h"
#include "output.h"

enum fk_acquire_flags {
    FK_FOR_COMMAND = 1 << 0, /* the hold is a command's: its descendants draw from it */
    FK_WHOLE_ROW = 1 << 1,   /* the row itself is to be changed: -EDEADLK where a hold of ours covers it */
    FK_WITHOUT_REAPING = 1 << 2, /* leave what its dead owners left */
};
int fk_acquire_many(const struct flk_want *wants, size_t n_wants, const struct flk_options *options, unsigned flags,
                    int64_t timeout_ms, struct flk_hold **hold);
/* The lock of an output, to use it (shared) or to build it. The hold's name is the output's path. -EDEADLK, too: a command that we run
 * under builds it, or uses it where we would build it. */
int fk_acquire_output(const struct fk_output *output, bool shared, const struct flk_options *options, unsigned flags,
                      int64_t timeout_ms, struct flk_hold **hold);

/* How often a head was let in by its look once a second and not by an event. For the tests. */
extern _Atomic unsigned fk_request_let_in_by_look;

#endif
