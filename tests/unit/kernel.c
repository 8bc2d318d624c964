/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the design takes for granted of the kernel. Should one of these fail, so will the rest, and this says why. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

static const char *fifo;

static int open_fifo(int access)
{
    int fd = open(fifo, access | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        bail_out("%s: %s", fifo, strerror(errno));
    return fd;
}

static short events_of(int fd)
{
    struct pollfd poll_for = {.fd = fd, .events = POLLIN};
    return poll(&poll_for, 1, 0) < 0 ? -1 : poll_for.revents;
}

static bool hangs_up_within(int fd, int ms)
{
    struct pollfd poll_for = {.fd = fd, .events = 0};
    return poll(&poll_for, 1, ms) == 1 && (poll_for.revents & POLLHUP);
}

static int bytes_in(int fd)
{
    int bytes = -1;
    return ioctl(fd, FIONREAD, &bytes) < 0 ? -1 : bytes;
}

static bool try_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* ---- the hang-up ---- */

static void new_fifo(void)
{
    unlink(fifo);
    if (mkfifo(fifo, 0600) < 0)
        bail_out("mkfifo: %s", strerror(errno));
}

static void priming(void)
{
    new_fifo();
    int watch = open_fifo(O_RDONLY);
    is_int(events_of(watch), 0, "a watch opened while nobody writes shows no hang-up");
    close(open_fifo(O_RDWR));
    is_int(events_of(watch), POLLHUP, "once a writer has come and gone, it does");
    int second = open_fifo(O_RDONLY);
    is_int(events_of(second), 0, "a later one has to be primed again");
    int writer = open_fifo(O_RDWR);
    is_int(events_of(watch), 0, "while somebody writes, none shows it");
    close(writer);
    ok(events_of(watch) == POLLHUP && events_of(second) == POLLHUP, "afterwards all of them do");
    is_int(events_of(watch), POLLHUP, "and go on doing so");
    close(watch);
    close(second);
}

static pid_t start_holder(void)
{
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        int fd = open_fifo(O_RDWR);
        if (!try_lock(fd) || write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        bail_out("the holder has failed");
    close(ready[0]);
    return pid;
}

static void end_holders(int signal, const char *name)
{
    int early = 0, rounds = test_is_slow() ? 50 : 300;
    new_fifo();
    int watch = open_fifo(O_RDONLY);
    for (int i = 0; i < rounds; i++) {
        pid_t pid = start_holder();
        kill(pid, signal);
        if (!hangs_up_within(watch, 10000))
            bail_out("no hang-up");
        early += !try_lock(watch);
        flock(watch, LOCK_UN);
        test_reap(pid);
    }
    is_int(early, 0, "at the hang-up the flock has been dropped: %d times %s", rounds, name);
    close(watch);
}

static void bytes_and_hangup(void)
{
    new_fifo();
    int watch = open_fifo(O_RDONLY), other = open_fifo(O_RDONLY), writer = open_fifo(O_RDWR);
    if (write(writer, "x", 1) != 1)
        bail_out("write");
    is_int(events_of(watch), POLLIN, "a byte wakes a watch");
    close(writer);
    is_int(events_of(watch), POLLIN | POLLHUP, "the hang-up comes with it, not instead of it");
    ok(bytes_in(watch) == 1 && bytes_in(other) == 1, "every watch sees the byte and takes nothing away");
    char byte;
    ok(read(watch, &byte, 1) == 1 && read(watch, &byte, 1) == 0, "it can be read after the hang-up");
    is_int(bytes_in(other), 0, "by one");
    close(watch);
    close(other);
}

static int keep_copy(void *data)
{
    char byte;
    return read(*(int *)data, &byte, 1) == 0 ? 0 : 1;
}

static void forked_copies(void)
{
    int until[2];
    new_fifo();
    int watch = open_fifo(O_RDONLY), holder = open_fifo(O_RDWR);
    if (!try_lock(holder) || pipe2(until, O_CLOEXEC) < 0)
        bail_out("lock");
    pid_t pid = tap_fork();
    if (pid == 0) {
        close(until[1]);
        _exit(keep_copy(&until[0]));
    }
    close(until[0]);
    int second = open_fifo(O_RDWR);
    ok(!try_lock(second), "flock excludes another open file description");
    close(second);
    int stay = holder;
    ok(!try_lock(watch), "and a watch");
    flock(stay, LOCK_UN);
    ok(try_lock(watch), "LOCK_UN unlocks for all copies of a descriptor");
    flock(watch, LOCK_UN);
    if (!try_lock(stay))
        bail_out("lock");
    close(stay);
    ok(!try_lock(watch), "closing one copy doesn't");
    is_int(events_of(watch), 0, "and a fork's copy holds the hang-up back");
    close(until[1]);
    is_int(test_reap(pid), 0, "until it is gone");
    ok(events_of(watch) == POLLHUP && try_lock(watch), "then hang-up and lock are there");
    close(watch);
}

static void flock_facts(void)
{
    new_fifo();
    int reader = open_fifo(O_RDONLY), other = open_fifo(O_RDONLY);
    ok(try_lock(reader), "LOCK_EX works on a read-only descriptor");
    ok(!try_lock(other) && errno == EWOULDBLOCK, "and excludes: EWOULDBLOCK");
    int copy = dup(reader);
    flock(copy, LOCK_UN);
    ok(try_lock(other), "a duplicate unlocks as well");
    flock(other, LOCK_SH);
    is_int(flock(reader, LOCK_SH | LOCK_NB), 0, "shared locks go together");
    is_int(flock(reader, LOCK_EX | LOCK_NB), -1, "and keep exclusive ones out");
    close(copy);
    close(reader);
    close(other);
}

static void tee_tells(void)
{
    int scratch[2];
    new_fifo();
    int reader = open_fifo(O_RDONLY);
    if (pipe2(scratch, O_CLOEXEC | O_NONBLOCK) < 0)
        bail_out("pipe");
    is_int(tee(reader, scratch[1], 1, SPLICE_F_NONBLOCK), 0, "tee() of a FIFO without writer says 0");
    int writer = open_fifo(O_RDWR);
    ok(tee(reader, scratch[1], 1, SPLICE_F_NONBLOCK) < 0 && errno == EAGAIN, "with one it says EAGAIN");
    close(writer);
    is_int(tee(reader, scratch[1], 1, SPLICE_F_NONBLOCK), 0, "and 0 again");
    int write_only = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    ok(write_only >= 0, "with a reader there, opening for writing doesn't block");
    close(write_only);
    close(reader);
    ok(open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC) < 0 && errno == ENXIO, "without one it says ENXIO");
    close(scratch[0]);
    close(scratch[1]);
}

static void names_of_fifos(void)
{
    struct stat status;
    new_fifo();
    int watch = open_fifo(O_RDONLY), writer = open_fifo(O_RDWR);
    unlink(fifo);
    ok(fstat(writer, &status) == 0 && status.st_nlink == 0, "st_nlink of an open FIFO tells that its name is gone");
    is_int(events_of(watch), 0, "which disturbs nobody");
    close(writer);
    is_int(events_of(watch), POLLHUP, "and the hang-up comes all the same");
    close(watch);
}

static void small_pipes(void)
{
    new_fifo();
    int fd = open_fifo(O_RDWR);
    is_int(fcntl(fd, F_SETPIPE_SZ, 4096), 4096, "a pipe can be one page small");
    close(fd);
}

static void epoll_and_hangup(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    new_fifo();
    int epoll = epoll_create1(EPOLL_CLOEXEC), watch = open_fifo(O_RDONLY), writer = open_fifo(O_RDWR);
    epoll_ctl(epoll, EPOLL_CTL_ADD, watch, &event);
    is_int(epoll_wait(epoll, &event, 1, 0), 0, "an epoll of a watch is quiet while somebody writes");
    close(writer);
    ok(epoll_wait(epoll, &event, 1, 10000) == 1 && (event.events & EPOLLHUP), "and tells of the hang-up");
    is_int(events_of(epoll), POLLIN, "also to a poll of the epoll itself");
    close(epoll);
    close(watch);
}

/* ---- processes ---- */

static int is_wiped(void *page)
{
    return *(int *)page == 0 ? 0 : 1;
}

static void wiping(void)
{
    int *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || madvise(page, 4096, MADV_WIPEONFORK) < 0) {
        skip("no MADV_WIPEONFORK here");
        return;
    }
    *page = 7;
    is_int(test_in_child(is_wiped, page), 0, "a page with MADV_WIPEONFORK is empty in a forked child");
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        syscall(SYS_exit_group, is_wiped(page));
    is_int(test_reap((pid_t)pid), 0, "and in a raw clone");
    is_int(*page, 7, "and stays in the parent");
    munmap(page, 4096);
}

static void pidfds(void)
{
    int pidfd = pidfd_open(getpid(), 0);
    if (pidfd < 0) {
        skip("no pidfd_open() here");
        return;
    }
    close(pidfd);
    pid_t pid = tap_fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    pidfd = pidfd_open(pid, 0);
    is_int(events_of(pidfd), 0, "a pidfd is quiet while its process lives");
    kill(pid, SIGKILL);
    ok(test_readable(pidfd, 10000), "and readable when that has died, before anybody has reaped it");
    int again = pidfd_open(pid, 0);
    ok(again >= 0 && test_readable(again, 0), "one opened then is readable at once");
    close(again);
    test_reap(pid);
    ok(pidfd_open(pid, 0) < 0 && errno == ESRCH, "after that there is no such process");
    close(pidfd);
}

/* ---- directories ---- */

static ino_t inode_of(const char *path)
{
    struct stat status;
    return stat(path, &status) < 0 ? 0 : status.st_ino;
}

static void renames(void)
{
    const char *a = test_path("a"), *b = test_path("b");
    mkdir(a, 0700);
    mkdir(b, 0700);
    ino_t first = inode_of(a), second = inode_of(b);
    ok(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE) < 0 && errno == EEXIST,
       "RENAME_NOREPLACE doesn't replace a directory, not even an empty one");
    is_int(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE), 0, "RENAME_EXCHANGE exchanges directories");
    ok(inode_of(a) == second && inode_of(b) == first, "with what is in them");
    int fd = open(a, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int other = open(a, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok(try_lock(fd) && !try_lock(other), "a directory can be flocked");
    struct stat status;
    rmdir(a);
    ok(fstat(fd, &status) == 0 && status.st_nlink == 0, "and tells when it has been deleted");
    close(fd);
    close(other);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 60 : 20);
    static char path[PATH_MAX];
    fifo = strcpy(path, test_path("fifo"));
    priming();
    end_holders(SIGKILL, "kill -9");
    end_holders(SIGTERM, "TERM");
    bytes_and_hangup();
    forked_copies();
    flock_facts();
    tee_tells();
    names_of_fifos();
    small_pipes();
    epoll_and_hangup();
    wiping();
    pidfds();
    renames();
    return done_testing();
}
