/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stamp of an output DIR/NAME: the file DIR/.NAME.flockctl, which says what it was built for. (Of a name of more than
 * FK_STAMP_NAME_MAX bytes: DIR/.HASH.flockctl, with the hash of output.h.)
 *
 * Lines of key=value:
 *   flockctl=1                     the format
 *   device= inode= size= mtime=    of the output, as lstat(2) has them, mtime in ns
 *   built=                         when, in ns since 1970
 *   key=                           the key, control characters, backslashes and bytes above 0x7e as \xNN; or a line "keyless"
 * Lines behind these are passed over.
 *
 * States: absent; current, when what is at NAME is what it describes; stale, when it isn't. It is written whole beside and renamed, after
 * the output. So a crash between the two renames leaves a stale one, and the output is built again; and an output that
 * somebody else has replaced or changed is noticed. Written and removed by a holder of the output's lock, read by anybody.
 * Its own mtime is when the output was last asked for, to FK_STAMP_USED_EVERY: what prune goes by. */
#ifndef FK_STAMP_H
#define FK_STAMP_H

#include <linux/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define FK_STAMP_NAME_MAX (NAME_MAX - 10)
#define FK_STAMP_USED_EVERY (60 * INT64_C(1000000000)) /* ns */

/* What a file or directory is recognised by. */
struct fk_identity {
    dev_t device;
    ino_t inode;
    off_t size;
    int64_t mtime_ns;
};
void fk_identity_take(const struct stat *status, struct fk_identity *identity);
bool fk_identity_is(const struct fk_identity *a, const struct fk_identity *b);

struct fk_stamp {
    struct fk_identity output; /* that it describes */
    int64_t built_ns, used_ns; /* since 1970 */
    const char *key;           /* as it stands there, in text; NULL: it was built without */
    char *text;
    int fd;
};

/* Where the stamp of that output (a path, relative to wherever) is. -ENAMETOOLONG without a sentence. */
int fk_stamp_path(const char *output, char path[PATH_MAX]);
/* Of one whose name that is, in its directory. */
void fk_stamp_name(const char *name, char file[NAME_MAX + 1]);
/* For fk_stamp_close(). Without a sentence: -ENOENT, there is none, or what is there is none of ours. */
int fk_stamp_open(int at, const char *output, struct fk_stamp *stamp);
void fk_stamp_close(struct fk_stamp *stamp);
bool fk_stamp_has_key(const struct fk_stamp *stamp, const char *key);
/* The output was asked for. Best effort, and seldom more than a comparison. */
void fk_stamp_use(const struct fk_stamp *stamp);

int64_t fk_stamp_now(void); /* in ns since 1970 */

struct fk_stamp_spec {
    struct fk_identity output;
    const char *key; /* NULL: none was given */
};
/* As a new file of that name, on disk when it comes back. A negative errno without a sentence; the file may be there then. */
int fk_stamp_write(int directory, const char *file, const struct fk_stamp_spec *spec);

/* ---- the question ---- */

struct fk_wanted {
    const char *key;    /* NULL: it needs only be there */
    int64_t max_age_ms; /* 0: any */
    int64_t asked_ns;   /* what was built since then (fk_stamp_now()) is young enough, however long one has waited; 0: that doesn't count */
};
/* Is the output there, and current for what is wanted? 1 and its identity (of what a link leads to, where no key is asked for);
 * 0: no; or an error with a sentence. Takes no lock. A hit is marked as use of it. */
int fk_stamp_look(int at, const char *output, const struct fk_wanted *wanted, struct fk_identity *identity);

#endif
