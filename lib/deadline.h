/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Points in time, in ns of CLOCK_MONOTONIC: it isn't set by anybody and stands still in suspend, which is what the user
 * of a time limit wants. */
#ifndef FK_DEADLINE_H
#define FK_DEADLINE_H

#include <stdint.h>

#define FK_NEVER INT64_MAX
#define FK_MS INT64_C(1000000)
#define FK_SECOND INT64_C(1000000000)

int64_t fk_now(void);

/* timeout_ms from now; negative: never. Saturates. */
int64_t fk_deadline_in_ms(int64_t timeout_ms);

#endif
