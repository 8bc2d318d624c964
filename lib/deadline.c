/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "error.h"
#include "owner.h"

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

int64_t fk_deadline_left_ms(int64_t deadline)
{
    int64_t now = fk_now();
    if (deadline == FK_NEVER)
        return FK_NEVER;
    return deadline <= now ? 0 : (deadline - now - 1) / FK_MS + 1;
}

/* ---- FLOCKCTL_DEADLINE ---- */

int fk_deadline_format(int64_t deadline, char text[FK_DEADLINE_SIZE])
{
    const struct fk_owner *self;
    int code = fk_owner_self(&self);
    if (code == 0)
        snprintf(text, FK_DEADLINE_SIZE, "%" PRId64 "@%s/%" PRIu64, deadline, self->boot_id, self->time_ns);
    return code;
}

static bool take_digits(const char **text, uint64_t *value)
{
    const char *at = *text;
    for (*value = 0; *at >= '0' && *at <= '9'; at++) {
        if (*value > (INT64_MAX - 9) / 10)
            return false;
        *value = *value * 10 + (uint64_t)(*at - '0');
    }
    bool some = at > *text;
    *text = at;
    return some;
}

static int fail_malformed(const char *text)
{
    return fk_fail(-EINVAL, "FLOCKCTL_DEADLINE is malformed: %s; it is flockctl's own: unset it", text);
}

int fk_deadline_parse(const char *text, int64_t *deadline)
{
    const char *at = text;
    const struct fk_owner *self;
    uint64_t when, time_ns;
    if (!take_digits(&at, &when) || *at++ != '@')
        return fail_malformed(text);
    const char *boot_id = at;
    size_t length = strcspn(at, "/");
    at += length;
    if (length != FK_BOOT_ID_SIZE - 1 || *at++ != '/' || !take_digits(&at, &time_ns) || *at)
        return fail_malformed(text);
    int code = fk_owner_self(&self);
    if (code < 0)
        return code;
    if (strncmp(boot_id, self->boot_id, length) != 0 || time_ns != self->time_ns)
        return -ESTALE;
    *deadline = (int64_t)when;
    return 0;
}

int64_t fk_deadline_inside(int64_t deadline)
{
    int64_t left = deadline - fk_now();
    if (deadline == FK_NEVER || left <= 0)
        return deadline;
    return deadline - (left / 10 < 200 * FK_MS ? left / 10 : 200 * FK_MS);
}
