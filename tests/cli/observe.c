/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Was a lock free while somebody lived who must not have lost it? Looks again and again, from outside: at the hang-up of the
 * slot's FIFO, and of a FIFO that everybody of the tree has open for writing. Once the slot is free, who is alive afterwards was
 * alive then: processes come from processes.
 *
 * Usage: observe SLOT ALIVE   both are open for writing already; prints "LOOKS last" or "LOOKS early" once the slot is free
 *        observe ALIVE        does anybody have that FIFO open for reading? Exit status 0: nobody */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define LONGEST 400000 /* looks: that ends a broken test */

static int open_end(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static int is_over(int fd)
{
    struct pollfd end = {.fd = fd, .events = 0};
    if (poll(&end, 1, 0) < 0)
        err(1, "poll");
    return end.revents & POLLHUP;
}

static int has_readers(const char *path)
{
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno != ENXIO)
        err(2, "%s", path);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Of a process that has ended the kernel closes the highest descriptors first: the slot's is closed, this one not quite. */
static int is_alone(const char *path)
{
    if (!has_readers(path))
        return 1;
    usleep(10000);
    return !has_readers(path);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return is_alone(argv[1]) ? 0 : 1;
    if (argc != 3)
        errx(2, "usage: observe [SLOT] ALIVE");
    int slot = open_end(argv[1]), alive = open_end(argv[2]);
    if (is_over(slot) || is_over(alive))
        errx(1, "nobody has it open");
    puts("looking");
    fflush(stdout);
    long looks = 1;
    while (!is_over(slot) && looks < LONGEST) {
        looks++;
        usleep(100);
    }
    if (looks == LONGEST)
        errx(1, "the slot is never free");
    printf("%ld %s\n", looks, is_over(alive) ? "last" : "early");
    return 0;
}
