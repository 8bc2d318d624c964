/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is known of files that were read before: the digest of the content, and by which stat data (device, inode, size, mtime, ctime)
 * it is known again without reading.
 *
 * The record of them is a file beside OUTPUT, of a header and 72 bytes a file, in the machine's own numbers (flockctl(7)). It holds no
 * names: a file that was renamed is still known, and one with two names is read once. States: absent; whole. It is replaced by
 * rename, so a crash leaves the old one, and perhaps a .new, which the next saver uses again. A damaged one, one of
 * another release or of another user counts as absent: everything is read again.
 *
 * What is known is trusted only of a file that had been left alone for a while when it was read. Otherwise a change within the same
 * tick of the file system's clock would be missed (git's "racily clean" entries). The rest is kept in memory, to tell
 * whether the content is another one, and isn't saved. A clock that is set back makes times lie in the future: not trusted. */
#ifndef KNOWN_H
#define KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "digest.h"

struct known_file {
    uint64_t device, inode, size;
    int64_t mtime, ctime; /* ns */
    unsigned char digest[DIGEST_SIZE];
};

struct known {
    struct known_file *list;
    unsigned char *marks; /* one for each: used since it was loaded, trusted */
    size_t count, room;
    size_t next; /* in the list: behind the one that was asked for last */
    uint32_t *slots; /* an index by device and inode: number in the list + 1; 0: free */
    size_t n_slots;  /* 0: it isn't made */
    bool news; /* that the file doesn't have */
};

/* From directory/name. Whatever is wrong with it, they are empty. */
void known_load(struct known *known, int directory, const char *name);
/* The digest of a file that is still as it was when it was read; NULL: it must be read. */
const unsigned char *known_find(struct known *known, const struct stat *status);
/* status: before it was read, from `began` (of CLOCK_REALTIME_COARSE) on. steady: and afterwards. 1: other content than before, or a
 * file that wasn't known; 0: the same; -ENOMEM. */
int known_add(struct known *known, const struct stat *status, const struct timespec *began, bool steady,
              const unsigned char digest[DIGEST_SIZE]);
/* Those that were found or added, if some are new. 0 or -errno. */
int known_save(struct known *known, int directory, const char *name);
void known_clear(struct known *known);

#endif
