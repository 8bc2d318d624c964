/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The outputs of build-once in a directory and below it, found by their stamps (lib/stamp.h); and how one of them goes.
 *
 * What is in an output that is a directory isn't looked through: stamps there are its own. Neither are the private directories of
 * builders, what is mounted, and what symbolic links lead to.
 *
 * An output goes in two steps, by who has its lock for itself: it is renamed into a private directory as builders make one
 * (lib/publish.h), then its stamp is unlinked. So nobody ever sees a part of it, and a crash in between leaves a stamp without
 * an output, that is, something to be built; the private directory is removed by the next builder there. */
#ifndef OUTPUTS_H
#define OUTPUTS_H

#include <flockctl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* READY: what is there is what its stamp describes. STALE: it is something else, made by others or by a build that was cut off.
 * MISSING: nothing is there. */
enum output_state { OUTPUT_READY, OUTPUT_STALE, OUTPUT_MISSING };

struct found_output {
    char *path; /* the directory as given, and what is below */
    char *key;  /* as it stands in the stamp: without control characters; "": it was built without */
    enum output_state state;
    int64_t built_ms, used_ms; /* since 1970 */
    uint64_t size;             /* on disk, of all that is in it */
};

struct outputs {
    struct found_output *found; /* sorted by path */
    size_t count, room;
    bool failed; /* some part could not be read; it has complained of it */
};

/* False: it has complained. For outputs_free(). */
bool outputs_find(const char *directory, struct outputs *outputs);
void outputs_free(struct outputs *outputs);

/* The slot of an output's lock, among the rows of fk_inspect_outputs(); NULL: nobody has asked for it lately. */
const struct flk_slot *output_slot(struct flk_row **rows, const char *path);
bool slot_is_taken(const struct flk_slot *slot); /* NULL: not */

enum discarded {
    DISCARDED,
    DISCARDED_STAMP, /* only that: what is there is not what it describes */
    DISCARD_NOTHING, /* it has no stamp, or nothing is there */
    DISCARD_TOUCHED, /* it was used since then */
};
/* Takes the output away and deletes its lock. used_ms: when it was used last as far as the caller knows, 0: that doesn't matter.
 * Or a negative errno with a sentence: -EBUSY, -ETIMEDOUT, -EDEADLK, others have it. */
int output_discard(const char *path, int64_t used_ms, int64_t wait_ms, enum discarded *discarded);

#endif
