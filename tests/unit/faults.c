/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a host or its machine runs out of, and what goes on around it: descriptors, processes, stacks, pages of pipes;
 * signals all the time, clocks that are set, processes that are stopped. Nothing is left behind, and deadlines hold. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "tap.h"

#define LOCKER(...)                                                   \
    {                                                                 \
        .timeout_ms = FLK_FOREVER, .wants = { {__VA_ARGS__} } \
    }

static struct flk_hold *acquire(const char *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

static int run_true(struct flk_hold *hold)
{
    static const char *const argv[] = {"true", NULL};
    struct flk_run_result result;
    return flk_run(&(struct flk_run_spec){.argv = argv, .hold = hold}, &result);
}

/* ---- signals all the time ---- */

static _Atomic unsigned signals;

static void count_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

static timer_t start_signals(int flags)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = flags};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec often = {{.tv_nsec = 100000}, {.tv_nsec = 100000}};
    timer_t timer;
    sigaction(SIGRTMIN, &action, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0 || timer_settime(timer, 0, &often, NULL) < 0)
        bail_out("no timer");
    return timer;
}

static _Atomic bool enough;

static void *acquire_in_a_loop(void *data)
{
    while (!enough) {
        struct flk_hold *hold = NULL;
        if (flk_acquire("signals", 0, FLK_FOREVER, &hold) < 0)
            atomic_fetch_add((_Atomic unsigned *)data, 1);
        flk_hold_release(hold);
    }
    return NULL;
}

static int use_everything(void)
{
    const struct flk_want wants[] = {{.name = "signals5", .count = FLK_ALL}, {.name = "signals"}};
    struct flk_hold *hold, *other;
    struct flk_row **rows;
    int code = flk_acquire_many(wants, 2, NULL, FLK_FOREVER, &hold);
    if (code < 0)
        return code;
    for (int i = 0; code == 0 && i < 500; i++) /* a poll that doesn't sleep is interrupted seldom */
        code = flk_acquire("signals5", 0, 0, &other) == -EBUSY ? 0 : -EINTR;
    flk_hold_release(hold);
    if (code == 0)
        code = flk_row_define("of-signals", 3);
    if (code == 0)
        code = flk_row_remove("of-signals", FLK_FOREVER);
    if (code == 0)
        code = flk_inspect(NULL, &rows);
    if (code < 0)
        return code;
    flk_inspect_free(rows);
    return 0;
}

static void by_signals(int flags, const char *what)
{
    _Atomic unsigned failures = 0;
    pthread_t threads[2];
    struct flk_hold *held = acquire("held-by-us"), *hold;
    int wrong = 0;
    define("signals5", 5);
    enough = false;
    atomic_store(&signals, 0);
    timer_t timer = start_signals(flags);
    for (int i = 0; i < 2; i++)
        test_start(&threads[i], acquire_in_a_loop, &failures);
    for (int i = 0; i < (test_is_slow() ? 5 : 15); i++) {
        int code = use_everything();
        if (code < 0 && wrong++ == 0)
            diag("%s", flk_error_detail());
    }
    for (int i = 0; i < 2; i++)
        wrong += run_true(held) < 0;
    enough = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    struct locker locker = LOCKER(.name = "signals");
    locker_start(&locker);
    locker_wait(&locker);
    int64_t before = fk_now();
    is_int(flk_acquire("signals", 0, 60, &hold), -ETIMEDOUT, "signals %s: a deadline holds", what);
    ok(fk_now() - before >= 60 * FK_MS, "it isn't over early");
    locker_release(&locker);
    timer_delete(timer);
    is_int(wrong + (int)failures, 0, "every call works under signals that come all the time (%u)", signals);
    ok(signals > 10, "which did come");
    flk_hold_release(held);
}

/* ---- RLIMIT_NOFILE ---- */

static void limit_files(rlim_t soft)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = soft;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        _exit(90);
}

/* All below `first` are in use, so that a limit is a number of descriptors. */
static rlim_t fill_holes(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && fd < 64);
    return (rlim_t)fd + 1;
}

static int count_open(rlim_t from, rlim_t to)
{
    int count = 0;
    for (rlim_t fd = from; fd < to; fd++)
        count += fcntl((int)fd, F_GETFD) >= 0;
    return count;
}

static int by_request(const char *name, struct flk_hold **hold)
{
    struct flk_request *request;
    int code = flk_request_start(&(struct flk_want){.name = name}, 1, NULL, 20, &request);
    if (code < 0)
        return code;
    int fd = flk_request_fd(request);
    code = fd < 0 ? fd : flk_request_step(request, hold);
    while (code == -EAGAIN) {
        test_readable(fd, 10000);
        code = flk_request_step(request, hold);
    }
    flk_request_cancel(request);
    return code;
}

enum { NEW, TAKEN, BY_REQUEST, WIDE, RUN, WAYS };

static int in_one_way(int way, unsigned extra, struct flk_hold **hold)
{
    char name[32];
    snprintf(name, sizeof name, "new%u", extra);
    switch (way) {
    case NEW:
        return flk_acquire(name, 0, 0, hold);
    case TAKEN:
        return flk_acquire("few-taken", 0, 5, hold);
    case BY_REQUEST:
        return by_request("few-taken", hold);
    case WIDE:
        return flk_acquire_many(&(struct flk_want){.name = "few-wide", .count = 9}, 1, NULL, 5, hold);
    default:
        return run_true(NULL);
    }
}

static bool is_clear(int code)
{
    return code == -EMFILE ? strstr(flk_error_detail(), "ulimit -n") != NULL
                           : code == 0 || code == -EBUSY || code == -ETIMEDOUT;
}

/* With 0, 1, 2... descriptors to spare. */
static int few_descriptors(void *data)
{
    unsigned refused = 0, served = 0;
    int way = *(int *)data;
    rlim_t first = fill_holes();
    int before = count_open(first, 1024);
    for (unsigned extra = 0; extra < 24; extra++) {
        struct flk_hold *hold = NULL;
        limit_files(first + extra);
        int code = in_one_way(way, extra, &hold);
        limit_files(1024);
        if (!is_clear(code)) {
            diag("with %u descriptors: %d, %s", extra, code, flk_error_detail());
            return 1;
        }
        refused += code == -EMFILE;
        served += code != -EMFILE;
        flk_hold_release(hold);
        if (flk_root_set(NULL) < 0 || count_open(first, 1024) > before)
            return 2;
    }
    return refused == 0 ? 3 : served == 0 ? 4 : 0;
}

static void descriptors(void)
{
    static const char *const what[WAYS] = {"acquires what is free", "waits", "waits by a request's descriptor",
                                           "wants nine slots", "runs a command"};
    struct locker holder = LOCKER(.name = "few-taken");
    define("few-wide", 9);
    if (locker_start(&holder) != 'h')
        bail_out("no holder");
    locker_wait(&holder);
    for (int way = 0; way < WAYS; way++)
        is_int(test_in_child(few_descriptors, &way), 0, "who %s is served or told of EMFILE, and loses none", what[way]);
    is_int(test_tickets("few-taken"), 0, "and leaves no ticket");
    locker_release(&holder);
}

static int acquire_one_more(void)
{
    struct flk_hold *hold;
    int code = flk_acquire("one-more", 0, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return code;
}

static int poll_for_one_more(void)
{
    struct flk_request *request;
    int code = flk_request_start(&(struct flk_want){.name = "one-more"}, 1, NULL, 0, &request);
    if (code < 0)
        return code;
    code = flk_request_fd(request);
    flk_request_cancel(request);
    return code < 0 ? code : 0;
}

static int run_one_more(void)
{
    return run_true(NULL);
}

/* The host's own limit, lowered when names are idle: what we keep for later gives way. */
static int used_up(void *use)
{
    char name[32];
    limit_files(1024);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "idle%d", i);
        flk_hold_release(acquire(name));
    }
    rlim_t next = fill_holes();
    while (open("/dev/null", O_RDONLY | O_CLOEXEC) < 256)
        next++;
    limit_files(256);
    if ((*(int (**)(void))use)() == 0)
        return 0;
    diag("%s", flk_error_detail());
    return 1;
}

static void give_way(void)
{
    static const struct {
        int (*use)(void);
        const char *what;
    } uses[] = {{acquire_one_more, "another name"}, {poll_for_one_more, "flk_request_fd()"}, {run_one_more, "a command"}};
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        is_int(test_in_child(used_up, (void *)&uses[i].use), 0,
               "idle names give their descriptors back when the host has used up all others: %s", uses[i].what);
}

/* ---- RLIMIT_NPROC and the pages of a user's pipes, from which root is free ---- */

static char other_root[PATH_MAX];

static int no_processes(void *data)
{
    struct flk_hold *hold;
    (void)data;
    if (flk_root_set(other_root) < 0)
        return 9;
    int before = test_descriptors();
    if (setrlimit(RLIMIT_NPROC, &(struct rlimit){1, 1}) < 0)
        return 1;
    if (flk_acquire("poor", 0, 0, &hold) < 0) {
        diag("%s", flk_error_detail());
        return 2;
    }
    int code = run_true(hold);
    if (code != -EAGAIN || !strstr(flk_error_detail(), "process")) {
        diag("%d: %s", code, flk_error_detail());
        return 3;
    }
    flk_hold_release(hold);
    return flk_root_set(NULL) == 0 && test_descriptors() == before ? 0 : 4;
}

static void *wait_a_while(void *data)
{
    struct flk_hold *hold = NULL;
    *(int *)data = flk_acquire("paged", 0, 20000, &hold);
    flk_hold_release(hold);
    return NULL;
}

/* A pipe of one page or two is what is left then. */
static int no_pages(void *data)
{
    int pipes = 0, fds[2], waited = -1;
    struct flk_hold *hold;
    pthread_t thread;
    (void)data;
    if (flk_root_set(other_root) < 0)
        return 9;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    while (pipes < 1400 && pipe2(fds, O_CLOEXEC) == 0)
        pipes++;
    if (pipes < 1400 || fcntl(fds[0], F_GETPIPE_SZ) >= 65536)
        return 77; /* there is no such limit here */
    for (int i = 0; i < 200; i++) {
        if (flk_acquire("paged", 0, 0, &hold) < 0)
            return 2;
        if (i < 20 && pthread_create(&thread, NULL, wait_a_while, &waited) != 0)
            return 3;
        if (i < 20)
            sched_yield();
        flk_hold_release(hold);
        if (i < 20 && (pthread_join(thread, NULL) != 0 || waited != 0))
            return 4;
    }
    return 0;
}

static void limits_of_a_user(void)
{
    snprintf(other_root, sizeof other_root, "%s", test_path("others/locks"));
    if (mkdir(test_path("others"), 0755) < 0)
        bail_out("mkdir");
    is_int(test_as_other_user(test_path("others"), no_processes, NULL), 0,
           "with no process to be had: locks work, flk_run() says EAGAIN and leaves nothing");
    int status = test_as_other_user(NULL, no_pages, NULL);
    if (status == 77)
        skip("no limit of the pages in a user's pipes is met");
    else
        is_int(status, 0, "when a user's pipes have no pages left, locks are taken and waited for");
}

/* ---- small stacks ---- */

#define STACK (256 * 1024)
#define OF_OUR_OWN (12 * 1024)

static void do_nothing(void)
{
}

static void make_row(void)
{
    static unsigned number;
    char name[32];
    snprintf(name, sizeof name, "stack%u", number++);
    flk_hold_release(acquire(name));
}

static void wait_and_search(void)
{
    struct flk_hold *hold;
    struct flk_hold *other = acquire("stack-other"); /* who has something looks for deadlocks */
    (void)!flk_acquire("stack-held", 0, 5, &hold);
    flk_hold_release(other);
}

static void manage(void)
{
    (void)!flk_row_define("stack-managed", 3);
    (void)!flk_row_resize("stack-managed", 70, FLK_FOREVER);
    (void)!flk_row_remove("stack-managed", FLK_FOREVER);
}

static void inspect(void)
{
    struct flk_row **rows;
    if (flk_inspect(NULL, &rows) >= 0)
        flk_inspect_free(rows);
}

static void run(void)
{
    (void)run_true(NULL);
}

static void *call(void *function)
{
    (*(void (**)(void))function)();
    return NULL;
}

static size_t measure(void (*function)(void))
{
    pthread_attr_t attributes;
    pthread_t thread;
    size_t untouched = 0;
    unsigned char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        bail_out("mmap");
    memset(stack, 0x5a, STACK);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    if (pthread_create(&thread, &attributes, call, &function) != 0)
        bail_out("no thread");
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    while (untouched < STACK && stack[untouched] == 0x5a)
        untouched++;
    munmap(stack, STACK);
    return STACK - untouched;
}

static void stacks(void)
{
    static const struct {
        const char *what;
        void (*function)(void);
    } calls[] = {{"making a row", make_row},
                 {"waiting, and looking for deadlocks", wait_and_search},
                 {"defining, resizing, removing", manage},
                 {"inspecting", inspect},
                 {"running a command", run}};
    struct flk_hold *hold = acquire("stack-held");
    size_t of_a_thread = measure(do_nothing);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        size_t used = measure(calls[i].function) - of_a_thread;
        if (test_is_slow())
            skip("the sanitizers and Valgrind need more stack");
        else
            ok(used <= OF_OUR_OWN, "%s takes at most %d bytes of stack (%zu)", calls[i].what, OF_OUR_OWN, used);
    }
    flk_hold_release(hold);
}

/* ---- clocks ---- */

static _Atomic bool clock_jumps;
static unsigned jumps;

/* The linker puts this before libc's: a clock that somebody sets forth and back by hours, all the time. */
int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    int code = __real_clock_gettime(clock, time);
    if (clock == CLOCK_REALTIME && clock_jumps) {
        jumps++;
        time->tv_sec += jumps % 2 ? 7200 : -7200;
    }
    return code;
}

static void clock_steps(void)
{
    struct locker holder = LOCKER(.name = "clock");
    struct flk_hold *hold;
    locker_start(&holder);
    locker_wait(&holder);
    clock_jumps = true;
    int64_t before = fk_now();
    is_int(flk_acquire("clock", 0, 50, &hold), -ETIMEDOUT, "a deadline holds when the clock is set");
    ok(fk_now() - before >= 50 * FK_MS, "not before its time");
    locker_release(&holder);
    int failed = 0;
    for (int i = 0; i < 100; i++) {
        failed += flk_acquire("clock", 0, 0, &hold) < 0 || flk_hold_abandoned(hold) || flk_hold_waited_ms(hold) > 5000;
        flk_hold_release(hold);
    }
    is_int(failed, 0, "and nothing else goes by it");
    ok(jumps > 0, "it was asked for (%u times)", jumps);
    clock_jumps = false;
}

static int hold_or_wait(int to, int from)
{
    struct flk_hold *hold;
    char byte;
    if (flk_acquire("timens", 0, 0, &hold) < 0 || write(to, "h", 1) != 1 || read(from, &byte, 1) != 1)
        return 1;
    flk_hold_release(hold);
    if (write(to, "r", 1) != 1 || read(from, &byte, 1) != 1)
        return 2;
    int64_t before = fk_now();
    if (flk_acquire("timens", 0, 50, &hold) != -ETIMEDOUT || fk_now() - before < 50 * FK_MS)
        return 3;
    return 0;
}

/* Its monotonic clock is a day ahead. A process is only moved when it is born, so there are two of them. */
static int in_time_namespace(int to, int from)
{
    FILE *offsets;
    if (unshare(CLONE_NEWTIME) < 0 || !(offsets = fopen("/proc/self/timens_offsets", "w")))
        return 77;
    if (fprintf(offsets, "monotonic 86400 0\nboottime 86400 0\n") < 0 || fclose(offsets) != 0)
        return 77;
    pid_t pid = fork();
    if (pid == 0)
        _exit(hold_or_wait(to, from));
    return test_reap(pid);
}

static void time_namespaces(void)
{
    int to[2], from[2];
    char byte;
    struct flk_hold *hold;
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
        bail_out("pipe");
    pid_t pid = tap_fork();
    if (pid == 0) {
        close(from[0]);
        close(to[1]);
        _exit(in_time_namespace(from[1], to[0]));
    }
    close(from[1]);
    if (read(from[0], &byte, 1) != 1) {
        if (test_reap(pid) != 77)
            bail_out("the child failed");
        skip("no time namespace can be made");
        return;
    }
    is_int(flk_acquire("timens", 0, 30, &hold), -ETIMEDOUT, "a holder in another time namespace isn't taken for dead");
    if (write(to[1], "g", 1) != 1 || read(from[0], &byte, 1) != 1)
        bail_out("no answer");
    hold = acquire("timens");
    ok(!flk_hold_abandoned(hold), "and releases as others do");
    if (write(to[1], "g", 1) != 1)
        bail_out("no answer");
    is_int(test_reap(pid), 0, "a waiter there has its deadline by its own clock");
    flk_hold_release(hold);
    close(to[0]);
    close(to[1]);
    close(from[0]);
}

/* ---- SIGSTOP ---- */

static int lock_latch_and_stop(void)
{
    int fd = open(test_path("root/rows/stopped/latch"), O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return 1;
    raise(SIGSTOP);
    return 0;
}

static void stopped(void)
{
    struct locker holder = LOCKER(.name = "stopped");
    struct flk_hold *hold;
    int status;
    locker_start(&holder);
    locker_wait(&holder);
    test_stop(holder.pid);
    is_int(flk_acquire("stopped", 0, 30, &hold), -ETIMEDOUT, "a stopped holder keeps its lock, deadlines hold");
    is_int(flk_acquire("stopped", 0, 0, &hold), -EBUSY, "and so does trying once");
    kill(holder.pid, SIGCONT);
    locker_release(&holder);
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(lock_latch_and_stop());
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        bail_out("it doesn't stop");
    is_int(flk_acquire("stopped", 0, 30, &hold), -ETIMEDOUT, "deadlines hold beside one that is stopped in the latch");
    int64_t before = fk_now();
    struct flk_request *request;
    if (flk_request_start(&(struct flk_want){.name = "stopped"}, 1, NULL, FLK_FOREVER, &request) < 0)
        bail_out("%s", flk_error_detail());
    is_int(flk_request_step(request, &hold), -EAGAIN, "a step comes back");
    diag("after %lld ms", (long long)((fk_now() - before) / FK_MS));
    kill(pid, SIGCONT);
    is_int(test_reap(pid), 0, "when that one goes on");
    while (flk_request_step(request, &hold) == -EAGAIN)
        test_readable(flk_request_fd(request), 10000);
    is_int(flk_held("stopped"), 2, "so does everybody");
    flk_request_cancel(request);
    flk_hold_release(hold);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 240 : 60);
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    stacks();
    by_signals(0, "without SA_RESTART");
    by_signals(SA_RESTART, "with SA_RESTART");
    descriptors();
    give_way();
    limits_of_a_user();
    clock_steps();
    time_namespaces();
    stopped();
    return done_testing();
}
