/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inspect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "error.h"
#include "fd.h"
#include "looker.h"
#include "owner.h"
#include "pool.h"
#include "proc.h"
#include "queue.h"
#include "registry.h"
#include "root.h"
#include "shared.h"
#include "tree.h"
#include "values.h"

#define LOOKS 4 /* at a slot that changes hands while we look */

/* ---- one look at a FIFO: has it a writer? ---- */

enum writer {
    NO_WRITER,
    WRITER,
    NOT_KNOWN, /* there are bytes in it, which hide it */
    NO_FIFO /* of ours */
};

static int open_scratch(struct scratch *scratch)
{
    fk_fd_enter();
    return fk_fd_keep_pair(pipe2(scratch->fds, O_CLOEXEC | O_NONBLOCK), scratch->fds);
}

static void close_scratch(struct scratch *scratch)
{
    fk_fd_close(&scratch->fds[0]);
    fk_fd_close(&scratch->fds[1]);
}

static enum writer look_for_writer(const struct scratch *scratch, int fd)
{
    char bytes[8];
    ssize_t got = tee(fd, scratch->fds[1], sizeof bytes, SPLICE_F_NONBLOCK);
    if (got < 0)
        return errno == EAGAIN ? WRITER : NO_FIFO;
    if (got > 0 && read(scratch->fds[0], bytes, sizeof bytes) < 0)
        return NO_FIFO;
    return got > 0 ? NOT_KNOWN : NO_WRITER;
}

/* ---- what is built ---- */

/* A slot that its record doesn't explain. */
struct question {
    struct question *next;
    const char *path; /* of the row */
    struct flk_slot *slot;
    dev_t device;
    ino_t inode;
    char mark, id[FLK_ID_SIZE]; /* of the record when it was asked */
    struct fk_proc_user *users;
    size_t n_users, room;
    bool unlocked_writer;
};

struct view {
    struct view *next;
    struct flk_row row;
};

/* What was found of an owner: one process may hold and wait for many names. */
struct known {
    bool used;
    enum fk_life life;
    struct fk_owner owner;
};
#define KNOWN 512

int fk_looker_open(struct looker *looker, struct fk_arena *arena)
{
    *looker = (struct looker){.known = calloc(KNOWN, sizeof(struct known)),
                              .arena = arena,
                              .scratch = {{-1, -1}},
                              .rows = -1,
                              .end = &looker->first};
    int code = open_scratch(&looker->scratch);
    return code < 0 ? fk_fail_errno(code, "can't make a pipe to look with") : 0;
}

void fk_looker_close(struct looker *looker)
{
    for (struct question *question = looker->questions; question; question = question->next)
        free(question->users);
    free(looker->known);
    close_scratch(&looker->scratch);
    fk_fd_close(&looker->rows);
}

static bool is_same_owner(const struct fk_owner *a, const struct fk_owner *b)
{
    return a->pid == b->pid && a->start_time == b->start_time && a->pid_ns == b->pid_ns && a->time_ns == b->time_ns &&
           a->pidfd_inode == b->pidfd_inode && strcmp(a->boot_id, b->boot_id) == 0;
}

static enum fk_life look_at_owner(const struct looker *looker, const struct fk_owner *owner)
{
    struct known *known = looker->known ? &looker->known[(unsigned)owner->pid % KNOWN] : NULL;
    if (!known)
        return fk_owner_look(owner);
    if (!known->used || !is_same_owner(&known->owner, owner))
        *known = (struct known){true, fk_owner_look(owner), *owner};
    return known->life;
}

/* What was found before is old. */
static void look_anew(struct looker *looker)
{
    if (looker->known)
        memset(looker->known, 0, KNOWN * sizeof *looker->known);
}

static void append(struct fk_arena *arena, struct list *list, void *item)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 4;
        void **items = fk_arena_get(arena, room * sizeof *items);
        if (!items)
            return;
        if (list->count > 0)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->room = room;
    }
    if (item)
        list->items[list->count++] = item;
}

struct flk_holder *fk_looker_show(struct fk_arena *arena, const struct fk_record *record)
{
    struct flk_holder *holder = fk_arena_get(arena, sizeof *holder);
    if (!holder)
        return NULL;
    fk_record_show(record, holder);
    holder->command = fk_arena_text(arena, record->command);
    holder->label = fk_arena_text(arena, record->label);
    holder->id = fk_arena_text(arena, record->id);
    return holder;
}

/* Start times of another time namespace are shown as we see them, if we do. */
static struct flk_holder *show_alive(struct fk_arena *arena, const struct fk_record *record, enum fk_life life)
{
    struct fk_proc_stat stat;
    struct flk_holder *holder = fk_looker_show(arena, record);
    if (!holder)
        return NULL;
    holder->stopped = life == FK_STOPPED;
    if (holder->foreign == FLK_FOREIGN_TIME && fk_proc_stat(holder->pid, &stat) == 0)
        holder->start_time = stat.start_time;
    return holder;
}

static struct flk_holder *show_nobody(struct fk_arena *arena)
{
    struct flk_holder *holder = fk_arena_get(arena, sizeof *holder);
    if (holder)
        *holder = (struct flk_holder){.command = "", .label = "", .id = ""};
    return holder;
}

/* ---- one look at a slot ---- */

struct look {
    enum writer writer;
    dev_t device;
    ino_t inode;
    char mark; /* of the record */
    bool known; /* the record can be read: */
    struct fk_record record;
    bool foreign; /* live, in another pid namespace */
    enum fk_life life; /* of its owner, if live */
};

static void read_record(const struct looker *looker, const struct fk_row *row, unsigned slot, struct look *look)
{
    char text[FK_RECORD_SIZE];
    const struct fk_owner *self;
    ssize_t length = pread(row->latch, text, sizeof text, fk_latch_record_at(slot));
    look->mark = length > 0 ? text[0] : FK_ENDED;
    look->known = length > 0 && fk_record_read(text, (size_t)length, &look->record) == 0;
    if (!look->known)
        memset(&look->record, 0, sizeof look->record);
    bool live = look->known && look->record.live;
    look->life = live ? look_at_owner(looker, &look->record.owner) : FK_DEAD;
    look->foreign = look->life != FK_DEAD && fk_owner_self(&self) == 0 && look->record.owner.pid_ns != self->pid_ns;
}

static int open_to_look(const struct fk_row *row, const char *directory, uint64_t number)
{
    char path[40];
    snprintf(path, sizeof path, "%s/%llu", directory, (unsigned long long)number);
    return fk_fd_open(row->directory, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0);
}

static int look_at_fifo(const struct looker *looker, const struct fk_row *row, unsigned slot, struct look *look)
{
    struct stat status;
    FK_CLOSE_FD int fd = open_to_look(row, "slots", slot);
    if (fd == -EMFILE || fd == -ENFILE)
        return fk_row_fail(fd, row->text, "open slot %u of", slot);
    bool fifo = fd >= 0 && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && status.st_uid == geteuid();
    look->writer = fifo ? look_for_writer(&looker->scratch, fd) : NO_FIFO;
    if (fifo) {
        look->device = status.st_dev;
        look->inode = status.st_ino;
    }
    return 0;
}

/* A record is live from after the slot is taken until before it is let go: so where the same one is live before and after the
 * FIFO was seen without a writer, its owner had died. */
static int look_at_slot(const struct looker *looker, const struct fk_row *row, unsigned slot, struct look *look)
{
    int code = 0;
    for (int i = 0; code == 0 && i < LOOKS; i++) {
        char id[FLK_ID_SIZE];
        read_record(looker, row, slot, look);
        code = look_at_fifo(looker, row, slot, look);
        if (look->mark != FK_LIVE || look->writer != NO_WRITER)
            return code;
        memcpy(id, look->record.id, sizeof id);
        read_record(looker, row, slot, look);
        if (look->mark == FK_LIVE && strcmp(id, look->record.id) == 0)
            return code;
    }
    return code;
}

/* ---- shared holders ---- */

struct shared_holders {
    const struct looker *looker;
    struct list alive; /* of our pid namespace */
    struct list foreign; /* not proven dead */
    const struct flk_holder *dead; /* one of them */
};

static void add_shared(const char *text, size_t length, void *data)
{
    struct shared_holders *holders = data;
    struct fk_record record;
    if (fk_record_read(text, length, &record) < 0 || !record.live)
        return;
    struct fk_arena *arena = holders->looker->arena;
    enum fk_life life = look_at_owner(holders->looker, &record.owner);
    if (life == FK_DEAD) {
        holders->dead = fk_looker_show(arena, &record);
        return;
    }
    struct flk_holder *holder = show_alive(arena, &record, life);
    if (holder)
        append(arena, holder->foreign & FLK_FOREIGN_PID ? &holders->foreign : &holders->alive, holder);
}

static void list_shared(const struct looker *looker, const struct fk_row *row, struct shared_holders *holders)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    *holders = (struct shared_holders){.looker = looker};
    if (row->slots == 1 && fk_latch_read(row->latch, &latch, record) == 0 && latch.shared)
        fk_shared_foreach(row, add_shared, holders);
}

/* ---- what a look says ---- */

static void set_holders(struct flk_slot *slot, enum flk_slot_state state, const struct list *holders)
{
    slot->state = state;
    slot->holders = (const struct flk_holder *const *)holders->items;
    slot->n_holders = holders->count;
}

static void set_one(struct fk_arena *arena, struct flk_slot *slot, enum flk_slot_state state, struct flk_holder *holder)
{
    struct list one = {0};
    append(arena, &one, holder);
    set_holders(slot, state, &one);
}

static void set_free(struct fk_arena *arena, struct flk_slot *slot, const struct look *look)
{
    slot->state = look->mark == FK_LIVE ? FLK_SLOT_ABANDONED : FLK_SLOT_FREE;
    if (look->mark == FK_LIVE && look->known)
        slot->last = fk_looker_show(arena, &look->record);
}

/* False: only the descriptors of all processes tell. */
static bool settle(struct fk_arena *arena, const struct look *look, const struct shared_holders *shared,
                   struct flk_slot *slot)
{
    if (look->writer == NO_FIFO) {
        slot->state = FLK_SLOT_BLOCKED;
    } else if (look->writer == NO_WRITER) {
        set_free(arena, slot, look);
    } else if (look->life != FK_DEAD && !look->foreign) {
        set_one(arena, slot, FLK_SLOT_HELD, show_alive(arena, &look->record, look->life));
    } else if (shared->alive.count > 0 && shared->foreign.count == 0 && !shared->dead) {
        set_holders(slot, FLK_SLOT_HELD, &shared->alive);
    } else {
        return false;
    }
    return true;
}

static bool ask(struct looker *looker, const char *path, const struct look *look, struct flk_slot *slot)
{
    struct question *question = fk_arena_get(looker->arena, sizeof *question);
    if (!question)
        return false;
    *question = (struct question){.next = looker->questions,
                                  .path = path,
                                  .slot = slot,
                                  .device = look->device,
                                  .inode = look->inode,
                                  .mark = look->mark};
    memcpy(question->id, look->record.id, sizeof question->id);
    looker->questions = question;
    looker->n_questions++;
    return true;
}

int fk_looker_slots(struct looker *looker, const struct fk_row *row, struct flk_row *shown)
{
    struct list slots = {0};
    struct flk_slot *all = fk_arena_get(looker->arena, row->slots * sizeof *all);
    int code = all ? 0 : -ENOMEM;
    const char *path = code == 0 ? fk_arena_text(looker->arena, row->text) : NULL;
    for (unsigned i = 0; code == 0 && i < row->slots; i++) {
        struct look look = {0};
        struct shared_holders shared;
        code = look_at_slot(looker, row, i, &look);
        if (code < 0)
            break;
        list_shared(looker, row, &shared);
        all[i].number = i;
        if (!settle(looker->arena, &look, &shared, &all[i]) && !ask(looker, path, &look, &all[i]))
            code = -ENOMEM;
        append(looker->arena, &slots, &all[i]);
    }
    shown->slots = (const struct flk_slot *const *)slots.items;
    shown->n_slots = slots.count;
    return code;
}

/* ---- the queue ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The record says who it is, the FIFO that it waits still: its writer may have been killed, or may have told that it left. */
bool fk_looker_waits(const struct looker *looker, const struct fk_row *row, uint64_t number, struct fk_record *record,
                     bool *known, enum fk_life *life)
{
    FK_CLOSE_FD int fd = open_to_look(row, "queue", number);
    if (fd < 0 || look_for_writer(&looker->scratch, fd) != WRITER)
        return false;
    *known = fk_queue_who(row, number, record) == 0;
    *life = *known ? look_at_owner(looker, &record->owner) : FK_ALIVE;
    return *life != FK_DEAD;
}

/* Numbers in the queue that weren't admitted, rising. Read before the header: who has been served since is told there. */
int fk_looker_tickets(const struct fk_row *row, uint64_t below, uint64_t **numbers)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    int count = fk_queue_list(row, below, numbers), kept = 0;
    if (fk_latch_read(row->latch, &latch, record) < 0)
        latch.admitted = 0;
    for (int i = 0; i < count; i++)
        if ((*numbers)[i] > latch.admitted)
            (*numbers)[kept++] = (*numbers)[i];
    return count < 0 ? count : kept;
}

static struct flk_waiter *show_waiter(struct fk_arena *arena, const struct fk_record *record, bool known,
                                      enum fk_life life, const char *name)
{
    struct flk_waiter *waiter = fk_arena_get(arena, sizeof *waiter);
    struct flk_want *want = fk_arena_get(arena, sizeof *want);
    struct flk_holder *who = known ? fk_looker_show(arena, record) : show_nobody(arena);
    if (!waiter || !want || !who)
        return NULL;
    who->stopped = life == FK_STOPPED;
    who->acquirer = 0;
    *want = (struct flk_want){.name = name};
    if (known) {
        want->count = record->wants;
        want->flags = record->shared ? FLK_SHARED : 0;
    }
    int64_t waited = who->since_ms ? now_ms() - who->since_ms : 0;
    *waiter = (struct flk_waiter){.who = who, .wants = want, .n_wants = 1, .waited_ms = waited > 0 ? waited : 0};
    return waiter;
}

static int list_waiters(struct looker *looker, const struct fk_row *row, struct flk_row *shown)
{
    uint64_t *numbers;
    struct list waiters = {0};
    int count = fk_looker_tickets(row, UINT64_MAX, &numbers);
    for (int i = 0; i < count; i++) {
        struct fk_record record;
        bool known;
        enum fk_life life;
        if (fk_looker_waits(looker, row, numbers[i], &record, &known, &life))
            append(looker->arena, &waiters, show_waiter(looker->arena, &record, known, life, shown->name));
    }
    free(numbers);
    shown->waiters = (const struct flk_waiter *const *)waiters.items;
    shown->n_waiters = waiters.count;
    return count < 0 ? count : 0;
}

/* ---- rows ---- */

static bool is_fatal(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOMEM;
}

static struct view *add_view(struct looker *looker, const char *name, const char *under)
{
    struct view *view = fk_arena_get(looker->arena, sizeof *view);
    if (!view)
        return NULL;
    view->row.name = fk_arena_text(looker->arena, name);
    view->row.under = under ? fk_arena_text(looker->arena, under) : NULL;
    *looker->end = view;
    looker->end = &view->next;
    looker->n_views++;
    return view;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The entries of a directory that don't begin with a dot, sorted. */
static int list_names(struct fk_arena *arena, int parent, const char *path, struct list *names)
{
    int fd = fk_fd_open(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd == -ENOENT)
        return 0;
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        fk_fd_close(&fd);
        return fk_fail_errno(fd < 0 ? fd : -ENOMEM, "can't read the directory %s", path);
    }
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            append(arena, names, (void *)fk_arena_text(arena, entry->d_name));
    fk_fd_close_directory(directory);
    if (names->count > 0)
        qsort(names->items, names->count, sizeof *names->items, compare_names);
    return 0;
}

static int look_at_row(struct looker *looker, const char *name, const char *under, const struct fk_row *outer);

static int look_under(struct looker *looker, const char *name, const struct fk_row *row)
{
    struct list ids = {0};
    int code = list_names(looker->arena, row->directory, "under", &ids);
    for (size_t i = 0; code == 0 && i < ids.count; i++)
        code = look_at_row(looker, name, ids.items[i], row);
    return code;
}

#define COMMAND_COUNTS_MS 10000 /* what a command has found, for so long */

/* What was found is looked at again, if that can be done without disturbing anybody. */
static bool is_blocked(const struct fk_row *row, unsigned slot, int64_t found_ms)
{
    const char *check = row->values->check;
    if (fk_check_is_command(check))
        return now_ms() - found_ms < COMMAND_COUNTS_MS;
    return fk_check_look(check, row->text, row->values->value[slot]) == 1;
}

/* Of all slots; those that nobody has are set to BLOCKED when all is known of them. */
static int find_blocked(const struct fk_row *row, struct flk_row *shown)
{
    int64_t *found = malloc(row->slots * sizeof *found);
    int code = found ? fk_pool_read_blocked(row, found) : -ENOMEM;
    for (unsigned slot = 0; code == 0 && slot < shown->n_slots; slot++) {
        int64_t found_ms = found[slot] / 1000000;
        if (found_ms && shown->slots[slot]->n_holders == 0 && is_blocked(row, slot, found_ms))
            ((struct flk_slot *)shown->slots[slot])->blocked_ms = found_ms;
    }
    free(found);
    return code;
}

static void set_blocked(const struct flk_row *row)
{
    for (size_t i = 0; i < row->n_slots; i++) {
        struct flk_slot *slot = (struct flk_slot *)row->slots[i];
        if (slot->blocked_ms && (slot->state == FLK_SLOT_FREE || slot->state == FLK_SLOT_ABANDONED))
            slot->state = FLK_SLOT_BLOCKED;
        else
            slot->blocked_ms = 0;
    }
}

/* Slots of a row below a hold have the values of that hold's slots. */
static int show_values(struct looker *looker, const struct fk_row *row, const struct fk_row *outer,
                       struct flk_row *shown)
{
    const struct fk_values *values = outer ? outer->values : row->values;
    unsigned *numbers = values && outer ? malloc(row->slots * sizeof *numbers) : NULL;
    int code = numbers ? fk_row_read_numbers(row, numbers) : values && outer ? -ENOMEM : 0;
    for (size_t i = 0; code == 0 && values && i < shown->n_slots; i++) {
        unsigned at = numbers ? numbers[i] : (unsigned)i;
        if (at < values->n)
            ((struct flk_slot *)shown->slots[i])->value = fk_arena_text(looker->arena, values->value[at]);
    }
    free(numbers);
    return code;
}

/* outer: the row of which it has slots, or NULL. */
static int look_at_open_row(struct looker *looker, struct view *view, const struct fk_row *row,
                            const struct fk_row *outer)
{
    int code = fk_looker_slots(looker, row, &view->row);
    if (code == 0)
        code = show_values(looker, row, outer, &view->row);
    if (code == 0 && !outer && fk_pool_checks(row))
        code = find_blocked(row, &view->row);
    if (code == 0)
        code = list_waiters(looker, row, &view->row);
    return code == 0 && !view->row.under ? look_under(looker, view->row.name, row) : code;
}

/* A damaged row doesn't keep the others from being shown. */
static int look_at_row(struct looker *looker, const char *name, const char *under, const struct fk_row *outer)
{
    struct fk_row *row;
    char path[2 * FLK_NAME_MAX + 16];
    snprintf(path, sizeof path, "%.*s%s%.*s", FLK_NAME_MAX, name, under ? "/under/" : "", FLK_NAME_MAX,
             under ? under : "");
    int code = looker->rows < 0 ? -ENOENT : fk_row_peek(looker->rows, path, &row);
    if (code == -ENOENT && under)
        return 0;
    struct view *view = add_view(looker, name, under);
    if (!view)
        return fk_fail(-ENOMEM, "out of memory");
    if (code == 0) {
        code = look_at_open_row(looker, view, row, outer);
        bool gone = code < 0 && !is_fatal(code) && !fk_row_is_current(row);
        fk_row_free(row);
        if (gone)
            return 0;
    }
    if (code == -ENOENT || code == 0)
        return 0;
    if (is_fatal(code))
        return code;
    view->row.problem = fk_arena_text(looker->arena, flk_error_detail());
    return 0;
}

/* ---- the descriptors of all processes ---- */

struct answers {
    struct question **questions;
};

static void note_user(const struct fk_proc_user *user, void *data)
{
    struct question *question = ((struct answers *)data)->questions[user->index];
    if (!user->locked) {
        question->unlocked_writer = true;
        return;
    }
    if (question->n_users == question->room) {
        size_t room = question->room ? 2 * question->room : 8;
        struct fk_proc_user *users = reallocarray(question->users, room, sizeof *users);
        if (!users)
            return;
        question->users = users;
        question->room = room;
    }
    question->users[question->n_users++] = *user;
}

static int find_users(struct looker *looker)
{
    struct fk_proc_file *files = calloc(looker->n_questions, sizeof *files);
    struct answers answers = {calloc(looker->n_questions, sizeof *answers.questions)};
    size_t n = 0;
    int code = files && answers.questions ? 0 : fk_fail(-ENOMEM, "out of memory");
    for (struct question *question = looker->questions; code == 0 && question; question = question->next) {
        question->n_users = 0;
        question->unlocked_writer = false;
        answers.questions[n] = question;
        files[n] = (struct fk_proc_file){question->device, question->inode, n};
        n++;
    }
    if (code == 0)
        code = fk_proc_find_users(files, n, note_user, &answers);
    free(files);
    free(answers.questions);
    if (code == -ENOSYS)
        return 0; /* nobody is seen, then */
    return code < 0 && code != -ENOMEM ? fk_fail_errno(code, "can't look through /proc") : code;
}

static bool is_listed(const struct list *holders, pid_t pid)
{
    for (size_t i = 0; i < holders->count; i++)
        if (((struct flk_holder *)holders->items[i])->pid == pid)
            return true;
    return false;
}

/* NULL: it has ended meanwhile. of: the hold that it has inherited, if that is known. */
static struct flk_holder *show_user(struct fk_arena *arena, const struct fk_proc_user *user, const struct look *of)
{
    struct fk_proc_stat stat;
    char command[512];
    pid_t inner = 0;
    if (fk_proc_stat(user->pid, &stat) < 0 || (stat.state == 'Z' && fk_proc_has_ended(user->pid)))
        return NULL;
    struct flk_holder *holder = show_nobody(arena);
    if (!holder)
        return NULL;
    holder->pid = user->pid;
    holder->shared = user->shared;
    holder->stopped = stat.state == 'T' || stat.state == 't';
    holder->start_time = stat.start_time;
    holder->pid_namespace = fk_proc_namespace(user->pid, &inner);
    if (of) {
        holder->since_ms = of->record.since_ns / 1000000;
        holder->label = fk_arena_text(arena, of->record.label);
        holder->id = fk_arena_text(arena, of->record.id);
        holder->acquirer =
            of->foreign && holder->pid_namespace == of->record.owner.pid_ns && inner == of->record.owner.pid;
    }
    fk_tree_command_of(user->pid, command, sizeof command);
    holder->command = fk_arena_text(arena, holder->acquirer ? of->record.command : command);
    return holder;
}

/* Of those that /proc shows the acquirer first. */
static bool add_users(struct fk_arena *arena, const struct question *question, const struct look *of,
                      struct list *holders)
{
    bool acquirer = false;
    for (size_t i = 0; i < question->n_users; i++) {
        struct flk_holder *holder =
            is_listed(holders, question->users[i].pid) ? NULL : show_user(arena, &question->users[i], of);
        append(arena, holders, holder);
        if (!holder || !holder->acquirer)
            continue;
        acquirer = true;
        holders->items[holders->count - 1] = holders->items[0];
        holders->items[0] = holder;
    }
    return acquirer;
}

/* Who looks whether values are in use has their slots meanwhile, without a record (trial.h). It is the first in the queue still, and
 * holds nothing: so it is none of the users. Was there one? */
static bool forget_trial(const struct looker *looker, const struct fk_row *row, struct question *question)
{
    uint64_t *numbers;
    struct fk_record record;
    bool known = false;
    enum fk_life life;
    size_t kept = 0, n = question->n_users;
    int count = n > 0 && fk_pool_checks(row) ? fk_looker_tickets(row, UINT64_MAX, &numbers) : -1;
    if (count < 0)
        return false;
    for (int i = 0; i < count; i++)
        if (fk_looker_waits(looker, row, numbers[i], &record, &known, &life))
            break;
    free(numbers);
    for (size_t i = 0; known && i < n; i++) {
        pid_t inner = 0;
        uint64_t namespace = fk_proc_namespace(question->users[i].pid, &inner);
        if (namespace != record.owner.pid_ns || inner != record.owner.pid)
            question->users[kept++] = question->users[i];
    }
    question->n_users = known ? kept : n;
    return question->n_users < n;
}

/* What is left once nobody is seen to have it. */
static void set_unseen(struct fk_arena *arena, const struct question *question, const struct look *look, bool inherited)
{
    struct flk_slot *slot = question->slot;
    if (look->foreign)
        set_one(arena, slot, FLK_SLOT_HELD, fk_looker_show(arena, &look->record));
    else if (look->writer == NOT_KNOWN || question->unlocked_writer)
        set_free(arena, slot, look);
    else
        set_one(arena, slot, inherited ? FLK_SLOT_INHERITED : FLK_SLOT_HELD, show_nobody(arena));
}

/* False: it has changed since it was asked. on_trial: who had it holds nothing. */
static bool answer(struct fk_arena *arena, struct question *question, const struct look *look,
                   const struct shared_holders *shared, bool on_trial)
{
    struct flk_slot *slot = question->slot;
    if (settle(arena, look, shared, slot))
        return true;
    if (look->mark != question->mark || strcmp(look->record.id, question->id) != 0)
        return false;
    bool ours = look->known && (look->record.live || look->record.ended_ns), by_acquirer = shared->alive.count > 0;
    bool inherited = ours && !look->foreign;
    struct list holders = shared->alive;
    by_acquirer |= add_users(arena, question, ours ? look : NULL, &holders);
    if (holders.count == 0 && question->n_users > 0)
        return false;
    for (size_t i = 0; holders.count == 0 && i < shared->foreign.count; i++) {
        append(arena, &holders, shared->foreign.items[i]);
        by_acquirer = true;
    }
    inherited |= shared->dead != NULL || look->foreign;
    if (holders.count > 0)
        set_holders(slot, inherited && !by_acquirer ? FLK_SLOT_INHERITED : FLK_SLOT_HELD, &holders);
    else if (on_trial)
        set_free(arena, slot, look);
    else
        set_unseen(arena, question, look, inherited);
    if (slot->state == FLK_SLOT_INHERITED)
        slot->last = ours ? fk_looker_show(arena, &look->record) : shared->dead;
    return true;
}

/* row: NULL, or the open one that all questions are about. 1: it changes too quickly. */
static int answer_one(struct looker *looker, const struct fk_row *open_row, struct question *question, bool last)
{
    struct look look = {0};
    struct shared_holders shared;
    struct fk_row *row = NULL;
    int code = open_row ? 0 : fk_row_peek(looker->rows, question->path, &row);
    if (!open_row)
        open_row = row;
    if (code == 0)
        code = look_at_slot(looker, open_row, question->slot->number, &look);
    if (code < 0)
        return is_fatal(code) ? code : 0;
    list_shared(looker, open_row, &shared);
    bool on_trial = forget_trial(looker, open_row, question);
    bool answered = answer(looker->arena, question, &look, &shared, on_trial);
    if (row)
        fk_row_free(row);
    if (answered)
        return 0;
    question->mark = look.mark;
    memcpy(question->id, look.record.id, sizeof question->id);
    if (last)
        question->slot->state = FLK_SLOT_HELD;
    return 1;
}

int fk_looker_answer(struct looker *looker, const struct fk_row *row)
{
    int code = 0;
    for (int i = 1; looker->n_questions > 0 && i <= LOOKS; i++) {
        code = find_users(looker);
        look_anew(looker);
        struct question **at = &looker->questions;
        while (*at && code >= 0) {
            code = answer_one(looker, row, *at, i == LOOKS);
            if (code == 1) {
                at = &(*at)->next;
                continue;
            }
            free((*at)->users);
            *at = (*at)->next;
            looker->n_questions--;
        }
        if (code < 0)
            return code;
    }
    return 0;
}

/* ---- the public calls ---- */

struct result {
    struct fk_arena arena;
    struct flk_row *rows[];
};

/* The text of the row of an output's lock, by the name of its directory. */
static char *mark(struct fk_arena *arena, const char *name)
{
    char text[NAME_MAX + 2] = {FK_OUTPUT_MARK};
    memccpy(text + 1, name, '\0', NAME_MAX);
    return (char *)fk_arena_text(arena, text);
}

int fk_looker_rows(struct looker *looker, const char *const *names, struct list *list)
{
    const char *root;
    char path[PATH_MAX];
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    snprintf(path, sizeof path, "%s/%s", root, looker->outputs ? "once" : "rows");
    looker->rows = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (looker->rows < 0 && looker->rows != -ENOENT)
        return fk_fail_errno(looker->rows, "can't open %s", path);
    if (!names) {
        code = looker->rows < 0 ? 0 : list_names(looker->arena, looker->rows, ".", list);
        for (size_t i = 0; looker->outputs && i < list->count; i++)
            list->items[i] = mark(looker->arena, list->items[i]);
        return code;
    }
    for (; code == 0 && *names; names++) {
        code = fk_row_check_name(*names);
        append(looker->arena, list, (void *)*names);
    }
    if (code == 0 && list->count > 0)
        qsort(list->items, list->count, sizeof *list->items, compare_names);
    return code;
}

static int look_at_all(struct looker *looker, const char *const *names)
{
    struct list list = {0};
    int code = fk_looker_rows(looker, names, &list);
    for (size_t i = 0; code == 0 && i < list.count; i++)
        if (i == 0 || strcmp(list.items[i - 1], list.items[i]) != 0)
            code = look_at_row(looker, list.items[i], NULL, NULL);
    if (code == 0)
        code = fk_looker_answer(looker, NULL);
    for (struct view *view = looker->first; code == 0 && view; view = view->next)
        set_blocked(&view->row);
    return code == 0 && looker->arena->failed ? fk_fail(-ENOMEM, "out of memory") : code;
}

/* What a nested row looks like when the hold that it is under was killed, until somebody deletes it. */
static bool is_unused(const struct flk_row *row)
{
    bool used = row->n_waiters > 0 || row->problem;
    for (size_t i = 0; i < row->n_slots; i++)
        used |= row->slots[i]->n_holders > 0;
    return !used;
}

static bool has_hold(const struct flk_row *row, const char *id)
{
    for (size_t i = 0; i < row->n_slots; i++)
        for (size_t j = 0; j < row->slots[i]->n_holders; j++)
            if (strcmp(row->slots[i]->holders[j]->id, id) == 0)
                return true;
    return false;
}

/* A row that vanished while all were looked at is none; one that was asked for by name has no slots. */
static int hand_out(struct looker *looker, bool named, struct result *result)
{
    int count = 0;
    const struct flk_row *outer = NULL;
    for (struct view *view = looker->first; view; view = view->next) {
        bool gone = view->row.under ? !outer || (is_unused(&view->row) && !has_hold(outer, view->row.under))
                                    : !named && view->row.n_slots == 0 && !view->row.problem;
        if (!view->row.under)
            outer = &view->row;
        if (!gone)
            result->rows[count++] = &view->row;
    }
    return count;
}

static int inspect(bool outputs, const char *const *names, struct flk_row ***rows)
{
    struct fk_arena arena = {0};
    struct looker looker;
    struct result *result = NULL;
    int code = fk_looker_open(&looker, &arena);
    looker.outputs = outputs;
    if (code == 0)
        code = look_at_all(&looker, names);
    if (code == 0)
        result = calloc(1, sizeof *result + (looker.n_views + 1) * sizeof(struct flk_row *));
    if (code == 0 && !result)
        code = fk_fail(-ENOMEM, "out of memory");
    if (code == 0)
        code = hand_out(&looker, names != NULL, result);
    fk_looker_close(&looker);
    if (code < 0) {
        fk_arena_free(&arena);
        return code;
    }
    result->arena = arena;
    *rows = result->rows;
    return code;
}

int flk_inspect(const char *const *names, struct flk_row ***rows)
{
    FK_ENTER();
    return inspect(false, names, rows);
}

int fk_inspect_outputs(struct flk_row ***rows)
{
    FK_ENTER();
    return inspect(true, NULL, rows);
}

void flk_inspect_free(struct flk_row **rows)
{
    if (!rows)
        return;
    struct result *result = (struct result *)((char *)rows - offsetof(struct result, rows));
    fk_arena_free(&result->arena);
    free(result);
}
