/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All descendants of this process, which must be a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4): those that
 * called setsid or whose parent ended stay ours, so a walk from here over /proc/PID/task/TID/children finds every one.
 *
 * A pid that the walk found may be another process by the time it is signalled. So each is opened as a pidfd first, and is then
 * seen to be a descendant still, before the pidfd is signalled. What forks while we look may be missed by one walk, not
 * by all: callers walk again until nothing is left. */
#ifndef FK_TREE_H
#define FK_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Whether there is a /proc at all. One of another pid namespace (a command below --isolate pid, without mount) will do unless
 * something outlives the command. -errno. */
int fk_tree_check(void);
/* Makes this process the one that its descendants fall to when their parent ends. -errno. */
int fk_tree_adopt(void);
/* The children of this moment, which a program before our exec has left us, and what descends from them are no part of the
 * tree. How many they are, or -errno. */
int fk_tree_spare_children(void);
/* waitpid() gave it: the number may be another's now. True: it was a spared one. */
bool fk_tree_reaped(pid_t pid);

/* Calls each for every living descendant (zombies aren't), parents before children. A result other than 0 ends the walk and
 * is returned; else how many there were, or -errno: /proc can't be read. */
int fk_tree_walk(int (*each)(pid_t pid, void *data), void *data);

struct fk_tree_signalled {
    unsigned reached; /* got the signal */
    unsigned refused; /* another user's: EPERM */
};
/* Signals every living descendant but for those in the array except (may be NULL). One that is stopped is continued, or it
 * wouldn't act on the signal. -errno: /proc can't be read. */
int fk_tree_signal(int number, const pid_t *except, size_t n_except, struct fk_tree_signalled *signalled);
/* The same for one, as a walk has found it. 0; -ESRCH: it has ended, or is no descendant; -EPERM. */
int fk_tree_signal_one(pid_t pid, int number);

/* "ps"-like: the command line, or [name] where there is none; control characters are left in it. */
void fk_tree_command_of(pid_t pid, char *text, size_t size);

/* Walk as on a kernel without CONFIG_PROC_CHILDREN. For the tests. */
extern bool fk_tree_without_children_files;

#endif
