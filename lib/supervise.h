/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A command and its whole tree, from the start to the last process's end. The caller is a process whose only children are the
 * command's tree: the tool, or the helper that flk_run() starts (run.c), never a host program.
 *
 * States, and what moves on:
 *   RUNNING   the command's own process lives. Signals that a process sent us are forwarded to it
 *   ENDING    the limit has passed, or `control` asked for it: `signal` was sent to the whole tree, once
 *   SETTLING  the command's own process has ended and others live on, which for a moment may be about to end by themselves
 *   CLEARING  they haven't (stragglers): TERM was sent to each; with DETACH there is neither this state nor the one before
 *   KILLING   the grace has passed, a second TERM came (one second after the first or later: timeout(1) sends two at
 *             once), or in CLEARING an INT or QUIT, or `control` asked for it: SIGKILL to all, again and again
 *   OVER      waitpid says ECHILD; or what is left isn't ours to end (another user's), and is named
 * Everything is reaped all along. Only a timeout ends a detached tree.
 *
 * Job control: a terminal stops the command and us alike. We stop once the command has, which may do things before, and with
 * the same signal, so that our parent, a shell, sees it; when we are continued, so is the command. A limit that passes meanwhile
 * is seen then; so we don't follow a SIGSTOP, which some process sent, when there is a limit.
 *
 * A crash (kill -9 of this process) at any point: the kernel ends the direct child (PR_SET_PDEATHSIG, not with DETACH); what
 * else lives keeps the descriptors that it inherited, so a lock that was handed on stays taken. */
#ifndef FK_SUPERVISE_H
#define FK_SUPERVISE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum fk_supervise_flags {
    FK_SUPERVISE_DETACH = 1 << 0, /* leave alone what outlives the command */
    FK_SUPERVISE_PGRP = 1 << 1,   /* a process group of its own */
    FK_SUPERVISE_TERMINAL = 1 << 2, /* stop with the command when it is stopped (job control), continue with it */
    FK_SUPERVISE_SIZE_LIMIT = 1 << 3, /* SIGXFSZ, which we ignore, is the command's again */
};

struct fk_supervise_notice {
    enum { FK_NOTICE_TIMEOUT, FK_NOTICE_STRAGGLER, FK_NOTICE_CLEARING, FK_NOTICE_LEFT, FK_NOTICE_KILL } what;
    pid_t pid;           /* STRAGGLER: is sent TERM (CLEARING: those were all); LEFT: can't be ended. LEFT, 0: they can't even
                            be found */
    const char *command; /* of that pid; without one: the reason */
    int64_t ms;          /* TIMEOUT: the limit; KILL: the grace that has passed, -1: asked for */
};

struct fk_supervise_spec {
    const char *const *argv, *const *envp; /* both end with NULL */
    const char *dir;       /* NULL: ours */
    int stdio[3];          /* what the command gets as 0, 1, 2; -1: ours */
    int64_t limit_ms;      /* 0: none */
    int64_t kill_after_ms; /* 0: KILL comes right after the signal; negative: never */
    int signal;            /* at the limit */
    unsigned flags, isolate; /* isolate: enum flk_isolate */
    const char *cgroup;    /* NULL: as we are; see cgroup.h */
    sigset_t mask;         /* the command's */
    int control;           /* -1, or a stream socket. A byte is a signal for the whole tree (SIGKILL: until nothing is left); 0
                              ends it as the limit does, but timed_out stays false. End of file: so too, not with DETACH */
    void (*notice)(const struct fk_supervise_notice *notice, void *data); /* NULL: none */
    void *data;
};

struct fk_supervise_result {
    int status;           /* wait status of the command's own process */
    bool timed_out;
    int signalled;        /* the first of TERM, INT, HUP and QUIT that came meanwhile, from whomever; 0: none */
    int interrupted;      /* the first of these that came after the command's own end; 0: none */
    unsigned stragglers;  /* that had to be ended after the command's own end */
    unsigned left;        /* that could not be ended */
    int64_t ran_ms;       /* until the command's own end */
    struct rusage rusage; /* of all that were reaped */
};

/* Blocks the signals that it reads, sets SIGCHLD to its default and makes this process a subreaper; takes none of that back but
 * the mask. 0, and *result; or -errno: the command was not started, fk_fail() has said why: -ENOENT, -EACCES and so on
 * are exec's own (then *at_exec is true). */
int fk_supervise(const struct fk_supervise_spec *spec, struct fk_supervise_result *result, bool *at_exec);

#endif
