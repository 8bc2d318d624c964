/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Processes that do at random all that the queue of a row is for: deadlines, cancels, shared and exclusive, several
 * slots and all, tries, resizes, removals, forks that keep copies; while the main process kills, stops and continues
 * them at any moment, the middle of a latch section included. See referee.h for what must never come of it.
 *
 * STRESS_SCALE multiplies the time (1: some 20 s), STRESS_SEED repeats the random choices, though not the timing. */
#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "flockctl.h"
#include "referee.h"
#include "request.h"
#include "tap.h"

/* Processes: the main one, the workers, and for each thread of a worker the child that it may have forked. */
#define SINGLE 8   /* workers of one thread */
#define THREADED 2 /* workers of THREADS */
#define THREADS 3
#define WORKERS (SINGLE + THREADED)
#define ALL_THREADS (SINGLE + THREADED * THREADS)
#define FIRST_THREAD 1
#define FIRST_CHILD (FIRST_THREAD + ALL_THREADS) /* actor of a thread's child: the thread's + ALL_THREADS */
_Static_assert(FIRST_CHILD + ALL_THREADS <= ACTORS, "actors");

#define TICK (2 * FK_MS)
#define REGISTRATION (2 * FK_SECOND) /* a child that hasn't said who it is for so long was never made */
#define LONG_COPY_US 1500000         /* longer than a waiter's look is away */
#define NOBODY_YET ((pid_t)-1)

enum action { KILLS = 1, STOPS = 2, CHANGES = 4, COPYING = 8, FORKS = 16 };

struct phase {
    const char *name;
    unsigned actions;
    unsigned ms;
};

static const struct phase phases[] = {
    {"copies and forks", COPYING | FORKS, 2500},
    {"kills", KILLS, 2000},
    {"kills of processes with copies", KILLS | COPYING | FORKS, 2000},
    {"stops", STOPS | COPYING, 5000},
    {"resizes and removals", CHANGES | COPYING, 1500},
    {"kills in resizes and removals", KILLS | CHANGES, 1500},
    {"everything", KILLS | STOPS | CHANGES | COPYING | FORKS, 3500},
};

static const unsigned slots_of[ROWS] = {1, 1, 4, 9};

/* What the main process knows of a process, and all see of the phase. */
static struct common {
    struct process processes[1 + WORKERS + ALL_THREADS];
    _Atomic bool over;
    unsigned actions;
    uint64_t seed;
    _Atomic unsigned kills, stops, changes, copies, forks, tries, acquired, given_up;
} *common;

static int64_t continue_at[1 + WORKERS], dead_since[1 + WORKERS];
static bool is_dead[1 + WORKERS];

/* ---- chance ---- */

static _Thread_local uint64_t chance;

static unsigned random_below(unsigned limit)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (unsigned)((chance * 0x2545f4914f6cdd1du) >> 33) % limit;
}

static bool percent(unsigned wanted)
{
    return random_below(100) < wanted;
}

static void seed_chance(unsigned index, unsigned incarnation)
{
    chance = (common->seed + index * 0x9e3779b97f4a7c15u) ^ (incarnation * 0xbf58476d1ce4e5b9u);
    chance = chance ? chance : 1;
    for (int i = 0; i < 8; i++)
        random_below(2);
}

static void pause_us(unsigned us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
}

/* ---- copies and children ---- */

static pid_t raw_clone(_Atomic pid_t *store)
{
    /* The kernel stores the number before the child runs, and the child is the main process's, which so misses none. */
    return (pid_t)syscall(SYS_clone, CLONE_PARENT | CLONE_PARENT_SETTID | SIGCHLD, NULL, store, NULL, 0ul);
}

/* Keeps for a while whatever the process has open at the moment. */
static void make_copy(void)
{
    struct process *process = referee->actors[referee_self()].process;
    unsigned us = percent(2) ? LONG_COPY_US : random_below(20000);
    for (unsigned i = 0; i < COPIES; i++) {
        pid_t none = 0;
        if (!atomic_compare_exchange_strong(&process->copies[i], &none, NOBODY_YET))
            continue;
        pid_t pid = raw_clone(&process->copies[i]);
        if (pid == 0) {
            pause_us(us);
            _exit(0);
        }
        if (pid < 0)
            process->copies[i] = 0;
        atomic_fetch_add(&common->copies, 1);
        return;
    }
}

static void act(unsigned depth);

static void be_child(unsigned index, struct flk_hold *hold)
{
    referee_enter(index);
    seed_chance(index, random_below(UINT32_MAX));
    if (percent(50))
        pause_us(random_below(3000));
    if (flk_held("r0") || flk_held("r1") || flk_held("r2") || flk_held("r3"))
        referee_foul(FOUL_ERROR, "a forked child holds what its parent held");
    flk_hold_release(hold); /* memory only */
    for (unsigned i = random_below(4); i > 0; i--)
        act(1);
    _exit(0);
}

/* A child that goes on to use the library: made by fork(), or raw where no other thread can have been in malloc. */
static void make_child(struct flk_hold *hold)
{
    unsigned index = referee_self() + ALL_THREADS;
    struct process *process = referee->actors[index].process;
    pid_t none = 0;
    bool raw = referee_self() < FIRST_THREAD + SINGLE && percent(50);
    if (!atomic_compare_exchange_strong(&process->pid, &none, NOBODY_YET))
        return; /* the one before is still there */
    atomic_fetch_add(&common->forks, 1);
    pid_t pid = raw ? raw_clone(&process->pid) : fork();
    if (pid == 0) {
        process->pid = getpid();
        be_child(index, hold);
    }
    if (pid < 0) {
        process->pid = 0;
    } else if (!raw) {
        int status;
        process->pid = pid;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (status != 0)
            referee_foul(FOUL_ERROR, "a forked child ended with status 0x%x", (unsigned)status);
        referee_wipe(&referee->actors[index]);
        process->pid = 0;
    }
}

/* ---- what a worker does ---- */

static bool is_expected(int code)
{
    bool changes = common->actions & CHANGES; /* a row may be there or not, and as large as it likes */
    return code == -EBUSY || code == -ETIMEDOUT || code == -ECANCELED ||
           (changes && (code == -EUSERS || code == -ENOENT || code == -EINVAL));
}

static void check_result(int code, int64_t timeout_ms)
{
    bool had_reason = referee_was_refused();
    if (code < 0)
        atomic_fetch_add(&common->given_up, 1);
    if (code < 0 && !is_expected(code))
        referee_foul(FOUL_ERROR, "%d: %s", code, flk_error_detail());
    else if (code == -EBUSY && timeout_ms != 0)
        referee_foul(FOUL_ERROR, "busy, though it was to wait: %s", flk_error_detail());
    else if (code == -EBUSY && !had_reason && !referee->stops && !referee->copies_die) /* those may keep the latch */
        referee_foul(FOUL_BUSY, "busy without a look: %s", flk_error_detail());
}

/* The loop of one who has better things to do than to sleep in flk_acquire(). */
static int acquire_stepwise(const struct flk_want *wants, size_t n, const struct flk_options *options,
                            int64_t timeout_ms, struct flk_hold **hold)
{
    struct flk_request *request;
    int code = flk_request_start(wants, n, options, timeout_ms, &request);
    if (code < 0)
        return code;
    int fd = percent(90) ? flk_request_fd(request) : -1;
    bool patient = percent(95);
    while ((code = flk_request_step(request, hold)) == -EAGAIN) {
        if ((common->actions & COPYING) && percent(3))
            make_copy();
        struct pollfd poll_for = {.fd = fd, .events = POLLIN};
        poll(&poll_for, 1, fd < 0 ? 1 : patient ? -1 : (int)random_below(4));
        if (!patient && percent(30)) {
            code = -ECANCELED;
            break;
        }
    }
    flk_request_cancel(request);
    return code;
}

static void choose_want(struct flk_want *want, const char *name, unsigned index)
{
    *want = (struct flk_want){.name = name};
    if (slots_of[index] == 1 && percent(45))
        want->flags = FLK_SHARED;
    else if (slots_of[index] > 1 && percent(40))
        want->count = percent(25) ? FLK_ALL : 1 + random_below(slots_of[index]);
    if (common->actions & CHANGES)
        want->slots = percent(50) ? slots_of[index] : 0;
}

static int acquire(int64_t timeout_ms, int cancel_fd, struct flk_hold **hold)
{
    static const char *const names[ROWS] = {"r0", "r1", "r2", "r3"};
    struct flk_want wants[2];
    struct flk_options options = {.cancel_fd = &cancel_fd};
    unsigned first = random_below(ROWS), second = random_below(ROWS);
    size_t n = percent(10) && first != second ? 2 : 1;
    choose_want(&wants[0], names[first], first);
    choose_want(&wants[1], names[second], second);
    if (percent(50))
        return flk_acquire_many(wants, n, cancel_fd < 0 ? NULL : &options, timeout_ms, hold);
    return acquire_stepwise(wants, n, cancel_fd < 0 ? NULL : &options, timeout_ms, hold);
}

static void use(void)
{
    if (percent(40))
        pause_us(random_below(300));
    else if (percent(10))
        pause_us(random_below(3000));
    if ((common->actions & COPYING) && percent(10))
        make_copy();
}

static void acquire_and_release(unsigned depth)
{
    struct flk_hold *hold = NULL;
    int64_t timeout_ms = percent(25) ? 0 : percent(50) || depth > 0 ? 1 + random_below(30) : FLK_FOREVER;
    int cancel_fd = -1;
    if (timeout_ms != 0 && percent(10)) {
        cancel_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        struct itimerspec when = {.it_value = {.tv_nsec = 1 + random_below(5000000)}};
        timerfd_settime(cancel_fd, 0, &when, NULL);
    }
    int code = acquire(timeout_ms, cancel_fd, &hold);
    if (cancel_fd >= 0)
        close(cancel_fd);
    atomic_fetch_add(&common->tries, timeout_ms == 0);
    check_result(code, timeout_ms);
    if (code < 0)
        return;
    atomic_fetch_add(&common->acquired, 1);
    use();
    if ((common->actions & FORKS) && depth == 0 && percent(2))
        make_child(hold);
    (percent(95) ? flk_hold_release : flk_hold_decline)(hold);
}

static void change_row(void)
{
    unsigned index = random_below(ROWS);
    char name[8];
    snprintf(name, sizeof name, "r%u", index);
    int64_t timeout_ms = percent(20) ? 0 : 1 + random_below(50);
    unsigned slots = percent(50) ? slots_of[index] : 1 + random_below(10);
    int code;
    if (percent(40))
        code = flk_row_resize(name, slots, timeout_ms);
    else if (percent(50))
        code = flk_row_remove(name, timeout_ms);
    else
        code = flk_row_define(name, slots);
    check_result(code, timeout_ms);
    atomic_fetch_add(&common->changes, code == 0);
}

static void act(unsigned depth)
{
    if ((common->actions & CHANGES) && percent(common->actions == (KILLS | CHANGES) ? 25 : 4))
        change_row();
    else
        acquire_and_release(depth);
}

static void *be_thread(void *data)
{
    unsigned index = (unsigned)(uintptr_t)data;
    referee_enter(index);
    seed_chance(index, referee->actors[index].process->incarnation);
    while (!common->over)
        act(0);
    return NULL;
}

static unsigned first_thread_of(unsigned worker)
{
    return worker <= SINGLE ? worker : FIRST_THREAD + SINGLE + (worker - 1 - SINGLE) * THREADS;
}

static unsigned threads_of(unsigned worker)
{
    return worker <= SINGLE ? 1 : THREADS;
}

static void be_worker(unsigned worker)
{
    pthread_t threads[THREADS];
    unsigned first = first_thread_of(worker);
    for (unsigned i = 1; i < threads_of(worker); i++)
        if (pthread_create(&threads[i], NULL, be_thread, (void *)(uintptr_t)(first + i)) != 0)
            _exit(2);
    be_thread((void *)(uintptr_t)first);
    for (unsigned i = 1; i < threads_of(worker); i++)
        pthread_join(threads[i], NULL);
    atomic_fetch_add(&referee->lib_let_in_by_look, fk_request_let_in_by_look);
    _exit(0);
}

/* ---- the main process: births and deaths ---- */

static void give_birth(unsigned worker)
{
    struct process *process = &common->processes[worker];
    pid_t pid = tap_fork();
    if (pid == 0) {
        process->pid = getpid();
        be_worker(worker);
    }
    process->pid = pid;
    is_dead[worker] = false;
}

/* Is there somebody behind the number that a worker may have left behind? It may have been killed between its
   waitpid() and * taking the number back. */
static bool is_there(pid_t pid, bool old)
{
    return pid == NOBODY_YET ? !old : pid > 0 && kill(pid, 0) == 0;
}

/* Of the worker that died: does anything live that has copies of its descriptors? */
static bool leaves_somebody(unsigned worker)
{
    const struct process *process = &common->processes[worker];
    bool old = fk_now() - dead_since[worker] > REGISTRATION;
    for (unsigned i = 0; i < COPIES; i++)
        if (is_there(process->copies[i], old))
            return true;
    for (unsigned i = 0; i < threads_of(worker); i++)
        if (is_there(common->processes[1 + WORKERS + first_thread_of(worker) - FIRST_THREAD + i].pid, old))
            return true;
    return false;
}

static void bury(unsigned worker)
{
    struct process *process = &common->processes[worker];
    for (unsigned i = 0; i < threads_of(worker); i++) {
        referee_wipe(&referee->actors[first_thread_of(worker) + i]);
        common->processes[1 + WORKERS + first_thread_of(worker) - FIRST_THREAD + i].pid = 0;
    }
    for (unsigned i = 0; i < COPIES; i++)
        process->copies[i] = 0;
    process->frozen = process->stopped = false;
    process->continued = continue_at[worker] = 0;
    process->incarnation++;
    process->doomed = false;
    process->pid = 0;
}

static void note_worker_end(unsigned worker, int status)
{
    struct process *process = &common->processes[worker];
    if (WIFSTOPPED(status)) {
        process->frozen = process->stopped;
        return;
    }
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && process->doomed;
    if (!killed && status != 0)
        referee_foul(FOUL_ERROR, "worker %u ended with status 0x%x", worker, (unsigned)status);
    process->doomed = true;
    is_dead[worker] = true;
    dead_since[worker] = fk_now();
}

static void note_other_end(pid_t pid, int status)
{
    for (unsigned worker = 1; worker <= WORKERS; worker++)
        for (unsigned i = 0; i < COPIES; i++)
            if (common->processes[worker].copies[i] == pid)
                common->processes[worker].copies[i] = 0;
    for (unsigned i = 0; i < ALL_THREADS; i++) {
        struct process *child = &common->processes[1 + WORKERS + i];
        if (child->pid != pid)
            continue;
        if (status != 0)
            referee_foul(FOUL_ERROR, "a forked child ended with status 0x%x", (unsigned)status);
        referee_wipe(&referee->actors[FIRST_CHILD + i]);
        child->pid = 0;
    }
}

/* How many workers live or aren't buried. */
static unsigned reap(void)
{
    int status;
    unsigned left = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0;) {
        unsigned worker = 1;
        while (worker <= WORKERS && common->processes[worker].pid != pid)
            worker++;
        if (worker <= WORKERS)
            note_worker_end(worker, status);
        else if (!WIFSTOPPED(status))
            note_other_end(pid, status);
    }
    for (unsigned worker = 1; worker <= WORKERS; worker++) {
        if (is_dead[worker] && common->processes[worker].pid && !leaves_somebody(worker))
            bury(worker);
        left += common->processes[worker].pid != 0;
    }
    return left;
}

/* ---- the main process: mischief ---- */

static void kill_one(unsigned worker)
{
    struct process *process = &common->processes[worker];
    process->doomed = true;
    kill(process->pid, SIGKILL);
    common->kills++;
}

/* For long only who waits: that is what the others must get past, while a holder that is stopped just keeps them
   waiting. */
static void stop_one(unsigned worker)
{
    struct process *process = &common->processes[worker];
    bool waits = referee->actors[first_thread_of(worker)].state == WAITING;
    int64_t ms = waits && percent(50) ? 1500 + random_below(2500) : 1 + random_below(60);
    process->stopped = true;
    kill(process->pid, SIGSTOP);
    continue_at[worker] = fk_now() + ms * FK_MS;
    common->stops++;
}

static void continue_due(bool all)
{
    for (unsigned worker = 1; worker <= WORKERS; worker++) {
        struct process *process = &common->processes[worker];
        if (!process->stopped || is_dead[worker] || (!all && fk_now() < continue_at[worker]))
            continue;
        process->frozen = false;
        process->continued = fk_now();
        process->stopped = false;
        kill(process->pid, SIGCONT);
    }
}

static unsigned count_stopped(void)
{
    unsigned count = 0;
    for (unsigned worker = 1; worker <= WORKERS; worker++)
        count += common->processes[worker].stopped;
    return count;
}

static void make_mischief(void)
{
    unsigned worker = 1 + random_below(WORKERS);
    struct process *process = &common->processes[worker];
    if (is_dead[worker] || process->pid <= 0 || process->doomed)
        return;
    if ((common->actions & KILLS) && percent(15))
        kill_one(worker);
    else if ((common->actions & STOPS) && !process->stopped && percent(6) && count_stopped() < 3)
        stop_one(worker);
}

static void tick(void)
{
    int64_t now = fk_now();
    if (now - referee->heartbeat > 100 * FK_MS)
        referee->stalled = now;
    referee->heartbeat = now;
    pause_us(TICK / 1000);
}

static unsigned end_phase(void)
{
    unsigned left = 1;
    /* What the last ones leave on disk isn't cleaned up by the way any more, before we look. */
    for (unsigned worker = 1; (common->actions & KILLS) && worker <= WORKERS; worker++)
        if (common->processes[worker].pid > 0 && !is_dead[worker] && percent(50))
            kill_one(worker);
    common->over = true;
    continue_due(true);
    for (int64_t until = fk_now() + 30 * FK_SECOND; left && fk_now() < until; tick())
        left = reap();
    for (unsigned worker = 1; left && worker <= WORKERS; worker++)
        if (common->processes[worker].pid > 0 && !is_dead[worker])
            kill_one(worker);
    return left;
}

static void run_phase(const struct phase *phase, double scale)
{
    common->over = false;
    common->actions = phase->actions;
    referee->stops = phase->actions & STOPS;
    referee->copies_die = (phase->actions & KILLS) && (phase->actions & (COPYING | FORKS));
    referee->heartbeat = fk_now();
    int64_t until = fk_now() + (int64_t)(phase->ms * scale) * FK_MS;
    while (fk_now() < until) {
        reap();
        for (unsigned worker = 1; worker <= WORKERS; worker++)
            if (common->processes[worker].pid == 0)
                give_birth(worker);
        make_mischief();
        continue_due(false);
        tick();
    }
    unsigned left = end_phase();
    is_int(left, 0, "%s: every request came to an end", phase->name);
    if (left)
        bail_out("workers hang");
}

/* ---- what is left on disk ---- */

static unsigned count_entries(const char *directory, const char *prefix)
{
    char path[4096];
    const char *root = getenv("FLOCKCTL_DIR");
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/rows/%s", root, directory);
    DIR *entries = opendir(path);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
            diag("left: %s/%s", directory, entry->d_name);
            count++;
        }
    if (entries)
        closedir(entries);
    return entries ? count : 1;
}

/* Whoever finds the dead buries them: the next holder of each row, and who makes the next row. */
static void check_disk(const char *phase)
{
    char path[32], name[8];
    unsigned left = 0;
    for (unsigned i = 0; i < ROWS; i++) {
        struct flk_hold *hold;
        snprintf(name, sizeof name, "r%u", i);
        int code = flk_acquire_many(&(struct flk_want){.name = name, .count = FLK_ALL}, 1, NULL, 5000, &hold);
        if (code == 0)
            flk_hold_release(hold);
        if (code < 0 && code != -ENOENT)
            referee_foul(FOUL_ERROR, "%s after the end: %s", name, flk_error_detail());
        snprintf(path, sizeof path, "%s/queue", name);
        left += code == 0 ? count_entries(path, "") : 0;
        snprintf(path, sizeof path, "%s/holders", name);
        left += code == 0 ? count_entries(path, "") : 0;
    }
    int code = flk_row_define("sweeper", 1);
    if (code == 0)
        code = flk_row_remove("sweeper", 5000);
    left += count_entries("", ".tmp.");
    is_int(left + (code < 0), 0, "%s: nothing is left on disk", phase);
}

/* ---- all of it ---- */

static void set_up_common(void)
{
    const char *seed = getenv("STRESS_SEED");
    referee_start();
    common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (common == MAP_FAILED)
        bail_out("no shared memory");
    common->seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)fk_now();
    diag("STRESS_SEED=%llu", (unsigned long long)common->seed);
    seed_chance(0, 0);
    referee->actors[0].process = &common->processes[0];
    for (unsigned worker = 1; worker <= WORKERS; worker++)
        for (unsigned i = 0; i < threads_of(worker); i++) {
            unsigned thread = first_thread_of(worker) + i;
            referee->actors[thread].process = &common->processes[worker];
            referee->actors[thread + ALL_THREADS].process = &common->processes[1 + WORKERS + thread - FIRST_THREAD];
        }
    referee_enter(0);
}

static void define_rows(void)
{
    for (unsigned i = 0; i < ROWS; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%u", i);
        if (flk_row_remove(name, 5000) < 0 || flk_row_define(name, slots_of[i]) < 0)
            bail_out("%s", flk_error_detail());
    }
}

static void judge(const char *phase)
{
    static const char *const fouls[FOULS] = {
        "no slot had two holders", "nobody overtook", "nobody was passed without a reason", "no false \"busy\"",
        "no free slot was without a hang-up or a byte", "nobody had to be let in by the look once a second", "no error",
    };
    for (unsigned foul = 0; foul < FOULS; foul++)
        is_int(atomic_exchange(&referee->fouls[foul], 0), 0, "%s: %s", phase, fouls[foul]);
    referee_show_messages();
    ok(referee->takes > 0 && referee->takes >= common->acquired && referee->queued > 0 && referee->waited > 0,
       "%s: the referee saw it", phase);
    diag("%s: %u acquired (%u of them had waited), %u tickets, %u tries, %u given up, %u kills, %u stops, %u passed",
         phase, common->acquired, referee->waited, referee->queued, common->tries, common->given_up, common->kills,
         common->stops, referee->passes);
    diag("%s: %u changes, %u copies, %u children; by the library's own count, %u let in by a look", phase,
         common->changes, common->copies, common->forks, referee->lib_let_in_by_look);
    referee->takes = referee->queued = referee->waited = referee->passes = referee->lib_let_in_by_look = 0;
    common->acquired = common->tries = common->given_up = common->kills = common->stops = common->changes = 0;
    common->copies = common->forks = 0;
}

int main(void)
{
    const char *text = getenv("STRESS_SCALE");
    char root[4096];
    double scale = text ? strtod(text, NULL) : 1;
    tap_deadline((unsigned)(120 + 60 * scale));
    snprintf(root, sizeof root, "%s/locks", tap_directory());
    setenv("FLOCKCTL_DIR", root, 1);
    set_up_common();
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        define_rows();
        run_phase(&phases[i], scale);
        check_disk(phases[i].name);
        judge(phases[i].name);
    }
    return done_testing();
}
