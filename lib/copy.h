/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies of what a command prints: each stream is a pipe that a thread of ours reads, shows where it would have gone, and writes
 * to a file as well. Inside the kernel where that can be: tee(2) to the one, when that is a pipe, and splice(2) to the other;
 * else read and write. What is shown in a regular file is always written: splice(2) takes and sets a shared offset in two steps,
 * and what somebody else writes there in between would be lost.
 *
 * What is to be kept in memory, too, goes by read and write.
 *
 * The thread blocks all signals. Nothing is lost: fk_copy_finish(), called when the tree has ended, takes out what is still in
 * the pipe, and doesn't wait for an end of file that somebody who couldn't be ended holds back. (Where it is shown must take
 * it, though: a reader that neither reads nor goes away is waited for, as the command would have.) What can't be written to the
 * file (full disk) is reported once and then only shown; what can't be shown any more (EPIPE) ends the showing and, as it would
 * without us, lets the command find it out: the pipe's read end is closed when the file doesn't take any more either. */
#ifndef FK_COPY_H
#define FK_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fk_copy;

/* Two streams may go into one file: they share the target, which keeps each write whole and counts the limit for both. */
struct fk_copy_file;
/* Truncates path. limit: bytes; 0: none; what is beyond is left out, with a line in the file that says so. */
int fk_copy_file_open(const char *path, uint64_t limit, struct fk_copy_file **file);
/* One without a file: what it is for is to keep. */
int fk_copy_file_none(struct fk_copy_file **file);
/* Before copies are started: the last size bytes of all that goes there are kept in memory, however much the file takes. -ENOMEM. */
int fk_copy_file_keep(struct fk_copy_file *file, size_t size);
/* After fk_copy_finish(): those, for as long as the file is open; how many. */
size_t fk_copy_file_kept(const struct fk_copy_file *file, const char **bytes);
/* 0, or the first failure of writing or of showing other than EPIPE (negative errno), of which fk_error_detail() says what;
 * frees it; NULL is fine. */
int fk_copy_file_close(struct fk_copy_file *file);

/* Starts to copy to file and to shown (a descriptor of the caller's; -1: only to the file). *write_end is the command's. */
int fk_copy_start(struct fk_copy_file *file, int shown, struct fk_copy **copy, int *write_end);
/* The command's tree has ended, and the caller has closed its write end: copies what is left. False: whoever is shown it hasn't
 * taken all in that time. NULL is fine. */
bool fk_copy_wait(struct fk_copy *copy, int64_t timeout_ms);
/* The same without a limit; then stops the thread and frees. NULL is fine. */
void fk_copy_finish(struct fk_copy *copy);

#endif
