/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t owner; /* the process that may print */
static unsigned planned, count, failed;
static bool has_plan;
static char directory[PATH_MAX];

static void kill_descendants(pid_t pid, int depth);

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    remove(path);
    return 0;
}

/* The children's children come to us too, to be reaped: not every container's init does that. */
static void end_descendants(void)
{
    pid_t pid;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    kill_descendants(owner, 0);
    for (int tries = 0; tries < 1000 && (pid = waitpid(-1, NULL, WNOHANG)) >= 0; tries += !pid) {
        if (!pid)
            usleep(1000);
    }
}

static void clean_up(void)
{
    if (getpid() != owner)
        return;
    end_descendants();
    if (*directory)
        nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Before main(), since a child that is the first to call us must not pass for the owner. Signals are as a shell would
 * give them: a job in the background of a script has INT and QUIT ignored, and what is ignored is inherited. */
static void __attribute__((constructor)) start(void)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGCHLD, SIGUSR1, SIGUSR2};
    sigset_t none;

    owner = getpid();
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        signal(signals[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    atexit(clean_up);
}

static void must_be_owner(const char *call)
{
    if (getpid() == owner)
        return;
    fprintf(stderr, "# %s called in process %ld, a child of the test program: only %ld may test\n", call,
            (long)getpid(), (long)owner);
    abort();
}

/* One line, since a second one would be TAP of its own. */
static void TAP_PRINTF(1, 0) print_line(const char *format, va_list args)
{
    char text[1000];

    vsnprintf(text, sizeof(text), format, args);
    for (char *c = text; (c = strpbrk(c, "\n\r"));)
        *c = ' ';
    puts(text);
}

/* Flushed, so that a fork() copies nothing that would be printed twice. The lock keeps the count and the line together.
 */
static void TAP_PRINTF(2, 0) print_test(bool passed, const char *name, va_list args)
{
    flockfile(stdout);
    if (!passed)
        failed++;
    printf("%sok %u - ", passed ? "" : "not ", ++count);
    print_line(name, args);
    fflush(stdout);
    funlockfile(stdout);
}

static bool TAP_PRINTF(4, 0) report(const char *file, int line, bool passed, const char *name, va_list args)
{
    must_be_owner("a test");
    print_test(passed, name, args);
    if (!passed)
        diag("failed at %s:%d", file, line);
    return passed;
}

void plan(unsigned tests)
{
    must_be_owner("plan()");
    planned = tests;
    has_plan = true;
    printf("1..%u\n", tests);
    fflush(stdout);
}

int done_testing(void)
{
    must_be_owner("done_testing()");
    if (!has_plan)
        plan(count);
    return failed || count != planned;
}

bool tap_ok(const char *file, int line, bool passed, const char *name, ...)
{
    va_list args;

    va_start(args, name);
    report(file, line, passed, name, args);
    va_end(args);
    return passed;
}

bool tap_is_int(const char *file, int line, long long got, long long wanted, const char *name, ...)
{
    va_list args;

    va_start(args, name);
    report(file, line, got == wanted, name, args);
    va_end(args);
    if (got != wanted)
        diag("   got %lld\nwanted %lld", got, wanted);
    return got == wanted;
}

bool tap_is_str(const char *file, int line, const char *got, const char *wanted, const char *name, ...)
{
    bool same = got && wanted ? !strcmp(got, wanted) : got == wanted;
    va_list args;

    va_start(args, name);
    report(file, line, same, name, args);
    va_end(args);
    if (!same)
        diag("   got \"%s\"\nwanted \"%s\"", got ? got : "(NULL)", wanted ? wanted : "(NULL)");
    return same;
}

void skip(const char *reason, ...)
{
    va_list args;

    must_be_owner("skip()");
    flockfile(stdout);
    printf("ok %u # SKIP ", ++count);
    va_start(args, reason);
    print_line(reason, args);
    va_end(args);
    fflush(stdout);
    funlockfile(stdout);
}

void skip_all(const char *reason, ...)
{
    va_list args;

    must_be_owner("skip_all()");
    printf("1..0 # SKIP ");
    va_start(args, reason);
    print_line(reason, args);
    va_end(args);
    exit(0);
}

void bail_out(const char *reason, ...)
{
    va_list args;

    must_be_owner("bail_out()");
    printf("Bail out! ");
    va_start(args, reason);
    print_line(reason, args);
    va_end(args);
    exit(1);
}

void diag(const char *text, ...)
{
    char buffer[4000], *rest = buffer, *line;
    va_list args;

    va_start(args, text);
    vsnprintf(buffer, sizeof(buffer), text, args);
    va_end(args);
    while ((line = strsep(&rest, "\n")))
        fprintf(stderr, "# %s\n", line);
}

pid_t tap_fork(void)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0 && getpid() == owner)
        bail_out("fork: %s", strerror(errno));
    if (pid < 0)
        abort();
    if (pid == 0)
        dup2(STDERR_FILENO, STDOUT_FILENO);
    return pid;
}

/* The children of PID's first thread, and theirs. Only what a signal handler may call; where the kernel has no such
 * file, none are found. The number of a child of ours can't be another process's by now, since nobody reaps it
 * meanwhile. */
static void kill_descendants(pid_t pid, int depth)
{
    char path[64], chunk[512];
    pid_t child = 0;
    ssize_t length;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/task/%ld/children", (long)pid, (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while ((length = read(fd, chunk, sizeof(chunk))) > 0) {
        for (ssize_t i = 0; i < length; i++) {
            if (chunk[i] >= '0' && chunk[i] <= '9') {
                child = child * 10 + (chunk[i] - '0');
                continue;
            }
            if (depth < 8)
                kill_descendants(child, depth + 1);
            kill(child, SIGKILL);
            child = 0;
        }
    }
    close(fd);
}

static void out_of_time(int signal)
{
    static const char text[] = "\nBail out! the test program's deadline has passed\n";

    (void)signal;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(2);
    end_descendants();
    /* nftw() isn't for signal handlers. */
    if (*directory)
        execl("/bin/sh", "sh", "-c", "rm -rf -- \"$0\"; exit 1", directory, (char *)NULL);
    _exit(1);
}

void tap_deadline(unsigned seconds)
{
    must_be_owner("tap_deadline()");
    signal(SIGALRM, out_of_time);
    alarm(seconds);
}

const char *tap_directory(void)
{
    const char *parent = getenv("TMPDIR");

    if (*directory)
        return directory;
    must_be_owner("tap_directory()");
    if (snprintf(directory, sizeof(directory), "%s/flockctl-test.XXXXXX", parent && *parent ? parent : "/tmp") >=
        (int)sizeof(directory))
        bail_out("TMPDIR is too long");
    if (!mkdtemp(directory))
        bail_out("%s: %s", directory, strerror(errno));
    return directory;
}
