/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an OUTPUT is to be current for: the options --key, --input, --env and --command-key as one text, which the library compares
 * with that of the output's stamp.
 *
 * --key alone: TEXT itself, so that a program which gives the same one to flk_once() means the same. Otherwise "sha256:" and
 * the digest of all of them, in an order and with marks (key.c, flockctl(7)) that make equal keys of equal options only; a TEXT that begins so
 * is digested too. "{key}" in OUTPUT's name is always a digest: 64 hexadecimal digits. */
#ifndef KEY_H
#define KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "digest.h"
#include "inputs.h"
#include "output.h"

struct key_spec {
    const char *output; /* as the user wrote it */
    const char *text; /* --key; NULL: none */
    /* Each ends with NULL; NULL: none of them. */
    const char *const *inputs, *const *variables;
    const char *const *command; /* with --command-key */
    const char *lock_directory; /* which is no input; NULL: none that could be one */
};

struct key {
    const struct key_spec *spec;
    char *text;   /* NULL: there is none, OUTPUT needs only be there */
    char *output; /* with {key} replaced */
    struct inputs inputs;
    size_t n_inputs;
    unsigned char (*digests)[DIGEST_SIZE]; /* of the inputs */
    struct fk_output place; /* with {key} as it is: beside it stands what is known. Directory -1: there are no inputs */
    char *name;             /* the names of OUTPUT, cut at {key} */
};

/* For key_clear(), whatever it gives. 0, or a negative errno with a sentence. */
int key_make(struct key *key, const struct key_spec *spec);
/* Are the inputs still as they were then? 1, or 0 with a sentence that says what has changed; negative: can't be told. */
int key_check(struct key *key);
void key_clear(struct key *key);

#endif
