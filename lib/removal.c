/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "removal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "root.h"

#define ROUNDS 100 /* of emptying a directory that others fill */
#define TRIES 10 /* from the top, when directories are moved away from under us */
#define SHOWN 300 /* bytes of a path in a sentence */
#define BUFFER_SIZE 32768

/* A directory on the way down. Its files are unlinked as they are read; names are the directories in it. */
struct level {
    int fd; /* -1: closed, since too many are below it */
    dev_t device;
    ino_t inode;
    uid_t owner;
    char *names; /* each with its NUL */
    size_t size, at; /* at: the one whose turn it is */
    unsigned rounds;
    bool kept; /* something in it couldn't be removed */
};

struct removal {
    int directory;
    const char *name, *shown;
    struct level *levels;
    size_t depth, room;
    int code; /* of the first failure, which has been said */
    _Alignas(struct dirent64) char buffer[BUFFER_SIZE];
};

/* ---- open ---- */

static int open_with(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    const struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    fk_fd_enter();
    return fk_fd_keep((int)syscall(SYS_openat2, directory, path, &how, sizeof how));
}

/* Of the mount that a descriptor is of; -1: not known. */
static long mount_of(int fd)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    const char *found = fk_fd_read_text(AT_FDCWD, path, text, sizeof text) > 0 ? strstr(text, "mnt_id:") : NULL;
    return found ? strtol(found + 7, NULL, 10) : -1;
}

/* Before Linux 5.6, and in containers whose seccomp filter doesn't know the call. A mount that can't be told apart isn't entered. */
static int open_without_openat2(int parent, const char *name)
{
    FK_CLOSE_FD int fd = fk_fd_open(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    long mount = mount_of(fd);
    return mount < 0 || mount != mount_of(parent) ? -EXDEV : fk_fd_take(&fd);
}

/* A directory by its name alone. -EXDEV: something is mounted there. -ENOTDIR, -ELOOP: it isn't one. */
static int open_directory(int parent, const char *name)
{
    int fd = open_with(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    return fd == -ENOSYS || fd == -EPERM ? open_without_openat2(parent, name) : fd;
}

/* ---- sentences ---- */

static size_t show(char *text, size_t used, const char *name)
{
    for (; *name && used < SHOWN; name++)
        used += (size_t)fk_show_byte(text + used, SHOWN - used + 5, (unsigned char)*name);
    return used;
}

/* The path of name, which is in the deepest directory (NULL: of that directory itself). */
static const char *show_path(const struct removal *removal, const char *name, char text[SHOWN + 16])
{
    size_t used = show(text, 0, removal->shown);
    for (size_t i = 0; i < removal->depth && used < SHOWN; i++) {
        const struct level *level = &removal->levels[i];
        const char *next = i + 1 < removal->depth ? level->names + level->at : name;
        if (next)
            used = show(text, show(text, used, "/"), next);
    }
    strcpy(text + used, used < SHOWN ? "" : "...");
    return text;
}

static int fail_access(const struct removal *removal, int code, const char *name, const char *path)
{
    const struct level *level = removal->depth ? &removal->levels[removal->depth - 1] : NULL;
    struct stat status;
    uid_t owner = level ? level->owner : geteuid();
    if (owner == geteuid() && name &&
        fstatat(level ? level->fd : removal->directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        owner = status.st_uid;
    if (owner != geteuid())
        return fk_fail(
            code,
            "can't remove %s: it, or the directory that it is in, belongs to user %u; if a container has made it: "
            "podman unshare rm -rf %s",
            path, (unsigned)owner, removal->shown);
    return fk_fail(code, "can't remove %s: %s; see who owns it, and whether it is immutable (lsattr -d)", path,
                   strerrordesc_np(-code));
}

static int fail(const struct removal *removal, int code, const char *name)
{
    char path[SHOWN + 16];
    show_path(removal, name, path);
    switch (-code) {
    case EXDEV:
    case EBUSY:
        return fk_fail(code, "can't remove %s: something is mounted there; unmount it, then try again", path);
    case ENOTEMPTY:
        return fk_fail(code, "can't remove %s: others fill it again and again; end them, then try again", path);
    case EACCES:
    case EPERM:
        return fail_access(removal, code, name, path);
    case EMFILE:
        return fk_fail(code, "can't remove %s: too many open files; raise the limit (ulimit -n)", path);
    default:
        return fk_fail(code, "can't remove %s: %s", path, strerrordesc_np(-code));
    }
}

/* The rest goes on. */
static void keep(struct removal *removal, int code, const char *name)
{
    if (removal->code == 0)
        removal->code = fail(removal, code, name);
    if (removal->depth > 0)
        removal->levels[removal->depth - 1].kept = true;
}

/* ---- down ---- */

static int unlink_name(int directory, const char *name, int flags)
{
    return unlinkat(directory, name, flags) == 0 || errno == ENOENT ? 0 : -errno;
}

static int remember(struct level *level, const char *name)
{
    size_t length = strlen(name) + 1;
    char *names = realloc(level->names, level->size + length);
    if (!names)
        return -ENOMEM;
    memcpy(names + level->size, name, length);
    level->names = names;
    level->size += length;
    return 0;
}

static void take_entry(struct removal *removal, struct level *level, const struct dirent64 *entry)
{
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return;
    int code = entry->d_type == DT_DIR ? -EISDIR : unlink_name(level->fd, name, 0);
    if (code == -EISDIR)
        code = remember(level, name);
    if (code < 0)
        keep(removal, code, name);
}

/* Unlinks the files, remembers the directories. */
static void read_level(struct removal *removal, struct level *level)
{
    ssize_t length;
    level->size = level->at = 0;
    while ((length = getdents64(level->fd, removal->buffer, sizeof removal->buffer)) > 0) {
        for (ssize_t at = 0; at < length;) {
            const struct dirent64 *entry = (const void *)(removal->buffer + at);
            take_entry(removal, level, entry);
            at += entry->d_reclen;
        }
    }
    if (length < 0 && errno != ENOENT)
        keep(removal, -errno, NULL);
}

static int make_room(struct removal *removal)
{
    if (removal->depth < removal->room)
        return 0;
    size_t room = removal->room ? 2 * removal->room : FK_REMOVE_OPEN;
    struct level *levels = realloc(removal->levels, room * sizeof *levels);
    if (!levels)
        return -ENOMEM;
    removal->levels = levels;
    removal->room = room;
    return 0;
}

/* One without permission bits gets them: whoever could remove it can. Only the owner may, so errors show in what comes next. */
static int open_level(int parent, const char *name, struct level *level)
{
    struct stat status;
    int fd = open_directory(parent, name);
    if (fd == -EACCES && fchmodat(parent, name, 0700, AT_SYMLINK_NOFOLLOW) == 0)
        fd = open_directory(parent, name);
    if (fd < 0)
        return fd;
    if (fstat(fd, &status) < 0) {
        int code = -errno;
        fk_fd_close(&fd);
        return code;
    }
    if ((status.st_mode & 0700) != 0700 && fchmod(fd, status.st_mode | 0700) < 0)
        errno = 0;
    *level = (struct level){fd, status.st_dev, status.st_ino, status.st_uid, .names = NULL};
    return 0;
}

static int descend(struct removal *removal, int parent, const char *name)
{
    int code = make_room(removal);
    if (code == 0)
        code = open_level(parent, name, &removal->levels[removal->depth]);
    if (code < 0)
        return code;
    removal->depth++;
    if (removal->depth > FK_REMOVE_OPEN)
        fk_fd_close(&removal->levels[removal->depth - 1 - FK_REMOVE_OPEN].fd);
    read_level(removal, &removal->levels[removal->depth - 1]);
    return 0;
}

/* ---- up ---- */

/* False: the directory below isn't where it was. */
static bool reopen(struct level *level, const struct level *below)
{
    struct stat status;
    if (level->fd >= 0)
        return true;
    FK_CLOSE_FD int fd = fk_fd_open(below->fd, "..", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || fstat(fd, &status) < 0 || status.st_dev != level->device || status.st_ino != level->inode)
        return false;
    level->fd = fk_fd_take(&fd);
    return true;
}

static void drop_level(struct removal *removal)
{
    struct level *level = &removal->levels[--removal->depth];
    fk_fd_close(&level->fd);
    free(level->names);
}

static void advance(struct level *level)
{
    level->at += strlen(level->names + level->at) + 1;
}

/* The deepest directory has been emptied, as far as that was possible. */
static int ascend(struct removal *removal)
{
    struct level *level = &removal->levels[removal->depth - 1], *above = removal->depth > 1 ? level - 1 : NULL;
    if (above && !reopen(above, level))
        return -EAGAIN;
    const char *name = above ? above->names + above->at : removal->name;
    int parent = above ? above->fd : removal->directory;
    bool kept = level->kept;
    int code = kept ? 0 : unlink_name(parent, name, AT_REMOVEDIR);
    if (code == -ENOTDIR) /* exchanged meanwhile */
        code = unlink_name(parent, name, 0);
    if (code == -ENOTEMPTY && level->rounds++ < ROUNDS && lseek(level->fd, 0, SEEK_SET) == 0) {
        read_level(removal, level);
        return 0;
    }
    drop_level(removal);
    if (code < 0)
        keep(removal, code, above ? name : NULL);
    if (above) {
        above->kept = above->kept || kept;
        advance(above);
    }
    return 0;
}

static int step(struct removal *removal)
{
    struct level *level = &removal->levels[removal->depth - 1];
    if (level->at == level->size)
        return ascend(removal);
    const char *name = level->names + level->at;
    int code = descend(removal, level->fd, name);
    if (code == 0)
        return 0;
    if (code == -ENOTDIR || code == -ELOOP)
        code = unlink_name(level->fd, name, 0);
    if (code < 0 && code != -ENOENT)
        keep(removal, code, name);
    advance(level);
    return 0;
}

/* -EAGAIN: begin again. */
static int remove_directory(struct removal *removal)
{
    int code = descend(removal, removal->directory, removal->name);
    if (code == -ENOENT)
        return 0;
    if (code < 0)
        return code == -ENOTDIR || code == -ELOOP ? -EAGAIN : fail(removal, code, NULL);
    while (code == 0 && removal->depth > 0)
        code = step(removal);
    while (removal->depth > 0)
        drop_level(removal);
    return code;
}

static int remove_name(struct removal *removal)
{
    int code = -EAGAIN;
    for (int tries = 0; code == -EAGAIN && tries < TRIES; tries++) {
        code = unlink_name(removal->directory, removal->name, 0);
        if (code == -EISDIR)
            code = remove_directory(removal);
        else if (code < 0)
            code = fail(removal, code, NULL);
    }
    return code == -EAGAIN ? fail(removal, -ENOTEMPTY, NULL) : code;
}

static int check_owner(int directory, const char *name, const char *shown)
{
    struct stat status;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_uid != geteuid())
        return fk_fail(-EPERM, "%s isn't removed: it belongs to user %u; only what is one's own is", shown,
                       (unsigned)status.st_uid);
    return 0;
}

static bool is_one_component(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int remove_shown(int directory, const char *name, const char *shown, unsigned flags)
{
    if (!is_one_component(name))
        return fk_fail(-EINVAL, "\"%s\" can't be removed: it isn't the name of something in a directory", name);
    int code = flags & FK_REMOVE_OWN_ONLY ? check_owner(directory, name, shown) : 0;
    if (code < 0)
        return code;
    struct removal *removal = malloc(sizeof *removal);
    if (!removal)
        return fk_fail(-ENOMEM, "out of memory");
    removal->directory = directory;
    removal->name = name;
    removal->shown = shown;
    removal->levels = NULL;
    removal->depth = removal->room = 0;
    removal->code = 0;
    code = remove_name(removal);
    code = removal->code < 0 ? removal->code : code;
    free(removal->levels);
    free(removal);
    return code;
}

int fk_remove_tree(int directory, const char *name, unsigned flags)
{
    return remove_shown(directory, name, name, flags);
}

/* ---- what may be removed at all ---- */

/* Is this directory the one at path, or above it? */
static bool is_at_or_above(const struct stat *directory, const char *path)
{
    char up[PATH_MAX + 3];
    struct stat status, last = {0};
    int length = snprintf(up, PATH_MAX, "%s", path);
    for (; length > 0 && length < PATH_MAX && stat(up, &status) == 0; length += 3, last = status) {
        if (status.st_dev == directory->st_dev && status.st_ino == directory->st_ino)
            return true;
        if (status.st_dev == last.st_dev && status.st_ino == last.st_ino) /* ".." of the root directory */
            return false;
        strcpy(up + length, "/..");
    }
    return false;
}

/* Without NSS, which a static program can't have. For free(); NULL: not known. */
static char *home_from_passwd(uid_t uid)
{
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    struct passwd *user = NULL;
    while (file && (user = fgetpwent(file)) && user->pw_uid != uid)
        ;
    char *home = user ? strdup(user->pw_dir) : NULL;
    if (file) {
        fk_fd_take(&fd);
        fk_fd_close_file(file);
    }
    return home;
}

/* Of the user that this process was first: that is read once, since it is asked for each directory. Not what HOME says, which is another
 * one under many a test. */
static bool is_users_home_or_above(const struct stat *directory)
{
    static _Atomic uid_t first = (uid_t)-1;
    static _Atomic(char *) first_home;
    uid_t uid = geteuid(), nobody = (uid_t)-1;
    char *home = atomic_load(&first_home);
    if (home && atomic_load(&first) == uid)
        return is_at_or_above(directory, home);
    home = home_from_passwd(uid);
    bool is = home && is_at_or_above(directory, home);
    if (home && atomic_compare_exchange_strong(&first, &nobody, uid))
        atomic_store(&first_home, home);
    else
        free(home);
    return is;
}

static bool is_home_or_above(const struct stat *directory)
{
    const char *home = getenv("HOME");
    return (home && *home && is_at_or_above(directory, home)) || is_users_home_or_above(directory);
}

static int check_entry(int parent, const char *name, const char *shown)
{
    struct stat status;
    const char *root;
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fk_fail(-errno, "can't look at %s: %s", shown, strerrordesc_np(errno));
    if (S_ISDIR(status.st_mode) && is_home_or_above(&status))
        return fk_fail(-EPERM, "%s isn't removed: the home directory is there; name something in it", shown);
    if (S_ISDIR(status.st_mode) && fk_root_path(&root) == 0 && is_at_or_above(&status, root))
        return fk_fail(-EPERM, "%s isn't removed: the lock directory is there; name something else", shown);
    return check_owner(parent, name, shown);
}

/* The last component without the slashes behind it. */
static int split(const char *path, char parent[PATH_MAX], char name[NAME_MAX + 1])
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (path[0] != '/')
        return fk_fail(-EINVAL, "\"%s\" isn't an absolute path; begin with \"/\"", path);
    if (end == 1)
        return fk_fail(-EPERM, "%s isn't removed: it is the root directory", path);
    if (begin >= PATH_MAX || end - begin > NAME_MAX)
        return fk_fail(-ENAMETOOLONG, "a path of %zu bytes is too long", end);
    memcpy(parent, path, begin);
    parent[begin] = '\0';
    memcpy(name, path + begin, end - begin);
    name[end - begin] = '\0';
    return is_one_component(name) ? 0 : fk_fail(-EINVAL, "\"%s\" ends in \"%s\"; name the thing itself", path, name);
}

/* The same as openat2() with RESOLVE_NO_SYMLINKS, one step after the other. */
static int walk(const char *path)
{
    char name[NAME_MAX + 1];
    int at = fk_fd_open(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    while (at >= 0 && *(path += strspn(path, "/"))) {
        size_t length = strcspn(path, "/");
        snprintf(name, sizeof name, "%.*s", (int)length, path);
        int next = fk_fd_open(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
        fk_fd_close(&at);
        at = next;
        path += length;
    }
    return at == -ENOTDIR ? -ELOOP : at;
}

static int open_parent(const char *parent, const char *path)
{
    int fd = open_with(AT_FDCWD, parent, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (fd == -ENOSYS || fd == -EPERM)
        fd = walk(parent);
    if (fd == -ELOOP)
        return fk_fail(fd, "%s isn't removed: there is a symlink on the way now, which wasn't; see to it by hand",
                       path);
    return fd < 0 && fd != -ENOENT ? fk_fail(fd, "can't open %s: %s", parent, strerrordesc_np(-fd)) : fd;
}

int fk_removal_check(const char *path, char real[PATH_MAX])
{
    char parent[PATH_MAX], name[NAME_MAX + 1], resolved[PATH_MAX];
    int code = split(path, parent, name);
    if (code < 0)
        return code;
    if (!realpath(parent, resolved))
        return fk_fail(-errno, "%s can't be found: %s; make the directory that it is to be in first", path,
                       strerrordesc_np(errno));
    bool slash = resolved[1] != '\0';
    if (strlen(resolved) + slash + strlen(name) >= PATH_MAX)
        return fk_fail(-ENAMETOOLONG, "the real path of %s is too long", path);
    FK_CLOSE_FD int directory = fk_fd_open(AT_FDCWD, resolved, O_PATH | O_DIRECTORY, 0);
    if (directory < 0)
        return fk_fail(directory, "can't open %s: %s", resolved, strerrordesc_np(-directory));
    code = check_entry(directory, name, path);
    if (code == 0)
        stpcpy(stpcpy(stpcpy(real, resolved), slash ? "/" : ""), name);
    return code;
}

int fk_remove_path(const char *real)
{
    char parent[PATH_MAX], name[NAME_MAX + 1];
    int code = split(real, parent, name);
    if (code < 0)
        return code;
    FK_CLOSE_FD int directory = open_parent(parent, real);
    if (directory < 0)
        return directory == -ENOENT ? 0 : directory;
    code = check_entry(directory, name, real);
    return code < 0 ? code : remove_shown(directory, name, real, 0);
}
