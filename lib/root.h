/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lock directory: which one, is it safe, and does this release speak its protocol.
 *
 * The first candidate that applies is taken: flk_root_set() (the tool's --dir), $FLOCKCTL_DIR; $XDG_RUNTIME_DIR/flockctl and
 * /run/user/UID/flockctl where the directory above is ours; for root /run/flockctl; else /tmp/flockctl-UID. TMPDIR is ignored:
 * two processes with different ones must meet. When the choice wasn't told by name and a candidate further down has a
 * holder, there would be two worlds: an error.
 *
 * On disk: the directory (mode 0700, ours, no symlink), in it `version` and `rows`. A crash while it is made leaves any
 * part of that, which the next one completes; an empty `version` counts as not yet written. Behind the number it may
 * have a line `log`: history is on (log.h). In the process: chosen on first
 * use, changed only by flk_root_set(), which the registry refuses while something is held or waited for. */
#ifndef FK_ROOT_H
#define FK_ROOT_H

#include <alloca.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <sys/types.h>
#include <string.h>

#define FK_PROTOCOL 1

/* What the safety of the directory is measured by. Directories shared by a group are a policy to come. */
struct fk_root_policy {
    uid_t owner;
    mode_t forbidden; /* mode bits that must not be set */
};

/* The absolute path; stays valid for ever. */
int fk_root_path(const char **path);
/* The path of something below it, on the caller's stack. A host's threads may have little of that, and PATH_MAX bytes are
 * much. Not in a loop. */
#define FK_ROOT_BELOW(root, below) fk_root_join(alloca(strlen(root) + strlen(below) + 1), root, below)
static inline char *fk_root_join(char *path, const char *root, const char *below)
{
    stpcpy(stpcpy(path, root), below);
    return path;
}
/* Would it be there? Makes and checks nothing. */
bool fk_root_peek(char path[PATH_MAX]);
/* The same where it was chosen by flk_root_set() or FLOCKCTL_DIR, else NULL: commands must be told of it, or they use another. */
const char *fk_root_named(void);
/* Opens path, which must be a directory that satisfies policy: a descriptor or a negative errno. */
int fk_root_check(const char *path, const struct fk_root_policy *policy);
/* The marker in `version` that says that there is a history, for those who choose the directory from now on. */
int fk_root_set_log(bool on);
/* Where that stands: $FLOCKCTL_LOG or else $ROOT/log, whether it is on or not. */
int fk_root_log_path(char path[PATH_MAX]);
void fk_root_after_fork_child(void);

#endif
