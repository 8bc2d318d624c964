/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What any thread finds by a text without a lock: hashed lists, read in liburcu's read-side sections. Two of them: the names
 * that this process uses (registry.h) and the outputs that it found ready (ready.h).
 *
 * A node is out; in, between fk_index_add() and fk_index_remove(); leaving, until fk_index_wait() has returned: a reader may look
 * at it still, so it isn't changed. Changes are made under the registry's mutex. There is a fixed number of lists: a cds_lfht
 * that grows by itself starts a thread, which no guest of another program should do, and even one that doesn't reads /sys
 * when it is made, a tenth of the time that the tool has.
 *
 * The links are C11 atomics and not liburcu's, which are the same instructions, so that ThreadSanitizer knows what they
 * order. What a grace period orders it is told. */
#ifndef FK_INDEX_H
#define FK_INDEX_H

/* The sections in line: half of the time. Not under a sanitizer, which minds that liburcu 0.13 keeps its readers at addresses that
 * their type doesn't allow. */
#ifndef FK_SANITIZED
#define _LGPL_SOURCE
#endif

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <urcu/urcu-bp.h>

#define FK_INDEX_LISTS 512

struct fk_index_node {
    struct fk_index_node *_Atomic next;
    uint64_t hash;
    size_t length;
    const char *text; /* fixed, and lives as long as the node */
};

struct fk_index {
    struct fk_index_node *_Atomic lists[FK_INDEX_LISTS];
};

#ifdef __SANITIZE_THREAD__
extern char fk_index_grace;
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define FK_INDEX_TELL(what_) __tsan_##what_(&fk_index_grace)
#else
#define FK_INDEX_TELL(what_) (void)0
#endif

/* What fk_index_find() gives stays there until fk_index_leave(). Wait-free after a thread's first. Nothing that may sleep is
 * done in between: whoever removes would wait for it. */
static inline void fk_index_enter(void)
{
    urcu_bp_read_lock();
}

static inline void fk_index_leave(void)
{
    FK_INDEX_TELL(release);
    urcu_bp_read_unlock();
}

uint64_t fk_index_hash(const char *text, size_t length);
/* In such a section or under the mutex. NULL: it isn't there. */
struct fk_index_node *fk_index_find(const struct fk_index *index, const char *text);

void fk_index_add(struct fk_index *index, struct fk_index_node *node, const char *text);
/* node takes the place of old, which has the same text: whoever looks finds one of them. */
void fk_index_replace(struct fk_index *index, struct fk_index_node *old, struct fk_index_node *node, const char *text);
void fk_index_remove(struct fk_index *index, struct fk_index_node *node);
/* Under the mutex. */
void fk_index_foreach(const struct fk_index *index, void (*each)(struct fk_index_node *node));
/* Until all sections that may have seen what was removed are over. Not under the mutex and not in a section. */
void fk_index_wait(void);

#endif
