/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The calls that make, change and remove rows. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "error.h"
#include "flockctl.h"
#include "hold.h"
#include "registry.h"
#include "request.h"
#include "root.h"
#include "row.h"
#include "values.h"

static int check_slots(const char *name, unsigned slots)
{
    if (slots >= 1 && slots <= FLK_SLOTS_MAX)
        return 0;
    return fk_fail(-EINVAL, "%s can't have %u slots; a row has 1 to %u", name, slots, FLK_SLOTS_MAX);
}

/* What the configuration declares is what the next boot will make. */
static int check_declared(const char *name, unsigned slots, const struct fk_values *values)
{
    struct fk_config_entry *entry = malloc(sizeof *entry);
    if (!entry)
        return fk_fail(-ENOMEM, "out of memory");
    int code = fk_config_look_up(name, entry);
    if (code == 0)
        code = fk_config_check(entry, name, slots, values, true);
    fk_config_clear(entry);
    free(entry);
    return code;
}

static int check_change(const char *name, unsigned slots)
{
    int code = fk_row_check_name(name);
    if (code == 0)
        code = check_slots(name, slots);
    return code == 0 ? check_declared(name, slots, NULL) : code;
}

static int is_pool(const struct fk_row *row, const char *what)
{
    return fk_fail(-EUSERS, "%s is a pool of %u value%s and can't %s; remove it first: flockctl remove %s", row->text,
                   row->slots, row->slots == 1 ? "" : "s", what, row->text);
}

/* Opened, and made if it isn't there: one of ours that is idle may have been removed or resized by others since. */
static int open_current(const char *name, unsigned slots, const struct fk_values *values, struct fk_row **row)
{
    int code = fk_row_open_pool(name, slots, values, FK_ROW_MAKE, row);
    if (code < 0 || !fk_row_is_outdated(*row))
        return code;
    return fk_row_open_pool(name, slots, values, FK_ROW_MAKE, row);
}

int flk_row_define(const char *name, unsigned slots)
{
    struct fk_row *row;
    FK_ENTER();
    int code = check_change(name, slots);
    if (code == 0)
        code = open_current(name, slots, NULL, &row);
    if (code < 0)
        return code;
    if (row->values)
        code = is_pool(row, "have slots without any");
    fk_registry_unref(row);
    return code;
}

/* A row that was there before may have more than what was asked for. */
static int check_pool(const struct fk_row *row, const struct fk_values *values)
{
    struct fk_values_difference difference;
    if (fk_values_agree(row->values, values, true, &difference))
        return 0;
    return fk_fail(-EUSERS, "%s has %s, not %s; define it as it is, or first: flockctl remove %s", row->text,
                   difference.there, difference.wanted, row->text);
}

int flk_pool_define(const char *name, const struct flk_pool *pool)
{
    struct fk_row *row;
    struct fk_values *values = NULL;
    FK_ENTER();
    int code = fk_row_check_name(name);
    if (code == 0)
        code = fk_values_make(name, pool, &values);
    if (code == 0)
        code = check_declared(name, 0, values);
    if (code == 0)
        code = open_current(name, 0, values, &row);
    if (code == 0) {
        code = check_pool(row, values);
        fk_registry_unref(row);
    }
    free(values);
    return code;
}

int flk_row_path(const char *name, unsigned slots, unsigned *n_slots, char **path)
{
    struct fk_row *row;
    const char *root;
    char text[PATH_MAX];
    FK_ENTER();
    int code = open_current(name, slots, NULL, &row);
    if (code < 0)
        return code;
    unsigned n = row->slots;
    fk_registry_unref(row);
    code = fk_root_path(&root);
    if (code < 0)
        return code;
    snprintf(text, sizeof text, "%s/rows/%s", root, name);
    char *copy = strdup(text);
    if (!copy)
        return fk_fail(-ENOMEM, "out of memory");
    *n_slots = n;
    *path = copy;
    return 0;
}

/* All slots of a row that is there. */
static int acquire_all(const char *name, bool resize, int64_t timeout_ms, struct flk_hold **hold)
{
    struct fk_row *row;
    int code = fk_row_open(name, 0, FK_ROW_LOOK, &row);
    if (code < 0)
        return code;
    if (resize && row->values)
        code = is_pool(row, "get another number of slots");
    fk_registry_unref(row);
    if (code < 0)
        return code;
    return fk_acquire_many(&(struct flk_want){.name = name, .count = FLK_ALL}, 1, NULL, FK_WHOLE_ROW, timeout_ms, hold);
}

int flk_row_resize(const char *name, unsigned slots, int64_t timeout_ms)
{
    struct flk_hold *hold;
    FK_ENTER();
    int code = check_change(name, slots);
    if (code == 0)
        code = acquire_all(name, true, timeout_ms, &hold);
    if (code < 0)
        return code;
    struct fk_row *row = hold->parts[0].row;
    if (row->values) /* made so meanwhile */
        code = is_pool(row, "get another number of slots");
    else if (row->slots != slots)
        code = fk_row_exchange(row, slots);
    flk_hold_release(hold);
    return code;
}

int flk_row_remove(const char *name, int64_t timeout_ms)
{
    struct flk_hold *hold;
    FK_ENTER();
    int code = acquire_all(name, false, timeout_ms, &hold);
    if (code == -ENOENT)
        return 0;
    if (code < 0)
        return code;
    code = fk_row_delete(hold->parts[0].row);
    flk_hold_release(hold);
    return code == -ESTALE ? 0 : code;
}

const char *flk_version(void)
{
    return PACKAGE_VERSION;
}
