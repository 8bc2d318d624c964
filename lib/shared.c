/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shared.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "flockctl.h"

#define LOOK_AT 4 /* places, before it is a file */
#define IN_FILE (-1)

struct shared_path {
    char text[16 + FLK_ID_SIZE];
};

static struct shared_path path_of(const char *id)
{
    struct shared_path path;
    snprintf(path.text, sizeof path.text, "holders/%s", id);
    return path;
}

static off_t place_at(int place)
{
    return fk_latch_waiter_at(1, FK_WAITERS - 1) + FK_WAITER_SIZE + (off_t)place * FK_SHARED_SIZE;
}

static bool is_in_use(int fd, int place)
{
    char mark = FK_ENDED;
    return pread(fd, &mark, 1, place_at(place)) == 1 && mark == FK_LIVE;
}

/* Processes begin to look at different places, so that the first is free as a rule. */
static int find_place(const struct fk_section *section, const struct fk_owner *self)
{
    if (!fk_latch_reaches(place_at(FK_SHARED_PLACES)))
        return IN_FILE;
    for (int i = 0; i < LOOK_AT; i++) {
        int place = (self->pid + i) % FK_SHARED_PLACES;
        if (!is_in_use(section->fd, place))
            return place;
    }
    return IN_FILE;
}

static int write_file(const struct fk_row *row, const char *id, const char *text, size_t length)
{
    FK_CLOSE_FD int fd =
        fk_fd_open(row->directory, path_of(id).text, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600 | S_ISVTX);
    return fd < 0 ? fd : fk_fd_write_at(fd, text, length, 0);
}

int fk_shared_begin(struct fk_section *section, const char *id, const char *text, size_t length, int *place)
{
    const struct fk_owner *self;
    int code = fk_owner_self(&self);
    if (code == 0 && !section->latch.shared) {
        section->latch.shared = true;
        code = fk_latch_write(section->fd, &section->latch);
    }
    if (code < 0)
        return code;
    *place = find_place(section, self);
    code = *place == IN_FILE ? write_file(section->row, id, text, length)
                             : fk_fd_write_at(section->fd, text, length, place_at(*place));
    if (code < 0)
        fk_shared_end(section->row, id, *place); /* it may stand there in part */
    return code;
}

/* Failures are nobody's to mend: the next exclusive holder sweeps. */
void fk_shared_end(const struct fk_row *row, const char *id, int place)
{
    if (place == IN_FILE)
        unlinkat(row->directory, path_of(id).text, 0);
    else
        (void)fk_fd_write_at(row->latch, &(char){FK_ENDED}, 1, place_at(place));
}

static DIR *open_files(const struct fk_row *row)
{
    DIR *directory;
    return fk_fd_open_directory(row->directory, "holders", &directory) < 0 ? NULL : directory;
}

bool fk_shared_sweep(struct fk_section *section)
{
    bool found = false;
    for (int place = 0; place < FK_SHARED_PLACES; place++)
        if (is_in_use(section->fd, place)) {
            fk_shared_end(section->row, "", place);
            found = true;
        }
    DIR *directory = open_files(section->row);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            found |= unlinkat(dirfd(directory), entry->d_name, 0) == 0;
    if (directory)
        fk_fd_close_directory(directory);
    section->latch.shared = false;
    section->dirty = true;
    return found;
}

void fk_shared_foreach(const struct fk_row *row, void (*each)(const char *text, size_t length, void *data), void *data)
{
    char text[FK_RECORD_SIZE];
    for (int place = 0; place < FK_SHARED_PLACES; place++) {
        ssize_t length = pread(row->latch, text, FK_SHARED_SIZE, place_at(place));
        if (length > 0)
            each(text, (size_t)length, data);
    }
    DIR *directory = open_files(row);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        FK_CLOSE_FD int fd = fk_fd_open(dirfd(directory), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
        ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text);
        if (length > 0)
            each(text, (size_t)length, data);
    }
    if (directory)
        fk_fd_close_directory(directory);
}
