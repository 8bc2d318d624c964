/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"

#define CHUNK 64 /* records read at a time */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* ---- spread ---- */

struct rest {
    int64_t used;
    unsigned slot;
};

static int compare_rests(const void *a, const void *b)
{
    const struct rest *x = a, *y = b;
    if (x->used != y->used)
        return x->used < y->used ? -1 : 1;
    return x->slot < y->slot ? -1 : 1;
}

/* When was it used last? The holder of a free slot with a live record has died, some time before now, and that is noted. */
static int64_t used_at(const struct fk_section *section, unsigned slot, const char *record, bool is_free)
{
    int64_t used = fk_record_used(record, FK_RECORD_SIZE);
    char digits[24];
    if (used != 0 || record[0] != FK_LIVE)
        return used < 0 ? 0 : used;
    if (!is_free)
        return INT64_MAX;
    used = now();
    snprintf(digits, sizeof digits, "%020" PRId64, used);
    (void)fk_fd_write_at(section->fd, digits, 20, fk_latch_record_at(slot) + FK_USED_AT); /* or the next one does */
    return used;
}

static int read_rests(const struct fk_section *section, const bool *is_free, char *records, struct rest *rests)
{
    unsigned slots = section->row->slots;
    for (unsigned slot = 0; slot < slots; slot++) {
        unsigned at = slot % CHUNK, count = slots - slot < CHUNK ? slots - slot : CHUNK;
        size_t size = count * FK_RECORD_SIZE;
        if (at == 0 && pread(section->fd, records, size, fk_latch_record_at(slot)) != (ssize_t)size)
            return fk_row_damaged(section->row->text, "its latch can't be read");
        rests[slot] = (struct rest){used_at(section, slot, records + at * FK_RECORD_SIZE, is_free[slot]), slot};
    }
    return 0;
}

int fk_pool_order(struct fk_section *section, const bool *is_free, unsigned *order)
{
    unsigned slots = section->row->slots;
    struct rest *rests = malloc(slots * sizeof *rests + CHUNK * FK_RECORD_SIZE);
    if (!rests)
        return fk_fail(-ENOMEM, "out of memory");
    int code = read_rests(section, is_free, (char *)(rests + slots), rests);
    if (code == 0)
        qsort(rests, slots, sizeof *rests, compare_rests);
    for (unsigned i = 0; code == 0 && i < slots; i++)
        order[i] = rests[i].slot;
    free(rests);
    return code < 0 ? code : (int)slots;
}
