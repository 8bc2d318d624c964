/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

/* Each case runs in a child of its own, which becomes a subreaper; it returns 0, or has said what went wrong. */
#define MUST(condition)                                                                          \
    do                                                                                           \
        if (!(condition)) {                                                                      \
            diag("line %d: %s (errno %d, %s)", __LINE__, #condition, errno, flk_error_detail()); \
            return 1;                                                                            \
        }                                                                                        \
    while (0)

/* Only the test program itself may ask for them. */
static const char *directory, *in_path, *out_path, *err_path, *here_path;

static struct fk_supervise_spec spec_of(const char *const *argv)
{
    struct fk_supervise_spec spec = {.argv = argv,
                                     .envp = (const char *const *)environ,
                                     .stdio = {-1, -1, -1},
                                     .kill_after_ms = 10000,
                                     .signal = SIGTERM,
                                     .control = -1};
    sigemptyset(&spec.mask);
    return spec;
}

#define SHELL(text) ((const char *const[]){"/bin/sh", "-c", text, NULL})

static int run(const struct fk_supervise_spec *spec, struct fk_supervise_result *result)
{
    bool at_exec;
    return fk_supervise(spec, result, &at_exec);
}

static int get_status(void *data)
{
    struct fk_supervise_result result;
    struct fk_supervise_spec spec = spec_of(SHELL("exit 42"));
    (void)data;
    MUST(run(&spec, &result) == 0);
    MUST(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 42);
    MUST(!result.timed_out && !result.stragglers && !result.left && !result.signalled);
    MUST(result.rusage.ru_maxrss > 0);
    spec = spec_of(SHELL("kill -KILL $$"));
    MUST(run(&spec, &result) == 0 && WIFSIGNALED(result.status) && WTERMSIG(result.status) == SIGKILL);
    return 0;
}

static char *slurp(int fd)
{
    static char text[256];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    return text;
}

/* stdout and stderr in each other's place; stdin from elsewhere. */
static int swap_files(void *data)
{
    struct fk_supervise_result result;
    struct fk_supervise_spec spec = spec_of(SHELL("read -r line; echo \"out $line\"; echo err >&2"));
    (void)data;
    test_write_file(in_path, "from a file\n");
    int out = open(out_path, O_RDWR | O_CREAT, 0600), err = open(err_path, O_RDWR | O_CREAT, 0600);
    int in = open(in_path, O_RDONLY | O_CLOEXEC);
    MUST(out > 2 && err > 2 && in > 2);
    MUST(dup2(out, STDOUT_FILENO) == 1 && dup2(err, STDERR_FILENO) == 2);
    spec.stdio[0] = in;
    spec.stdio[1] = STDERR_FILENO;
    spec.stdio[2] = STDOUT_FILENO;
    MUST(run(&spec, &result) == 0 && result.status == 0);
    MUST(strcmp(slurp(out), "err\n") == 0);
    MUST(strcmp(slurp(err), "out from a file\n") == 0);
    return 0;
}

static int choose_directory(void *data)
{
    struct fk_supervise_result result;
    bool at_exec;
    struct fk_supervise_spec spec = spec_of(SHELL(": >here"));
    (void)data;
    spec.dir = directory;
    MUST(run(&spec, &result) == 0 && result.status == 0 && access(here_path, F_OK) == 0);
    spec.dir = "/no/such/directory";
    MUST(fk_supervise(&spec, &result, &at_exec) == -ENOENT && !at_exec);
    MUST(strstr(flk_error_detail(), "/no/such/directory"));
    return 0;
}

static int find_nothing(void *data)
{
    static const char *const nowhere[] = {"/no/such/command", NULL}, *const no_file[] = {"/", NULL};
    struct fk_supervise_result result;
    bool at_exec = false;
    struct fk_supervise_spec spec = spec_of(nowhere);
    (void)data;
    MUST(fk_supervise(&spec, &result, &at_exec) == -ENOENT && at_exec);
    MUST(strstr(flk_error_detail(), "/no/such/command\" wasn't found"));
    spec = spec_of(no_file);
    MUST(fk_supervise(&spec, &result, &at_exec) == -EACCES && at_exec);
    MUST(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
    return 0;
}

/* ---- control ---- */

static int control(unsigned flags, int byte, struct fk_supervise_result *result)
{
    int ends[2];
    struct fk_supervise_spec spec =
        spec_of(SHELL("trap 'exit 5' TERM; trap 'exit 6' USR1; while :; do sleep 0.02; done"));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    spec.flags = flags;
    spec.control = ends[0];
    spec.limit_ms = 700; /* should nothing come of it */
    char number = (char)byte;
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        usleep(200000); /* the traps are set, or it dies of the signal itself */
        _exit(byte < 0 || send(ends[1], &number, 1, MSG_NOSIGNAL) == 1 ? 0 : 1);
    }
    if (byte < 0)
        close(ends[1]);
    return run(&spec, result);
}

static bool ended_by(int status, int code, int number)
{
    return (WIFEXITED(status) && WEXITSTATUS(status) == code) || (WIFSIGNALED(status) && WTERMSIG(status) == number);
}

static int end_by_control(void *data)
{
    struct fk_supervise_result result;
    (void)data;
    MUST(control(0, 0, &result) == 0 && ended_by(result.status, 5, SIGTERM) && !result.timed_out);
    MUST(control(0, SIGUSR1, &result) == 0 && ended_by(result.status, 6, SIGUSR1) && !result.timed_out);
    MUST(control(0, SIGKILL, &result) == 0 && ended_by(result.status, -1, SIGKILL) && !result.timed_out);
    MUST(control(0, -1, &result) == 0 && ended_by(result.status, 5, SIGTERM) && !result.timed_out); /* end of file */
    MUST(control(FK_SUPERVISE_DETACH, -1, &result) == 0 && result.timed_out); /* which isn't one then */
    return 0;
}

/* ---- notices ---- */

static unsigned noticed[FK_NOTICE_KILL + 1];
static char named[64];

static void notice(const struct fk_supervise_notice *about, void *data)
{
    noticed[about->what]++;
    *(bool *)data = *(bool *)data || about->pid == getpid();
    if (about->what == FK_NOTICE_STRAGGLER)
        snprintf(named, sizeof named, "%s", about->command);
}

static int tell_all(void *data)
{
    struct fk_supervise_result result;
    bool of_us = false;
    struct fk_supervise_spec spec = spec_of(SHELL("sleep 1000 & sleep 1000 & exit 0"));
    (void)data;
    spec.notice = notice;
    spec.data = &of_us;
    MUST(run(&spec, &result) == 0 && result.stragglers == 2);
    MUST(noticed[FK_NOTICE_STRAGGLER] == 2 && noticed[FK_NOTICE_CLEARING] == 1 && strcmp(named, "sleep 1000") == 0);
    spec.argv = SHELL("trap '' TERM; while :; do sleep 0.05; done");
    spec.limit_ms = 100;
    spec.kill_after_ms = 100;
    MUST(run(&spec, &result) == 0 && result.timed_out && result.ran_ms >= 200);
    MUST(noticed[FK_NOTICE_TIMEOUT] == 1 && noticed[FK_NOTICE_KILL] == 1 && noticed[FK_NOTICE_LEFT] == 0);
    MUST(!of_us);
    return 0;
}

/* ---- a signal of the kernel's, as Ctrl-C is one ---- */

static int be_signalled(int number)
{
    int ends[2];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, NULL);
    MUST(pipe(ends) == 0 && fcntl(ends[0], F_SETOWN, getpid()) == 0 && fcntl(ends[0], F_SETSIG, number) == 0);
    MUST(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0 && write(ends[1], "", 1) == 1);
    MUST(sigpending(&set) == 0 && sigismember(&set, number));
    return 0;
}

static int signalled_before(void *data)
{
    static const char *const argv[] = {"sleep", "2", NULL};
    struct fk_supervise_result result;
    struct fk_supervise_spec spec = spec_of(argv);
    (void)data;
    MUST(be_signalled(SIGINT) == 0);
    MUST(run(&spec, &result) == 0 && result.signalled == SIGINT);
    MUST(WIFSIGNALED(result.status) && WTERMSIG(result.status) == SIGINT);
    return 0;
}

/* ---- what the caller keeps ---- */

static int restore(void *data)
{
    struct fk_supervise_result result;
    struct fk_supervise_spec spec = spec_of(SHELL("exit 0"));
    sigset_t before = {0}, after = {0}; /* the kernel writes a part of them only */
    int descriptors = test_descriptors();
    (void)data;
    sigprocmask(SIG_BLOCK, NULL, &before);
    MUST(run(&spec, &result) == 0);
    sigprocmask(SIG_BLOCK, NULL, &after);
    MUST(memcmp(&before, &after, sizeof before) == 0);
    MUST(test_descriptors() == descriptors);
    spec.isolate = FLK_NS_UTS;
    if (run(&spec, &result) == 0) /* where that is allowed */
        MUST(test_descriptors() == descriptors);
    return 0;
}

int main(void)
{
    tap_deadline(60);
    directory = tap_directory();
    in_path = test_path("in");
    out_path = test_path("out");
    err_path = test_path("err");
    here_path = test_path("here");
    ok(test_in_child(get_status, NULL) == 0, "a command's status, and what it has used");
    ok(test_in_child(swap_files, NULL) == 0, "files for it, in each other's place too");
    ok(test_in_child(choose_directory, NULL) == 0, "a directory, or the reason why not");
    ok(test_in_child(find_nothing, NULL) == 0, "exec's own failures are told apart, and leave no child");
    ok(test_in_child(end_by_control, NULL) == 0, "requests: end, a signal, kill, the end of who may ask");
    ok(test_in_child(tell_all, NULL) == 0, "stragglers, limit and grace are told");
    ok(test_in_child(signalled_before, NULL) == 0, "Ctrl-C just before the command is there isn't lost");
    ok(test_in_child(restore, NULL) == 0, "signal mask and descriptors are as before");
    return done_testing();
}
