/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The peer of what any thread finds without a lock: a read-side section of liburcu and a look into its own hash table, with the
 * library's hash of the text. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include <stdint.h>

void lookup_add(const char *text); /* which must stay */
int lookup(const char *text);      /* 1: it is there */

/* What one call of each takes in ns, the median of BENCH_RUNS runs in which they take turns. */
void lookup_compare(int (*ours)(void *data), void *data, const char *text, double *our_ns, double *peer_ns);

#endif
