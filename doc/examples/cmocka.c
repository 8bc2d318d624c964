/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka: the set-up of a group acquires what all of its tests need, the tear-down releases it.
 *
 *   cc cmocka.c $(pkg-config --cflags --libs flockctl cmocka) -o cmocka && ./cmocka */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <flockctl.h>

#include "engine.h"

static int set_up(void **state)
{
    if (flk_acquire("engine", 0, 600000, (struct flk_hold **)state) < 0) {
        print_error("%s\n", flk_error_detail());
        return -1;
    }
    return engine_start();
}

static int tear_down(void **state)
{
    int stopped = engine_stop();
    flk_hold_release(*state);
    return stopped;
}

static void engine_is_ours(void **state)
{
    assert_int_equal(flk_held("engine"), 2);
    assert_non_null(flk_hold_id(*state));
}

static void engine_runs(void **state)
{
    (void)state;
    assert_true(engine_works());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_is_ours),
        cmocka_unit_test(engine_runs),
    };
    return cmocka_run_group_tests_name("engine", tests, set_up, tear_down);
}
