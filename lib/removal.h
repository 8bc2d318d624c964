/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Removes a file, a symlink itself, or a directory with all in it, as rm -rf does, but where others may write too, and nobody looks on.
 *
 * Nothing outside is touched. Each step goes by one name in a directory that is open: no symlink is followed, no mount is entered
 * (bind mounts of the same file system neither), and who exchanges a directory for a symlink meanwhile has removed that symlink at
 * most. Directories of ours without permission bits get them. Neither the stack nor the number of open descriptors grows with
 * the depth: of the directories on the way down the last FK_REMOVE_OPEN are open, and the way back leads through "..", where device
 * and inode must be those that were left. What comes into a directory while it is emptied is removed too, a number of times.
 *
 * What can't be removed doesn't stop the rest; the first failure is what is reported. A crash leaves a smaller tree, to be
 * removed again. */
#ifndef FK_REMOVAL_H
#define FK_REMOVAL_H

#include <limits.h>

#define FK_REMOVE_OPEN 16

enum fk_remove_flags {
    FK_REMOVE_OWN_ONLY = 1 << 0, /* -EPERM unless what is named belongs to our euid; what is in a directory of ours may go */
};

/* name: one component, in the open directory. 0, also when it isn't there. -EXDEV: something is mounted there or below. -ENOTEMPTY: others
 * fill it again and again. -EACCES, -EPERM and so on. */
int fk_remove_tree(int directory, const char *name, unsigned flags);

/* May this be removed one day, when nobody asks any more? -EPERM: it is "/", the home directory (HOME's, and the user's in
 * /etc/passwd), the lock directory or above one of them, or belongs to somebody else. -EINVAL: it isn't absolute, or ends in "." or "..". -ENOENT: there is no directory that it could be
 * in; it need not be there itself. real: the path without symlinks on the way, its last component being as it is. */
int fk_removal_check(const char *path, char real[PATH_MAX]);

/* Removes what that has allowed, by its real path: -ELOOP when there is a symlink on the way now. Asks the same questions again. */
int fk_remove_path(const char *real);

#endif
