/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The library's file descriptors. Closing one is unlocking, and a copy that a fork left in a child keeps a lock alive, so
 * every descriptor is entered in a table in the same step that opens it, and the fork handlers close in the child what
 * stands there.
 *
 * States of a number: not ours; ours (open, in the table). Changed by fk_fd_open() and its like, by fk_fd_close(), by
 * fk_fd_disown() (open, but no longer closed in a child) and, in a forked child, by fk_fd_after_fork_child(). The table is
 * per process and dies with it.
 *
 * Between fk_fd_enter() and fk_fd_keep() no fork() of another thread can happen: it waits for the few calls in between,
 * which must not sleep. (A raw clone or a vfork doesn't wait; what they copy is gone with the child's exec.) All
 * descriptors are close-on-exec and none is 0, 1 or 2, whatever the host has closed. */
#ifndef FK_FD_H
#define FK_FD_H

#include <dirent.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

void fk_fd_enter(void);
int fk_fd_keep(int fd); /* fd of the call just made, or -1: -errno. Ends what fk_fd_enter() began. */
int fk_fd_keep_pair(int code, int fds[2]); /* the same for a call that makes two and gave code; 0 or -errno */

int fk_fd_open(int directory, const char *path, int flags, mode_t mode); /* or -errno */
/* Set by the registry: closes what is kept open only because it may be used again, and says whether that was anything. A host
 * that has used up its limit meanwhile goes before what we like to keep. */
extern bool (*_Atomic fk_fd_relief)(void);
bool fk_fd_relieve(int code); /* true: code says that the limit is reached, and something was closed; try again */
/* To write to a file that the user has named; flags beside O_WRONLY. Never hangs: -ENXIO says that it is a FIFO without a reader. */
int fk_fd_open_output(const char *path, int flags);
void fk_fd_close(int *fd);                                             /* sets -1; -1 is fine */
/* 0 or -errno; for fk_fd_close_directory(). The last component isn't followed. */
int fk_fd_open_directory(int at, const char *path, DIR **directory);
/* The same for a stream made of one of ours. */
void fk_fd_close_directory(DIR *directory);
void fk_fd_close_file(FILE *file);
/* The beginning of a file, at most size - 1 bytes, with a NUL; its length or -errno. */
ssize_t fk_fd_read_text(int directory, const char *path, char *text, size_t size);
/* The whole text, or -errno; a short write is -ENOSPC. */
int fk_fd_write_at(int fd, const char *text, size_t length, off_t at);
/* Puts count (1 or 2) bytes into a FIFO, for those who poll it. Best effort. */
void fk_fd_tell(int fd, size_t count);
void fk_fd_disown(int fd);
void fk_fd_own(int fd); /* again */
bool fk_fd_is_ours(int fd);
int fk_fd_move_up(int fd, int lowest); /* the same file at a number from lowest on where there is one; fd is closed */

#define FK_CLOSE_FD __attribute__((cleanup(fk_fd_close)))
static inline int fk_fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Fork handlers, called by the registry. */
void fk_fd_before_fork(void);
void fk_fd_after_fork_parent(void);
void fk_fd_after_fork_child(void);
void fk_fd_after_raw_clone(void); /* in its child, for which nothing was done before */

#endif
