/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Points in time, in ns of CLOCK_MONOTONIC: it isn't set by anybody and stands still in suspend, which is what the user
 * of a time limit wants. */
#ifndef FK_DEADLINE_H
#define FK_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FK_NEVER INT64_MAX
#define FK_MS INT64_C(1000000)
#define FK_SECOND INT64_C(1000000000)

int64_t fk_now(void);

/* timeout_ms from now; negative: never. Saturates. */
int64_t fk_deadline_in_ms(int64_t timeout_ms);
/* What is left until then, in ms, rounded up: a limit of so many isn't over early. 0: it has passed. FK_NEVER for never. */
int64_t fk_deadline_left_ms(int64_t deadline);

/* ---- for the commands below us: FLOCKCTL_DEADLINE ----
 *
 * "NS@BOOT/TIMENS": a point of CLOCK_MONOTONIC means nothing after a reboot or in another time namespace, so both are named. */

#define FK_DEADLINE_SIZE 96
int fk_deadline_format(int64_t deadline, char text[FK_DEADLINE_SIZE]); /* -ENOSYS: no /proc */
/* -EINVAL: malformed. -ESTALE: of another boot or time namespace (no sentence: it is to be passed over). */
int fk_deadline_parse(const char *text, int64_t *deadline);
/* Who is given that deadline ends a moment before it, so that its message comes before the one of whoever gave it:
 * min(200 ms, 10 % of what is left). */
int64_t fk_deadline_inside(int64_t deadline);

#endif
