/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one that waits sees: fk_inspect_wait(). */
#include "inspect.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "looker.h"
#include "owner.h"
#include "pool.h"
#include "proc.h"
#include "queue.h"
#include "root.h"
#include "shared.h"

#define MOST_DESCENDANTS 256

/* A record of a holder, unless it has ended or its writer is dead. */
static bool is_holder(const char *text, ssize_t length, struct fk_record *record)
{
    return length > 0 && fk_record_read(text, (size_t)length, record) == 0 && record->live &&
           fk_owner_look(&record->owner) != FK_DEAD;
}

static void count_holder(const struct fk_record *record, struct fk_picture *picture)
{
    if (picture->waiting.holders++ > 0)
        return;
    picture->holder = *record;
    fk_record_show(&picture->holder, &picture->holder_shown);
    picture->holder_shown.stopped = fk_owner_look(&record->owner) == FK_STOPPED;
    picture->waiting.holder = &picture->holder_shown;
}

static void find_exclusive(const struct fk_row *row, struct fk_picture *picture)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    for (unsigned slot = 0; slot < row->slots; slot++) {
        ssize_t length = pread(row->latch, text, sizeof text, fk_latch_record_at(slot));
        if (is_holder(text, length, &record))
            count_holder(&record, picture);
    }
}

static void find_one_shared(const char *text, size_t length, void *data)
{
    struct fk_record record;
    if (is_holder(text, (ssize_t)length, &record))
        count_holder(&record, data);
}

/* Whoever the kernel says has it, though no record does: heirs, outsiders, those that we may not see. */
static void find_keepers(struct looker *looker, const struct fk_row *row, struct fk_picture *picture)
{
    struct flk_row shown = {0};
    if (fk_looker_slots(looker, row, &shown) < 0 || fk_looker_answer(looker, row) < 0)
        return;
    for (size_t i = 0; i < shown.n_slots; i++) {
        const struct flk_slot *slot = shown.slots[i];
        if (slot->n_holders > 0 && picture->waiting.holders++ == 0) {
            picture->waiting.holder = slot->holders[0];
            picture->waiting.acquirer = slot->state == FLK_SLOT_INHERITED ? slot->last : NULL;
        }
    }
}

/* The first in line who lives; those that died and weren't found yet don't count. */
static void find_line(const struct looker *looker, const struct fk_row *row, uint64_t number,
                      struct fk_picture *picture)
{
    uint64_t *numbers;
    struct fk_record record;
    int count = fk_looker_tickets(row, number ? number : UINT64_MAX, &numbers);
    for (int i = 0; i < count; i++) {
        bool known;
        enum fk_life life;
        if (!fk_looker_waits(looker, row, numbers[i], &record, &known, &life) || picture->waiting.ahead++ > 0)
            continue;
        if (!known)
            record = (struct fk_record){0};
        picture->first = record;
        fk_record_show(&picture->first, &picture->first_shown);
        picture->first_shown.stopped = life == FK_STOPPED;
        picture->waiting.first = &picture->first_shown;
    }
    free(numbers);
}

struct family {
    pid_t pids[MOST_DESCENDANTS + 1];
    unsigned count;
};

static bool add_to_family(pid_t pid, void *data)
{
    struct family *family = data;
    if (pid != getpid())
        family->pids[family->count++] = pid;
    return family->count < MOST_DESCENDANTS;
}

static bool is_of_family(const struct family *family, const struct fk_record *record)
{
    const struct fk_owner *self;
    if (fk_owner_self(&self) < 0 || record->owner.pid_ns != self->pid_ns)
        return false;
    for (unsigned i = 0; i < family->count; i++)
        if (family->pids[i] == record->owner.pid)
            return true;
    return false;
}

static bool find_wanting(struct looker *looker, const char *text, const struct family *family,
                         struct fk_picture *picture)
{
    struct fk_row *row;
    struct fk_row_shown shown;
    uint64_t *numbers;
    bool found = false;
    if (fk_row_peek_at(text, &row) < 0)
        return false;
    int count = fk_looker_tickets(row, UINT64_MAX, &numbers);
    for (int i = 0; !found && i < count; i++) {
        struct fk_record record;
        bool known;
        enum fk_life life;
        found = fk_queue_who(row, numbers[i], &record) == 0 && is_of_family(family, &record) &&
                fk_looker_waits(looker, row, numbers[i], &record, &known, &life) && known;
        if (found) {
            picture->waiting.holder_wants = fk_arena_text(looker->arena, fk_row_show(text, strlen(text), &shown));
            picture->waiting.wanting = fk_looker_show(looker->arena, &record);
        }
    }
    free(numbers);
    fk_row_free(row);
    return found;
}

/* The same of the rows below holds of that name. */
static bool find_wanting_below(struct looker *looker, const char *name, const struct family *family,
                               struct fk_picture *picture)
{
    char below[FK_ROW_PLACE_SIZE], text[FK_ROW_PLACE_SIZE];
    DIR *directory;
    bool found = false;
    snprintf(below, sizeof below, "%s/under", name);
    if (fk_fd_open_directory(looker->rows, below, &directory) < 0)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(directory));) {
        int length = snprintf(text, sizeof text, "%s/%s", below, entry->d_name);
        found = entry->d_name[0] != '.' && length < (int)sizeof text && find_wanting(looker, text, family, picture);
    }
    fk_fd_close_directory(directory);
    return found;
}

/* Is text that name's row, or one below a hold of it? */
static bool is_of_name(const char *text, const char *name)
{
    size_t length = strlen(name);
    return strncmp(text, name, length) == 0 && (text[length] == '\0' || text[length] == '/');
}

/* The same of the locks of outputs. */
static void find_wanted_output(struct looker *looker, const struct family *family, struct fk_picture *picture)
{
    char text[FK_OUTPUT_KEY_SIZE];
    const char *root;
    DIR *directory;
    bool found = false;
    if (fk_root_path(&root) < 0 || fk_fd_open_directory(AT_FDCWD, FK_ROOT_BELOW(root, "/once"), &directory) < 0)
        return;
    for (struct dirent *entry; !found && (entry = readdir(directory));) {
        int length = snprintf(text, sizeof text, "%c%.*s", FK_OUTPUT_MARK, NAME_MAX, entry->d_name);
        found = entry->d_name[0] != '.' && length < (int)sizeof text && find_wanting(looker, text, family, picture);
    }
    fk_fd_close_directory(directory);
}

/* Does the holder wait itself, or something that it has started? From the holder down: its family is small, the waiters may
 * be many. What draws from the hold that is waited for doesn't count. */
static void find_what_holder_wants(struct looker *looker, const char *waited_for, struct fk_picture *picture)
{
    const struct flk_holder *holder = picture->waiting.holder;
    struct list names = {0};
    if (!holder || holder->pid <= 0 || (holder->foreign & FLK_FOREIGN_PID) || fk_looker_rows(looker, NULL, &names) < 0)
        return;
    struct family family = {.pids = {holder->pid}, .count = 1};
    fk_proc_descendants(holder->pid, MOST_DESCENDANTS, add_to_family, &family);
    for (size_t i = 0; i < names.count; i++)
        if (find_wanting(looker, names.items[i], &family, picture) ||
            (!is_of_name(waited_for, names.items[i]) && find_wanting_below(looker, names.items[i], &family, picture)))
            return;
    find_wanted_output(looker, &family, picture);
}

void fk_inspect_wait(const struct fk_row *row, uint64_t number, int64_t waited_ms, bool thorough,
                     struct fk_picture *picture)
{
    struct looker looker;
    unsigned blocked = 0;
    *picture = (struct fk_picture){.waiting = {.name = row->text, .slots = row->slots, .waited_ms = waited_ms}};
    picture->waiting.n_blocked = fk_pool_checks(row) ? fk_pool_count_blocked(row, &blocked) : 0;
    if (picture->waiting.n_blocked > 0)
        picture->waiting.blocked = row->values->value[blocked];
    find_exclusive(row, picture);
    if (row->slots == 1)
        fk_shared_foreach(row, find_one_shared, picture);
    if (fk_looker_open(&looker, &picture->arena) == 0) {
        if (thorough && !picture->waiting.holder)
            find_keepers(&looker, row, picture);
        find_line(&looker, row, number, picture);
        if (thorough)
            find_what_holder_wants(&looker, row->text, picture);
    }
    fk_looker_close(&looker);
}

void fk_picture_clear(struct fk_picture *picture)
{
    fk_arena_free(&picture->arena);
}
