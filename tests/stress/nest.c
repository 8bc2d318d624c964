/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Trees of processes that acquire several slots of several names at random, and below what they hold again, three levels deep. Each
 * slot has one user at a time, shared ones aside; no deadlock is reported, since there is none: at every level names beyond
 * those that are drawn are asked for in one order. Then the same with processes that die at any moment.
 *
 * STRESS_SCALE multiplies the acquires (1: 1,000 and 333). */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "../unit/helpers.h"
#include "owner.h"
#include "proc.h"
#include "tap.h"

#define WORKERS 6
#define LEVELS 3
#define MOST_SLOTS 5

static const struct {
    const char *name;
    unsigned slots;
} rows[] = {{"a", 1}, {"b", 2}, {"c", 5}, {"d", 3}, {"e", 1}, {"f", 4}};
#define ROWS (sizeof rows / sizeof *rows)

static struct {
    _Atomic int left; /* acquires to be made */
    _Atomic unsigned acquired, nested, drawn_shared, overlaps, deadlocks, failures;
    _Atomic int exclusive[ROWS][MOST_SLOTS], shared[ROWS];
    _Atomic uint64_t user[ROWS][MOST_SLOTS]; /* where some die: whose mark, 0: nobody's */
    _Atomic unsigned died;
    char sentence[512];
} * book;

/* What the process above holds. What only those further above hold isn't asked for: others that draw from there may wait for
 * what the process above has drawn. */
struct chain {
    unsigned count[ROWS];
    bool shared[ROWS];
    size_t beyond; /* the first row that may be asked for anew */
};

static unsigned seed;
static bool deadly;

static unsigned below(unsigned n)
{
    return (unsigned)rand_r(&seed) / 7 % n;
}

/* ---- who uses a slot ---- */

static void use_and_die(const struct flk_hold *hold, const size_t *which, bool begin);

static void use(const struct flk_hold *hold, const struct flk_want *wants, const size_t *which, int change)
{
    if (deadly) {
        use_and_die(hold, which, change > 0);
        return;
    }
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t row = which[i], n = flk_hold_slots(hold, i, &slots);
        bool shared = wants[i].flags & FLK_SHARED;
        if (shared)
            atomic_fetch_add(&book->shared[row], change);
        for (size_t j = 0; j < n; j++) {
            int before = shared ? atomic_load(&book->exclusive[row][slots[j]])
                                : atomic_fetch_add(&book->exclusive[row][slots[j]], change);
            int wanted = shared || change > 0 ? 0 : 1;
            if (before != wanted || (!shared && atomic_load(&book->shared[row]) != 0))
                atomic_fetch_add(&book->overlaps, 1);
        }
    }
}

/* A process: pids are used again, start times with them are not. */
static uint64_t mark_of(pid_t pid)
{
    struct fk_proc_stat stat;
    return fk_proc_stat(pid, &stat) < 0 ? 0 : stat.start_time << 22 | (uint64_t)pid;
}

/* One that is on its way out may have let go of a slot already, but not before it was seen to be. */
static bool is_exiting(uint64_t mark)
{
    pid_t pid = (pid_t)(mark & 0x3fffff);
    if (mark_of(pid) != mark)
        return true;
    char path[32], text[1024];
    unsigned flags = 0;
    char state = 'X';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[length] = '\0';
    char *rest = strrchr(text, ')');
    if (rest)
        sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags);
    return state == 'Z' || state == 'X' || (flags & 4); /* PF_EXITING */
}

/* The same where users may die. */
static void use_and_die(const struct flk_hold *hold, const size_t *which, bool begin)
{
    uint64_t self = mark_of(getpid());
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t n = flk_hold_slots(hold, i, &slots);
        for (size_t j = 0; j < n; j++) {
            uint64_t before = atomic_exchange(&book->user[which[i]][slots[j]], begin ? self : 0);
            if (begin ? before != 0 && !is_exiting(before) : before != self)
                atomic_fetch_add(&book->overlaps, 1);
        }
    }
}

/* ---- what is asked for ---- */

static struct flk_want want_of(size_t row, unsigned most, bool may_be_alone)
{
    struct flk_want want = {.name = rows[row].name, .count = 1 + below(most)};
    if (below(8) == 0)
        want.count = FLK_ALL;
    if (!deadly && rows[row].slots == 1 && (!may_be_alone || below(2))) {
        want.flags = FLK_SHARED;
        want.count = 1;
    }
    return want;
}

/* Some of what the process above holds, and some rows beyond all that is held. In any order: the library sorts. */
static size_t choose(const struct chain *chain, struct flk_want *wants, size_t *which)
{
    size_t n = 0;
    for (size_t row = ROWS; row-- > 0;) {
        bool drawn = chain->count[row] > 0;
        if ((!drawn && row < chain->beyond) || below(drawn ? 2 : 4))
            continue;
        wants[n] = want_of(row, drawn ? chain->count[row] : rows[row].slots, !drawn || !chain->shared[row]);
        which[n++] = row;
    }
    return n;
}

static struct chain extend(const struct chain *chain, const struct flk_hold *hold, const struct flk_want *wants,
                           const size_t *which)
{
    struct chain longer = {.beyond = chain->beyond};
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        longer.count[which[i]] = (unsigned)flk_hold_slots(hold, i, &slots);
        longer.shared[which[i]] = wants[i].flags & FLK_SHARED;
        if (longer.beyond <= which[i])
            longer.beyond = which[i] + 1;
    }
    return longer;
}

/* ---- a process ---- */

static void acquire_some(const struct chain *chain, unsigned level);

static void inherit(const struct flk_hold *hold)
{
    char **envp;
    if (flk_hold_environ(hold, &envp) < 0)
        _exit(3);
    for (char **at = envp; *at; at++)
        if (strncmp(*at, "FLOCKCTL_HELD=", 14) == 0)
            setenv("FLOCKCTL_HELD", *at + 14, 1);
    free(envp);
}

/* SIGALRM ends it, wherever it is. */
static void die_some_time(void)
{
    signal(SIGALRM, SIG_DFL); /* not our writer of TAP's */
    if (deadly && below(4) == 0)
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 1 + below(3000)}}, NULL);
}

static void run_child(const struct flk_hold *hold, const struct chain *chain, unsigned level, unsigned child)
{
    seed += 7919 * (level + 1) + 104729 * (child + 1);
    alarm(100);
    die_some_time();
    for (unsigned i = 1 + below(3); i-- > 0;)
        acquire_some(chain, level);
    (void)hold;
    _exit(0);
}

/* Its children use what it holds; it doesn't meanwhile. */
static void run_below(struct flk_hold *hold, const struct chain *chain, unsigned level)
{
    char *before = getenv("FLOCKCTL_HELD"), *copy = before ? strdup(before) : NULL;
    if (flk_hold_inherit(hold, 1) < 0)
        _exit(4);
    inherit(hold);
    for (unsigned child = 1 + below(3); child-- > 0;) {
        pid_t pid = fork();
        if (pid == 0)
            run_child(hold, chain, level, child);
        if (pid < 0)
            atomic_fetch_add(&book->failures, 1);
    }
    while (wait(NULL) > 0)
        ;
    if (copy)
        setenv("FLOCKCTL_HELD", copy, 1);
    else
        unsetenv("FLOCKCTL_HELD");
    free(copy);
}

static void note_failure(int code)
{
    atomic_fetch_add(code == -EDEADLK ? &book->deadlocks : &book->failures, 1);
    snprintf(book->sentence, sizeof book->sentence, "%d: %s", code, flk_error_detail());
}

static void acquire_some(const struct chain *chain, unsigned level)
{
    struct flk_want wants[ROWS];
    size_t which[ROWS], n = choose(chain, wants, which);
    struct flk_hold *hold;
    if (n == 0 || atomic_fetch_sub(&book->left, 1) <= 0)
        return;
    int code = flk_acquire_many(wants, n, NULL, 60000, &hold);
    if (code < 0) {
        note_failure(code);
        return;
    }
    atomic_fetch_add(&book->acquired, 1);
    for (size_t i = 0; i < n; i++)
        if (chain->count[which[i]] > 0)
            atomic_fetch_add(wants[i].flags & FLK_SHARED ? &book->drawn_shared : &book->nested, 1);
    use(hold, wants, which, 1);
    if (below(8) == 0)
        usleep(below(300));
    use(hold, wants, which, -1);
    if (level + 1 < LEVELS && below(2)) {
        struct chain longer = extend(chain, hold, wants, which);
        run_below(hold, &longer, level + 1);
        if (!deadly) { /* the children of one that died may use it still */
            use(hold, wants, which, 1);
            use(hold, wants, which, -1);
        }
    }
    flk_hold_release(hold);
}

/* In a child, whose death isn't ours. */
static void acquire_in_child(const struct chain *chain)
{
    int status;
    pid_t pid = fork();
    seed += 15485863;
    if (pid == 0) {
        alarm(100);
        die_some_time();
        acquire_some(chain, 0);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
        atomic_fetch_add(&book->died, 1);
}

static int work(unsigned worker)
{
    const struct chain none = {.beyond = 0};
    seed = (unsigned)getpid() * 31 + worker;
    while (atomic_load(&book->left) > 0) {
        if (deadly)
            acquire_in_child(&none);
        else
            acquire_some(&none, 0);
    }
    return 0;
}

static void run_workers(int acquires)
{
    pid_t workers[WORKERS];
    int ended = 0;
    book->left = acquires;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = tap_fork();
        if (workers[i] == 0)
            _exit(work(i));
    }
    for (unsigned i = 0; i < WORKERS; i++)
        ended += test_reap(workers[i]) == 0;
    is_int(ended, WORKERS, "%d processes and their trees acquire at random", WORKERS);
}

static void check(void)
{
    is_int(book->overlaps, 0, "no slot had two users");
    is_int(book->deadlocks, 0, "no deadlock was reported");
    is_int(book->failures, 0, "nothing else went wrong");
    if (book->sentence[0])
        diag("%s", book->sentence);
    for (size_t i = 0; i < ROWS; i++) {
        struct flk_hold *hold;
        const struct flk_want all = {.name = rows[i].name, .count = FLK_ALL};
        int code = flk_acquire_many(&all, 1, NULL, deadly ? 60000 : 0, &hold); /* orphans have theirs still */
        ok(code == 0 && (deadly || !flk_hold_abandoned(hold)), "%s is free", rows[i].name);
        if (code == 0)
            flk_hold_release(hold);
        ok(test_entries(test_path("root/rows/%s/under", rows[i].name)) <= 0, "and nothing is left below it");
    }
}

int main(void)
{
    const char *text = getenv("STRESS_SCALE");
    double scale = text ? strtod(text, NULL) : 1;
    int acquires = (int)(1000 * scale);
    tap_deadline((unsigned)(120 + 60 * scale));
    test_root();
    book = test_shared(sizeof *book);
    for (size_t i = 0; i < ROWS; i++)
        if (flk_row_define(rows[i].name, rows[i].slots) < 0)
            bail_out("%s", flk_error_detail());
    run_workers(acquires);
    is_int(book->acquired, acquires, "each got what it asked for");
    ok(book->nested > (unsigned)acquires / 10, "%u times from a hold above it", book->nested);
    ok(book->drawn_shared > 0, "%u times shared from one", book->drawn_shared);
    check();

    deadly = true;
    run_workers(acquires / 3);
    ok(book->died > 0, "%u of those at the top died", book->died);
    check();
    return done_testing();
}
