/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "owner.h"

#include <errno.h>
#include <pthread.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "helpers.h"
#include "registry.h"
#include "tap.h"

static struct fk_owner *other; /* shared with children */

static struct fk_owner self(void)
{
    const struct fk_owner *owner;
    if (fk_owner_self(&owner) < 0)
        bail_out("%s", flk_error_detail());
    return *owner;
}

static bool has_pidfds(void)
{
    int pidfd = pidfd_open(getpid(), 0);
    if (pidfd >= 0)
        close(pidfd);
    return pidfd >= 0;
}

/* A child that tells who it is and stays. */
static pid_t start_child(const char *name)
{
    int ready[2];
    char byte;
    if (pipe(ready) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        const struct fk_owner *owner;
        fk_registry_enter();
        if (name)
            prctl(PR_SET_NAME, name);
        if (fk_owner_self(&owner) < 0)
            _exit(1);
        *other = *owner;
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        bail_out("the child has failed");
    close(ready[0]);
    return pid;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    test_reap(pid);
}

static void this_process(void)
{
    struct fk_owner owner = self();
    is_int(owner.pid, getpid(), "self: pid");
    is_int((int)strlen(owner.boot_id), 36, "self: boot id");
    ok(owner.start_time > 0 && owner.pid_ns > 0, "self: start time and pid namespace");
    is_int(fk_owner_look(&owner), FK_ALIVE, "this process is alive");
    ok(strstr(fk_owner_command(), "owner") != NULL, "its command line: %s", fk_owner_command());
}

static void what_differs(void)
{
    struct fk_owner owner = self();
    owner.start_time++;
    is_int(fk_owner_look(&owner), FK_DEAD, "another start time: dead, its pid is used again");
    owner.time_ns++;
    owner.pidfd_inode = 0;
    is_int(fk_owner_look(&owner), FK_ALIVE, "in another time namespace start times can't be compared: alive");
    owner = self();
    owner.boot_id[0] = owner.boot_id[0] == '0' ? '1' : '0';
    is_int(fk_owner_look(&owner), FK_DEAD, "another boot: dead");
    owner = self();
    owner.pid_ns++;
    owner.pid = 1 << 30;
    is_int(fk_owner_look(&owner), FK_ALIVE, "a pid of another pid namespace proves nothing: alive");
    owner = self();
    if (owner.pidfd_inode) {
        owner.pidfd_inode++;
        is_int(fk_owner_look(&owner), FK_DEAD, "another pidfd inode: dead");
    } else {
        skip("pidfds have no inodes of their own here");
    }
}

static void a_child(void)
{
    pid_t pid = start_child(NULL);
    is_int(other->pid, pid, "a forked child looks itself up anew");
    is_int(fk_owner_look(other), FK_ALIVE, "it is alive");
    test_stop(pid);
    is_int(fk_owner_look(other), FK_STOPPED, "stopped");
    kill(pid, SIGCONT);
    end_child(pid);
    if (has_pidfds())
        is_int(fk_owner_look(other), FK_DEAD, "and dead when there is no such process any more");
    else
        skip("no pidfd_open() here");
}

/* Killed, but its parent hasn't asked: that may never happen. */
static void a_zombie(void)
{
    if (!has_pidfds()) {
        skip("no pidfd_open() here");
        return;
    }
    pid_t pid = start_child(NULL);
    int pidfd = pidfd_open(pid, 0);
    kill(pid, SIGKILL);
    ok(test_readable(pidfd, 10000), "a process is killed and not reaped");
    is_int(fk_owner_look(other), FK_DEAD, "it is dead all the same");
    close(pidfd);
    test_reap(pid);
}

static void *stay(void *data)
{
    (void)data;
    const char *text = "";
    if (write(*(int *)data, text, 1) != 1)
        return NULL;
    pause();
    return NULL;
}

/* Its state reads Z while the other threads go on. */
static void without_main_thread(void)
{
    int ready[2];
    char byte;
    if (pipe(ready) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        pthread_t thread;
        const struct fk_owner *owner;
        fk_registry_enter();
        if (fk_owner_self(&owner) < 0)
            _exit(1);
        *other = *owner;
        pthread_create(&thread, NULL, stay, &ready[1]);
        syscall(SYS_exit, 0);
    }
    close(ready[1]);
    ok(read(ready[0], &byte, 1) == 1, "a process's main thread ends");
    close(ready[0]);
    is_int(fk_owner_look(other), FK_ALIVE, "while another goes on it is alive");
    end_child(pid);
}

static void names(void)
{
    static const char *const odd[] = {") R 1", "a) T 1 (b", "((()))", "x\n) Z 9", ") "};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        pid_t pid = start_child(odd[i]);
        is_int(fk_owner_look(other), FK_ALIVE, "a process with an odd name is alive (%zu)", i + 1);
        test_stop(pid);
        is_int(fk_owner_look(other), FK_STOPPED, "and stopped when it is");
        end_child(pid);
    }
}

static int look_from_inside(void *data)
{
    (void)data;
    return fk_owner_look(other) == FK_ALIVE ? 0 : 1;
}

static int in_new_namespace(void *data)
{
    if (unshare(CLONE_NEWPID) < 0)
        return 77;
    pid_t pid = fork();
    if (pid == 0)
        _exit(look_from_inside(data));
    return test_reap(pid);
}

/* From inside, our pid is nobody's; that must not look like a death. */
static void namespaces(void)
{
    *other = self();
    int status = test_in_child(in_new_namespace, NULL);
    if (status == 77)
        skip("no new pid namespace can be made here");
    else
        is_int(status, 0, "seen from a new pid namespace, a process of the old one is alive");
}

/* ---- just killed ---- */

/* Says who it is, and hangs up by its end alone. */
static int start_victim(pid_t *pid, bool threads)
{
    int ready[2], ends[2];
    char byte;
    if (pipe(ready) < 0 || pipe(ends) < 0)
        bail_out("pipe: %s", strerror(errno));
    *pid = tap_fork();
    if (*pid == 0) {
        const struct fk_owner *owner;
        pthread_t thread;
        fk_registry_enter();
        if (fk_owner_self(&owner) < 0)
            _exit(1);
        *other = *owner;
        close(ends[0]);
        for (int i = 0; threads && i < 3; i++)
            pthread_create(&thread, NULL, stay, &ready[1]);
        stay(&ready[1]);
        _exit(1);
    }
    close(ready[1]);
    close(ends[1]);
    for (int i = 0; i < (threads ? 4 : 1); i++)
        if (read(ready[0], &byte, 1) != 1)
            bail_out("the child has failed");
    close(ready[0]);
    return ends[0];
}

/* The hang-up tells that its descriptors are closed; it has still to end. */
static void at_the_hang_up(void)
{
    enum { KILLS = 1000 };
    int alive = 0, waited = 0;
    if (!has_pidfds()) {
        skip("no pidfd_open() here");
        return;
    }
    for (int i = 0; i < KILLS; i++) {
        pid_t pid;
        const char *reason;
        int end = start_victim(&pid, i % 2);
        struct pollfd hang_up = {.fd = end};
        kill(pid, SIGKILL);
        if (poll(&hang_up, 1, 60000) != 1)
            bail_out("no hang-up");
        waited += fk_owner_look(other) != FK_DEAD;
        alive += fk_owner_judge(other, 10000, &reason) != FK_DEAD;
        close(end);
        test_reap(pid);
    }
    is_int(alive, 0, "%d were killed, and each was proven dead at its hang-up, %d of them while they were exiting", KILLS,
           waited);
}

/* ---- a pid that is used again ---- */

static pid_t clone_with_pid(pid_t wanted)
{
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
    } how = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wanted, .set_tid_size = 1};
    return (pid_t)syscall(SYS_clone3, &how, sizeof how);
}

/* The same number for another process. It starts in a later clock tick: the loop sees to that. */
static pid_t use_again(pid_t pid, uint64_t start_time)
{
    for (;;) {
        struct fk_owner fresh;
        pid_t again = clone_with_pid(pid);
        if (again == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pause();
            _exit(0);
        }
        if (again < 0)
            return again;
        if (fk_owner_of(pid, &fresh) == 0 && fresh.start_time != start_time)
            return again;
        end_child(again);
    }
}

static void pid_used_again(void)
{
    pid_t pid = start_child(NULL);
    const char *reason;
    enum fk_life life;
    end_child(pid);
    pid_t again = use_again(pid, other->start_time);
    if (again < 0) {
        skip("clone3(set_tid): %s", strerror(errno));
        skip("clone3(set_tid)");
        skip("clone3(set_tid)");
        skip("clone3(set_tid)");
        return;
    }
    life = fk_owner_judge(other, 0, &reason);
    is_int(life, FK_DEAD, "its pid is used again: dead, %s", reason);
    ok(fk_owner_is_dead(other), "quickly, too");
    struct fk_owner owner = *other;
    owner.pidfd_inode = 0;
    life = fk_owner_judge(&owner, 0, &reason);
    is_int(life, FK_DEAD, "by the start time alone: dead, %s", reason);
    struct fk_owner twin;
    fk_owner_of(pid, &twin);
    twin.pidfd_inode = 0;
    is_int(fk_owner_judge(&twin, 0, &reason), FK_ALIVE, "in the same clock tick, without inodes: alive");
    end_child(again);
}

/* Only a thread, or a session, has the number. */
static void no_process(void)
{
    int ready[2], code;
    pid_t numbers[2];
    const char *reason;
    struct fk_owner owner = self();
    if (pipe(ready) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        setsid();
        pid_t member = fork();
        numbers[0] = getpid();
        numbers[1] = member;
        if (member > 0 && write(ready[1], numbers, sizeof numbers) == sizeof numbers)
            _exit(0);
        pause();
    }
    if (read(ready[0], numbers, sizeof numbers) != sizeof numbers)
        bail_out("the child has failed");
    test_reap(pid);
    owner.pid = numbers[0];
    owner.pidfd_inode = 0;
    is_int(fk_owner_judge(&owner, 0, &reason), FK_DEAD, "a number that only a session has: dead");
    kill(numbers[1], SIGKILL);
    pid = start_child(NULL);
    code = fk_owner_of(pid, &owner);
    is_int(code, 0, "another process is looked up");
    ok(memcmp(&owner, other, sizeof owner) == 0, "as it sees itself");
    end_child(pid);
    code = fk_owner_of(pid, &owner);
    is_int(code, -ESRCH, "not when it has ended: %s", flk_error_detail());
}

static int judge_other(const char *expected)
{
    const char *reason;
    struct fk_owner owner = *other;
    owner.pidfd_inode = 0;
    return fk_owner_judge(&owner, 0, &reason) == FK_ALIVE && strstr(reason, expected) ? 0 : 1;
}

static int without_proc(void *data)
{
    const struct fk_owner *owner;
    (void)data;
    if (fk_owner_self(&owner) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/proc", "tmpfs", 0, NULL) < 0)
        return 77;
    return judge_other("/proc doesn't say");
}

/* In a pid namespace of its own, whose /proc is still the outer one's: there the same numbers are other processes. */
static int with_foreign_proc(void *data)
{
    (void)data;
    if (unshare(CLONE_NEWPID) < 0)
        return 77;
    pid_t pid = fork();
    if (pid == 0) {
        const struct fk_owner *owner;
        fk_registry_enter();
        if (fork() == 0) {
            fk_registry_enter();
            if (fk_owner_self(&owner) < 0)
                _exit(1);
            *other = *owner;
            kill(1, SIGUSR1);
            pause();
        }
        sigset_t set;
        int number;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        _exit(sigwait(&set, &number) == 0 ? judge_other("/proc doesn't say") : 1);
    }
    return test_reap(pid);
}

static void is_zero_or_skip(int status, const char *what)
{
    if (status == 77)
        skip("only root can do that");
    else
        is_int(status, 0, "%s", what);
}

static void unreadable_proc(void)
{
    sigset_t set;
    pid_t pid = start_child(NULL);
    is_zero_or_skip(test_in_child(without_proc, NULL), "no /proc: alive as long as the pid is in use");
    end_child(pid);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    is_zero_or_skip(test_in_child(with_foreign_proc, NULL), "/proc of another pid namespace proves nothing");
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void words(void)
{
    char text[FK_OWNER_TEXT_SIZE];
    struct fk_owner owner = self(), again;
    fk_owner_format(&owner, ',', text);
    is_int(fk_owner_parse(text, &again), 0, "one word says all: %s", text);
    ok(memcmp(&owner, &again, sizeof owner) == 0, "the same");
    is_int(fk_owner_parse("", &again), -EINVAL, "an empty one says nothing");
    is_int(fk_owner_parse("pid=1,boot=x", &again), -EINVAL, "nor a part");
    is_int(fk_owner_parse("pid=1,colour=red", &again), -EINVAL, "nor something else");
}

int main(void)
{
    tap_deadline(30);
    fk_registry_enter();
    other = test_shared(sizeof *other);
    this_process();
    what_differs();
    a_child();
    a_zombie();
    without_main_thread();
    names();
    namespaces();
    at_the_hang_up();
    pid_used_again();
    no_process();
    unreadable_proc();
    words();
    return done_testing();
}
