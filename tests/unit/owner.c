/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "owner.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
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
    return done_testing();
}
