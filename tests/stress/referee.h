/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A referee for programs that torture the queue: knows from inside the row's own sections who waits and who holds, and
 * finds
 *
 *   FOUL_OVERLAP    two holders of one slot
 *   FOUL_ORDER      somebody let in before a living, unstopped waiter with a lower ticket
 *   FOUL_PASS       a ticket unlinked by others though its owner was neither stopped nor dead
 *   FOUL_BUSY       "busy" though enough slots were free during the whole section and nobody waited
 *   FOUL_NO_EVENT   slots that were free and neither hung up nor had a byte in them: only the waiters' look finds them
 *   FOUL_LATE       a waiter let in so long after the last thing that could have let it in that only that look can have
 *   FOUL_ERROR      a call that failed as it must not, or a process that crashed
 *
 * It stands between the library's modules: the linker gives it their calls (--wrap, see tests/local.mk), most of which
 * are made under the row's latch, so what it sees is in order and exact. All it knows lies in memory shared by all
 * processes, in what the actor itself publishes: before it lets go of something it says so, and after it has got
 * something. A process that is killed may leave anything there. So the killer marks its victim first (`doomed`), from
 * then on what the victim says accuses nobody and excuses everybody, and it is wiped when the victim and all copies of
 * its descriptors are gone.
 *
 * Rows are called r0, r1, ... and have at most 32 slots. An actor is a thread that has one request or
 * hold at a time. */
#ifndef REFEREE_H
#define REFEREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ROWS 4
#define ACTORS 40
#define COPIES 8
#define MESSAGES 4 /* of each foul */

enum foul { FOUL_OVERLAP, FOUL_ORDER, FOUL_PASS, FOUL_BUSY, FOUL_NO_EVENT, FOUL_LATE, FOUL_ERROR, FOULS };
enum ticket_state { NO_TICKET, WAITING, LEAVING, PASSED };

struct process {
    _Atomic pid_t pid;             /* 0: none */
    _Atomic unsigned incarnation;  /* a new one each time it is wiped */
    _Atomic bool doomed;           /* set before SIGKILL is sent */
    _Atomic bool stopped;          /* from before SIGSTOP to SIGCONT */
    _Atomic bool frozen;           /* between the two, when it is known to stand still */
    _Atomic int64_t continued;     /* when */
    _Atomic pid_t copies[COPIES];  /* raw clones that have copies of its descriptors; the kernel writes them */
};

/* The last ticket that an actor had in a row. */
struct gone {
    _Atomic uint64_t number;
    _Atomic ino_t row;
    _Atomic int64_t entered, at;
};

struct actor {
    struct process *process;
    /* the ticket it has */
    _Atomic int state; /* enum ticket_state */
    _Atomic unsigned name;
    _Atomic ino_t row;
    _Atomic uint64_t number;
    _Atomic int64_t entered;
    /* by row: bits of slots */
    _Atomic uint32_t held[ROWS], releasing[ROWS], taking[ROWS];
    _Atomic bool shared[ROWS];
    _Atomic ino_t held_row[ROWS];
    _Atomic bool replacing[ROWS]; /* it holds all slots and is about to replace or remove held_row */
    struct gone gone[ROWS];
};

struct referee {
    struct actor actors[ACTORS];
    _Atomic int64_t freed[ROWS]; /* when a slot came free last */
    _Atomic int64_t heartbeat;   /* the main process's, some ms apart: when it is old, the machine is to blame */
    _Atomic int64_t stalled;     /* when it was old the last time */
    _Atomic bool stops, copies_die; /* what the phase does: stop processes; kill such as have copies */
    _Atomic unsigned fouls[FOULS];
    _Atomic unsigned takes, queued, waited, passes, refused, lib_let_in_by_look; /* how much was seen */
    _Atomic unsigned n_messages[FOULS];
    char messages[FOULS][MESSAGES][200];
};

extern struct referee *referee;

void referee_start(void);
/* This thread acts as actor `index`, without request and hold. */
void referee_enter(unsigned index);
unsigned referee_self(void);
/* Nothing is left of its process and its copies. */
void referee_wipe(struct actor *actor);
void referee_foul(enum foul foul, const char *format, ...) __attribute__((format(printf, 2, 3)));
void referee_show_messages(void); /* and forgets them */
/* Had this thread's last try once a reason to be refused? */
bool referee_was_refused(void);

#endif
