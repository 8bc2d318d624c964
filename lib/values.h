/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The values of a pool: a row whose slots stand for something, a port or a device each. What they are is said when the row is
 * made, and never changes.
 *
 * On disk, in the row's directory, so that they appear whole with it: `values`, where line K + 1 is the value of slot K; and, only of
 * pools with a check, `check`, one line, and `blocked` (pool.h). The latch says which of them there are (latch.h), so a row without values costs no look. */
#ifndef FK_VALUES_H
#define FK_VALUES_H

#include <stdbool.h>
#include <stddef.h>

#include "flockctl.h"

#define FK_BLOCKED_LINE 21 /* bytes of the file `blocked` for a slot: 20 digits and a newline */

struct fk_values {
    unsigned n;
    bool spread;
    const char *check; /* NULL: none */
    const char *value[]; /* by slot; the texts are in the same block */
};

/* Checks all of it and copies it; for free(). -EINVAL. */
int fk_values_make(const char *name, const struct flk_pool *pool, struct fk_values **made);
/* Do they agree? thorough: in check and spread too; else only in those that wanted has. Where not, text tells what each has, in
 * two halves: "the value a in slot 0" and "b". */
struct fk_values_difference {
    char there[320], wanted[320];
};
bool fk_values_agree(const struct fk_values *there, const struct fk_values *wanted, bool thorough,
                     struct fk_values_difference *difference);

/* Into a directory on its way to be a row. */
int fk_values_write(int directory, const struct fk_values *values);
/* kind: what the latch says. Without a sentence: -EBADMSG, it isn't what was written; and what open gives. */
int fk_values_read(int directory, unsigned slots, unsigned kind, struct fk_values **values);
/* For the latch; 0 for NULL. */
unsigned fk_values_kind(const struct fk_values *values);

/* A growing list of texts, each for free(). */
struct fk_value_list {
    char **items;
    size_t n, room;
};
/* Adds what text says: values with commas between them, of which 18080-18143 and 127.0.1.1-127.0.1.9 are ranges. -EINVAL. */
int fk_value_list_parse(struct fk_value_list *list, const char *text);
/* Adds the lines of a file, each a value. */
int fk_value_list_read(struct fk_value_list *list, const char *path);
void fk_value_list_clear(struct fk_value_list *list);

#endif
