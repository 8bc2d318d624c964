/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inspect.h"

#include <stdlib.h>
#include <unistd.h>

#include "owner.h"
#include "queue.h"
#include "shared.h"

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

/* The first in line whose record can be read and who lives; those that died and weren't found yet don't count, nor does who has
 * been admitted and keeps its ticket while it holds. */
static void find_line(const struct fk_row *row, uint64_t number, struct fk_picture *picture)
{
    uint64_t *numbers;
    struct fk_record record;
    struct fk_latch latch = {.admitted = 0};
    char first_record[FK_RECORD_SIZE];
    int count = fk_queue_list(row, number ? number : UINT64_MAX, &numbers);
    if (fk_latch_read(row->latch, &latch, first_record) < 0)
        count = 0;
    for (int i = 0; i < count; i++) {
        if (numbers[i] <= latch.admitted || fk_queue_who(row, numbers[i], &record) < 0)
            continue;
        enum fk_life life = fk_owner_look(&record.owner);
        if (life == FK_DEAD || picture->waiting.ahead++ > 0)
            continue;
        picture->first = record;
        fk_record_show(&picture->first, &picture->first_shown);
        picture->first_shown.stopped = life == FK_STOPPED;
        picture->waiting.first = &picture->first_shown;
    }
    free(numbers);
}

void fk_inspect_wait(const struct fk_row *row, uint64_t number, int64_t waited_ms, struct fk_picture *picture)
{
    *picture = (struct fk_picture){.waiting = {.name = row->text, .slots = row->slots, .waited_ms = waited_ms}};
    find_exclusive(row, picture);
    if (row->slots == 1)
        fk_shared_foreach(row, find_one_shared, picture);
    find_line(row, number, picture);
}
