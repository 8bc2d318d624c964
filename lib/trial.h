/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a request gets slots of a pool with a check (check.h): takes them, looks at their values outside the latch, and has them only
 * when all are usable.
 *
 * An attempt, of one request:
 *   (none)     holds nothing
 *   taken      has all slots that it wants, flocked, without a record, so that nobody else can look at the same values; they are
 *              looked at one after the other. From here on each slot is looked at once
 *   settled    in a section: those in use are noted as blocked and let go, others are taken in their place, and it is `taken`
 *              again; until all are usable, and the request has them, or there are too few: then it lets go of everything, so it
 *              never waits with a part of what it wants
 * A request that may wait queues first and attempts as the head of the queue. It stays that: the slots that it lets go are
 * nobody's else, it doesn't watch those that are blocked, and attempts again when the first of them may be looked at again.
 * So those behind it wait for its check. One that tries once has no ticket, and waits for nobody, only for its checks; it looks
 * at blocked slots too.
 *
 * A crash, or a thread that is cancelled, leaves slots that the kernel has unlocked, and perhaps a note of a blocked one. Who died so held
 * nothing, and nobody is told. */
#ifndef FK_TRIAL_H
#define FK_TRIAL_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "check.h"
#include "row.h"

enum fk_trial_slot { FK_TRIAL_NEW, FK_TRIAL_USABLE, FK_TRIAL_IN_USE };

struct fk_trial {
    unsigned n; /* slots taken: the first of those of the part */
    unsigned looked; /* of them, those looked at */
    unsigned char *seen; /* enum fk_trial_slot of each slot of the row, in this attempt; NULL: no attempt */
    bool *passed; /* behind seen */
    struct fk_check *check; /* runs; of slot number `looked` */
    int64_t retry_at; /* when a blocked slot may be looked at again; FK_NEVER: there is none */
};

/* Takes what is missing of count slots; under the latch. hurry: blocked ones too. The rest as fk_slots_take(). -EINPROGRESS: they are
 * taken, and to be looked at. -EAGAIN: too few; nothing is held. */
int fk_trial_take(struct fk_trial *trial, struct fk_section *section, unsigned count, bool hurry, bool sweep,
                  unsigned *slots, int *fds, struct pollfd *busy, unsigned *n_busy);
/* Looks at what was taken; without the latch. -EAGAIN: a command is looking, see fk_trial_fd(). Or an error. */
int fk_trial_look(struct fk_trial *trial, const struct fk_row *row, const unsigned *slots);
int fk_trial_fd(const struct fk_trial *trial); /* -1: none */
/* All that was taken has been looked at; under the latch. 0: all count are usable, and the caller's. -EAGAIN: some are missing. */
int fk_trial_settle(struct fk_trial *trial, struct fk_section *section, unsigned count, unsigned *slots, int *fds);
/* Ends the attempt. copy: in a forked child, whose descriptors are closed already. */
void fk_trial_end(struct fk_trial *trial, int *fds, bool copy);

#endif
