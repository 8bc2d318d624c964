/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flk_run(): the host's side. The helper's is `flockctl supervise`; helper.h has what they say to each other.
 *
 * How the helper is started. A clone as vfork(2) makes it shares our memory, so a large process isn't copied. But the helper
 * must not be our child, or the host's waitpid(-1) would take it from us and its end send a SIGCHLD. A clone with exit
 * signal 0 is seen by neither, only exec sets that back to SIGCHLD. So such a clone makes the helper, and exits at once:
 *
 *   this thread    clone(VM|VFORK) ------------------------------------ goes on, reaps the intermediate with __WALL
 *   intermediate                   clone(VM|VFORK) --------- exit
 *   helper                                         dup2... execve          an orphan, adopted by init or a subreaper
 *
 * All signals are blocked from before the clone, so no handler of the host's runs in the two. They share our memory but not
 * our descriptors: what the helper needs loses its close-on-exec flag there, where no other fork of the host sees it.
 *
 * States of a run: RUNNING, until the answer is heard; OVER, with a result or a failure that is told again. The socket tells
 * the helper of our end, whatever kind it is; PR_SET_PDEATHSIG would do so at the end of the thread that started it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "helper.h"
#include "hold.h"
#include "registry.h"
#include "run.h"

#define STACK_SIZE (32 * 1024)
#define DEFAULT_GRACE_MS 10000
#define ALL_FLAGS ((unsigned)(FLK_RUN_DETACH | FLK_RUN_PGRP))
#define ALL_ISOLATE 127u

struct flk_run {
    uint64_t generation;
    int socket;
    struct fk_handed *handed; /* NULL: no hold */
    char *tool; /* for sentences */
    bool over;
    int code; /* when it is over */
    char *detail;
    struct flk_run_result result;
};

/* ---- the start ---- */

/* Lies, with the stacks behind it, in a mapping of its own, which the two processes share with us. */
struct start {
    const char *tool;
    char *argv[4];
    char number[16]; /* of the socket, for argv */
    int fds[3], socket;
    size_t n_slots; /* slots of the hold, and lock */
    int lock; /* see run.h; -1: none */
    const char *failed; /* what could not be done; NULL: nothing */
    int failure; /* errno */
    int failed_fd;
    char stacks[2][STACK_SIZE] __attribute__((aligned(64)));
    int slots[];
};

static bool fail(struct start *start, const char *what, int fd)
{
    start->failure = errno;
    start->failed = what;
    start->failed_fd = fd;
    return false;
}

/* One of 0 to 2 that belongs elsewhere gets out of the way before it is written over. */
static bool place_stdio(struct start *start)
{
    for (int i = 0; i < 3; i++) {
        int fd = start->fds[i];
        if (fd < 0 || fd > STDERR_FILENO || fd == i)
            continue;
        start->fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (start->fds[i] < 0)
            return fail(start, "stdio", fd);
    }
    for (int i = 0; i < 3; i++) {
        int fd = start->fds[i];
        int done = fd < 0 ? 0 : fd == i ? fcntl(fd, F_SETFD, 0) : dup2(fd, i);
        if (done < 0)
            return fail(start, "stdio", fd);
    }
    return true;
}

/* A copy at a high number where there is room for one, else the same number. */
static bool place_slot(struct start *start, int *slot)
{
    int copy = *slot < FK_LOWEST_INHERITED ? fcntl(*slot, F_DUPFD, FK_LOWEST_INHERITED) : -1;
    if (copy >= 0)
        *slot = copy;
    return copy >= 0 || fcntl(*slot, F_SETFD, 0) == 0 || fail(start, "slot", *slot);
}

/* In memory shared with a host that goes on with other threads: system calls only. */
static int become_helper(void *data)
{
    struct start *start = data;
    bool placed = place_stdio(start);
    for (size_t i = 0; placed && i < start->n_slots; i++)
        placed = place_slot(start, &start->slots[i]);
    if (placed && fcntl(start->socket, F_SETFD, 0) == 0)
        execve(start->tool, start->argv, environ);
    if (placed)
        fail(start, "exec", -1);
    return 127;
}

/* Not vfork(2): AddressSanitizer's expects to be on a stack that it knows. */
static int run_intermediate(void *data)
{
    struct start *start = data;
    if (clone(become_helper, start->stacks[1] + STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, start) < 0)
        fail(start, "clone", -1);
    return 0;
}

/* glibc's own signals too (cancellation, setuid in all threads): their handlers would run in the wrong process. */
static void block_all(uint64_t *before)
{
    uint64_t all = UINT64_MAX;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, before, sizeof all);
}

static void unblock(const uint64_t *before)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, NULL, sizeof *before);
}

static int complain_of_start(const struct start *start)
{
    int code = -start->failure;
    if (strcmp(start->failed, "exec") == 0)
        return fk_fail(
            -ENOPKG,
            "the flockctl tool %s, which looks after commands, can't be executed: %s; install it there, or name its "
            "path in FLOCKCTL_TOOL",
            start->tool, strerrordesc_np(start->failure));
    if (strcmp(start->failed, "clone") == 0)
        return fk_fail_errno(code, "can't start a process");
    return fk_fail_errno(code, "can't give descriptor %d to the command", start->failed_fd);
}

/* *mask: that of the calling thread. */
static int start_helper(struct start *start, uint64_t *mask, bool *lost)
{
    int status = 0;
    block_all(mask);
    pid_t pid = clone(run_intermediate, start->stacks[0] + STACK_SIZE, CLONE_VM | CLONE_VFORK, start);
    int code = pid < 0 ? -errno : 0;
    while (pid > 0 && waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
        continue;
    unblock(mask);
    if (code < 0)
        return fk_fail_errno(code, "can't start a process");
    *lost = !WIFEXITED(status);
    if (*lost)
        return fk_fail(-ECHILD, "the process that starts the flockctl tool %s was killed", start->tool);
    return start->failed ? complain_of_start(start) : 0;
}

static size_t size_of_start(size_t n_slots)
{
    return sizeof(struct start) + n_slots * sizeof(int);
}

/* MAP_SHARED: Valgrind makes a fork of our clones, which would keep to itself what it tells us here. */
static struct start *new_start(const struct flk_run_spec *spec, int lock, const char *tool, int socket)
{
    size_t n_slots = (spec->hold ? fk_hold_count_slots(spec->hold) : 0) + (lock >= 0);
    struct start *start = mmap(NULL, size_of_start(n_slots), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        fk_fail_errno(-errno, "can't start a process");
        return NULL;
    }
    start->tool = tool;
    start->argv[0] = (char *)"flockctl";
    start->argv[1] = (char *)FK_HELPER_VERB;
    start->argv[2] = start->number;
    snprintf(start->number, sizeof start->number, "%d", socket);
    for (int i = 0; i < 3; i++)
        start->fds[i] = spec->fds ? spec->fds[i] : -1;
    start->socket = socket;
    start->n_slots = n_slots;
    if (spec->hold)
        fk_hold_list_slots(spec->hold, start->slots);
    start->lock = lock;
    if (lock >= 0)
        start->slots[n_slots - 1] = lock;
    return start;
}

/* ---- the spec ---- */

static int check_spec(const struct flk_run_spec *spec)
{
    uint64_t reserved = spec->reserved0;
    for (size_t i = 0; i < sizeof spec->reserved / sizeof *spec->reserved; i++)
        reserved |= spec->reserved[i];
    if (reserved || (spec->flags & ~ALL_FLAGS) || (spec->isolate & ~ALL_ISOLATE))
        return fk_fail(-EINVAL,
                       "a run's specification has fields that this release doesn't know; a newer library is needed");
    if (!spec->argv || !spec->argv[0])
        return fk_fail(-EINVAL, "a run's specification has no argv[0]; name the command");
    if (spec->signal < 0 || spec->signal > SIGRTMAX)
        return fk_fail(-EINVAL, "%d is not a signal; give one of 1 to %d, or 0 for SIGTERM", spec->signal, SIGRTMAX);
    if (spec->hold && spec->hold->generation != fk_registry_generation())
        return fk_fail(-EINVAL, "a forked child can't hand on what its parent holds");
    return 0;
}

static struct fk_supervise_spec translate(const struct flk_run_spec *spec)
{
    unsigned flags = 0;
    if (spec->flags & FLK_RUN_DETACH)
        flags |= FK_SUPERVISE_DETACH;
    if (spec->flags & FLK_RUN_PGRP)
        flags |= FK_SUPERVISE_PGRP;
    return (struct fk_supervise_spec){
        .argv = spec->argv,
        .envp = spec->envp,
        .dir = spec->dir,
        .cgroup = spec->cgroup,
        .limit_ms = spec->limit_ms > 0 ? spec->limit_ms : 0,
        .kill_after_ms = spec->kill_after_ms < 0 ? 0
                         : spec->kill_after_ms   ? spec->kill_after_ms
                                                 : DEFAULT_GRACE_MS,
        .signal = spec->signal ? spec->signal : SIGTERM,
        .flags = flags,
        .isolate = spec->isolate,
    };
}

/* ---- a run ---- */

/* Memory and socket. The socket's number may be another file's in a forked child, which has closed it. */
static void release_run(struct flk_run *run)
{
    if (run->generation == fk_registry_generation())
        fk_fd_close(&run->socket);
    fk_handed_unref(run->handed);
    free(run->detail);
    free(run->tool);
    free(run);
}

/* *helper: the other end of its socket. */
static int new_run(struct flk_run **made, int *helper)
{
    int code, fds[2];
    struct flk_run *run = calloc(1, sizeof *run);
    if (!run)
        return fk_fail(-ENOMEM, "out of memory");
    run->generation = fk_registry_generation();
    run->socket = -1;
    run->tool = strdup(fk_helper_tool());
    if (!run->tool) {
        release_run(run);
        return fk_fail(-ENOMEM, "out of memory");
    }
    do {
        fk_fd_enter();
        code = fk_fd_keep_pair(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), fds);
    } while (fk_fd_relieve(code));
    if (code < 0) {
        release_run(run);
        return fk_fail_errno(code, "can't make a socket for a command");
    }
    run->socket = fds[0];
    *helper = fds[1];
    *made = run;
    return 0;
}

/* A helper that is gone already, without having read all, will be found out by the wait. */
static int send_order(struct flk_run *run, const struct fk_helper_order *order)
{
    size_t size, sent = 0;
    char *memory = fk_helper_pack(order, &size);
    if (!memory)
        return fk_fail(-ENOMEM, "out of memory");
    while (sent < size) {
        ssize_t n = send(run->socket, memory + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    free(memory);
    return 0;
}

/* The slots' numbers are known when the helper has started. */
static int make_environment(const struct flk_run_spec *spec, const struct start *start, char ***envp)
{
    char *const *base = spec->envp ? (char *const *)spec->envp : environ;
    bool detached = spec->flags & FLK_RUN_DETACH;
    if (!spec->hold)
        return 0;
    return start->lock >= 0 ? fk_hold_environ_held(spec->hold, base, start->slots, envp)
                            : fk_hold_environ(spec->hold, base, detached ? NULL : start->slots, envp);
}

static int start_with(struct flk_run *run, const struct flk_run_spec *spec, int lock, int helper)
{
    bool lost = false;
    char **envp = NULL;
    struct fk_helper_order order = {.spec = translate(spec)};
    struct start *start = new_start(spec, lock, run->tool, helper);
    if (!start)
        return -ENOMEM;
    int code = start_helper(start, &order.mask, &lost);
    if (code == 0)
        code = make_environment(spec, start, &envp);
    if (envp)
        order.spec.envp = (const char *const *)envp;
    order.slots = start->slots;
    order.n_slots = start->n_slots;
    if (code == 0)
        code = send_order(run, &order);
    if (!lost) /* else the helper may still be running on its stack */
        munmap(start, size_of_start(start->n_slots));
    free(envp);
    return code;
}

static int start_with_hold(struct flk_run *run, const struct flk_run_spec *spec, int lock, int helper)
{
    int code = fk_hold_hand(spec->hold, &run->handed);
    if (code == 0) {
        code = start_with(run, spec, lock, helper);
        if (code < 0)
            fk_handed_end(run->handed);
    }
    return code;
}

/* ---- the public calls ---- */

int fk_run_start_cleanup(const struct flk_run_spec *spec, int lock, struct flk_run **run)
{
    FK_CLOSE_FD int helper = -1;
    struct flk_run *made = NULL;
    int code = check_spec(spec);
    if (code == 0)
        code = new_run(&made, &helper);
    if (code < 0)
        return code;
    code = spec->hold ? start_with_hold(made, spec, lock, helper) : start_with(made, spec, lock, helper);
    if (code < 0)
        release_run(made);
    else
        *run = made;
    return code;
}

int flk_run_start(const struct flk_run_spec *spec, struct flk_run **run)
{
    FK_ENTER();
    return fk_run_start_cleanup(spec, -1, run);
}

int flk_run_fd(const struct flk_run *run)
{
    return run->socket;
}

static void keep_result(struct flk_run *run, const struct fk_helper_answer *answer)
{
    bool exited = WIFEXITED(answer->status);
    run->result = (struct flk_run_result){
        .exit_code = exited ? WEXITSTATUS(answer->status) : -1,
        .signal = exited ? 0 : WTERMSIG(answer->status),
        .timed_out = answer->timed_out != 0,
        .stragglers = answer->stragglers,
        .left = answer->left,
        .ran_ms = answer->ran_ms,
        .rusage = answer->rusage,
    };
}

static void hear(struct flk_run *run)
{
    struct fk_helper_answer answer;
    int code = fk_helper_hear(run->socket, run->tool, &answer);
    bool gone = code == -EPROTONOSUPPORT || (code == 0 && answer.left == 0);
    if (code == 0 && answer.code == 0)
        keep_result(run, &answer);
    else if (code == 0)
        code = fk_fail(answer.code, "%s", answer.detail);
    else if (code != -EPROTONOSUPPORT)
        code = fk_fail(
            -ECHILD,
            "the flockctl tool %s, which looked after the command, ended before it; some of what the command has "
            "started may run on",
            run->tool);
    if (gone && run->handed)
        fk_handed_end(run->handed);
    run->detail = code < 0 ? strdup(flk_error_detail()) : NULL;
    run->code = code;
    run->over = true;
}

/* 0 when there is something to hear. */
static int wait_readable(const struct flk_run *run, int64_t timeout_ms, bool cancellable)
{
    struct pollfd event = {.fd = run->socket, .events = POLLIN};
    int64_t deadline = fk_deadline_in_ms(timeout_ms);
    int ready = cancellable ? fk_cancel_poll(&event, 1, deadline) : fk_poll_until(&event, 1, deadline);
    if (ready < 0)
        return fk_fail_errno(ready, "can't wait for a command");
    return ready > 0 ? 0 : fk_fail(-EAGAIN, "the command or something that it has started still runs");
}

int flk_run_wait(struct flk_run *run, int64_t timeout_ms, struct flk_run_result *result)
{
    FK_ENTER();
    if (run->generation != fk_registry_generation())
        return fk_fail(-EINVAL, "a forked child can't wait for what its parent runs");
    if (!run->over) {
        int code = wait_readable(run, timeout_ms, true);
        if (code < 0)
            return code;
        hear(run);
    }
    if (run->code == 0)
        *result = run->result;
    return run->code < 0 ? fk_fail(run->code, "%s", run->detail ? run->detail : "out of memory") : 0;
}

int flk_run_kill(struct flk_run *run, int signal)
{
    unsigned char byte = (unsigned char)signal;
    FK_ENTER();
    if (run->generation != fk_registry_generation())
        return fk_fail(-EINVAL, "a forked child can't end what its parent runs");
    if (signal < 0 || signal > SIGRTMAX)
        return fk_fail(-EINVAL, "%d is not a signal; give one of 1 to %d, or 0 to end the command", signal, SIGRTMAX);
    if (!run->over && send(run->socket, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
        return 0;
    if (run->over || errno == EPIPE || errno == ECONNRESET)
        return fk_fail(-ESRCH, "the command and all that it has started have ended");
    return fk_fail_errno(-errno, "can't send a signal to a command");
}

void flk_run_free(struct flk_run *run)
{
    if (!run)
        return;
    FK_ENTER();
    if (!run->over && run->generation == fk_registry_generation()) {
        int code = flk_run_kill(run, SIGKILL);
        if ((code == 0 || code == -ESRCH) && wait_readable(run, FLK_FOREVER, false) == 0)
            hear(run); /* that it is over; whatever became of it is of no interest any more */
    }
    release_run(run);
}

static void free_run_at(struct flk_run **run)
{
    flk_run_free(*run);
}

int flk_run(const struct flk_run_spec *spec, struct flk_run_result *result)
{
    __attribute__((cleanup(free_run_at))) struct flk_run *run = NULL;
    FK_ENTER();
    int code = flk_run_start(spec, &run);
    return code < 0 ? code : flk_run_wait(run, FLK_FOREVER, result);
}
