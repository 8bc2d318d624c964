/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "owner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "proc.h"

#define PIDFS_MAGIC 0x50494446 /* linux/magic.h from Linux 6.9 on */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int known, command_known;
static struct fk_owner this_process;
static char command_line[512];

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
static bool has_ended(int pidfd)
{
    struct pollfd poll_for = {.fd = pidfd, .events = POLLIN};
    return poll(&poll_for, 1, 0) > 0 && (poll_for.revents & POLLIN);
}

static int look_up_self(struct fk_owner *self)
{
    struct fk_proc_stat status;
    *self = (struct fk_owner){.pid = getpid()};
    int code = fk_proc_stat(self->pid, &status);
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

static void look_up_command(void)
{
    ssize_t length = fk_fd_read_text(AT_FDCWD, "/proc/self/cmdline", command_line, sizeof command_line);
    for (ssize_t i = 0; i + 1 < length; i++)
        if (command_line[i] == '\0')
            command_line[i] = ' ';
}

int fk_owner_self(const struct fk_owner **self)
{
    int code = 0;
    if (!atomic_load_explicit(&known, memory_order_acquire)) {
        pthread_mutex_lock(&lock);
        if (!atomic_load(&known)) {
            code = look_up_self(&this_process);
            if (code == 0)
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
        pthread_mutex_lock(&lock);
        if (!atomic_load(&command_known)) {
            look_up_command();
            atomic_store_explicit(&command_known, 1, memory_order_release);
        }
        pthread_mutex_unlock(&lock);
    }
    return command_line;
}

/* FK_STOPPED: it isn't known yet whether it is dead, alive or stopped. */
static enum fk_life look_by_pidfd(const struct fk_owner *owner, const struct fk_owner *self, bool *sure)
{
    *sure = false;
    if (strcmp(owner->boot_id, self->boot_id) != 0)
        return FK_DEAD;
    if (owner->pid_ns != self->pid_ns)
        return FK_ALIVE;
    FK_CLOSE_FD int pidfd = open_pidfd(owner->pid);
    if (pidfd == -ESRCH)
        return FK_DEAD;
    *sure = pidfd >= 0 && owner->pidfd_inode;
    if (*sure && unique_inode(pidfd) != owner->pidfd_inode)
        return FK_DEAD;
    return pidfd >= 0 && has_ended(pidfd) ? FK_DEAD : FK_STOPPED;
}

bool fk_owner_is_dead(const struct fk_owner *owner)
{
    const struct fk_owner *self;
    bool sure;
    if (fk_owner_self(&self) < 0)
        return false;
    enum fk_life life = look_by_pidfd(owner, self, &sure);
    return life == FK_STOPPED && !sure ? fk_owner_look(owner) == FK_DEAD : life == FK_DEAD;
}

enum fk_life fk_owner_look(const struct fk_owner *owner)
{
    const struct fk_owner *self;
    bool sure;
    if (fk_owner_self(&self) < 0)
        return FK_ALIVE;
    enum fk_life life = look_by_pidfd(owner, self, &sure);
    if (life != FK_STOPPED)
        return life;
    struct fk_proc_stat status;
    if (fk_proc_stat(owner->pid, &status) < 0)
        return FK_ALIVE;
    if (owner->time_ns == self->time_ns && status.start_time != owner->start_time)
        return FK_DEAD;
    return status.state == 'T' || status.state == 't' ? FK_STOPPED : FK_ALIVE;
}

void fk_owner_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&known, 0);
    atomic_store(&command_known, 0); /* the child may have executed nothing, but written over its argv */
}
