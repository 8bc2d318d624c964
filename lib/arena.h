/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that is freed all at once, for results of many small parts. Zero is a fresh one. An allocation that fails is remembered
 * and gives NULL, so that the whole can be built first and asked afterwards. */
#ifndef FK_ARENA_H
#define FK_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct fk_arena_block;

struct fk_arena {
    struct fk_arena_block *blocks;
    size_t left; /* bytes of the newest block */
    bool failed;
};

/* Zeroed, aligned for anything of ours; NULL: out of memory. */
void *fk_arena_get(struct fk_arena *arena, size_t size);
/* A copy; "" when there is no memory. */
const char *fk_arena_text(struct fk_arena *arena, const char *text);
void fk_arena_free(struct fk_arena *arena);

#endif
