/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Three processes that hand a lock on, as often as told, as fast as they can. Usage: handoff NAME COUNT
 * Prints how often they had it, and how often one was let in by its look once a second: a wake-up was lost then. */
#include <err.h>
#include <flockctl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "request.h"

#define PROCESSES 3

struct counts {
    _Atomic long had, by_look;
};

static void take_turns(const char *name, long count, struct counts *counts)
{
    while (atomic_load(&counts->had) < count) {
        struct flk_hold *hold;
        if (flk_acquire(name, 0, 20000, &hold) < 0)
            errx(1, "%s", flk_error_detail());
        atomic_fetch_add(&counts->had, 1);
        flk_hold_release(hold);
    }
    atomic_fetch_add(&counts->by_look, fk_request_let_in_by_look);
}

int main(int argc, char **argv)
{
    int failed = 0, status;
    struct counts *counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 3 || counts == MAP_FAILED)
        errx(2, "usage: handoff NAME COUNT");
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();
        if (pid < 0)
            err(1, "fork");
        if (pid == 0) {
            take_turns(argv[1], atol(argv[2]), counts);
            _exit(0);
        }
    }
    while (wait(&status) > 0)
        failed |= status != 0;
    printf("%d had, %ld by look\n", counts->had >= atol(argv[2]), atomic_load(&counts->by_look));
    return failed;
}
