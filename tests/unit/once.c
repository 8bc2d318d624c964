/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "once.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "helpers.h"
#include "output.h"
#include "row.h"
#include "tap.h"

/* ---- builders; what they do is seen by all processes ---- */

struct shared {
    _Atomic int runs, inside, most, go, begun;
    _Atomic int codes[64];
};
static struct shared *shared;

static int write_number(const char *path, int number)
{
    char text[16];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int length = snprintf(text, sizeof text, "%d", number);
    bool written = fd >= 0 && write(fd, text, (size_t)length) == length;
    close(fd);
    return written ? 0 : -EIO;
}

static int read_number(const char *path)
{
    char text[16];
    return fk_fd_read_text(AT_FDCWD, path, text, sizeof text) <= 0 ? -1 : atoi(text);
}

static int enter(void)
{
    int inside = atomic_fetch_add(&shared->inside, 1) + 1;
    if (inside > atomic_load(&shared->most))
        atomic_store(&shared->most, inside);
    return atomic_fetch_add(&shared->runs, 1) + 1;
}

static int build_number(const char *path, void *data)
{
    (void)data;
    int code = write_number(path, enter());
    atomic_fetch_sub(&shared->inside, 1);
    return code;
}

static void wait_for(_Atomic int *value, int least)
{
    while (atomic_load(value) < least)
        poll(NULL, 0, 1);
}

static int fail_build(const char *path, void *data)
{
    (void)path;
    (void)data;
    return 5;
}

/* Is at it until it is told to go on; then gives the number at data. */
static int build_when_told(const char *path, void *data)
{
    int run = enter();
    atomic_fetch_add(&shared->begun, 1);
    wait_for(&shared->go, 1);
    int code = write_number(path, run);
    atomic_fetch_sub(&shared->inside, 1);
    return code ? code : *(int *)data;
}

static void reset(void)
{
    memset(shared, 0, sizeof *shared);
}

static struct flk_once_spec spec_of(const char *output, const char *key)
{
    return (struct flk_once_spec){.output = output, .key = key, .build = build_number};
}

static pid_t start(const struct flk_once_spec *spec, int index)
{
    pid_t pid = tap_fork();
    if (pid > 0)
        return pid;
    atomic_store(&shared->codes[index], flk_once(spec, FLK_FOREVER));
    _exit(0);
}

/* Until so many stand in the queue of the output's lock. */
static void wait_queued(const char *path, int count)
{
    struct fk_output output;
    char row[PATH_MAX];
    if (fk_output_open(path, &output) < 0 || fk_row_path(output.row, row) < 0)
        bail_out("no output %s", path);
    strcat(row, "/queue");
    for (int found = 0; found < count; poll(NULL, 0, 1)) {
        DIR *directory = opendir(row);
        found = 0;
        for (struct dirent *entry; directory && (entry = readdir(directory));)
            found += entry->d_name[0] != '.' && !strchr(entry->d_name, '.');
        if (directory)
            closedir(directory);
    }
    fk_output_close(&output);
}

/* ---- the tests ---- */

static void ready(void)
{
    const char *x = test_path("ready");
    struct flk_once_spec spec = spec_of(x, NULL);
    test_write_file(x, "0");
    is_int(flk_once(&spec, 0), 0, "what is there is ready");
    is_int(test_entries(test_path("root")), -1, "there is not even a lock directory made for that");
    is_int(atomic_load(&shared->runs), 0, "nothing was built");
    unlink(x);
    is_int(flk_once(&spec, 0), 0, "what isn't is built");
    is_int(read_number(x), 1, "by the builder");
    is_int(flk_once(&spec, 0), 0, "and is ready then");
    is_int(atomic_load(&shared->runs), 1, "without another build");
    spec.key = "a";
    is_int(flk_once(&spec, 0), 0, "with a key");
    is_int(read_number(x), 2, "it is built again");
    is_int(flk_once(&spec, 0), 0, "with the same one");
    is_int(read_number(x), 2, "it isn't");
    spec.flags = FLK_ONCE_FORCE;
    is_int(flk_once(&spec, 0), 0, "by force");
    is_int(read_number(x), 3, "it is");
    spec = spec_of(x, NULL);
    spec.max_age_ms = 1;
    poll(NULL, 0, 2);
    is_int(flk_once(&spec, 0), 0, "too old");
    is_int(read_number(x), 4, "it is, too");
    is_int(flk_once_get(x, NULL, -1), 1, "flk_once_get() knows of it");
    reset();
}

static void together(void)
{
    pid_t pids[64];
    int bad = 0, rounds = test_is_slow() ? 1 : 3;
    for (int round = 0; round < rounds; round++) {
        const char *x = test_path("together%d", round);
        struct flk_once_spec spec = spec_of(x, "k");
        spec.build = build_when_told;
        spec.data = &(int){0};
        for (int i = 0; i < 64; i++)
            pids[i] = start(&spec, i);
        wait_for(&shared->begun, round + 1);
        if (round == 0)
            wait_queued(x, 40);
        atomic_store(&shared->go, 1);
        for (int i = 0; i < 64; i++)
            bad += test_reap(pids[i]) != 0 || atomic_load(&shared->codes[i]) != 0;
        bad += read_number(x) != round + 1;
        atomic_store(&shared->go, 0);
    }
    is_int(bad, 0, "64 processes ask at the same time and get it");
    is_int(atomic_load(&shared->runs), rounds, "from one build each time");
    reset();
}

#define WAITERS 8

/* How many of the waiters got that code. */
static int count_codes(int code)
{
    int count = 0;
    for (int i = 1; i <= WAITERS; i++)
        count += atomic_load(&shared->codes[i]) == code;
    return count;
}

static pid_t pids[WAITERS + 1];

/* One builds and the others wait for it. */
static void start_all(const char *x, int code, unsigned flags, const char *other_key)
{
    static int given;
    given = code;
    reset();
    struct flk_once_spec spec = spec_of(x, "k");
    spec.build = build_when_told;
    spec.data = &given;
    spec.flags = flags;
    pids[0] = start(&spec, 0);
    wait_for(&shared->begun, 1);
    for (int i = 1; i <= WAITERS; i++) {
        spec.key = other_key && i == WAITERS ? other_key : "k";
        pids[i] = start(&spec, i);
    }
    wait_queued(x, WAITERS);
}

static void end_all(void)
{
    atomic_store(&shared->go, 1);
    for (int i = 0; i <= WAITERS; i++)
        if (pids[i] > 0)
            test_reap(pids[i]);
}

static void failures(void)
{
    const char *x = test_path("failing"), *d = tap_directory();
    int before = test_entries(d);
    start_all(x, 7, 0, NULL);
    end_all();
    is_int(atomic_load(&shared->codes[0]), 7, "a builder fails");
    is_int(count_codes(7), WAITERS, "all that waited for it get its code");
    is_int(atomic_load(&shared->runs), 1, "none of them runs it again");
    is_int(test_entries(d), before, "nothing is left in the directory");
    struct flk_once_spec spec = spec_of(x, "k");
    is_int(flk_once(&spec, 0), 0, "who comes later tries anew");
    is_int(read_number(x), 2, "and builds");
    unlink(x);
    start_all(x, -EPROTO, FLK_ONCE_RETRY, NULL);
    end_all();
    is_int(count_codes(-EPROTO), WAITERS, "who wants to try itself fails itself");
    is_int(atomic_load(&shared->runs), WAITERS + 1, "each on its own");
    is_int(atomic_load(&shared->most), 1, "one after the other");
    start_all(x, 9, 0, "other");
    end_all();
    is_int(count_codes(9), WAITERS, "a failure for another key is none");
    is_int(atomic_load(&shared->runs), 2, "who has that runs");
    reset();
}

static int tell_detail(const char *path, void *data)
{
    build_when_told(path, data);
    return 3;
}

static void told(void)
{
    const char *x = test_path("told");
    struct flk_once_spec spec = spec_of(x, NULL);
    int pipe[2];
    char detail[2000] = "";
    spec.build = tell_detail;
    spec.data = &(int){0};
    if (pipe2(pipe, O_CLOEXEC) < 0)
        bail_out("no pipe");
    pid_t builder = start(&spec, 0), waiter;
    wait_for(&shared->begun, 1);
    waiter = tap_fork();
    if (waiter == 0) {
        int code = flk_once(&spec, FLK_FOREVER);
        size_t length = strlen(flk_error_detail());
        _exit(code == 3 && write(pipe[1], flk_error_detail(), length) == (ssize_t)length ? 0 : 1);
    }
    wait_queued(x, 1);
    atomic_store(&shared->go, 1);
    is_int(test_reap(waiter), 0, "a waiter gets the failure");
    test_reap(builder);
    char expected[64];
    snprintf(expected, sizeof expected, "by pid %d ", (int)builder);
    ok(read(pipe[0], detail, sizeof detail - 1) > 0 && strstr(detail, expected), "and is told whose: %s", detail);
    reset();
}

static void killed(void)
{
    const char *x = test_path("killed"), *d = tap_directory();
    struct flk_once_spec failing = spec_of(x, "k");
    int before = test_entries(d);
    failing.build = fail_build;
    is_int(flk_once(&failing, 0), 5, "a build fails that nobody waits for");
    start_all(x, 0, 0, NULL);
    kill(pids[0], SIGKILL);
    test_reap(pids[0]);
    pids[0] = 0;
    end_all();
    is_int(count_codes(0), WAITERS, "the builder is killed, and those that waited have it nevertheless");
    is_int(atomic_load(&shared->runs), 2, "from one more build");
    is_int(read_number(x), 2, "which is whole");
    is_int(test_entries(d), before + 2, "nothing is left beside it and its stamp");
    start_all(test_path("killed2"), 0, 0, NULL);
    for (int i = 1; i < WAITERS; i++) {
        kill(pids[i], SIGKILL);
        test_reap(pids[i]);
        pids[i] = 0;
    }
    end_all();
    is_int(atomic_load(&shared->codes[WAITERS]), 0, "waiters are killed, and the last one has it");
    is_int(atomic_load(&shared->runs), 1, "from the one build");
    reset();
}

static int build_again(const char *path, void *data)
{
    struct flk_once_spec *inner = data;
    int code = flk_once(inner, FLK_FOREVER);
    return code ? code : write_number(path, read_number(inner->output) + 100);
}

static void nested(void)
{
    const char *a = test_path("a"), *b = test_path("b");
    struct flk_once_spec inner = spec_of(b, NULL), outer = spec_of(a, NULL);
    outer.build = build_again;
    outer.data = &inner;
    is_int(flk_once(&outer, FLK_FOREVER), 0, "a build may need another output");
    is_int(read_number(a), 101, "which is built before");
    unlink(a);
    inner.output = a;
    is_int(flk_once(&outer, FLK_FOREVER), -EDEADLK, "not its own: %s", flk_error_detail());
    is_int(access(a, F_OK), -1, "then nothing is built");
    reset();
}

static int ask_quickly(void *data)
{
    struct flk_once_spec *spec = data;
    if (flk_once(spec, 0) != -EBUSY || !strstr(flk_error_detail(), spec->output))
        return 1;
    return flk_once(spec, 30) == -ETIMEDOUT ? 0 : 2;
}

static int use_missing(const char *x)
{
    struct flk_hold *hold = NULL;
    int code = flk_once_use(x, 0, &hold);
    flk_hold_release(hold);
    return code;
}

static void limits_and_use(void)
{
    const char *x = test_path("used");
    struct flk_once_spec spec = spec_of(x, "k");
    spec.build = build_when_told;
    spec.data = &(int){0};
    pid_t builder = start(&spec, 0);
    wait_for(&shared->begun, 1);
    is_int(test_in_child(ask_quickly, &spec), 0, "who waits no time, or not so long, is told");
    atomic_store(&shared->go, 1);
    test_reap(builder);
    struct flk_hold *hold;
    is_int(flk_once_use(x, 0, &hold), 0, "what is there can be used");
    is_str(flk_hold_name(hold, 0), x, "the hold is called by its path");
    is_int(flk_once(&spec, 0), 0, "who finds it ready isn't held up by that");
    spec.key = "l";
    is_int(test_in_child(ask_quickly, &spec), 0, "who would build is");
    is_int(flk_once(&spec, FLK_FOREVER), -EDEADLK, "its own thread would be for ever: %s", flk_error_detail());
    flk_hold_release(hold);
    is_int(flk_once(&spec, 0), 0, "then it is built");
    is_int(use_missing(test_path("missing")), -ENOENT, "what isn't there can't be used: %s", flk_error_detail());
    reset();
}

/* A waiter that comes behind a user of the output isn't made to wait for it. */
static void past_users(void)
{
    const char *x = test_path("past");
    struct flk_once_spec spec = spec_of(x, "k");
    spec.build = build_when_told;
    spec.data = &(int){0};
    pid_t builder = start(&spec, 0);
    wait_for(&shared->begun, 1);
    pid_t user = tap_fork();
    if (user == 0) {
        struct flk_hold *hold;
        if (flk_once_use(x, FLK_FOREVER, &hold) == 0)
            pause();
        _exit(1);
    }
    wait_queued(x, 1);
    pid_t waiter = start(&spec, 1);
    wait_queued(x, 2);
    atomic_store(&shared->go, 1);
    is_int(test_reap(builder), 0, "a build ends");
    is_int(test_reap(waiter), 0, "who waited for it behind one that goes on to use it goes on, too");
    is_int(atomic_load(&shared->runs), 1, "without a build");
    kill(user, SIGKILL);
    test_reap(user);
    reset();
}

static void *ask(void *data)
{
    return (void *)(intptr_t)flk_once(data, FLK_FOREVER);
}

static void threads(void)
{
    pthread_t all[8];
    struct flk_once_spec spec = spec_of(test_path("threads"), "k");
    int bad = 0;
    for (int i = 0; i < 8; i++)
        pthread_create(&all[i], NULL, ask, &spec);
    for (int i = 0; i < 8; i++) {
        void *code;
        pthread_join(all[i], &code);
        bad += code != NULL;
    }
    is_int(bad, 0, "threads of one process ask, too");
    is_int(atomic_load(&shared->runs), 1, "and one builds");
    reset();
}

static void *ask_for_all(void *data)
{
    struct flk_once_spec spec = spec_of(data, "k");
    int bad = flk_once(&spec, 0) != 0;
    spec.key = "l";
    bad += flk_once(&spec, 0) != 0;
    spec.key = NULL;
    bad += flk_once(&spec, 0) != 0;
    spec.build = fail_build;
    spec.flags = FLK_ONCE_FORCE;
    bad += flk_once(&spec, 0) != 5;
    bad += use_missing(data) != 0;
    return (void *)(intptr_t)bad;
}

/* With the least stack that there is. */
static void small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *bad = NULL;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN);
    pthread_create(&thread, &attributes, ask_for_all, (void *)test_path("small"));
    pthread_join(thread, &bad);
    pthread_attr_destroy(&attributes);
    ok(bad == NULL, "a thread with the smallest stack builds, fails and uses");
    reset();
}

static int build_and_wait_for_cancel(const char *path, void *data)
{
    (void)path;
    (void)data;
    atomic_fetch_add(&shared->begun, 1);
    while (poll(NULL, 0, 1000) == 0)
        ;
    return 0;
}

static void cancelled(void)
{
    const char *x = test_path("cancelled");
    struct flk_once_spec spec = spec_of(x, NULL);
    pthread_t thread;
    void *ended;
    int before = test_entries(tap_directory()), descriptors = test_descriptors();
    spec.build = build_and_wait_for_cancel;
    pthread_create(&thread, NULL, ask, &spec);
    wait_for(&shared->begun, 1);
    pthread_cancel(thread);
    pthread_join(thread, &ended);
    ok(ended == PTHREAD_CANCELED, "a thread can be cancelled in its builder");
    is_int(test_entries(tap_directory()), before, "it leaves nothing in the directory");
    ok(test_descriptors() <= descriptors + 4, "nor descriptors");
    spec.build = build_number;
    is_int(flk_once(&spec, 0), 0, "nor the lock");
    reset();
}

static void bad_specs(void)
{
    struct flk_once_spec spec = spec_of(test_path("bad"), NULL);
    spec.reserved[3] = 1;
    is_int(flk_once(&spec, 0), -EINVAL, "what isn't known is refused: %s", flk_error_detail());
    spec = spec_of(NULL, NULL);
    is_int(flk_once(&spec, 0), -EINVAL, "so is no output: %s", flk_error_detail());
    spec = spec_of(test_path("bad"), NULL);
    spec.build = NULL;
    is_int(flk_once(&spec, 0), -EINVAL, "and no builder: %s", flk_error_detail());
    spec = spec_of(test_path("nowhere/x"), NULL);
    is_int(flk_once(&spec, 0), -ENOENT, "and no directory: %s", flk_error_detail());
}

int main(void)
{
    tap_deadline(120);
    test_root();
    shared = test_shared(sizeof *shared);
    ready();
    together();
    failures();
    told();
    killed();
    nested();
    limits_and_use();
    past_users();
    threads();
    if (!test_is_slow())
        small_stack();
    cancelled();
    bad_specs();
    return done_testing();
}
