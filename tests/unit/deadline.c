/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadline.h"

#include "tap.h"

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
    return done_testing();
}
