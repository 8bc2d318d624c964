/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cleaning up what the dead have left: items (state.h) whose owners are proven dead.
 *
 * Each is cleaned up once, under its own lock: the attempt is counted, its command run, then its paths are removed, then the item
 * is unlinked. What a reaper that is killed on the way leaves:
 *   before the attempt was counted   nothing
 *   during the command               its helper (run.c) ends the command's tree, and has the item's lock as long as anything of
 *                                    it lives; then another reaper runs it again, with FLOCKCTL_STATE_ATTEMPT=2
 *   after it (`ran=1`)               the paths, or a part of them, which another reaper removes
 * A cleanup that fails, by its status, its limit or a path that can't be removed, is kept and counted, and tried again by itself
 * after 1 s, 2 s, 4 s ... up to an hour; by hand at any time; until flk_state_drop() gives it up.
 *
 * Who cleans up, and when:
 *   an acquisition   of a name, once it has the slots and before it is handed out, all that belongs to that name. What others are
 *                    cleaning up there it waits for. Its commands draw from the hold, so one that needs the very lock gets it
 *   the first in     once a second, all that belongs to the name that it waits for: what keeps the slot may be what is to be
 *   line             ended. When its turn comes, it finishes that first
 *   a waiter         once a minute, whoever that is on this machine, all items: it sleeps anyway. When its turn comes, it
 *                    leaves off
 *   by hand          flk_reap(). For a command it tries to take one slot of its name, for the same reason
 *   the tool         at the end of a command, before the lock goes on, what has been registered for that very flockctl
 * A cleanup never starts another one (it may be the one that the other waits for): where FLOCKCTL_STATE_ID is set, nothing is
 * cleaned up by itself.
 *
 * It is a machine that never sleeps, so that a program with an event loop can drive it: step, and poll in between. */
#ifndef FK_REAP_H
#define FK_REAP_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "flockctl.h"

enum fk_reap_flags {
    FK_REAP_DRY_RUN = 1 << 0, /* only say what would be done */
    FK_REAP_NOW = 1 << 1,     /* don't wait for the end of a pause */
    FK_REAP_WAIT = 1 << 2,    /* for what others are cleaning up */
    FK_REAP_OWN = 1 << 3,     /* what is this process's, though it lives, and nothing else */
    FK_REAP_SINGLY = 1 << 5,  /* each step ends with an item */
    FK_REAP_LEND = 1 << 4,    /* take a slot of the item's name for the command, where one is free */
};

enum fk_reap_result {
    FK_REAP_CLEANED,
    FK_REAP_WOULD,   /* with DRY_RUN */
    FK_REAP_FAILED,  /* detail says why */
    FK_REAP_LATER,   /* it has failed, and its pause isn't over */
    FK_REAP_BUSY,    /* somebody else is at it */
    FK_REAP_ALIVE,
    FK_REAP_DAMAGED, /* state->problem says why */
};

struct fk_reap_spec {
    const char *name;       /* only the items of this name, "": without one; NULL: all */
    struct flk_hold *hold;  /* from which its commands draw; NULL: none */
    unsigned flags;
    /* Called for each item, without any lock but the item's; NULL: nobody is told. */
    void (*tell)(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data);
    void *data;
};

struct fk_reap;
int fk_reap_start(const struct fk_reap_spec *spec, struct fk_reap **reap);
/* How many items were cleaned up (or would be), when all have been seen to. -EAGAIN: not yet. Other: it had to leave off. */
int fk_reap_step(struct fk_reap *reap);
/* When to step again: the descriptor (-1: none) is readable, or that point in time has come. */
int fk_reap_fd(const struct fk_reap *reap);
int64_t fk_reap_wake_at(const struct fk_reap *reap);
/* What runs is killed; its item stays. NULL is fine. */
void fk_reap_end(struct fk_reap *reap);

/* What has been registered for this process, and belongs to the hold's names (NULL: to none): at its end, before it lets go. What it
 * registers itself (flk_state_add()) before a command starts is among it: if it is killed, whoever reaps first does the
 * same, before the names go on. What fails is told and kept. -errno: not all of it could be seen to. */
int fk_reap_own(struct flk_hold *hold);

/* All of that; cancel_fd (-1: none) readable: -ECANCELED. */
int fk_reap_run(const struct fk_reap_spec *spec, int cancel_fd);

/* For all reapers of this process: where commands print to (-1: nowhere), and who is told of what acquisitions clean up. The
 * library's are silent; the tool sets both. */
extern int fk_reap_output;
extern void (*fk_reap_teller)(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data);

/* Is it this process's turn, for all items? At most once a minute for all processes of the lock directory. */
bool fk_reap_is_due(void);
/* Cleaning up is what this process does already. */
bool fk_reap_is_inside(void);

#endif
