/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "latch.h"
#include "root.h"

#define PUBLISHED '+'
#define FREE '-'
#define PLACES_MAX 9999u /* of one publication: four digits */
#define SLACK 65536 /* free places at the end that are worth cutting off */

static int open_file(void)
{
    const char *root;
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    const char *path = FK_ROOT_BELOW(root, "/waiting");
    int fd = fk_fd_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600 | S_ISVTX);
    return fd < 0 ? fk_fail_errno(fd, "can't open %s", path) : fd;
}

static int read_file(struct fk_waiting *waiting)
{
    struct stat status;
    if (fstat(waiting->fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
        return -EPERM;
    size_t size = (size_t)status.st_size / FK_WAITING_PLACE * FK_WAITING_PLACE;
    waiting->text = malloc(size + 1);
    if (!waiting->text)
        return -ENOMEM;
    ssize_t length = pread(waiting->fd, waiting->text, size, 0);
    if (length < 0)
        return -errno;
    waiting->size = (size_t)length / FK_WAITING_PLACE * FK_WAITING_PLACE;
    return 0;
}

int fk_waiting_lock(int64_t until, struct fk_waiting *waiting)
{
    *waiting = (struct fk_waiting){.fd = open_file()};
    int code = waiting->fd < 0 ? waiting->fd : fk_latch_lock(waiting->fd, until);
    if (code == 0) {
        code = read_file(waiting);
        if (code < 0)
            fk_waiting_unlock(waiting);
    }
    if (code < 0)
        fk_fd_close(&waiting->fd);
    return code == 0 || code == -EAGAIN ? code : fk_fail_errno(code, "can't look for deadlocks");
}

void fk_waiting_unlock(struct fk_waiting *waiting)
{
    fk_latch_unlock(waiting->fd);
    free(waiting->text);
    waiting->text = NULL;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* What makes no sense is one free place. */
bool fk_waiting_next(const struct fk_waiting *waiting, size_t *at, struct fk_waiting_span *span)
{
    if (*at >= waiting->size)
        return false;
    const char *head = waiting->text + *at;
    unsigned places = 0;
    for (int i = 1; i <= 4 && is_digit(head[i]); i++)
        places = places * 10 + (unsigned)(head[i] - '0');
    bool sane = places > 0 && head[FK_WAITING_HEAD - 1] == '\n' && places <= (waiting->size - *at) / FK_WAITING_PLACE;
    *span = (struct fk_waiting_span){
        .at = *at,
        .size = (sane ? places : 1) * (size_t)FK_WAITING_PLACE,
        .published = sane && head[0] == PUBLISHED,
    };
    *at += span->size;
    return true;
}

static void put_head(char head[FK_WAITING_HEAD + 1], char mark, size_t places)
{
    snprintf(head, FK_WAITING_HEAD + 1, "%c%04u\n", mark, (unsigned)places % (PLACES_MAX + 1));
}

/* Where size bytes fit: the first free neighbours that are enough, or the end; *room is what is free there, *used what all
 * publications reach up to. */
static size_t find_room(const struct fk_waiting *waiting, size_t size, size_t *room, size_t *used)
{
    struct fk_waiting_span span;
    size_t at = 0, begin = 0, found = SIZE_MAX;
    *used = *room = 0;
    while (fk_waiting_next(waiting, &at, &span)) {
        if (span.published)
            *used = begin = at;
        else if (found == SIZE_MAX && at - begin >= size) {
            found = begin;
            *room = at - begin;
        }
    }
    if (found == SIZE_MAX) {
        found = begin;
        *room = waiting->size - begin;
    }
    return found;
}

static int write_places(struct fk_waiting *waiting, size_t at, const char *text, size_t size, size_t room)
{
    char rest[FK_WAITING_HEAD + 1];
    int code = 0;
    if (room > size) {
        size_t places = (room - size) / FK_WAITING_PLACE;
        put_head(rest, FREE, places < PLACES_MAX ? places : PLACES_MAX);
        code = fk_fd_write_at(waiting->fd, rest, FK_WAITING_HEAD, (off_t)(at + size));
    }
    if (code == 0)
        code = fk_fd_write_at(waiting->fd, text, size, (off_t)at);
    return code < 0 ? code : fk_fd_write_at(waiting->fd, &(char){PUBLISHED}, 1, (off_t)at);
}

int fk_waiting_publish(struct fk_waiting *waiting, char *text, size_t length, size_t *out)
{
    size_t places = (length + FK_WAITING_PLACE - 1) / FK_WAITING_PLACE, size = places * FK_WAITING_PLACE;
    char head[FK_WAITING_HEAD + 1];
    if (places > PLACES_MAX)
        return -E2BIG;
    size_t room, used, at = find_room(waiting, size, &room, &used);
    size_t end = at + size > waiting->size ? at + size : waiting->size;
    char *grown = realloc(waiting->text, end + 1);
    if (!grown)
        return -ENOMEM;
    waiting->text = grown;
    put_head(head, FREE, places);
    memcpy(text, head, FK_WAITING_HEAD);
    memset(grown + at, ' ', size);
    memcpy(grown + at, text, length);
    int code = write_places(waiting, at, grown + at, size, room);
    if (code < 0)
        return code;
    grown[at] = PUBLISHED;
    waiting->size = end;
    used = at + size > used ? at + size : used;
    if (end > used + SLACK && ftruncate(waiting->fd, (off_t)used) == 0)
        waiting->size = used;
    *out = at;
    return 0;
}

bool fk_waiting_stands(const struct fk_waiting *waiting, const struct fk_waiting_span *span)
{
    char *now = malloc(span->size);
    bool same = now && pread(waiting->fd, now, span->size, (off_t)span->at) == (ssize_t)span->size &&
                memcmp(now, waiting->text + span->at, span->size) == 0;
    free(now);
    return same;
}

void fk_waiting_withdraw(int fd, size_t at)
{
    (void)fk_fd_write_at(fd, &(char){FREE}, 1, (off_t)at);
}
