/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* run NAME SECONDS COMMAND [ARG]...: runs COMMAND while it holds NAME, at most so long, and says how it went. What COMMAND leaves
 * running is ended before NAME is released. */
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(void)
{
    fprintf(stderr, "run: %s\n", flk_error_detail());
    return EXIT_FAILURE;
}

static void tell(const struct flk_run_result *result)
{
    if (result->timed_out)
        printf("took too long, and was ended after %lld ms\n", (long long)result->ran_ms);
    else if (result->signal)
        printf("died of signal %d\n", result->signal);
    else
        printf("ended with %d\n", result->exit_code);
    if (result->stragglers)
        printf("left %u processes, which were ended\n", result->stragglers);
}

int main(int argc, char **argv)
{
    FLK_AUTO_RELEASE struct flk_hold *hold = NULL;
    struct flk_run_result result;
    if (argc < 4) {
        fprintf(stderr, "usage: run NAME SECONDS COMMAND [ARG]...\n");
        return 2;
    }
    if (flk_acquire(argv[1], 0, FLK_FOREVER, &hold) < 0)
        return fail();
    struct flk_run_spec spec = {
        .argv = (const char *const *)argv + 3,
        .hold = hold,
        .limit_ms = (int64_t)(atof(argv[2]) * 1000),
        .kill_after_ms = 1000,
    };
    if (flk_run(&spec, &result) < 0)
        return fail();
    tell(&result);
    return result.exit_code < 0 || result.timed_out ? EXIT_FAILURE : result.exit_code;
}
