/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copies of output. What is printed is a pattern in which every byte tells where it belongs, so that one that is lost, doubled or
 * out of order shows. STRESS_SCALE multiplies the rounds of children that print and exit at once. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "fd.h"
#include "flockctl.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

static char *file_path;

/* ---- the pattern ---- */

static char byte_at(size_t place, unsigned seed)
{
    size_t mixed = (place + seed) * 2654435761u;
    return (char)('!' + (mixed >> 16 ^ mixed) % 90);
}

/* Writes size bytes in pieces of all sizes. */
static int print(int fd, size_t size, unsigned seed)
{
    char buffer[70000];
    for (size_t done = 0, turn = 1; done < size; turn++) {
        size_t piece = (turn * 7919 * (seed + 1)) % sizeof buffer % (size / 5 + 1) + 1;
        if (piece > size - done)
            piece = size - done;
        for (size_t i = 0; i < piece; i++)
            buffer[i] = byte_at(done + i, seed);
        for (size_t sent = 0; sent < piece;) {
            ssize_t written = write(fd, buffer + sent, piece - sent);
            if (written < 0)
                return errno;
            sent += (size_t)written;
        }
        done += piece;
    }
    return 0;
}

static pid_t start_printer(int fd, size_t size, unsigned seed)
{
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(print(fd, size, seed));
    return pid;
}

/* How far the bytes are what they should be. */
static size_t good(const char *bytes, size_t size, unsigned seed)
{
    size_t i = 0;
    while (i < size && bytes[i] == byte_at(i, seed))
        i++;
    return i;
}

static size_t read_file(const char *path, char *buffer, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    for (ssize_t got; size < room && (got = read(fd, buffer + size, room - size)) > 0;)
        size += (size_t)got;
    close(fd);
    return size;
}

static void is_pattern(const char *path, size_t size, unsigned seed, const char *name)
{
    char *buffer = malloc(size + 100);
    size_t got = read_file(path, buffer, size + 100), right = good(buffer, got, seed);
    ok(got == size && right == size, "%s: %zu bytes, %zu are right", name, got, right);
    free(buffer);
}

/* ---- who reads what is shown ---- */

struct reader {
    pthread_t thread;
    int fd;
    size_t size;
    char *bytes;
    useconds_t pause;
};

static void *read_all(void *data)
{
    struct reader *reader = data;
    for (;;) {
        if (reader->pause)
            usleep(reader->pause);
        reader->bytes = realloc(reader->bytes, reader->size + 65536);
        ssize_t got = read(reader->fd, reader->bytes + reader->size, 65536);
        if (got <= 0)
            break;
        reader->size += (size_t)got;
    }
    close(reader->fd);
    return NULL;
}

static void reader_start(struct reader *reader, int fd, useconds_t pause)
{
    *reader = (struct reader){.fd = fd, .pause = pause};
    if (pthread_create(&reader->thread, NULL, read_all, reader) != 0)
        bail_out("no thread");
}

static void reader_is_pattern(struct reader *reader, size_t size, unsigned seed, const char *name)
{
    pthread_join(reader->thread, NULL);
    size_t right = good(reader->bytes, reader->size, seed);
    ok(reader->size == size && right == size, "%s: %zu bytes, %zu are right", name, reader->size, right);
    free(reader->bytes);
}

static void make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
}

static struct fk_copy_file *open_file(uint64_t limit)
{
    struct fk_copy_file *file;
    if (fk_copy_file_open(file_path, limit, &file) < 0)
        bail_out("%s", flk_error_detail());
    return file;
}

static struct fk_copy *start_copy(struct fk_copy_file *file, int shown, int *end)
{
    struct fk_copy *copy;
    if (fk_copy_start(file, shown, &copy, end) < 0)
        bail_out("%s", flk_error_detail());
    fk_fd_disown(*end); /* a forked child prints there; all else it hasn't, as if it had executed something */
    return copy;
}

/* A child prints size bytes and exits at once; that is all. How closing the file went. */
static int copy_once(int shown, uint64_t limit, size_t size, unsigned seed)
{
    int end;
    struct fk_copy_file *file = open_file(limit);
    struct fk_copy *copy = start_copy(file, shown, &end);
    pid_t pid = start_printer(end, size, seed);
    close(end);
    is_int(test_reap(pid), 0, "the command has printed all of it");
    fk_copy_finish(copy);
    return fk_copy_file_close(file);
}

/* ---- where it is shown ---- */

static void to_pipe(int flags, int room, useconds_t pause, const char *name)
{
    int ends[2];
    size_t size = test_is_slow() ? 1000000 : 3000000;
    struct reader reader;
    make_pipe(ends);
    fcntl(ends[1], F_SETFL, flags);
    fcntl(ends[1], F_SETPIPE_SZ, room);
    reader_start(&reader, ends[0], pause);
    is_int(copy_once(ends[1], 0, size, 1), 0, "%s", name);
    close(ends[1]);
    reader_is_pattern(&reader, size, 1, "  shown");
    is_pattern(file_path, size, 1, "  in the file");
}

static void to_socket(int flags)
{
    int ends[2];
    struct reader reader;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        bail_out("socketpair");
    fcntl(ends[1], F_SETFL, flags);
    reader_start(&reader, ends[0], 100);
    is_int(copy_once(ends[1], 0, 2000000, 2), 0, "shown to a socket%s", flags ? ", O_NONBLOCK" : "");
    close(ends[1]);
    reader_is_pattern(&reader, 2000000, 2, "  shown");
    is_pattern(file_path, 2000000, 2, "  in the file");
}

static void to_file(int flags, const char *name)
{
    const char *path = test_path("shown");
    test_write_file(path, "");
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags);
    is_int(copy_once(fd, 0, 1500000, 3), 0, "%s", name);
    is_pattern(path, 1500000, 3, "  shown");
    is_pattern(file_path, 1500000, 3, "  in the file");
    close(fd);
}

static void to_nowhere(void)
{
    is_int(copy_once(-1, 0, 1500000, 4), 0, "shown nowhere");
    is_pattern(file_path, 1500000, 4, "  in the file");
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    is_int(copy_once(null, 0, 1500000, 4), 0, "shown to /dev/null");
    is_pattern(file_path, 1500000, 4, "  in the file");
    close(null);
}

static void to_terminal(void)
{
    struct termios settings;
    struct reader reader;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) {
        skip("no pseudo-terminals here");
        return;
    }
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    tcgetattr(terminal, &settings);
    cfmakeraw(&settings);
    tcsetattr(terminal, TCSANOW, &settings);
    reader_start(&reader, master, 0);
    is_int(copy_once(terminal, 0, 300000, 5), 0, "shown on a terminal");
    close(terminal);
    reader_is_pattern(&reader, 300000, 5, "  shown");
    is_pattern(file_path, 300000, 5, "  in the file");
}

/* What else is written to where it is shown, through the same open file, is kept. */
static void beside_others(void)
{
    const char *path = test_path("beside");
    char buffer[8];
    int end;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct fk_copy_file *file = open_file(0);
    struct fk_copy *copy = start_copy(file, fd, &end);
    if (write(fd, "ab", 2) != 2 || write(end, "cd", 2) != 2)
        bail_out("write");
    close(end);
    fk_copy_finish(copy);
    if (write(fd, "ef", 2) != 2)
        bail_out("write");
    fk_copy_file_close(file);
    ok(pread(fd, buffer, sizeof buffer, 0) == 6 && memcmp(buffer, "abcdef", 6) == 0,
       "the offset of a shared file is kept");
    close(fd);
}

/* ---- the file ---- */

/* /dev/stdin opens what it is anew; a pipe can't be truncated and has no offset. */
static void file_is_a_fifo(void)
{
    int ends[2];
    struct reader reader;
    const char *fifo = test_path("fifo");
    if (mkfifo(fifo, 0600) < 0)
        bail_out("mkfifo");
    int fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    fcntl(fd, F_SETFL, 0);
    make_pipe(ends);
    char *before = file_path;
    file_path = strdup(fifo);
    struct reader shown;
    reader_start(&shown, ends[0], 0);
    struct fk_copy_file *file = open_file(0);
    reader_start(&reader, fd, 0);
    int end;
    struct fk_copy *copy = start_copy(file, ends[1], &end);
    pid_t pid = start_printer(end, 1000000, 6);
    close(end);
    test_reap(pid);
    fk_copy_finish(copy);
    is_int(fk_copy_file_close(file), 0, "the file is a FIFO");
    close(ends[1]);
    reader_is_pattern(&shown, 1000000, 6, "  shown");
    reader_is_pattern(&reader, 1000000, 6, "  in the file");
    free(file_path);
    file_path = before;
}

static void truncation(void)
{
    struct fk_copy_file *file;
    test_write_file(file_path, "what was there before\n");
    is_int(fk_copy_file_close(open_file(0)), 0, "a file that nothing is written to");
    struct stat status;
    ok(stat(file_path, &status) == 0 && status.st_size == 0, "is empty, whatever was in it");
    is_int(fk_copy_file_open(test_path("no/where"), 0, &file), -ENOENT, "a file that can't be made");
    ok(strstr(flk_error_detail(), "no/where"), "%s", flk_error_detail());
    is_int(fk_copy_file_close(NULL), 0, "closing none is fine");
    fk_copy_finish(NULL);
}

static void is_limited(size_t limit, size_t size, unsigned seed, const char *name)
{
    char *bytes = malloc(size + 200), line[100];
    size_t got = read_file(file_path, bytes, size + 200);
    snprintf(line, sizeof line, "\nflockctl: the limit of %zu bytes is reached; the rest was left out\n", limit);
    ok(got == limit + strlen(line) && good(bytes, limit, seed) == limit &&
           memcmp(bytes + limit, line, strlen(line)) == 0,
       "%s: so many bytes, and a line that says so", name);
    free(bytes);
}

static void limits(void)
{
    int ends[2];
    struct reader reader;
    make_pipe(ends);
    reader_start(&reader, ends[0], 0);
    is_int(copy_once(ends[1], 100001, 2000000, 7), 0, "a limit");
    close(ends[1]);
    reader_is_pattern(&reader, 2000000, 7, "  all is shown");
    is_limited(100001, 2000000, 7, "  in the file");
    is_int(copy_once(-1, 5000, 900000, 8), 0, "a limit, shown nowhere");
    is_limited(5000, 900000, 8, "  in the file");
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    is_int(copy_once(null, 5000, 900000, 9), 0, "a limit, by read and write");
    close(null);
    is_limited(5000, 900000, 9, "  in the file");
    is_int(copy_once(-1, 40000, 40000, 10), 0, "a limit that is just kept");
    is_pattern(file_path, 40000, 10, "  is no reason for a line");
}

/* ---- two streams ---- */

#define LINES 2000

static pid_t start_line_printer(int fd, char letter)
{
    pid_t pid = tap_fork();
    if (pid != 0)
        return pid;
    for (int i = 0; i < LINES; i++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%c%06d\n", letter, i);
        if (write(fd, line, (size_t)length) != length)
            _exit(1);
    }
    _exit(0);
}

/* Every line of a letter, in order. What is moved at a time are whole buffers of the pipe, and a line divides those. */
static void is_in_order(const char *bytes, size_t size, char letter)
{
    int next = 0;
    for (size_t i = 0; i + 8 <= size; i += 8) {
        char line[16];
        snprintf(line, sizeof line, "%c%06d\n", letter, next);
        next += memcmp(bytes + i, line, 8) == 0;
    }
    is_int(next, LINES, "lines of stream %c, in order", letter);
}

static void two_streams(bool by_read)
{
    int ends[2][2], end[2];
    struct reader readers[2];
    struct fk_copy *copies[2];
    pid_t pids[2];
    struct fk_copy_file *file = open_file(0);
    for (int i = 0; i < 2; i++) {
        if (by_read ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[i]) : pipe2(ends[i], O_CLOEXEC))
            bail_out("pipe: %s", strerror(errno));
        reader_start(&readers[i], ends[i][0], 0);
        copies[i] = start_copy(file, ends[i][1], &end[i]);
        pids[i] = start_line_printer(end[i], (char)('A' + i));
        close(end[i]);
    }
    for (int i = 0; i < 2; i++) {
        is_int(test_reap(pids[i]), 0, "printed");
        fk_copy_finish(copies[i]);
        close(ends[i][1]);
        pthread_join(readers[i].thread, NULL);
        is_in_order(readers[i].bytes, readers[i].size, (char)('A' + i));
        free(readers[i].bytes);
    }
    is_int(fk_copy_file_close(file), 0, "two streams into one file%s", by_read ? ", by read and write" : "");
    char *bytes = malloc(1000000);
    size_t size = read_file(file_path, bytes, 1000000);
    is_int((long long)size, 2 * 8 * LINES, "nothing else is in it");
    is_in_order(bytes, size, 'A');
    is_in_order(bytes, size, 'B');
    free(bytes);
}

/* ---- what goes wrong ---- */

static void closed_reader(void)
{
    int ends[2], end;
    make_pipe(ends);
    struct fk_copy_file *file = open_file(0);
    struct fk_copy *copy = start_copy(file, ends[1], &end);
    close(ends[0]);
    pid_t pid = start_printer(end, 1000000, 11);
    close(end);
    is_int(test_reap(pid), 0, "nobody reads what is shown: the command isn't disturbed");
    fk_copy_finish(copy);
    is_int(fk_copy_file_close(file), 0, "it isn't a failure");
    is_pattern(file_path, 1000000, 11, "  in the file");
    close(ends[1]);
}

/* Nobody wants the rest: the command finds out, as it would without us. */
static void nobody_wants_it(void)
{
    int ends[2], end;
    make_pipe(ends);
    struct fk_copy_file *file = open_file(1000);
    struct fk_copy *copy = start_copy(file, ends[1], &end);
    close(ends[0]);
    pid_t pid = start_printer(end, 100000000, 12);
    close(end);
    is_int(test_reap(pid), -SIGPIPE, "nobody reads it, and the file has its limit: SIGPIPE for the command");
    fk_copy_finish(copy);
    is_int(fk_copy_file_close(file), 0, "not for us");
    is_limited(1000, 100000000 / 100, 12, "  in the file");
    close(ends[1]);
}

static void show_failure(void)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (full < 0) {
        skip("no /dev/full here");
        return;
    }
    is_int(copy_once(full, 0, 1000000, 13), -ENOSPC, "what can't be shown for another reason is told");
    ok(strstr(flk_error_detail(), "can't be shown"), "%s", flk_error_detail());
    is_pattern(file_path, 1000000, 13, "  in the file");
    close(full);
}

static void full_device(void)
{
    int ends[2];
    struct reader reader;
    char *before = file_path;
    make_pipe(ends);
    reader_start(&reader, ends[0], 0);
    file_path = strdup("/dev/full");
    is_int(copy_once(-1, 0, 2000000, 14), -ENOSPC, "shown nowhere, a full disk is told, and the command isn't killed");
    is_int(copy_once(ends[1], 0, 2000000, 14), -ENOSPC, "shown to a pipe, the same");
    ok(strstr(flk_error_detail(), "/dev/full") && strstr(flk_error_detail(), "No space left"), "%s",
       flk_error_detail());
    close(ends[1]);
    reader_is_pattern(&reader, 2000000, 14, "  all is shown");
    free(file_path);
    file_path = before;
}

#define DISK 262144

/* In a world of mounts of its own; 0: as it should be. */
static int fill_disk(void *data)
{
    int end, ends[2];
    char *path = data, *bytes = malloc(2000000);
    struct fk_copy_file *file;
    struct fk_copy *copy;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", path, "tmpfs", 0, "size=262144") < 0)
        return 100;
    strcat(path, "/copy");
    struct reader reader;
    make_pipe(ends);
    reader_start(&reader, ends[0], 0);
    if (fk_copy_file_open(path, 0, &file) < 0 || fk_copy_start(file, ends[1], &copy, &end) < 0)
        return 101;
    int printed = print(end, 2000000, 15);
    close(end);
    fk_copy_finish(copy);
    close(ends[1]);
    pthread_join(reader.thread, NULL);
    if (printed != 0 || reader.size != 2000000 || good(reader.bytes, reader.size, 15) != reader.size)
        return 1;
    size_t size = read_file(path, bytes, 2000000);
    if (size != DISK || good(bytes, size, 15) != size)
        return 2;
    return fk_copy_file_close(file) == -ENOSPC ? 0 : 3;
}

static void full_disk(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", test_path("disk"));
    mkdir(path, 0755);
    int code = test_is_root() ? test_in_child(fill_disk, path) : 100;
    if (code == 100)
        skip("no file system can be mounted here");
    else
        is_int(code, 0, "a disk that is full after a while: it is used up, all is shown, and it is told");
}

/* A straggler keeps the pipe, and goes on writing to it. */
static void straggler(bool writes)
{
    int end, ready[2];
    char byte;
    make_pipe(ready);
    struct fk_copy_file *file = open_file(0);
    struct fk_copy *copy = start_copy(file, -1, &end);
    pid_t pid = tap_fork();
    if (pid == 0) {
        if (print(end, 200000, 16) != 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        while (!writes || write(end, "straggler\n", 10) == 10)
            if (!writes)
                pause();
        _exit(2);
    }
    close(end);
    if (!test_readable(ready[0], 20000) || read(ready[0], &byte, 1) != 1)
        bail_out("the straggler isn't there");
    fk_copy_finish(copy);
    is_int(fk_copy_file_close(file), 0, "a straggler that keeps the pipe%s isn't waited for",
           writes ? " and writes" : "");
    if (writes) {
        is_int(test_reap(pid), -SIGPIPE, "  it finds the pipe closed");
    } else {
        kill(pid, SIGKILL);
        test_reap(pid);
        is_pattern(file_path, 200000, 16, "  in the file");
    }
    close(ready[0]);
    close(ready[1]);
}

/* ---- children that print and exit at once ---- */

static void at_once(int shown, int rounds, const char *name)
{
    int wrong = 0;
    size_t size = 100000;
    char *bytes = malloc(size + 1);
    for (int i = 0; i < rounds; i++) {
        int end, ends[2];
        struct reader reader;
        make_pipe(ends);
        reader_start(&reader, ends[0], 0);
        struct fk_copy_file *file = open_file(0);
        struct fk_copy *copy = start_copy(file, shown < 0 ? ends[1] : shown, &end);
        pid_t pid = start_printer(end, size, (unsigned)i);
        close(end);
        wrong += test_reap(pid) != 0;
        fk_copy_finish(copy);
        close(ends[1]);
        pthread_join(reader.thread, NULL);
        wrong += fk_copy_file_close(file) != 0;
        wrong += read_file(file_path, bytes, size + 1) != size || good(bytes, size, (unsigned)i) != size;
        wrong += shown < 0 && (reader.size != size || good(reader.bytes, size, (unsigned)i) != size);
        free(reader.bytes);
    }
    is_int(wrong, 0, "%d children print %zu bytes and exit at once, %s: none is lost", rounds, size, name);
    free(bytes);
}

static int scale(void)
{
    const char *text = getenv("STRESS_SCALE");
    return text ? atoi(text) : 1;
}

static int blocks_nothing(void *data)
{
    int end;
    (void)data;
    struct fk_copy_file *file = open_file(0);
    struct fk_copy *copy = start_copy(file, -1, &end);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    for (int number = 1; number < 32; number++)
        if (sigismember(&now, number))
            return number;
    close(end);
    fk_copy_finish(copy);
    return fk_copy_file_close(file);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 300 : 60 + 30 * (unsigned)scale());
    fk_registry_enter();
    file_path = strdup(test_path("copy"));
    int before = test_descriptors(), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    to_pipe(0, 65536, 0, "shown to a pipe");
    to_pipe(0, 4096, 200, "a small pipe that is read slowly");
    to_pipe(O_NONBLOCK, 65536, 200, "a pipe with O_NONBLOCK that is read slowly");
    to_socket(0);
    to_socket(O_NONBLOCK);
    to_file(0, "shown in a file");
    to_file(O_APPEND, "shown in a file with O_APPEND");
    to_nowhere();
    to_terminal();
    beside_others();
    file_is_a_fifo();
    truncation();
    limits();
    two_streams(false);
    two_streams(true);
    closed_reader();
    nobody_wants_it();
    show_failure();
    full_device();
    full_disk();
    straggler(false);
    straggler(true);
    is_int(test_in_child(blocks_nothing, NULL), 0, "the caller's signal mask is left alone");
    at_once(-1, (test_is_slow() ? 20 : 200) * scale(), "shown to a pipe");
    at_once(null, (test_is_slow() ? 20 : 100) * scale(), "by read and write");
    close(null);
    is_int(test_descriptors(), before, "no descriptor is left open");
    free(file_path);
    return done_testing();
}
