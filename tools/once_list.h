/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What flockctl once tells of its outputs, and how it forgets one. */
#ifndef ONCE_LIST_H
#define ONCE_LIST_H

#include "options.h"

/* The exit status. */
int once_list(const char *directory, const struct options *options); /* directory NULL: where we are */
int once_forget(const char *output, const struct options *options);

#endif
