/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadlock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "held.h"
#include "owner.h"
#include "queue.h"
#include "record.h"
#include "reduction.h"
#include "root.h"
#include "waiting.h"

bool fk_deadlock_concerns(const struct fk_deadlock_wait *wait)
{
    return fk_held_something(wait);
}

/* ---- proof ---- */

struct search {
    struct fk_reduction reduction;
    const struct fk_owner *self;
    int scratch[2]; /* a pipe for tee(2); -1: not made */
    bool doubtful;
};

static const char *path_in_row(const struct fk_row_view *row, const char *below, char path[PATH_MAX])
{
    char text[FK_ROW_PLACE_SIZE], place[FK_ROW_PLACE_SIZE];
    const char *root;
    path[0] = '\0';
    if (row->length >= sizeof text || fk_root_path(&root) < 0)
        return path;
    *(char *)mempcpy(text, row->path, row->length) = '\0';
    snprintf(path, PATH_MAX, "%s%s%s", root, fk_row_place(text, place), below);
    return path;
}

static int open_row(const struct fk_row_view *view, struct fk_row **row)
{
    char path[FK_ROW_PLACE_SIZE];
    if (view->length >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, view->path, view->length);
    path[view->length] = '\0';
    return fk_row_peek_at(path, row);
}

static bool is_at_its_path(const struct fk_row_view *row, char path[PATH_MAX])
{
    struct stat status;
    return stat(path_in_row(row, "", path), &status) == 0 && status.st_ino == row->inode;
}

/* tee(2) says whether somebody has a FIFO open for writing, and disturbs nobody: 0 when not. */
static bool is_open(struct search *search, const char *path)
{
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd < 0)
        return false;
    if (search->scratch[0] < 0) {
        fk_fd_enter();
        if (fk_fd_keep_pair(pipe2(search->scratch, O_CLOEXEC | O_NONBLOCK), search->scratch) < 0)
            return false;
    }
    return tee(fd, search->scratch[1], 1, SPLICE_F_NONBLOCK) != 0;
}

static bool is_waiting(const struct fk_row_view *view, uint64_t number)
{
    struct fk_row *row;
    struct fk_latch latch;
    struct fk_watch watch = {.fd = -1};
    char record[FK_RECORD_SIZE];
    if (open_row(view, &row) < 0)
        return false;
    bool waits = fk_queue_watch(row, number, &watch) == 1 && fk_latch_read(row->latch, &latch, record) == 0 &&
                 latch.admitted < number;
    fk_queue_unwatch(&watch);
    fk_row_free(row);
    return waits;
}

/* Where /proc tells nothing. */
static bool seems_to_hold(struct search *search, const struct fk_stake *stake)
{
    const struct fk_member *member = &search->reduction.members[stake->member];
    char below[64], path[PATH_MAX];
    const struct fk_row_view *row = &search->reduction.rows[stake->row];
    if (!is_waiting(&search->reduction.rows[member->row], member->number) || !is_at_its_path(row, path))
        return false;
    snprintf(below, sizeof below, "/slots/%u", stake->slot);
    return is_open(search, path_in_row(row, below, path));
}

/* 1 locked, 0 not, negative: it can't be told. */
static int look_at_descriptor(pid_t pid, const struct fk_stake *stake)
{
    char path[64], text[2048];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)pid, stake->fd);
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd == -ENOENT) {
        snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)pid);
        return stat(path, &status) == 0 ? 0 : -ENOENT;
    }
    ssize_t length = fd < 0 ? fd : read(fd, text, sizeof text - 1);
    if (length < 0)
        return -EACCES;
    text[length] = '\0';
    const char *inode = strstr(text, "ino:"); /* from Linux 5.14 on */
    if (inode && strtoull(inode + 4, NULL, 10) != stake->inode)
        return 0;
    return strstr(text, "lock:") != NULL;
}

static bool holds(struct search *search, const struct fk_owner *owner, const struct fk_stake *stake)
{
    int told = stake->fd >= 0 && owner->pid_ns == search->self->pid_ns ? look_at_descriptor(owner->pid, stake) : -1;
    return told < 0 ? seems_to_hold(search, stake) : told;
}

/* Its stakes that aren't so are taken back. False: it isn't stuck. */
static bool prove_member(struct search *search, uint32_t index)
{
    struct fk_reduction *reduction = &search->reduction;
    struct fk_member *member = &reduction->members[index];
    struct fk_record record;
    if (index == reduction->me)
        return true;
    bool known = fk_record_read(member->record, member->record_length, &record) == 0;
    if (known && fk_owner_is_dead(&record.owner)) {
        fk_waiting_withdraw(reduction->waiting->fd, member->span.at);
        known = false;
    }
    if (!known) {
        fk_reduction_free_member(reduction, index);
        return false;
    }
    bool all = true;
    for (uint32_t i = 0; i < member->n_stakes; i++) {
        struct fk_stake *stake = &reduction->stakes[member->first_stake + i];
        if (!fk_reduction_matters(reduction, stake) || holds(search, &record.owner, stake))
            continue;
        fk_reduction_free_stake(reduction, stake);
        all = false;
    }
    return all;
}

static bool prove_members(struct search *search)
{
    bool all = true;
    for (uint32_t i = 0; i < search->reduction.n_members; i++)
        if (!search->reduction.members[i].live)
            all &= prove_member(search, i);
    return all;
}

/* One that holds nothing that matters, but is before others in a queue. */
static bool is_in_the_way(struct search *search, const struct fk_row_view *view)
{
    struct fk_watch watch = {.fd = -1};
    struct fk_record record;
    uint64_t number = view->queue[view->blocker].number;
    int lives = fk_queue_watch(view->row, number, &watch);
    fk_queue_unwatch(&watch);
    if (lives != 1 || fk_queue_who(view->row, number, &record) < 0)
        return false;
    enum fk_life life = fk_owner_look(&record.owner);
    search->doubtful |= life == FK_STOPPED; /* it may go on before others have gone past it */
    return life == FK_ALIVE;
}

static bool prove_blockers(struct search *search)
{
    struct fk_reduction *reduction = &search->reduction;
    bool all = true;
    for (uint32_t i = 0; i < reduction->n_rows; i++) {
        const struct fk_row_view *row = &reduction->rows[i];
        if (row->blocker == FK_NOBODY || is_in_the_way(search, row))
            continue;
        fk_reduction_pass_blocker(reduction, i);
        all = false;
    }
    return all;
}

static bool prove_that_all_stands(struct search *search)
{
    struct fk_reduction *reduction = &search->reduction;
    bool all = true;
    for (uint32_t i = 0; i < reduction->n_members; i++) {
        if (reduction->members[i].live || fk_waiting_stands(reduction->waiting, &reduction->members[i].span))
            continue;
        fk_reduction_free_member(reduction, i);
        all = false;
    }
    return all;
}

/* Whenever something turned out otherwise, all of it is proven anew. */
static bool is_deadlock(struct search *search)
{
    while (fk_reduction_run(&search->reduction))
        if (prove_members(search) && prove_blockers(search) && prove_that_all_stands(search))
            return true;
    return false;
}

/* ---- the sentence ---- */

#define FORGET_PATIENCE_MS 1000
#define SENTENCE_ROOM 2600
#define COMMAND_ROOM 72 /* of each command */

struct sentence {
    char text[SENTENCE_ROOM + 400];
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct sentence *sentence, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written =
        vsnprintf(sentence->text + sentence->length, sizeof sentence->text - sentence->length, format, arguments);
    va_end(arguments);
    if (written > 0)
        sentence->length += (size_t)written;
    if (sentence->length >= sizeof sentence->text)
        sentence->length = sizeof sentence->text - 1;
}

static void add_process(struct sentence *sentence, const struct fk_record *record)
{
    bool long_one = strlen(record->command) > COMMAND_ROOM;
    add(sentence, "pid %d (%.*s%s)", (int)record->owner.pid, long_one ? COMMAND_ROOM - 3 : COMMAND_ROOM,
        record->command, long_one ? "..." : "");
}

/* A row below a hold is called as the row that it is a part of. */
static void add_name(struct sentence *sentence, const struct fk_row_view *row)
{
    struct fk_row_shown shown;
    add(sentence, "%s%s", fk_row_show(row->path, row->length, &shown),
        memchr(row->path, '/', row->length) ? " (nested)" : "");
}

/* The process that took the slot, when that isn't the one that waits with it. */
static void add_acquirer(struct sentence *sentence, const struct fk_row_view *row, const struct fk_stake *stake,
                         const struct fk_record *member)
{
    char text[FK_RECORD_SIZE];
    struct fk_row *opened;
    struct fk_record record;
    if (stake->shared || open_row(row, &opened) < 0)
        return;
    ssize_t length = pread(opened->latch, text, sizeof text, fk_latch_record_at(stake->slot));
    fk_row_free(opened);
    if (length <= 0 || fk_record_read(text, (size_t)length, &record) < 0 || !record.live ||
        record.owner.pid == member->owner.pid)
        return;
    add(sentence, " from ");
    add_process(sentence, &record);
}

static void add_held(struct sentence *sentence, const struct fk_reduction *reduction, const struct fk_member *member,
                     const struct fk_record *record)
{
    const char *before = " holds ";
    for (uint32_t i = 0; i < member->n_stakes; i++) {
        const struct fk_stake *stake = &reduction->stakes[member->first_stake + i];
        bool again = false;
        for (uint32_t j = 0; j < i; j++)
            again |= reduction->stakes[member->first_stake + j].row == stake->row;
        if (again || !fk_reduction_matters(reduction, stake))
            continue;
        add(sentence, "%s", before);
        add_name(sentence, &reduction->rows[stake->row]);
        add_acquirer(sentence, &reduction->rows[stake->row], stake, record);
        before = ", ";
    }
}

static void add_wanted(struct sentence *sentence, const struct fk_reduction *reduction, const struct fk_member *member)
{
    const struct fk_row_view *row = &reduction->rows[member->row];
    struct fk_record record;
    add(sentence, " and waits for ");
    add_name(sentence, row);
    if (member->count > 1)
        add(sentence, ":%u", member->count);
    if (row->blocker == FK_NOBODY || row->queue[row->blocker].number >= member->number ||
        fk_queue_who(row->row, row->queue[row->blocker].number, &record) < 0)
        return;
    add(sentence, " behind ");
    add_process(sentence, &record);
}

static void add_member(struct sentence *sentence, struct fk_reduction *reduction, struct fk_member *member)
{
    struct fk_record record;
    member->told = true;
    if (fk_record_read(member->record, member->record_length, &record) < 0)
        return;
    add_process(sentence, &record);
    add_held(sentence, reduction, member, &record);
    add_wanted(sentence, reduction, member);
}

/* The next in the chain: who holds what this one waits for; else anybody not told yet. */
static struct fk_member *find_next(const struct fk_reduction *reduction, const struct fk_member *member)
{
    for (uint32_t i = reduction->rows[member->row].stakes; i != FK_NOBODY; i = reduction->stakes[i].next) {
        const struct fk_stake *stake = &reduction->stakes[i];
        struct fk_member *holder = &reduction->members[stake->member];
        if (!stake->gone && !holder->live && !holder->told)
            return holder;
    }
    for (uint32_t i = 0; i < reduction->n_members; i++)
        if (!reduction->members[i].live && !reduction->members[i].told)
            return &reduction->members[i];
    return NULL;
}

static unsigned count_untold(const struct fk_reduction *reduction)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < reduction->n_members; i++)
        count += !reduction->members[i].live && !reduction->members[i].told;
    return count;
}

static int tell(struct fk_reduction *reduction)
{
    struct sentence *sentence = calloc(1, sizeof *sentence);
    struct fk_member *member = &reduction->members[reduction->me];
    if (!sentence)
        return fk_fail(-EDEADLK, "waiting would never end: a deadlock");
    while (member && sentence->length < SENTENCE_ROOM) {
        struct sentence before = *sentence;
        add(sentence, "%s", sentence->length ? "; " : "");
        add_member(sentence, reduction, member);
        if (sentence->length >= SENTENCE_ROOM && before.length > 0) {
            member->told = false;
            *sentence = before;
            break;
        }
        member = find_next(reduction, member);
    }
    unsigned more = count_untold(reduction);
    if (more > 0)
        add(sentence, "; and %u more", more);
    int code =
        fk_fail(-EDEADLK, "a deadlock: %s. Take them in one request, or everywhere in the same order; the others go on",
                sentence->text);
    free(sentence);
    return code;
}

/* ---- publish ---- */

/* The text, for free(). */
static char *compose(const struct fk_deadlock_wait *wait, size_t *size)
{
    char *text = NULL, record[FK_RECORD_LEAST];
    const struct fk_record_spec spec = {.id = wait->id, .command = wait->command};
    int length = fk_record_write(record, sizeof record, &spec);
    FILE *out = length < 0 ? NULL : open_memstream(&text, size);
    if (!out)
        return NULL;
    fprintf(out, "%*s", FK_WAITING_HEAD, ""); /* filled in by who finds the place */
    fprintf(out, "waits=%llu %u %llu %u %c %s\n", (unsigned long long)wait->row->inode, wait->row->slots,
            (unsigned long long)wait->number, wait->count, wait->shared ? 's' : 'x', wait->row->text);
    int lines = fk_held_write(wait, out);
    fwrite(record, 1, (size_t)length, out);
    if (fclose(out) == 0 && lines > 0)
        return text;
    free(text);
    return NULL;
}

static bool is_dead(const struct fk_waiting *waiting, const struct fk_waiting_span *span)
{
    struct fk_record record;
    const char *text = waiting->text + span->at, *begin = memmem(text, span->size, "\n+\n", 3);
    return begin && fk_record_read(begin + 1, (size_t)(text + span->size - begin - 1), &record) == 0 &&
           fk_owner_is_dead(&record.owner);
}

/* Each one that comes looks at one of those that are there, so that what the killed leave doesn't pile up. */
static void look_for_dead(struct fk_waiting *waiting, uint64_t choice)
{
    struct fk_waiting_span span;
    size_t at = 0, count = 0;
    while (fk_waiting_next(waiting, &at, &span))
        count += span.published;
    size_t left = count ? choice % count + 1 : 0;
    for (at = 0; left > 0 && fk_waiting_next(waiting, &at, &span);)
        left -= span.published;
    if (count == 0 || !is_dead(waiting, &span))
        return;
    fk_waiting_withdraw(waiting->fd, span.at);
    waiting->text[span.at] = FK_ENDED;
}

int fk_deadlock_forget_dead(bool dry_run)
{
    struct fk_waiting waiting;
    struct fk_waiting_span span;
    size_t at = 0;
    int dead = 0, code = fk_waiting_lock(fk_deadline_in_ms(FORGET_PATIENCE_MS), &waiting);
    if (code < 0)
        return code == -EAGAIN ? 0 : code;
    while (fk_waiting_next(&waiting, &at, &span)) {
        if (!span.published || !is_dead(&waiting, &span))
            continue;
        dead++;
        if (!dry_run)
            fk_waiting_withdraw(waiting.fd, span.at);
    }
    fk_waiting_unlock(&waiting);
    fk_fd_close(&waiting.fd);
    return dead;
}

static int publish(struct fk_deadlock *own, struct fk_waiting *waiting, char *text, size_t size, uint64_t number)
{
    size_t at;
    look_for_dead(waiting, number);
    int code = fk_waiting_publish(waiting, text, size, &at);
    if (code < 0)
        return code;
    fk_fd_close(&own->fd);
    own->fd = waiting->fd;
    own->at = at;
    return 0;
}

static int search_locked(struct fk_deadlock *own, struct fk_waiting *waiting)
{
    struct search search = {.scratch = {-1, -1}};
    int code = fk_owner_self(&search.self);
    if (code == 0)
        code = fk_reduction_make(waiting, own->at, &search.reduction);
    if (code == 0 && is_deadlock(&search))
        code = tell(&search.reduction);
    fk_reduction_clear(&search.reduction);
    fk_fd_close(&search.scratch[0]);
    fk_fd_close(&search.scratch[1]);
    own->doubtful = search.doubtful || (code < 0 && code != -EDEADLK);
    return code;
}

int fk_deadlock_look(struct fk_deadlock *own, const struct fk_deadlock_wait *wait, int64_t until)
{
    struct fk_waiting waiting;
    size_t size = 0;
    bool published = own->fd >= 0;
    char *text = published ? NULL : compose(wait, &size);
    own->doubtful = false;
    if (!published && !text)
        return 0; /* nothing is held after all */
    int code = fk_waiting_lock(until, &waiting);
    if (code < 0) {
        own->doubtful = true;
        free(text);
        return 0;
    }
    if (!published)
        code = publish(own, &waiting, text, size, wait->number);
    if (code == 0)
        code = search_locked(own, &waiting);
    else
        own->doubtful = true;
    if (code == -EDEADLK)
        fk_waiting_withdraw(own->fd, own->at);
    fk_waiting_unlock(&waiting);
    if (waiting.fd != own->fd)
        fk_fd_close(&waiting.fd);
    if (code == -EDEADLK ||
        code == -EBADMSG) /* withdrawn; gone, since somebody deleted the file: to be published anew */
        fk_fd_close(&own->fd);
    free(text);
    return code == -EDEADLK ? code : 0;
}

void fk_deadlock_withdraw(struct fk_deadlock *own)
{
    if (own->fd < 0)
        return;
    fk_waiting_withdraw(own->fd, own->at);
    fk_fd_close(&own->fd);
}
