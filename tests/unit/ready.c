/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ready.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

static struct fk_identity identity_of(const char *path)
{
    struct stat status;
    struct fk_identity identity;
    if (lstat(path, &status) < 0)
        bail_out("no %s", path);
    fk_identity_take(&status, &identity);
    return identity;
}

/* Makes a file and says that it is ready. */
static const char *put(const char *name, const char *key)
{
    const char *path = test_path("%s", name);
    test_write_file(path, "made");
    struct fk_identity identity = identity_of(path);
    fk_ready_put(path, key, &identity);
    return path;
}

/* ---- hits ---- */

static void keys(void)
{
    const char *path = put("keys", "one");
    ok(fk_ready_get(path, "one", -1), "ready for the key that it was entered with");
    ok(!fk_ready_get(path, NULL, -1), "not for none, where what a link leads to would count");
    ok(!fk_ready_get(path, "two", -1), "not for another one");
    ok(!fk_ready_get(path, "on", -1), "nor for its beginning");
    ok(!fk_ready_get(test_path("key"), "one", -1), "nor another output");
    put("keys", "two");
    ok(fk_ready_get(path, "two", -1) && !fk_ready_get(path, "one", -1), "a new key takes the place of the old one");
    put("keys", NULL);
    ok(fk_ready_get(path, NULL, -1) && !fk_ready_get(path, "two", -1), "one entered without a key is ready without one");
}

static void put_time(const char *path, int64_t ns)
{
    struct timespec time = {.tv_sec = ns / FK_SECOND, .tv_nsec = ns % FK_SECOND};
    if (utimensat(AT_FDCWD, path, (struct timespec[2]){time, time}, 0) < 0)
        bail_out("utimensat");
}

static void change_size(const char *path)
{
    struct fk_identity was = identity_of(path);
    test_write_file(path, "made longer");
    put_time(path, was.mtime_ns);
}

static void change_time(const char *path)
{
    put_time(path, FK_SECOND);
}

static void change_inode(const char *path)
{
    const char *other = test_path("other");
    struct fk_identity was = identity_of(path);
    test_write_file(other, "made");
    put_time(other, was.mtime_ns);
    rename(other, path);
}

static void change_device(const char *path)
{
    unlink(path);
    if (symlink("/proc/version", path) < 0)
        bail_out("symlink");
}

static void remove_it(const char *path)
{
    unlink(path);
}

static void changes(void)
{
    static const struct {
        const char *what;
        void (*change)(const char *path);
    } all[] = {
        {"another size", change_size},          {"another time", change_time}, {"another inode", change_inode},
        {"a symbolic link now", change_device}, {"removed", remove_it},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        unlink(test_path("changes"));
        const char *path = put("changes", "key");
        ok(fk_ready_get(path, "key", 0), "looked at each time, and the same: ready");
        all[i].change(path);
        ok(fk_ready_get(path, "key", -1), "%s, and never looked at: ready", all[i].what);
        ok(fk_ready_get(path, "key", 3600000), "%s, looked at once an hour: ready", all[i].what);
        ok(!fk_ready_get(path, "key", 0), "%s, looked at each time: not ready", all[i].what);
    }
}

static void interval(void)
{
    const char *path = put("interval", NULL);
    bool ready = true;
    unlink(path);
    for (int i = 0; ready && i < 20000; i++) {
        ready = fk_ready_get(path, NULL, 20);
        usleep(1000);
    }
    ok(!ready, "when the interval is over the file is looked at");
}

/* Nothing but read, write, _exit and sigreturn is allowed; anything else kills. */
static int only_memory(void *path)
{
    int missed = !fk_ready_get(path, "key", -1); /* a thread's first makes it known to liburcu */
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0)
        return 2;
    for (int i = 0; i < 1000; i++)
        missed |= !fk_ready_get(path, "key", -1) || !fk_ready_get(path, "key", 3600000) || fk_ready_get(path, "other", -1);
    syscall(SYS_exit, missed);
    return 3;
}

static void no_system_call(void)
{
    const char *path = put("only memory", "key");
    if (test_is_slow())
        skip("the sanitizers and Valgrind make system calls of their own");
    else
        is_int(test_in_child(only_memory, (void *)(uintptr_t)path), 0, "hits and misses make no system call");
}

/* ---- where a relative path leads ---- */

static int relative_paths(void *data)
{
    (void)data;
    const char *here = test_path("here"), *there = test_path("there");
    mkdir(here, 0700);
    mkdir(there, 0700);
    if (chdir(here) < 0)
        return 1;
    test_write_file("output", "made");
    struct fk_identity identity = identity_of("output");
    fk_ready_put("output", "key", &identity);
    if (!fk_ready_get("output", "key", -1))
        return 2;
    if (chdir(there) < 0 || fk_ready_get("output", "key", -1))
        return 3;
    test_write_file("output", "made");
    if (fk_ready_get("output", "key", 3600000))
        return 4;
    return chdir(here) < 0 || !fk_ready_get("output", "key", -1) ? 5 : 0;
}

/* ---- what stands on disk ---- */

static void stamp(const char *path, const char *key)
{
    char file[PATH_MAX];
    struct fk_stamp_spec spec = {.output = identity_of(path), .key = key};
    if (fk_stamp_path(path, file) < 0)
        bail_out("no stamp");
    unlink(file);
    if (fk_stamp_write(AT_FDCWD, file, &spec) < 0)
        bail_out("no stamp");
}

static void from_disk(void)
{
    const char *path = test_path("from disk");
    is_int(flk_once_get(path, NULL, -1), 0, "an output that isn't there isn't ready");
    is_int(flk_once_get(test_path("no directory/at all"), NULL, -1), 0, "nor one without a directory");
    test_write_file(path, "made");
    is_int(flk_once_get(path, NULL, -1), 1, "one that is there is");
    is_int(flk_once_get(path, "key", -1), 0, "but not for a key, without a stamp");
    stamp(path, "key");
    is_int(flk_once_get(path, "key", -1), 1, "with a stamp that says so it is");
    is_int(flk_once_get(path, "other", -1), 0, "and not for another key");
    ok(fk_ready_get(path, "key", -1), "which the index knows then");
    stamp(path, "other");
    is_int(flk_once_get(path, "other", 0), 1, "for that one when the stamp says so");
    unlink(path);
    is_int(flk_once_get(path, "other", 3600000), 1, "removed, and no check due: ready");
    is_int(flk_once_get(path, "other", 0), 0, "checked: not ready");
    ok(symlink("/dev/null", path) == 0, "a link in its place");
    is_int(flk_once_get(path, NULL, 0), 1, "is there when it leads somewhere");
    unlink(path);
    ok(symlink("nowhere", path) == 0, "a link that leads nowhere");
    is_int(flk_once_get(path, NULL, 0), 0, "isn't");
}

/* ---- built ---- */

static int builds;

static int build(const char *path, void *data)
{
    builds++;
    test_write_file(path, data);
    return 0;
}

static void built(void)
{
    const char *path = test_path("built");
    struct flk_once_spec spec = {.output = path, .key = "one", .build = build, .data = (void *)(uintptr_t)"first"};
    is_int(flk_once(&spec, 0), 0, "flk_once() builds");
    ok(fk_ready_get(path, "one", 0), "which is remembered");
    is_int(flk_once(&spec, 0), 0, "asked again");
    is_int(builds, 1, "it isn't built again");
    test_write_file(path, "changed");
    is_int(flk_once(&spec, 0), 0, "when somebody has changed it");
    is_int(builds, 2, "it is");
    spec.key = "two";
    is_int(flk_once(&spec, 0), 0, "for another key");
    is_int(builds, 3, "too");
    ok(flk_once_get(path, "two", -1) && !flk_once_get(path, "one", -1), "and then it is ready for that one only");
    spec.flags = FLK_ONCE_FORCE;
    is_int(flk_once(&spec, 0), 0, "forced");
    is_int(builds, 4, "it is built, whatever is remembered");
}

/* ---- how many ---- */

static void bounded(void)
{
    int known = 0, last = 0, many = 3 * FK_READY_MOST;
    struct fk_identity identity = identity_of(tap_directory());
    for (int i = 0; i < many; i++)
        fk_ready_put(test_path("bounded/%d", i), NULL, &identity);
    for (int i = 0; i < many; i++) {
        bool ready = fk_ready_get(test_path("bounded/%d", i), NULL, -1);
        known += ready;
        last += ready && i >= many - FK_READY_MOST;
    }
    is_int(known, FK_READY_MOST, "of %d outputs so many are known", many);
    is_int(last, FK_READY_MOST, "the last ones");
}

/* ---- forks ---- */

static int use_all(void *path)
{
    struct fk_identity identity = identity_of(path);
    fk_registry_enter();
    bool had = fk_ready_get(path, "key", 0);
    for (int i = 0; i < 200; i++)
        fk_ready_put(path, "child's", &identity);
    return !fk_ready_get(path, "child's", -1) ? 2 : had ? 0 : 1;
}

static void forks(void)
{
    const char *path = put("forks", "key");
    is_int(test_in_child(use_all, (void *)(uintptr_t)path), 0, "a forked child knows what its parent knew, and may change it");
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        syscall(SYS_exit_group, use_all((void *)(uintptr_t)path));
    is_int(test_reap((pid_t)pid), 1, "one made by a raw clone begins with nothing");
    ok(fk_ready_get(path, "key", 0), "the parent's own is as it was");
}

/* ---- threads ---- */

#define THREADS 4
#define OUTPUTS 8
static const char *paths[OUTPUTS];
static _Atomic bool enough;
static _Atomic unsigned turns, wrong;

static void *change_all(void *data)
{
    struct fk_identity identity = identity_of(tap_directory());
    for (unsigned i = (unsigned)(uintptr_t)data; !atomic_load(&enough); i++) {
        const char *path = paths[i % OUTPUTS];
        fk_ready_put(path, path == paths[0] ? NULL : i % 3 ? "a key" : "another key", &identity);
    }
    return NULL;
}

static void *read_all(void *data)
{
    for (unsigned i = (unsigned)(uintptr_t)data; !atomic_load(&enough); i++) {
        if (!fk_ready_get(paths[0], NULL, -1) || fk_ready_get(paths[i % OUTPUTS], "no key of it", -1))
            atomic_fetch_add(&wrong, 1);
        (void)fk_ready_get(paths[i % OUTPUTS], "a key", 3600000);
        (void)fk_ready_get(paths[i % OUTPUTS], "another key", 0);
        atomic_fetch_add(&turns, 1);
    }
    return NULL;
}

static void threads_and_forks(void)
{
    pthread_t threads[THREADS];
    int forks_made = test_is_slow() ? 20 : 100, failed = 0;
    for (int i = 0; i < OUTPUTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "threads%d", i);
        paths[i] = strdup(put(name, i ? "a key" : NULL));
    }
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, i % 2 ? change_all : read_all, (void *)i) != 0)
            bail_out("no thread");
    for (int i = 0; i < forks_made; i++) {
        unsigned seen = atomic_load(&turns);
        while (atomic_load(&turns) < seen + 100)
            sched_yield();
        pid_t pid = tap_fork();
        if (pid == 0)
            _exit(fk_ready_get(paths[0], NULL, -1) ? 0 : 1);
        failed += test_reap(pid) != 0;
    }
    atomic_store(&enough, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int((int)wrong, 0, "an output that others enter again and again is ready all the time, for its own keys only");
    is_int(failed, 0, "and in each of %d children forked meanwhile", forks_made);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 120 : 30);
    test_root();
    fk_registry_enter();
    keys();
    changes();
    interval();
    no_system_call();
    is_int(test_in_child(relative_paths, NULL), 0, "a relative output is the one in the working directory of the moment");
    from_disk();
    built();
    bounded();
    forks();
    threads_and_forks();
    return done_testing();
}
