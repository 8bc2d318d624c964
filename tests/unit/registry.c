/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "registry.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "hold.h"
#include "tap.h"

static struct flk_hold *acquire(const char *name, unsigned flags)
{
    struct flk_hold *hold;
    if (flk_acquire(name, flags, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

/* ---- what is held ---- */

static void held(void)
{
    is_int(flk_held("never"), 0, "a name never used isn't held");
    struct flk_hold *a = acquire("held", FLK_SHARED);
    is_int(flk_held("held"), 1, "shared: 1");
    struct flk_hold *b = acquire("held", FLK_SHARED);
    flk_hold_release(a);
    is_int(flk_held("held"), 1, "one of two shared ones is left: still 1");
    flk_hold_release(b);
    is_int(flk_held("held"), 0, "none: 0");
    a = acquire("held", 0);
    is_int(flk_held("held"), 2, "exclusive: 2");
    is_int(flk_held("hel"), 0, "names are compared whole");
    flk_hold_release(a);
    is_int(flk_held("held"), 0, "released: 0");
    if (flk_row_define("semaphore", 2) < 0)
        bail_out("%s", flk_error_detail());
    a = acquire("semaphore", 0);
    b = acquire("semaphore", 0);
    flk_hold_release(a);
    is_int(flk_held("semaphore"), 2, "one slot of a semaphore is left: 2");
    flk_hold_release(b);
    is_int(flk_held("semaphore"), 0, "none: 0");
}

static void held_of_another_row(void)
{
    struct flk_hold *hold = acquire("replaced", 0);
    if (rename(test_path("root/rows/replaced"), test_path("elsewhere")) < 0)
        bail_out("rename");
    struct flk_hold *fresh = acquire("replaced", 0);
    is_int(flk_held("replaced"), 2, "two rows of one name, one after the other: 2");
    flk_hold_release(hold);
    is_int(flk_held("replaced"), 2, "still, when the older hold has ended");
    flk_hold_release(fresh);
    is_int(flk_held("replaced"), 0, "until both have");
}

/* ---- idle rows ---- */

static int use_500_names(void *data)
{
    int before = test_descriptors(), most = 0;
    struct rlimit limit;
    (void)data;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    limit.rlim_cur = (rlim_t)before + 64;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    for (int i = 0; i < 1000; i++) {
        char name[32];
        struct flk_hold *hold;
        snprintf(name, sizeof name, "name%d", i % 500);
        if (flk_acquire(name, 0, 0, &hold) < 0) {
            diag("%s", flk_error_detail());
            return 2;
        }
        flk_hold_release(hold);
        int now = test_descriptors() - before;
        most = now > most ? now : most;
    }
    return most <= 64 / 4 + before / 4 + 8 ? 0 : 3;
}

static void many_names(void)
{
    is_int(test_in_child(use_500_names, NULL), 0, "500 names and 64 descriptors: the longest idle rows are closed");
    struct flk_hold *holds[40];
    char name[32];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "name%d", i);
        holds[i] = acquire(name, 0);
    }
    int wrong = 0;
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "name%d", i);
        wrong += flk_held(name) != 2;
        flk_hold_release(holds[i]);
    }
    is_int(wrong, 0, "each of 40 that are held is known");
}

/* ---- fork ---- */

#define HIGHEST 512
static bool known_descriptors[HIGHEST];

/* Marks those that are open, or counts those that weren't then. Without malloc(), whose locks the sanitizers don't mend
 * in a child that was forked while another thread had them. */
static int look_at_descriptors(bool mark)
{
    int extra = 0;
    for (int fd = 0; fd < HIGHEST; fd++) {
        bool is_open = fcntl(fd, F_GETFD) >= 0;
        if (mark)
            known_descriptors[fd] = is_open;
        extra += is_open && !known_descriptors[fd];
    }
    return extra;
}

static _Atomic bool enough;
static _Atomic unsigned failures, turns;

static void *acquire_in_a_loop(void *data)
{
    static const char *const names[] = {"loop0", "loop1", "loop2"};
    for (unsigned i = (unsigned)(uintptr_t)data; !atomic_load(&enough); i++) {
        struct flk_hold *hold;
        if (flk_acquire(names[i % 3], i % 5 == 0 ? FLK_SHARED : 0, FLK_FOREVER, &hold) < 0)
            atomic_fetch_add(&failures, 1);
        else
            flk_hold_release(hold);
        atomic_fetch_add(&turns, 1);
    }
    return NULL;
}

static void fork_amid_threads(void)
{
    pthread_t threads[4];
    int leaks = 0, forks = test_is_slow() ? 100 : 300;
    if (flk_root_set(NULL) < 0) /* closes the idle ones */
        bail_out("%s", flk_error_detail());
    look_at_descriptors(true);
    for (uintptr_t i = 0; i < 4; i++)
        test_start(&threads[i], acquire_in_a_loop, (void *)i);
    for (int i = 0; i < forks; i++) {
        unsigned seen = atomic_load(&turns);
        while (atomic_load(&turns) == seen)
            sched_yield();
        pid_t pid = tap_fork();
        if (pid == 0)
            _exit(look_at_descriptors(false));
        leaks += test_reap(pid) != 0;
    }
    atomic_store(&enough, true);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    is_int(leaks, 0, "%d children forked while four threads acquire have no descriptor of ours", forks);
    is_int((int)failures, 0, "and the threads go on");
}

static int use_at_once(void *data)
{
    struct flk_hold *hold;
    if (flk_held("parents") != 0)
        return 1;
    if (flk_acquire("parents", 0, 0, &hold) != -EBUSY)
        return 2;
    if (flk_acquire("childs", 0, 0, &hold) < 0 || flk_held("childs") != 2)
        return 3;
    flk_hold_release(hold);
    flk_hold_release(data);
    return flk_acquire("parents", 0, 0, &hold) == -EBUSY ? 0 : 4;
}

static void children(void)
{
    struct flk_hold *hold = acquire("parents", 0);
    is_int(test_in_child(use_at_once, hold), 0,
           "a forked child has nothing of its parent's and can use the library at once");
    is_int(flk_held("parents"), 2, "and the parent keeps what it has");
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        syscall(SYS_exit_group, use_at_once(hold));
    is_int(test_reap((pid_t)pid), 0, "the same goes for a raw clone, which no fork handler sees");
    is_int(flk_held("parents"), 2, "and for its parent");
    pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        pause();
        syscall(SYS_exit_group, 0);
    }
    flk_hold_release(hold);
    hold = acquire("parents", 0);
    ok(hold != NULL, "a raw clone that never calls us doesn't keep what its parent releases");
    flk_hold_release(hold);
    kill((pid_t)pid, SIGKILL);
    test_reap((pid_t)pid);
}

static int grandchild(void *data)
{
    struct flk_hold *hold = acquire("generation2", 0);
    int status = test_in_child(use_at_once, data);
    flk_hold_release(hold);
    return status;
}

static void grandchildren(void)
{
    struct flk_hold *hold = acquire("parents", 0);
    is_int(test_in_child(grandchild, hold), 0, "and for a child's child");
    flk_hold_release(hold);
}

/* What was half-done in the threads of the original is nobody's to finish. */
static void unseen_child_forks(void)
{
    struct flk_hold *hold = acquire("parents", 0);
    fk_registry_lock();
    pid_t pid = _Fork();
    if (pid == 0) {
        alarm(20);
        _exit(test_in_child(use_at_once, hold));
    }
    fk_registry_unlock();
    is_int(test_reap(pid), 0, "a child of _Fork(), made while a thread was amid a call of ours, may fork at once");
    flk_hold_release(hold);
}

/* ---- a fork amid the registration of the fork handlers: the linker puts this before libc's ---- */

static void (*amid_registration)(void);
int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    void (*act)(void) = amid_registration;
    int code = __real_pthread_atfork(prepare, parent, child);
    amid_registration = NULL;
    if (act)
        act();
    return code;
}

static int forks_later(void)
{
    flk_hold_release(acquire("early", 0));
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return test_reap(pid);
}

static int early_status = -1;

static void *fork_early(void *unused)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(forks_later());
    int fd = pidfd_open(pid, 0);
    if (!test_readable(fd, 20000))
        kill(pid, SIGKILL);
    close(fd);
    early_status = test_reap(pid);
    return unused;
}

static void fork_in_thread(void)
{
    pthread_t thread;
    test_start(&thread, fork_early, NULL);
    pthread_join(thread, NULL);
}

/* ThreadSanitizer's pthread_once(), unlike libc's, doesn't begin anew in a child forked amid it. */
#ifdef __SANITIZE_THREAD__
static const bool once_begins_anew = false;
#else
static const bool once_begins_anew = true;
#endif

static int forked_early(void *unused)
{
    (void)unused;
    amid_registration = fork_in_thread;
    flk_hold_release(acquire("first", 0));
    return early_status;
}

/* ---- threads ---- */

static unsigned counter; /* not atomic on purpose: the lock guards it */

static void *count_up(void *data)
{
    int rounds = *(int *)data;
    for (int i = 0; i < rounds; i++) {
        struct flk_hold *hold;
        if (flk_acquire("counter", 0, FLK_FOREVER, &hold) < 0) {
            atomic_fetch_add(&failures, 1);
            continue;
        }
        counter++;
        if (flk_held("counter") != 2)
            atomic_fetch_add(&failures, 1);
        flk_hold_release(hold);
    }
    return NULL;
}

static void threads_exclude_each_other(void)
{
    pthread_t threads[8];
    int rounds = test_is_slow() ? 200 : 1000;
    atomic_store(&failures, 0);
    for (int i = 0; i < 8; i++)
        test_start(&threads[i], count_up, &rounds);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    is_int((int)failures, 0, "8 threads acquire and release %d times each", rounds);
    is_int((int)counter, 8 * rounds, "and no increment of a plain counter is lost");
}

static void handed_over(void)
{
    struct flk_hold *hold = acquire("handed", 0);
    pthread_t thread;
    test_start(&thread, (void *(*)(void *))(void (*)(void))flk_hold_release, hold);
    pthread_join(thread, NULL);
    is_int(flk_held("handed"), 0, "another thread may release");
}

static void look_at_part(const struct fk_part *part, bool own, void *data)
{
    unsigned *seen = data;
    *seen += strcmp(part->name, "whose") == 0 ? own ? 100 : 1 : 0;
}

static void *acquire_whose(void *data)
{
    if (flk_acquire("whose", 0, 0, data) < 0)
        bail_out("%s", flk_error_detail());
    return NULL;
}

static void whose_holds(void)
{
    struct flk_hold *ours, *others;
    pthread_t thread;
    unsigned seen = 0;
    if (flk_row_define("whose", 3) < 0 || flk_acquire("whose", 0, 0, &ours) < 0)
        bail_out("%s", flk_error_detail());
    if (pthread_create(&thread, NULL, acquire_whose, &others) != 0 || pthread_join(thread, NULL) != 0)
        bail_out("no thread");
    fk_registry_foreach(look_at_part, &seen);
    is_int(seen, 101, "two holds, one that this thread got and one of another");
    is_int(fk_registry_own(ours->parts[0].row), 1, "one slot is this thread's");
    flk_hold_release(ours);
    is_int(fk_registry_own(others->parts[0].row), 0, "and then none");
    flk_hold_release(others);
    seen = 0;
    fk_registry_foreach(look_at_part, &seen);
    is_int(seen, 0, "released, there are none");
}

struct walk {
    char names[64];
    int stop_after;
    struct flk_hold *release; /* when it is met */
};

static int see(const struct flk_hold *hold, void *data)
{
    struct walk *walk = data;
    if (hold == walk->release)
        flk_hold_release(walk->release);
    strcat(strcat(walk->names, flk_hold_name(hold, 0)), " ");
    return --walk->stop_after == 0 ? 7 : 0;
}

static int walk_in_child(void *data)
{
    struct walk walk = {.names = ""};
    struct flk_hold *own;
    (void)data;
    if (flk_acquire("w-child", 0, 0, &own) < 0 || flk_hold_foreach(see, &walk) != 0)
        return 1;
    return strcmp(walk.names, "w-child ") == 0 ? 0 : 2;
}

static void walk_over_holds(void)
{
    struct walk walk = {.names = ""};
    is_int(flk_hold_foreach(see, &walk), 0, "with no hold there is nothing to see");
    struct flk_hold *a = acquire("w-a", 0), *b = acquire("w-b", FLK_SHARED), *c = acquire("w-c", 0);
    is_int(flk_hold_foreach(see, &walk), 0, "all holds are seen");
    is_str(walk.names, "w-a w-b w-c ", "the oldest first");
    walk = (struct walk){.stop_after = 2};
    is_int(flk_hold_foreach(see, &walk), 7, "until one says stop, which is the result");
    is_str(walk.names, "w-a w-b ", "and then no more");
    walk = (struct walk){.release = b};
    is_int(flk_hold_foreach(see, &walk), 0, "one that is released while it is looked at");
    is_str(walk.names, "w-a w-b w-c ", "can still be read");
    is_int(flk_held("w-b"), 0, "but isn't held");
    is_int(test_in_child(walk_in_child, NULL), 0, "a forked child sees its own holds alone");
    flk_hold_release(a);
    walk = (struct walk){.names = ""};
    flk_hold_foreach(see, &walk);
    is_str(walk.names, "w-c ", "what was released isn't seen");
    flk_hold_release(c);
}

static int look_at_released(const struct flk_hold *hold, void *data)
{
    char **envp;
    flk_hold_release(data);
    if (flk_row_remove("w-pool", 0) < 0 || flk_hold_environ(hold, &envp) < 0)
        return 1;
    free(envp);
    const char *value = flk_hold_value(hold, 0, 0);
    return value && strcmp(value, "one") == 0 ? 0 : 2;
}

/* Its row is gone, and what was freed is overwritten. */
static int walk_over_released(void *unused)
{
    static const char *const values[] = {"one"};
    struct flk_hold *hold;
    (void)unused;
    mallopt(M_PERTURB, 0xa5);
    if (flk_pool_define("w-pool", &(struct flk_pool){.values = values, .n_values = 1}) < 0)
        return 3;
    hold = acquire("w-pool", 0);
    return flk_hold_foreach(look_at_released, hold);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 120 : 60);
    test_root();
    if (once_begins_anew)
        is_int(test_in_child(forked_early, NULL), 0,
               "a child forked while another thread registers our fork handlers can use the library, and fork");
    else
        skip("ThreadSanitizer's pthread_once() doesn't survive a fork");
    many_names();
    held();
    held_of_another_row();
    children();
    grandchildren();
    unseen_child_forks();
    fork_amid_threads();
    threads_exclude_each_other();
    handed_over();
    whose_holds();
    walk_over_holds();
    is_int(test_in_child(walk_over_released, NULL), 0, "one of a pool that is removed meanwhile, too");
    return done_testing();
}
