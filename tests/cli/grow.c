/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A tree of processes that is hard to end, all of which have open what they inherit.
 *
 * Usage: grow COUNT READY [SECONDS]   COUNT processes of every kind; READY is made when all of them live, then it waits, or ends
 *                                     after SECONDS and leaves them behind
 *        grow forks                   ignores TERM and forks 500 times a second what lives for a moment */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int ready[2];

static void nap(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void stay(void) __attribute__((noreturn));
static void stay(void)
{
    if (write(ready[1], "", 1) != 1)
        _exit(1);
    close(ready[0]);
    close(ready[1]);
    for (;;)
        pause();
}

static void grow_one(int kind)
{
    if (kind % 5 == 1 || kind % 5 == 2)
        setsid();
    if (kind % 5 == 2 && fork() > 0) /* its parent ends: whose child is it? */
        _exit(0);
    if (kind % 5 == 3)
        signal(SIGTERM, SIG_IGN);
    if (kind % 5 == 4 && setpgid(0, 0) < 0)
        _exit(1);
    stay();
}

static void grow(int count, const char *path, long seconds)
{
    char byte;
    if (pipe(ready) < 0)
        err(1, "pipe");
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0)
            grow_one(i);
        if (pid < 0)
            err(1, "fork");
    }
    close(ready[1]);
    for (int i = 0; i < count; i++)
        if (read(ready[0], &byte, 1) != 1)
            errx(1, "one has died");
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0)
        err(1, "%s", path);
    close(fd);
    if (seconds < 0)
        pause();
    nap(seconds * 1000);
}

static void grow_for_ever(void)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* they needn't be waited for */
    for (;;) {
        if (fork() == 0) {
            nap(50);
            _exit(0);
        }
        nap(2);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "forks") == 0)
        grow_for_ever();
    if (argc != 3 && argc != 4)
        errx(2, "usage: grow COUNT READY [SECONDS] | grow forks");
    grow(atoi(argv[1]), argv[2], argc == 4 ? atol(argv[3]) : -1);
    return 0;
}
