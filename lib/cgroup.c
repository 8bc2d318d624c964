/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"

#define ENDING_MS 200 /* for what was killed to be gone */

static int complain(int code, const char *action, const char *path)
{
    const char *remedy = "";
    if (code == -EACCES || code == -EPERM || code == -EROFS)
        remedy =
            "; run below a group that was given to this user (systemd: Delegate=yes, or systemd-run --user --scope)";
    if (code == -EAGAIN || code == -ENOSPC)
        remedy = "; raise cgroup.max.descendants or cgroup.max.depth of the groups above";
    return fk_fail(code, "can't %s the cgroup %s: %s%s", action, path, strerrordesc_np(-code), remedy);
}

/* ---- names ---- */

static bool is_component(const char *text, size_t length)
{
    return length > 0 && !(length == 1 && text[0] == '.') && !(length == 2 && text[0] == '.' && text[1] == '.');
}

static int check_name(const char *name)
{
    for (const char *at = name;; at++) {
        size_t length = strcspn(at, "/");
        if (!is_component(at, length))
            return fk_fail(
                -EINVAL,
                "\"%.200s\" can't be the name of a cgroup: give a path below the caller's own group, without "
                "a slash at either end, \".\" or \"..\"",
                name);
        at += length;
        if (!*at)
            return 0;
    }
}

/* ---- where is it ---- */

/* The path after "0::" in /proc/self/cgroup. */
static int read_own_group(char own[PATH_MAX])
{
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return fk_fail_errno(-errno, "can't read /proc/self/cgroup");
    for (ssize_t length; !found && (length = getline(&line, &room, file)) > 0;) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, "0::/", 4) == 0 && snprintf(own, PATH_MAX, "%s", line + 3) < PATH_MAX;
    }
    free(line);
    fclose(file);
    if (!found)
        return fk_fail(-EOPNOTSUPP, "there are no cgroups of version 2 here; boot with them, or do without a cgroup");
    return 0;
}

/* mountinfo has space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        bool escaped = from[0] == '\\' && from[1] && from[2] && from[3];
        *to = escaped ? (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0')) : *from;
        from += escaped ? 4 : 1;
    }
    *to = '\0';
}

/* One line of mountinfo: where own is to be seen if this is a mount of cgroup2 that shows it. The fields are: id, parent,
 * device, root, mount point, options, others until "-", type. */
static bool look_at_mount(char *line, const char *own, char path[PATH_MAX])
{
    char *rest, *fields[5];
    const char *type = strstr(line, " - ");
    if (!type || strncmp(type, " - cgroup2 ", 11) != 0)
        return false;
    for (size_t i = 0; i < 5; i++)
        if (!(fields[i] = strtok_r(i ? NULL : line, " ", &rest)))
            return false;
    unescape(fields[3]);
    unescape(fields[4]);
    size_t length = strcmp(fields[3], "/") == 0 ? 0 : strlen(fields[3]);
    if (strncmp(own, fields[3], length) != 0 || (own[length] && own[length] != '/'))
        return false;
    struct stat status;
    const char *below = strcmp(own + length, "/") == 0 ? "" : own + length;
    return snprintf(path, PATH_MAX, "%s%s", fields[4], below) < PATH_MAX && stat(path, &status) == 0;
}

static int find_own_directory(char path[PATH_MAX])
{
    char own[PATH_MAX], *line = NULL;
    size_t room = 0;
    bool found = false;
    int code = read_own_group(own);
    if (code < 0)
        return code;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return fk_fail_errno(-errno, "can't read /proc/self/mountinfo");
    while (!found && getline(&line, &room, file) > 0)
        found = look_at_mount(line, own, path);
    free(line);
    fclose(file);
    if (!found)
        return fk_fail(-ENOENT,
                       "our own cgroup %s isn't to be seen in any mount of cgroup2; mount one (mount -t cgroup2 none "
                       "/sys/fs/cgroup), or do without a cgroup",
                       own);
    return 0;
}

/* ---- open, kill, look, close ---- */

/* Makes what isn't there, one component after the other. */
static int make_components(struct fk_cgroup *group, size_t from)
{
    for (char *end = group->path + from; *end;) {
        end += 1 + strcspn(end + 1, "/");
        char after = *end;
        *end = '\0';
        int code = mkdir(group->path, 0755) < 0 ? -errno : 0;
        struct stat status;
        if (code < 0 && code != -EEXIST && stat(group->path, &status) < 0)
            return complain(code, "make", group->path);
        *end = after;
        if (code == 0 || group->made)
            group->made++;
    }
    return 0;
}

int fk_cgroup_open(const char *name, struct fk_cgroup *group)
{
    char own[PATH_MAX];
    struct fk_cgroup fresh = {.directory = -1};
    int code = check_name(name);
    if (code == 0)
        code = find_own_directory(own);
    if (code < 0)
        return code;
    if (strlen(own) + 1 + strlen(name) >= PATH_MAX)
        return fk_fail(-ENAMETOOLONG, "the name of the cgroup %.60s... is too long; choose a shorter one", name);
    if (asprintf(&fresh.path, "%s/%s", own, name) < 0)
        return fk_fail(-ENOMEM, "no memory for the cgroup %s", name);
    code = make_components(&fresh, strlen(own));
    if (code == 0) {
        fresh.directory = fk_fd_open(AT_FDCWD, fresh.path, O_RDONLY | O_DIRECTORY, 0);
        code = fresh.directory < 0 ? complain(fresh.directory, "open", fresh.path) : 0;
    }
    if (code < 0)
        fk_cgroup_close(&fresh);
    else
        *group = fresh;
    return code;
}

int fk_cgroup_kill(const struct fk_cgroup *group)
{
    FK_CLOSE_FD int fd = fk_fd_open(group->directory, "cgroup.kill", O_WRONLY, 0);
    if (fd == -ENOENT)
        return fk_fail(-EOPNOTSUPP, "this kernel can't end a cgroup by itself: it has no cgroup.kill (Linux 5.14)");
    if (fd < 0 || write(fd, "1", 1) < 0)
        return complain(fd < 0 ? fd : -errno, "end", group->path);
    return 0;
}

/* fd: of cgroup.events. */
static int is_populated(int fd, const char *path)
{
    char text[128] = "";
    if (pread(fd, text, sizeof text - 1, 0) < 0)
        return complain(-errno, "look at", path);
    return strstr(text, "populated 0") ? 0 : 1;
}

int fk_cgroup_is_empty(const struct fk_cgroup *group)
{
    FK_CLOSE_FD int fd = fk_fd_open(group->directory, "cgroup.events", O_RDONLY, 0);
    int populated = fd < 0 ? complain(fd, "look at", group->path) : is_populated(fd, group->path);
    return populated < 0 ? populated : !populated;
}

/* The kernel tells of a change of cgroup.events by POLLPRI. */
static void await_emptiness(const struct fk_cgroup *group)
{
    int64_t deadline = fk_deadline_in_ms(ENDING_MS);
    FK_CLOSE_FD int fd = fk_fd_open(group->directory, "cgroup.events", O_RDONLY, 0);
    struct pollfd event = {.fd = fd, .events = POLLPRI};
    while (fd >= 0 && is_populated(fd, group->path) > 0) {
        int64_t left = (deadline - fk_now()) / FK_MS;
        if (left <= 0 || poll(&event, 1, (int)left) == 0)
            return;
    }
}

void fk_cgroup_close(struct fk_cgroup *group)
{
    if (group->made && group->directory >= 0)
        await_emptiness(group);
    fk_fd_close(&group->directory);
    for (; group->made > 0 && rmdir(group->path) == 0; group->made--)
        *strrchr(group->path, '/') = '\0';
    free(group->path);
    *group = (struct fk_cgroup){.directory = -1};
}
