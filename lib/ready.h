/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What this process has found ready: outputs of build-once that were current when it looked, each with the key that it was
 * current for and what the file was recognised by (stamp.h).
 *
 * A hit is wait-free and shares nothing that is written: the index (index.h) is read, and the entry's time of its last check, which
 * is compared with CLOCK_MONOTONIC_COARSE, a clock that costs no system call. Once an interval a hit does more: it looks at
 * the file, and when that is another one the entry is none any more. Nor is it when it is FK_STAMP_USED_EVERY old: the next look at the
 * stamp marks the output as used.
 *
 * An entry is in the index, whole; or out of it, until a grace period is over. It is never changed but for its time. There are at
 * most FK_READY_MOST of them; the one that was entered first makes room. Those that are out are freed many at a time, by the
 * thread that takes out another one, so no thread of ours is needed for it.
 *
 * A relative path means what it means in the working directory of the moment, which only the kernel knows: its file is looked at
 * each time, and another directory's is another file.
 *
 * A forked child keeps the entries: they are facts about files. One made by a raw clone begins with none. */
#ifndef FK_READY_H
#define FK_READY_H

#include <stdbool.h>
#include <stdint.h>

#include "stamp.h"

#define FK_READY_MOST 1024

/* Was output found ready for key (NULL: that it is there), and unless that was looked at less than recheck_ms ago (negative:
 * whenever), is it the same file still? */
bool fk_ready_get(const char *output, const char *key, int64_t recheck_ms);
/* It is ready for key, as the file that has this identity. Best effort: no memory, no entry. */
void fk_ready_put(const char *output, const char *key, const struct fk_identity *identity);
void fk_ready_after_raw_clone(void);

#endif
