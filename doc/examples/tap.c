/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A test program in plain C that writes TAP and needs the engine for itself: one lock around all of its tests, for `prove -j8`, `make
 * check -j8` and the like.
 *
 *   cc tap.c $(pkg-config --cflags --libs flockctl) -o tap && prove --exec '' ./tap */
#include <flockctl.h>
#include <stdio.h>

#include "engine.h"

static int tests, failures;

static void ok(int passed, const char *name)
{
    failures += !passed;
    printf("%sok %d - %s\n", passed ? "" : "not ", ++tests, name);
}

int main(void)
{
    FLK_AUTO_RELEASE struct flk_hold *engine = NULL;
    if (flk_acquire("engine", 0, 600000, &engine) < 0)
        return printf("Bail out! %s\n", flk_error_detail()), 1;
    ok(engine_start() == 0, "the engine starts");
    ok(engine_works(), "the engine works");
    ok(engine_stop() == 0, "the engine stops");
    printf("1..%d\n", tests);
    return failures > 0;
}
