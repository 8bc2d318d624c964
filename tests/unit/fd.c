/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static int open_null(void)
{
    return fk_fd_open(AT_FDCWD, "/dev/null", O_RDONLY, 0);
}

static int without_stdio(void *data)
{
    (void)data;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    int fd = open_null();
    if (fd < 3 || is_open(0) || is_open(1) || is_open(2))
        return 1;
    struct flk_hold *hold;
    if (flk_acquire("stdio", 0, 0, &hold) < 0 || is_open(0) || is_open(1) || is_open(2))
        return 2;
    flk_hold_release(hold);
    return is_open(0) || is_open(1) || is_open(2) ? 3 : 0;
}

static int is_closed(void *fd)
{
    return is_open(*(int *)fd) ? 1 : 0;
}

static int close_and_fork(void *data)
{
    /* The number belongs to somebody else by now. */
    int fd = open_null(), number = fd;
    (void)data;
    fk_fd_close(&fd);
    if (fd != -1 || open("/dev/null", O_RDONLY) != number)
        return 99;
    return test_in_child(is_closed, &number);
}

int main(void)
{
    tap_deadline(30);
    test_root();
    fk_registry_enter();
    is_int(test_in_child(without_stdio, NULL), 0, "0, 1 and 2 are never used, even when they are closed");
    int fd = open_null();
    ok(fd > 2 && (fcntl(fd, F_GETFD) & FD_CLOEXEC), "what is opened is close-on-exec");
    is_int(test_in_child(is_closed, &fd), 0, "and closed in a forked child");
    ok(is_open(fd), "but not here");
    fk_fd_disown(fd);
    is_int(test_in_child(is_closed, &fd), 1, "disowned, a child has it");
    fk_fd_own(fd);
    is_int(test_in_child(is_closed, &fd), 0, "owned again, it hasn't");
    int moved = fk_fd_move_up(fd, 300);
    ok(moved >= 300 && !is_open(fd), "moved up, the old number is closed");
    ok(fcntl(moved, F_GETFD) & FD_CLOEXEC, "and the new one close-on-exec");
    is_int(test_in_child(is_closed, &moved), 0, "and closed in a child");
    is_int(fk_fd_move_up(moved, 300), moved, "what is high enough stays");
    int copy = moved;
    fk_fd_close(&copy);
    ok(copy == -1 && !is_open(moved), "closing forgets the number");
    fk_fd_close(&copy);
    is_int(copy, -1, "closing -1 is fine");
    is_int(test_in_child(close_and_fork, NULL), 1,
           "a number closed and used by somebody else is left alone in a child");
    is_int(fk_fd_open(AT_FDCWD, test_path("nothing"), O_RDONLY, 0), -ENOENT, "a failure is -errno");
    return done_testing();
}
