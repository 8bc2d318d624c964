/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "latch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "tap.h"

static int open_latch(void)
{
    int fd = open(test_path("latch"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        bail_out("open: %s", strerror(errno));
    return fd;
}

static void content(void)
{
    char record[FK_RECORD_SIZE];
    struct fk_latch latch = {0};
    struct fk_record read;
    int fd = open_latch();
    is_int(fk_latch_init(fd, 3, 0), 0, "a latch is made");
    is_int(fk_latch_read(fd, &latch, record), 0, "and read");
    ok(latch.slots == 3 && latch.number == 0 && latch.living == 0 && !latch.shared,
       "of three slots, no ticket given out");
    is_int(fk_record_read(record, sizeof record, &read), 0, "with a record");
    ok(!read.live, "of nobody");
    struct fk_latch wanted = {.slots = 4096,
                              .number = UINT64_MAX,
                              .living = UINT64_MAX - 1,
                              .admitted = 12345678901234567890u,
                              .shared = true,
                              .kind = 7};
    is_int(fk_latch_write(fd, &wanted), 0, "the largest numbers are written");
    is_int(fk_latch_read(fd, &latch, record), 0, "and read");
    ok(latch.slots == 4096 && latch.number == UINT64_MAX && latch.living == UINT64_MAX - 1 &&
           latch.admitted == 12345678901234567890u && latch.shared && latch.kind == 7,
       "as they were");
    is_int(fk_record_read(record, sizeof record, &read), 0, "which leaves the record whole");
    close(fd);
}

static void check_damaged(int fd, const char *what)
{
    char record[FK_RECORD_SIZE];
    struct fk_latch latch;
    is_int(fk_latch_read(fd, &latch, record), -EBADMSG, "%s is refused", what);
    if (ftruncate(fd, 0) < 0 || fk_latch_init(fd, 1, 0) < 0)
        bail_out("can't mend it");
}

static void put(int fd, const char *text, off_t at)
{
    if (pwrite(fd, text, strlen(text), at) < 0)
        bail_out("pwrite");
}

static void damaged(void)
{
    char record[FK_RECORD_SIZE], header[FK_LATCH_HEADER] = "";
    struct fk_latch latch;
    int fd = open_latch(), accepted = 0;
    if (ftruncate(fd, 0) < 0)
        bail_out("ftruncate");
    check_damaged(fd, "an empty latch");
    if (ftruncate(fd, FK_LATCH_HEADER) < 0)
        bail_out("ftruncate");
    check_damaged(fd, "one without its records");
    put(fd, "slots=0000000000", 0);
    check_damaged(fd, "one of no slots");
    put(fd, "slots=0000004097", 0);
    check_damaged(fd, "one of 4097");
    put(fd, "slots=4294967297", 0);
    check_damaged(fd, "one of more than a number holds");
    put(fd, "slots=-000000001", 0);
    check_damaged(fd, "one of less than none");
    put(fd, "SLOTS=", 0);
    check_damaged(fd, "one that begins with something else");
    if (pread(fd, header, sizeof header - 1, 0) < 0)
        bail_out("pread");
    for (size_t at = 0; at < strlen(header); at++) { /* no digit may be anything else, nor a line's end */
        if ((header[at] >= '0' && header[at] <= '9') || (header[at] == '\n' && at < 70)) {
            put(fd, "x", (off_t)at);
            accepted += fk_latch_read(fd, &latch, record) == 0;
            put(fd, (char[]){header[at], '\0'}, (off_t)at);
        }
    }
    is_int(accepted, 0, "a digit that is none is refused anywhere");
    is_int(fk_latch_read(fd, &latch, record), 0, "and what is whole isn't");
    close(fd);
}

/* ---- the lock ---- */

static void excludes(void)
{
    struct counts {
        unsigned plain; /* not atomic on purpose */
    } *counts = test_shared(sizeof *counts);
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0) {
            int fd = open_latch();
            for (int round = 0; round < 500; round++) {
                if (fk_latch_lock(fd, FK_NEVER) < 0)
                    _exit(1);
                unsigned seen = *(volatile unsigned *)&counts->plain;
                sched_yield();
                *(volatile unsigned *)&counts->plain = seen + 1;
                fk_latch_unlock(fd);
            }
            _exit(0);
        }
    }
    int failures = 0;
    for (int i = 0; i < 4; i++)
        failures += test_reap(pids[i]) != 0;
    is_int(failures, 0, "four processes lock 500 times each");
    is_int((int)counts->plain, 2000, "and no increment of a plain counter is lost");
}

static void stopped_holder(void)
{
    int fd = open_latch(), ready[2];
    char byte;
    if (pipe(ready) < 0)
        bail_out("pipe");
    pid_t pid = tap_fork();
    if (pid == 0) {
        int own = open_latch();
        if (fk_latch_lock(own, FK_NEVER) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    if (read(ready[0], &byte, 1) != 1)
        bail_out("the holder has failed");
    test_stop(pid);
    int64_t before = fk_now();
    is_int(fk_latch_lock(fd, before + 30 * FK_MS), -EAGAIN,
           "while its holder is stopped, the wait ends at the deadline");
    ok(fk_now() >= before + 30 * FK_MS, "not before");
    is_int(fk_latch_lock(fd, 0), -EAGAIN, "a deadline that has passed doesn't wait");
    kill(pid, SIGKILL);
    test_reap(pid);
    is_int(fk_latch_lock(fd, 0), 0, "killed, it has let go");
    fk_latch_unlock(fd);
    is_int(fk_latch_lock(-1, 0), -EBADF, "another error isn't taken for busy");
    close(fd);
    close(ready[0]);
    close(ready[1]);
}

/* What a request makes of it. */
static void requests(void)
{
    struct flk_hold *hold;
    if (flk_row_define("held", 1) < 0)
        bail_out("%s", flk_error_detail());
    int fd = open(test_path("root/rows/held/latch"), O_RDWR | O_CLOEXEC);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        bail_out("flock");
    is_int(flk_acquire("held", 0, 50, &hold), -ETIMEDOUT, "a request whose latch is kept from it ends at its deadline");
    ok(strstr(flk_error_detail(), "latch") != NULL, "and says why: %s", flk_error_detail());
    is_int(flk_acquire("held", 0, 0, &hold), -EBUSY, "one that tries once ends too");
    ok(strstr(flk_error_detail(), "latch") != NULL, "and says why: %s", flk_error_detail());
    struct locker locker = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "held"}}};
    is_int(locker_start(&locker), 'q', "one without a deadline waits on");
    flock(fd, LOCK_UN);
    is_int(locker_wait(&locker), 0, "until the latch is free");
    close(fd);
    locker_release(&locker);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 60 : 20);
    test_root();
    content();
    damaged();
    excludes();
    stopped_holder();
    requests();
    return done_testing();
}
