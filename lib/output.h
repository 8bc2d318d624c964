/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An output of build-once: which file or directory it is, however it is spelled.
 *
 * It belongs to its directory, followed to the end and known by device and inode, and to its last name, which isn't followed: a
 * symbolic link there is the output itself. So other spellings, linked directories and bind mounts of one place are one output, whose
 * lock is the row $ROOT/once/KEY. (A directory that takes X and x for one name still gives them two locks.)
 *
 * KEY is "DEVICE-INODE-HASH" in hexadecimal, the hash having 128 bits: any name, with newlines too, gives a name for a row that
 * fits. Only names in one directory can meet in it, by an accident of 1 in 2^128 a pair; the two would take turns, no more: what
 * their lock is for is told by its file `output`, and what its last run made by a name of its own (once.h). Who wants to
 * bring such a pair about is the user whose outputs they are.
 * After a reboot the numbers may mean another place. That is of no matter either: a lock nobody holds says nothing. */
#ifndef FK_OUTPUT_H
#define FK_OUTPUT_H

#include <stddef.h>
#include <sys/types.h>

#define FK_OUTPUT_MARK ':'      /* the first byte of a row's text that is an output's lock: no name begins with it */
#define FK_OUTPUT_KEY_SIZE 68   /* with its mark and NUL */
#define FK_OUTPUT_SHOWN_SIZE 512
#define FK_OUTPUT_HASH_SIZE 33

struct fk_output {
    int directory; /* O_PATH */
    dev_t device;  /* of the directory */
    ino_t inode;
    char *path;       /* absolute, links of the directory resolved */
    const char *name; /* its last component */
    char row[FK_OUTPUT_KEY_SIZE];      /* the text of its lock's row: the mark and KEY */
    char shown[FK_OUTPUT_SHOWN_SIZE];  /* path, for sentences */
};

/* Where path (slashes at its end don't count) leads now; for fk_output_close(). -EINVAL: no name of an output. -ENOENT, -ENOTDIR,
 * -EACCES: its directory can't be used. */
int fk_output_open(const char *path, struct fk_output *output);
/* -EINVAL, -ENAMETOOLONG: path can't be an output's, wherever it leads. */
int fk_output_check(const char *path);
void fk_output_close(struct fk_output *output); /* {.directory = -1} is fine */
#define FK_CLOSE_OUTPUT __attribute__((cleanup(fk_output_close)))

/* 128 bits of hash of a name, in hexadecimal. */
void fk_output_hash(const char *name, size_t length, char text[FK_OUTPUT_HASH_SIZE]);
/* A path as a sentence can have it: no byte that a terminal obeys, the beginning cut off when it is long. */
void fk_output_show(const char *path, char shown[FK_OUTPUT_SHOWN_SIZE]);

#endif
