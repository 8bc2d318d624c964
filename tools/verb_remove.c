/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl remove: deletes names that nobody holds. */
#include <flockctl.h>

#include "exit_status.h"
#include "job.h"
#include "message.h"
#include "verbs.h"

static int run_remove(struct options *options)
{
    if (!check_operands(&verb_remove, options, 1, SIZE_MAX))
        return EXIT_OURS;
    struct job job;
    int64_t wait_ms;
    int status = job_bound_wait(&job, options, &wait_ms);
    if (status)
        return status;
    for (size_t i = 0; i < options->n_operands; i++) {
        int code = flk_row_remove(options->operands[i], wait_ms);
        if (code < 0)
            status = job_complain_of_wait(&job, code);
    }
    return status;
}

const struct verb verb_remove = {
    .name = "remove",
    .synopsis = "remove [OPTION]... NAME...",
    .summary = "delete names",
    .help = "Queues for all slots of each NAME, then deletes it. Those who wait go on with a new row of that name. A "
            "NAME that isn't\n"
            "there is no error.\n"
            "\n"
            "  -n, --nonblock              try once (= -w 0)\n"
            "  -w, --wait TIME             how long to wait for all slots of a name (default forever)\n"
            "  -E, --conflict-exit-code N  instead of 75, when they weren't acquired\n"
            "\n"
            "Example\n"
            "  flockctl remove podman\n",
    .groups = GROUP_WAIT,
    .run = run_remove,
};
