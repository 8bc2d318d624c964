/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What /proc says of other processes: who they are, and which of them have a FIFO open and locked. Processes come and go while it
 * is read, and some of them we may not look at (another user's, those that aren't dumpable, and with hidepid=2 not
 * even their numbers are listed): what isn't found isn't proven. */
#ifndef FK_PROC_H
#define FK_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fk_proc_stat {
    char state; /* R S D T Z ... */
    pid_t parent;
    bool exiting; /* PF_EXITING: its main thread is, others may go on */
    uint64_t start_time;
};
/* pid 0: this process, whosever /proc it is. -ENOENT, -ESRCH: it isn't there, or is hidden. */
int fk_proc_stat(pid_t pid, struct fk_proc_stat *stat);

/* Is there a flock through this descriptor of ours, or one that shares its description; is it LOCK_SH? */
bool fk_proc_has_lock(int fd, bool *shared);

/* Is /proc that of our pid namespace? Another one's speaks of other processes. Looked up once. */
bool fk_proc_is_ours(void);

/* All its threads have: state Z alone says that the main one has. */
bool fk_proc_has_ended(pid_t pid);

/* The inode of its pid namespace, 0: not known; and its number in that namespace. */
uint64_t fk_proc_namespace(pid_t pid, pid_t *inner);

/* Calls each for root's descendants, at most `most` of them, until it gives false. */
void fk_proc_descendants(pid_t root, unsigned most, bool (*each)(pid_t pid, void *data), void *data);

struct fk_proc_file {
    dev_t device;
    ino_t inode;
    size_t index; /* the caller's */
};
struct fk_proc_user {
    size_t index; /* of the file that it has open for writing */
    pid_t pid;
    bool locked; /* it has a flock through that descriptor */
    bool shared; /* that is LOCK_SH */
};
/* Looks at all descriptors of all processes that we may look at, once, for writers of these files (sorts them); each process once for
 * a file that it has locked, and once for one that it hasn't. -ENOSYS: there is no /proc of our own pid namespace. -EMFILE,
 * -ENFILE: it can't be read to the end. */
int fk_proc_find_users(struct fk_proc_file *files, size_t n_files,
                       void (*each)(const struct fk_proc_user *user, void *data), void *data);

#endif
