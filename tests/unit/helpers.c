/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helpers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "latch.h"
#include "request.h"
#include "tap.h"

#define PATIENCE_MS 20000

#ifdef __SANITIZE_THREAD__
/* A forked child makes the library's locks afresh, which ThreadSanitizer doesn't see: it believes them held by the
 * fork. And it may start threads. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_mutex_bugs=0:detect_deadlocks=0:die_after_fork=0";
}
#endif

void test_root(void)
{
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("HOME");
    setenv("FLOCKCTL_CONFIG", "/dev/null", 1);
    setenv("FLOCKCTL_DIR", test_path("root"), 1);
}

const char *test_path(const char *format, ...)
{
    static char paths[32][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 32];
    int used = snprintf(path, PATH_MAX, "%s/", tap_directory());
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path + used, (size_t)(PATH_MAX - used), format, arguments);
    va_end(arguments);
    return path;
}

void *test_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bail_out("mmap: %s", strerror(errno));
    return memory;
}

void test_write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        bail_out("%s: %s", path, strerror(errno));
}

int test_entries(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return count;
}

/* Tickets with a number above `above`. */
static int count_tickets(const char *name, unsigned long long above)
{
    int count = 0;
    DIR *directory = opendir(test_path("root/rows/%s/queue", name));
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += !strchr(entry->d_name, '.') && strtoull(entry->d_name, NULL, 10) > above;
    closedir(directory);
    return count;
}

int test_tickets(const char *name)
{
    return count_tickets(name, 0);
}

static int count_waiting(const char *name)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    int fd = open(test_path("root/rows/%s/latch", name), O_RDONLY | O_CLOEXEC);
    bool known = fd >= 0 && fk_latch_read(fd, &latch, record) == 0;
    if (fd >= 0)
        close(fd);
    return known ? count_tickets(name, latch.admitted) : -1;
}

void test_wait_queued(const char *name, int count)
{
    for (int tries = 0; count_waiting(name) != count; tries++) {
        if (tries > PATIENCE_MS)
            bail_out("%d queue for %s, not %d", count_waiting(name), name, count);
        usleep(1000);
    }
}

int test_descriptors(void)
{
    return test_entries("/proc/self/fd") - 1; /* the one that it reads */
}

int test_reap(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            bail_out("waitpid: %s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int test_in_child(int (*run)(void *data), void *data)
{
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(run(data));
    return test_reap(pid);
}

bool test_is_root(void)
{
    return geteuid() == 0;
}

int test_as_other_user(const char *directory, int (*run)(void *data), void *data)
{
    if (directory && test_is_root() && chown(directory, TEST_OTHER_USER, TEST_OTHER_USER) < 0)
        bail_out("chown %s: %s", directory, strerror(errno));
    chmod(tap_directory(), 0755);
    pid_t pid = tap_fork();
    if (pid == 0) {
        if (test_is_root() &&
            (setgroups(0, NULL) < 0 || setresgid(TEST_OTHER_USER, TEST_OTHER_USER, TEST_OTHER_USER) < 0 ||
             setresuid(TEST_OTHER_USER, TEST_OTHER_USER, TEST_OTHER_USER) < 0))
            _exit(99);
        _exit(run(data));
    }
    return test_reap(pid);
}

void test_stop(pid_t pid)
{
    int status;
    kill(pid, SIGSTOP);
    if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
        bail_out("%d can't be stopped", (int)pid);
}

bool test_child_may_allocate(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#else
    return true;
#endif
}

bool test_is_slow(void)
{
    if (!test_child_may_allocate())
        return true;
    const char *preload = getenv("LD_PRELOAD");
    return preload && strstr(preload, "vgpreload");
}

void test_start(pthread_t *thread, void *(*run)(void *), void *data)
{
    if (pthread_create(thread, NULL, run, data) != 0)
        bail_out("no thread");
}

bool test_readable(int fd, int ms)
{
    struct pollfd poll_for = {.fd = fd, .events = POLLIN};
    int ready;
    do
        ready = poll(&poll_for, 1, ms);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* ---- log ---- */

void log_clear(struct log *log)
{
    memset(log, 0, sizeof *log);
}

void log_enter(struct log *log, char letter)
{
    unsigned inside = atomic_fetch_add(&log->inside, 1) + 1, most = atomic_load(&log->most);
    while (inside > most && !atomic_compare_exchange_weak(&log->most, &most, inside))
        ;
    unsigned at = atomic_fetch_add(&log->count, 1);
    if (at < sizeof log->letters - 1)
        log->letters[at] = letter;
}

void log_leave(struct log *log)
{
    atomic_fetch_sub(&log->inside, 1);
}

/* ---- lockers ---- */

struct message {
    char what;
    int code;
};

static void say(int socket, char what, int code)
{
    struct message message;
    memset(&message, 0, sizeof message); /* its padding is sent too */
    message.what = what;
    message.code = code;
    if (send(socket, &message, sizeof message, MSG_NOSIGNAL) != sizeof message)
        _exit(97);
}

static size_t count_wants(const struct locker *locker)
{
    size_t count = 0;
    while (count < 4 && locker->wants[count].name)
        count++;
    return count;
}

static int wait_until_served(struct flk_request *request, int socket, struct flk_hold **hold)
{
    int fd = flk_request_fd(request), code = fd;
    for (bool first = true; fd >= 0; first = false) {
        code = flk_request_step(request, hold);
        if (first)
            say(socket, code == 0 ? 'h' : code == -EAGAIN ? 'q' : 'e', code);
        if (code != -EAGAIN)
            break;
        struct pollfd poll_for = {.fd = fd, .events = POLLIN};
        poll(&poll_for, 1, -1);
    }
    return code;
}

static void run(struct locker *locker)
{
    struct flk_request *request;
    struct flk_hold *hold;
    int code = flk_request_start(locker->wants, count_wants(locker), NULL, locker->timeout_ms, &request);
    if (code < 0) {
        say(locker->socket, 'e', code);
        say(locker->socket, 'd', code);
        _exit(0);
    }
    code = wait_until_served(request, locker->socket, &hold);
    flk_request_cancel(request);
    if (code == 0 && locker->log)
        log_enter(locker->log, locker->letter);
    say(locker->socket, 'd', code);
    char told;
    if (code == 0 && !locker->brief && recv(locker->socket, &told, 1, 0) != 1)
        _exit(98);
    if (code == 0 && locker->log)
        log_leave(locker->log);
    if (locker->log)
        atomic_fetch_add(&locker->log->by_look, fk_request_let_in_by_look);
    if (code == 0 && !locker->early)
        flk_hold_release(hold);
    _exit(0);
}

static struct message hear(struct locker *locker)
{
    struct message message;
    if (!test_readable(locker->socket, PATIENCE_MS))
        bail_out("child '%c' says nothing", locker->letter ? locker->letter : '-');
    if (recv(locker->socket, &message, sizeof message, 0) != sizeof message)
        bail_out("child '%c' has ended", locker->letter ? locker->letter : '-');
    return message;
}

char locker_start(struct locker *locker)
{
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        bail_out("socketpair: %s", strerror(errno));
    locker->pid = tap_fork();
    if (locker->pid == 0) {
        close(sockets[0]);
        locker->socket = sockets[1];
        run(locker);
    }
    close(sockets[1]);
    locker->socket = sockets[0];
    return hear(locker).what;
}

int locker_wait(struct locker *locker)
{
    struct message message = hear(locker);
    return message.what == 'd' ? message.code : -EPROTO;
}

bool locker_waits(struct locker *locker)
{
    return !test_readable(locker->socket, 0);
}

static void forget(struct locker *locker)
{
    close(locker->socket);
    test_reap(locker->pid);
    locker->pid = 0;
}

void locker_release(struct locker *locker)
{
    if (!locker->brief && send(locker->socket, "r", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
        bail_out("can't tell the child: %s", strerror(errno));
    forget(locker);
}

void locker_kill(struct locker *locker)
{
    kill(locker->pid, SIGKILL);
    forget(locker);
}

#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
/* The frames that a cancelled thread leaves without returning stay poisoned, and AddressSanitizer itself puts a variable there
 * when it takes the thread's signal stack down. */
const char *__asan_default_options(void)
{
    return "use_sigaltstack=0";
}
#endif
