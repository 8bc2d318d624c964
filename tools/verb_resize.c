/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl resize: gives a name another number of slots. */
#include <flockctl.h>

#include "exit_status.h"
#include "job.h"
#include "message.h"
#include "verbs.h"

static int run_resize(struct options *options)
{
    unsigned long slots;
    if (!check_operands(&verb_resize, options, 2, 2))
        return EXIT_OURS;
    if (!parse_number(options->operands[1], 1, FLK_SLOTS_MAX, &slots)) {
        complain("\"%s\" is not a number of slots; give one from 1 to %u", options->operands[1], FLK_SLOTS_MAX);
        return EXIT_OURS;
    }
    struct job job;
    int64_t wait_ms;
    int status = job_bound_wait(&job, options, &wait_ms);
    if (status)
        return status;
    int code = flk_row_resize(options->operands[0], (unsigned)slots, wait_ms);
    return code < 0 ? job_complain_of_wait(&job, code) : 0;
}

const struct verb verb_resize = {
    .name = "resize",
    .synopsis = "resize [OPTION]... NAME N",
    .summary = "give a name another number of slots",
    .help = "Queues for all slots of NAME, then makes it a row of N. Those who wait go on waiting, in no particular "
            "order.\n"
            "\n"
            "  -n, --nonblock              try once (= -w 0)\n"
            "  -w, --wait TIME             how long to wait for all slots (default forever)\n"
            "  -E, --conflict-exit-code N  instead of 75, when they weren't acquired\n"
            "\n"
            "Example: from now on four container tests at a time\n"
            "  flockctl resize podman 4\n",
    .groups = GROUP_WAIT,
    .run = run_resize,
};
