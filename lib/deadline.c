/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadline.h"

#include <time.h>

int64_t fk_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * FK_SECOND + now.tv_nsec;
}

int64_t fk_deadline_in_ms(int64_t timeout_ms)
{
    int64_t now = fk_now();
    if (timeout_ms < 0 || timeout_ms > (FK_NEVER - now) / FK_MS)
        return FK_NEVER;
    return now + timeout_ms * FK_MS;
}
