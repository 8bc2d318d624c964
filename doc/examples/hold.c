/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hold NAME [SECONDS]: acquires NAME, waiting at most so long; says what it got; releases it at the end of its input. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct flk_hold *hold;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: hold NAME [SECONDS]\n");
        return 2;
    }
    int64_t timeout_ms = argc > 2 ? (int64_t)(atof(argv[2]) * 1000) : FLK_FOREVER;
    int code = flk_acquire(argv[1], 0, timeout_ms, &hold);
    if (code < 0) {
        fprintf(stderr, "hold: %s\n", flk_error_detail());
        return code == -EBUSY || code == -ETIMEDOUT ? 75 : 1;
    }
    const unsigned *slots;
    flk_hold_slots(hold, 0, &slots);
    printf("holding slot %u of %s as %s\n", slots[0], flk_hold_name(hold, 0), flk_hold_id(hold));
    if (flk_hold_abandoned(hold))
        printf("pid %d died holding it\n", (int)flk_hold_predecessor(hold)->pid);
    fflush(stdout);

    while (getchar() != EOF)
        ;
    flk_hold_release(hold);
    return 0;
}
