/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "id.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

#define PROCESSES 8
#define EACH 10000

typedef char id_text[FLK_ID_SIZE];

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int doubles(id_text *ids, int count)
{
    int found = 0;
    qsort(ids, (size_t)count, sizeof *ids, compare);
    for (int i = 1; i < count; i++)
        found += strcmp(ids[i - 1], ids[i]) == 0;
    return found;
}

static void format(void)
{
    id_text id;
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        fk_id_make(id);
        size_t length = strlen(id);
        wrong += id[0] < 'a' || id[0] > 'z' || length < 2 || length > 24 ||
                 strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") != length;
    }
    is_int(wrong, 0, "an id is [a-z][a-z0-9]{1,23}: %s", id);
}

static void many_processes(void)
{
    id_text *ids = test_shared(PROCESSES * EACH * sizeof *ids);
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0) {
            for (int j = 0; j < EACH; j++)
                fk_id_make(ids[i * EACH + j]);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++)
        test_reap(pids[i]);
    is_int(doubles(ids, PROCESSES * EACH), 0,
           "8 processes make 10,000 each, forked from one that had made some: no two alike");
}

static void forks(void)
{
    enum { FORKS = 200 };
    id_text *ids = test_shared((FORKS * 2) * sizeof *ids);
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = tap_fork();
        if (pid == 0) {
            fk_id_make(ids[2 * i]);
            _exit(0);
        }
        fk_id_make(ids[2 * i + 1]);
        test_reap(pid);
    }
    is_int(doubles(ids, 2 * FORKS), 0, "a child's next one isn't its parent's next one");
}

/* ---- with a prefix ---- */

static void refused(const char *prefix, size_t size, const char *pattern)
{
    id_text id = "as it was";
    ok(flk_id(prefix, id, size) == -EINVAL && strcmp(id, "as it was") == 0, "\"%s\", room for %zu: refused", prefix,
       size);
    ok(strstr(flk_error_detail(), pattern), "  %s", flk_error_detail());
}

static void prefixes(void)
{
    id_text id;
    const char *const good[] = {"a", "db", "x9", "abcdefg", "z123456"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        bool made = flk_id(good[i], id, sizeof id) == 0 && strncmp(id, good[i], strlen(good[i])) == 0;
        ok(made && strlen(id) == 24 && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == 24, "with \"%s\": %s",
           good[i], id);
    }
    ok(flk_id(NULL, id, 25) == 0 && id[0] == 'f' && strlen(id) == 24, "without one: %s", id);
    refused("", sizeof id, "empty");
    refused("9a", sizeof id, "must begin with");
    refused("Db", sizeof id, "must begin with");
    refused("a-b", sizeof id, "must begin with");
    refused("d\xc3\xa9", sizeof id, "must begin with");
    refused("abcdefgh", sizeof id, "at most 7");
    refused("a", 24, "FLK_ID_SIZE");
}

static void *make_many(void *ids)
{
    for (int i = 0; i < EACH; i++)
        if (flk_id("abcdefg", ((id_text *)ids)[i], FLK_ID_SIZE) < 0)
            bail_out("%s", flk_error_detail());
    return NULL;
}

/* One digit is left for the counter, so the moment is another one after each 36. */
static void many_threads(void)
{
    enum { THREADS = 4 };
    id_text *ids = calloc(THREADS * 2 * EACH, sizeof *ids);
    pthread_t threads[THREADS];
    make_many(ids);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, make_many, ids + (i + 1) * EACH) != 0)
            bail_out("no thread");
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int(doubles(ids, (THREADS + 1) * EACH), 0, "4 threads make 10,000 each with the longest prefix: no two alike");
    free(ids);
}

static int make_in_child(void *id)
{
    return flk_id("c", id, FLK_ID_SIZE);
}

static void child(void)
{
    id_text *ids = test_shared(3 * sizeof *ids);
    make_in_child(ids[0]);
    test_in_child(make_in_child, ids[1]);
    make_in_child(ids[2]);
    is_int(doubles(ids, 3), 0, "a child's next one isn't its parent's");
}

int main(void)
{
    tap_deadline(30);
    fk_registry_enter(); /* its fork handlers */
    format();
    many_processes();
    forks();
    prefixes();
    many_threads();
    child();
    return done_testing();
}
