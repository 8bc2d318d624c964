/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is a process, and does it live. A pid alone says little: it is used again, and means another process in another pid
 * namespace. So an owner is pid, start time (proc_pid_stat(5) field 22), boot id, inodes of its pid and time namespaces (start
 * times compare only within one time namespace), and the pidfd's inode where the kernel has pidfs (Linux 6.9), which is never
 * used again before a reboot.
 *
 * Dead is only what is proven dead: another boot; or, in our own pid namespace, ESRCH, a readable pidfd (a zombie),
 * another start time, another pidfd inode. A file missing in /proc proves nothing (hidepid). Everything else is alive. */
#ifndef FK_OWNER_H
#define FK_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FK_BOOT_ID_SIZE 37

struct fk_owner {
    pid_t pid;
    char boot_id[FK_BOOT_ID_SIZE];
    uint64_t start_time;       /* clock ticks since boot */
    uint64_t pid_ns, time_ns;  /* inodes; 0: the kernel has none */
    uint64_t pidfd_inode;      /* 0: not unique on this kernel */
};

enum fk_life { FK_DEAD, FK_ALIVE, FK_STOPPED };

/* This process; looked up once. -ENOSYS: no /proc. */
int fk_owner_self(const struct fk_owner **self);
/* This process's command line as ps(1) shows it, at most a few hundred bytes. Looked up once. */
const char *fk_owner_command(void);
enum fk_life fk_owner_look(const struct fk_owner *owner);
/* The first half of the question, for a third of the time where pidfds tell. */
bool fk_owner_is_dead(const struct fk_owner *owner);
void fk_owner_after_fork_child(void);

#endif
