/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flockctl.h"
#include "owner.h"
#include "tap.h"

static void test_left(void)
{
    ok(fk_deadline_left_ms(FK_NEVER) == FK_NEVER, "never is never nearer");
    ok(fk_deadline_left_ms(fk_now()) == 0 && fk_deadline_left_ms(0) == 0, "nothing is left of what has passed");
    int64_t now = fk_now(), left = fk_deadline_left_ms(now + 5 * FK_SECOND), took = (fk_now() - now) / FK_MS + 1;
    ok(left <= 5000 && left >= 5000 - took, "what is left");
    /* A minute from now, less one ns: 60 s still, unless a whole ms has gone by meanwhile. */
    for (int tries = 0; tries < 100; tries++) {
        now = fk_now();
        left = fk_deadline_left_ms(now + 60 * FK_SECOND);
        if (fk_now() - now < FK_MS)
            break;
    }
    ok(left == 60000, "rounded up");
}

static int parse(const char *text)
{
    int64_t deadline = -1;
    int code = fk_deadline_parse(text, &deadline);
    return code < 0 && deadline != -1 ? 0 : code;
}

/* One of the three parts as it isn't here. */
static const char *changed(const char *boot_id, uint64_t time_ns)
{
    static char text[FK_DEADLINE_SIZE];
    snprintf(text, sizeof text, "1@%s/%" PRIu64, boot_id, time_ns);
    return text;
}

static void test_text(void)
{
    static const char *const malformed[] = {"",
                                            "1",
                                            "@",
                                            "x@y/z",
                                            "1@/",
                                            "-1@12345678-1234-1234-1234-123456789012/1",
                                            "1@12345678/1",
                                            "1@12345678-1234-1234-1234-123456789012",
                                            "1@12345678-1234-1234-1234-123456789012/",
                                            "1@12345678-1234-1234-1234-123456789012/1x",
                                            "1 @12345678-1234-1234-1234-123456789012/1",
                                            "99999999999999999999@12345678-1234-1234-1234-123456789012/1",
                                            "1@12345678-1234-1234-1234-1234567890123/1"};
    char text[FK_DEADLINE_SIZE];
    int64_t deadline = 0;
    const struct fk_owner *self;
    if (fk_owner_self(&self) < 0)
        bail_out("%s", flk_error_detail());
    ok(fk_deadline_format(1234567890123456789, text) == 0 && strncmp(text, "1234567890123456789@", 20) == 0,
       "a deadline is written: %s", text);
    ok(strcmp(text + 20, changed(self->boot_id, self->time_ns) + 2) == 0, "with boot and time namespace");
    ok(fk_deadline_parse(text, &deadline) == 0 && deadline == 1234567890123456789, "and read again");
    is_int(parse(changed("12345678-1234-1234-1234-123456789012", self->time_ns)), -ESTALE, "another boot's is told");
    is_int(parse(changed(self->boot_id, self->time_ns + 1)), -ESTALE, "another time namespace's too");
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        ok(parse(malformed[i]) == -EINVAL && strstr(flk_error_detail(), "unset it"), "malformed: \"%s\"", malformed[i]);
}

static void test_inside(void)
{
    int64_t now = fk_now(), far = now + 100 * FK_SECOND, near = now + FK_SECOND;
    ok(fk_deadline_inside(far) == far - 200 * FK_MS, "inside a far deadline: 200 ms before");
    int64_t inside = fk_deadline_inside(near), late = fk_now() - now;
    ok(inside >= near - 100 * FK_MS && inside <= near - 100 * FK_MS + late / 10 + 1, "a near one: a tenth before");
    ok(fk_deadline_inside(fk_deadline_inside(near)) < inside, "and so on, each before the one around it");
    ok(fk_deadline_inside(5) == 5 && fk_deadline_inside(FK_NEVER) == FK_NEVER, "one that has passed, and never, stay");
}

int main(void)
{
    tap_deadline(30);
    int64_t before = fk_now(), at = fk_deadline_in_ms(1500), after = fk_now();
    ok(before > 0 && after >= before, "time doesn't go back");
    ok(at >= before + 1500 * FK_MS && at <= after + 1500 * FK_MS, "a deadline is so many ms from now");
    ok(fk_deadline_in_ms(0) <= fk_now(), "that in 0 ms has passed");
    ok(fk_deadline_in_ms(-1) == FK_NEVER, "a negative time is never");
    ok(fk_deadline_in_ms(INT64_MIN) == FK_NEVER, "however negative");
    ok(fk_deadline_in_ms(INT64_MAX) == FK_NEVER, "what is too far away is never too");
    ok(fk_deadline_in_ms(INT64_MAX / FK_MS) == FK_NEVER, "without wrapping around");
    ok(fk_deadline_in_ms(INT64_C(1000) * 365 * 86400 * 100) < FK_NEVER, "a hundred years aren't");
    test_left();
    test_text();
    test_inside();
    return done_testing();
}
