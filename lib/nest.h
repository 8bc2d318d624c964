/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nesting: a request for a name that a hold of ours covers, one whose command or whose heir we are, draws from that hold. It
 * queues in a row of its own below the hold, rows/NAME/under/ID, which has as many slots as hold ID has of NAME. Holds below
 * such a row have theirs beside it: all of a name's lie flat in rows/NAME/under.
 *
 * Why there never is a second holder: the row NAME isn't touched, and its slots stay taken for as long as somebody draws from
 * them, because who draws keeps the descriptors of the hold's slots open. What proves the hold:
 *   by descriptor  FLOCKCTL_HELD (`name@id@fd,...`, one entry a slot; the last ones of a name are the nearest hold's) names a
 *                  descriptor of ours that is a slot of the row at its path, has a `lock:` line in fdinfo, and whose slot's
 *                  record has that id. All slots of the hold must be proven, or none counts
 *   by ancestry    (sudo, env -i, close_fds) a record says that a command runs under the hold (`nests`), and its process lives and is an
 *                  ancestor of ours. Then we try to get the descriptors, our own or the ancestor's by pidfd_getfd(2); where
 *                  that isn't allowed, ancestor and record are looked at again when we have got a slot
 * Anything else, a stale variable most of all, is passed over: the request is one like any other.
 *
 * A row below a hold is made by the first who needs it and deleted, when nobody uses it, at the end of its hold; by the next
 * holder of the slot, where that was killed or left the slot to others; or with the row NAME. Deleting takes all its slots,
 * so a crash at any point leaves a row that is whole, and that nobody uses. */
#ifndef FK_NEST_H
#define FK_NEST_H

#include <stdbool.h>
#include <stddef.h>

#include "flockctl.h"
#include "owner.h"
#include "row.h"

struct fk_nest {
    char id[FLK_ID_SIZE]; /* of the hold that is drawn from */
    bool shared;
    bool fetched; /* the descriptors are from its process: what we start hasn't inherited them */
    struct fk_owner owner;
    struct fk_row *row; /* of which it has slots: the one asked for, or one below another hold */
    char command[128];
    unsigned slots;
    unsigned *numbers; /* of its slots in the row that was asked for, rising */
    int *fds;          /* ours, of its slots; NULL: known by ancestry only */
};

/* 1: *nest is the hold of ours that covers the row; 0: there is none; or an error. */
int fk_nest_find(struct fk_row *row, struct fk_nest **nest);
/* Known by ancestry only: does its process still live and hold it? */
bool fk_nest_stands(const struct fk_nest *nest);
/* Closes the descriptors. handed_on: what we started has them too. copy: in a forked child, whose own are closed already unless
 * handed on. NULL is fine, for both. */
void fk_nest_end(struct fk_nest *nest, bool handed_on, bool copy);
void fk_nest_free(struct fk_nest *nest, bool copy); /* ended or not; a copy must be ended */

/* May a command that we could run under hold some of it? record: of slot 0; shared: of the latch. */
bool fk_nest_is_hinted(const struct fk_row *row, const char *record, bool shared);
/* Deletes the row below that hold of the row NAME if there is one and nobody uses it. False: there was none. */
bool fk_nest_clear(const struct fk_row *row, const char *id);
/* The same for all holds of which there is no record any more. */
void fk_nest_sweep(const struct fk_row *row);

#endif
