/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who waits for whom, as $ROOT/waiting says, and what is left of it when everybody who can go on has gone on (deadlock.h).
 *
 * Members are publications, rows what they hold and wait for, stakes the slots that they hold. A row is its path and its inode: one
 * that was resized or removed and made again is another one. Only those that we wait for, directly or by way of others, are counted;
 * states of a member: live (it can go on, or isn't counted), not live. It becomes live, by fk_reduction_run() or because the caller found out,
 * and never the reverse. */
#ifndef FK_REDUCTION_H
#define FK_REDUCTION_H

#include "row.h"
#include "waiting.h"

#define FK_NOBODY UINT32_MAX

struct fk_stake {
    uint32_t member, row, next; /* of the same row */
    unsigned slot;
    int fd;
    uint64_t inode;
    bool shared, gone; /* gone: it isn't so */
};

struct fk_member {
    struct fk_waiting_span span;
    const char *record; /* text */
    size_t record_length;
    uint32_t row, next; /* next: waits for the same row */
    uint32_t first_stake, n_stakes;
    uint64_t number;
    unsigned count;
    bool shared, live;
    bool told; /* the caller's */
};

/* One in the queue of a row. */
struct fk_queuer {
    uint64_t number;
    unsigned count; /* 0: not looked up yet */
    bool shared, aside; /* aside: in nobody's way */
};

struct fk_row_view {
    const char *path; /* not terminated */
    size_t length;
    uint64_t inode;
    unsigned slots;
    uint32_t stakes, waiters; /* the first, or FK_NOBODY; of waiters only the counted */
    bool due;
    /* where some of its slots come free, and not all: */
    struct fk_row *row;
    bool read;
    struct fk_queuer *queue; /* rising */
    uint32_t n_queue, blocker; /* the first that can't be served, or FK_NOBODY */
};

struct fk_reduction {
    const struct fk_waiting *waiting;
    struct fk_member *members;
    struct fk_stake *stakes;
    struct fk_row_view *rows;
    uint32_t n_members, n_stakes, n_rows, me;
    uint32_t *due, n_due; /* a stack of rows */
    uint32_t *index, index_size; /* of rows, by hash */
    uint32_t room_members, room_stakes, room_rows;
};

/* own: the place of our publication. Always to be cleared. */
int fk_reduction_make(const struct fk_waiting *waiting, size_t own, struct fk_reduction *reduction);
/* Lets go on who can. Are we left? */
bool fk_reduction_run(struct fk_reduction *reduction);
/* What the caller found out; then run again. */
void fk_reduction_free_member(struct fk_reduction *reduction, uint32_t member);
void fk_reduction_free_stake(struct fk_reduction *reduction, struct fk_stake *stake);
void fk_reduction_pass_blocker(struct fk_reduction *reduction, uint32_t row);
/* Is it held by one that isn't live, while one that isn't live waits for its row? */
bool fk_reduction_matters(const struct fk_reduction *reduction, const struct fk_stake *stake);
void fk_reduction_clear(struct fk_reduction *reduction);

#endif
