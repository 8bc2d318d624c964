/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A cgroup-v2 group below the caller's own, found through /proc/self/mountinfo (hybrid set-ups have it at `unified`) and
 * /proc/self/cgroup. Made when it isn't there; removed by fk_cgroup_close() if we made it and it is empty. */
#ifndef FK_CGROUP_H
#define FK_CGROUP_H

#include <stdbool.h>

struct fk_cgroup {
    int directory; /* for CLONE_INTO_CGROUP (Linux 5.7); -1: none */
    unsigned made; /* how many of the path's last components; 0: it was there */
    char *path;    /* absolute */
};

/* name: a relative path; empty, absolute, "..", "." components are refused. -errno with a sentence. */
int fk_cgroup_open(const char *name, struct fk_cgroup *group);
/* Ends all in it (cgroup.kill, Linux 5.14; where that isn't there: -EOPNOTSUPP). */
int fk_cgroup_kill(const struct fk_cgroup *group);
int fk_cgroup_is_empty(const struct fk_cgroup *group); /* of processes: 1, 0, or -errno */
/* Waits a moment for processes that are just ending. Accepts what open left empty (path NULL, directory -1). */
void fk_cgroup_close(struct fk_cgroup *group);

#endif
