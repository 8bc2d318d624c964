/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flk_run_start() (flockctl.h) for a command that cleans up. */
#ifndef FK_RUN_H
#define FK_RUN_H

#include "flockctl.h"

/* The tree gets lock, a descriptor of ours, beside the hold's slots, and keeps it as it keeps those; of FLOCKCTL_* it gets _HELD
 * alone: the rest of its environment is that of an earlier hold. */
int fk_run_start_cleanup(const struct flk_run_spec *spec, int lock, struct flk_run **run);

#endif
