/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "queue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cancel.h"
#include "error.h"
#include "fd.h"
#include "owner.h"

#define FILE_MODE (0600 | S_ISVTX)

struct ticket_path {
    char text[40];
};

static struct ticket_path path_of(uint64_t number, const char *suffix)
{
    struct ticket_path path;
    snprintf(path.text, sizeof path.text, "queue/%llu%s", (unsigned long long)number, suffix);
    return path;
}

static void unlink_ticket(const struct fk_row *row, uint64_t number)
{
    unlinkat(row->directory, path_of(number, ".who").text, 0);
    unlinkat(row->directory, path_of(number, "").text, 0);
}

static const struct fk_watch nothing = {.fd = -1};

/* ---- does it live ---- */

static enum fk_told look_into(const struct fk_watch *watch)
{
    int bytes = 0;
    struct pollfd poll_for = {.fd = watch->fd, .events = POLLIN};
    if (ioctl(watch->fd, FIONREAD, &bytes) < 0 || bytes > 1)
        return FK_TOLD_LEFT;
    if (bytes == 1)
        return FK_TOLD_ADMITTED;
    if (fk_poll_now(&poll_for, 1) <= 0)
        return FK_TOLD_NOTHING;
    /* What happened between the two calls: bytes come before the hang-up. */
    return ioctl(watch->fd, FIONREAD, &bytes) == 0 && bytes == 1 ? FK_TOLD_ADMITTED : FK_TOLD_LEFT;
}

enum fk_told fk_queue_told(struct fk_watch *watch)
{
    if (watch->told == FK_TOLD_NOTHING)
        watch->told = look_into(watch);
    return watch->told;
}

int fk_queue_watch(const struct fk_row *row, uint64_t number, struct fk_watch *watch)
{
    struct ticket_path path = path_of(number, "");
    struct fk_watch fresh = {.number = number};
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, path.text, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return fk_row_fail(fd, row->text, "open %s of", path.text);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return fk_row_fail(-errno, row->text, "lock %s of", path.text);
    FK_CLOSE_FD int primer = fk_fd_open(row->directory, path.text, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0);
    if (primer < 0 && primer != -ENOENT)
        return fk_row_fail(primer, row->text, "open %s of", path.text);
    fk_fd_close(&primer);
    fresh.fd = fd;
    if (fk_queue_told(&fresh) != FK_TOLD_NOTHING)
        return 0;
    *watch = fresh;
    fd = -1;
    return 1;
}

/* ---- the directory, read only when the last living ticket or one's watch has gone without a word ---- */

static int falling(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static int append(uint64_t **numbers, size_t *count, uint64_t number)
{
    if ((*count & (*count - 1)) == 0) { /* full at each power of two */
        uint64_t *grown = realloc(*numbers, (*count ? *count * 2 : 1) * sizeof **numbers);
        if (!grown)
            return fk_fail(-ENOMEM, "out of memory");
        *numbers = grown;
    }
    (*numbers)[(*count)++] = number;
    return 0;
}

/* All tickets below `below`, falling. */
static int list(const struct fk_row *row, uint64_t below, uint64_t **numbers)
{
    DIR *directory;
    size_t count = 0;
    *numbers = NULL;
    int code = fk_fd_open_directory(row->directory, "queue", &directory);
    if (code < 0)
        return fk_row_fail(code, row->text, "read the queue of");
    for (struct dirent *entry; code == 0 && (entry = readdir(directory));) {
        char *end;
        uint64_t number = strtoull(entry->d_name, &end, 10);
        if (number > 0 && *end == '\0' && number < below)
            code = append(numbers, &count, number);
    }
    fk_fd_close_directory(directory);
    if (code < 0) {
        free(*numbers);
        *numbers = NULL;
        return code;
    }
    if (count > 0)
        qsort(*numbers, count, sizeof **numbers, falling);
    return (int)count;
}

int fk_queue_before(struct fk_section *section, uint64_t number, struct fk_watch *watch)
{
    struct fk_row *row = section->row;
    uint64_t *numbers;
    int count = list(row, number, &numbers), found = 0;
    *watch = nothing;
    for (int i = 0; found == 0 && i < count; i++) {
        found = fk_queue_watch(row, numbers[i], watch);
        if (found == 0)
            unlink_ticket(row, numbers[i]);
        if (found == 1 && numbers[i] <= section->latch.admitted) { /* no more a waiter than those that are dead */
            fk_queue_unwatch(watch);
            found = 0;
        }
    }
    free(numbers);
    return count < 0 ? count : found < 0 ? found : 0;
}

unsigned fk_queue_forget_dead(struct fk_section *section, bool dry_run)
{
    struct fk_row *row = section->row;
    uint64_t *numbers;
    unsigned dead = 0;
    int count = list(row, UINT64_MAX, &numbers);
    for (int i = 0; i < count; i++) {
        struct fk_watch watch = nothing;
        bool lives = fk_queue_watch(row, numbers[i], &watch) != 0;
        fk_queue_unwatch(&watch);
        dead += !lives;
        if (!lives && !dry_run)
            unlink_ticket(row, numbers[i]);
    }
    free(count < 0 ? NULL : numbers);
    return dead;
}

bool fk_queue_sweep(struct fk_section *section, uint64_t own)
{
    struct fk_row *row = section->row;
    uint64_t *numbers;
    int count = list(row, UINT64_MAX, &numbers);
    bool left = count < 0;
    for (int i = 0; i < count; i++) {
        struct fk_watch watch = nothing;
        if (fk_queue_watch(row, numbers[i], &watch) == 0)
            unlink_ticket(row, numbers[i]);
        else
            left |= numbers[i] <= section->latch.admitted && numbers[i] != own;
        fk_queue_unwatch(&watch);
    }
    free(numbers);
    return left;
}

int fk_queue_last(struct fk_section *section, struct fk_watch *watch)
{
    struct fk_row *row = section->row;
    uint64_t number = section->latch.living;
    *watch = nothing;
    if (number == 0)
        return 0;
    int code = fk_queue_watch(row, number, watch);
    if (code == 0) {
        unlink_ticket(row, number);
        code = fk_queue_before(section, number, watch);
    }
    section->latch.living = watch->fd < 0 ? 0 : watch->number;
    return code < 0 ? code : 0;
}

int fk_queue_is_stopped(struct fk_section *section, uint64_t below)
{
    struct fk_row *row = section->row;
    uint64_t *numbers;
    int count = list(row, below, &numbers), stopped = 1;
    /* Falling: what comes at and below the last admitted number doesn't wait. */
    for (int i = 0; stopped == 1 && i < count && numbers[i] > section->latch.admitted; i++) {
        struct fk_watch watch = nothing;
        struct fk_record who;
        if (fk_queue_watch(row, numbers[i], &watch) == 1)
            stopped = fk_queue_who(row, numbers[i], &who) == 0 && fk_owner_look(&who.owner) != FK_ALIVE;
        fk_queue_unwatch(&watch);
    }
    free(numbers);
    return count < 0 ? count : stopped;
}

/* ---- who is it ---- */

_Static_assert(FK_WAITER_RECORD >= FK_RECORD_LEAST, "a place has room for a record");

/* Else the place may be another's: of a living waiter, or of the last one admitted, whose ticket is still watched. */
static bool has_place(const struct fk_latch *latch, uint64_t number)
{
    return number - latch->admitted < FK_WAITERS &&
           fk_latch_reaches(fk_latch_waiter_at(latch->slots, number) + FK_WAITER_SIZE);
}

static void write_place(const struct fk_row *row, uint64_t number, const char *record, size_t length)
{
    char text[FK_WAITER_SIZE + 1];
    off_t at = fk_latch_waiter_at(row->slots, number);
    int head = snprintf(text, sizeof text, "%020llu\n", (unsigned long long)number);
    memcpy(text + head, record, length);
    if (fk_fd_write_at(row->latch, text, (size_t)head + length, at) < 0)
        (void)fk_fd_write_at(row->latch, "-", 1, at); /* cut short, before the rest of an older one: nobody's */
}

static void write_file(const struct fk_row *row, uint64_t number, const char *record, size_t length)
{
    struct ticket_path path = path_of(number, ".who");
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, path.text, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    if (fd >= 0)
        (void)fk_fd_write_at(fd, record, length, 0);
}

static int read_place(const struct fk_row *row, uint64_t number, struct fk_record *record)
{
    char text[FK_WAITER_SIZE];
    char *end;
    ssize_t length = pread(row->latch, text, sizeof text, fk_latch_waiter_at(row->slots, number));
    if (length < FK_WAITER_SIZE - FK_WAITER_RECORD || strtoull(text, &end, 10) != number || *end != '\n')
        return -ENOENT;
    end++;
    return fk_record_read(end, (size_t)(text + length - end), record);
}

static int read_file(const struct fk_row *row, uint64_t number, struct fk_record *record)
{
    char text[FK_RECORD_SIZE];
    FK_CLOSE_FD int fd =
        fk_fd_open(row->directory, path_of(number, ".who").text, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    ssize_t length = read(fd, text, sizeof text);
    return length < 0 ? -errno : fk_record_read(text, (size_t)length, record);
}

int fk_queue_who(const struct fk_row *row, uint64_t number, struct fk_record *record)
{
    return read_place(row, number, record) == 0 ? 0 : read_file(row, number, record);
}

/* ---- come and go ---- */

static int make_ticket(const struct fk_row *row, uint64_t number)
{
    struct ticket_path path = path_of(number, "");
    if (mkfifoat(row->directory, path.text, FILE_MODE) < 0)
        return -errno;
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, path.text, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd == -EACCES && fchmodat(row->directory, path.text, FILE_MODE, 0) == 0) /* a umask that takes our own bits */
        fd = fk_fd_open(row->directory, path.text, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : fk_fd_take(&fd);
}

int fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket)
{
    struct fk_row *row = section->row;
    struct fk_latch *latch = &section->latch;
    uint64_t number = latch->number + 1, before = latch->living;
    if (before == 0)
        latch->admitted = latch->number; /* of all those before nobody waits */
    latch->number = latch->living = number;
    bool in_place = has_place(latch, number);
    int code = fk_latch_write(section->fd, latch);
    int fd = code < 0 ? code : make_ticket(row, number);
    if (fd < 0) {
        unlink_ticket(row, number);
        latch->living = before;
        section->dirty = true;
        return fk_row_fail(fd, row->text, "queue for");
    }
    /* After the ticket: a record that was left without one would be found by nobody. Best effort: it is for people, and a
     * full file system must not keep anybody from waiting. */
    in_place ? write_place(row, number, record, length) : write_file(row, number, record, length);
    *ticket = (struct fk_ticket){.fd = fd, .number = number, .has_who = !in_place};
    return 0;
}

void fk_queue_admit(struct fk_section *section, struct fk_ticket *ticket)
{
    struct fk_latch *latch = &section->latch;
    latch->admitted = ticket->number;
    if (latch->living == ticket->number)
        latch->living = 0;
    section->dirty = true;
    ticket->admitted = true;
}

void fk_queue_tell(struct fk_ticket *ticket)
{
    if (ticket->fd < 0 || ticket->told)
        return;
    if (!ticket->admitted)
        flock(ticket->fd, LOCK_UN);
    fk_fd_tell(ticket->fd, ticket->admitted ? 1 : 2);
    ticket->told = true;
}

void fk_queue_leave(struct fk_row *row, struct fk_ticket *ticket)
{
    if (ticket->fd < 0)
        return;
    fk_queue_tell(ticket);
    if (ticket->has_who)
        unlinkat(row->directory, path_of(ticket->number, ".who").text, 0);
    unlinkat(row->directory, path_of(ticket->number, "").text, 0);
    fk_fd_close(&ticket->fd);
}

void fk_queue_pass(struct fk_row *row, const struct fk_watch *watch)
{
    unlink_ticket(row, watch->number);
}

static bool is_nameless(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_nlink == 0;
}

bool fk_queue_is_passed(const struct fk_ticket *ticket)
{
    return is_nameless(ticket->fd);
}

bool fk_queue_look(struct fk_row *row, struct fk_watch *watch)
{
    struct fk_record who;
    if (is_nameless(watch->fd))
        return true;
    if (fk_queue_who(row, watch->number, &who) < 0)
        return false;
    enum fk_life life = fk_owner_look(&who.owner);
    watch->stopped = life == FK_STOPPED ? watch->stopped + 1 : 0;
    return life == FK_DEAD || watch->stopped >= 2;
}

void fk_queue_unwatch(struct fk_watch *watch)
{
    fk_fd_close(&watch->fd);
    *watch = nothing;
}

/* ---- for messages ---- */

int fk_queue_list(const struct fk_row *row, uint64_t below, uint64_t **numbers)
{
    int count = list(row, below, numbers);
    for (int i = 0; i < count / 2; i++) {
        uint64_t swap = (*numbers)[i];
        (*numbers)[i] = (*numbers)[count - 1 - i];
        (*numbers)[count - 1 - i] = swap;
    }
    return count;
}
