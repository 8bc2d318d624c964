/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a build is made from: files, and directories with all that is in them.
 *
 * Counted are content, permission bits and names; of a symbolic link what it says, of other files what they are. Owners, times,
 * hard links and the order on disk aren't. An input that is named itself is followed when it is a symbolic link; its own name is told
 * apart by the caller. What vanishes while a directory is read counts as not there.
 *
 * Never counted: OUTPUT, what flockctl keeps beside any OUTPUT, and the lock directory. All of them change by being used.
 *
 * Memory: one buffer, what is known (known.h) and the names of the directories on the way down. Descriptors: one a level. */
#ifndef INPUTS_H
#define INPUTS_H

#include <stddef.h>
#include <sys/stat.h>

#include "digest.h"
#include "known.h"

/* Of the record of known files, behind the name of OUTPUT's stamp: .NAME.flockctl-inputs. */
#define INPUTS_SUFFIX "-inputs"

struct inputs {
    struct known known;
    struct stat output_directory, lock_directory; /* all zero: there is none */
    const char *before, *after; /* in output_directory, names that begin and end so; after NULL: that name */
    char *buffer;
    char *news; /* the first file whose content wasn't known before; NULL: all were */
};

/* -> its digest; 0 or a negative errno with a sentence. */
int inputs_digest(struct inputs *inputs, const char *path, unsigned char result[DIGEST_SIZE]);
void inputs_clear(struct inputs *inputs);

#endif
