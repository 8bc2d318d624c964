/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Everything that a host does to the library, at once and at random: threads that acquire, wait, step and release, run
 * commands, remove and resize rows, fork and execute, and are cancelled wherever they are; processes that are killed. At
 * the end no slot, descriptor, thread or place in a queue is left, and never had a lock two holders.
 *
 * STRESS_SCALE multiplies the time (1: 5 s). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../unit/helpers.h"
#include "deadline.h"
#include "flockctl.h"
#include "tap.h"

#define PROCESSES 3
#define THREADS 4
#define LOCKS 4 /* names of one slot; then come as many that are resized */
#define NAMES (2 * LOCKS)
#define PROCESSES_MOST 100000

#ifdef __SANITIZE_ADDRESS__
/* Its processes end amid their threads, of whose memory LeakSanitizer knows nothing then. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}
#endif

enum action { TRY, WAIT, SHARE, TWO_NAMES, STEP, CANCEL_BY_EVENT, RUN, REMOVE, RESIZE, FORK, SPAWN, LOOK, ACTIONS };

static struct common {
    _Atomic bool over;
    _Atomic unsigned next_process;
    _Atomic unsigned holder[LOCKS]; /* the number of the process that has it alone */
    _Atomic bool killed[PROCESSES_MOST];
    _Atomic unsigned two_holders, errors, done[ACTIONS], cancelled;
    char message[300];
} *common;

static unsigned this_process;

static unsigned random_below(unsigned *seed, unsigned limit)
{
    return (unsigned)rand_r(seed) / 7 % limit;
}

static const char *name_of(unsigned number)
{
    static const char *const names[NAMES] = {"lock0", "lock1", "lock2", "lock3", "row0", "row1", "row2", "row3"};
    return names[number];
}

/* What may come of it while others resize, remove and wait for each other. */
static bool is_expected(enum action action, int code)
{
    if (code == 0 || code == -EBUSY || code == -ETIMEDOUT || code == -EDEADLK || code == -ECANCELED)
        return true;
    if (code == -ENOENT)
        return action == TWO_NAMES || action == RESIZE;
    return action == SHARE && code == -EINVAL;
}

static void judge(enum action action, int code)
{
    if (is_expected(action, code))
        return;
    if (atomic_fetch_add(&common->errors, 1) == 0)
        snprintf(common->message, sizeof common->message, "action %d: %d, %.250s", action, code, flk_error_detail());
}

/* ---- one thread; what it has is given back by its cleanup handler, wherever it is cancelled ---- */

struct worker {
    unsigned seed, lock; /* NAMES: none of one slot is held alone */
    struct flk_hold *hold;
    struct flk_request *request;
    int event;
};

static void got_alone(struct worker *worker, unsigned number)
{
    if (number >= LOCKS)
        return;
    unsigned before = atomic_exchange(&common->holder[number], this_process);
    if (before != 0 && !common->killed[before])
        atomic_fetch_add(&common->two_holders, 1);
    worker->lock = number;
}

static void close_event(struct worker *worker)
{
    int before;
    if (worker->event < 0)
        return;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before); /* cancelled in close(), nobody knows whether it is closed */
    close(worker->event);
    worker->event = -1;
    pthread_setcancelstate(before, &before);
}

static void give_back(void *data)
{
    struct worker *worker = data;
    if (worker->lock < LOCKS)
        atomic_store(&common->holder[worker->lock], 0);
    worker->lock = NAMES;
    flk_hold_release(worker->hold);
    worker->hold = NULL;
    flk_request_cancel(worker->request);
    worker->request = NULL;
    close_event(worker);
}

static void acquire_one(struct worker *worker, enum action action, int64_t timeout_ms)
{
    unsigned number = random_below(&worker->seed, NAMES);
    int code = flk_acquire(name_of(number), action == SHARE ? FLK_SHARED : 0, timeout_ms, &worker->hold);
    judge(action, code);
    if (code == 0 && action != SHARE)
        got_alone(worker, number);
    if (code == 0 && random_below(&worker->seed, 2))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* a point of cancellation with a lock */
}

static void acquire_two(struct worker *worker)
{
    unsigned first = random_below(&worker->seed, LOCKS), second = LOCKS + random_below(&worker->seed, LOCKS);
    const struct flk_want wants[] = {{.name = name_of(second), .count = FLK_ALL}, {.name = name_of(first)}};
    int code = flk_acquire_many(wants, 2, NULL, 200, &worker->hold);
    judge(TWO_NAMES, code);
    if (code == 0)
        got_alone(worker, first);
}

static void step_request(struct worker *worker, enum action action)
{
    unsigned number = random_below(&worker->seed, LOCKS);
    struct flk_options options = {.cancel_fd = NULL};
    if (action == CANCEL_BY_EVENT) {
        worker->event = eventfd(random_below(&worker->seed, 2), EFD_CLOEXEC);
        options.cancel_fd = &worker->event;
    }
    int code = flk_request_start(&(struct flk_want){.name = name_of(number)}, 1, &options, 50, &worker->request);
    int fd = code == 0 ? flk_request_fd(worker->request) : -1;
    for (int steps = 0; code == 0 || code == -EAGAIN; steps++) {
        code = flk_request_step(worker->request, &worker->hold);
        if (code != -EAGAIN || steps == 5 || fd < 0)
            break;
        if (worker->event >= 0 && steps == 1)
            eventfd_write(worker->event, 1);
        test_readable(fd, 10);
    }
    if (code == 0)
        got_alone(worker, number);
    judge(action, code == -EAGAIN ? 0 : code);
}

static void run_command(struct worker *worker)
{
    static const char *const argv[] = {"true", NULL};
    unsigned number = random_below(&worker->seed, LOCKS);
    struct flk_run_result result;
    int code = flk_acquire(name_of(number), 0, 50, &worker->hold);
    if (code == 0) {
        got_alone(worker, number);
        code = flk_run(&(struct flk_run_spec){.argv = argv, .hold = worker->hold}, &result);
    }
    judge(RUN, code);
}

static void change_row(struct worker *worker, enum action action)
{
    unsigned number = random_below(&worker->seed, NAMES), slots = 1 + random_below(&worker->seed, 3);
    judge(action, action == REMOVE ? flk_row_remove(name_of(number), 20)
                                   : flk_row_resize(name_of(LOCKS + number % LOCKS), slots, 20));
}

/* 0, or what was wrong. */
static int use_in_child(unsigned number)
{
    struct flk_hold *hold;
    for (unsigned i = 0; i < NAMES; i++)
        if (flk_held(name_of(i)))
            return 10;
    if (!test_child_may_allocate())
        return 0;
    int code = flk_acquire(name_of(number), 0, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return is_expected(TRY, code) ? 0 : 11;
}

static void reap(pid_t pid, enum action action)
{
    int status = 0, before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    judge(action, status);
    pthread_setcancelstate(before, &before);
}

static void make_child(struct worker *worker, enum action action)
{
    char *const argv[] = {(char *)"true", NULL};
    unsigned number = random_below(&worker->seed, NAMES);
    pid_t pid = -1;
    if (random_below(&worker->seed, 2))
        acquire_one(worker, TRY, 0); /* which the child must not have */
    if (action == SPAWN) {
        judge(action, -posix_spawnp(&pid, "true", NULL, NULL, argv, environ));
    } else {
        pid = fork();
        if (pid == 0)
            _exit(use_in_child(number));
    }
    if (pid > 0)
        reap(pid, action);
}

static int see(const struct flk_hold *hold, void *data)
{
    (void)data;
    return flk_hold_names(hold) == 0;
}

static void look(void)
{
    struct flk_row **rows;
    int code = flk_hold_foreach(see, NULL);
    judge(LOOK, code);
    code = flk_inspect(NULL, &rows);
    if (code >= 0)
        flk_inspect_free(rows);
    judge(LOOK, code < 0 ? code : 0);
}

static void act(struct worker *worker)
{
    /* What takes long comes seldom. */
    static const enum action actions[] = {
        TRY,  TRY,       TRY,    WAIT,   WAIT, WAIT, WAIT,  SHARE, SHARE, STEP, STEP,
        STEP, TWO_NAMES, REMOVE, RESIZE, RUN,  FORK, SPAWN, LOOK,  CANCEL_BY_EVENT,
    };
    enum action action = actions[random_below(&worker->seed, sizeof actions / sizeof *actions)];
    switch (action) {
    case TRY:
        acquire_one(worker, action, 0);
        break;
    case WAIT:
        acquire_one(worker, action, random_below(&worker->seed, 2) ? FLK_FOREVER : 5);
        break;
    case SHARE:
        acquire_one(worker, action, 5);
        break;
    case TWO_NAMES:
        acquire_two(worker);
        break;
    case RUN:
        run_command(worker);
        break;
    case REMOVE:
    case RESIZE:
        change_row(worker, action);
        break;
    case FORK:
    case SPAWN:
        make_child(worker, action);
        break;
    case LOOK:
        look();
        break;
    default:
        step_request(worker, action);
    }
    atomic_fetch_add(&common->done[action], 1);
    give_back(worker);
}

static void *work(void *seed)
{
    struct worker worker = {.seed = (unsigned)(uintptr_t)seed, .lock = NAMES, .event = -1};
    pthread_cleanup_push(give_back, &worker);
    while (!common->over) {
        act(&worker);
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

/* ---- one process ---- */

static void start_thread(pthread_t *thread, unsigned seed)
{
    if (pthread_create(thread, NULL, work, (void *)(uintptr_t)seed) != 0)
        _exit(1);
}

static void replace_thread(pthread_t *thread, unsigned seed)
{
    void *result;
    pthread_cancel(*thread);
    if (pthread_join(*thread, &result) != 0)
        _exit(2);
    atomic_fetch_add(&common->cancelled, result == PTHREAD_CANCELED);
    start_thread(thread, seed);
}

/* ThreadSanitizer loses count of the locks of a thread that is cancelled in poll, and has a thread of its own. */
#ifdef __SANITIZE_THREAD__
static const bool cancels = false;
#else
static const bool cancels = true;
#endif

static void be_process(unsigned seed)
{
    pthread_t threads[THREADS];
    int fds = test_descriptors(), tasks = test_entries("/proc/self/task");
    for (unsigned i = 0; i < THREADS; i++)
        start_thread(&threads[i], seed + i);
    for (unsigned turn = THREADS; !common->over; turn++) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        if (cancels)
            replace_thread(&threads[random_below(&seed, THREADS)], seed + turn);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    /* Whoever holds nothing and waits for nothing may choose another directory, which closes what is idle. */
    if (flk_root_set(NULL) < 0)
        _exit(3);
    if (test_descriptors() != fds)
        _exit(4);
    if (cancels && test_entries("/proc/self/task") != tasks)
        _exit(5);
    _exit(0);
}

static pid_t start_process(unsigned seed, unsigned *number)
{
    *number = atomic_fetch_add(&common->next_process, 1) + 1;
    pid_t pid = tap_fork();
    if (pid == 0) {
        this_process = *number;
        be_process(seed);
    }
    return pid;
}

/* Some are killed, and replaced, until the time is over. How many ended otherwise than they should. */
static int go_on_for(double seconds)
{
    pid_t pids[PROCESSES];
    unsigned numbers[PROCESSES], seed = (unsigned)time(NULL), kills = 0;
    int wrong = 0;
    int64_t end = fk_now() + (int64_t)(seconds * (double)FK_SECOND);
    diag("seed %u", seed);
    for (unsigned i = 0; i < PROCESSES; i++)
        pids[i] = start_process(seed + 1000 * i, &numbers[i]);
    while (fk_now() < end && common->next_process < PROCESSES_MOST - PROCESSES) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        unsigned i = random_below(&seed, PROCESSES);
        common->killed[numbers[i]] = true;
        kill(pids[i], SIGKILL);
        wrong += test_reap(pids[i]) != -SIGKILL;
        pids[i] = start_process(seed + ++kills, &numbers[i]);
    }
    common->over = true;
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = test_reap(pids[i]);
        if (status != 0)
            diag("a process ended with %d", status);
        wrong += status != 0;
    }
    diag("%u kills, %u threads cancelled", kills, common->cancelled);
    return wrong;
}

static bool is_left(const char *name)
{
    struct flk_hold *hold;
    int code = flk_row_define(name, 1); /* it may have been removed */
    if (code == 0 || code == -EUSERS)
        code = flk_acquire_many(&(struct flk_want){.name = name, .count = FLK_ALL}, 1, NULL, 20000, &hold);
    if (code < 0) {
        diag("%s: %s", name, flk_error_detail());
        return true;
    }
    flk_hold_release(hold);
    return flk_held(name) || test_tickets(name) != 0;
}

static int count_slots_in_use(void)
{
    struct flk_row **rows;
    int count = 0, n = flk_inspect(NULL, &rows);
    for (int i = 0; i < n; i++)
        for (size_t slot = 0; slot < rows[i]->n_slots; slot++)
            count += rows[i]->slots[slot]->state != FLK_SLOT_FREE;
    flk_inspect_free(rows);
    return n < 0 ? n : count;
}

int main(void)
{
    static const char *const names[ACTIONS] = {"try",   "wait", "share",  "two names", "step", "cancel",
                                               "run",   "remove", "resize", "fork",    "spawn", "look"};
    const char *text = getenv("STRESS_SCALE");
    double seconds = (text ? strtod(text, NULL) : 1) * 5;
    int left = 0;
    tap_deadline((unsigned)(120 + 2 * seconds));
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    common = test_shared(sizeof *common);
    for (unsigned i = 0; i < NAMES; i++)
        if (flk_row_define(name_of(i), 1) < 0)
            bail_out("%s", flk_error_detail());
    is_int(go_on_for(seconds), 0, "every process ends without a descriptor or a thread more, or is killed");
    is_int(common->two_holders, 0, "no lock had two holders");
    is_int(common->errors, 0, "no call failed");
    if (common->errors)
        diag("%s", common->message);
    for (int i = 0; i < ACTIONS; i++)
        ok(common->done[i] > 0, "%s: %u times", names[i], common->done[i]);
    for (unsigned i = 0; i < NAMES; i++)
        left += is_left(name_of(i));
    is_int(left, 0, "nobody is in a queue, and every slot can be had");
    is_int(count_slots_in_use(), 0, "and is free");
    return done_testing();
}
