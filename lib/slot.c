/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cancel.h"
#include "error.h"
#include "fd.h"
#include "pool.h"

/* Rows larger than this get one page a pipe: a user's pipes share a budget (pipe(7), pipe-user-pages-soft). */
#define SMALL_ROW 64
/* Who won't sleep on the slot of a row of one leaves the bytes of earlier releases in it, but not for ever. */
#define DRAIN_EVERY 256

struct slot_path {
    char text[24];
};

static struct slot_path path_of(unsigned slot)
{
    struct slot_path path = {"slots/"};
    if (slot < 10) {
        path.text[6] = (char)('0' + slot);
        path.text[7] = '\0';
    } else {
        snprintf(path.text + 6, sizeof path.text - 6, "%u", slot);
    }
    return path;
}

static int damaged(const struct fk_row *row, unsigned slot, const char *what)
{
    char sentence[64];
    snprintf(sentence, sizeof sentence, "its slots/%u is %s", slot, what);
    return fk_row_damaged(row->text, sentence);
}

static int cannot_open(const struct fk_row *row, unsigned slot, int code)
{
    if (code == -ELOOP || code == -EISDIR || code == -ENOENT || code == -ENXIO)
        return damaged(row, slot, code == -ELOOP ? "a symbolic link" : code == -ENOENT ? "not there" : "no FIFO");
    return fk_row_fail(code, row->text, "open slot %u of", slot);
}

static int check_fifo(const struct fk_row *row, unsigned slot, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return fk_row_fail(-errno, row->text, "look at slot %u of", slot);
    if (S_ISFIFO(status.st_mode) && status.st_uid == geteuid())
        return 0;
    return damaged(row, slot, S_ISFIFO(status.st_mode) ? "another user's" : "no FIFO");
}

static int open_slot(const struct fk_row *row, unsigned slot, int access)
{
    struct slot_path path = path_of(slot);
    int fd = fk_fd_open(row->directory, path.text, access | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0);
    return fd < 0 ? cannot_open(row, slot, fd) : fd;
}

static void drain(int fd)
{
    char bytes[512];
    while (read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}

/* ---- watches ---- */

static unsigned watches_allowed(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 4 > UINT_MAX ? UINT_MAX
                                                                                 : (unsigned)(limit.rlim_cur / 4);
}

/* Keeps (a) of the header; without readers (ENXIO) there is nobody to be told. */
static void put_byte_back(const struct fk_row *row, unsigned slot)
{
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, path_of(slot).text, O_WRONLY | O_NONBLOCK | O_NOFOLLOW, 0);
    if (fd >= 0)
        fk_fd_tell(fd, 1);
}

/* Keeps it when a process cloned while the primer was open has a copy of that: no hang-up then, though nobody has the slot. */
static void speak_for_copy(const struct fk_row *row, unsigned slot, int watch)
{
    struct pollfd event = {.fd = watch, .events = POLLIN};
    if (fk_poll_now(&event, 1) != 0 || flock(watch, LOCK_EX | LOCK_NB) < 0)
        return;
    flock(watch, LOCK_UN);
    put_byte_back(row, slot);
}

static int open_watch(struct fk_row *row, unsigned slot)
{
    FK_CLOSE_FD int fd = open_slot(row, slot, O_RDONLY | O_NOATIME);
    int code = fd < 0 ? fd : check_fifo(row, slot, fd);
    if (code < 0)
        return code;
    if (row->slots > SMALL_ROW)
        fcntl(fd, F_SETPIPE_SZ, 4096);
    FK_CLOSE_FD int primer = open_slot(row, slot, O_RDWR);
    if (primer < 0)
        return primer;
    fk_fd_close(&primer);
    speak_for_copy(row, slot, fd);
    row->watches[slot] = fk_fd_take(&fd);
    row->n_watches++;
    return 0;
}

/* As many as are allowed; what has none is tried by opening it, and a sleeper finds it by its look once a second. */
static int open_watches(struct fk_row *row)
{
    if (row->n_watches == row->slots)
        return 0;
    if (!row->watches) {
        row->watches = malloc(row->slots * sizeof *row->watches);
        if (!row->watches)
            return fk_fail(-ENOMEM, "out of memory");
        memset(row->watches, -1, row->slots * sizeof *row->watches);
    }
    unsigned allowed = watches_allowed();
    for (unsigned slot = 0; slot < row->slots && row->n_watches < allowed; slot++) {
        int code = row->watches[slot] < 0 ? open_watch(row, slot) : 0;
        if (code < 0)
            return code;
    }
    return 0;
}

static int watch_of(const struct fk_row *row, unsigned slot)
{
    return row->watches ? row->watches[slot] : -1;
}

/* Opens those that are missing, where that makes all of them. */
static bool has_all_watches(struct fk_row *row)
{
    return row->n_watches == row->slots ||
           (row->slots <= watches_allowed() && open_watches(row) == 0 && row->n_watches == row->slots);
}

bool fk_slots_watch(struct fk_row *row, struct pollfd *polls)
{
    if (!has_all_watches(row))
        return false;
    for (unsigned slot = 0; slot < row->slots; slot++)
        polls[slot] = (struct pollfd){.fd = row->watches[slot], .events = POLLIN};
    return true;
}

/* ---- one slot ---- */

/* The descriptor, or -EAGAIN: busy. Without (b), which is for those who will sleep; and in rows of several the bytes in a slot that
 * is taken would look like news. */
static int take_as_is(struct fk_row *row, unsigned slot, int mode)
{
    int watch = watch_of(row, slot);
    FK_CLOSE_FD int fd = open_slot(row, slot, O_RDWR);
    if (fd < 0)
        return fd;
    if (watch < 0 && !row->checked) {
        int code = check_fifo(row, slot, fd);
        if (code < 0)
            return code;
        row->checked = row->slots == 1;
    }
    if (flock(fd, mode | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : fk_row_fail(-errno, row->text, "lock slot %u of", slot);
    if (watch < 0)
        drain(fd); /* nobody who sleeps on it is before us */
    return fk_fd_take(&fd);
}

static int take_one(struct fk_row *row, unsigned slot, int mode)
{
    int watch = watch_of(row, slot);
    if (watch >= 0)
        drain(watch);
    return take_as_is(row, slot, mode);
}

/* 1 free, 0 busy, or an error. Leaves no byte in it. */
static int is_free(struct fk_row *row, unsigned slot, int mode)
{
    int watch = watch_of(row, slot);
    if (watch < 0) {
        int fd = take_one(row, slot, mode);
        if (fd < 0)
            return fd == -EAGAIN ? 0 : fd;
        fk_slot_drop(&fd);
        return 1;
    }
    drain(watch);
    if (flock(watch, mode | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? 0 : fk_row_fail(-errno, row->text, "lock slot %u of", slot);
    flock(watch, LOCK_UN);
    return 1;
}

void fk_slot_unlock(int fd)
{
    flock(fd, LOCK_UN);
    /* EAGAIN: so many bytes are in it already that nobody can miss the news. */
    fk_fd_tell(fd, 1);
}

void fk_slot_drop(int *fd)
{
    fk_slot_unlock(*fd);
    fk_fd_close(fd);
}

/* ---- a row of one: try it ---- */

static int take_single(struct fk_section *section, int mode, int *fd, struct pollfd *busy, unsigned *n_busy)
{
    struct fk_row *row = section->row;
    /* A watch keeps the kernel's pipe alive between holders, which is a fifth of the time of a cycle; it isn't worth
     * opening for one. */
    int code = row->used || busy ? open_watches(row) : 0;
    if (code < 0)
        return code;
    /* What the sleep has shown is most likely free; else (b), and the last try before a sleep is always that. */
    bool shown = busy && *n_busy == 1 && busy[0].revents;
    bool drains = (busy && !shown) || row->takes++ % DRAIN_EVERY == 0;
    *fd = drains ? take_one(row, 0, mode) : take_as_is(row, 0, mode);
    if (*fd == -EAGAIN && shown && !drains)
        *fd = take_one(row, 0, mode);
    if (*fd >= 0) {
        row->used = true;
        return 0;
    }
    if (*fd == -EAGAIN && busy) {
        busy[0] = (struct pollfd){.fd = watch_of(row, 0), .events = POLLIN};
        *n_busy = 1;
    }
    return *fd;
}

/* ---- a row of several ---- */

enum hint {
    BUSY,
    PASSED, /* whatever it is, it isn't to be taken, and nobody sleeps on it */
    FREE,
    MAYBE,
    FREE_NO_BYTE
};

static int look(struct fk_section *section, bool sweep, struct pollfd *polls, unsigned char *hints)
{
    struct fk_row *row = section->row;
    unsigned n = 0;
    for (unsigned slot = 0; slot < row->slots; slot++)
        if (watch_of(row, slot) >= 0)
            polls[n++] = (struct pollfd){.fd = watch_of(row, slot), .events = POLLIN};
    int code = fk_poll_now(polls, n); /* it takes no more of them than the limit of open files, even if they are -1 */
    if (code < 0)
        return fk_row_fail(code, row->text, "poll the slots of");
    for (unsigned slot = 0, at = 0; slot < row->slots; slot++) {
        bool watched = watch_of(row, slot) >= 0;
        short shown = watched ? polls[at++].revents : 0;
        hints[slot] = shown & POLLHUP ? FREE : sweep || !watched || (shown & POLLIN) ? MAYBE : BUSY;
        if (section->passed && section->passed[slot])
            hints[slot] = PASSED;
    }
    return 0;
}

/* How many are free; settles every MAYBE. */
static int count_free(struct fk_row *row, int mode, unsigned char *hints)
{
    int count = 0;
    for (unsigned slot = 0; slot < row->slots; slot++) {
        if (hints[slot] == MAYBE) {
            int code = is_free(row, slot, mode);
            if (code < 0)
                return code;
            hints[slot] = code ? FREE_NO_BYTE : BUSY;
        }
        count += hints[slot] > PASSED;
    }
    return count;
}

/* Takes free slots until there are count of them; *got: how many. Outsiders may have been quicker with some. order: n_order of them,
 * the best first; NULL: all, the lowest first. */
static int take_free(struct fk_row *row, unsigned count, int mode, const unsigned *order, unsigned n_order,
                     unsigned char *hints, unsigned *slots, int *fds, unsigned *got)
{
    for (unsigned i = 0; i < n_order && *got < count; i++) {
        unsigned slot = order ? order[i] : i;
        if (hints[slot] <= PASSED)
            continue;
        int fd = take_one(row, slot, mode);
        if (fd == -EAGAIN) {
            hints[slot] = BUSY;
            continue;
        }
        if (fd < 0)
            return fd;
        slots[*got] = slot;
        fds[(*got)++] = fd;
        hints[slot] = FREE; /* taken: should we drop it again, it has a byte */
    }
    return 0;
}

void fk_slots_sort(unsigned count, unsigned *slots, int *fds)
{
    for (unsigned i = 1; i < count; i++)
        for (unsigned at = i; at > 0 && slots[at - 1] > slots[at]; at--) {
            unsigned slot = slots[at];
            int fd = fds[at];
            slots[at] = slots[at - 1];
            fds[at] = fds[at - 1];
            slots[at - 1] = slot;
            fds[at - 1] = fd;
        }
}

/* In the order in which the pool hands them out; hints are those of look(). */
static int take_in_order(struct fk_section *section, unsigned count, int mode, unsigned char *hints, unsigned *slots,
                         int *fds, unsigned *got)
{
    struct fk_row *row = section->row;
    unsigned *order = malloc(row->slots * (sizeof *order + sizeof(bool)));
    if (!order)
        return fk_fail(-ENOMEM, "out of memory");
    bool *is_free = (bool *)(order + row->slots);
    for (unsigned slot = 0; slot < row->slots; slot++)
        is_free[slot] = hints[slot] == FREE || hints[slot] == FREE_NO_BYTE;
    int code = fk_pool_order(section, is_free, order);
    if (code >= 0)
        code = take_free(row, count, mode, order, (unsigned)code, hints, slots, fds, got);
    fk_slots_sort(*got, slots, fds);
    free(order);
    return code;
}

static int take_several(struct fk_section *section, unsigned count, int mode, bool sweep, unsigned *slots, int *fds,
                        struct pollfd *polls, unsigned char *hints)
{
    struct fk_row *row = section->row;
    int code = open_watches(row);
    if (code == 0)
        code = look(section, sweep, polls, hints);
    if (code == 0)
        code = count == 1 ? 1 : count_free(row, mode, hints); /* one is had or isn't: that settles it too */
    if (code < 0)
        return code;
    unsigned got = 0;
    if ((unsigned)code >= count)
        code = fk_pool_spreads(row) ? take_in_order(section, count, mode, hints, slots, fds, &got)
                                    : take_free(row, count, mode, NULL, row->slots, hints, slots, fds, &got);
    bool enough = got == count;
    while (!enough && got > 0)
        fk_slot_drop(&fds[--got]);
    for (unsigned slot = 0; slot < row->slots; slot++)
        if (hints[slot] == FREE_NO_BYTE)
            put_byte_back(row, slot);
    return enough ? 0 : code < 0 ? code : -EAGAIN;
}

/* What the sleep has shown, without asking again: 0, -EAGAIN or an error. */
static int take_shown(struct fk_row *row, int mode, const struct pollfd *shown, unsigned n, unsigned *slot, int *fd)
{
    for (unsigned i = 0, at = 0; i < n && at < row->slots; at++) {
        if (shown[i].fd != watch_of(row, at))
            continue;
        if (shown[i++].revents == 0)
            continue;
        *slot = at;
        *fd = take_one(row, at, mode);
        if (*fd != -EAGAIN)
            return *fd < 0 ? *fd : 0;
    }
    return -EAGAIN;
}

/* Who had the lowest the last time will have it again where nobody else wants any, and needn't look at the others. */
static int take_first(struct fk_row *row, int mode, int *fd)
{
    *fd = row->had_first && watch_of(row, 0) >= 0 ? take_one(row, 0, mode) : -EAGAIN;
    row->had_first = *fd >= 0;
    return *fd < 0 ? *fd : 0;
}

/* Sleeping on what is known to be free would not be sleeping. */
static unsigned keep_busy(const struct fk_row *row, const unsigned char *hints, struct pollfd *busy)
{
    unsigned count = 0;
    for (unsigned slot = 0; slot < row->slots; slot++)
        if (hints[slot] == BUSY && watch_of(row, slot) >= 0)
            busy[count++] = (struct pollfd){.fd = watch_of(row, slot), .events = POLLIN};
    return count;
}

int fk_slots_take(struct fk_section *section, unsigned count, int mode, bool sweep, unsigned *slots, int *fds,
                  struct pollfd *busy, unsigned *n_busy)
{
    unsigned n = section->row->slots;
    if (n == 1 && section->passed && section->passed[0]) {
        *n_busy = 0;
        return -EAGAIN;
    }
    if (n == 1) {
        slots[0] = 0;
        return take_single(section, mode, fds, busy, n_busy);
    }
    bool plain = count == 1 && !sweep && !fk_pool_spreads(section->row) && !section->passed;
    slots[0] = 0;
    int code = !plain ? -EAGAIN
               : busy ? take_shown(section->row, mode, busy, *n_busy, slots, fds)
                      : take_first(section->row, mode, fds);
    if (code != -EAGAIN)
        return code;
    struct pollfd *polls = malloc(n * (sizeof *polls + 1));
    if (!polls)
        return fk_fail(-ENOMEM, "out of memory");
    unsigned char *hints = (unsigned char *)(polls + n);
    code = take_several(section, count, mode, sweep, slots, fds, polls, hints);
    if (code == -EAGAIN && busy)
        *n_busy = keep_busy(section->row, hints, busy);
    section->row->had_first = code == 0 && count == 1 && slots[0] == 0;
    free(polls);
    return code;
}
