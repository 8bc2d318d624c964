/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The queue of a row: tickets, which are FIFOs queue/NUMBER that their waiter keeps open (O_RDWR) and flocked. Numbers rise
 * and are never used twice. The record of who it is that waits is written after the ticket is made, best effort, into a place
 * in the latch's file that ticket number + FK_WAITERS uses again; or, while so many may wait, into a file queue/NUMBER.who: to
 * make, fill and unlink one takes 15 us or, with a thousand in the directory, 100. (Not /proc/locks: reading it stops all
 * flocks of the machine for a while.)
 *
 * States of a ticket, and who sees what through a read-only descriptor of it (a watch):
 *   waiting    flocked, no byte in it, no hang-up; made under the latch
 *   admitted   one byte: nobody is before its watcher. Said by the head of the queue once it has got its slots; where it has all
 *              that the row has, not before it gives them back
 *   left       two bytes: it gave up, or must start over. Needs no latch
 *   dead       neither, and a hang-up: its waiter was killed
 *   passed     its name is gone, though its waiter lives: that one was stopped too long. It finds out by st_nlink
 * Bytes are looked at with FIONREAD and never read, since two may be watching; they are written before the name is unlinked.
 * The name of a dead ticket is unlinked by whoever finds it, under the latch. A crash at any point leaves a dead ticket,
 * perhaps without its .who, or a .who beside a dead ticket: both go when it is found.
 *
 * Everybody watches the nearest living ticket below his own, so one that goes wakes one. */
#ifndef FK_QUEUE_H
#define FK_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "row.h"

#define FK_WAITER_RECORD (FK_WAITER_SIZE - 21)

struct fk_ticket {
    int fd; /* -1: none */
    bool admitted, told, has_who;
    uint64_t number;
};

enum fk_told { FK_TOLD_NOTHING, FK_TOLD_ADMITTED, FK_TOLD_LEFT };

struct fk_watch {
    int fd; /* -1: none */
    uint64_t number;
    enum fk_told told; /* what was seen; it is told once */
    unsigned stopped;  /* at how many looks in a row its owner was */
};

/* Under the latch: */

/* The last living ticket, or a watch of -1; corrects section->latch.living (in memory only). */
int fk_queue_last(struct fk_section *section, struct fk_watch *watch);
/* The nearest living one below number that waits still: those that were admitted may have their tickets yet. */
int fk_queue_before(struct fk_section *section, uint64_t number, struct fk_watch *watch);
/* A new ticket at the end, for the owner who wrote that record (at most FK_WAITER_RECORD bytes). Writes the latch. */
int fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket);
/* The head has its slots: marks the latch to be written. Who is behind it is told by fk_queue_leave(), after the section: one
 * that is woken earlier would find the latch taken. */
void fk_queue_admit(struct fk_section *section, struct fk_ticket *ticket);
/* Unlinks the watched one: its owner was stopped too long, or is dead while a copy keeps it open. */
void fk_queue_pass(struct fk_row *row, const struct fk_watch *watch);
/* Unlinks all that don't wait any more. True: there are some, beside our own with that number, that were admitted and still have
 * their ticket open, so they may leave it behind yet. */
bool fk_queue_sweep(struct fk_section *section, uint64_t own);
/* How many are dead; unlinks them unless it is dry. */
unsigned fk_queue_forget_dead(struct fk_section *section, bool dry_run);
/* Are all that wait with a number below `below` stopped? */
int fk_queue_is_stopped(struct fk_section *section, uint64_t below);

/* Without the latch: */

/* Opens a watch of ticket number if that lives: 1; 0: it doesn't. It lives when it can't be flocked and the primed watch shows
 * nothing: the flock alone might be that of another who tests, or of a process which was killed while it tested. */
int fk_queue_watch(const struct fk_row *row, uint64_t number, struct fk_watch *watch);
/* Whoever watches the ticket is told first, before what takes time. */
void fk_queue_leave(struct fk_row *row, struct fk_ticket *ticket);
/* The first half of it, for one that has something else to do in between; told once. */
void fk_queue_tell(struct fk_ticket *ticket);
bool fk_queue_is_passed(const struct fk_ticket *ticket);
enum fk_told fk_queue_told(struct fk_watch *watch);
/* Looks at the owner of the watched ticket. True: it is in nobody's way any more (stopped at two looks in a row, dead, or
 * passed). */
bool fk_queue_look(struct fk_row *row, struct fk_watch *watch);
void fk_queue_unwatch(struct fk_watch *watch);

/* For messages: the numbers in the queue below `below`, rising; *numbers is the caller's to free. How many. */
int fk_queue_list(const struct fk_row *row, uint64_t below, uint64_t **numbers);
/* -ENOENT, -EBADMSG: not known. */
int fk_queue_who(const struct fk_row *row, uint64_t number, struct fk_record *record);

#endif
