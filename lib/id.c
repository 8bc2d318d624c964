/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "id.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define MOMENT_DIGITS 12 /* 36^12 ns reach to the year 2120 */
#define RANDOM_DIGITS 4
#define COUNTER_DIGITS 7 /* 78 billion */
#define PREFIX_LENGTH (1 + MOMENT_DIGITS + RANDOM_DIGITS)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int ready;
static char prefix[PREFIX_LENGTH];
static _Atomic uint64_t counter;

static void put_digits(char *at, int digits, uint64_t value)
{
    while (digits-- > 0) {
        at[digits] = "0123456789abcdefghijklmnopqrstuvwxyz"[value % 36];
        value /= 36;
    }
}

static uint64_t random_number(void)
{
    uint64_t value;
    /* Without a random source (a chroot under an old kernel) the pid tells apart who starts in the same ns. */
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value)
        value = (uint64_t)getpid();
    return value;
}

static void make_prefix(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    prefix[0] = 'f';
    put_digits(prefix + 1, MOMENT_DIGITS, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    put_digits(prefix + 1 + MOMENT_DIGITS, RANDOM_DIGITS, random_number());
}

void fk_id_make(char *id)
{
    if (!atomic_load_explicit(&ready, memory_order_acquire)) {
        pthread_mutex_lock(&lock);
        if (!atomic_load(&ready))
            make_prefix();
        atomic_store(&ready, 1);
        pthread_mutex_unlock(&lock);
    }
    memcpy(id, prefix, PREFIX_LENGTH);
    put_digits(id + PREFIX_LENGTH, COUNTER_DIGITS, atomic_fetch_add(&counter, 1));
    id[PREFIX_LENGTH + COUNTER_DIGITS] = '\0';
}

void fk_id_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&ready, 0);
}
