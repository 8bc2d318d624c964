/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reduction.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "fd.h"
#include "queue.h"

#define NOBODY FK_NOBODY

/* The array with room for one more, at another place perhaps; NULL: as it was. */
static void *grow(void *array, uint32_t *room, uint32_t count, size_t size)
{
    if (count < *room)
        return array;
    uint32_t more = *room ? *room * 2 : 64;
    void *grown = realloc(array, more * size);
    if (grown)
        *room = more;
    return grown;
}

/* ---- rows by path and inode ---- */

static uint32_t hash_of(const char *path, size_t length, uint64_t inode)
{
    uint32_t hash = 2166136261u ^ (uint32_t)inode;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)path[i]) * 16777619u;
    return hash ^ hash >> 15;
}

static uint32_t *find_row(struct fk_reduction *reduction, const char *path, size_t length, uint64_t inode)
{
    uint32_t mask = reduction->index_size - 1, at = hash_of(path, length, inode) & mask;
    for (; reduction->index[at] != NOBODY; at = (at + 1) & mask) {
        const struct fk_row_view *row = &reduction->rows[reduction->index[at]];
        if (row->inode == inode && row->length == length && memcmp(row->path, path, length) == 0)
            break;
    }
    return &reduction->index[at];
}

static bool make_index(struct fk_reduction *reduction)
{
    uint32_t size = reduction->index_size ? reduction->index_size * 2 : 256;
    free(reduction->index);
    reduction->index = malloc(size * sizeof *reduction->index);
    if (!reduction->index)
        return false;
    reduction->index_size = size;
    memset(reduction->index, 0xff, size * sizeof *reduction->index);
    for (uint32_t i = 0; i < reduction->n_rows; i++) {
        const struct fk_row_view *row = &reduction->rows[i];
        *find_row(reduction, row->path, row->length, row->inode) = i;
    }
    return true;
}

static int enter_row(struct fk_reduction *reduction, const char *path, size_t length, uint64_t inode, unsigned slots,
                     uint32_t *out)
{
    if (reduction->n_rows * 2 >= reduction->index_size && !make_index(reduction))
        return -ENOMEM;
    uint32_t *at = find_row(reduction, path, length, inode);
    if (*at == NOBODY) {
        struct fk_row_view *rows =
            grow(reduction->rows, &reduction->room_rows, reduction->n_rows, sizeof *reduction->rows);
        if (!rows)
            return -ENOMEM;
        reduction->rows = rows;
        reduction->rows[reduction->n_rows] = (struct fk_row_view){
            .path = path,
            .length = length,
            .inode = inode,
            .slots = slots,
            .stakes = NOBODY,
            .waiters = NOBODY,
            .blocker = NOBODY,
        };
        *at = reduction->n_rows++;
    }
    *out = *at;
    return 0;
}

/* ---- from text ---- */

struct cursor {
    const char *at, *end;
};

/* Decimal digits and one byte behind them, which is taken too. */
static bool take_number(struct cursor *cursor, char behind, uint64_t *value)
{
    const char *begin = cursor->at;
    uint64_t sum = 0;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++)
        sum = sum * 10 + (uint64_t)(*cursor->at - '0');
    if (cursor->at == begin || cursor->at == cursor->end || *cursor->at != behind)
        return false;
    cursor->at++;
    *value = sum;
    return true;
}

static bool take_word(struct cursor *cursor, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0)
        return false;
    cursor->at += length;
    return true;
}

static bool take_mode(struct cursor *cursor, bool *shared)
{
    *shared = cursor->at < cursor->end && *cursor->at == 's';
    return take_word(cursor, "s ") || take_word(cursor, "x ");
}

static size_t take_path(struct cursor *cursor)
{
    const char *begin = cursor->at;
    while (cursor->at < cursor->end && *cursor->at != ' ' && *cursor->at != '\n')
        cursor->at++;
    return cursor->at < cursor->end ? (size_t)(cursor->at++ - begin) : 0;
}

/* -EBADMSG: this line makes no sense. */
static int read_waits(struct fk_reduction *reduction, struct cursor *line, struct fk_member *member)
{
    uint64_t inode, slots, count;
    if (!take_number(line, ' ', &inode) || !take_number(line, ' ', &slots) ||
        !take_number(line, ' ', &member->number) || !take_number(line, ' ', &count) ||
        !take_mode(line, &member->shared) || slots < 1 || slots > FLK_SLOTS_MAX)
        return -EBADMSG;
    const char *path = line->at;
    size_t length = take_path(line);
    member->count = (unsigned)count;
    return length ? enter_row(reduction, path, length, inode, (unsigned)slots, &member->row) : -EBADMSG;
}

static int read_stake(struct fk_reduction *reduction, struct cursor *line, uint32_t row, bool shared)
{
    uint64_t slot, fd = 0, inode;
    char behind = ' ';
    if (!take_number(line, ':', &slot))
        return -EBADMSG;
    bool unknown = take_word(line, "-1:");
    if (!unknown && !take_number(line, ':', &fd))
        return -EBADMSG;
    const char *number = line->at;
    while (number < line->end && *number >= '0' && *number <= '9')
        number++;
    if (number < line->end)
        behind = *number;
    if (!take_number(line, behind, &inode) || (behind != ' ' && behind != '\n') || slot >= FLK_SLOTS_MAX)
        return -EBADMSG;
    struct fk_stake *stakes =
        grow(reduction->stakes, &reduction->room_stakes, reduction->n_stakes, sizeof *reduction->stakes);
    if (!stakes)
        return -ENOMEM;
    reduction->stakes = stakes;
    struct fk_stake *stake = &reduction->stakes[reduction->n_stakes];
    *stake = (struct fk_stake){
        .member = reduction->n_members,
        .row = row,
        .next = reduction->rows[row].stakes,
        .slot = (unsigned)slot,
        .fd = unknown ? -1 : (int)fd,
        .inode = inode,
        .shared = shared,
    };
    reduction->rows[row].stakes = reduction->n_stakes++;
    return behind == '\n';
}

static int read_holds(struct fk_reduction *reduction, struct cursor *line)
{
    uint64_t inode, slots;
    uint32_t row;
    bool shared;
    if (!take_number(line, ' ', &inode) || !take_number(line, ' ', &slots) || !take_mode(line, &shared) || slots < 1 ||
        slots > FLK_SLOTS_MAX)
        return -EBADMSG;
    const char *path = line->at;
    size_t length = take_path(line);
    int code = length ? enter_row(reduction, path, length, inode, (unsigned)slots, &row) : -EBADMSG;
    while (code == 0)
        code = read_stake(reduction, line, row, shared);
    return code < 0 ? code : 0;
}

static int read_lines(struct fk_reduction *reduction, struct cursor text, struct fk_member *member)
{
    int code = 0;
    member->row = NOBODY;
    while (code == 0 && text.at < text.end && *text.at != '+') {
        const char *stop = memchr(text.at, '\n', (size_t)(text.end - text.at));
        struct cursor line = {text.at, stop ? stop + 1 : text.end};
        if (take_word(&line, "waits="))
            code = read_waits(reduction, &line, member);
        else if (take_word(&line, "holds="))
            code = read_holds(reduction, &line);
        text.at = stop ? stop + 1 : text.end;
    }
    member->record = text.at;
    member->record_length = (size_t)(text.end - text.at);
    member->n_stakes = reduction->n_stakes - member->first_stake;
    return code == 0 && member->row == NOBODY ? -EBADMSG : code;
}

/* One that makes no sense is left out. */
static int read_member(struct fk_reduction *reduction, const struct fk_waiting_span *span)
{
    const char *text = reduction->waiting->text + span->at;
    struct fk_member member = {.span = *span, .live = true, .first_stake = reduction->n_stakes, .next = NOBODY};
    struct fk_member *members = grow(reduction->members, &reduction->room_members, reduction->n_members, sizeof member);
    if (!members)
        return -ENOMEM;
    reduction->members = members;
    int code = read_lines(reduction, (struct cursor){text + FK_WAITING_HEAD, text + span->size}, &member);
    if (code == -EBADMSG) {
        member.row = NOBODY;
        for (uint32_t i = member.first_stake; i < reduction->n_stakes; i++)
            reduction->stakes[i].gone = true;
    }
    if (code == 0 || code == -EBADMSG)
        reduction->members[reduction->n_members++] = member;
    return code == -EBADMSG ? 0 : code;
}

/* ---- who counts ---- */

static struct fk_row_view *row_of(const struct fk_reduction *reduction, const struct fk_member *member)
{
    return &reduction->rows[member->row];
}

static void set_due(struct fk_reduction *reduction, uint32_t row)
{
    if (reduction->rows[row].due || reduction->rows[row].waiters == NOBODY)
        return;
    reduction->rows[row].due = true;
    reduction->due[reduction->n_due++] = row;
}

static void count_member(struct fk_reduction *reduction, uint32_t index, uint32_t *found, uint32_t *n_found)
{
    struct fk_member *member = &reduction->members[index];
    if (!member->live || member->row == NOBODY)
        return;
    member->live = false;
    member->next = row_of(reduction, member)->waiters;
    row_of(reduction, member)->waiters = index;
    found[(*n_found)++] = index;
}

/* Those that hold what we want, what they want, and so on. */
static int count_members(struct fk_reduction *reduction)
{
    uint32_t *found = malloc(reduction->n_members * sizeof *found), n_found = 0;
    reduction->due = malloc(reduction->n_rows * sizeof *reduction->due);
    if (!found || !reduction->due) {
        free(found);
        return -ENOMEM;
    }
    count_member(reduction, reduction->me, found, &n_found);
    for (uint32_t i = 0; i < n_found; i++) {
        uint32_t row = reduction->members[found[i]].row;
        set_due(reduction, row);
        for (uint32_t j = reduction->rows[row].stakes; j != NOBODY; j = reduction->stakes[j].next)
            if (!reduction->stakes[j].gone)
                count_member(reduction, reduction->stakes[j].member, found, &n_found);
    }
    free(found);
    return 0;
}

int fk_reduction_make(const struct fk_waiting *waiting, size_t own, struct fk_reduction *reduction)
{
    struct fk_waiting_span span;
    size_t at = 0;
    int code = 0;
    *reduction = (struct fk_reduction){.waiting = waiting, .me = NOBODY};
    while (code == 0 && fk_waiting_next(waiting, &at, &span)) {
        if (!span.published)
            continue;
        if (span.at == own)
            reduction->me = reduction->n_members;
        code = read_member(reduction, &span);
    }
    if (code == 0)
        code = reduction->me == NOBODY ? -EBADMSG : count_members(reduction);
    return code;
}

/* ---- the reduction ---- */

struct held {
    unsigned count; /* slots that don't come free */
    bool exclusive;
};

static struct held count_held(const struct fk_reduction *reduction, const struct fk_row_view *row)
{
    uint64_t seen[FLK_SLOTS_MAX / 64] = {0};
    struct held held = {0};
    for (uint32_t i = row->stakes; i != NOBODY; i = reduction->stakes[i].next) {
        const struct fk_stake *stake = &reduction->stakes[i];
        if (stake->gone || stake->slot >= row->slots || reduction->members[stake->member].live)
            continue;
        uint64_t bit = UINT64_C(1) << stake->slot % 64, *word = &seen[stake->slot / 64];
        held.count += !(*word & bit);
        *word |= bit;
        held.exclusive |= !stake->shared;
    }
    return held;
}

static bool fits(const struct fk_row_view *row, struct held held, unsigned count, bool shared)
{
    return shared ? !held.exclusive : count <= row->slots - held.count;
}

static void read_queue(struct fk_row_view *view)
{
    char path[PATH_MAX], record[FK_RECORD_SIZE];
    struct fk_latch latch;
    uint64_t *numbers = NULL;
    view->read = true;
    if (view->length >= sizeof path)
        return;
    memcpy(path, view->path, view->length);
    path[view->length] = '\0';
    if (fk_row_peek_at(path, &view->row) < 0 || view->row->inode != view->inode ||
        fk_latch_read(view->row->latch, &latch, record) < 0)
        return;
    int count = fk_queue_list(view->row, UINT64_MAX, &numbers);
    view->queue = count > 0 ? calloc((size_t)count, sizeof *view->queue) : NULL;
    for (int i = 0; view->queue && i < count; i++)
        if (numbers[i] > latch.admitted)
            view->queue[view->n_queue++].number = numbers[i];
    free(numbers);
}

/* What can't be read is in nobody's way. */
static void look_up(const struct fk_row_view *view, struct fk_queuer *queuer)
{
    struct fk_record record;
    if (queuer->count > 0 || queuer->aside)
        return;
    if (fk_queue_who(view->row, queuer->number, &record) < 0 || record.wants == 0)
        queuer->aside = true;
    queuer->count = record.wants;
    queuer->shared = record.shared;
}

/* The number of the first in the queue that can't be served. */
static uint64_t find_blocker(struct fk_row_view *view, struct held held)
{
    if (!view->read)
        read_queue(view);
    for (uint32_t i = 0; i < view->n_queue; i++) {
        struct fk_queuer *queuer = &view->queue[i];
        look_up(view, queuer);
        if (queuer->aside || fits(view, held, queuer->count, queuer->shared))
            continue;
        view->blocker = i;
        return queuer->number;
    }
    view->blocker = NOBODY;
    return UINT64_MAX;
}

static int order(const void *key, const void *element)
{
    uint64_t a = *(const uint64_t *)key, b = ((const struct fk_queuer *)element)->number;
    return a < b ? -1 : a > b;
}

/* One whose ticket was taken away (stopped too long) queues again, and looks again. */
static bool is_in_line(const struct fk_row_view *view, uint64_t number)
{
    return view->n_queue > 0 && bsearch(&number, view->queue, view->n_queue, sizeof *view->queue, order);
}

static bool anybody_fits(const struct fk_reduction *reduction, const struct fk_row_view *row, struct held held)
{
    for (uint32_t i = row->waiters; i != NOBODY; i = reduction->members[i].next)
        if (!reduction->members[i].live && fits(row, held, reduction->members[i].count, reduction->members[i].shared))
            return true;
    return false;
}

/* A slot that nobody keeps for ever is free some time. Are all of them, everybody in the queue has its turn. */
static void check_row(struct fk_reduction *reduction, struct fk_row_view *row)
{
    struct held held = count_held(reduction, row);
    uint64_t blocker = UINT64_MAX;
    if (held.count > 0) {
        if (!anybody_fits(reduction, row, held))
            return;
        blocker = find_blocker(row, held);
    }
    for (uint32_t i = row->waiters; i != NOBODY; i = reduction->members[i].next) {
        struct fk_member *member = &reduction->members[i];
        bool goes_on = held.count == 0 || (fits(row, held, member->count, member->shared) &&
                                           (member->number < blocker || !is_in_line(row, member->number)));
        if (!member->live && goes_on)
            fk_reduction_free_member(reduction, i);
    }
}

bool fk_reduction_run(struct fk_reduction *reduction)
{
    const struct fk_member *me = &reduction->members[reduction->me];
    while (!me->live && reduction->n_due > 0) {
        struct fk_row_view *row = &reduction->rows[reduction->due[--reduction->n_due]];
        row->due = false;
        check_row(reduction, row);
    }
    return !me->live;
}

void fk_reduction_free_member(struct fk_reduction *reduction, uint32_t index)
{
    struct fk_member *member = &reduction->members[index];
    member->live = true;
    for (uint32_t i = 0; i < member->n_stakes; i++)
        set_due(reduction, reduction->stakes[member->first_stake + i].row);
}

void fk_reduction_free_stake(struct fk_reduction *reduction, struct fk_stake *stake)
{
    stake->gone = true;
    set_due(reduction, stake->row);
}

void fk_reduction_pass_blocker(struct fk_reduction *reduction, uint32_t row)
{
    struct fk_row_view *view = &reduction->rows[row];
    view->queue[view->blocker].aside = true;
    view->blocker = NOBODY;
    set_due(reduction, row);
}

bool fk_reduction_matters(const struct fk_reduction *reduction, const struct fk_stake *stake)
{
    if (stake->gone || reduction->members[stake->member].live)
        return false;
    for (uint32_t i = reduction->rows[stake->row].waiters; i != NOBODY; i = reduction->members[i].next)
        if (!reduction->members[i].live)
            return true;
    return false;
}

void fk_reduction_clear(struct fk_reduction *reduction)
{
    for (uint32_t i = 0; i < reduction->n_rows; i++) {
        if (reduction->rows[i].row)
            fk_row_free(reduction->rows[i].row);
        free(reduction->rows[i].queue);
    }
    free(reduction->members);
    free(reduction->stakes);
    free(reduction->rows);
    free(reduction->due);
    free(reduction->index);
}
