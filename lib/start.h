/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a supervised command comes into being. Usually vfork and exec: the parent isn't copied, however large. With a cgroup or
 * new namespaces clone3 without CLONE_VM, since there the child has more to do. */
#ifndef FK_START_H
#define FK_START_H

#include <stdbool.h>
#include <sys/types.h>

#include "cgroup.h"
#include "isolate.h"
#include "supervise.h"

struct fk_start_place {
    const struct fk_cgroup *group;
    const struct fk_isolate_ids *ids; /* prepared; with isolate only */
    int terminal; /* -1, or one that the new process group is put in front of */
};

/* All signals that could end the child between here and its exec are blocked. As fk_supervise(). */
int fk_start(const struct fk_supervise_spec *spec, const struct fk_start_place *place, pid_t *pid, bool *at_exec);

#endif
