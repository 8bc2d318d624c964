/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl run: COMMAND and its whole tree, without a lock. */
#include <string.h>

#include "cleanup.h"
#include "exit_status.h"
#include "job.h"
#include "message.h"
#include "signals.h"
#include "verbs.h"

static int run_run(struct options *options)
{
    struct job job;
    int status = job_prepare(&job, options, "run");
    if (status == 0 && !check_operands(&verb_run, options, 0, 0))
        status = EXIT_OURS;
    if (status == 0 && options->dir) /* for the flockctls below */
        status = prepare_root(options);
    if (status || !cleanup_is_wanted(options))
        return status ? status : job_run(&job, NULL, NULL);
    /* A signal between the command's end and the cleanup must not end us. */
    struct signals signals;
    int code = signals_block(&signals, true);
    if (code < 0)
        complain("can't wait for signals: %s", strerrordesc_np(-code));
    return code < 0 ? EXIT_OURS : job_run(&job, NULL, &signals);
}

const struct verb verb_run = {
    .name = "run",
    .synopsis = "run [OPTION]... -- COMMAND [ARG]...",
    .summary = "run a command and end its whole tree",
    .help = "Runs COMMAND and exits with its status. When it ends, or when its time is over, all processes that it has "
            "left are\n"
            "ended too, wherever they have hidden.\n"
            "\n" RUN_HELP EXIT_STATUS_HELP("") "\n"
                                               "Example: at most ten minutes, then five seconds to clean up\n"
                                               "  flockctl run --timeout 10m -k 5 -- make check\n",
    .groups = GROUP_RUN,
    .without_locks = true,
    .run = run_run,
};
