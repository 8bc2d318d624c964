/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deadlocks: found by the waiter that closes one, before it sleeps. Only who holds something while it waits can close one: parts of
 * the same request, what this thread has acquired, what the process has inherited from an outer command. So only those come
 * here, after they have queued. Under the flock of $ROOT/waiting (waiting.h) such a waiter publishes what it holds and waits for, searches,
 * and withdraws before it unlocks when it is in a deadlock. So the last to arrive sees the whole picture and is the only victim.
 *
 * The search is a reduction, not a hunt for cycles (a row of two has innocent ones):
 *   - who isn't published is live: it will let go of what it holds
 *   - a slot comes free when all that have it are live
 *   - a waiter is live when free slots and slots of live holders suffice for it and for those before it in the queue. When
 *     all slots come free they suffice for everybody, so that most queues needn't be read
 * What is left, of those that we wait for directly or by way of others, is deadlocked. Then a second pass proves that it is: each of them
 * lives, and its descriptors of the slots are locked (/proc/PID/fdinfo; in another pid namespace, or where /proc is closed
 * to us: its ticket waits and the slot is open); those who hold nothing and are in the way live and aren't stopped; and all
 * publications still stand. A lock that is there at the end has been there since it was published, and while it is, none of those
 * who wait for it can have been served: so all of it stood at one instant. Whoever can't be proven to be stuck is live.
 *
 * Of what the process has acquired or inherited only blocking calls count something, and only what their own thread has acquired: a
 * program that steps a request goes on meanwhile and may release, and so may another thread. */
#ifndef FK_DEADLOCK_H
#define FK_DEADLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fk_part;
struct fk_row;

/* What a request has published. */
struct fk_deadlock {
    int fd; /* of the file; -1: nothing */
    size_t at;
    bool doubtful; /* somebody in the way was stopped, or the file wasn't to be had: look again */
};

struct fk_deadlock_wait {
    const struct fk_row *row;
    uint64_t number; /* of the ticket */
    unsigned count;
    bool shared, blocking;
    const struct fk_part *parts; /* of the request: those that have slots are held */
    size_t n_parts;
    const char *id, *command;
};

/* No system call when nothing is held. */
bool fk_deadlock_concerns(const struct fk_deadlock_wait *wait);
/* Publishes, unless that is done, and searches. -EDEADLK, with the sentence and withdrawn. What keeps it from searching (a full disk,
 * the flock not to be had until then) is no failure of the wait: *own says that it is to be tried again. */
int fk_deadlock_look(struct fk_deadlock *own, const struct fk_deadlock_wait *wait, int64_t until);
void fk_deadlock_withdraw(struct fk_deadlock *own);
/* How many publications are of dead processes; withdraws them unless it is dry. */
int fk_deadlock_forget_dead(bool dry_run);

#endif
