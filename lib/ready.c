/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ready.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <urcu/list.h>

#include "deadline.h"
#include "flockctl.h"
#include "index.h"
#include "registry.h"

#define RETIRED_MOST 64 /* a grace period for so many */

struct ready {
    struct fk_index_node node;
    struct cds_list_head entered; /* in entries or in retired */
    struct fk_identity identity;
    int64_t since; /* in ns of CLOCK_MONOTONIC_COARSE */
    _Atomic int64_t checked; /* the same */
    bool relative;
    const char *key; /* NULL: it is there, no more is known */
    char text[];
};

static struct fk_index outputs;
/* Under the registry's mutex. */
static CDS_LIST_HEAD(entries); /* the first entered first */
static CDS_LIST_HEAD(retired); /* readers may still look at them */
static unsigned n_entries, n_retired;

static int64_t coarse_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * FK_SECOND + now.tv_nsec;
}

/* In a section or under the mutex. */
static struct ready *find(const char *output)
{
    struct fk_index_node *node = fk_index_find(&outputs, output);
    return node ? caa_container_of(node, struct ready, node) : NULL;
}

/* ---- hits ---- */

enum hit { MISS, HIT, DUE };

/* In a section. DUE: *identity is what the file must still have. */
static enum hit look(const char *output, const char *key, int64_t recheck_ms, struct fk_identity *identity)
{
    struct ready *ready = find(output);
    if (!ready || !key != !ready->key || (key && strcmp(ready->key, key) != 0))
        return MISS;
    if (recheck_ms < 0 && !ready->relative)
        return HIT;
    int64_t limit, now = coarse_now(), age = now - atomic_load_explicit(&ready->checked, memory_order_relaxed);
    if (!ready->relative && (__builtin_mul_overflow(recheck_ms, FK_MS, &limit) || age < limit))
        return HIT;
    *identity = ready->identity;
    return now - ready->since < FK_STAMP_USED_EVERY ? DUE : MISS;
}

/* The entry may have been replaced meanwhile by one of the same output, whose time may not be another file's. */
static void note_check(const char *output, const struct fk_identity *identity)
{
    fk_index_enter();
    struct ready *ready = find(output);
    if (ready && fk_identity_is(&ready->identity, identity))
        atomic_store_explicit(&ready->checked, coarse_now(), memory_order_relaxed);
    fk_index_leave();
}

static bool is_still_there(const char *output, bool follow, const struct fk_identity *identity)
{
    struct stat status;
    struct fk_identity found;
    if (fstatat(AT_FDCWD, output, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    fk_identity_take(&status, &found);
    if (!fk_identity_is(&found, identity))
        return false;
    note_check(output, identity);
    return true;
}

bool fk_ready_get(const char *output, const char *key, int64_t recheck_ms)
{
    struct fk_identity identity = {0};
    fk_index_enter();
    enum hit hit = look(output, key, recheck_ms, &identity);
    fk_index_leave();
    return hit == HIT || (hit == DUE && is_still_there(output, !key, &identity));
}

static int look_at_stamp(const char *output, const char *key)
{
    struct fk_identity identity;
    FK_CANCEL_OFF();
    if (fk_stamp_look(AT_FDCWD, output, &(struct fk_wanted){.key = key}, &identity) != 1)
        return 0;
    fk_ready_put(output, key, &identity);
    return 1;
}

int flk_once_get(const char *output, const char *key, int64_t recheck_ms)
{
    fk_registry_enter();
    return fk_ready_get(output, key, recheck_ms) ? 1 : look_at_stamp(output, key);
}

/* ---- changes ---- */

static struct ready *make(const char *output, const char *key, const struct fk_identity *identity)
{
    size_t length = strlen(output) + 1, key_length = key ? strlen(key) + 1 : 0;
    struct ready *ready = malloc(sizeof *ready + length + key_length);
    if (!ready)
        return NULL;
    *ready = (struct ready){
        .identity = *identity,
        .since = coarse_now(),
        .relative = *output != '/',
        .key = key ? ready->text + length : NULL,
    };
    atomic_init(&ready->checked, ready->since);
    memcpy(ready->text, output, length);
    if (key)
        memcpy(ready->text + length, key, key_length);
    return ready;
}

/* Under the mutex; it is in the index no more. */
static void retire(struct ready *ready)
{
    cds_list_move(&ready->entered, &retired);
    n_entries--;
    n_retired++;
}

static void take_out(struct ready *ready)
{
    fk_index_remove(&outputs, &ready->node);
    retire(ready);
}

static void enter(struct ready *ready, struct ready *old)
{
    if (old) {
        fk_index_replace(&outputs, &old->node, &ready->node, ready->text);
        retire(old);
    } else {
        fk_index_add(&outputs, &ready->node, ready->text);
    }
    cds_list_add_tail(&ready->entered, &entries);
    if (++n_entries > FK_READY_MOST)
        take_out(cds_list_first_entry(&entries, struct ready, entered));
}

/* Takes those out that are to be freed now, if there are enough. */
static void take_retired(struct cds_list_head *garbage)
{
    CDS_INIT_LIST_HEAD(garbage);
    if (n_retired < RETIRED_MOST)
        return;
    cds_list_splice(&retired, garbage);
    CDS_INIT_LIST_HEAD(&retired);
    n_retired = 0;
}

static void empty(struct cds_list_head *garbage)
{
    struct ready *ready, *next;
    if (cds_list_empty(garbage))
        return;
    fk_index_wait();
    cds_list_for_each_entry_safe (ready, next, garbage, entered)
        free(ready);
}

void fk_ready_put(const char *output, const char *key, const struct fk_identity *identity)
{
    struct cds_list_head garbage;
    struct ready *ready = make(output, key, identity);
    fk_registry_lock();
    struct ready *old = find(output);
    if (ready)
        enter(ready, old);
    else if (old)
        take_out(old);
    take_retired(&garbage);
    fk_registry_unlock();
    empty(&garbage);
}

void fk_ready_after_raw_clone(void)
{
    memset(&outputs, 0, sizeof outputs);
    CDS_INIT_LIST_HEAD(&entries);
    CDS_INIT_LIST_HEAD(&retired);
    n_entries = n_retired = 0;
}
