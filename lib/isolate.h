/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New namespaces for a command. Those of pid, and of user when we aren't root, are asked for in the clone that makes the child;
 * the child makes the others and sets all up before exec, with system calls only (no malloc, no stdio), so that it is good
 * after any kind of clone.
 *
 *   pid    the child is pid 1: it stays there as a small init that starts the command, hands signals on to it, reaps, and ends
 *          with it, as it did: see fk_isolate_status(). Whatever else is left ends before the init does. With mount: /proc is fresh
 *   mount  propagation is made private before anything else
 *   net    the loopback device is brought up
 *   user   the caller, when not root, is root inside; root stays who it is, and so do all others. The namespaces of the other
 *          kinds belong to it, so that its root may do there what root may (of pid this holds for callers that aren't root)
 *   cgroup its root is the group that the child is in
 * ipc and uts need nothing.
 *
 * The init, seen from outside: it hands on what a process outside sends it, the kernel's and the terminal's signals (si_code >
 * 0) not, which have reached the command already. So whoever signals the whole tree leaves it out. It is never stopped with the
 * command. It keeps the inheritable descriptors (locks) until all others in the namespace are gone, and closes the
 * close-on-exec ones. When its parent ends and PR_SET_PDEATHSIG was set, it kills all others and ends. In it and in the
 * command getppid() is no test for the parent's end: fk_isolate_enter() makes one. */
#ifndef FK_ISOLATE_H
#define FK_ISOLATE_H

#include <stdbool.h>
#include <stdint.h>

/* The CLONE_NEW* flags, for a set of enum flk_isolate, of the clone that makes the child. */
uint64_t fk_isolate_clone_flags(unsigned isolate);

struct fk_isolate_failure {
    int code;         /* errno; 0: none */
    const char *what; /* static: which namespace, which step; NULL: the clone itself */
};
/* What the child can't find out for itself. Got before the clone. */
struct fk_isolate_ids {
    bool root;
    char uid_map[256], gid_map[256];
    int parent;  /* a pidfd of this process; -1: none */
    int *status; /* of the command, written by the init; memory shared with it; NULL: none */
};
void fk_isolate_prepare(struct fk_isolate_ids *ids);
/* In the child, after the clone and after PR_SET_PDEATHSIG. 0: in the process that is to become the command, with the signal mask
 * as it was. Negative: *failure says what; with pid as well, it is the child itself that returns so. */
int fk_isolate_enter(unsigned isolate, const struct fk_isolate_ids *ids, struct fk_isolate_failure *failure);
/* The command's wait status, when the child has ended with `status`: the same, unless that is an init, which can't die of most
 * signals and exits with 128+n then. Frees what fk_isolate_prepare() got. Call it also when the start has failed. */
int fk_isolate_status(struct fk_isolate_ids *ids, int status);

/* fk_fail() for a clone or a step that was refused: names the namespace and, where one is known, the sysctl that forbids it. */
int fk_isolate_complain(unsigned isolate, const struct fk_isolate_failure *failure);

/* "pid,net,..." : the set, or -EINVAL with a sentence. */
int fk_isolate_parse(const char *list, unsigned *isolate);

#endif
