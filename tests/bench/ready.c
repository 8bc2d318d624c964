/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flk_once_get() of an output that was found ready before, against a bare look into liburcu's hash table; alone, and with as many
 * threads as there are processors at the same output, which must not be slower, since nothing shared is written. */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "lookup.h"
#include "stamp.h"

#define MANY 1000 /* outputs */
#define GOAL 1.5
#define KEY "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

struct hit {
    const char *output, *key;
    int64_t recheck_ms;
};

static int get(void *data)
{
    const struct hit *hit = data;
    return flk_once_get(hit->output, hit->key, hit->recheck_ms);
}

/* An output with a stamp, as once leaves it. */
static const char *make_output(const char *directory, int number)
{
    char path[PATH_MAX], stamp[PATH_MAX];
    struct stat status;
    struct fk_stamp_spec spec = {.key = KEY};
    snprintf(path, sizeof path, "%.3000s/build/output-%d.img", directory, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bench_check(fd >= 0 && fstat(fd, &status) == 0, path);
    close(fd);
    fk_identity_take(&status, &spec.output);
    fk_stamp_path(path, stamp);
    bench_must(fk_stamp_write(AT_FDCWD, stamp, &spec), stamp);
    lookup_add(strdup(path));
    return strdup(path);
}

static void compare(const char *what, struct hit hit)
{
    double ours, peer;
    bench_check(get(&hit) == 1, "not ready");
    lookup_compare(get, &hit, hit.output, &ours, &peer);
    bench_print(what, "ns", ours, peer, GOAL);
}

/* ---- threads ---- */

#define THREADS_MOST 64
#define CALLS 5000000

static void *hit_often(void *data)
{
    for (int i = 0; i < CALLS; i++)
        bench_check(get(data) == 1, "not ready");
    return NULL;
}

static double in_threads(struct hit *hit, int count)
{
    pthread_t threads[THREADS_MOST];
    int64_t start = bench_now();
    for (int i = 0; i < count; i++)
        bench_check(pthread_create(&threads[i], NULL, hit_often, hit) == 0, "pthread_create");
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return (double)(bench_now() - start) / CALLS;
}

static void scale(struct hit hit)
{
    int count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    double many[BENCH_RUNS], one[BENCH_RUNS];
    char what[64];
    count = count < THREADS_MOST ? count : THREADS_MOST;
    for (int run = 0; run < BENCH_RUNS; run++) {
        one[run] = in_threads(&hit, 1);
        many[run] = in_threads(&hit, count);
    }
    snprintf(what, sizeof what, "hit, %d threads at once, against one", count);
    bench_print(what, "ns", bench_median(many, BENCH_RUNS), bench_median(one, BENCH_RUNS), 0);
}

int main(void)
{
    char directory[PATH_MAX];
    const char *root = bench_root(), *output;
    snprintf(directory, sizeof directory, "%.3000s/build", root);
    bench_check(mkdir(directory, 0700) == 0, directory);
    output = make_output(root, 0);
    compare("hit, checked once a second, no key", (struct hit){output, NULL, 1000});
    compare("hit, checked once a second", (struct hit){output, KEY, 1000});
    compare("hit, never checked", (struct hit){output, KEY, -1});
    for (int i = 1; i < MANY; i++)
        bench_check(flk_once_get(make_output(root, i), KEY, -1) == 1, "not ready");
    compare("hit, one of 1000 outputs, checked once a second", (struct hit){output, KEY, 1000});
    scale((struct hit){output, KEY, 1000});
    return 0;
}
