/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a host program does to the library: children of every kind, at any moment; 64 threads or processes on one lock;
 * small stacks; signals all the time; clocks that jump. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "queue.h"
#include "registry.h"
#include "tap.h"

static struct flk_hold *acquire(const char *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

/* ---- children ---- */

static int uses_library(void)
{
    struct flk_hold *hold;
    if (flk_held("children") != 0 || flk_acquire("children", 0, 0, &hold) != -EBUSY)
        return 1;
    if (flk_acquire("of-its-own", 0, 0, &hold) < 0)
        return 2;
    flk_hold_release(hold);
    return 0;
}

static const char has_none_of_ours[] = "! ls -l /proc/$$/fd | grep -q /rows/";

static void spawned(void)
{
    const char *const argv[] = {"sh", "-c", has_none_of_ours, NULL};
    struct flk_hold *hold = acquire("children");
    pid_t pid;
    if (posix_spawnp(&pid, "sh", NULL, NULL, (char *const *)argv, environ) != 0)
        bail_out("posix_spawn");
    is_int(test_reap(pid), 0, "what posix_spawn() starts has none of our descriptors");
    flk_hold_release(hold);
}

/* The child shares our memory and has copies of our descriptors, until it executes something. */
static void vforked(void)
{
    struct flk_hold *hold = acquire("children");
    volatile int calls = 0;
    pid_t pid = vfork();
    if (pid == 0) {
        calls = calls + 1;
        execlp("sh", "sh", "-c", has_none_of_ours, (char *)NULL);
        _exit(99);
    }
    is_int(test_reap(pid), 0, "nor has what is executed after vfork()");
    is_int(flk_held("children"), 2, "and the parent has what it had");
    pid = vfork();
    if (pid == 0)
        _exit(5);
    is_int(test_reap(pid), 5, "a child of vfork() may _exit()");
    is_int(flk_held("children"), 2, "which releases nothing");
    flk_hold_release(hold);
}

static void cloned(void)
{
    struct flk_hold *hold = acquire("children");
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        syscall(SYS_exit_group, uses_library());
    is_int(test_reap((pid_t)pid), 0, "a child of clone3() has nothing of its parent's and uses the library");
    pid = _Fork();
    if (pid == 0)
        _exit(uses_library());
    is_int(test_reap((pid_t)pid), 0, "so does one of _Fork(), which runs no handlers");
    is_int(flk_held("children"), 2, "and the parent has what it had");
    flk_hold_release(hold);
}

static int exit_holding(void *how)
{
    acquire("exit");
    if (how)
        exit(3);
    _exit(3);
}

static void exits(void)
{
    for (int how = 0; how < 2; how++) {
        pid_t pid = tap_fork();
        if (pid == 0)
            exit_holding(how ? &how : NULL);
        is_int(test_reap(pid), 3, "a holder ends by %s()", how ? "exit" : "_exit");
        struct flk_hold *hold = acquire("exit");
        is_int(flk_hold_abandoned(hold), 1, "it is free at once, and the next one is told");
        flk_hold_release(hold);
    }
    struct flk_hold *hold = acquire("exit");
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(0);
    test_reap(pid);
    is_int(flk_held("exit"), 2, "a forked child that _exits has released nothing of its parent's");
    struct flk_hold *again;
    is_int(flk_acquire("exit", 0, 0, &again), -EBUSY, "in the kernel neither");
    flk_hold_release(hold);
}

/* ---- forks amid all that a program does ---- */

#define HIGHEST 1024
static bool known_descriptors[HIGHEST];

/* Without malloc(), whose locks the sanitizers don't mend in a child. */
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
static _Atomic unsigned failures, turns[5];

static void check(int code)
{
    if (code < 0 && atomic_fetch_add(&failures, 1) == 0)
        diag("%s", flk_error_detail());
}

static void *wait_and_release(void *data)
{
    while (!enough) {
        struct flk_hold *hold = NULL;
        check(flk_acquire("busy", 0, FLK_FOREVER, &hold));
        flk_hold_release(hold);
        atomic_fetch_add((_Atomic unsigned *)data, 1);
    }
    return NULL;
}

static void *step_requests(void *data)
{
    while (!enough) {
        struct flk_request *request;
        struct flk_hold *hold = NULL;
        int code = flk_request_start(&(struct flk_want){.name = "busy"}, 1, NULL, FLK_FOREVER, &request);
        int fd = code < 0 ? code : flk_request_fd(request);
        while (fd >= 0 && (code = flk_request_step(request, &hold)) == -EAGAIN)
            test_readable(fd, 10000);
        check(code);
        flk_request_cancel(request);
        flk_hold_release(hold);
        atomic_fetch_add((_Atomic unsigned *)data, 1);
    }
    return NULL;
}

static void *use_new_rows(void *data)
{
    for (unsigned i = 0; !enough; i++) {
        char name[32];
        struct flk_hold *hold = NULL;
        snprintf(name, sizeof name, "fresh%u", i % 20);
        check(flk_acquire(name, i % 2 ? FLK_SHARED : 0, FLK_FOREVER, &hold));
        flk_hold_release(hold);
        check(flk_row_remove(name, FLK_FOREVER));
        atomic_fetch_add((_Atomic unsigned *)data, 1);
    }
    return NULL;
}

static void *run_commands(void *data)
{
    static const char *const argv[] = {"true", NULL};
    while (!enough) {
        struct flk_run_result result;
        struct flk_hold *hold = NULL;
        check(flk_acquire("run", 0, FLK_FOREVER, &hold));
        check(flk_run(&(struct flk_run_spec){.argv = argv, .hold = hold}, &result));
        flk_hold_release(hold);
        atomic_fetch_add((_Atomic unsigned *)data, 1);
    }
    return NULL;
}

static void *look_on(void *data)
{
    while (!enough) {
        struct flk_row **rows;
        const char *const names[] = {"busy", "run", NULL};
        int code = flk_inspect(names, &rows);
        check(code);
        if (code >= 0)
            flk_inspect_free(rows);
        for (unsigned i = 0; i < 1000; i++) {
            char name[32];
            snprintf(name, sizeof name, "fresh%u", i % 20); /* which come and go */
            check(flk_held(name));
        }
        atomic_fetch_add((_Atomic unsigned *)data, 1);
    }
    return NULL;
}

static int use_in_child(void)
{
    struct flk_hold *hold;
    if (flk_acquire("childs-own", 0, 0, &hold) < 0)
        return 101;
    flk_hold_release(hold);
    return 0;
}

static bool all_went_on(const unsigned seen[5])
{
    bool all = true;
    for (int i = 0; i < 5; i++)
        all = all && turns[i] != seen[i];
    return all;
}

/* The forks come as fast as they can, and the threads must not be kept from working by that. */
static void fork_amid_everything(void)
{
    void *(*const work[5])(void *) = {wait_and_release, step_requests, use_new_rows, run_commands, look_on};
    pthread_t threads[5];
    unsigned seen[5];
    int leaks = 0, unusable = 0, forks = 0, least = test_is_slow() ? 50 : 200;
    if (flk_root_set(NULL) < 0)
        bail_out("%s", flk_error_detail());
    look_at_descriptors(true);
    for (int i = 0; i < 5; i++)
        test_start(&threads[i], work[i], (void *)&turns[i]);
    for (int i = 0; i < 5; i++)
        seen[i] = turns[i];
    for (; forks < least || !all_went_on(seen); forks++) {
        pid_t pid = tap_fork();
        if (pid == 0)
            _exit(look_at_descriptors(false) ? 100 : forks % 4 == 0 && test_child_may_allocate() ? use_in_child() : 0);
        int status = test_reap(pid);
        leaks += status == 100;
        unusable += status != 0 && status != 100;
    }
    enough = true;
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    is_int(leaks, 0,
           "children forked while others wait, step, make and remove rows, run and inspect have no descriptor of ours");
    is_int(unusable, 0, "and can use the library at once");
    is_int(failures, 0, "the threads go on beside a fork bomb");
    diag("%d forks beside %u waits, %u requests, %u rows, %u runs, %u looks", forks, turns[0], turns[1], turns[2],
         turns[3], turns[4]);
}

static void fork_in_callback(const struct flk_waiting *waiting, void *data)
{
    (void)waiting;
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(use_in_child());
    *(int *)data = test_reap(pid);
}

static void forked_in_callback(void)
{
    struct flk_hold *holder = acquire("callback"), *hold;
    int result = -1;
    struct flk_request *request;
    if (flk_request_start(&(struct flk_want){.name = "callback"}, 1,
                          &(struct flk_options){.waiting = fork_in_callback, .data = &result}, FLK_FOREVER,
                          &request) < 0)
        bail_out("%s", flk_error_detail());
    int fd = flk_request_fd(request);
    while (result < 0 && flk_request_step(request, &hold) == -EAGAIN)
        test_readable(fd, 10000);
    is_int(result, 0, "a waiter's callback may fork");
    flk_request_cancel(request);
    flk_hold_release(holder);
}

/* ---- fair, whatever the 64 are ---- */

#define CROWD 64

struct crowd {
    _Atomic unsigned next;
    unsigned order[CROWD];
};
static struct crowd *crowd;

static void *stand_in_line(void *number)
{
    struct flk_hold *hold;
    if (flk_acquire("line", 0, FLK_FOREVER, &hold) < 0)
        return NULL;
    crowd->order[atomic_fetch_add(&crowd->next, 1)] = *(unsigned *)number;
    flk_hold_release(hold);
    return number;
}

/* A process of so many threads, each of which is started when told. */
static void be_process(int commands, unsigned first, unsigned step, unsigned n)
{
    pthread_t threads[CROWD];
    unsigned numbers[CROWD];
    char byte;
    for (unsigned i = 0; i < n; i++) {
        numbers[i] = first + i * step;
        if (read(commands, &byte, 1) != 1 || pthread_create(&threads[i], NULL, stand_in_line, &numbers[i]) != 0)
            _exit(1);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    _exit(0);
}

/* One after the other gets in line, now of this process, now of that. */
static void served_in_order(unsigned processes)
{
    int pipes[CROWD][2];
    pid_t pids[CROWD];
    unsigned wrong = 0;
    struct flk_hold *hold = acquire("line");
    atomic_store(&crowd->next, 0);
    for (unsigned p = 0; p < processes; p++) {
        if (pipe2(pipes[p], O_CLOEXEC) < 0)
            bail_out("pipe");
        pids[p] = tap_fork();
        if (pids[p] == 0)
            be_process(pipes[p][0], p, processes, CROWD / processes);
    }
    for (unsigned i = 0; i < CROWD; i++) {
        if (write(pipes[i % processes][1], "g", 1) != 1)
            bail_out("write");
        test_wait_queued("line", (int)i + 1);
    }
    flk_hold_release(hold);
    for (unsigned p = 0; p < processes; p++) {
        wrong += test_reap(pids[p]) != 0;
        close(pipes[p][0]);
        close(pipes[p][1]);
    }
    for (unsigned i = 0; i < CROWD; i++)
        wrong += crowd->order[i] != i;
    is_int(wrong, 0, "%u processes of %u threads are served in the order in which they queued", processes,
           CROWD / processes);
}

/* Everybody again and again: how many are served between one's getting in line and one's turn. At most all others, and
 * who has it just then. */
struct churn {
    _Atomic unsigned served, worst, failures;
};
static struct churn *churn;

/* When this thread got its ticket: the linker puts this between the library's modules. */
static _Thread_local unsigned served_before;
int __real_fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket);
int __wrap_fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket);
int __wrap_fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket)
{
    int code = __real_fk_queue_enter(section, record, length, ticket);
    served_before = churn->served;
    return code;
}

static void *again_and_again(void *rounds)
{
    for (int i = *(int *)rounds; i > 0; i--) {
        struct flk_hold *hold;
        served_before = UINT_MAX;
        if (flk_acquire("churn", 0, FLK_FOREVER, &hold) < 0) {
            atomic_fetch_add(&churn->failures, 1);
            continue;
        }
        unsigned before = served_before, now = churn->served, worst = churn->worst;
        while (now > before && now - before > worst &&
               !atomic_compare_exchange_weak(&churn->worst, &worst, now - before))
            ;
        atomic_fetch_add(&churn->served, 1);
        flk_hold_release(hold);
    }
    return NULL;
}

static void nobody_starves(unsigned processes)
{
    pid_t pids[CROWD];
    int rounds = test_is_slow() ? 3 : 10, wrong = 0;
    struct flk_hold *hold = acquire("churn");
    *churn = (struct churn){0};
    for (unsigned p = 0; p < processes; p++) {
        pids[p] = tap_fork();
        if (pids[p] != 0)
            continue;
        pthread_t threads[CROWD];
        for (unsigned i = 0; i < CROWD / processes; i++)
            if (pthread_create(&threads[i], NULL, again_and_again, &rounds) != 0)
                _exit(1);
        for (unsigned i = 0; i < CROWD / processes; i++)
            pthread_join(threads[i], NULL);
        _exit(0);
    }
    test_wait_queued("churn", CROWD);
    flk_hold_release(hold);
    for (unsigned p = 0; p < processes; p++)
        wrong += test_reap(pids[p]) != 0;
    is_int(wrong + (int)churn->failures, 0, "%u processes of %u threads come again and again", processes,
           CROWD / processes);
    is_int(churn->served, (unsigned)rounds * CROWD, "all are served each time");
    ok(churn->worst >= CROWD - 1 && churn->worst <= CROWD, "and nobody waits for more than those before it (%u)",
       churn->worst);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 300 : 100);
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    crowd = test_shared(sizeof *crowd);
    churn = test_shared(sizeof *churn);
    spawned();
    vforked();
    cloned();
    exits();
    forked_in_callback();
    fork_amid_everything();
    for (unsigned processes = 1; processes <= CROWD; processes *= 8) {
        served_in_order(processes);
        nobody_starves(processes);
    }
    return done_testing();
}
