/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "id.h"

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

int main(void)
{
    tap_deadline(30);
    fk_registry_enter(); /* its fork handlers */
    format();
    many_processes();
    forks();
    return done_testing();
}
