/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the benchmarks share. A figure is the median of BENCH_RUNS runs; it and its peer take turns within each run, so that
 * a busy machine is busy for both. Anything that goes wrong ends the program. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "flockctl.h"

#define BENCH_RUNS 5

void bench_check(int ok, const char *what); /* ends with errno's reason */
void bench_must(int code, const char *what); /* a result of the library's: ends with its sentence when negative */

int64_t bench_now(void); /* ns */
void bench_sleep(int64_t ns);
double bench_median(double *values, size_t count); /* sorts them */
/* "what: figure unit, peer unit: ratio x (goal)". goal > 0: at most; < 0: at least; 0: none. */
void bench_print(const char *what, const char *unit, double ours, double peer, double goal);

/* $FLOCKCTL_DIR becomes a new private directory under $BENCH_DIR (/dev/shm), deleted when this process exits. */
const char *bench_root(void);
void *bench_share(size_t size); /* zeroed memory that children share */
pid_t bench_fork(void (*run)(void *), void *data);
void bench_reap(size_t count); /* as many children, all of which must have done well */

/* A semaphore of SysV, removed when this process exits. */
int bench_sem(unsigned value);
void bench_sem_take(int sem);
void bench_sem_drop(int sem);

/* A number in shared memory that others sleep on. */
struct bench_gate {
    _Atomic uint32_t value;
};
void bench_gate_open(struct bench_gate *gate, uint32_t value);
void bench_gate_wait(struct bench_gate *gate, uint32_t value); /* until it is at least that */

uint64_t bench_tickets(const char *name); /* given out so far in that row */
void bench_wait_ticket(const char *name, uint64_t number);

static inline struct flk_hold *bench_acquire(const char *name)
{
    struct flk_hold *hold = NULL;
    bench_must(flk_acquire(name, 0, 60000, &hold), "acquire");
    return hold;
}

#endif
