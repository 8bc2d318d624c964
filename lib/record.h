/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A record: what a holder or a waiter says of itself, for people and for cleaning up; never trusted against the kernel.
 *
 * Text: a line with the mark, lines of key=value, the last line "end"; what follows it is left from an older, longer
 * one. In values, control characters, the backslash and bytes above 0x7e stand as \xNN, so that cat(1) on a record is safe.
 * Unknown keys are passed over, so that later releases can add some.
 *
 * States of a place for a record, by its mark:
 *   FK_ENDED    nobody, or somebody who has released; so is a place that was never used
 *   FK_LEAVING  the same, but that one, or one not long before it, may have been killed before it took its ticket out of the
 *               queue: the next holder that finds nobody queueing looks for dead ones
 *   FK_LIVE     its writer holds; or died holding, when the kernel says that the slot is free ("abandoned")
 * Written by the holder, under the row's latch, in one pwrite; its mark is changed by the same holder, without the
 * latch, before it unlocks. A crash in between leaves FK_LIVE, which is what it is for. */
#ifndef FK_RECORD_H
#define FK_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flockctl.h"
#include "owner.h"

#define FK_RECORD_SIZE 1024 /* of any record and of its place on disk */
#define FK_RECORD_LEAST 384
#define FK_LIVE '+'
#define FK_ENDED '-'
#define FK_LEAVING '~'

struct fk_record {
    bool live;
    struct fk_owner owner;
    int64_t since_ns; /* of CLOCK_REALTIME */
    int64_t ended_ns; /* its writer has let go, and left the slot to others who have its descriptor; 0: not so */
    unsigned wants;   /* slots, of one that waits; 0: it holds */
    bool shared;
    bool nests; /* a command's: what its descendants want of the same row they get from this hold */
    char id[FLK_ID_SIZE];
    char label[192], command[512]; /* cut to what fits */
};

/* Behind the mark of an exclusive holder's record comes ended= with 20 digits, so that both are changed by one pwrite; in a pool
 * that spreads, behind that used= with 20 digits: when the slot was used last (pool.h). */
#define FK_ENDED_SIZE (2 + 6 + 20 + 1)
#define FK_USED_AT (FK_ENDED_SIZE + 5)
#define FK_END_SIZE (FK_USED_AT + 20 + 1)

struct fk_record_spec {
    const char *id, *label, *command; /* label NULL: none; command NULL: this process's */
    unsigned wants;
    bool shared, nests;
    bool spreads; /* with used= */
};
/* The text of a live record of this process, into size bytes (FK_RECORD_LEAST or more; label and command are cut to what fits);
 * its length, or a negative errno. */
int fk_record_write(char *text, size_t size, const struct fk_record_spec *spec);
/* The beginning of the record of one that lets go now; its length. left: it leaves the slot to others; spreads: its record has
 * used=. */
size_t fk_record_end(char text[FK_END_SIZE], char mark, bool left, bool spreads);
/* used= of the text of length bytes; -1: it has none. */
int64_t fk_record_used(const char *text, size_t length);
/* Does the text of length bytes begin so? */
bool fk_record_has_ended(const char *text, size_t length);
/* -EBADMSG: not a whole record. */
int fk_record_read(const char *text, size_t length, struct fk_record *record);
/* Takes the escapes out of length bytes of a value; out may be value itself. */
void fk_record_unescape(char *out, size_t size, const char *value, size_t length);
/* The same as the public interface shows it; points into record. */
void fk_record_show(const struct fk_record *record, struct flk_holder *holder);

#endif
