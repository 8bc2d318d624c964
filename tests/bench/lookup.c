/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lookup.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/compiler.h>

#include "bench.h"
#include "index.h"

#define URCU_API_MAP
#include <urcu/map/urcu-bp.h>
#include <urcu/rculfhash.h>

#define CALLS 2000000 /* of each, in a run */
#define BATCH 20000   /* before the other's turn */

struct entry {
    struct cds_lfht_node node;
    const char *text;
};

static struct cds_lfht *table;

void lookup_add(const char *text)
{
    struct entry *entry = malloc(sizeof *entry);
    if (!table)
        table = cds_lfht_new_flavor(FK_INDEX_LISTS, FK_INDEX_LISTS, 0, 0, &urcu_bp_flavor, NULL);
    bench_check(table && entry, "cds_lfht_new");
    entry->text = text;
    cds_lfht_node_init(&entry->node);
    urcu_bp_read_lock();
    cds_lfht_add(table, fk_index_hash(text, strlen(text)), &entry->node);
    urcu_bp_read_unlock();
}

static int is_it(struct cds_lfht_node *node, const void *text)
{
    return strcmp(caa_container_of(node, struct entry, node)->text, text) == 0;
}

int lookup(const char *text)
{
    struct cds_lfht_iter iter;
    urcu_bp_read_lock();
    cds_lfht_lookup(table, fk_index_hash(text, strlen(text)), is_it, text, &iter);
    int found = cds_lfht_iter_get_node(&iter) != NULL;
    urcu_bp_read_unlock();
    return found;
}

void lookup_compare(int (*ours)(void *data), void *data, const char *text, double *our_ns, double *peer_ns)
{
    double all_ours[BENCH_RUNS], all_peers[BENCH_RUNS];
    for (int run = 0; run < BENCH_RUNS; run++) {
        int64_t times[2] = {0};
        int found = 0;
        for (int batch = 0; batch < CALLS / BATCH; batch++) {
            int64_t start = bench_now();
            for (int i = 0; i < BATCH; i++)
                found += ours(data) > 0;
            int64_t middle = bench_now();
            for (int i = 0; i < BATCH; i++)
                found += lookup(text);
            times[0] += middle - start;
            times[1] += bench_now() - middle;
        }
        if (found != 2 * CALLS)
            errx(1, "%s wasn't found each time", text);
        all_ours[run] = (double)times[0] / CALLS;
        all_peers[run] = (double)times[1] / CALLS;
    }
    *our_ns = bench_median(all_ours, BENCH_RUNS);
    *peer_ns = bench_median(all_peers, BENCH_RUNS);
}
