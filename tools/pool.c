/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool.h"

#include "message.h"

/* What can't be said together. */
static const char *find_conflict(const struct options *options)
{
    bool any = options->values || options->values_from;
    if (options->values && options->values_from)
        return "--values and --values-from both say what the values are; give one of them";
    if (any && options->slots)
        return "a pool has a slot for each of its values; leave --slots out";
    if (!any && options->check)
        return "--check looks at values; give them with --values or --values-from";
    if (!any && options->spread)
        return "--spread is for pools; give their values with --values or --values-from";
    return NULL;
}

bool pool_parse(const struct options *options, struct pool *pool)
{
    const char *conflict = find_conflict(options);
    *pool = (struct pool){.pool = {.check = options->check, .flags = options->spread ? FLK_POOL_SPREAD : 0}};
    if (conflict) {
        complain("%s", conflict);
        return false;
    }
    int code = options->values ? fk_value_list_parse(&pool->list, options->values) : 0;
    if (options->values_from)
        code = fk_value_list_read(&pool->list, options->values_from);
    if (code < 0) {
        complain("%s", flk_error_detail());
        return false;
    }
    if (options->values_from && pool->list.n == 0) {
        complain("%s is empty; it has to be a text, a value a line", options->values_from);
        return false;
    }
    pool->pool.values = (const char *const *)pool->list.items;
    pool->pool.n_values = pool->list.n;
    return true;
}

void pool_clear(struct pool *pool)
{
    fk_value_list_clear(&pool->list);
}
