/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The configuration file: where rows are declared for good, since a runtime directory is emptied by every reboot. The first of
 * $FLOCKCTL_CONFIG; .flockctl.conf in the working directory or above it up to the root of the work tree (the directory with
 * .git; outside any work tree the working directory alone); ~/.config/flockctl.conf. Lines "NAME slots=N", comments
 * with '#'. Read only when a row is made, resized or defined. */
#ifndef FK_CONFIG_H
#define FK_CONFIG_H

#include <linux/limits.h>

struct fk_config_entry {
    unsigned slots; /* 0: the name isn't mentioned */
    unsigned line;
    char file[PATH_MAX];
};

int fk_config_look_up(const char *name, struct fk_config_entry *entry);

#endif
