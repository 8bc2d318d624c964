/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "start.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "isolate.h"

#define EXIT_UNBORN 127 /* nobody looks at it */

/* What a child that isn't to be tells its parent: through memory after vfork, through a pipe after clone3. */
struct failure {
    enum { AT_EXEC, AT_DIRECTORY, AT_FILES, AT_NAMESPACE } step;
    int code; /* errno; 0: none */
    const char *what; /* AT_NAMESPACE: static, so the same in both */
};

/* ---- sentences ---- */

static bool is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* Where exec looked: the first file of that name. */
static bool find_file(const char *name, char *path, size_t size)
{
    const char *at = getenv("PATH");
    if (strchr(name, '/'))
        at = NULL;
    else if (!at)
        at = "/bin:/usr/bin";
    if (!at)
        return snprintf(path, size, "%s", name) < (int)size && is_file(path);
    for (;; at++) {
        int length = (int)strcspn(at, ":");
        if (snprintf(path, size, "%.*s%s%s", length, at, length ? "/" : "", name) < (int)size && is_file(path))
            return true;
        at += length;
        if (!*at)
            return false;
    }
}

/* What stands behind "#!", up to the first blank; "": no such line. */
static void read_interpreter(const char *path, char *interpreter, size_t size)
{
    char line[256];
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
    ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    *interpreter = '\0';
    if (length < 2)
        return;
    line[length] = '\0';
    if (memcmp(line, "#!", 2) == 0) {
        const char *at = line + 2 + strspn(line + 2, " \t");
        snprintf(interpreter, size, "%.*s", (int)strcspn(at, " \t\n"), at);
    } else if (memcmp(line, ELFMAG, SELFMAG) == 0) {
        snprintf(interpreter, size, "%s", ELFMAG);
    }
}

/* exec says "no such file" also when a script's interpreter is what is missing. */
static int fail_not_found(const char *name)
{
    char path[PATH_MAX], interpreter[256];
    if (!find_file(name, path, sizeof path))
        return fk_fail(-ENOENT, "the command \"%s\" wasn't found%s", name,
                       strchr(name, '/') ? "; check the path" : " in PATH; check the spelling, or give its path");
    read_interpreter(path, interpreter, sizeof interpreter);
    size_t length = strlen(interpreter);
    if (strcmp(interpreter, ELFMAG) == 0)
        return fk_fail(
            -ENOENT,
            "the command \"%s\" can't be run: %s is there, but not the dynamic loader that its header names; "
            "install the libraries of that kind of program",
            name, path);
    if (length && interpreter[length - 1] == '\r')
        return fk_fail(-ENOENT,
                       "the command \"%s\" can't be run: the first line of %s ends with a carriage return, so that its "
                       "interpreter would be \"%.*s\\r\"; remove it",
                       name, path, (int)length - 1, interpreter);
    if (length && !is_file(interpreter))
        return fk_fail(
            -ENOENT,
            "the command \"%s\" can't be run: the first line of %s names the interpreter %s, which isn't there; "
            "install that, or correct the line",
            name, path, interpreter);
    return fk_fail(-ENOENT, "the command \"%s\" can't be run: %s is there, but not what it needs to run", name, path);
}

static int fail_exec(const char *name, int code)
{
    if (code == ENOENT)
        return fail_not_found(name);
    if (code == EACCES)
        return fk_fail(
            -code,
            "the command \"%s\" can't be run: it isn't an executable file, or a directory above it is closed to "
            "us; chmod +x may help",
            name);
    return fk_fail(-code, "the command \"%s\" can't be run: %s", name, strerrordesc_np(code));
}

static int fail(const struct fk_supervise_spec *spec, const struct failure *failure, bool *at_exec)
{
    switch (failure->step) {
    case AT_EXEC:
        *at_exec = true;
        return fail_exec(spec->argv[0], failure->code);
    case AT_DIRECTORY:
        return fk_fail_errno(-failure->code, "can't change to %s for the command", spec->dir);
    case AT_FILES:
        return fk_fail_errno(-failure->code, "can't give the command its stdin, stdout and stderr");
    case AT_NAMESPACE:
        break;
    }
    return fk_isolate_complain(spec->isolate, &(struct fk_isolate_failure){failure->code, failure->what});
}

/* ---- in the child: system calls only, since after vfork it lives in its parent's memory ---- */

/* Two of them may be in each other's place, so all go up first. */
static bool take_files(const int stdio[3])
{
    int high[3];
    for (int i = 0; i < 3; i++) {
        high[i] = stdio[i];
        if (stdio[i] >= 0 && stdio[i] < 3 && stdio[i] != i)
            high[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
        if (stdio[i] >= 0 && high[i] < 0)
            return false;
    }
    for (int i = 0; i < 3; i++)
        if (high[i] >= 0 && (high[i] == i ? fcntl(i, F_SETFD, 0) : dup2(high[i], i)) < 0)
            return false;
    return true;
}

static void lead_group(int terminal)
{
    setpgid(0, 0);
    if (terminal >= 0)
        tcsetpgrp(terminal, getpid()); /* SIGTTOU is blocked still */
}

/* Comes back only to say why not. */
static struct failure become(const struct fk_supervise_spec *spec, int terminal)
{
    if (spec->flags & FK_SUPERVISE_PGRP)
        lead_group(terminal);
    if (!take_files(spec->stdio))
        return (struct failure){AT_FILES, errno, NULL};
    if (spec->dir && chdir(spec->dir) < 0)
        return (struct failure){AT_DIRECTORY, errno, NULL};
    if (spec->flags & FK_SUPERVISE_SIZE_LIMIT)
        signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, &spec->mask, NULL);
    /* Like env(1), execvpe hands a script without a "#!" line to the shell. */
    execvpe(spec->argv[0], (char *const *)spec->argv, (char *const *)spec->envp);
    return (struct failure){AT_EXEC, errno, NULL};
}

static void die_with_parent(const struct fk_supervise_spec *spec)
{
    if (!(spec->flags & FK_SUPERVISE_DETACH))
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

/* ---- vfork ---- */

/* vfork and not posix_spawn: that one sets 60 signals to their defaults, one by one, which are ours already. */
static int start_by_vfork(const struct fk_supervise_spec *spec, int terminal, pid_t *pid, bool *at_exec)
{
    volatile struct failure failure = {.code = 0};
    pid_t parent = getpid(), child = vfork();
    if (child == 0) {
        die_with_parent(spec);
        if (getppid() == parent || (spec->flags & FK_SUPERVISE_DETACH)) {
            struct failure why = become(spec, terminal);
            failure.step = why.step;
            failure.code = why.code;
        }
        _exit(EXIT_UNBORN);
    }
    if (child < 0)
        return fk_fail(-errno, "can't start a process for %s: %s; end some, or raise the limit (ulimit -u)",
                       spec->argv[0], strerrordesc_np(errno));
    if (failure.code) {
        waitpid(child, NULL, 0);
        return fail(spec, &(struct failure){failure.step, failure.code, NULL}, at_exec);
    }
    *pid = child;
    return 0;
}

/* ---- clone3 ---- */

struct birth {
    const struct fk_supervise_spec *spec;
    const struct fk_isolate_ids *ids;
    pid_t parent;
    int terminal, pipe[2];
};

/* Inside a new pid namespace getppid() says 0, and fk_isolate_enter() looks itself. */
static bool has_parent(const struct birth *birth)
{
    return birth->spec->isolate || (birth->spec->flags & FK_SUPERVISE_DETACH) || getppid() == birth->parent;
}

static void be_born(const struct birth *birth) __attribute__((noreturn));
static void be_born(const struct birth *birth)
{
    struct fk_isolate_failure refused = {0};
    struct failure failure = {.step = AT_NAMESPACE};
    die_with_parent(birth->spec);
    if (!has_parent(birth))
        _exit(EXIT_UNBORN);
    if (birth->spec->isolate && fk_isolate_enter(birth->spec->isolate, birth->ids, &refused) < 0) {
        failure.code = refused.code;
        failure.what = refused.what;
    } else {
        die_with_parent(birth->spec); /* a change of user has taken it back */
        failure = become(birth->spec, birth->terminal);
    }
    if (write(birth->pipe[1], &failure, sizeof failure) < 0)
        _exit(EXIT_UNBORN);
    _exit(EXIT_UNBORN);
}

static int fail_clone(const struct fk_supervise_spec *spec, const struct fk_cgroup *group, int code)
{
    if (code == EAGAIN || code == ENOMEM)
        return fk_fail(-code, "can't start a process for %s: %s; end some, or raise the limit (ulimit -u)",
                       spec->argv[0], strerrordesc_np(code));
    bool of_group = code == EBUSY || code == EACCES || code == ENODEV || code == EOPNOTSUPP || code == ENOENT;
    if (group->directory >= 0 && (of_group || !spec->isolate))
        return fk_fail_errno(-code, "can't start %s inside the cgroup %s", spec->argv[0], group->path);
    return fk_isolate_complain(spec->isolate, &(struct fk_isolate_failure){code, NULL});
}

static int make_child(struct birth *birth, const struct fk_cgroup *group, pid_t *pid)
{
    struct clone_args arguments = {.flags = fk_isolate_clone_flags(birth->spec->isolate), .exit_signal = SIGCHLD};
    if (group->directory >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)group->directory;
    }
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0)
        be_born(birth);
    if (child < 0)
        return fail_clone(birth->spec, group, errno);
    *pid = (pid_t)child;
    return 0;
}

static int start_by_clone(const struct fk_supervise_spec *spec, const struct fk_start_place *place, pid_t *pid,
                          bool *at_exec)
{
    struct birth birth = {.spec = spec, .ids = place->ids, .terminal = place->terminal, .parent = getpid()};
    struct failure failure;
    pid_t child = 0;
    fk_fd_enter();
    int code = fk_fd_keep_pair(pipe2(birth.pipe, O_CLOEXEC), birth.pipe);
    if (code < 0)
        return fk_fail_errno(code, "can't make a pipe");
    code = make_child(&birth, place->group, &child);
    fk_fd_close(&birth.pipe[1]);
    ssize_t length = 0;
    while (code == 0 && (length = read(birth.pipe[0], &failure, sizeof failure)) < 0 && errno == EINTR)
        ;
    fk_fd_close(&birth.pipe[0]);
    if (code == 0 && length == sizeof failure) {
        waitpid(child, NULL, 0);
        code = fail(spec, &failure, at_exec);
    }
    if (code == 0)
        *pid = child;
    return code;
}

int fk_start(const struct fk_supervise_spec *spec, const struct fk_start_place *place, pid_t *pid, bool *at_exec)
{
    *at_exec = false;
    if (spec->isolate || place->group->directory >= 0)
        return start_by_clone(spec, place, pid, at_exec);
    return start_by_vfork(spec, place->terminal, pid, at_exec);
}
