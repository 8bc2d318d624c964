/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cancel.h"
#include "fd.h"

#define PF_EXITING 0x4u /* the kernel's linux/sched.h; proc_pid_stat(5) shows the flags */

/* The command's name comes before in parentheses and may contain anything, so what counts starts after the last ')'. */
int fk_proc_stat(pid_t pid, struct fk_proc_stat *stat)
{
    char path[32], text[1024];
    if (pid)
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    else
        strcpy(path, "/proc/self/stat");
    ssize_t length = fk_fd_read_text(AT_FDCWD, path, text, sizeof text);
    if (length < 0)
        return (int)length;
    const char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return -EBADMSG;
    at += 2;
    stat->state = *at;
    for (int field = 4; field <= 22; field++) {
        at = strchr(at, ' ');
        if (!at)
            return -EBADMSG;
        at++;
        if (field == 4)
            stat->parent = (pid_t)strtol(at, NULL, 10);
        else if (field == 9)
            stat->exiting = strtoul(at, NULL, 10) & PF_EXITING;
    }
    stat->start_time = strtoull(at, NULL, 10);
    return 0;
}

/* "lock:	1: FLOCK  ADVISORY  WRITE 4711 00:1b:1234 0 EOF" */
bool fk_proc_has_lock(int fd, bool *shared)
{
    char path[40], text[2048];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    if (fk_fd_read_text(AT_FDCWD, path, text, sizeof text) < 0)
        return false;
    const char *line = strstr(text, "\nlock:");
    *shared = line && strstr(line, " READ ");
    return line && strstr(line, "FLOCK");
}

uint64_t fk_proc_namespace(pid_t pid, pid_t *inner)
{
    char path[40], text[4096];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/ns/pid", (int)pid);
    if (stat(path, &status) < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    const char *at = fk_fd_read_text(AT_FDCWD, path, text, sizeof text) > 0 ? strstr(text, "\nNSpid:") : NULL;
    if (!at)
        return 0;
    const char *end = strchr(at + 1, '\n');
    while (end && end > at && !isspace((unsigned char)end[-1]))
        end--;
    *inner = end ? atoi(end) : 0;
    return status.st_ino;
}

bool fk_proc_is_ours(void)
{
    static _Atomic pid_t ours; /* the process it was found to be ours for */
    pid_t pid = getpid();
    char text[32] = "";
    if (atomic_load_explicit(&ours, memory_order_relaxed) == pid)
        return true;
    if (readlink("/proc/self", text, sizeof text - 1) <= 0 || atoi(text) != pid)
        return false;
    atomic_store_explicit(&ours, pid, memory_order_relaxed);
    return true;
}

bool fk_proc_has_ended(pid_t pid)
{
    fk_fd_enter();
    FK_CLOSE_FD int fd = fk_fd_keep(pidfd_open(pid, 0));
    struct pollfd end = {.fd = fd, .events = POLLIN};
    return fd == -ESRCH || (fd >= 0 && fk_poll_now(&end, 1) > 0);
}

/* ---- descendants ---- */

static size_t list_children(pid_t pid, pid_t *children, size_t room)
{
    char path[64], text[4096];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    if (fk_fd_read_text(AT_FDCWD, path, text, sizeof text) <= 0)
        return 0;
    for (char *at = text, *end; count < room; at = end) {
        long number = strtol(at, &end, 10);
        if (end == at)
            break;
        children[count++] = (pid_t)number;
    }
    return count;
}

void fk_proc_descendants(pid_t root, unsigned most, bool (*each)(pid_t pid, void *data), void *data)
{
    pid_t *found = malloc((most + 1) * sizeof *found);
    size_t count = 1;
    if (!found)
        return;
    found[0] = root;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && !each(found[i], data))
            break;
        count += list_children(found[i], found + count, most + 1 - count);
    }
    free(found);
}

/* ---- who has it open ---- */

struct search {
    const struct fk_proc_file *files;
    size_t n_files;
    void (*each)(const struct fk_proc_user *user, void *data);
    void *data;
    pid_t pid;
    int fds; /* the directory of its descriptors */
    /* what was told of this process already */
    struct fk_proc_user *told;
    size_t n_told, room;
};

static int order(dev_t device_a, ino_t inode_a, dev_t device_b, ino_t inode_b)
{
    if (inode_a != inode_b)
        return inode_a < inode_b ? -1 : 1;
    return (device_a > device_b) - (device_a < device_b);
}

static int rising(const void *a, const void *b)
{
    const struct fk_proc_file *x = a, *y = b;
    return order(x->device, x->inode, y->device, y->inode);
}

static const struct fk_proc_file *find(const struct search *search, const struct statx *status)
{
    size_t low = 0, high = search->n_files;
    dev_t device = makedev(status->stx_dev_major, status->stx_dev_minor);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct fk_proc_file *file = &search->files[middle];
        int side = order(device, status->stx_ino, file->device, file->inode);
        if (side == 0)
            return file;
        if (side < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static bool is_told(struct search *search, const struct fk_proc_user *user)
{
    for (size_t i = 0; i < search->n_told; i++)
        if (search->told[i].index == user->index && search->told[i].locked == user->locked)
            return true;
    if (search->n_told == search->room) {
        size_t room = search->room ? 2 * search->room : 16;
        struct fk_proc_user *told = reallocarray(search->told, room, sizeof *told);
        if (!told)
            return false;
        search->told = told;
        search->room = room;
    }
    search->told[search->n_told++] = *user;
    return false;
}

/* Watches have it open too, for reading, and so for a moment have those that look at it. */
static void look_at_lock(struct search *search, const char *number, size_t index)
{
    char path[48], text[1024];
    struct fk_proc_user user = {.index = index, .pid = search->pid};
    unsigned flags;
    snprintf(path, sizeof path, "../fdinfo/%.12s", number);
    if (fk_fd_read_text(search->fds, path, text, sizeof text) <= 0)
        return;
    const char *at = strstr(text, "flags:");
    if (!at || sscanf(at, "flags: %o", &flags) != 1)
        return;
    const char *lock = strstr(text, "\nlock:");
    const char *end = lock ? strchr(lock + 1, '\n') : NULL;
    const char *read_lock = lock ? strstr(lock, " READ ") : NULL;
    user.locked = lock != NULL;
    user.shared = read_lock && (!end || read_lock < end);
    if ((user.locked || (flags & O_ACCMODE) != O_RDONLY) && !is_told(search, &user))
        search->each(&user, search->data);
}

/* Nothing is asked of a file system that may not answer: AT_STATX_DONT_SYNC. */
static void look_at_descriptor(struct search *search, const char *number)
{
    struct statx status;
    if (statx(search->fds, number, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, &status) < 0 ||
        !S_ISFIFO(status.stx_mode))
        return;
    const struct fk_proc_file *file = find(search, &status);
    if (file)
        look_at_lock(search, number, file->index);
}

static bool is_number(const char *text)
{
    return *text >= '0' && *text <= '9';
}

/* How many it has, or an error that ends the search. Others: it has ended, or isn't ours to see. */
static int look_at_descriptors(struct search *search, int proc, const char *path)
{
    char entries[4096] __attribute__((aligned(8)));
    ssize_t length;
    int count = 0;
    FK_CLOSE_FD int fd = fk_fd_open(proc, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    search->fds = fd;
    while ((length = getdents64(fd, entries, sizeof entries)) > 0) {
        for (ssize_t at = 0; at < length;) {
            struct dirent64 *entry = (struct dirent64 *)(entries + at);
            at += entry->d_reclen;
            if (!is_number(entry->d_name))
                continue;
            look_at_descriptor(search, entry->d_name);
            count++;
        }
    }
    return count;
}

static bool is_fatal(int code)
{
    return code == -EMFILE || code == -ENFILE;
}

/* When its main thread has ended, the others still have them. (Kernel threads have neither others nor descriptors.) */
static int look_at_threads(struct search *search, int proc, const char *number)
{
    char path[64];
    struct statx status;
    int code = 0;
    snprintf(path, sizeof path, "%.12s/task", number);
    if (statx(proc, path, 0, STATX_NLINK, &status) == 0 && status.stx_nlink <= 3)
        return 0;
    int fd = fk_fd_open(proc, path, O_RDONLY | O_DIRECTORY, 0);
    DIR *tasks = fd < 0 ? NULL : fdopendir(fd);
    if (!tasks) {
        fk_fd_close(&fd);
        return is_fatal(fd) ? fd : 0;
    }
    for (struct dirent *entry; code == 0 && (entry = readdir(tasks));) {
        if (!is_number(entry->d_name) || strcmp(entry->d_name, number) == 0)
            continue;
        snprintf(path, sizeof path, "%.12s/fd", entry->d_name);
        int count = look_at_descriptors(search, fd, path);
        code = is_fatal(count) ? count : 0;
        if (count > 0 || count == -EACCES)
            break; /* they share them, or none is ours to see */
    }
    fk_fd_close_directory(tasks);
    return code;
}

static int look_at_process(struct search *search, int proc, const char *number)
{
    char path[32];
    snprintf(path, sizeof path, "%.12s/fd", number);
    search->pid = atoi(number);
    search->n_told = 0;
    int count = look_at_descriptors(search, proc, path);
    if (count == 0 || count == -EACCES) /* root sees none then, others are refused */
        return look_at_threads(search, proc, number);
    return is_fatal(count) ? count : 0;
}

int fk_proc_find_users(struct fk_proc_file *files, size_t n_files,
                       void (*each)(const struct fk_proc_user *user, void *data), void *data)
{
    struct search search = {.files = files, .n_files = n_files, .each = each, .data = data};
    if (!fk_proc_is_ours())
        return -ENOSYS;
    int fd = fk_fd_open(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY, 0), code = 0;
    DIR *proc = fd < 0 ? NULL : fdopendir(fd);
    if (!proc) {
        code = fd == -EMFILE || fd == -ENFILE ? fd : -ENOSYS;
        fk_fd_close(&fd);
        return code;
    }
    qsort(files, n_files, sizeof *files, rising);
    for (struct dirent *entry; code == 0 && (entry = readdir(proc));)
        if (is_number(entry->d_name))
            code = look_at_process(&search, fd, entry->d_name);
    fk_fd_close_directory(proc);
    free(search.told);
    return code;
}
