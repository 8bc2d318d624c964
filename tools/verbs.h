/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs. Each is one file: it describes itself in a struct verb and is a line in the table of flockctl.c. */
#ifndef VERBS_H
#define VERBS_H

#include "options.h"

struct verb {
    const char *name;
    const char *synopsis; /* what stands behind "flockctl " */
    const char *operand;  /* what its only one is, for complaints; NULL: a name */
    const char *summary;  /* one line, for `flockctl help` */
    const char *help;     /* the rest of `flockctl help VERB`, an example in it */
    unsigned groups;      /* of the options it takes, beside GLOBAL */
    bool without_locks;   /* it needs no lock directory */
    int (*run)(struct options *options); /* the exit status */
};

extern const struct verb verb_acquire, verb_run, verb_define, verb_resize, verb_remove, verb_path, verb_dir,
    verb_status, verb_holders, verb_evict, verb_help, verb_version, verb_log, verb_id, verb_once, verb_reap, verb_state,
    verb_gc, verb_prune;

/* Of the options about COMMAND, for the help of the verbs that take them. */
#define RUN_HELP_WITH(DETACH)                                                                                          \
    "  -c, --shell TEXT            instead of -- COMMAND: sh -c TEXT\n"                                               \
    "      --timeout TIME          limit of COMMAND; then SIGTERM, SIGKILL, and exit status 124\n"                    \
    "      --deadline TIME         limit of waiting and COMMAND together, from now\n"                                 \
    "  -k, --kill-after TIME       grace between SIGTERM and SIGKILL (default 10s)\n"                                 \
    "      --signal SIG            instead of SIGTERM when its time is over\n"                                        \
    DETACH                                                                                                             \
    "      --pgrp                  COMMAND gets a process group of its own\n"                                         \
    "      --output FILE           copy what it prints to FILE, too\n"                                                \
    "      --stdout FILE, --stderr FILE   the same for one stream\n"                                                  \
    "      --output-limit SIZE     of each copy: 4096, 10K, 5M, 2G\n"                                                 \
    "      --cgroup NAME           start COMMAND inside this cgroup, below ours\n"                                    \
    "      --isolate LIST          new namespaces: pid,net,ipc,uts,mount,user,cgroup\n"                               \
    "      --tmpdir                a private directory as FLOCKCTL_TMPDIR and TMPDIR, removed afterwards\n"               \
    "      --cleanup CMD           run afterwards, whatever happened, before the lock goes on; at most 30s\n"            \
    "      --report FILE           append a line of JSON: command, status, exit, signal, timed_out, waited_ms, ran_ms,\n" \
    "                              user_ms, system_ms, max_rss_kib, stragglers, left, id, slots, started\n"
#define RUN_HELP                                                                                                       \
    RUN_HELP_WITH("      --detach                leave processes that outlive COMMAND alone, without the lock\n")
#define RUN_HELP_OF_ONCE RUN_HELP_WITH("") /* which refuses --detach */

#define EXIT_STATUS_HELP(BEFORE)                                                                                       \
    "\nExit status: COMMAND's own, 128+n died by signal n; " BEFORE "124 its time ran out;\n"                          \
    "125 flockctl failed; 126, 127 COMMAND can't be run.\n"

extern const struct verb verb_supervise; /* hidden: in no list, not suggested */

/* All of them, and a NULL. */
extern const struct verb *const verbs[];
const struct verb *find_verb(const char *name);
/* The one that somebody who typed name may have meant, or NULL. */
const struct verb *nearest_verb(const char *name);
void print_verb_help(const struct verb *verb);

/* Chooses the lock directory before anything is done, so that what is wrong with it is said first. 0, or the exit status after having
 * complained. By main() but for verbs without locks. */
int prepare_root(const struct options *options);

/* "NAME takes one operand" and the like. False: it has complained. */
bool check_operands(const struct verb *verb, const struct options *options, size_t least, size_t most);

#endif
