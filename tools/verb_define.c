/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl define: says how many slots a name has, or what they stand for. */
#include <flockctl.h>

#include "exit_status.h"
#include "message.h"
#include "pool.h"
#include "verbs.h"

static int define(const struct options *options, const struct flk_pool *pool)
{
    const char *name = options->operands[0];
    if (!options->slots && pool->n_values == 0) {
        complain("define needs the number of slots: flockctl define %s --slots N, or their values: --values LIST",
                 name);
        return EXIT_OURS;
    }
    int code = pool->n_values > 0 ? flk_pool_define(name, pool) : flk_row_define(name, options->slots);
    return code < 0 ? complain_of(code, EXIT_OURS) : 0;
}

static int run_define(struct options *options)
{
    if (!check_operands(&verb_define, options, 1, 1))
        return EXIT_OURS;
    struct pool pool;
    int status = pool_parse(options, &pool) ? define(options, &pool.pool) : EXIT_OURS;
    pool_clear(&pool);
    return status;
}

const struct verb verb_define = {
    .name = "define",
    .synopsis = "define NAME --slots N | [--check CHECK] [--spread] --values LIST | --values-from FILE",
    .summary = "say how many slots a name has, or their values",
    .help = "Makes NAME a row of N slots (1 to 4096), or a pool, whose slots have values: each command that acquires "
            "one gets it\n"
            "as FLOCKCTL_VALUE, several as FLOCKCTL_VALUES. When it is so already, all is well; when it is otherwise, "
            "that is an\n"
            "error (see resize, remove).\n"
            "\n"
            "      --slots N               how many\n"
            "      --values LIST           values with commas between; 18080-18143 and 127.0.1.1-127.0.1.9 are ranges\n"
            "      --values-from FILE      the lines of FILE are the values\n"
            "      --check CHECK           pass over what others use: tcp-port, udp-port, path-free, or a command that says 0 "
            "for\n"
            "                              FLOCKCTL_VALUE when it is usable\n"
            "      --spread                hand out the value that was unused longest, not the lowest\n"
            "\n"
            "Examples: at most two container tests at a time; a port for each server\n"
            "  flockctl define podman --slots 2\n"
            "  flockctl define port --values 18080-18143 --check tcp-port\n",
    .groups = GROUP_SLOTS | GROUP_VALUES | GROUP_POOL,
    .run = run_define,
};
