/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "helper.h"
#include "helpers.h"
#include "tap.h"

#define PATIENCE_MS 20000

#define SHELL(text)            \
    (const char *const[])      \
    {                          \
        "sh", "-c", text, NULL \
    }

/* ---- what the tests share ---- */

struct pair {
    int read, write;
};

static struct pair open_pipe(void)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
    return (struct pair){fds[0], fds[1]};
}

static void close_one(int *fd)
{
    close(*fd);
    *fd = -1;
}

/* What comes until the line or the file ends, without the newline. */
static const char *read_line(int fd)
{
    static char lines[8][4096];
    static unsigned next;
    char *line = lines[next++ % 8];
    size_t length = 0;
    while (length < sizeof lines[0] - 1 && test_readable(fd, PATIENCE_MS) && read(fd, line + length, 1) == 1 &&
           line[length] != '\n')
        length++;
    line[length] = '\0';
    return line;
}

/* Everybody who could write has ended. */
static bool at_end(int fd)
{
    char byte;
    return test_readable(fd, PATIENCE_MS) && read(fd, &byte, 1) == 0;
}

static struct flk_run *start(const struct flk_run_spec *spec)
{
    struct flk_run *run;
    if (flk_run_start(spec, &run) < 0)
        bail_out("%s", flk_error_detail());
    return run;
}

/* A run whose stdout is *out, the write end of which is ours no more. */
static struct flk_run *start_heard(struct flk_run_spec spec, struct pair *out)
{
    *out = open_pipe();
    spec.fds = (int[]){-1, out->write, -1};
    struct flk_run *run = start(&spec);
    close_one(&out->write);
    return run;
}

static struct flk_run_result finish(struct flk_run *run)
{
    struct flk_run_result result;
    if (flk_run_wait(run, PATIENCE_MS, &result) < 0)
        bail_out("%s", flk_error_detail());
    flk_run_free(run);
    return result;
}

static struct flk_run_result run_spec(const struct flk_run_spec *spec)
{
    struct flk_run_result result;
    if (flk_run(spec, &result) < 0)
        bail_out("%s", flk_error_detail());
    return result;
}

static int try(const char *name)
{
    struct flk_hold *hold;
    int code = flk_acquire(name, 0, 0, &hold);
    if (code == 0)
        flk_hold_decline(hold);
    return code;
}

static struct flk_hold *acquire(const char *name)
{
    struct flk_hold *hold;
    if (flk_acquire(name, 0, PATIENCE_MS, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

static bool detail_has(const char *text)
{
    if (strstr(flk_error_detail(), text))
        return true;
    diag("%s", flk_error_detail());
    return false;
}

/* ---- a command ---- */

static void ends(void)
{
    struct flk_run_result result = run_spec(&(struct flk_run_spec){.argv = SHELL("exit 7")});
    is_int(result.exit_code, 7, "a command's exit status is the result's");
    is_int(result.signal | result.timed_out, 0, "no signal, no limit passed");
    is_int((int)(result.stragglers + result.left), 0, "nothing outlived it");
    ok(result.ran_ms >= 0 && result.ran_ms < PATIENCE_MS, "how long it ran");
    ok(result.rusage.ru_maxrss > 0, "and what it used");
    result = run_spec(&(struct flk_run_spec){.argv = SHELL("kill -9 $$")});
    is_int(result.signal, SIGKILL, "the signal that ended it");
    is_int(result.exit_code, -1, "then there is no exit status");
    result = run_spec(&(struct flk_run_spec){.argv = SHELL("kill -TERM $$")});
    is_int(result.signal, SIGTERM, "also one that flockctl itself would die of");
}

static void gets(void)
{
    struct pair in = open_pipe(), out = open_pipe(), err = open_pipe();
    struct flk_run_spec spec = {
        .argv = SHELL("read -r line; echo \"$line $ONE $PWD\"; echo bad >&2; echo \"${HOME-none}\""),
        .envp = (const char *const[]){"ONE=1", "PATH=/usr/bin:/bin", NULL},
        .dir = "/usr",
        .fds = (int[]){in.read, out.write, err.write},
    };
    setenv("HOME", "/nowhere", 1);
    struct flk_run *run = start(&spec);
    unsetenv("HOME");
    close_one(&out.write);
    ok(write(in.write, "word\n", 5) == 5, "a command reads from the descriptor that it is given");
    is_str(read_line(out.read), "word 1 /usr", "with that environment, in that directory");
    is_str(read_line(out.read), "none", "and no other variables");
    is_str(read_line(err.read), "bad", "stderr is its own");
    is_int(finish(run).exit_code, 0, "it ends");
    ok(at_end(out.read), "and nobody keeps its stdout open");
    close(in.read), close(in.write), close(out.read), close(err.read), close(err.write);
}

static int swap_streams(void *data)
{
    struct pair one = open_pipe(), two = open_pipe();
    struct flk_run_result result;
    (void)data;
    dup2(one.write, STDOUT_FILENO);
    dup2(two.write, STDERR_FILENO);
    struct flk_run_spec spec = {.argv = SHELL("echo out; echo err >&2"), .fds = (int[]){-1, 2, 1}};
    if (flk_run(&spec, &result) < 0 || result.exit_code != 0)
        return 1;
    return strcmp(read_line(one.read), "err") == 0 && strcmp(read_line(two.read), "out") == 0 ? 0 : 2;
}

static int without_stdin(void *data)
{
    struct flk_run_result result;
    (void)data;
    close(STDIN_FILENO);
    struct flk_run_spec spec = {.argv = SHELL("cat")};
    return flk_run(&spec, &result) == 0 && result.exit_code == 0 ? 0 : 1;
}

static void large(void)
{
    char *long_word = malloc(100001);
    const char *argv[20] = {"sh", "-c", "printf '%s' \"$@\" | wc -c", "sh"};
    struct pair out;
    if (!long_word)
        bail_out("no memory");
    memset(long_word, 'x', 100000);
    long_word[100000] = '\0';
    for (int i = 4; i < 19; i++)
        argv[i] = long_word;
    struct flk_run *run = start_heard((struct flk_run_spec){.argv = argv}, &out);
    is_int(atoi(read_line(out.read)), 1500000, "more arguments than a socket takes at once arrive");
    finish(run);
    close(out.read);
    free(long_word);
}

static void signals(void)
{
    struct pair out;
    sigset_t only, before;
    sigemptyset(&only);
    sigaddset(&only, SIGUSR2);
    sigaddset(&only, SIGRTMIN + 1);
    pthread_sigmask(SIG_SETMASK, &only, &before);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    struct flk_run_spec spec = {.argv = (const char *const[]){"grep", "^Sig[BI]", "/proc/self/status", NULL}};
    struct flk_run *run = start_heard(spec, &out);
    sigset_t after;
    pthread_sigmask(SIG_SETMASK, &before, &after);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    unsigned long long wanted = 1ull << (SIGUSR2 - 1) | 1ull << SIGRTMIN;
    is_int((long long)strtoull(read_line(out.read) + 8, NULL, 16), (long long)wanted,
           "a command has the signal mask of the thread that starts it");
    ok(sigismember(&after, SIGUSR2) == 1 && sigismember(&after, SIGTERM) == 0, "which that thread has still");
    unsigned long long ignored = strtoull(read_line(out.read) + 8, NULL, 16);
    unsigned long long ours = 1ull << (SIGPIPE - 1) | 1ull << (SIGCHLD - 1) | 1ull << (SIGHUP - 1);
    is_int((long long)(ignored & ours), 1 << (SIGHUP - 1), "what the program ignores isn't ignored, but for a hang-up");
    finish(run);
    close(out.read);
}

/* ---- limits and kills ---- */

static void limits(void)
{
    struct flk_run_spec spec = {.argv = SHELL("exec sleep 1000"), .limit_ms = 50};
    struct flk_run_result result = run_spec(&spec);
    is_int(result.timed_out, 1, "a command that runs longer than its limit");
    is_int(result.signal, SIGTERM, "gets TERM");
    ok(result.ran_ms >= 50, "not before the time");
    spec.signal = SIGUSR1;
    is_int(run_spec(&spec).signal, SIGUSR1, "or another signal");
    spec = (struct flk_run_spec){
        .argv = SHELL("trap '' TERM; sleep 1000 & wait; wait"), .limit_ms = 300, .kill_after_ms = -1};
    result = run_spec(&spec);
    is_int(result.signal, SIGKILL, "and KILL when it ignores that");
    is_int(result.timed_out, 1, "which is the limit's doing too");
    is_int(run_spec(&(struct flk_run_spec){.argv = SHELL("exit 3"), .limit_ms = PATIENCE_MS}).exit_code, 3,
           "one that ends in time isn't touched");
}

static void kills(void)
{
    struct pair out;
    struct flk_run_result result;
    struct flk_run_spec spec = {
        .argv = SHELL("exec 2>/dev/null; trap 'echo usr' USR1; echo up; while :; do sleep 0.01; done")};
    struct flk_run *run = start_heard(spec, &out);
    is_str(read_line(out.read), "up", "a command runs");
    is_int(flk_run_wait(run, 0, &result), -EAGAIN, "not waiting for it says: not yet");
    is_int(flk_run_wait(run, 1, &result), -EAGAIN, "nor within a millisecond");
    ok(!test_readable(flk_run_fd(run), 0), "its descriptor isn't readable");
    is_int(flk_run_kill(run, -1) | flk_run_kill(run, 1000), -EINVAL, "not every number is a signal");
    is_int(flk_run_kill(run, SIGUSR1), 0, "it is sent a signal");
    is_str(read_line(out.read), "usr", "which arrives");
    is_int(flk_run_kill(run, 0), 0, "it is told to end");
    ok(test_readable(flk_run_fd(run), PATIENCE_MS), "its descriptor becomes readable");
    is_int(flk_run_wait(run, 0, &result), 0, "and the wait has a result");
    is_int(result.signal, SIGTERM, "it was TERM");
    is_int(result.timed_out, 0, "no limit has passed");
    is_int(flk_run_wait(run, 0, &result) + result.signal, SIGTERM, "asked again, it is the same");
    is_int(flk_run_kill(run, SIGTERM), -ESRCH, "there is nothing left to signal");
    flk_run_free(run);
    close(out.read);

    spec.argv = SHELL("trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & echo up; wait; wait");
    run = start_heard(spec, &out);
    read_line(out.read);
    is_int(flk_run_kill(run, SIGKILL), 0, "KILL");
    is_int(finish(run).signal, SIGKILL, "leaves nobody");
    ok(at_end(out.read), "of the tree");
    close(out.read);
    run = start_heard(spec, &out);
    read_line(out.read);
    flk_run_free(run);
    ok(at_end(out.read), "freeing a run that isn't over ends its tree");
    close(out.read);
    flk_run_free(NULL);
}

static void stragglers(void)
{
    struct pair out;
    struct flk_run_spec spec = {.argv = SHELL("sleep 1000 & setsid sleep 1000 & exit 3")};
    struct flk_run *run = start_heard(spec, &out);
    struct flk_run_result result = finish(run);
    is_int(result.exit_code, 3, "a command that leaves others behind");
    is_int((int)result.stragglers, 2, "they are counted");
    is_int((int)result.left, 0, "none could not be ended");
    ok(at_end(out.read), "they are gone");
    close(out.read);
}

static void detached(void)
{
    struct pair in = open_pipe(), out = open_pipe();
    struct flk_hold *hold = acquire("detached");
    struct flk_run_spec spec = {
        .argv = SHELL("sleep 1000 & echo $!; ls -l /proc/$$/fd | grep -c /slots/; read -r line; exit 3"),
        .flags = FLK_RUN_DETACH,
        .fds = (int[]){in.read, out.write, -1},
        .hold = hold,
    };
    struct flk_run *run = start(&spec);
    close_one(&out.write);
    pid_t pid = atoi(read_line(out.read));
    is_str(read_line(out.read), "0", "detached: a command has no slots");
    flk_hold_release(hold);
    is_int(try("detached"), -EBUSY, "its helper keeps them");
    close_one(&in.write);
    struct flk_run_result result = finish(run);
    is_int(result.exit_code, 3, "until the command has ended");
    is_int((int)result.stragglers, 0, "there are no stragglers");
    is_int(kill(pid, 0), 0, "what it has left lives on");
    is_int(try("detached"), 0, "without the slot");
    kill(pid, SIGKILL);
    ok(at_end(out.read), "until somebody ends it");
    close(in.read), close(out.read);
}

/* ---- a hold ---- */

static void held(void)
{
    struct pair out, in = open_pipe();
    struct flk_hold *hold = acquire("held");
    struct flk_run_spec spec = {
        .argv =
            SHELL("echo \"$FLOCKCTL_NAME $FLOCKCTL_SLOT $ONE\"; ls /proc/$$/fd | sort -n | tail -n 1; read -r line"),
        .envp = (const char *const[]){"ONE=1", "FLOCKCTL_NAME=outer", "PATH=/usr/bin:/bin", NULL},
        .hold = hold,
    };
    out = open_pipe();
    spec.fds = (int[]){in.read, out.write, -1};
    int before = test_descriptors();
    struct flk_run *run = start(&spec);
    is_int(test_descriptors(), before + 1, "starting a run with a hold leaves one descriptor more");
    is_str(read_line(out.read), "held 0 1", "a hold is in the command's environment");
    ok(atoi(read_line(out.read)) >= 200, "and its slots among the descriptors, out of a script's way");
    flk_hold_release(hold);
    is_int(flk_held("held"), 0, "the program may release it meanwhile");
    is_int(try("held"), -EBUSY, "the tree has it still");
    close_one(&in.write);
    is_int(finish(run).exit_code, 1, "until it ends");
    is_int(try("held"), 0, "and then at once no more");
    close(in.read), close(out.read), close(out.write);
}

static void other_root(void)
{
    struct pair out;
    if (flk_root_set(test_path("elsewhere")) < 0)
        bail_out("%s", flk_error_detail());
    struct flk_hold *hold = acquire("held");
    struct flk_run *run = start_heard((struct flk_run_spec){.argv = SHELL("echo $FLOCKCTL_DIR"), .hold = hold}, &out);
    is_str(read_line(out.read), test_path("elsewhere"), "the command of a hold is told of another lock directory");
    finish(run);
    flk_hold_release(hold);
    if (flk_root_set(NULL) < 0)
        bail_out("%s", flk_error_detail());
    close(out.read);
}

static int try_as_other(void *name)
{
    return try(name) == -EBUSY ? 0 : 1;
}

static void kept(void)
{
    struct flk_hold *hold = acquire("kept");
    struct flk_run_spec spec = {.argv = SHELL("exit 0"), .hold = hold};
    run_spec(&spec);
    is_int(test_in_child(try_as_other, (char *)"kept"), 0, "after a run the program holds what it held");
    is_int(run_spec(&spec).exit_code, 0, "and may run again with it");
    flk_hold_release(hold);
    is_int(try("kept"), 0, "until it releases");
}

static void helper_killed(void)
{
    struct pair out;
    struct flk_run_result result;
    struct flk_hold *hold = acquire("orphan");
    struct flk_run_spec spec = {.argv = SHELL("setsid sleep 1000 & echo $PPID; echo $!; wait"), .hold = hold};
    struct flk_run *run = start_heard(spec, &out);
    pid_t helper = atoi(read_line(out.read)), survivor = atoi(read_line(out.read));
    kill(helper, SIGKILL);
    is_int(flk_run_wait(run, PATIENCE_MS, &result), -ECHILD, "a helper that is killed is found out");
    ok(detail_has("may run on"), "with what that means");
    flk_run_free(run);
    flk_hold_release(hold);
    is_int(try("orphan"), -EBUSY, "what it has left keeps the slot");
    kill(survivor, SIGKILL);
    ok(at_end(out.read), "the command itself was ended by the kernel");
    flk_hold_release(acquire("orphan"));
    close(out.read);
}

/* How many slots another child of this program would inherit. */
static int inheritable(void)
{
    int count = 0;
    for (int fd = 3; fd < 1000; fd++) {
        char path[32], target[4096] = "";
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0 || flags & FD_CLOEXEC)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "/slots/"))
            count++;
    }
    return count;
}

static void handed_twice(void)
{
    struct pair out;
    struct flk_hold *hold = acquire("heirs");
    struct flk_run_spec spec = {.argv = SHELL("ls -l /proc/$$/fd | grep -c /slots/; read -r line"), .hold = hold};
    struct pair in = open_pipe();
    out = open_pipe();
    spec.fds = (int[]){in.read, out.write, -1};
    struct flk_run *run = start(&spec);
    is_str(read_line(out.read), "1", "a tree has each slot once");
    is_int(inheritable(), 0, "no other child of the program has it");
    if (flk_hold_inherit(hold, 1) < 0)
        bail_out("%s", flk_error_detail());
    struct flk_run *second = start(&spec);
    is_str(read_line(out.read), "1", "nor twice when every child inherits it");
    flk_hold_release(hold);
    is_int(try("heirs"), -EBUSY, "two trees have it");
    is_int(flk_run_kill(run, SIGKILL), 0, "one is ended");
    finish(run);
    is_int(try("heirs"), -EBUSY, "the other has it still");
    close_one(&in.write);
    finish(second);
    is_int(try("heirs"), 0, "until that has ended");
    close(in.read), close(out.read), close(out.write);
}

static void isolated(void)
{
    struct pair out;
    if (!test_is_root()) {
        skip("a pid namespace needs root");
        return;
    }
    struct flk_run_spec spec = {.argv = SHELL("echo $$; sleep 1000 & exit 6"), .isolate = FLK_NS_PID};
    struct flk_run *run = start_heard(spec, &out);
    ok(atoi(read_line(out.read)) < 10, "a command in a pid namespace of its own");
    is_int(finish(run).exit_code, 6, "has its exit status");
    ok(at_end(out.read), "and leaves nobody");
    close(out.read);
}

/* ---- failures ---- */

static int run_fails(const struct flk_run_spec *spec)
{
    struct flk_run_result result;
    return flk_run(spec, &result);
}

static void not_executed(void)
{
    struct flk_run_result result;
    struct flk_run *run = start(&(struct flk_run_spec){.argv = (const char *const[]){"/no/such/thing", NULL}});
    is_int(flk_run_wait(run, PATIENCE_MS, &result), -ENOENT, "a command that isn't there");
    ok(detail_has("/no/such/thing"), "is named");
    is_int(run_fails(&(struct flk_run_spec){.argv = (const char *const[]){"/", NULL}}), -EACCES,
           "one that isn't executable");
    is_int(flk_run_wait(run, 0, &result), -ENOENT, "the first one's wait says the same again");
    ok(detail_has("/no/such/thing"), "with its own sentence");
    flk_run_free(run);
    struct flk_hold *hold = acquire("unused");
    run_fails(&(struct flk_run_spec){.argv = (const char *const[]){"/no/such/thing", NULL}, .hold = hold});
    flk_hold_release(hold);
    is_int(try("unused"), 0, "a hold for a command that never ran is released as usual");
    is_int(run_fails(&(struct flk_run_spec){.argv = SHELL("exit 0"), .dir = "/no/such/directory"}), -ENOENT,
           "a directory that isn't there");
}

static void refused(void)
{
    const char *const none[] = {NULL};
    struct flk_run_spec spec = {.argv = SHELL("exit 0")}, bad = spec;
    is_int(run_fails(&(struct flk_run_spec){.argv = NULL}), -EINVAL, "refused: no arguments");
    is_int(run_fails(&(struct flk_run_spec){.argv = none}), -EINVAL, "no command");
    bad.reserved[5] = 1;
    is_int(run_fails(&bad), -EINVAL, "fields of a newer library");
    bad = spec, bad.reserved0 = 1;
    is_int(run_fails(&bad), -EINVAL, "the other one too");
    bad = spec, bad.flags = 1u << 31;
    is_int(run_fails(&bad), -EINVAL, "unknown flags");
    bad = spec, bad.isolate = 1u << 31;
    is_int(run_fails(&bad), -EINVAL, "unknown namespaces");
    bad = spec, bad.signal = 1000;
    is_int(run_fails(&bad), -EINVAL, "a signal that isn't one");
    bad = spec, bad.fds = (int[]){-1, 987, -1};
    is_int(run_fails(&bad), -EBADF, "a descriptor that isn't open");
    ok(detail_has("987"), "which is named");
}

static const char *program;

static void missing_tool(void)
{
    struct flk_run_spec spec = {.argv = SHELL("exit 0")};
    char *tool = strdup(getenv("FLOCKCTL_TOOL"));
    setenv("FLOCKCTL_TOOL", "/no/such/flockctl", 1);
    is_int(run_fails(&spec), -ENOPKG, "a tool that isn't there");
    ok(detail_has("/no/such/flockctl"), "is named");
    ok(detail_has("FLOCKCTL_TOOL"), "and the variable that names it");
    setenv("FLOCKCTL_TOOL", "", 1);
    ok(strstr(fk_helper_tool(), "/bin/flockctl") && access(fk_helper_tool(), F_OK) == run_fails(&spec) / ENOPKG,
       "an empty variable means the installed one");
    setenv("FLOCKCTL_TOOL", "/bin/true", 1);
    is_int(run_fails(&spec), -ECHILD, "a program that isn't the tool");
    setenv("FLOCKCTL_TOOL", program, 1);
    is_int(run_fails(&spec), -EPROTONOSUPPORT, "a tool of another release is refused");
    ok(detail_has("9.8.7") && detail_has(flk_version()), "with both versions");
    setenv("FLOCKCTL_TOOL", tool, 1);
    free(tool);
}

/* This program as the tool of another release. */
static int play_other_release(int socket)
{
    struct fk_helper_hello hello;
    if (recv(socket, &hello, sizeof hello, MSG_WAITALL) != sizeof hello)
        return 1;
    hello.protocol++;
    hello.size = 0;
    strcpy(hello.version, "9.8.7");
    return send(socket, &hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello ? 0 : 1;
}

/* The other way round: a library of another release. */
static void other_library(void)
{
    int sockets[2];
    struct fk_helper_hello hello = {.magic = "flk-run", .protocol = FK_HELPER_PROTOCOL + 1, .version = "9.8.7"};
    char number[16];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
        bail_out("socketpair: %s", strerror(errno));
    fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
    snprintf(number, sizeof number, "%d", sockets[1]);
    ok(send(sockets[0], &hello, sizeof hello, 0) == sizeof hello, "a library of another release");
    pid_t pid = tap_fork();
    if (pid == 0) {
        execl(getenv("FLOCKCTL_TOOL"), "flockctl", FK_HELPER_VERB, number, (char *)NULL);
        _exit(1);
    }
    close(sockets[1]);
    ok(test_readable(sockets[0], PATIENCE_MS) && recv(sockets[0], &hello, sizeof hello, MSG_WAITALL) == sizeof hello,
       "has an answer from the tool");
    is_int(hello.protocol, FK_HELPER_PROTOCOL, "which says what it speaks");
    is_str(hello.version, flk_version(), "and its version");
    is_int(test_reap(pid), 125, "and runs nothing");
    close(sockets[0]);
}

/* ---- hosts ---- */

static _Atomic int children_seen;

static void see_child(int number)
{
    (void)number;
    children_seen++;
}

static void *reap_all(void *stop)
{
    for (; !atomic_load((_Atomic int *)stop); usleep(100))
        if (waitpid(-1, NULL, WNOHANG) > 0)
            children_seen++;
    return NULL;
}

/* The result of a run in a host that looks after its children in its own way. */
static int beside_children(void *handler)
{
    _Atomic int stop = 0;
    pthread_t thread;
    int code = 0;
    signal(SIGCHLD, *(void (**)(int))handler);
    if (pthread_create(&thread, NULL, reap_all, (void *)&stop) != 0)
        return 1;
    for (int i = 0; i < 20 && code == 0; i++) {
        struct flk_run_result result;
        struct flk_run_spec spec = {.argv = SHELL("sleep 0.01 & exit 7")};
        code = flk_run(&spec, &result) == 0 && result.exit_code == 7 ? 0 : 2;
    }
    stop = 1;
    pthread_join(thread, NULL);
    return code ? code : children_seen ? 3 : 0;
}

static void hosts(void)
{
    void (*handlers[])(int) = {see_child, SIG_IGN, SIG_DFL};
    is_int(test_in_child(beside_children, &handlers[0]), 0, "waitpid(-1) and SIGCHLD see nothing of a run");
    is_int(test_in_child(beside_children, &handlers[1]), 0, "nor does an ignored SIGCHLD change it");
    is_int(test_in_child(beside_children, &handlers[2]), 0, "nor one at its default");
}

struct started {
    struct flk_run_spec spec;
    struct flk_run *run;
};

static void *start_in_thread(void *data)
{
    struct started *started = data;
    started->run = start(&started->spec);
    return NULL;
}

static void short_thread(void)
{
    struct pair in = open_pipe();
    pthread_t thread;
    struct started started = {.spec = {.argv = SHELL("read -r line; exit 5"), .fds = (int[]){in.read, -1, -1}}};
    if (pthread_create(&thread, NULL, start_in_thread, &started) != 0)
        bail_out("no thread");
    pthread_join(thread, NULL);
    struct flk_run_result result;
    is_int(flk_run_wait(started.run, 50, &result), -EAGAIN,
           "a run goes on after the end of the thread that started it");
    close_one(&in.write);
    is_int(finish(started.run).exit_code, 5, "and ends as it would");
    close(in.read);
}

struct host {
    struct pair out;
    const char *text;
    unsigned flags;
};

static int be_killed(void *data)
{
    struct host *host = data;
    struct flk_run_spec spec = {
        .argv = SHELL(host->text),
        .fds = (int[]){-1, host->out.write, -1},
        .flags = host->flags,
    };
    start(&spec);
    close(host->out.write);
    pause();
    return 0;
}

static void host_killed(void)
{
    struct host host = {.out = open_pipe(), .text = "sleep 1000 & setsid sleep 1000 & echo $$; wait"};
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(be_killed(&host));
    close_one(&host.out.write);
    read_line(host.out.read);
    kill(pid, SIGKILL);
    is_int(test_reap(pid), -SIGKILL, "a host is killed");
    ok(at_end(host.out.read), "its command's tree is gone");
    close(host.out.read);
}

static void host_of_detached_killed(void)
{
    struct host host = {.out = open_pipe(), .text = "echo $$; exec sleep 1000", .flags = FLK_RUN_DETACH | FLK_RUN_PGRP};
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(be_killed(&host));
    close_one(&host.out.write);
    pid_t command = atoi(read_line(host.out.read));
    kill(pid, SIGKILL);
    test_reap(pid);
    ok(!test_readable(host.out.read, 200), "a detached command outlives its host");
    is_int(kill(-command, SIGKILL), 0, "it was a process group of its own");
    close(host.out.read);
}

struct copied {
    struct flk_run *run;
    int before;
};

static int use_copy(void *data)
{
    struct copied *copied = data;
    struct flk_run_result result;
    int code = flk_run_wait(copied->run, 0, &result), killed = flk_run_kill(copied->run, SIGKILL);
    int before = test_descriptors();
    flk_run_free(copied->run);
    if (code != -EINVAL || killed != -EINVAL || test_descriptors() != before)
        return 1;
    return flk_run(&(struct flk_run_spec){.argv = SHELL("exit 4")}, &result) == 0 && result.exit_code == 4 ? 0 : 2;
}

static void forked(void)
{
    struct pair in = open_pipe();
    struct copied copied = {
        .run = start(&(struct flk_run_spec){.argv = SHELL("read -r line; exit 5"), .fds = (int[]){in.read, -1, -1}})};
    is_int(test_in_child(use_copy, &copied), 0, "a forked child has none of its parent's runs, and may have its own");
    close_one(&in.write);
    is_int(finish(copied.run).exit_code, 5, "the parent's isn't touched");
    close(in.read);
}

/* ---- many ---- */

#define THREADS 8
#define RUNS 100

struct many {
    int gate, first, failed;
};

static void *run_many(void *data)
{
    struct many *many = data;
    struct flk_run *runs[RUNS];
    char text[64];
    for (int i = many->first; i < RUNS; i += THREADS) {
        snprintf(text, sizeof text, "read -r line; exit %d", i);
        runs[i] = start(&(struct flk_run_spec){.argv = SHELL(text), .fds = (int[]){many->gate, -1, -1}});
    }
    for (int i = many->first; i < RUNS; i += THREADS)
        many->failed += finish(runs[i]).exit_code != i;
    return NULL;
}

static void many(void)
{
    struct pair gate = open_pipe();
    pthread_t threads[THREADS];
    struct many parts[THREADS];
    int failed = 0, before = test_descriptors();
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (struct many){.gate = gate.read, .first = i};
        if (pthread_create(&threads[i], NULL, run_many, &parts[i]) != 0)
            bail_out("no thread");
    }
    close_one(&gate.write);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        failed += parts[i].failed;
    }
    is_int(failed, 0, "%d runs at once from %d threads each have their own result", RUNS, THREADS);
    is_int(test_descriptors(), before - 1, "and leave no descriptor open");
    close(gate.read);
}

static bool find_tool(void)
{
    const char *tool = getenv("FLOCKCTL");
    setenv("FLOCKCTL_TOOL", tool && *tool ? tool : "tools/flockctl", 1);
    return access(getenv("FLOCKCTL_TOOL"), X_OK) == 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], FK_HELPER_VERB) == 0)
        return play_other_release(atoi(argv[2]));
    tap_deadline(test_is_slow() ? 180 : 60);
    program = argv[0];
    test_root();
    if (!find_tool())
        bail_out("no tool at %s; build it first", getenv("FLOCKCTL_TOOL"));
    is_int(try("unused") | try("unused"), 0, "a name is free"); /* its row stays open */
    int before = test_descriptors();
    ends();
    gets();
    is_int(test_in_child(swap_streams, NULL), 0, "stdout and stderr can change places");
    is_int(test_in_child(without_stdin, NULL), 0, "a closed stdin is an empty one for the command");
    large();
    signals();
    limits();
    kills();
    stragglers();
    not_executed();
    refused();
    missing_tool();
    other_library();
    is_int(test_descriptors(), before, "none of that leaves a descriptor open");
    detached();
    held();
    other_root();
    kept();
    handed_twice();
    helper_killed();
    isolated();
    hosts();
    short_thread();
    host_killed();
    host_of_detached_killed();
    forked();
    many();
    return done_testing();
}
