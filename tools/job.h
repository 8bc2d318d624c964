/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* COMMAND: what `flockctl acquire`, `flockctl run` and `flockctl once` share. A job is checked and its files are opened before anything is waited
 * for, so that a wrong line fails at once; then it is run, with a hold or without. */
#ifndef JOB_H
#define JOB_H

#include <flockctl.h>
#include <signal.h>
#include <sys/resource.h>

#include "cleanup.h"
#include "options.h"
#include "signals.h"

#define JOB_SAID_MAX 4096

struct job {
    const struct options *options;
    char **command;
    char *shell[4]; /* of -c */
    int report;     /* descriptor; -1: none */
    int64_t outer;    /* when the flockctl around us ends us, less a moment; FK_NEVER */
    int64_t deadline; /* that, or --deadline, whichever comes first; FK_NEVER */
    const struct rlimit *files; /* the limit of open files that the command gets back; NULL: ours */
    bool blocked; /* signals are, since the wait */
    const char *limit; /* what has set the limit of the running command */
    bool by_deadline;  /* that isn't --timeout */
    struct cleanup cleanup;
    unsigned stragglers; /* told of so far */
    struct job_build *build; /* of `once`: its builder; NULL: any other command */
};

/* A builder has nothing on stdin, and what it printed last is kept. Its hold stays the caller's, and how it ended is told: */
struct job_build {
    bool shows_on_stderr; /* what it prints to stdout */
    int signal;           /* of which we are to die when all is cleared up; 0: none */
    bool interrupted;     /* it couldn't be started by us, or somebody wanted it to end, or us, or the deadline, which is ours, came */
    size_t length;
    char said[JOB_SAID_MAX];
};

/* 0, or the exit status after having complained. */
int job_prepare(struct job *job, const struct options *options, const char *verb);
/* For the verbs that wait and run nothing: options->wait_ms, or less. 0, or the exit status after having complained. */
int job_bound_wait(struct job *job, const struct options *options, int64_t *wait_ms);
/* As complain_of(), of such a wait. */
int job_complain_of_wait(const struct job *job, int code);
/* What is left for waiting until `until`, in ms, FLK_FOREVER. */
int64_t job_left_ms(const struct job *job, int64_t until);
/* What the user calls the deadline. */
const char *job_deadline_name(const struct job *job);
/* Says that the deadline has passed, if so, and whose it was. */
void job_tell_late(const struct job *job);

/* Takes over the hold (NULL: none; of a build: borrows it, and leaves the signals blocked). signals: NULL, or those that are blocked since the wait (closes their descriptor); one that
 * has come, and the command doesn't start. The exit status; may die of a signal instead. */
int job_run(struct job *job, struct flk_hold *hold, struct signals *signals);

#endif
