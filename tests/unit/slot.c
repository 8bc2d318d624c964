/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "deadline.h"
#include "fd.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

#define N 4

static struct fk_row *row;
static unsigned slots[N];
static struct pollfd busy[N];
static unsigned n_busy;

static struct fk_row *open_row(const char *name, unsigned n)
{
    struct fk_row *opened;
    if (fk_row_open(name, n, FK_ROW_MAKE, &opened) < 0)
        bail_out("%s", flk_error_detail());
    return opened;
}

static int take(unsigned count, int mode, bool sweep, int *fds)
{
    struct fk_section section;
    n_busy = 0;
    if (fk_row_enter(row, FK_NEVER, &section) < 0)
        bail_out("%s", flk_error_detail());
    int code = fk_slots_take(&section, count, mode, sweep, slots, fds, busy, &n_busy);
    fk_row_leave(&section);
    return code;
}

static bool busy_wakes(void)
{
    return poll(busy, n_busy, 0) > 0;
}

static void several(void)
{
    int one[N], two[N], more[N];
    row = open_row("several", N);
    is_int(take(2, LOCK_EX, false, two), 0, "two of four are taken");
    ok(slots[0] == 0 && slots[1] == 1, "the lowest");
    is_int(take(1, LOCK_EX, false, one), 0, "one more");
    is_int((int)slots[0], 2, "the next");
    is_int(take(2, LOCK_EX, false, more), -EAGAIN, "two more can't be had");
    is_int((int)n_busy, 3, "those that are taken are there to be slept on");
    ok(!busy_wakes(), "and wake nobody");
    is_int(take(1, LOCK_EX, false, more), 0, "and nothing was taken in part: one can");
    is_int((int)slots[0], 3, "the last");
    fk_slot_drop(&more[0]);
    is_int(take(2, LOCK_EX, false, more), -EAGAIN, "with one free, two can't be had");
    is_int((int)n_busy, 3, "the free one isn't slept on");
    fk_slot_drop(&two[0]);
    ok(two[0] == -1 && busy_wakes(), "one dropped wakes who sleeps");
    is_int(take(2, LOCK_EX, false, more), 0, "and two can be had");
    ok(slots[0] == 0 && slots[1] == 3, "in rising order");
    for (int i = 0; i < 2; i++)
        fk_slot_drop(&more[i]);
    fk_slot_drop(&two[1]);
    fk_slot_drop(&one[0]);
    is_int(take(N, LOCK_EX, false, more), 0, "in the end all can");
    for (int i = 0; i < N; i++)
        fk_slot_drop(&more[i]);
    fk_registry_unref(row);
}

static void shared(void)
{
    int a[N], b[N], c[N];
    row = open_row("single", 1);
    is_int(take(1, LOCK_SH, false, a), 0, "shared");
    is_int(take(1, LOCK_SH, false, b), 0, "and shared again");
    is_int(take(1, LOCK_EX, false, c), -EAGAIN, "not exclusive");
    fk_slot_drop(&a[0]);
    ok(busy_wakes(), "the first one's drop wakes");
    is_int(take(1, LOCK_EX, false, c), -EAGAIN, "for nothing");
    ok(!busy_wakes(), "and the news is read");
    fk_slot_drop(&b[0]);
    ok(busy_wakes(), "the second one's wakes");
    is_int(take(1, LOCK_EX, false, c), 0, "and it can be had");
    fk_slot_drop(&c[0]);
    fk_registry_unref(row);
}

/* ---- those who join in by hand ---- */

static int open_by_hand(const char *name)
{
    int fd = open(test_path("root/rows/%s/slots/0", name), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        bail_out("can't lock by hand");
    return fd;
}

static void outsiders(const char *name, unsigned n)
{
    int fds[N];
    row = open_row(name, n);
    int outsider = open_by_hand(name);
    is_int(take(n, LOCK_EX, false, fds), -EAGAIN, "%s: an outsider has it", name);
    is_int((int)n_busy, 1, "%s: it is slept on", name);
    close(outsider);
    ok(busy_wakes(), "%s: its close wakes", name);
    is_int(take(n, LOCK_EX, false, fds), 0, "%s: and it can be had", name);
    for (unsigned i = 0; i < n; i++)
        fk_slot_drop(&fds[i]);
    outsider = open_by_hand(name);
    is_int(take(n, LOCK_EX, false, fds), -EAGAIN, "%s: an outsider has it again", name);
    flock(outsider, LOCK_UN);
    ok(!busy_wakes(), "%s: one that unlocks without closing wakes nobody", name);
    is_int(take(n, LOCK_EX, true, fds), 0, "%s: so a sweep flocks every slot", name);
    for (unsigned i = 0; i < n; i++)
        fk_slot_drop(&fds[i]);
    close(outsider);
    fk_registry_unref(row);
}

/* A raw clone or a fork before its exec has a copy, which holds the hang-up back. */
static void copies(const char *name, unsigned n)
{
    int fds[N], until[2], again[N];
    row = open_row(name, n);
    if (take(n, LOCK_EX, false, fds) < 0 || pipe(until) < 0)
        bail_out("%s", flk_error_detail());
    for (unsigned i = 0; i < n; i++)
        fk_fd_disown(fds[i]); /* so that the child keeps it */
    pid_t pid = tap_fork();
    if (pid == 0) {
        char byte;
        close(until[1]);
        _exit(read(until[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(until[0]);
    is_int(take(1, LOCK_EX, false, again), -EAGAIN, "%s: taken, and a child has copies", name);
    for (unsigned i = 0; i < n; i++)
        fk_slot_drop(&fds[i]);
    ok(busy_wakes(), "%s: the drop wakes all the same", name);
    is_int(take(n, LOCK_EX, false, again), 0, "%s: and it can be had, whatever the child has", name);
    for (unsigned i = 0; i < n; i++)
        fk_slot_drop(&again[i]);
    is_int(take(1, LOCK_EX, false, again), 0, "%s: again and again", name);
    fk_slot_drop(&again[0]);
    is_int(take(n, LOCK_EX, false, again), 0, "%s: in whatever number", name);
    for (unsigned i = 0; i < n; i++)
        fk_slot_drop(&again[i]);
    close(until[1]);
    test_reap(pid);
    fk_registry_unref(row);
}

/* As one that won't sleep. */
static int take_now(int *fd)
{
    struct fk_section section;
    if (fk_row_enter(row, FK_NEVER, &section) < 0)
        bail_out("%s", flk_error_detail());
    int code = fk_slots_take(&section, 1, LOCK_EX, false, slots, fd, NULL, NULL);
    fk_row_leave(&section);
    return code;
}

static void lowest_again(void)
{
    struct pollfd watched[N];
    int one, two;
    row = open_row("again", N);
    is_int(take_now(&one), 0, "the lowest is taken");
    fk_slot_drop(&one);
    ok(take_now(&one) == 0 && slots[0] == 0, "and again");
    ok(fk_slots_watch(row, watched) && poll(watched, 1, 0) == 0, "what is taken shows nothing");
    ok(take_now(&two) == 0 && slots[0] == 1, "while it is taken, the next");
    fk_slot_drop(&one);
    is_int(poll(watched, 1, 0), 1, "given back, it shows that");
    ok(take_now(&one) == 0 && slots[0] == 0, "and is the lowest");
    fk_slot_drop(&one);
    fk_slot_drop(&two);
    fk_registry_unref(row);
}

int main(void)
{
    tap_deadline(30);
    test_root();
    fk_registry_enter();
    several();
    lowest_again();
    shared();
    outsiders("single", 1);
    outsiders("several", N);
    copies("single", 1);
    copies("several", N);
    return done_testing();
}
