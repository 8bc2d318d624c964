/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* State: what is to be undone when an owner is gone, as items: files $ROOT/state/ID, or $ROOT/rows/NAME/state/ID of those that
 * are to be cleaned up before NAME is handed on. Here they are written, read, listed and dropped; reap.h cleans them up.
 *
 * Content: lines of fixed width, which are overwritten in place, then the rest, which never changes:
 *     state=1       the format; a larger number is a newer release's
 *     attempts=     how often a cleanup has begun      failures=  how often it failed
 *     retry=        not before this moment (ns of CLOCK_REALTIME) is it tried again by itself
 *     ran=          1: the command has succeeded, and isn't run again
 *     id= pid= start= boot= pidns= timens= pidfd= (owner.h) held= since= limit= (ms) name= label= command= dir= path=... env=...
 *     end
 * Values are escaped as in records. Without `end` it was cut short: it is reported, and never acted on; so is a newer one.
 *
 * Locks (flock) on an item's file, all of them for as long as they matter and no longer:
 *   LOCK_SH  its owner, a process that uses this library (held=1): alive as long as anybody has that lock, in whatever
 *            namespace
 *   LOCK_EX  one that cleans it up, and the command that does; or, under its temporary name, one that looks for left-overs
 * So who gets LOCK_EX has the item for itself, and who gets neither knows that it is being cleaned up. Who only wants to know has
 * them for a moment, and nobody is to take that for an owner or for a reaper: so these locks are tried one after the other, by
 * who has the file's fcntl lock (F_OFD_SETLK) for the few system calls of it. One that dies or closes the file has let go of all.
 *
 * States of an item, and who may change them:
 *   (being made)  .tmp.ID beside the others, locked by its maker; unlocked: left by a killed one, deleted by the next reaper, or by gc
 *   registered    renamed to ID, under the row's latch where it has one. Whole, or not there: a full file system leaves nothing
 *   tried         a reaper with LOCK_EX has counted an attempt, which is how the next one knows that it was killed there
 *   failing       failures > 0
 *   (gone)        unlinked: by who cleaned it up, by its owner, or by hand (flk_state_drop())
 * The latch's header says `state=1` where a row may have items: written before the first one is renamed, and taken back by a
 * reaper that could remove the empty directory, both under the latch. So an acquisition with nothing to clean up makes no system
 * call for it. A row that is resized keeps its items, one that is removed leaves them to $ROOT/state. */
#ifndef FK_STATE_H
#define FK_STATE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "flockctl.h"
#include "owner.h"

struct fk_row;

#define FK_STATE_LIMIT_MS 30000
/* The flockctl around a command, for those below that register something: FLOCKCTL_OWNER=OWNER@NAME, as fk_owner_format(); NAME
 * is the first of those that it holds, or empty. */
#define FK_STATE_OWNER_VARIABLE "FLOCKCTL_OWNER"

/* ---- registering ---- */

/* As flk_state_add(), for an owner that isn't us; owner NULL: this process, which then has the item's lock until it drops it
 * or ends. */
int fk_state_add(const struct flk_state_spec *spec, const struct fk_owner *owner, char id[FLK_ID_SIZE]);
/* The flockctl around us: variable is the value of FLOCKCTL_OWNER. *name: in it, "" for none. -ENOENT: there is none; -ESRCH,
 * -EINVAL: what it names isn't alive, not above us, malformed. */
int fk_state_owner_around(const char *variable, struct fk_owner *owner, const char **name);
/* The descriptor by which this process has its own item's lock; -1: it isn't one of ours. */
int fk_state_own_fd(const char *id);
/* The item has gone: lets go of it, where it is one of ours. */
void fk_state_forget(const char *id);
/* Deletes its file, wherever that is. 1: it was there; 0: it wasn't; or an error. */
int fk_state_unlink(const char *id);
void fk_state_after_fork_child(void);

/* ---- one item ---- */

struct fk_item {
    char *memory;
    unsigned attempts, failures;
    int64_t retry_ns, since_ns, limit_ms;
    bool ran, held;
    struct fk_owner owner;
    const char *id, *name, *label, *command, *dir; /* NULL: none */
    const char **paths, **env; /* both end with NULL */
};

/* What stands in it; for fk_item_clear(). whole: all of it, else only the beginning, as much as tells whose it is (no label and what
 * follows). -EBADMSG: cut short; -EPROTONOSUPPORT: a newer release's. */
int fk_item_read(int fd, bool whole, struct fk_item *item);
void fk_item_clear(struct fk_item *item);
/* Under LOCK_EX: writes back attempts, failures, retry_ns and ran. */
int fk_item_update(int fd, const struct fk_item *item);
enum fk_grip {
    FK_GRIP_OURS,    /* LOCK_EX: nobody has a lock */
    FK_GRIP_OWNERS,  /* somebody has LOCK_SH */
    FK_GRIP_REAPERS, /* somebody has LOCK_EX */
};
/* Tries for LOCK_EX, and says who is in the way. keep: and has it; else nothing is locked afterwards. */
enum fk_grip fk_item_grip(int fd, bool keep);
/* Its file was unlinked: dropped or cleaned up since it was opened. */
bool fk_item_is_gone(int fd);
/* Whether its owner lives, from the look at the item's lock that the caller has had: locked by LOCK_SH or not. */
enum fk_life fk_item_judge(const struct fk_item *item, bool locked, int patience_ms, const char **reason);
/* Says which item and what is wrong with it. */
int fk_item_complain(const char *name, const char *id, int code);

/* ---- all of them ---- */

/* Goes through the directories one after the other. An item's file may be gone by the time it is opened. */
struct fk_state_walk {
    const char *only;  /* the items of that name, "": of none; NULL: all */
    const char *name;  /* of the current one; NULL: it has none */
    int directory;     /* that is open */
    DIR *items, *rows;
    int step;
    char row[FLK_NAME_MAX + 1];
};
int fk_state_walk_begin(struct fk_state_walk *walk, const char *only);
/* On to the next directory. 1: it is open; 0: there is none; or an error. */
int fk_state_walk_directory(struct fk_state_walk *walk);
/* The next file of the one that is open, an id or .tmp.ID; NULL: no more. */
const char *fk_state_walk_entry(struct fk_state_walk *walk);
/* One that is still being made, .tmp.ID, whose maker was killed: deletes it, unless that is dry. False: its maker lives. */
bool fk_state_sweep(int directory, const char *entry, bool dry);
void fk_state_walk_end(struct fk_state_walk *walk);

/* ---- rows ---- */

/* Moves what one row's directory has to another's: in a section of the first, with the other's latch locked. */
int fk_state_move(int from, int to);
/* The same to $ROOT/state, where it is kept without the name: in a section of the row, or when nobody can use that any more. */
int fk_state_keep(int directory);
/* What the latch says. */
bool fk_state_is_marked(const struct fk_row *row);
/* Has anybody ever registered something that belongs to no name? Doesn't make the lock directory. */
bool fk_state_has_nameless(void);
/* Takes the latch's mark back if there is nothing left. Best effort. */
void fk_state_tidy(const char *name);

#endif
