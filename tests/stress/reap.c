/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each item is cleaned up once, whoever cleans up, and whoever is killed.
 *
 * First 100 reapers at once and 1,000 items of a dead owner. Then owners, reapers and acquirers that are killed (-9) at random
 * moments: an owner registers a directory, makes it, looks whether it stays while it lives, removes it, drops the item. In the
 * end nothing is left, and nothing that lived was touched.
 *
 * STRESS_SCALE multiplies the time of the second part (1: 6 s). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../unit/helpers.h"
#include "tap.h"

#define REAPERS 100
#define ITEMS 1000
#define COMMANDS 100 /* of them have one */
#define ROWS 4
#define OWNERS 8
#define CLEANERS 6

static struct common {
    _Atomic unsigned go, cleaned, errors;
    /* of the second part */
    _Atomic unsigned registered, undone, touched, passes, kills;
    char message[1024];
} *common;

static const char *trees; /* the directory of what is to be cleaned up */

static void note_error(void)
{
    if (atomic_fetch_add(&common->errors, 1) == 0)
        snprintf(common->message, sizeof common->message, "%s", flk_error_detail());
}

static void name_of(char name[8], unsigned number)
{
    snprintf(name, 8, "r%u", number % ROWS);
}

static int count(const struct flk_state *state, void *data)
{
    (void)state;
    ++*(unsigned *)data;
    return 0;
}

static unsigned items_left(void)
{
    unsigned left = 0;
    if (flk_state_list(NULL, count, &left) < 0)
        bail_out("%s", flk_error_detail());
    return left;
}

/* ---- many reapers ---- */

static void register_one(pid_t owner, unsigned number)
{
    char name[8], id[FLK_ID_SIZE], path[256], command[512];
    const char *const paths[] = {path, NULL}, *const no_variables[] = {"PATH=/usr/bin:/bin", NULL};
    name_of(name, number);
    snprintf(path, sizeof path, "%s/%u", trees, number);
    if (mkdir(path, 0700) < 0)
        bail_out("mkdir: %s", strerror(errno));
    snprintf(command, sizeof command, "echo %u >>%s.log", number, trees);
    const struct flk_state_spec spec = {.name = number % 5 ? name : NULL,
                                        .paths = paths,
                                        .command = number < COMMANDS ? command : NULL,
                                        .envp = no_variables,
                                        .owner = owner};
    if (flk_state_add(&spec, id) < 0)
        bail_out("%s", flk_error_detail());
}

static void reap_once(void)
{
    while (!common->go)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    int cleaned = flk_reap(NULL, 0);
    if (cleaned < 0)
        note_error();
    else
        atomic_fetch_add(&common->cleaned, (unsigned)cleaned);
    _exit(0);
}

/* How many lines, and how many different ones. */
static void read_log(unsigned *lines, unsigned *different)
{
    static bool seen[ITEMS];
    unsigned number;
    FILE *file = fopen(test_path("trees.log"), "r");
    *lines = *different = 0;
    while (file && fscanf(file, "%u", &number) == 1) {
        ++*lines;
        if (number < ITEMS && !seen[number])
            ++*different;
        seen[number % ITEMS] = true;
    }
    if (file)
        fclose(file);
}

static void many_reapers(void)
{
    pid_t reapers[REAPERS], owner = tap_fork();
    unsigned lines, different;
    if (owner == 0) {
        pause();
        _exit(0);
    }
    for (unsigned i = 0; i < ITEMS; i++)
        register_one(owner, i);
    kill(owner, SIGKILL);
    test_reap(owner);
    for (unsigned i = 0; i < REAPERS; i++)
        if ((reapers[i] = tap_fork()) == 0)
            reap_once();
    common->go = 1;
    for (unsigned i = 0; i < REAPERS; i++)
        test_reap(reapers[i]);
    is_int(common->errors, 0, "%d reapers at once, no error: %s", REAPERS, common->message);
    is_int(common->cleaned, ITEMS, "%d items: each was cleaned up by one of them", ITEMS);
    read_log(&lines, &different);
    ok(lines == COMMANDS && different == COMMANDS, "each command ran once: %u of %u", different, lines);
    is_int(items_left(), 0, "no item is left");
    is_int(test_entries(trees), 0, "nor what they were for");
}

/* ---- kills ---- */

static unsigned random_below(unsigned *seed, unsigned limit)
{
    return (unsigned)rand_r(seed) % limit;
}

static void sleep_us(unsigned us)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

/* While we live nobody may touch it. */
static void own_one(unsigned *seed, unsigned serial)
{
    char name[8], id[FLK_ID_SIZE], path[256], cleaned[300], command[400];
    const char *const paths[] = {path, cleaned, NULL}, *const no_variables[] = {"PATH=/usr/bin:/bin", NULL};
    name_of(name, random_below(seed, ROWS));
    snprintf(path, sizeof path, "%s/%d.%u", trees, (int)getpid(), serial);
    snprintf(cleaned, sizeof cleaned, "%s.cleaned", path);
    snprintf(command, sizeof command, ": >%s", cleaned);
    const struct flk_state_spec spec = {.name = random_below(seed, 4) ? name : NULL,
                                        .paths = paths,
                                        .command = random_below(seed, 3) ? NULL : command,
                                        .envp = no_variables,
                                        .owner = random_below(seed, 2) ? getpid() : 0};
    if (flk_state_add(&spec, id) < 0) {
        note_error();
        return;
    }
    atomic_fetch_add(&common->registered, 1);
    if (mkdir(path, 0700) < 0)
        atomic_fetch_add(&common->touched, 1);
    sleep_us(random_below(seed, 2000));
    if (rmdir(path) < 0 || access(cleaned, F_OK) == 0)
        atomic_fetch_add(&common->touched, 1);
    if (flk_state_drop(id) < 0)
        atomic_fetch_add(&common->touched, 1);
    atomic_fetch_add(&common->undone, 1);
}

static void be_owner(unsigned seed)
{
    for (unsigned serial = 0;; serial++)
        own_one(&seed, serial);
}

static void be_cleaner(unsigned seed)
{
    for (;;) {
        struct flk_hold *hold = NULL;
        char name[8];
        int code;
        name_of(name, random_below(&seed, ROWS));
        switch (random_below(&seed, 3)) {
        case 0:
            code = flk_acquire(name, 0, -1, &hold);
            if (code == 0)
                flk_hold_release(hold);
            break;
        case 1:
            code = flk_reap(name, 0);
            break;
        default:
            code = flk_reap(NULL, 0);
        }
        if (code < 0)
            note_error();
        atomic_fetch_add(&common->passes, 1);
        sleep_us(random_below(&seed, 3000));
    }
}

static pid_t start(unsigned which, unsigned *seed)
{
    unsigned own = (unsigned)rand_r(seed);
    pid_t pid = tap_fork();
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (which < OWNERS)
        be_owner(own);
    be_cleaner(own);
    _exit(0);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until nobody is at one any more: helpers of reapers that were killed may still end their commands. */
static void reap_all(void)
{
    for (int tries = 0; items_left() > 0 && tries < 600; tries++) {
        if (flk_reap(NULL, 0) < 0)
            bail_out("%s", flk_error_detail());
        if (items_left() > 0)
            sleep_us(100000);
    }
}

static unsigned leftovers(void)
{
    unsigned left = (unsigned)(test_entries(test_path("root/state")) > 0);
    for (unsigned row = 0; row < ROWS; row++)
        left += test_entries(test_path("root/rows/r%u/state", row)) > 0;
    return left;
}

static void kills(unsigned scale)
{
    pid_t pids[OWNERS + CLEANERS];
    unsigned seed = (unsigned)time(NULL);
    diag("seed %u", seed);
    for (unsigned i = 0; i < OWNERS + CLEANERS; i++)
        pids[i] = start(i, &seed);
    for (int64_t until = now_ms() + 6000 * (int64_t)scale; now_ms() < until;) {
        unsigned which = random_below(&seed, OWNERS + CLEANERS);
        sleep_us(random_below(&seed, 10000));
        kill(pids[which], SIGKILL);
        test_reap(pids[which]);
        common->kills++;
        pids[which] = start(which, &seed);
    }
    for (unsigned i = 0; i < OWNERS + CLEANERS; i++) {
        kill(pids[i], SIGKILL);
        test_reap(pids[i]);
    }
    reap_all();
    ok(common->kills > 0 && common->registered > 0, "%u kills, %u items, %u of them undone by their owners, %u passes of reapers",
       common->kills, common->registered, common->undone, common->passes);
    is_int(common->touched, 0, "nothing that lived was touched");
    is_int(common->errors, 0, "no error: %s", common->message);
    is_int(items_left(), 0, "no item is left");
    is_int(test_entries(trees), 0, "nor what they were for");
    is_int((int)leftovers(), 0, "nor anything half-made");
}

int main(void)
{
    const char *text = getenv("STRESS_SCALE");
    unsigned scale = text && atoi(text) > 0 ? (unsigned)atoi(text) : 1;
    tap_deadline(120 + 30 * scale);
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    common = test_shared(sizeof *common);
    trees = strdup(test_path("trees"));
    if (mkdir(trees, 0700) < 0)
        bail_out("mkdir: %s", strerror(errno));
    many_reapers();
    kills(scale);
    return done_testing();
}
