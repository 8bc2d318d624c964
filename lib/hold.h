/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a request became: names, their slots and descriptors, an id.
 *
 * States of a part (one name): taken (descriptors of its slots, records written); ended. From taken to ended:
 *   released   the records are marked ended, then every slot is unlocked, told and closed. When the hold is inherited, or
 *              a run's tree has it still, only closed: the kernel keeps the slot for those who have it, and the records say
 *              when that was (`ended=`)
 *   declined   the same, but where the predecessor's record said that it died holding, that record is written back
 *   (died)     the kernel unlocks; the record stays live, which is how the next exclusive holder knows
 * Who queued and has all slots of a row for itself keeps its ticket all the while, and leaves the queue when it gives them
 * back: so the next one sleeps through the hold and is woken once.
 * Shared holders' records are shared.h's. The death of a shared holder is no abandonment: it changed nothing.
 *
 * In a forked child (another generation) a hold is memory only, except that an inherited one has the child's own copies of
 * the descriptors, which are closed. */
#ifndef FK_HOLD_H
#define FK_HOLD_H

#include <stdatomic.h>
#include <urcu/list.h>

#include "flockctl.h"
#include "nest.h"
#include "queue.h"
#include "row.h"

/* Scripts use `exec 3>` to `exec 9>` and more; nobody uses numbers like these by hand. */
#define FK_LOWEST_INHERITED 200

struct fk_part {
    const char *name; /* as sentences have it */
    const char *text; /* of the row asked for: name, but for the lock of an output */
    const struct fk_output *output; /* whose lock it is, as long as the request lasts; NULL */
    char *path;                     /* of that output, and behind it the text; else NULL */
    unsigned wanted, slots_wanted; /* as in struct flk_want */
    struct fk_values *values_wanted; /* NULL: whatever it has */
    bool shared;
    int place; /* of a shared holder's record */
    struct fk_row *row;   /* NULL: not yet open */
    struct fk_row *outer; /* the row asked for, where row is one below a hold of ours; else NULL */
    struct fk_nest *nest; /* that hold */
    unsigned *shown;      /* the slots' numbers in the outer row, else NULL */
    unsigned count;     /* slots taken; 0: none */
    unsigned *slots;
    int *fds;           /* both point to the next two where one slot is wanted */
    unsigned only_slot;
    int only_fd;
    struct fk_ticket ticket; /* kept during the hold; fd -1: none */
    uint64_t number;         /* of its ticket; 0: it didn't queue */
    bool followed;           /* with others behind it */
    int64_t asked;           /* when: no slot of it has been ours for longer */
    bool left_over;          /* there may be dead tickets that nobody else looks for */
    bool state;              /* the row may have something to clean up */
    char *predecessor;  /* FK_RECORD_SIZE bytes of the record of one that died holding, or NULL */
    unsigned predecessor_slot;
    char before[FLK_ID_SIZE];   /* id of one whose slot we got and who has not cleared up below it; "": none */
    int64_t since;              /* when that was, in ns; 0: there was no history to note it in */
    char *label, *command;      /* for that; NULL: none, this process's */
    struct cds_list_head held;  /* in the registry */
    uint64_t thread;            /* that got it */
};

/* What runs (run.c) still have of a hold that may be released before they end. */
struct fk_handed {
    _Atomic unsigned references; /* the hold's and one of each run that isn't freed */
    _Atomic unsigned live;       /* runs whose tree may still have the slots */
};

struct flk_hold {
    uint64_t generation;
    struct cds_list_head listed; /* in the registry, until it is released */
    _Atomic unsigned references; /* its owner's, and of those that walk over all holds: these are of memory, and keep no slot */
    bool inherited;
    bool lent; /* it was, and those who inherited it may have it still */
    struct fk_handed *handed; /* NULL: never handed to a run */
    char id[FLK_ID_SIZE];
    int64_t waited_ms;
    struct fk_record *predecessor;
    struct flk_holder predecessor_shown;
    size_t n_parts;
    struct fk_part *parts; /* in the order asked for; one block with their names */
};

/* After the slots of part were taken, in the same section: reads what the predecessors left and writes the record text. */
int fk_part_begin(struct fk_section *section, struct fk_part *part, const char *id, const char *text, size_t length);
/* Ends what was begun. inherited: others have the slots too, so they are closed, not unlocked. keep: write the predecessor's
 * record back. In a copy it only closes what was inherited. The part's memory and its rows stay, for those who look at it still. */
void fk_part_end(struct fk_part *part, const char *id, bool inherited, bool keep, bool copy);
void fk_part_free(struct fk_part *part, bool copy); /* those */

/* Nobody who has inherited it needs it any more: its release unlocks for them, too. */
void fk_hold_take_back(struct flk_hold *hold);

/* For a run that gets the slots: a reference that counts as live. -ENOMEM. */
int fk_hold_hand(struct flk_hold *hold, struct fk_handed **handed);
/* Its tree is gone, and nobody who got them from it has the slots. */
void fk_handed_end(struct fk_handed *handed);
void fk_handed_unref(struct fk_handed *handed); /* NULL is fine */

/* Was this process forked by one that had a hold to be inherited? */
bool fk_hold_came_by_fork(void);

/* base with FLOCKCTL_*, as flk_hold_environ(). fds: the numbers that the slots have there, in the order of fk_hold_list_slots();
 * NULL: they aren't handed on. */
int fk_hold_environ(const struct flk_hold *hold, char *const *base, const int *fds, char ***envp);
/* Only FLOCKCTL_HELD, beside what is in base. */
int fk_hold_environ_held(const struct flk_hold *hold, char *const *base, const int *fds, char ***envp);
/* The slots' descriptors, and behind them those fetched from a hold above, which are handed on with them. */
size_t fk_hold_count_slots(const struct flk_hold *hold);
void fk_hold_list_slots(const struct flk_hold *hold, int *fds);

#endif
