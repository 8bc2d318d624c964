/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "id.h"
#include "owner.h"
#include "removal.h"

#define TRIES 100 /* of what others may undo in between */
#define EXITING_MS 100 /* a killed process lets its locks go a moment before it has ended */

/* ---- sentences ---- */

static const char *remedy(int code)
{
    switch (-code) {
    case ENOSPC:
    case EDQUOT:
        return "; free some space there";
    case EROFS:
        return "; its file system can't be written to";
    case EACCES:
    case EPERM:
        return "; this user must be able to write to its directory";
    case EBUSY:
        return "; something is mounted there";
    case EXDEV:
        return "; on an overlay a directory of a lower layer can't be replaced: remove it first";
    case EOPNOTSUPP:
        return "; its file system can't exchange a directory: remove it first";
    default:
        return "";
    }
}

/* What says of a lock that others have it, or of a builder that it made nothing, isn't said of a file. */
static int code_of_file(int code)
{
    switch (-code) {
    case EBUSY:
    case ETIMEDOUT:
    case ECANCELED:
    case EDEADLK:
    case ENODATA:
        return -EIO;
    default:
        return code;
    }
}

__attribute__((cold, format(printf, 3, 4))) static int fail(int code, const struct fk_output *output,
                                                            const char *format, ...)
{
    char what[FK_OUTPUT_SHOWN_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return fk_fail(code_of_file(code), "can't %s %s: %s%s", what, output->shown, strerrordesc_np(-code), remedy(code));
}

/* ---- the private directory ---- */

/* A name of ours beside NAME, whatever that is. */
struct aside {
    char text[16];
};

static struct aside aside(const char *name, const char *what)
{
    struct aside aside;
    snprintf(aside.text, sizeof aside.text, "%c%s", name[0] == '.' ? '+' : '.', what);
    return aside;
}

/* 1: its owner is dead, 0: it isn't proven dead, -1: it doesn't say who that is. */
static int owner_is_dead(int directory, const char *file)
{
    char text[FK_OWNER_TEXT_SIZE + 1];
    struct fk_owner owner;
    const char *reason;
    ssize_t length = fk_fd_read_text(directory, file, text, sizeof text);
    if (length <= 0 || text[length - 1] != '\n')
        return -1;
    text[length - 1] = '\0';
    if (fk_owner_parse(text, &owner) < 0)
        return -1;
    return fk_owner_judge(&owner, EXITING_MS, &reason) == FK_DEAD;
}

/* By the form of its name, which nobody else gives by accident: what only begins so is the user's. */
static bool is_private(const char *name)
{
    size_t length = sizeof FK_PRIVATE_PREFIX - 1;
    return strncmp(name, FK_PRIVATE_PREFIX, length) == 0 && fk_id_is(name + length);
}

static bool is_remains(int directory)
{
    struct stat status;
    if (fstat(directory, &status) < 0 || status.st_uid != geteuid())
        return false;
    bool locked = flock(directory, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno == EWOULDBLOCK)
        return false;
    int dots = owner_is_dead(directory, ".owner"), plus = owner_is_dead(directory, "+owner");
    return dots != 0 && plus != 0 && (locked || dots > 0 || plus > 0);
}

unsigned fk_private_sweep(int directory)
{
    DIR *stream;
    unsigned count = 0;
    if (fk_fd_open_directory(directory, ".", &stream) < 0)
        return 0;
    char *detail = fk_error_take();
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (!is_private(entry->d_name))
            continue;
        FK_CLOSE_FD int fd = fk_fd_open(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd >= 0 && is_remains(fd))
            count += fk_remove_tree(directory, entry->d_name, FK_REMOVE_OWN_ONLY) == 0;
    }
    fk_fd_close_directory(stream);
    fk_error_give_back(detail);
    return count;
}

/* -EAGAIN: a sweeper was quicker than our flock. */
static int make_directory(struct fk_private *private, const char *id)
{
    struct stat status;
    int parent = private->output->directory;
    snprintf(private->name, sizeof private->name, FK_PRIVATE_PREFIX "%s", id);
    if (mkdirat(parent, private->name, 0700) < 0)
        return errno == EEXIST ? -EAGAIN : -errno;
    private->directory = fk_fd_open(parent, private->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (private->directory < 0)
        return private->directory == -ENOENT ? -EAGAIN : private->directory;
    if (flock(private->directory, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return -EAGAIN;
    return fstat(private->directory, &status) < 0 ? -errno : status.st_nlink == 0 ? -EAGAIN : 0;
}

static int write_owner(const struct fk_private *private)
{
    const struct fk_owner *self;
    char text[FK_OWNER_TEXT_SIZE + 1];
    int code = fk_owner_self(&self);
    if (code < 0)
        return code;
    fk_owner_format(self, ',', text);
    strcat(text, "\n");
    FK_CLOSE_FD int fd = fk_fd_open(private->directory, aside(private->output->name, "owner").text,
                                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    return fd < 0 ? fd : fk_fd_write_at(fd, text, strlen(text), 0);
}

static int make_path(struct fk_private *private)
{
    const struct fk_output *output = private->output;
    int parent = (int)(output->name - output->path);
    return asprintf(&private->path, "%.*s%s/%s", parent, output->path, private->name, output->name) < 0 ? -ENOMEM : 0;
}

int fk_private_open(const struct fk_output *output, const char *id, struct fk_private *out)
{
    struct fk_private private = {.output = output, .directory = -1};
    char other[FLK_ID_SIZE];
    fk_private_sweep(output->directory);
    int code = make_directory(&private, id);
    for (int tries = 0; code == -EAGAIN && tries < TRIES; tries++) {
        fk_fd_close(&private.directory);
        fk_id_make(other);
        code = make_directory(&private, other);
    }
    if (code == 0)
        code = write_owner(&private);
    if (code == 0)
        code = make_path(&private);
    if (code < 0) {
        fk_private_close(&private);
        return fail(code, output, "make a private directory beside");
    }
    *out = private;
    return 0;
}

void fk_private_close(struct fk_private *private)
{
    if (private->directory < 0)
        return;
    char *detail = fk_error_take();
    fk_remove_tree(private->output->directory, private->name, FK_REMOVE_OWN_ONLY);
    fk_error_give_back(detail);
    fk_fd_close(&private->directory);
    free(private->path);
    private->path = NULL;
}

/* ---- to disk ---- */

/* Some file systems have nothing to be brought anywhere. */
static int sync_one(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == EROFS ? 0 : -errno;
}

/* What can't be opened (no permission, too deep) is brought there with the whole file system. */
static int sync_file_system(int directory)
{
    return syncfs(directory) < 0 ? -errno : 0;
}

static int sync_entry(int directory, const char *name, mode_t type);

static int sync_entries(DIR *stream)
{
    int code = 0;
    while (code == 0) {
        struct stat status;
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        code = fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0
                   ? sync_file_system(dirfd(stream))
                   : sync_entry(dirfd(stream), entry->d_name, status.st_mode);
    }
    return code;
}

static int sync_directory(int directory, const char *name)
{
    DIR *stream;
    int code = fk_fd_open_directory(directory, name, &stream);
    if (code < 0)
        return sync_file_system(directory);
    code = sync_entries(stream);
    if (code == 0)
        code = sync_one(dirfd(stream));
    fk_fd_close_directory(stream);
    return code;
}

static int sync_entry(int directory, const char *name, mode_t mode)
{
    if (S_ISDIR(mode))
        return sync_directory(directory, name);
    if (!S_ISREG(mode))
        return 0;
    FK_CLOSE_FD int fd = fk_fd_open(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    return fd < 0 ? sync_file_system(directory) : sync_one(fd);
}

/* ---- the renames ---- */

/* A directory that gets another parent has its ".." written, which the kernel leaves only to those who may write to it, even where they
 * own it. One of ours has its owner's bit for that moment; a crash in it leaves the bit. */
struct lent {
    int fd; /* O_PATH; -1: nothing was done */
    mode_t mode;
};

static int change_mode(int fd, mode_t mode)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return chmod(link, mode);
}

static void lend(int directory, const char *name, struct lent *lent)
{
    struct stat status;
    lent->fd = fk_fd_open(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (lent->fd < 0 || fstat(lent->fd, &status) < 0 || (status.st_mode & S_IWUSR) || status.st_uid != geteuid()) {
        fk_fd_close(&lent->fd);
        return;
    }
    lent->mode = status.st_mode & 07777;
    change_mode(lent->fd, lent->mode | S_IWUSR);
}

static void give_back(struct lent *lent)
{
    if (lent->fd >= 0)
        change_mode(lent->fd, lent->mode);
    fk_fd_close(&lent->fd);
}

/* renameat2(), of directories without permission to write, too. */
static int move(int from, const char *name, int to, const char *new_name, unsigned flags)
{
    struct lent one, other;
    if (renameat2(from, name, to, new_name, flags) == 0)
        return 0;
    if (errno != EACCES)
        return -errno;
    lend(from, name, &one);
    lend(to, new_name, &other);
    int code = renameat2(from, name, to, new_name, flags) < 0 ? -errno : 0;
    give_back(&other);
    give_back(&one);
    return code;
}

/* For file systems that know no flags. Nobody else who keeps to the lock can come in between. */
static int rename_plainly(int from, const char *name, int to, const char *new_name)
{
    struct stat mine, theirs;
    bool there = fstatat(to, new_name, &theirs, AT_SYMLINK_NOFOLLOW) == 0;
    if (there &&
        (fstatat(from, name, &mine, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(mine.st_mode) || S_ISDIR(theirs.st_mode)))
        return -EOPNOTSUPP;
    return move(from, name, to, new_name, 0);
}

/* *exchanged: the old one is now at from. */
static int rename_over(int from, const char *name, int to, const char *new_name, bool *exchanged)
{
    for (int tries = 0; tries < TRIES; tries++) {
        *exchanged = false;
        int code = move(from, name, to, new_name, RENAME_NOREPLACE);
        if (code == -EEXIST) {
            *exchanged = true;
            code = move(from, name, to, new_name, RENAME_EXCHANGE);
            if (code == -ENOENT) /* it has been removed since: again */
                continue;
        }
        return code == -EINVAL ? rename_plainly(from, name, to, new_name) : code;
    }
    return -EAGAIN;
}

static void take_back(int from, const char *name, int to, const char *new_name, bool exchanged)
{
    move(to, new_name, from, name, exchanged ? RENAME_EXCHANGE : RENAME_NOREPLACE);
}

static int sync_parent(int directory)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, ".", O_RDONLY | O_DIRECTORY, 0);
    return fd == -EACCES ? 0 : fd < 0 ? fd : sync_one(fd); /* one may write to it and not read it */
}

/* Steps 3 to 5, and what each of them has left to be taken back. */
struct renames {
    const struct fk_private *private;
    struct aside stamp;
    char stamp_path[NAME_MAX + 1]; /* in DIR */
    bool stamped, exchanged, stamp_exchanged;
};

static int rename_output(struct renames *renames)
{
    const struct fk_private *private = renames->private;
    const char *name = private->output->name;
    int code = rename_over(private->directory, name, private->output->directory, name, &renames->exchanged);
    return code < 0 ? fail(code, private->output, "publish") : 0;
}

static int rename_stamp(struct renames *renames)
{
    const struct fk_private *private = renames->private;
    int code = rename_over(private->directory, renames->stamp.text, private->output->directory, renames->stamp_path,
                           &renames->stamp_exchanged);
    return code < 0 ? fail(code, private->output, "rename the stamp of") : 0;
}

static int rename_all(struct renames *renames)
{
    const struct fk_private *private = renames->private;
    const struct fk_output *output = private->output;
    int code = rename_output(renames);
    if (code < 0)
        return code;
    if (renames->stamped)
        code = rename_stamp(renames);
    bool both = code == 0 && renames->stamped;
    if (code == 0) {
        code = sync_parent(output->directory);
        if (code == 0)
            return 0;
        code = fail(code, output, "bring to disk the directory of");
    }
    if (both)
        take_back(private->directory, renames->stamp.text, output->directory, renames->stamp_path,
                  renames->stamp_exchanged);
    take_back(private->directory, output->name, output->directory, output->name, renames->exchanged);
    return code;
}

int fk_private_take_old(const struct fk_private *private)
{
    const struct fk_output *output = private->output;
    int code = move(output->directory, output->name, private->directory, output->name, 0);
    return code < 0 ? fail(code, output, "remove") : 0;
}

static int look_at_made(const struct fk_private *private, struct stat *status)
{
    char shown[FK_OUTPUT_SHOWN_SIZE];
    int looked = fstatat(private->directory, private->output->name, status, AT_SYMLINK_NOFOLLOW);
    if (looked == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)))
        return 0;
    fk_output_show(private->path, shown);
    if (looked == 0)
        return fk_fail(-EINVAL, "what was made at %s is neither a file nor a directory; %s can only be one of these",
                       shown, private->output->shown);
    if (errno == ENOENT)
        return fk_fail(-ENODATA, "nothing was made at %s, where %s is to be built", shown, private->output->shown);
    return fail(-errno, private->output, "look at what was made for");
}

static int make_stamp(const struct fk_private *private, const struct stat *made, const char *file,
                      struct fk_stamp_spec *stamp)
{
    fk_identity_take(made, &stamp->output);
    int code = fk_stamp_write(private->directory, file, stamp);
    return code < 0 ? fail(code, private->output, "write the stamp of") : 0;
}

int fk_private_publish(const struct fk_private *private, struct fk_stamp_spec *stamp, struct fk_identity *made)
{
    const struct fk_output *output = private->output;
    struct renames renames = {.private = private, .stamp = aside(output->name, "stamp"), .stamped = stamp != NULL};
    struct stat status;
    fk_stamp_name(output->name, renames.stamp_path);
    int code = look_at_made(private, &status);
    if (code < 0)
        return code;
    code = sync_entry(private->directory, output->name, status.st_mode);
    if (code < 0)
        return fail(code, output, "bring to disk what was made for");
    code = look_at_made(private, &status); /* that may have set times */
    if (code == 0 && stamp)
        code = make_stamp(private, &status, renames.stamp.text, stamp);
    if (code == 0)
        code = rename_all(&renames);
    if (code < 0)
        return code;
    if (!stamp)
        unlinkat(output->directory, renames.stamp_path, 0); /* stale by now */
    fk_identity_take(&status, made);
    return 0;
}
