/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this process has: the names it used, the rows it keeps open for them, how often it holds each, and what happens to all
 * that in a fork.
 *
 * A name is entered on first use in hashed lists that flk_held() reads without any lock (liburcu). One mutex guards all
 * changes, the references of rows and their lent latches; no system call that may sleep is made under it.
 *
 * A row is referenced by the requests and holds that use it and, while it is current (the row at that path as far as we know),
 * by its name. A current row that nobody else references is idle: the longest idle are closed when the idle ones keep more
 * than a quarter of the soft limit of open files.
 *
 * fork(): the handlers take the descriptors' gate and the mutex first, so that the child finds everything whole. The
 * child closes all descriptors, forgets the rows, and begins a new generation, by which its copies of holds and requests
 * know that they are copies. A raw clone runs no handlers: fk_registry_enter(), which every public call begins with, finds
 * it out by a page that the kernel wipes in a child (madvise(2), MADV_WIPEONFORK, Linux 4.14). */
#ifndef FK_REGISTRY_H
#define FK_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cancel.h"

struct flk_hold;
struct fk_part;
struct fk_row;

/* Every public call that isn't a mere look into an object begins with this. */
#define FK_ENTER()   \
    FK_CANCEL_OFF(); \
    fk_registry_enter()
void fk_registry_enter(void);
uint64_t fk_registry_generation(void);

void fk_registry_lock(void);
void fk_registry_unlock(void);

/* The current row of that name with a reference more, or NULL. */
struct fk_row *fk_registry_get(const char *name);
/* Makes a row just opened (with one reference, the caller's) current; when another thread was quicker, that one's row instead.
 * NULL: out of memory. */
struct fk_row *fk_registry_put(struct fk_row *row);
void fk_registry_unref(struct fk_row *row);
/* The row was found not to be the one at its path any more. */
void fk_registry_retire(struct fk_row *row);

/* The calling thread has got the slots of part; they are given back. */
void fk_registry_begin(struct fk_part *part);
void fk_registry_end(struct fk_part *part);
/* How many slots of the row are held that this thread has got. Handing a hold to another thread doesn't change whose it is. */
unsigned fk_registry_own(const struct fk_row *row);
/* Calls each for every part that this process holds, under the mutex; own: the calling thread has got it. */
void fk_registry_foreach(void (*each)(const struct fk_part *part, bool own, void *data), void *data);
/* Requests and holds that exist (+1, -1): while there are any, the lock directory can't be changed. */
void fk_registry_users(int change);
/* The same for a hold, which is listed as well; and all that are, the oldest first, with a reference more each. *holds is the
 * caller's to free. -ENOMEM. */
void fk_registry_enlist(struct flk_hold *hold);
void fk_registry_unlist(struct flk_hold *hold);
int fk_registry_list_holds(struct flk_hold ***holds, size_t *count);
/* Forgets all idle rows, for another lock directory. -EBUSY. */
int fk_registry_forget(void);

#endif
