/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line. An option means the same for every verb that takes it, so there is one table of them all and one struct of
 * their values; a verb names the groups that it takes. Options stand anywhere before the first "--"; of two the later
 * wins; unique prefixes of long ones do. Nothing behind "--" is looked at. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum option_group {
    GROUP_GLOBAL = 1 << 0, /* --dir -q -v -h --version */
    GROUP_WAIT = 1 << 1,   /* -n -w -E */
    GROUP_SLOTS = 1 << 2,  /* --slots */
    GROUP_LOCK = 1 << 3,   /* -s -l --probe --probe-timeout --on-abandoned */
    GROUP_RUN = 1 << 4,    /* -c --timeout --deadline -k --signal --detach --pgrp --output ... */
    GROUP_WHILE = 1 << 5,  /* --while */
    GROUP_LATCH = 1 << 6,  /* --latch */
    GROUP_STATUS = 1 << 7, /* --json --watch --color */
    GROUP_END = 1 << 8,    /* of those of RUN: -k --signal */
    GROUP_YES = 1 << 9,    /* -y */
    GROUP_LOG = 1 << 10,   /* -f --on --off */
    GROUP_VALUES = 1 << 11, /* --values */
    GROUP_POOL = 1 << 12,  /* --values-from --check --spread */
    GROUP_STATE = 1 << 13, /* --owner --path --cleanup-timeout */
    GROUP_CLEANUP = 1 << 14, /* --cleanup */
    GROUP_JSON = 1 << 15,  /* of those of STATUS: --json */
    GROUP_LABEL = 1 << 16, /* of those of LOCK: -l */
    GROUP_DRY_RUN = 1 << 17, /* --dry-run */
    GROUP_ONCE = 1 << 18,  /* -o --use --key --input --env --command-key --force --retry --print */
    GROUP_PRUNE = 1 << 19, /* --max-size */
    GROUP_OUTPUTS = 1 << 20, /* --list --forget */
    GROUP_MAX_AGE = 1 << 25, /* --max-age */
};

enum color { COLOR_AUTO, COLOR_ALWAYS, COLOR_NEVER };

struct options {
    bool help, version;
    const char *dir;
    int64_t wait_ms; /* FLK_FOREVER */
    int conflict_status;
    unsigned slots; /* 0: not given */
    const char *values, *values_from, *check; /* NULL: not given */
    bool spread;
    bool shared, detach, pgrp, latch;
    const char *label, *shell, *probe, *on_abandoned;
    int64_t timeout_ms, probe_timeout_ms, kill_after_ms; /* 0: no limit; 0: no limit; negative: no KILL */
    int64_t deadline;                                    /* of CLOCK_MONOTONIC, see deadline.h */
    int signal;
    const char *output, *out, *err, *cgroup, *report; /* NULL: not given */
    uint64_t output_limit;                            /* 0: none */
    unsigned isolate;
    const char *needs_command; /* the last one given of those that are about COMMAND; NULL: none */
    pid_t while_pid; /* 0: not given */
    bool json, watch, yes;
    bool follow, log_on, log_off, dry_run;
    pid_t owner;        /* 0: not given */
    const char **paths; /* ends with NULL; NULL: none given */
    const char *cleanup;
    bool tmpdir, has_max_age;
    int64_t max_age_ms; /* FLK_FOREVER: not given */
    int64_t cleanup_timeout_ms; /* 0: not given */
    bool has_max_size, list;
    uint64_t max_size;
    const char *forget; /* NULL: not given */
    enum color color;
    const char *target, *use, *key; /* NULL: not given */
    const char **inputs, **variables; /* as paths */
    bool force, retry, command_key, print;
    char **operands;
    size_t n_operands;
    char **command; /* behind "--"; NULL: there is no "--" */
    char **line;         /* all that stands behind "flockctl", as it was typed */
    char **command_word; /* in it, without a "--": where COMMAND seems to begin; NULL: nowhere */
    bool takes_names;    /* which stand before COMMAND */
};

/* What stands between argv[0], the verb, and the first "--". Keeps what options_parse_global() put there. False: it has
 * complained. */
bool options_parse(int argc, char **argv, unsigned groups, struct options *options);
/* GLOBAL options before the verb; the index of the verb in argv (argc: there is none), or -1. */
int options_parse_global(int argc, char **argv, struct options *options);

/* Of a line without a command; what is missing of NAME, "--" and COMMAND is put where it belongs. */
void complain_of_line(const struct options *options, const char *what);
void complain_of_missing_dashes(const struct options *options, const char *verb);

/* 1.5, .5, 250ms, 30s, 2m, 1h, 1d, forever; in ms, rounded up. False: not a time. */
bool parse_time(const char *text, int64_t *ms);
/* 10, 10K, 5M, 2G; K is 1024. False: not a size. */
bool parse_size(const char *text, uint64_t *size);
/* TERM, SIGTERM, 15, RTMIN+3. False: not a signal. */
bool parse_signal(const char *text, int *number);
/* Decimal digits, from least to most. */
bool parse_number(const char *text, unsigned long least, unsigned long most, unsigned long *value);

#endif
