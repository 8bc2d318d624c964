/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs. Each is one file: it describes itself in a struct verb and is a line in the table of flockctl.c. */
#ifndef VERBS_H
#define VERBS_H

#include "options.h"

struct verb {
    const char *name;
    const char *synopsis; /* what stands behind "flockctl " */
    const char *summary;  /* one line, for `flockctl help` */
    const char *help;     /* the rest of `flockctl help VERB`, an example in it */
    unsigned groups;      /* of the options it takes, beside GLOBAL */
    bool without_locks;   /* it needs no lock directory */
    int (*run)(struct options *options); /* the exit status */
};

extern const struct verb verb_acquire, verb_define, verb_resize, verb_remove, verb_path, verb_dir, verb_help, verb_version;

/* All of them, and a NULL. */
extern const struct verb *const verbs[];
const struct verb *find_verb(const char *name);
/* The one that somebody who typed name may have meant, or NULL. */
const struct verb *nearest_verb(const char *name);
void print_verb_help(const struct verb *verb);

/* "NAME takes one operand" and the like. False: it has complained. */
bool check_operands(const struct verb *verb, const struct options *options, size_t least, size_t most);

#endif
