/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "index.h"

#include <string.h>

#ifdef __SANITIZE_THREAD__
char fk_index_grace;
#endif

static uint64_t word_at(const char *text)
{
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return word;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

/* Eight bytes at a time, since paths are long; the last eight may overlap those before. */
uint64_t fk_index_hash(const char *text, size_t length)
{
    uint64_t hash = length;
    size_t at = 0;
    for (; at + 8 <= length; at += 8)
        hash = mix(hash, word_at(text + at));
    if (length >= 8)
        return mix(hash, word_at(text + length - 8));
    for (; at < length; at++)
        hash = mix(hash, (unsigned char)text[at]);
    return hash;
}

struct fk_index_node *fk_index_find(const struct fk_index *index, const char *text)
{
    size_t length = strlen(text);
    uint64_t hash = fk_index_hash(text, length);
    struct fk_index_node *node = atomic_load_explicit(&index->lists[hash % FK_INDEX_LISTS], memory_order_acquire);
    while (node && (node->hash != hash || node->length != length || memcmp(node->text, text, length) != 0))
        node = atomic_load_explicit(&node->next, memory_order_acquire);
    return node;
}

static struct fk_index_node *_Atomic *list_of(struct fk_index *index, const struct fk_index_node *node)
{
    return &index->lists[node->hash % FK_INDEX_LISTS];
}

static void init(struct fk_index_node *node, const char *text)
{
    node->text = text;
    node->length = strlen(text);
    node->hash = fk_index_hash(text, node->length);
}

void fk_index_add(struct fk_index *index, struct fk_index_node *node, const char *text)
{
    init(node, text);
    struct fk_index_node *_Atomic *list = list_of(index, node);
    atomic_init(&node->next, atomic_load_explicit(list, memory_order_relaxed));
    atomic_store_explicit(list, node, memory_order_release);
}

/* Where node is linked from. */
static struct fk_index_node *_Atomic *link_to(struct fk_index *index, const struct fk_index_node *node)
{
    struct fk_index_node *_Atomic *link = list_of(index, node);
    struct fk_index_node *at;
    while ((at = atomic_load_explicit(link, memory_order_relaxed)) != node)
        link = &at->next;
    return link;
}

void fk_index_replace(struct fk_index *index, struct fk_index_node *old, struct fk_index_node *node, const char *text)
{
    init(node, text);
    atomic_init(&node->next, atomic_load_explicit(&old->next, memory_order_relaxed));
    atomic_store_explicit(link_to(index, old), node, memory_order_release);
}

void fk_index_remove(struct fk_index *index, struct fk_index_node *node)
{
    struct fk_index_node *next = atomic_load_explicit(&node->next, memory_order_relaxed);
    atomic_store_explicit(link_to(index, node), next, memory_order_release);
}

void fk_index_foreach(const struct fk_index *index, void (*each)(struct fk_index_node *node))
{
    for (size_t i = 0; i < FK_INDEX_LISTS; i++)
        for (struct fk_index_node *node = atomic_load(&index->lists[i]); node; node = atomic_load(&node->next))
            each(node);
}

void fk_index_wait(void)
{
    urcu_bp_synchronize_rcu();
    FK_INDEX_TELL(acquire);
}
