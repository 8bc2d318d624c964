/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What has gathered in the lock directory and nobody will use again. Nothing of it does harm; it takes room, and time to walk over.
 *
 *   rows      of one slot that nobody has used for some time (by the time of the latch's last change), and that nobody holds or queues
 *             for, with nothing to clean up, and whose last holder didn't die holding, which is still to be told. Such a row makes itself
 *             again; one that has several slots or values was defined so, and is kept until somebody removes it
 *   outputs   locks of build-once outputs that aren't there any more, or that are as old, whoever built last
 *   under     rows below a hold that nobody has used for that time
 *   tickets   of waiters that were killed, and publications of such in the file `waiting`
 *   .tmp.*    rows on their way to or from their names, and items of state, whose makers were killed
 * Each is taken as its users take it: a row under its latch, with all its slots, when it still is the one at its path; a ticket that is
 * proven dead, under the latch; a .tmp.* by its flock. A crash leaves a .tmp.* at most. */
#ifndef FK_GC_H
#define FK_GC_H

#include <stdbool.h>
#include <stdint.h>

enum fk_gc_what {
    FK_GC_ROW,
    FK_GC_OUTPUT,
    FK_GC_OUTPUT_GONE,
    FK_GC_UNDER,
    FK_GC_TICKETS,
    FK_GC_WAITERS,
    FK_GC_TEMPORARY,
    FK_GC_PROBLEM
};

struct fk_gc_found {
    enum fk_gc_what what;
    const char *name; /* as people call it; PROBLEM: a sentence */
    int64_t used_ms; /* of rows: since the epoch, when it was used last */
    unsigned count; /* of tickets and publications */
};

struct fk_gc_spec {
    int64_t max_age_ms; /* negative: rows are never too old */
    bool dry_run;
    void (*tell)(const struct fk_gc_found *found, void *data);
    void *data;
};

/* What can't be looked at is told and passed over: then the result is the last such failure. */
int fk_gc(const struct fk_gc_spec *spec);

#endif
