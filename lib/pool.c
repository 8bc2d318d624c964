/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
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

/* ---- blocked ---- */

int fk_pool_read_blocked(const struct fk_row *row, int64_t *found)
{
    size_t size = row->slots * FK_BLOCKED_LINE;
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, "blocked", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    char *text = malloc(size + 1);
    if (!text)
        return fk_fail(-ENOMEM, "out of memory");
    if (fd == -EMFILE || fd == -ENFILE) {
        free(text);
        return fk_fail_errno(fd, "can't read which slots of %s are blocked", row->text);
    }
    bool whole = fd >= 0 && pread(fd, text, size, 0) == (ssize_t)size;
    text[size] = '\0';
    for (unsigned slot = 0; whole && slot < row->slots; slot++) {
        char *line = text + slot * FK_BLOCKED_LINE, *end;
        found[slot] = (int64_t)strtoull(line, &end, 10);
        whole = end == line + FK_BLOCKED_LINE - 1 && *end == '\n';
    }
    free(text);
    return whole ? 0 : fk_row_damaged(row->text, "its file blocked can't be read");
}

void fk_pool_note_blocked(const struct fk_row *row, unsigned slot, bool blocked)
{
    char line[24];
    snprintf(line, sizeof line, "%020" PRId64, blocked ? now() : 0);
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, "blocked", O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd >= 0)
        (void)fk_fd_write_at(fd, line, FK_BLOCKED_LINE - 1, (off_t)slot * FK_BLOCKED_LINE);
}

unsigned fk_pool_count_blocked(const struct fk_row *row, unsigned *first)
{
    int64_t *found = malloc(row->slots * sizeof *found);
    unsigned count = 0;
    bool known = found && fk_pool_read_blocked(row, found) == 0;
    for (unsigned slot = row->slots; known && slot-- > 0;)
        if (found[slot] != 0) {
            *first = slot;
            count++;
        }
    free(found);
    return count;
}

/* One that is later than now was found before the clock was set back. */
int64_t fk_pool_rest_of(int64_t found)
{
    int64_t age = now() - found;
    return found == 0 || age < 0 || age >= FK_POOL_RETRY ? 0 : FK_POOL_RETRY - age;
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
