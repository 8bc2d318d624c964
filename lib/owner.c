/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cancel.h"
#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "proc.h"

#define COMMAND_SIZE 512
#define PIDFS_MAGIC 0x50494446 /* linux/magic.h from Linux 6.9 on */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int known, command_known;
static struct fk_owner this_process;
static char command_line[COMMAND_SIZE];

static uint64_t namespace_inode(const char *path)
{
    struct stat status;
    return stat(path, &status) < 0 ? 0 : status.st_ino;
}

/* Before pidfs all pidfds share one inode, which tells nothing. That is asked once. */
static uint64_t unique_inode(int pidfd)
{
    static _Atomic int pidfs; /* 1 yes, -1 no */
    struct statfs fs;
    struct stat status;
    if (!pidfs)
        pidfs = fstatfs(pidfd, &fs) == 0 && fs.f_type == PIDFS_MAGIC ? 1 : -1;
    return pidfs < 0 || fstat(pidfd, &status) < 0 ? 0 : status.st_ino;
}

static int open_pidfd(pid_t pid)
{
    fk_fd_enter();
    return fk_fd_keep(pidfd_open(pid, 0));
}

/* All its threads have, that is. Its parent may not have reaped it, and may never do so: no ESRCH then. */
static bool has_ended(int pidfd, int patience_ms)
{
    struct pollfd poll_for = {.fd = pidfd, .events = POLLIN};
    return fk_poll_until(&poll_for, 1, fk_deadline_in_ms(patience_ms)) > 0 && (poll_for.revents & POLLIN);
}

static int look_up_self(struct fk_owner *self)
{
    struct fk_proc_stat status;
    *self = (struct fk_owner){.pid = getpid()};
    int code = fk_proc_stat(0, &status);
    self->start_time = code < 0 ? 0 : status.start_time;
    ssize_t length =
        code < 0 ? code : fk_fd_read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", self->boot_id, sizeof self->boot_id);
    if (length < 0)
        return length == -ENOENT ? fk_fail(-ENOSYS, "/proc isn't mounted (or not for this process); flockctl needs it "
                                                    "to tell processes apart: mount it")
                                 : fk_fail_errno((int)length, "can't read /proc");
    self->boot_id[strcspn(self->boot_id, "\n")] = '\0';
    self->pid_ns = namespace_inode("/proc/self/ns/pid");
    self->time_ns = namespace_inode("/proc/self/ns/time");
    FK_CLOSE_FD int pidfd = open_pidfd(self->pid);
    if (pidfd >= 0)
        self->pidfd_inode = unique_inode(pidfd);
    return 0;
}

static void look_up_command(char text[COMMAND_SIZE])
{
    text[0] = '\0';
    ssize_t length = fk_fd_read_text(AT_FDCWD, "/proc/self/cmdline", text, COMMAND_SIZE);
    for (ssize_t i = 0; i + 1 < length; i++)
        if (text[i] == '\0')
            text[i] = ' ';
}

int fk_owner_self(const struct fk_owner **self)
{
    int code = 0;
    if (!atomic_load_explicit(&known, memory_order_acquire)) {
        struct fk_owner fresh;
        code = look_up_self(&fresh);
        pthread_mutex_lock(&lock);
        if (code == 0 && !atomic_load(&known)) {
            this_process = fresh;
            atomic_store_explicit(&known, 1, memory_order_release);
        }
        pthread_mutex_unlock(&lock);
    }
    if (code == 0)
        *self = &this_process;
    return code;
}

const char *fk_owner_command(void)
{
    if (!atomic_load_explicit(&command_known, memory_order_acquire)) {
        char fresh[COMMAND_SIZE];
        look_up_command(fresh);
        pthread_mutex_lock(&lock);
        if (!atomic_load(&command_known)) {
            memcpy(command_line, fresh, sizeof fresh);
            atomic_store_explicit(&command_known, 1, memory_order_release);
        }
        pthread_mutex_unlock(&lock);
    }
    return command_line;
}

/* EINVAL, and ENOENT in later kernels: a thread, a process group or a session has the number. Where there are no pidfds, or no
 * descriptor is to be had, kill(2) tells. */
static bool is_nobody(pid_t pid, int pidfd)
{
    return pidfd == -ESRCH || pidfd == -EINVAL || pidfd == -ENOENT ||
           (pidfd < 0 && kill(pid, 0) < 0 && errno == ESRCH);
}

int fk_owner_of(pid_t pid, struct fk_owner *owner)
{
    const struct fk_owner *self;
    struct fk_proc_stat status;
    int code = fk_owner_self(&self);
    if (code < 0)
        return code;
    FK_CLOSE_FD int pidfd = open_pidfd(pid);
    /* Numbers, also those that /proc has for us, are as seen from our own namespaces. */
    *owner = *self;
    owner->pid = pid;
    owner->start_time = fk_proc_is_ours() && fk_proc_stat(pid, &status) == 0 ? status.start_time : 0;
    owner->pidfd_inode = pidfd < 0 ? 0 : unique_inode(pidfd);
    if (is_nobody(pid, pidfd))
        return fk_fail(-ESRCH, "there is no process %d; give one that lives", (int)pid);
    if (pidfd >= 0 && has_ended(pidfd, 0))
        return fk_fail(-ESRCH, "there is no process %d any more (it has ended, and its parent hasn't noticed); give one that lives",
                       (int)pid);
    return 0;
}

/* ---- does it live ---- */

static enum fk_life because(const char **reason, enum fk_life life, const char *why)
{
    *reason = why;
    return life;
}

/* What its pidfd tells. FK_STOPPED: it isn't known yet whether it is dead, alive or stopped; then *pidfd is open. sure: but it is
 * known that it is no other process. */
static enum fk_life look_by_pidfd(const struct fk_owner *owner, const struct fk_owner *self, int *pidfd, bool *sure,
                                  const char **reason)
{
    *sure = false;
    if (strcmp(owner->boot_id, self->boot_id) != 0)
        return because(reason, FK_DEAD, "the machine has been restarted since");
    if (owner->pid_ns != self->pid_ns)
        return because(reason, FK_ALIVE, "it belongs to a pid namespace that can't be seen from here");
    int fd = *pidfd = open_pidfd(owner->pid);
    if (is_nobody(owner->pid, fd))
        return because(reason, FK_DEAD, "no process has its pid any more");
    if (fd < 0)
        return because(reason, FK_STOPPED, "its pid is in use, and no more can be found out");
    *sure = owner->pidfd_inode != 0;
    if (*sure && unique_inode(fd) != owner->pidfd_inode)
        return because(reason, FK_DEAD, "another process has its pid now");
    if (has_ended(fd, 0))
        return because(reason, FK_DEAD, "it has ended, and its parent hasn't noticed yet");
    return FK_STOPPED;
}

bool fk_owner_is_dead(const struct fk_owner *owner)
{
    const struct fk_owner *self;
    const char *reason;
    FK_CLOSE_FD int pidfd = -1;
    bool sure;
    if (fk_owner_self(&self) < 0)
        return false;
    enum fk_life life = look_by_pidfd(owner, self, &pidfd, &sure, &reason);
    return life == FK_STOPPED && !sure ? fk_owner_look(owner) == FK_DEAD : life == FK_DEAD;
}

/* The process that has the pid lives; is it the owner, and does it run? */
static enum fk_life look_by_stat(const struct fk_owner *owner, const struct fk_owner *self, int pidfd, bool sure,
                                 int patience_ms, const char **reason)
{
    struct fk_proc_stat status;
    if (!fk_proc_is_ours() || fk_proc_stat(owner->pid, &status) < 0)
        return because(reason, FK_ALIVE, sure ? "it runs" : "its pid is in use, and /proc doesn't say whose it is");
    bool comparable = owner->time_ns == self->time_ns && owner->start_time;
    if (comparable && status.start_time != owner->start_time)
        return because(reason, FK_DEAD, "another process, which has started later, has its pid now");
    if (status.state == 'T' || status.state == 't')
        return because(reason, FK_STOPPED, "it is stopped");
    bool exiting = status.exiting || status.state == 'Z' || status.state == 'X';
    if (exiting && pidfd >= 0 && has_ended(pidfd, patience_ms))
        return because(reason, FK_DEAD, "it has just ended");
    if (exiting)
        return because(reason, FK_ALIVE, "its main thread has ended, but not all of it");
    return because(reason, FK_ALIVE,
                   sure || comparable ? "it runs" : "its pid is in use, and its start time can't be compared");
}

enum fk_life fk_owner_judge(const struct fk_owner *owner, int patience_ms, const char **reason)
{
    const struct fk_owner *self;
    FK_CLOSE_FD int pidfd = -1;
    bool sure;
    if (fk_owner_self(&self) < 0)
        return because(reason, FK_ALIVE, "/proc can't be read");
    enum fk_life life = look_by_pidfd(owner, self, &pidfd, &sure, reason);
    return life == FK_STOPPED ? look_by_stat(owner, self, pidfd, sure, patience_ms, reason) : life;
}

enum fk_life fk_owner_look(const struct fk_owner *owner)
{
    const char *reason;
    return fk_owner_judge(owner, 0, &reason);
}

/* ---- as text ---- */

void fk_owner_format(const struct fk_owner *owner, char separator, char text[FK_OWNER_TEXT_SIZE])
{
    char c = separator;
    snprintf(text, FK_OWNER_TEXT_SIZE,
             "pid=%d%cstart=%" PRIu64 "%cboot=%s%cpidns=%" PRIu64 "%ctimens=%" PRIu64 "%cpidfd=%" PRIu64, (int)owner->pid,
             c, owner->start_time, c, owner->boot_id, c, owner->pid_ns, c, owner->time_ns, c, owner->pidfd_inode);
}

bool fk_owner_read_line(struct fk_owner *owner, const char *line, size_t length)
{
    const char *equals = memchr(line, '=', length);
    char value[FK_BOOT_ID_SIZE];
    if (!equals)
        return false;
    size_t key = (size_t)(equals - line), size = length - key - 1;
    size = size < sizeof value ? size : sizeof value - 1;
    memcpy(value, equals + 1, size);
    value[size] = '\0';
    uint64_t number = strtoull(value, NULL, 10);
#define IS(name) (key == sizeof(name) - 1 && memcmp(line, name, key) == 0)
    if (IS("pid"))
        owner->pid = number > 0 && number <= INT32_MAX ? (pid_t)number : 0;
    else if (IS("start"))
        owner->start_time = number;
    else if (IS("boot"))
        strcpy(owner->boot_id, value);
    else if (IS("pidns"))
        owner->pid_ns = number;
    else if (IS("timens"))
        owner->time_ns = number;
    else if (IS("pidfd"))
        owner->pidfd_inode = number;
    else
        return false;
#undef IS
    return true;
}

int fk_owner_parse(const char *word, struct fk_owner *owner)
{
    *owner = (struct fk_owner){0};
    for (size_t length; *word; word += length + (word[length] == ',')) {
        length = strcspn(word, ",");
        if (!fk_owner_read_line(owner, word, length))
            return -EINVAL;
    }
    return owner->pid > 0 && strlen(owner->boot_id) == FK_BOOT_ID_SIZE - 1 ? 0 : -EINVAL;
}

void fk_owner_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&known, 0);
    atomic_store(&command_known, 0); /* the child may have executed nothing, but written over its argv */
}
