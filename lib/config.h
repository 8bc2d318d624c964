/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration file: where rows are declared for good, since a runtime directory is emptied by every reboot. The first of
 * $FLOCKCTL_CONFIG; .flockctl.conf in the working directory or above it up to the root of the work tree (the directory with
 * .git; outside any work tree the working directory alone); ~/.config/flockctl.conf. Lines "NAME slots=N" or
 * "NAME values=LIST [spread] [check=CMD]", where the check goes on to the end of the line; comments with '#'. Read only when a
 * row is made, resized or defined. */
#ifndef FK_CONFIG_H
#define FK_CONFIG_H

#include <linux/limits.h>
#include <stdbool.h>

struct fk_values;

struct fk_config_entry {
    unsigned slots; /* 0: the name isn't mentioned */
    struct fk_values *values; /* NULL: none */
    unsigned line;
    char file[PATH_MAX];
};

/* For fk_config_clear(), also where it fails. */
int fk_config_look_up(const char *name, struct fk_config_entry *entry);
void fk_config_clear(struct fk_config_entry *entry);
/* -EUSERS: it declares something else. slots 0, values NULL: whatever it declares; exact: no values, then. */
int fk_config_check(const struct fk_config_entry *entry, const char *name, unsigned slots,
                    const struct fk_values *values, bool exact);

#endif
