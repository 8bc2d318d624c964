/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "id.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "flockctl.h"
#include "registry.h"

#define MOMENT_DIGITS 12 /* 36^12 ns reach to the year 2120 */
#define RANDOM_DIGITS 4
#define COUNTER_DIGITS 7 /* 78 billion */
#define STEM_LENGTH (MOMENT_DIGITS + RANDOM_DIGITS)
#define PREFIX_LENGTH (1 + STEM_LENGTH)
#define LENGTH 24
#define GIVEN_MAX (LENGTH - STEM_LENGTH - 1) /* of a prefix: one digit stays for the counter */

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

static void make_stem(char *stem)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_digits(stem, MOMENT_DIGITS, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    put_digits(stem + MOMENT_DIGITS, RANDOM_DIGITS, random_number());
}

static void make_prefix(void)
{
    prefix[0] = 'f';
    make_stem(prefix + 1);
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

/* ---- with a prefix ---- */

/* Of this thread, so that no lock is needed; begun anew in a child, and when the digits are used up. */
static _Thread_local struct {
    uint64_t generation, counter;
    char stem[STEM_LENGTH];
} series;

static int check_prefix(const char *given)
{
    size_t length = strlen(given);
    bool good = *given >= 'a' && *given <= 'z' && strspn(given, "abcdefghijklmnopqrstuvwxyz0123456789") == length;
    if (!*given)
        return fk_fail(-EINVAL, "the prefix is empty; give one, or none");
    if (length > GIVEN_MAX)
        return fk_fail(-EINVAL, "a prefix of %zu bytes is too long: at most %d are possible", length, GIVEN_MAX);
    return good ? 0
                : fk_fail(
                      -EINVAL,
                      "that is no prefix: it must begin with one of a-z and go on with a-z and 0-9, as in db, test7");
}

static uint64_t next_of_series(int digits)
{
    uint64_t most = 1;
    for (int i = 0; i < digits; i++)
        most *= 36;
    if (series.generation != fk_registry_generation() || series.counter >= most) {
        series.generation = fk_registry_generation();
        series.counter = 0;
        make_stem(series.stem);
    }
    return series.counter++;
}

int flk_id(const char *given, char *id, size_t size)
{
    FK_ENTER();
    const char *letters = given ? given : "f";
    int code = check_prefix(letters);
    if (code < 0)
        return code;
    if (size <= LENGTH)
        return fk_fail(-EINVAL, "an id has %d bytes and a NUL, and there is room for %zu; give it FLK_ID_SIZE", LENGTH,
                       size);
    int length = (int)strlen(letters), digits = LENGTH - STEM_LENGTH - length;
    uint64_t count = next_of_series(digits);
    memcpy(id, letters, (size_t)length);
    memcpy(id + length, series.stem, STEM_LENGTH);
    put_digits(id + length + STEM_LENGTH, digits, count);
    id[LENGTH] = '\0';
    return 0;
}

bool fk_id_is(const char *text)
{
    return *text >= 'a' && *text <= 'z' && strlen(text) == LENGTH &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == LENGTH;
}

void fk_id_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&ready, 0);
}
