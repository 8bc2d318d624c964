/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "output.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "helpers.h"
#include "request.h"
#include "row.h"
#include "tap.h"

static struct fk_output open_output(const char *path)
{
    struct fk_output output;
    if (fk_output_open(path, &output) < 0)
        bail_out("%s: %s", path, flk_error_detail());
    return output;
}

static bool is_one(const char *a, const char *b)
{
    struct fk_output first = open_output(a), second = open_output(b);
    bool same = strcmp(first.row, second.row) == 0 && strcmp(first.name, second.name) == 0;
    fk_output_close(&first);
    fk_output_close(&second);
    return same;
}

static int see_bind_mount(void *data)
{
    (void)data;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(test_path("here"), test_path("bound"), NULL, MS_BIND, NULL) < 0)
        return 2;
    return is_one(test_path("here/x"), test_path("bound/x")) ? 0 : 1;
}

static void spellings(void)
{
    mkdir(test_path("here"), 0755);
    mkdir(test_path("here/below"), 0755);
    mkdir(test_path("there"), 0755);
    mkdir(test_path("bound"), 0755);
    if (symlink("here", test_path("link")) < 0 || symlink("../there/y", test_path("here/x")) < 0 ||
        chdir(test_path("here")) < 0)
        bail_out("can't set up");
    const char *x = test_path("here/x");
    ok(is_one(x, "x"), "a relative path and an absolute one are one output");
    ok(is_one(x, "below/.././/x"), "so are detours");
    ok(is_one(x, "x///"), "slashes at the end don't count");
    ok(is_one(x, test_path("link/x")), "a linked directory is followed");
    ok(!is_one(x, test_path("there/y")), "a link at the end isn't");
    ok(!is_one(x, test_path("there/x")), "the same name elsewhere is another one");
    ok(!is_one(x, "X"), "so is another name there");
    int bound = test_is_root() ? test_in_child(see_bind_mount, NULL) : 2;
    if (bound == 2)
        skip("no mount can be made");
    else
        is_int(bound, 0, "a bind mount of the directory is the same place");
}

static void names(void)
{
    char longest[NAME_MAX + 1], path[NAME_MAX + 32], before[FK_OUTPUT_KEY_SIZE] = "";
    memset(longest, 0xff, NAME_MAX);
    longest[NAME_MAX] = '\0';
    const char *const some[] = {"plain", "with\nnewline", "-", "...", ".hidden", "a@b,c", "\xff", longest};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        snprintf(path, sizeof path, "./%s", some[i]);
        struct fk_output output = open_output(path);
        size_t length = strlen(output.row);
        ok(strcmp(output.name, some[i]) == 0 && strcmp(output.row, before) != 0 && output.row[0] == FK_OUTPUT_MARK &&
               length < sizeof output.row && strspn(output.row + 1, "0123456789abcdef-") == length - 1,
           "name %zu is left as it is and gives a key of its own", i);
        ok(!strchr(output.shown, '\n') && !strchr(output.shown, 0xff), "what is shown of it no terminal obeys");
        strcpy(before, output.row);
        fk_output_close(&output);
    }
}

static int open_code(const char *path)
{
    struct fk_output output = {.directory = -1};
    fk_error_restore(&(struct fk_detail){.text = ""});
    int code = fk_output_open(path, &output);
    fk_output_close(&output);
    return code;
}

static void bad_ones(void)
{
    char long_name[NAME_MAX + 2];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    is_int(open_code(""), -EINVAL, "no name: %s", flk_error_detail());
    is_int(open_code("/"), -EINVAL, "nor is /: %s", flk_error_detail());
    is_int(open_code("below/.."), -EINVAL, "nor is ..: %s", flk_error_detail());
    is_int(open_code("./"), -EINVAL, "nor is .: %s", flk_error_detail());
    is_int(open_code(long_name), -ENAMETOOLONG, "too long: %s", flk_error_detail());
    is_int(open_code("nowhere/x"), -ENOENT, "no such directory");
    ok(strstr(flk_error_detail(), "mkdir -p") != NULL, "says what to do: %s", flk_error_detail());
    test_write_file(test_path("here/file"), "");
    is_int(open_code("file/x"), -ENOTDIR, "a file instead of it: %s", flk_error_detail());
    mkdir(test_path("gone"), 0755);
    if (chdir(test_path("gone")) < 0 || rmdir(test_path("gone")) < 0)
        bail_out("can't set up");
    is_int(open_code("x"), -ENOENT, "a directory that has been removed: %s", flk_error_detail());
    if (chdir(test_path("here")) < 0)
        bail_out("can't go back");
}

static int try(const char *path, bool shared, char *detail)
{
    struct fk_output output = open_output(path);
    struct flk_hold *hold;
    int code = fk_acquire_output(&output, shared, NULL, 0, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    snprintf(detail, 256, "%s", code < 0 ? flk_error_detail() : "");
    fk_output_close(&output);
    return code;
}

struct from_elsewhere {
    int code;
    char detail[256];
};

static int try_in_child(void *data)
{
    struct from_elsewhere *result = data;
    result->code = try("../link/x", false, result->detail);
    return 0;
}

static void lock(void)
{
    struct from_elsewhere *result = test_shared(sizeof *result);
    struct fk_output output = open_output("x");
    struct flk_hold *hold;
    char path[PATH_MAX], expected[PATH_MAX + 32];
    is_int(fk_acquire_output(&output, false, NULL, 0, FLK_FOREVER, &hold), 0, "its lock is acquired");
    is_str(flk_hold_name(hold, 0), output.path, "the hold is called by the path");
    fk_row_output(output.row, path, sizeof path);
    is_str(path, output.path, "which the row has in a file");
    is_int(test_entries(test_path("root/rows")), -1, "it isn't among the names");
    is_int(test_in_child(try_in_child, result), 0, "another process tries, by another spelling");
    is_int(result->code, -EBUSY, "and can't have it");
    snprintf(expected, sizeof expected, "%s is taken by pid %d", output.path, (int)getpid());
    ok(strstr(result->detail, expected) != NULL, "it is told the path: %s", result->detail);
    fk_output_close(&output);
    flk_hold_release(hold);
    is_int(test_in_child(try_in_child, result), 0, "once it is released");
    is_int(result->code, 0, "it is free");
}

/* ---- a deadlock of two outputs ---- */

static int take_both(const char *first, const char *second, int socket)
{
    struct fk_output a = open_output(first), b = open_output(second);
    struct flk_hold *holds[2];
    char byte = 'h';
    if (fk_acquire_output(&a, false, NULL, 0, FLK_FOREVER, &holds[0]) < 0 || write(socket, &byte, 1) != 1 ||
        read(socket, &byte, 1) != 1)
        _exit(1);
    int code = fk_acquire_output(&b, false, NULL, 0, FLK_FOREVER, &holds[1]);
    if (code == -EDEADLK) {
        ssize_t length = (ssize_t)strlen(flk_error_detail());
        _exit(write(socket, flk_error_detail(), (size_t)length) == length ? 2 : 1);
    }
    _exit(code == 0 ? 0 : 1);
}

static void deadlock(void)
{
    int sockets[2][2];
    pid_t pids[2];
    char detail[4000] = "", byte;
    for (int i = 0; i < 2; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]) < 0)
            bail_out("no sockets");
        pids[i] = tap_fork();
        if (pids[i] == 0)
            take_both(i ? "two" : "one", i ? "one" : "two", sockets[i][1]);
        if (read(sockets[i][0], &byte, 1) != 1)
            bail_out("a child can't acquire");
    }
    for (int i = 0; i < 2; i++)
        if (write(sockets[i][0], "g", 1) != 1)
            bail_out("a child has gone");
    int results[2] = {test_reap(pids[0]), test_reap(pids[1])};
    ok((results[0] == 2 && results[1] == 0) || (results[0] == 0 && results[1] == 2),
       "of two that want each other's output one is refused, and the other goes on");
    int victim = results[0] == 2 ? 0 : 1;
    if (recv(sockets[victim][0], detail, sizeof detail - 1, MSG_DONTWAIT) < 0)
        detail[0] = '\0';
    ok(strstr(detail, test_path("here/one")) && strstr(detail, test_path("here/two")), "by their paths: %s", detail);
}

int main(void)
{
    tap_deadline(60);
    test_root();
    spellings();
    names();
    bad_ones();
    lock();
    deadlock();
    return done_testing();
}
