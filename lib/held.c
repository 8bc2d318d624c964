/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "held.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "hold.h"
#include "proc.h"
#include "registry.h"
#include "root.h"

/* ---- what the library holds ---- */

static unsigned long long inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) < 0 ? 0 : status.st_ino;
}

struct writing {
    FILE *out;
    int lines;
};

static void begin_line(struct writing *writing, const struct fk_row *row, bool shared)
{
    fprintf(writing->out, "holds=%llu %u %c %s", (unsigned long long)row->inode, row->slots, shared ? 's' : 'x',
            row->text);
    writing->lines++;
}

/* Who draws from a hold keeps that one's slots. ours: as long as we wait, by descriptors of our own. */
static void write_nest(const struct fk_nest *nest, const struct fk_row *row, bool ours, struct writing *writing)
{
    begin_line(writing, row, nest->shared);
    for (unsigned i = 0; i < nest->slots; i++) {
        int fd = ours && nest->fds ? nest->fds[i] : -1;
        fprintf(writing->out, " %u:%d:%llu", nest->numbers[i], fd, fd < 0 ? 0 : inode_of(fd));
    }
    fputc('\n', writing->out);
}

static void write_part(const struct fk_part *part, struct writing *writing)
{
    if (part->nest)
        write_nest(part->nest, part->outer, true, writing);
    if (part->count == 0)
        return;
    begin_line(writing, part->row, part->shared);
    for (unsigned i = 0; i < part->count; i++)
        fprintf(writing->out, " %u:%d:%llu", part->slots[i], part->fds[i], inode_of(part->fds[i]));
    fputc('\n', writing->out);
}

static void write_own(const struct fk_part *part, bool own, void *writing)
{
    if (own)
        write_part(part, writing);
}

static void note_own(const struct fk_part *part, bool own, void *data)
{
    (void)part;
    *(bool *)data |= own;
}

/* ---- what the process has inherited ---- */

/* The variables may be gone (env -i, su -) while the descriptors are still there: the first has the lowest number there is for them. */
static bool can_have_inherited(void)
{
    return getenv("FLOCKCTL_HELD") || getenv("FLOCKCTL_ID") || fk_hold_came_by_fork() ||
           fcntl(FK_LOWEST_INHERITED, F_GETFD) >= 0;
}

struct descriptor {
    int fd;
    bool ours;
};

static void look_in_part(const struct fk_part *part, bool own, void *data)
{
    struct descriptor *descriptor = data;
    (void)own;
    for (unsigned i = 0; i < part->count; i++)
        descriptor->ours |= part->fds[i] == descriptor->fd;
}

/* Of some hold of this process's, which another thread may release. */
static bool is_held_here(int fd)
{
    struct descriptor descriptor = {.fd = fd};
    fk_registry_foreach(look_in_part, &descriptor);
    return descriptor.ours;
}

struct inherited {
    char row[PATH_MAX + 1]; /* its text */
    unsigned slot, slots;
    bool shared;
    unsigned long long row_inode, inode;
};

/* Takes the last component off path: where it begins, or NULL. */
static char *cut(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    return slash ? slash + 1 : NULL;
}

/* "/run/flockctl/rows/NAME/slots/K", or with "/under/ID" behind the name, or once/KEY in place of rows/NAME; the directory above may
 * be called otherwise here than it was by whoever opened it. */
static bool split_path(char *path, struct inherited *found)
{
    char *end, *slot = cut(path), *slots = slot ? cut(path) : NULL;
    if (!slots || strcmp(slots, "slots") != 0)
        return false;
    found->slot = (unsigned)strtoul(slot, &end, 10);
    char *row = *end == '\0' ? cut(path) : NULL, *above = row ? strrchr(path, '/') : NULL, *id = NULL;
    if (above && strcmp(above, "/under") == 0) {
        cut(path);
        id = row;
        row = cut(path);
    }
    const char *rows = row ? cut(path) : NULL;
    bool output = rows && strcmp(rows, "once") == 0;
    if (!output && (!rows || strcmp(rows, "rows") != 0))
        return false;
    snprintf(found->row, sizeof found->row, "%s%s%s%s", output ? (char[]){FK_OUTPUT_MARK, '\0'} : "", row,
             id ? "/under/" : "", id ? id : "");
    return true;
}

/* path: room for one. Two of them are much of a small stack. */
static bool look_at_row(struct inherited *found, const struct stat *slot, char path[PATH_MAX])
{
    char below[32], record[FK_RECORD_SIZE];
    struct stat status;
    struct fk_latch latch;
    if (strlen(found->row) >= FK_ROW_PLACE_SIZE - sizeof "/rows/" || fk_row_path(found->row, path) < 0)
        return false;
    FK_CLOSE_FD int directory = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    snprintf(below, sizeof below, "slots/%u", found->slot);
    if (directory < 0 || fstatat(directory, below, &status, 0) < 0 || status.st_ino != slot->st_ino ||
        status.st_dev != slot->st_dev)
        return false;
    FK_CLOSE_FD int fd = fk_fd_open(directory, "latch", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0 || fstat(directory, &status) < 0 || fk_latch_read(fd, &latch, record) < 0)
        return false;
    found->row_inode = status.st_ino;
    found->slots = latch.slots;
    return true;
}

static bool is_inherited(int fd, struct inherited *found)
{
    char link[64], path[PATH_MAX];
    struct stat status;
    if (fk_fd_is_ours(fd) || fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode) || is_held_here(fd))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    found->inode = status.st_ino;
    return split_path(path, found) && fk_proc_has_lock(fd, &found->shared) && look_at_row(found, &status, path);
}

static void write_inherited(struct writing *writing)
{
    struct inherited *found = malloc(sizeof *found);
    int fds = fk_fd_open(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY, 0);
    DIR *directory = fds < 0 || !found ? NULL : fdopendir(fds);
    if (!directory)
        fk_fd_close(&fds);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char *end;
        int fd = (int)strtol(entry->d_name, &end, 10);
        if (entry->d_name[0] == '.' || *end || !is_inherited(fd, found))
            continue;
        fprintf(writing->out, "holds=%llu %u %c %s %u:%d:%llu\n", found->row_inode, found->slots,
                found->shared ? 's' : 'x', found->row, found->slot, fd, found->inode);
        writing->lines++;
    }
    if (directory)
        fk_fd_close_directory(directory);
    free(found);
}

static void write_covering_hold(const char *name, struct writing *writing)
{
    struct fk_row *row;
    struct fk_nest *nest = NULL;
    if (fk_row_open(name, 0, FK_ROW_LOOK, &row) < 0)
        return;
    if (fk_nest_find(row, &nest) == 1) {
        write_nest(nest, row, false, writing);
        fk_nest_free(nest, false);
    }
    fk_registry_unref(row);
}

/* name@id@fd becomes name, if that is an entry whose descriptor isn't a FIFO of ours any more. */
static bool was_closed(char *entry)
{
    struct stat status;
    char *end, *fd = strrchr(entry, '@');
    if (!fd || fd == entry)
        return false;
    *fd++ = '\0';
    char *id = strrchr(entry, '@');
    long number = strtol(fd, &end, 10);
    if (!id || *end || number < 0 || number > INT_MAX)
        return false;
    *id = '\0';
    return fstat((int)number, &status) < 0 || !S_ISFIFO(status.st_mode);
}

/* Names in FLOCKCTL_HELD of which we have no descriptor (what ran in between has closed it): the hold is known by the ancestor that has
 * it, and that waits for us. Entries of one name stand together. */
static void write_by_ancestry(struct writing *writing)
{
    const char *held = getenv("FLOCKCTL_HELD"), *last = "";
    char *names = strdup(held ? held : ""), *rest = names;
    for (char *entry; names && (entry = strsep(&rest, ","));) {
        if (!was_closed(entry) || strcmp(entry, last) == 0)
            continue;
        write_covering_hold(entry, writing);
        last = entry;
    }
    free(names);
}

/* ---- both ---- */

static bool has_parts(const struct fk_deadlock_wait *wait)
{
    for (size_t i = 0; i < wait->n_parts; i++)
        if (wait->parts[i].count > 0 || wait->parts[i].nest)
            return true;
    return false;
}

bool fk_held_something(const struct fk_deadlock_wait *wait)
{
    bool own = false;
    if (has_parts(wait) || !wait->blocking)
        return has_parts(wait);
    if (can_have_inherited())
        return true;
    fk_registry_foreach(note_own, &own);
    return own;
}

int fk_held_write(const struct fk_deadlock_wait *wait, FILE *out)
{
    struct writing writing = {.out = out};
    for (size_t i = 0; i < wait->n_parts; i++)
        if (!wait->blocking || wait->parts[i].count == 0) /* the others are in the registry */
            write_part(&wait->parts[i], &writing);
    if (wait->blocking)
        fk_registry_foreach(write_own, &writing);
    if (wait->blocking && can_have_inherited()) {
        write_inherited(&writing);
        write_by_ancestry(&writing);
    }
    return writing.lines;
}
