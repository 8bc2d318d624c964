/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

static char name[64]; /* nobody else's */
static struct {
    char sentence[1024];
    _Atomic int ready;
} * shared;

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void names(void)
{
    struct fk_cgroup group = {.directory = -7};
    const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a/../../b", "./a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(fk_cgroup_open(bad[i], &group) == -EINVAL && group.directory == -7, "\"%s\" is refused", bad[i]);
    ok(strstr(flk_error_detail(), "\"./a\""), "%s", flk_error_detail());
}

/* A process that starts inside; with children of its own, all of which only SIGKILL ends. */
static pid_t start_inside(const struct fk_cgroup *group, int children)
{
    struct clone_args arguments = {
        .exit_signal = SIGCHLD, .flags = CLONE_INTO_CGROUP, .cgroup = (unsigned)group->directory};
    fflush(stdout);
    shared->ready = 0;
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0)
        bail_out("clone3 into %s: %s", group->path, strerror(errno));
    if (pid == 0) {
        signal(SIGTERM, SIG_IGN);
        for (int i = 0; i < children; i++)
            if (fork() == 0)
                break;
        setsid();
        alarm(60);
        shared->ready++;
        while (pause() < 0)
            ;
    }
    for (int tries = 0; shared->ready <= children; tries++) {
        if (tries > 20000)
            bail_out("no process inside");
        usleep(1000);
    }
    return pid;
}

static void one_group(void)
{
    struct fk_cgroup group, again;
    char path[PATH_MAX];
    if (!ok(fk_cgroup_open(name, &group) == 0, "a group is made below our own")) {
        diag("%s", flk_error_detail());
        return;
    }
    snprintf(path, sizeof path, "%s", group.path);
    ok(path[0] == '/' && is_there(path) && group.made == 1, "it is at an absolute path, and ours");
    is_int(fcntl(group.directory, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "its descriptor closes on exec");
    is_int(fk_cgroup_is_empty(&group), 1, "it is empty");
    ok(fk_cgroup_open(name, &again) == 0 && again.made == 0, "somebody else finds it there");
    fk_cgroup_close(&again);
    ok(is_there(path), "and doesn't remove it");
    pid_t pid = start_inside(&group, 20);
    is_int(fk_cgroup_is_empty(&group), 0, "with processes in it, it isn't empty");
    int code = fk_cgroup_kill(&group);
    if (code == -EOPNOTSUPP) {
        skip("no cgroup.kill here");
        kill(pid, SIGKILL);
    } else {
        is_int(code, 0, "all in it are ended by one call");
    }
    is_int(test_reap(pid), -SIGKILL, "the first is dead");
    fk_cgroup_close(&group);
    ok(!is_there(path), "closing waits for the others, and removes it");
    ok(group.directory == -1 && !group.path, "nothing is left in the structure");
    fk_cgroup_close(&group);
    ok(fk_cgroup_open(name, &group) == 0, "it can be made again");
    fk_cgroup_close(&group);
}

static void levels(void)
{
    struct fk_cgroup outer, inner;
    char long_name[128], path[PATH_MAX];
    if (fk_cgroup_open(name, &outer) < 0)
        bail_out("%s", flk_error_detail());
    snprintf(path, sizeof path, "%s", outer.path);
    snprintf(long_name, sizeof long_name, "%s/a/b", name);
    ok(fk_cgroup_open(long_name, &inner) == 0 && inner.made == 2, "two levels below one that is there");
    fk_cgroup_close(&inner);
    is_int(access(path, F_OK), 0, "what we made is removed, what was there stays");
    strcat(path, "/a");
    ok(!is_there(path), "both levels are gone");
    snprintf(long_name, sizeof long_name, "%s/a/b", name);
    ok(fk_cgroup_open(long_name, &inner) == 0, "made again");
    mkdir(strcat(path, "/c"), 0755);
    fk_cgroup_close(&inner);
    ok(is_there(path), "a level that somebody else uses stays");
    rmdir(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
    fk_cgroup_close(&outer);
}

static void somebody_stays(void)
{
    struct fk_cgroup group;
    char path[PATH_MAX];
    if (fk_cgroup_open(name, &group) < 0)
        bail_out("%s", flk_error_detail());
    snprintf(path, sizeof path, "%s", group.path);
    pid_t pid = start_inside(&group, 0);
    fk_cgroup_close(&group);
    ok(is_there(path), "a group with a process in it isn't removed");
    kill(pid, SIGKILL);
    test_reap(pid);
    rmdir(path);
}

static int open_and_tell(void *data)
{
    struct fk_cgroup group;
    (void)data;
    int code = fk_cgroup_open(name, &group);
    snprintf(shared->sentence, sizeof shared->sentence, "%s", flk_error_detail());
    if (code == 0)
        fk_cgroup_close(&group);
    return -code;
}

/* A world of mounts of its own without any cgroup2. */
static int without_cgroups(void *data)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0)
        return 100;
    umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    umount2("/sys/fs/cgroup", MNT_DETACH);
    return open_and_tell(data);
}

/* The only mount is at a path with a space, and shows no more than one group. */
static int at_an_odd_place(void *data)
{
    struct fk_cgroup outer, group;
    char path[PATH_MAX], *directory = data;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        fk_cgroup_open(name, &outer) < 0)
        return 100;
    snprintf(path, sizeof path, "%s/cgroup.procs", outer.path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1 || mount(outer.path, directory, "none", MS_BIND, NULL) < 0)
        return 101;
    umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    umount2("/sys/fs/cgroup", MNT_DETACH);
    int code = fk_cgroup_open("below", &group);
    if (code < 0)
        return -code;
    snprintf(shared->sentence, sizeof shared->sentence, "%s", group.path);
    bool empty = fk_cgroup_is_empty(&group) == 1;
    fk_cgroup_close(&group);
    return empty ? 0 : 102;
}

static void remove_group(void)
{
    struct fk_cgroup group;
    if (fk_cgroup_open(name, &group) < 0)
        return;
    group.made = 1;
    fk_cgroup_close(&group);
}

static void odd_places(void)
{
    const char *directory = test_path("a place");
    char expected[PATH_MAX];
    mkdir(directory, 0755);
    is_int(test_in_child(without_cgroups, NULL), ENOENT, "without a mount of cgroup2: no such thing");
    ok(strstr(shared->sentence, "mount -t cgroup2"), "%s", shared->sentence);
    is_int(test_in_child(at_an_odd_place, (void *)directory), 0, "a mount at another place, of a part of the tree");
    snprintf(expected, sizeof expected, "%s/below", directory);
    is_str(shared->sentence, expected, "is found, and our own group in it");
    remove_group();
}

static void refusals(void)
{
    is_int(test_as_other_user(NULL, open_and_tell, NULL), EACCES,
           "an ordinary user whose group isn't given to him is refused");
    ok(strstr(shared->sentence, "Delegate=yes") && strstr(shared->sentence, name), "%s", shared->sentence);
}

int main(void)
{
    struct fk_cgroup group;
    tap_deadline(60);
    shared = test_shared(sizeof *shared);
    snprintf(name, sizeof name, "flockctl-test-%d", (int)getpid());
    names();
    int before = test_descriptors(), code = fk_cgroup_open(name, &group);
    if (code < 0) {
        skip("no group can be made here: %s", flk_error_detail());
        return done_testing();
    }
    fk_cgroup_close(&group);
    one_group();
    levels();
    somebody_stays();
    if (test_is_root()) {
        odd_places();
        refusals();
    } else {
        skip("only root may mount, and be refused what it has");
    }
    is_int(test_descriptors(), before, "no descriptor is left open");
    return done_testing();
}
