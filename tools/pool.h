/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool that --values, --values-from, --check and --spread describe. */
#ifndef POOL_H
#define POOL_H

#include <flockctl.h>
#include <stdbool.h>

#include "options.h"
#include "values.h"

struct pool {
    struct flk_pool pool;
    struct fk_value_list list;
};

/* False: it has complained. pool->pool has no values: there are no such options. For pool_clear() either way. */
bool pool_parse(const struct options *options, struct pool *pool);
void pool_clear(struct pool *pool);

#endif
