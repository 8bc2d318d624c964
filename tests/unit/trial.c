/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests for pools with a check, in programs. */
#include "trial.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "pool.h"
#include "registry.h"
#include "tap.h"

static const char *const letters[] = {"a", "b", "c"};

static void define(const char *name, const char *check)
{
    struct flk_pool pool = {.values = letters, .n_values = 3, .check = check};
    if (flk_pool_define(name, &pool) < 0)
        bail_out("%s", flk_error_detail());
}

/* A file that makes a value one in use. */
static void occupy(const char *value, bool on)
{
    if (on)
        test_write_file(test_path("busy.%s", value), "");
    else
        unlink(test_path("busy.%s", value));
}

static struct flk_request *start(const char *name, unsigned count, int64_t timeout_ms)
{
    struct flk_request *request;
    struct flk_want want = {.name = name, .count = count};
    if (flk_request_start(&want, 1, NULL, timeout_ms, &request) < 0)
        bail_out("%s", flk_error_detail());
    return request;
}

/* Steps whenever the descriptor says so. */
static int finish(struct flk_request *request, struct flk_hold **hold)
{
    struct pollfd event = {.fd = flk_request_fd(request), .events = POLLIN};
    int code;
    while ((code = flk_request_step(request, hold)) == -EAGAIN)
        if (poll(&event, 1, 30000) <= 0)
            bail_out("the request's descriptor says nothing");
    return code;
}

static const char *values_of(const struct flk_hold *hold)
{
    static char text[64];
    text[0] = '\0';
    for (size_t i = 0; flk_hold_value(hold, 0, i); i++)
        strcat(text, flk_hold_value(hold, 0, i));
    return text;
}

static const char *acquired(const char *name, unsigned count, int64_t timeout_ms)
{
    static char text[64];
    struct flk_hold *hold;
    struct flk_want want = {.name = name, .count = count};
    int code = flk_acquire_many(&want, 1, NULL, timeout_ms, &hold);
    snprintf(text, sizeof text, "%d", code);
    if (code == 0) {
        strcpy(text, values_of(hold));
        flk_hold_release(hold);
    }
    return text;
}

static int64_t noted(const char *name, unsigned slot)
{
    int64_t found[3] = {0};
    struct fk_row *row;
    if (fk_row_open(name, 0, FK_ROW_LOOK, &row) < 0 || fk_pool_read_blocked(row, found) < 0)
        bail_out("%s", flk_error_detail());
    fk_registry_unref(row);
    return found[slot];
}

static void passes_over(void)
{
    define("pool", test_path("check"));
    is_str(acquired("pool", 1, 0), "a", "the lowest");
    occupy("a", true);
    is_str(acquired("pool", 1, 0), "b", "one that is in use is passed over");
    ok(noted("pool", 0) != 0 && noted("pool", 1) == 0, "which is noted");
    is_str(acquired("pool", 2, -1), "bc", "two, by one that would wait");
    is_str(acquired("pool", FLK_ALL, 0), "-16", "all can't be had: %s", flk_error_detail());
    occupy("a", false);
    is_str(acquired("pool", FLK_ALL, 0), "abc", "one that tries once looks at what was blocked, too");
    ok(noted("pool", 0) == 0, "and corrects the note");
}

static void waits(void)
{
    struct flk_hold *hold;
    struct flk_request *request;
    occupy("b", true);
    request = start("pool", FLK_ALL, -1);
    int code = flk_request_step(request, &hold);
    struct pollfd event = {.fd = flk_request_fd(request), .events = POLLIN};
    for (int i = 0; i < 6 && code == -EAGAIN; i++) { /* its three checks, and what it finds */
        if (noted("pool", 1))
            break;
        poll(&event, 1, 30000);
        code = flk_request_step(request, &hold);
    }
    is_int(code, -EAGAIN, "a request in a poll loop");
    ok(noted("pool", 1) != 0, "finds a value in use");
    is_int(test_tickets("pool"), 1, "and queues");
    is_str(acquired("pool", 1, 0), "-16", "nobody is let in before it");
    occupy("b", false);
    is_int(finish(request, &hold), 0, "it is served when the value is usable");
    is_str(values_of(hold), "abc", "and gets all");
    flk_request_cancel(request);
    flk_hold_release(hold);
    is_int(test_tickets("pool"), 0, "nobody is left");
}

/* ---- a check that hangs ---- */

static pid_t checker(void)
{
    pid_t pid = 0;
    for (int i = 0; i < 3000 && pid == 0; i++) {
        FILE *file = fopen(test_path("checker"), "r");
        if (!file || fscanf(file, "%d", &pid) != 1)
            usleep(10000);
        if (file)
            fclose(file);
    }
    unlink(test_path("checker"));
    return pid;
}

static bool ends(pid_t pid)
{
    for (int i = 0; i < 3000 && kill(pid, 0) == 0; i++)
        usleep(10000);
    return pid > 0 && kill(pid, 0) < 0;
}

static void hangs(void)
{
    struct flk_hold *hold;
    test_write_file(test_path("hang"), "");
    int before = test_descriptors();
    struct flk_request *request = start("pool", 1, -1);
    is_int(flk_request_step(request, &hold), -EAGAIN, "while a check runs a step comes back");
    pid_t pid = checker();
    is_int(flk_request_step(request, &hold), -EAGAIN, "again");
    pid_t child = tap_fork();
    if (child == 0) {
        flk_request_cancel(request);
        _exit(kill(pid, 0) == 0 ? 0 : 1);
    }
    is_int(test_reap(child), 0, "a forked child's copy of the request can't end the check");
    flk_request_cancel(request);
    ok(ends(pid), "cancelling does");
    is_int(test_tickets("pool"), 0, "its ticket is gone");
    request = start("pool", 1, 100);
    is_int(finish(request, &hold), -ETIMEDOUT, "a deadline ends it too: %s", flk_error_detail());
    ok(strstr(flk_error_detail(), "still looking at its value a") != NULL, "which is said");
    pid = checker();
    flk_request_cancel(request);
    ok(ends(pid), "and the check");
    unlink(test_path("hang"));
    is_str(acquired("pool", FLK_ALL, 0), "abc", "nothing is held");
    is_int(test_descriptors() <= before + 4, 1, "no descriptor is left"); /* what is kept of the row */
}

static int acquire_both(const char *first, const char *second, unsigned count)
{
    struct flk_hold *hold, *other;
    struct flk_want want = {.name = second, .count = count};
    if (flk_acquire(first, 0, 0, &other) < 0)
        return 99;
    int code = flk_acquire_many(&want, 1, NULL, 20000, &hold);
    if (code == 0)
        flk_hold_release(hold);
    flk_hold_release(other);
    return -code;
}

/* One that holds a lock, has waited for values, and whose check looks at them now has slots that no record tells of. It doesn't wait
 * for itself. */
static void no_false_deadlock(void)
{
    struct flk_hold *hold;
    struct flk_want want = {.name = "pool", .count = FLK_ALL};
    if (flk_acquire_many(&want, 1, NULL, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    pid_t checks = tap_fork();
    if (checks == 0)
        _exit(acquire_both("lock", "pool", FLK_ALL));
    test_wait_queued("pool", 1);
    test_write_file(test_path("hang"), "");
    flk_hold_release(hold);
    pid_t pid = checker();
    pid_t waits = tap_fork();
    if (waits == 0)
        _exit(acquire_both("second", "lock", 1));
    test_wait_queued("lock", 1);
    unlink(test_path("hang"));
    kill(pid, SIGKILL); /* that value is in use, then; the next look says otherwise */
    is_int(test_reap(checks), 0, "one that holds a lock gets its values");
    is_int(test_reap(waits), 0, "and one that waits for that lock isn't told of a deadlock");
}

static void damaged(void)
{
    test_write_file(test_path("root/rows/pool/blocked"), "1\n");
    is_str(acquired("pool", 1, 0), "-74", "a damaged list of what is blocked: %s", flk_error_detail());
    test_write_file(test_path("root/rows/pool/blocked"),
                    "00000000000000000000\n99999999999999999999\n18446744073709551615\n");
    is_str(acquired("pool", FLK_ALL, 0), "abc", "times of the future don't count");
}

static void refused(void)
{
    struct flk_hold *hold;
    struct flk_pool pool = {.values = letters, .n_values = 1, .check = "true"};
    struct flk_want want = {.name = "single", .pool = &pool, .flags = FLK_SHARED};
    is_int(flk_acquire_many(&want, 1, NULL, 0, &hold), -EINVAL, "a pool with a check isn't shared: %s",
           flk_error_detail());
    is_str(acquired("single", 1, 0), "a", "one alone can have it");
    pool.check = "tcp-port";
    is_int(flk_pool_define("ports", &pool), -EINVAL, "values that can't be checked: %s", flk_error_detail());
    define("missing", "/no/such/check");
    is_str(acquired("missing", 1, 0), "-8", "a check that can't be run: %s", flk_error_detail());
    setenv("FLOCKCTL_TOOL", "/no/such/tool", 1);
    is_str(acquired("pool", 1, 0), "-65", "nor without the helper: %s", flk_error_detail());
}

/* The value is in use when its file is there; the check hangs when that is to be. */
static void write_check(void)
{
    char text[1024];
    snprintf(text, sizeof text,
             "#!/bin/sh\n"
             "test -e %1$s/hang && { echo $$ >%1$s/checker.new; mv %1$s/checker.new %1$s/checker; exec sleep 1000; }\n"
             "test ! -e %1$s/busy.$FLOCKCTL_VALUE\n",
             test_path("."));
    test_write_file(test_path("check"), text);
    if (chmod(test_path("check"), 0700) < 0)
        bail_out("chmod");
}

int main(void)
{
    const char *tool = getenv("FLOCKCTL");
    tap_deadline(120);
    test_root();
    setenv("FLOCKCTL_TOOL", tool && *tool ? tool : "tools/flockctl", 1);
    write_check();
    passes_over();
    waits();
    hangs();
    no_false_deadlock();
    damaged();
    refused();
    return done_testing();
}
