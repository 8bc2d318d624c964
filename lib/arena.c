/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "arena.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 16384
#define ALIGNMENT 8

struct fk_arena_block {
    struct fk_arena_block *next;
    size_t size;
    char bytes[] __attribute__((aligned(ALIGNMENT)));
};

static bool add_block(struct fk_arena *arena, size_t size)
{
    struct fk_arena_block *block = calloc(1, sizeof *block + size);
    if (!block) {
        arena->failed = true;
        return false;
    }
    block->next = arena->blocks;
    block->size = arena->left = size;
    arena->blocks = block;
    return true;
}

void *fk_arena_get(struct fk_arena *arena, size_t size)
{
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (arena->left < size && !add_block(arena, size < BLOCK ? BLOCK : size))
        return NULL;
    void *found = arena->blocks->bytes + arena->blocks->size - arena->left;
    arena->left -= size;
    return found;
}

const char *fk_arena_text(struct fk_arena *arena, const char *text)
{
    if (!*text)
        return "";
    size_t size = strlen(text) + 1;
    char *copy = fk_arena_get(arena, size);
    return copy ? memcpy(copy, text, size) : "";
}

void fk_arena_free(struct fk_arena *arena)
{
    for (struct fk_arena_block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *arena = (struct fk_arena){0};
}
