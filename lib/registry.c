/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <urcu/list.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "hold.h"
#include "id.h"
#include "index.h"
#include "log.h"
#include "owner.h"
#include "ready.h"
#include "root.h"
#include "row.h"
#include "state.h"

struct fk_name {
    struct fk_index_node node;
    struct cds_list_head idle; /* in idle_names when its row is */
    struct fk_row *row; /* the current one, or NULL */
    unsigned rows; /* how many have it as their name: the current one and retired ones in use */
    _Atomic unsigned exclusive, shared;
    char name[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fk_index names;
static CDS_LIST_HEAD(idle_names); /* the longest idle first */
static unsigned idle_descriptors;
static CDS_LIST_HEAD(held_parts); /* that this process holds */
static CDS_LIST_HEAD(holds);
static size_t n_holds;
/* A thread's address may be another one's later; its number isn't. 0: it has got nothing yet. */
static _Atomic uint64_t threads;
static _Thread_local uint64_t this_thread;
static _Atomic int users;
static _Atomic uint64_t generation;
/* A page: the generation, or 0 in a child that no handler has seen. Before it is set up, and where there can't be one, NULL. */
static _Atomic uint64_t *_Atomic wiped_in_child;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Under the mutex or inside a read-side section. */
static struct fk_name *find(const char *text)
{
    struct fk_index_node *node = fk_index_find(&names, text);
    return node ? caa_container_of(node, struct fk_name, node) : NULL;
}

/* ---- fork ---- */

/* The child's share: its descriptors are closed, so rows of the parent are memory only. Those that a copy of a hold or a request
 * references are freed with that one. */
static void forget_row(struct fk_index_node *node)
{
    struct fk_name *name = caa_container_of(node, struct fk_name, node);
    struct fk_row *row = name->row;
    name->row = NULL;
    name->rows = 0;
    CDS_INIT_LIST_HEAD(&name->idle);
    atomic_store(&name->exclusive, 0);
    atomic_store(&name->shared, 0);
    if (row)
        fk_row_unref_copy(row);
}

static void forget_parent(void)
{
    fk_id_after_fork_child();
    fk_log_after_fork_child();
    fk_owner_after_fork_child();
    fk_root_after_fork_child();
    fk_state_after_fork_child();
    CDS_INIT_LIST_HEAD(&idle_names);
    CDS_INIT_LIST_HEAD(&held_parts);
    CDS_INIT_LIST_HEAD(&holds);
    n_holds = 0;
    idle_descriptors = 0;
    atomic_store(&users, 0);
    uint64_t fresh = atomic_fetch_add(&generation, 1) + 1;
    _Atomic uint64_t *page = atomic_load(&wiped_in_child);
    if (page)
        atomic_store(page, fresh);
    fk_index_foreach(&names, forget_row);
}

static void forget_original(void);

/* More than one: the handlers are there twice. A fork amid their registration gave the child them and a set_up() to do again. */
static _Thread_local unsigned handlers;

static void before_fork(void)
{
    if (handlers++ > 0)
        return;
    _Atomic uint64_t *page = atomic_load(&wiped_in_child);
    if (page && !atomic_load(page)) /* whoever was in here then isn't in this process, and would be waited for in vain */
        forget_original();
    fk_fd_before_fork(); /* first: who opens something at this moment is waited for, and nobody has to wait with us */
    pthread_mutex_lock(&lock);
    urcu_bp_before_fork();
}

static void after_fork_parent(void)
{
    if (--handlers > 0)
        return;
    urcu_bp_after_fork_parent();
    pthread_mutex_unlock(&lock);
    fk_fd_after_fork_parent();
}

static void after_fork_child(void)
{
    if (--handlers > 0)
        return;
    urcu_bp_after_fork_child();
    pthread_mutex_unlock(&lock);
    fk_fd_after_fork_child();
    forget_parent();
}

static bool close_idle(void);

static void set_up(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    atomic_store(&generation, 1);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool wiped = page != MAP_FAILED && madvise(page, size, MADV_WIPEONFORK) == 0;
    if (wiped)
        *(uint64_t *)page = 1;
    fk_fd_relief = close_idle;
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    if (wiped)
        atomic_store(&wiped_in_child, page);
}

/* A raw clone: another thread may have been anywhere. What is indexed may be half-changed, so it is left behind. */
static void forget_original(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    fk_fd_after_raw_clone();
    memset(&names, 0, sizeof names);
    fk_ready_after_raw_clone();
    forget_parent();
}

void fk_registry_enter(void)
{
    _Atomic uint64_t *page = atomic_load_explicit(&wiped_in_child, memory_order_acquire);
    if (!page)
        pthread_once(&once, set_up);
    else if (!atomic_load_explicit(page, memory_order_relaxed))
        forget_original();
}

uint64_t fk_registry_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

void fk_registry_lock(void)
{
    pthread_mutex_lock(&lock);
}

void fk_registry_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

/* ---- names and rows; everything below is called with or takes the mutex ---- */

static void leave_idle(struct fk_name *name)
{
    if (cds_list_empty(&name->idle))
        return;
    cds_list_del_init(&name->idle);
    idle_descriptors -= fk_row_descriptors(name->row);
}

static struct fk_name *add_name(const char *text)
{
    struct fk_name *name = calloc(1, sizeof *name + strlen(text) + 1);
    if (!name)
        return NULL;
    strcpy(name->name, text);
    CDS_INIT_LIST_HEAD(&name->idle);
    fk_index_add(&names, &name->node, name->name);
    return name;
}

struct fk_row *fk_registry_get(const char *text)
{
    pthread_mutex_lock(&lock);
    struct fk_name *name = find(text);
    struct fk_row *row = name ? name->row : NULL;
    if (row) {
        leave_idle(name);
        row->references++;
    }
    pthread_mutex_unlock(&lock);
    return row;
}

struct fk_row *fk_registry_put(struct fk_row *row)
{
    struct fk_row *surplus = NULL;
    pthread_mutex_lock(&lock);
    struct fk_name *name = find(row->text);
    if (!name)
        name = add_name(row->text);
    if (!name || name->row) {
        surplus = row;
        row = name ? name->row : NULL;
    } else {
        name->row = row;
        name->rows++;
        row->name = name;
        row->references++;
    }
    if (surplus && row) {
        leave_idle(name);
        row->references++;
    }
    pthread_mutex_unlock(&lock);
    if (surplus)
        fk_registry_unref(surplus);
    return row;
}

static unsigned idle_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > UINT32_MAX ? UINT32_MAX / 4
                                                                               : (unsigned)(limit.rlim_cur / 4);
}

/* What was taken out under the mutex, to be freed without it. */
struct garbage {
    struct fk_row *rows; /* by next_garbage */
    struct cds_list_head names; /* by idle */
};
#define GARBAGE(garbage)                             \
    {                                                \
        .names = CDS_LIST_HEAD_INIT((garbage).names) \
    }

/* The row's last reference is gone. A name goes with its last row. */
static void discard(struct fk_row *row, struct garbage *garbage)
{
    struct fk_name *name = row->name;
    row->next_garbage = garbage->rows;
    garbage->rows = row;
    if (!name || --name->rows > 0)
        return;
    fk_index_remove(&names, &name->node);
    cds_list_add(&name->idle, &garbage->names);
}

static void empty(struct garbage *garbage)
{
    struct fk_name *name, *next;
    while (garbage->rows) {
        struct fk_row *row = garbage->rows;
        garbage->rows = row->next_garbage;
        fk_row_free(row);
    }
    if (cds_list_empty(&garbage->names))
        return;
    fk_index_wait(); /* a reader may still look at the names */
    cds_list_for_each_entry_safe (name, next, &garbage->names, idle)
        free(name);
}

/* Discards the longest idle rows until at most `descriptors` are kept. */
static void evict(unsigned descriptors, struct garbage *garbage)
{
    while (idle_descriptors > descriptors && !cds_list_empty(&idle_names)) {
        struct fk_name *name = cds_list_first_entry(&idle_names, struct fk_name, idle);
        struct fk_row *row = name->row;
        leave_idle(name);
        name->row = NULL;
        row->references = 0;
        discard(row, garbage);
    }
}

static bool close_idle(void)
{
    struct garbage garbage = GARBAGE(garbage);
    pthread_mutex_lock(&lock);
    evict(0, &garbage);
    pthread_mutex_unlock(&lock);
    bool any = garbage.rows != NULL;
    empty(&garbage);
    return any;
}

static void drop(struct fk_row *row, struct garbage *garbage)
{
    struct fk_name *name = row->name;
    if (--row->references == 0) {
        discard(row, garbage);
    } else if (row->references == 1 && name && name->row == row) {
        cds_list_add_tail(&name->idle, &idle_names);
        idle_descriptors += fk_row_descriptors(row);
    }
}

void fk_registry_unref(struct fk_row *row)
{
    static unsigned limit;
    struct garbage garbage = GARBAGE(garbage);
    pthread_mutex_lock(&lock);
    drop(row, &garbage);
    /* The limit is asked for when the idle ones have grown past what it was, not each time. */
    if (idle_descriptors > limit) {
        limit = idle_limit();
        if (idle_descriptors > limit)
            evict(limit / 2, &garbage);
    }
    pthread_mutex_unlock(&lock);
    empty(&garbage);
}

void fk_registry_retire(struct fk_row *row)
{
    struct garbage garbage = GARBAGE(garbage);
    pthread_mutex_lock(&lock);
    struct fk_name *name = row->name;
    if (name && name->row == row) {
        leave_idle(name);
        name->row = NULL;
        if (--row->references == 0)
            discard(row, &garbage);
    }
    pthread_mutex_unlock(&lock);
    empty(&garbage);
}

static void count(const struct fk_part *part, int change)
{
    const struct fk_row *row = part->outer ? part->outer : part->row;
    atomic_fetch_add(part->shared ? &row->name->shared : &row->name->exclusive, (unsigned)change);
}

void fk_registry_begin(struct fk_part *part)
{
    if (this_thread == 0)
        this_thread = atomic_fetch_add(&threads, 1) + 1;
    part->thread = this_thread;
    pthread_mutex_lock(&lock);
    cds_list_add(&part->held, &held_parts);
    pthread_mutex_unlock(&lock);
    count(part, 1);
}

void fk_registry_end(struct fk_part *part)
{
    count(part, -1);
    pthread_mutex_lock(&lock);
    cds_list_del(&part->held);
    pthread_mutex_unlock(&lock);
}

void fk_registry_foreach(void (*each)(const struct fk_part *part, bool own, void *data), void *data)
{
    struct fk_part *part;
    pthread_mutex_lock(&lock);
    cds_list_for_each_entry (part, &held_parts, held)
        each(part, part->thread == this_thread, data);
    pthread_mutex_unlock(&lock);
}

unsigned fk_registry_own(const struct fk_row *row)
{
    struct fk_part *part;
    unsigned own = 0;
    pthread_mutex_lock(&lock);
    cds_list_for_each_entry (part, &held_parts, held)
        own += part->row == row && part->thread == this_thread ? part->count : 0;
    pthread_mutex_unlock(&lock);
    return own;
}

void fk_registry_users(int change)
{
    atomic_fetch_add(&users, change);
}

void fk_registry_enlist(struct flk_hold *hold)
{
    fk_registry_users(1);
    pthread_mutex_lock(&lock);
    cds_list_add_tail(&hold->listed, &holds);
    n_holds++;
    pthread_mutex_unlock(&lock);
}

void fk_registry_unlist(struct flk_hold *hold)
{
    pthread_mutex_lock(&lock);
    cds_list_del(&hold->listed);
    n_holds--;
    pthread_mutex_unlock(&lock);
    fk_registry_users(-1);
}

int fk_registry_list_holds(struct flk_hold ***out, size_t *count)
{
    struct flk_hold *hold, **list;
    size_t n = 0;
    pthread_mutex_lock(&lock);
    list = malloc((n_holds + 1) * sizeof *list);
    cds_list_for_each_entry (hold, &holds, listed) {
        if (!list)
            break;
        atomic_fetch_add(&hold->references, 1);
        list[n++] = hold;
    }
    pthread_mutex_unlock(&lock);
    if (!list)
        return fk_fail(-ENOMEM, "out of memory");
    *out = list;
    *count = n;
    return 0;
}

int fk_registry_forget(void)
{
    struct garbage garbage = GARBAGE(garbage);
    pthread_mutex_lock(&lock);
    bool busy = atomic_load(&users) > 0;
    if (!busy)
        evict(0, &garbage);
    pthread_mutex_unlock(&lock);
    empty(&garbage);
    return busy
               ? fk_fail(-EBUSY, "the lock directory can't be changed while this process holds or waits; release first")
               : 0;
}

int flk_held(const char *text)
{
    int held = 0;
    fk_registry_enter();
    fk_index_enter();
    struct fk_name *name = find(text);
    if (name)
        held = atomic_load(&name->exclusive) ? 2 : atomic_load(&name->shared) ? 1 : 0;
    fk_index_leave();
    return held;
}
