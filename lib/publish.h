/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How an output DIR/NAME is made without ever being seen half-made: at a private path, then renamed, whole.
 *
 * On disk, during a build:
 *   DIR/.flockctl-ID/          flocked by its maker as long as that lives; mode 0700
 *   DIR/.flockctl-ID/.owner    who that is, one line (owner.h); written right after the flock
 *   DIR/.flockctl-ID/NAME      what the builder makes, a file or a directory
 *   DIR/.flockctl-ID/.stamp    its stamp
 * (of a NAME that begins with "." the two are +owner and +stamp). Publishing takes these steps, of which the third is the
 * one that everybody sees:
 *   1. all that was made is brought to disk
 *   2. the stamp is written
 *   3. NAME is renamed; where there is an old one, file, directory or link, the two are exchanged
 *   4. so is the stamp
 *   5. DIR is brought to disk
 *   6. the private directory is removed, now with the old output; a stamp that is stale and has no successor, too
 * A failure before 3 changes nothing; one in 3 to 5 takes back what was done. A crash before 3 leaves the private directory; between 3
 * and 4 also a stamp that is stale, so that the output is built again.
 *
 * What a crash leaves is removed by the next builder in DIR: a directory called so (ID having the form of id.h; other names are the
 * user's) that it can flock, whose owner is dead. Nothing
 * goes by age. Where flock(2) can't tell (some network file systems) the owner's word is needed, else its flock says enough:
 * one that has none, or half of it, was killed before it began. */
#ifndef FK_PUBLISH_H
#define FK_PUBLISH_H

#include <limits.h>
#include <stdbool.h>

#include "flockctl.h"
#include "output.h"
#include "stamp.h"

#define FK_PRIVATE_PREFIX ".flockctl-"

struct fk_private {
    const struct fk_output *output;
    int directory; /* -1: there is none */
    char name[sizeof FK_PRIVATE_PREFIX + FLK_ID_SIZE];
    char *path; /* where the builder makes it: DIR/.flockctl-ID/NAME */
};

/* Removes what dead builders have left in the output's directory, and makes a private one, of that id where it can. By a holder of the
 * output's lock, who keeps output open; for fk_private_close(). -EACCES, -EROFS, -ENOSPC and so on. */
int fk_private_open(const struct fk_output *output, const char *id, struct fk_private *private);
/* stamp: its output is filled in; NULL: there is to be none. *made: what is published. -ENODATA: nothing was made. -EINVAL: it is
 * neither file nor directory. */
int fk_private_publish(const struct fk_private *private, struct fk_stamp_spec *stamp, struct fk_identity *made);
/* The other way: the output, which is to go, is what lies at path now. */
int fk_private_take_old(const struct fk_private *private);
/* Removes it with all that is in it. {.directory = -1} is fine. */
void fk_private_close(struct fk_private *private);
#define FK_CLOSE_PRIVATE __attribute__((cleanup(fk_private_close)))

/* What dead builders have left there; how many that were. Best effort. directory: as of an output. */
unsigned fk_private_sweep(int directory);

#endif
