/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is a process, and does it live. A pid alone says little: it is used again, and means another process in another pid
 * namespace. So an owner is pid, start time (proc_pid_stat(5) field 22), boot id, inodes of its pid and time namespaces (start
 * times compare only within one time namespace), and the pidfd's inode where the kernel has pidfs (Linux 6.9), which is never
 * used again before a reboot.
 *
 * Dead means proven. These are the proofs:
 *   another boot id
 *   and, of an owner of our own pid namespace, whose numbers mean here what they meant there:
 *     ESRCH          no process has that pid. (EINVAL, ENOENT: only a thread, a process group or a session has it.) From kill(2)
 *                    where pidfd_open(2) isn't to be had
 *     pidfd inode    the process that has it now is another one
 *     start time     the same; not compared across time namespaces, nor when /proc is another pid namespace's
 *     readable pidfd all its threads have ended; it may not have been reaped yet
 * Everything else is alive: a file missing in /proc (hidepid) proves nothing, nor do state Z and PF_EXITING, which a process
 * shows as soon as its main thread has ended. But just after a kill -9 they are what most victims show, so there the pidfd is worth
 * being polled for some ms. A pid used again within one clock tick is alive where the pidfd's inode can't tell. */
#ifndef FK_OWNER_H
#define FK_OWNER_H

#include <stdbool.h>
#include <stddef.h>
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
/* Another process, by its pid in our namespace, as long as it lives. -ESRCH: there is none, or it has ended. */
int fk_owner_of(pid_t pid, struct fk_owner *owner);

/* FK_STOPPED: alive, and stopped. */
enum fk_life fk_owner_look(const struct fk_owner *owner);
/* The same, waiting patience_ms at most for one that is exiting to have ended. *reason: what says so, for people; static. */
enum fk_life fk_owner_judge(const struct fk_owner *owner, int patience_ms, const char **reason);
/* As text, lines or one word (separator '\n' or ','): pid= start= boot= pidns= timens= pidfd= */
#define FK_OWNER_TEXT_SIZE 192
void fk_owner_format(const struct fk_owner *owner, char separator, char text[FK_OWNER_TEXT_SIZE]);
/* Takes one such line up. False: it is none of these. */
bool fk_owner_read_line(struct fk_owner *owner, const char *line, size_t length);
/* -EINVAL: not such a word. */
int fk_owner_parse(const char *word, struct fk_owner *owner);

/* The first half of the question, for a third of the time where pidfds tell. */
bool fk_owner_is_dead(const struct fk_owner *owner);
void fk_owner_after_fork_child(void);

#endif
