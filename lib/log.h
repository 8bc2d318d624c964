/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* History: one line of JSON for each thing that happened to a name, appended to $FLOCKCTL_LOG or, where `flockctl log --on` has put its
 * marker into $ROOT/version, to $ROOT/log. Whether there is one is known from when the root was chosen, so that it costs nothing when
 * there is none. What can't be written is lost: history never keeps anybody from a lock.
 *
 *   time       ns since 1970
 *   event      wait, acquire, release, abandonment, timeout, deadlock, eviction
 *   name       of an output's lock its path; and, where it draws from a hold, `under`: the id of that
 *   slots      array of numbers: acquire, release
 *   wants      how many: wait, timeout, deadlock
 *   shared     true for shared ones; left out for others
 *   pid, id, label, command    who; label only where there is one
 *   waited     ns: acquire, timeout, deadlock
 *   held       ns: release
 *   other      object with pid, id, command: of the dead holder (abandonment), of who is ended (eviction)
 *   signal     number: eviction
 *   detail     the sentence: deadlock
 * Fields are only ever added. The release of a slot stands before the next acquisition of it.
 *
 * The file: appended to under its flock (LOCK_SH), while it is the one at its path, in one write(2). Who finds it of
 * FK_LOG_LIMIT before that renames it to FILE.1, under LOCK_EX, and writes into a new one; so nobody writes into a file that has gone. A crash leaves nothing but the
 * lines. */
#ifndef FK_LOG_H
#define FK_LOG_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FK_LOG_LIMIT (8 * 1024 * 1024)

struct flk_holder;

struct fk_log_entry {
    const char *event;
    const char *row; /* its text (row.h) */
    const unsigned *slots;
    unsigned n_slots, wants; /* 0: left out */
    bool shared;
    const char *id, *label, *command; /* NULL: none; none; this process's */
    int64_t waited_ns, held_ns;       /* negative: left out */
    const struct flk_holder *other;
    int signal;
    const char *detail;
};

extern _Atomic bool fk_log_on;
static inline bool fk_log_is_on(void)
{
    return atomic_load_explicit(&fk_log_on, memory_order_relaxed);
}

void fk_log_write(const struct fk_log_entry *entry);
/* By root.c. path: absolute, stays valid for ever, and the same file has the same pointer; "": there is none. */
void fk_log_set(const char *path);
void fk_log_after_fork_child(void);

/* For those who end others: the holder `target` of name gets that signal. */
void fk_log_eviction(const char *name, const struct flk_holder *target, int signal);

#endif
