/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "known.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fd.h"

#define SECOND INT64_C(1000000000)
#define TICK (SECOND / 50) /* longer than those of any kernel's coarse clock, and than exFAT's */
#define COARSE_TICK (2 * SECOND) /* of file systems without parts of a second; FAT's are of two */
#define LEAST_SLOTS 64u
#define MOST (UINT32_MAX / 4)

enum mark { USED = 1, TRUSTED = 2 };

struct header {
    char magic[16];
    uint64_t version, count;
};
static const struct header first = {.magic = "flockctl inputs", .version = 1};

static int64_t in_ns(const struct timespec *time)
{
    return (int64_t)time->tv_sec * SECOND + time->tv_nsec;
}

static struct known_file file_of(const struct stat *status)
{
    return (struct known_file){
        .device = status->st_dev,
        .inode = status->st_ino,
        .size = (uint64_t)status->st_size,
        .mtime = in_ns(&status->st_mtim),
        .ctime = in_ns(&status->st_ctim),
    };
}

/* ---- the list and its index ---- */

static bool same_file(const struct known_file *a, const struct known_file *b)
{
    return a->inode == b->inode && a->device == b->device;
}

static uint32_t *slot_of(const struct known *known, const struct known_file *file)
{
    uint64_t hash = (file->inode ^ file->device << 32) * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t at = hash >> 32;; at++) {
        uint32_t *slot = &known->slots[at & (known->n_slots - 1)];
        if (*slot == 0 || same_file(&known->list[*slot - 1], file))
            return slot;
    }
}

/* At least half of the slots stay free. */
static int build_index(struct known *known, size_t count)
{
    size_t n_slots = LEAST_SLOTS;
    while (n_slots < 2 * count)
        n_slots *= 2;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    free(known->slots);
    known->slots = slots;
    known->n_slots = n_slots;
    for (size_t i = 0; i < known->count; i++)
        *slot_of(known, &known->list[i]) = (uint32_t)i + 1;
    return 0;
}

static int make_room(struct known *known, size_t room)
{
    struct known_file *list = reallocarray(known->list, room, sizeof *list);
    if (list)
        known->list = list;
    unsigned char *marks = list ? realloc(known->marks, room) : NULL;
    if (!marks)
        return -ENOMEM;
    known->marks = marks;
    known->room = room;
    return 0;
}

static int grow(struct known *known)
{
    int code = 0;
    if (known->count == MOST)
        return -ENOMEM;
    if (known->count == known->room)
        code = make_room(known, known->room ? 2 * known->room : LEAST_SLOTS);
    if (code == 0 && 2 * (known->count + 1) > known->n_slots)
        code = build_index(known, 2 * (known->count + 1));
    return code;
}

void known_clear(struct known *known)
{
    free(known->list);
    free(known->marks);
    free(known->slots);
    *known = (struct known){0};
}

/* In the list + 1; 0: it isn't there. Files come in the order of the last time, so the index is seldom asked, and not even made where
 * nothing has changed. */
static size_t number_of(struct known *known, const struct known_file *file)
{
    if (known->next < known->count && same_file(&known->list[known->next], file))
        return ++known->next;
    if (known->count == 0 || (known->n_slots == 0 && build_index(known, known->count) < 0))
        return 0;
    size_t number = *slot_of(known, file);
    if (number > 0)
        known->next = number;
    return number;
}

static bool is_still(const struct known_file *file, const struct known_file *now)
{
    return file->size == now->size && file->mtime == now->mtime && file->ctime == now->ctime;
}

const unsigned char *known_find(struct known *known, const struct stat *status)
{
    struct known_file now = file_of(status);
    size_t number = number_of(known, &now);
    if (number == 0 || !(known->marks[number - 1] & TRUSTED) || !is_still(&known->list[number - 1], &now))
        return NULL;
    known->marks[number - 1] |= USED;
    return known->list[number - 1].digest;
}

/* The time of the last change can't be set by anybody, so it tells whether the file system has parts of a second. */
static bool was_left_alone(const struct stat *status, const struct timespec *began)
{
    int64_t tick = status->st_ctim.tv_nsec == 0 ? COARSE_TICK : TICK;
    return in_ns(&status->st_ctim) + tick < in_ns(began);
}

int known_add(struct known *known, const struct stat *status, const struct timespec *began, bool steady,
              const unsigned char digest[DIGEST_SIZE])
{
    struct known_file now = file_of(status);
    bool trusted = steady && was_left_alone(status, began);
    int code = grow(known);
    if (code < 0)
        return code;
    uint32_t *slot = slot_of(known, &now);
    bool same = *slot && memcmp(known->list[*slot - 1].digest, digest, DIGEST_SIZE) == 0;
    memcpy(now.digest, digest, DIGEST_SIZE);
    if (*slot == 0)
        *slot = (uint32_t)++known->count;
    known->list[*slot - 1] = now;
    known->marks[*slot - 1] = trusted ? USED | TRUSTED : USED;
    known->news = known->news || trusted;
    return !same;
}

/* ---- the file ---- */

static int read_whole(int fd, void *bytes, size_t size)
{
    for (char *at = bytes; size > 0;) {
        ssize_t length = read(fd, at, size);
        if (length <= 0)
            return length < 0 ? -errno : -EBADMSG;
        at += length;
        size -= (size_t)length;
    }
    return 0;
}

/* How many it says it has, if it is whole and nobody else can have made it. */
static int read_header(int fd, size_t *count)
{
    struct stat status;
    struct header header;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || (status.st_uid != geteuid() && status.st_uid != 0))
        return -EPERM;
    int code = read_whole(fd, &header, sizeof header);
    if (code < 0)
        return code;
    size_t size = (size_t)status.st_size - sizeof header;
    if (memcmp(&header, &first, offsetof(struct header, count)) != 0 || size % sizeof(struct known_file) != 0 ||
        size / sizeof(struct known_file) != header.count || header.count > MOST)
        return -EBADMSG;
    *count = header.count;
    return 0;
}

static int read_file(struct known *known, int fd)
{
    size_t count = 0;
    int code = read_header(fd, &count);
    if (code == 0)
        code = make_room(known, count + 1);
    if (code == 0)
        code = read_whole(fd, known->list, count * sizeof *known->list);
    if (code < 0)
        return code;
    known->count = count;
    memset(known->marks, TRUSTED, count);
    return 0;
}

void known_load(struct known *known, int directory, const char *name)
{
    *known = (struct known){0};
    FK_CLOSE_FD int fd = fk_fd_open(directory, name, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0 || read_file(known, fd) < 0)
        known_clear(known);
}

static int write_file(const struct known *known, int fd)
{
    struct header header = first;
    struct known_file *kept = reallocarray(NULL, known->count + 1, sizeof *kept);
    if (!kept)
        return -ENOMEM;
    for (size_t i = 0; i < known->count; i++)
        if (known->marks[i] == (USED | TRUSTED))
            kept[header.count++] = known->list[i];
    size_t size = header.count * sizeof *kept;
    int code = ftruncate(fd, 0) < 0 ? -errno : fk_fd_write_at(fd, (const char *)&header, sizeof header, 0);
    if (code == 0)
        code = fk_fd_write_at(fd, (const char *)kept, size, sizeof header);
    free(kept);
    return code;
}

/* The lock of a .new that nobody has renamed in the meantime. Who finds it taken leaves the saving to the other. */
static int lock_new(int directory, const char *name)
{
    struct stat ours, there;
    FK_CLOSE_FD int fd = fk_fd_open(directory, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0666);
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &ours) < 0 ||
        fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (ours.st_dev != there.st_dev || ours.st_ino != there.st_ino || !S_ISREG(ours.st_mode))
        return -EWOULDBLOCK;
    return fk_fd_take(&fd);
}

int known_save(struct known *known, int directory, const char *name)
{
    char new[NAME_MAX + 1];
    if (!known->news)
        return 0;
    if ((size_t)snprintf(new, sizeof new, "%s.new", name) >= sizeof new)
        return -ENAMETOOLONG;
    FK_CLOSE_FD int fd = lock_new(directory, new);
    if (fd < 0)
        return fd;
    int code = write_file(known, fd);
    if (code == 0 && (fdatasync(fd) < 0 || renameat(directory, new, directory, name) < 0))
        code = -errno;
    if (code < 0)
        unlinkat(directory, new, 0);
    known->news = code < 0;
    return code;
}
