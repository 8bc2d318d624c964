/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Each system call of flk_once() and of `flockctl once` that is about files fails once, and the builder is killed (-9) at each.
 * Whatever it was: under OUTPUT there is the old whole or the new whole; who fails says what couldn't be done; the next
 * run builds and leaves nothing else behind, also not of the one before; and the one after that finds it current.
 *
 * The calls come here by way of a seccomp filter in the builder. Calls of its children go on untouched.
 *
 * STRESS_SCALE 3 and above takes every call, below that every third. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/helpers.h"
#include "flockctl.h"
#include "tap.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* ---- the calls ---- */

struct call {
    int number;
    int error; /* that it fails with */
    const char *name;
};
#define CALL(NAME, ERROR)        \
    {                            \
        SYS_##NAME, ERROR, #NAME \
    }

static const struct call calls[] = {
    CALL(openat, EMFILE),   CALL(read, EIO),         CALL(pread64, EIO),      CALL(write, ENOSPC),
    CALL(pwrite64, ENOSPC), CALL(fstat, EIO),        CALL(newfstatat, EIO),   CALL(statx, EIO),
    CALL(getdents64, EIO),  CALL(readlinkat, EIO),   CALL(mkdirat, ENOSPC),   CALL(unlinkat, EIO),
    CALL(renameat, ENOSPC), CALL(renameat2, ENOSPC), CALL(fsync, ENOSPC),     CALL(fdatasync, ENOSPC),
    CALL(syncfs, ENOSPC),   CALL(flock, ENOLCK),     CALL(ftruncate, EIO),    CALL(utimensat, EIO),
    CALL(mknodat, ENOSPC),  CALL(linkat, ENOSPC),    CALL(symlinkat, ENOSPC), CALL(fchmod, EIO),
    CALL(fchmodat, EIO),    CALL(fallocate, ENOSPC), CALL(faccessat, EIO),    CALL(openat2, ENOSPC),
#ifdef SYS_open
    CALL(open, ENOSPC),     CALL(stat, EIO),         CALL(lstat, EIO),        CALL(readlink, EIO),
    CALL(mkdir, ENOSPC),    CALL(unlink, EIO),       CALL(rmdir, EIO),        CALL(rename, ENOSPC),
    CALL(access, EIO),      CALL(mknod, ENOSPC),     CALL(chmod, EIO),
#endif
};
#define N_CALLS (sizeof calls / sizeof *calls)

static const struct call *call_of(int number)
{
    for (size_t i = 0; i < N_CALLS; i++)
        if (calls[i].number == number)
            return &calls[i];
    return NULL;
}

/* Asks about those calls; -1: the kernel doesn't let us. */
static int install_filter(void)
{
    struct sock_filter code[N_CALLS + 3] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    struct sock_fprog program = {.len = N_CALLS + 3, .filter = code};
    for (size_t i = 0; i < N_CALLS; i++)
        code[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].number,
                                                   (unsigned char)(N_CALLS - i), 0);
    code[N_CALLS + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[N_CALLS + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (fd < 0 && errno == EINVAL)
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return (int)fd;
}

/* ---- what is to be built ---- */

static char directory[PATH_MAX], out[PATH_MAX], input[PATH_MAX], builds[PATH_MAX], messages[PATH_MAX];

static const struct scene {
    const char *name;
    bool by_tool, directory, replaces, input;
    const char *key; /* NULL: none */
} scenes[] = {
    {.name = "a file"},
    {.name = "a directory over an old one", .directory = true, .replaces = true, .key = "2"},
    {.name = "a file over an old one, by the tool", .by_tool = true, .replaces = true, .key = "2", .input = true},
};

enum fault { NO_FAULT, FAILS, KILLED };

struct run {
    const struct scene *scene;
    const char *text; /* what is built */
    const char *key;
    bool force;
    enum fault fault;
    int at; /* the call that it happens at, from 1 */
    int count; /* calls seen */
    const struct call *hit; /* NULL: there weren't so many */
    int status; /* exit status, or minus the signal */
};

static bool write_word(const char *path, int flags, const char *word)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    bool done = fd >= 0 && write(fd, word, strlen(word)) == (ssize_t)strlen(word);
    if (fd >= 0)
        close(fd);
    return done;
}

/* The builder's own failure, and its own message. */
static int give_up(void)
{
    dprintf(STDERR_FILENO, "flockctl: the builder of %s has failed\n", out);
    return -EIO;
}

static int build(const char *path, void *data)
{
    const struct run *run = data;
    char a[PATH_MAX + 2], b[PATH_MAX + 2];
    if (!write_word(builds, O_APPEND, "x"))
        return give_up();
    if (!run->scene->directory)
        return write_word(path, 0, run->text) ? 0 : give_up();
    snprintf(a, sizeof a, "%s/a", path);
    snprintf(b, sizeof b, "%s/b", path);
    bool done = mkdir(path, 0755) == 0 && write_word(a, 0, run->text) && write_word(b, 0, run->text);
    return done ? 0 : give_up();
}

static int build_by_library(const struct run *run)
{
    const struct flk_once_spec spec = {
        .output = out, .key = run->key, .build = build, .data = (void *)run, .flags = run->force ? FLK_ONCE_FORCE : 0};
    int code = flk_once(&spec, FLK_FOREVER);
    if (code < 0)
        dprintf(STDERR_FILENO, "flockctl: %s\n", flk_error_detail());
    return code < 0 ? 125 : 0;
}

static void build_by_tool(const struct run *run)
{
    const char *script = "printf x >>\"$1\"; printf %s \"$2\" >\"$FLOCKCTL_OUT\"";
    execl(getenv("FLOCKCTL"), "flockctl", "once", run->force ? "--force" : "-q", "-o", out, "--key", run->key,
          "--input", input, "--", "sh", "-c", script, "sh", builds, run->text, NULL);
}

/* "none", "torn", or its text. */
static const char *look(void)
{
    static char texts[2][16];
    char path[PATH_MAX + 2];
    struct stat status;
    if (lstat(out, &status) < 0)
        return "none";
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, S_ISDIR(status.st_mode) ? "%s/%c" : "%s", out, "ab"[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = fd < 0 ? 0 : read(fd, texts[i], sizeof texts[i] - 1);
        texts[i][length < 0 ? 0 : length] = '\0';
        if (fd >= 0)
            close(fd);
    }
    return *texts[0] && strcmp(texts[0], texts[1]) == 0 ? texts[0] : "torn";
}

static off_t count_builds(void)
{
    struct stat status;
    return stat(builds, &status) < 0 ? 0 : status.st_size;
}

/* ---- one run ---- */

static _Atomic int *listener; /* shared: the child's descriptor + 1 */

static void be_builder(const struct run *run)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log = open(messages, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (run->fault != NO_FAULT) {
        int fd = install_filter();
        *listener = fd < 0 ? -1 : fd + 1;
        while (*listener > 0) /* until it has been fetched, without a call that would be asked about */
            sched_yield();
    }
    if (run->scene->by_tool)
        build_by_tool(run);
    else
        _exit(build_by_library(run));
    _exit(99);
}

static void answer(struct run *run, pid_t builder, int fd)
{
    struct seccomp_notif question = {0};
    struct seccomp_notif_resp reply;
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &question) < 0)
        return;
    reply = (struct seccomp_notif_resp){.id = question.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    if ((pid_t)question.pid == builder && ++run->count == run->at) {
        run->hit = call_of(question.data.nr);
        if (run->fault == KILLED)
            kill(builder, SIGKILL);
        else
            reply = (struct seccomp_notif_resp){.id = question.id, .error = -run->hit->error};
    }
    ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

static void answer_all(struct run *run, pid_t builder)
{
    while (*listener == 0)
        sched_yield();
    if (*listener < 0)
        bail_out("no seccomp filter can be installed");
    int pidfd = pidfd_open(builder, 0), fd = pidfd_getfd(pidfd, *listener - 1, 0);
    if (fd < 0)
        bail_out("pidfd_getfd: %s", strerror(errno));
    *listener = 0;
    struct pollfd ends[] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    while (poll(ends, 2, -1) > 0 && !(ends[0].revents & POLLHUP) && !ends[1].revents)
        if (ends[0].revents & POLLIN)
            answer(run, builder, fd);
    close(fd);
    close(pidfd);
}

static void start(struct run *run)
{
    *listener = 0;
    run->count = 0;
    run->hit = NULL;
    pid_t builder = tap_fork();
    if (builder == 0)
        be_builder(run);
    if (run->fault != NO_FAULT)
        answer_all(run, builder);
    run->status = test_reap(builder);
}

/* ---- one fault ---- */

static struct run run_of(const struct scene *scene, bool is_new)
{
    return (struct run){
        .scene = scene, .text = is_new ? "new" : "old", .key = is_new || !scene->key ? scene->key : "1"};
}

static void prepare(const struct scene *scene)
{
    if (system("rm -rf d builds; mkdir d") != 0)
        bail_out("can't clear up");
    struct run old = run_of(scene, false);
    if (scene->replaces)
        start(&old);
}

static const char *said(void)
{
    static char text[4096];
    int fd = open(messages, O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length < 0 ? 0 : length] = '\0';
    return text;
}

/* What is wrong, or NULL. */
static const char *judge(const struct run *run)
{
    const char *found = look();
    bool is_new = strcmp(found, "new") == 0;
    if (!is_new && strcmp(found, run->scene->replaces ? "old" : "none") != 0)
        return found;
    if (run->fault == KILLED)
        return run->status == -SIGKILL ? NULL : "it lives";
    if (run->status == 0)
        return is_new ? NULL : "success without an output";
    if (run->status == 127 && strstr(said(), "loading shared libraries"))
        return NULL; /* the tool hasn't begun; not where it is static */
    if (run->status != 125)
        return "another exit status";
    if (is_new)
        return "an error, and yet it is there";
    return strncmp(said(), "flockctl: ", 10) == 0 && strchr(said(), '/') ? NULL : "it doesn't say what";
}

static const char *judge_next(const struct scene *scene, int entries)
{
    struct run next = run_of(scene, true);
    start(&next);
    if (next.status != 0 || strcmp(look(), "new") != 0)
        return "the next run doesn't build";
    off_t before = count_builds();
    start(&next);
    if (next.status != 0 || count_builds() != before)
        return "the run after that builds again";
    if (test_entries(directory) == entries)
        return NULL;
    next.force = true; /* a fault after the publication: it is the next builder that clears up */
    start(&next);
    return next.status != 0 || test_entries(directory) != entries ? "something is left" : NULL;
}

/* False: there weren't so many calls. */
static bool try_fault(const struct scene *scene, enum fault fault, int at, int entries, int *failed)
{
    char text[4096];
    struct run run = run_of(scene, true);
    run.fault = fault;
    run.at = at;
    prepare(scene);
    start(&run);
    if (!run.hit)
        return false;
    snprintf(text, sizeof text, "%s", said());
    const char *wrong = judge(&run);
    if (!wrong)
        wrong = judge_next(scene, entries);
    if (wrong || getenv("SHOW"))
        diag("call %d, %s %s: %s; exit status %d, %s", at, run.hit->name, fault == KILLED ? "killed" : "fails",
             wrong ? wrong : "well", run.status, text);
    *failed += wrong != NULL;
    return true;
}

static void play(const struct scene *scene, enum fault fault, int first, int step)
{
    struct run run = run_of(scene, true);
    int failed = 0, tried = 0;
    prepare(scene);
    start(&run);
    int entries = test_entries(directory);
    while (try_fault(scene, fault, first + tried * step, entries, &failed))
        tried++;
    ok(failed == 0 && tried > 5, "%s: %s at each of %d calls", scene->name, fault == KILLED ? "killed" : "an error",
       tried);
}

static int have_filter(void *data)
{
    (void)data;
    return install_filter() < 0;
}

static unsigned scale(void)
{
    const char *text = getenv("STRESS_SCALE");
    int given = text ? atoi(text) : 1;
    return given < 1 ? 1 : (unsigned)given;
}

int main(void)
{
    tap_deadline(600);
    if (test_in_child(have_filter, NULL) != 0)
        skip_all("no seccomp filter that asks can be installed here");
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1); /* where fsync takes no time */
    test_root();
    if (chdir(tap_directory()) < 0)
        bail_out("chdir: %s", strerror(errno));
    listener = test_shared(sizeof *listener);
    snprintf(directory, sizeof directory, "%s", test_path("d"));
    snprintf(out, sizeof out, "%s", test_path("d/out"));
    snprintf(input, sizeof input, "%s", test_path("input"));
    snprintf(builds, sizeof builds, "%s", test_path("builds"));
    snprintf(messages, sizeof messages, "%s", test_path("messages"));
    test_write_file(input, "input");
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* its tracer can't trace what is watched here */
    int step = scale() < 3 ? 3 : 1;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        if (scenes[i].by_tool && !getenv("FLOCKCTL"))
            continue;
        play(&scenes[i], FAILS, 1 + (int)i % step, step);
        play(&scenes[i], KILLED, 1 + (int)i % step, step);
    }
    return done_testing();
}
