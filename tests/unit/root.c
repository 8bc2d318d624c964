/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

#define TEXT_OF(macro) TEXT(macro)
#define TEXT(text) #text
#define UID TEXT_OF(TEST_OTHER_USER)
#define LAST "/tmp/flockctl-" UID /* that user's last candidate */

/* The choice is made once a process, so most of these look at it in a child. */
struct look {
    const char *set, *flockctl_dir, *xdg, *working;
    int code;
    char path[1024], detail[1024], warning[1024], described[8192];
};

static struct look *result; /* shared with children */

static void set(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static int look(void *data)
{
    struct look *this = data;
    char *path = NULL, *text = NULL;
    set("FLOCKCTL_DIR", this->flockctl_dir);
    set("XDG_RUNTIME_DIR", this->xdg);
    if (this->working && chdir(this->working) < 0)
        return 1;
    *result = *this;
    result->code = this->set ? flk_root_set(this->set) : 0;
    if (result->code == 0)
        result->code = flk_root_get(&path);
    snprintf(result->path, sizeof result->path, "%s", path ? path : "");
    snprintf(result->detail, sizeof result->detail, "%s", result->code < 0 ? flk_error_detail() : "");
    snprintf(result->warning, sizeof result->warning, "%s", flk_root_warning() ? flk_root_warning() : "");
    if (result->code == 0 && flk_root_describe(&text) == 0)
        snprintf(result->described, sizeof result->described, "%s", text);
    free(path);
    free(text);
    return 0;
}

static void look_in_child(struct look this)
{
    memset(result, 0, sizeof *result);
    if (test_in_child(look, &this) != 0)
        bail_out("the child has failed");
}

static void look_as_other(const char *directory, struct look this)
{
    memset(result, 0, sizeof *result);
    if (test_as_other_user(directory, look, &this) != 0)
        bail_out("the child has failed");
}

static const char *make(const char *name, mode_t mode)
{
    const char *path = test_path("%s", name);
    if (mkdir(path, 0700) < 0 || chmod(path, mode) < 0)
        bail_out("%s: %s", path, strerror(errno));
    return path;
}

/* ---- which ---- */

static void order(void)
{
    const char *runtime = make("runtime", 0700);
    look_in_child((struct look){.set = test_path("set"), .flockctl_dir = test_path("named"), .xdg = runtime});
    is_str(result->path, test_path("set"), "what the program sets comes first");
    look_in_child((struct look){.flockctl_dir = test_path("named"), .xdg = runtime});
    is_str(result->path, test_path("named"), "then FLOCKCTL_DIR");
    look_in_child((struct look){.flockctl_dir = "", .xdg = runtime});
    is_str(result->path, test_path("runtime/flockctl"), "an empty one counts as not set: then XDG_RUNTIME_DIR");
    is_str(result->warning, "", "without a warning");
    ok(strstr(result->described, "chosen: XDG_RUNTIME_DIR") && strstr(result->described, "passed over: FLOCKCTL_DIR"),
       "the description says so");
    ok(strncmp(result->described, result->path, strlen(result->path)) == 0, "and begins with the path");
    setenv("TMPDIR", test_path("tmp"), 1);
    look_in_child((struct look){.xdg = runtime});
    is_str(result->path, test_path("runtime/flockctl"), "TMPDIR doesn't matter");
    unsetenv("TMPDIR");
}

static void spelling(void)
{
    make("here", 0700);
    look_in_child((struct look){.flockctl_dir = "below", .working = test_path("here")});
    is_str(result->path, test_path("here/below"), "a relative FLOCKCTL_DIR counts from the working directory");
    look_in_child((struct look){.flockctl_dir = test_path("slashes///")});
    is_str(result->path, test_path("slashes"), "slashes at the end are dropped");
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[0] = '/';
    look_in_child((struct look){.flockctl_dir = longest});
    is_int(result->code, -ENAMETOOLONG, "a path that is too long is refused");
    look_in_child((struct look){.set = ""});
    is_int(result->code, -EINVAL, "an empty one can't be set");
    look_in_child((struct look){.flockctl_dir = test_path("no/such/place")});
    is_int(result->code, -ENOENT, "one whose parent isn't there is an error");
    ok(strstr(result->detail, "no/such/place") != NULL, "that names it");
}

static void remove_last(const char *path)
{
    char inside[128];
    snprintf(inside, sizeof inside, "%s/rows", path);
    rmdir(inside);
    snprintf(inside, sizeof inside, "%s/version", path);
    unlink(inside);
    rmdir(path);
}

/* As an ordinary user, for whom the last candidate is in /tmp. */
static void other_candidates(void)
{
    char last[64], mine[64];
    snprintf(mine, sizeof mine, "/run/user/%d", test_is_root() ? TEST_OTHER_USER : (int)getuid());
    snprintf(last, sizeof last, "/tmp/flockctl-%d", test_is_root() ? TEST_OTHER_USER : (int)getuid());
    struct stat status;
    bool runtime = stat(mine, &status) == 0, was_there = stat(last, &status) == 0;
    if (!test_is_root() || runtime || was_there) {
        skip("needs root, and a user without directories");
        return;
    }
    const char *foreign = make("foreign", 0755);
    look_as_other(NULL, (struct look){.xdg = foreign});
    is_str(result->path, last, "an XDG_RUNTIME_DIR of another uid is passed over");
    ok(strstr(result->warning, foreign) && strstr(result->warning, "uid 0"), "with a warning: %s", result->warning);
    look_as_other(NULL, (struct look){.xdg = "relative"});
    ok(strstr(result->warning, "absolute") != NULL, "so is a relative one");
    look_as_other(NULL, (struct look){.xdg = NULL});
    is_str(result->path, last, "without any runtime directory it is the last resort");
    is_str(result->warning, "", "of which nobody is warned when it is there already");
    remove_last(last);
    look_as_other(NULL, (struct look){.xdg = NULL});
    ok(strstr(result->warning, "FLOCKCTL_DIR") != NULL, "but when it is made: %s", result->warning);
    remove_last(last);
}

/* ---- is it safe ---- */

static void check_unsafe(const char *what, const char *path, const char *says)
{
    look_in_child((struct look){.flockctl_dir = path});
    is_int(result->code, -EPERM, "%s is refused", what);
    ok(strstr(result->detail, path) && strstr(result->detail, says), "which is said: %s", result->detail);
}

static void safety(void)
{
    check_unsafe("a directory that the group can enter", make("group", 0750), "0750");
    check_unsafe("one that others can read", make("others", 0704), "0704");
    check_unsafe("one that we can't write", make("readonly", 0500), "0500");
    const char *link = test_path("link");
    if (symlink(make("target", 0700), link) < 0)
        bail_out("symlink");
    check_unsafe("a symbolic link", link, "symbolic link");
    const char *dangling = test_path("dangling");
    if (symlink("nowhere", dangling) < 0)
        bail_out("symlink");
    check_unsafe("a dangling one", dangling, "symbolic link");
    const char *file = test_path("file");
    test_write_file(file, "");
    check_unsafe("a file", file, "not a directory");
    if (!test_is_root()) {
        skip("only root can give directories away");
        return;
    }
    const char *foreign = make("given", 0700);
    if (chown(foreign, TEST_OTHER_USER, TEST_OTHER_USER) < 0)
        bail_out("chown");
    check_unsafe("another user's", foreign, "uid " UID);
}

static void made(void)
{
    struct stat status;
    mode_t before = umask(0);
    const char *path = test_path("made");
    look_in_child((struct look){.flockctl_dir = path});
    umask(before);
    is_int(result->code, 0, "what isn't there is made");
    ok(stat(path, &status) == 0 && (status.st_mode & 07777) == 0700, "with mode 0700");
    ok(stat(test_path("made/version"), &status) == 0 && (status.st_mode & 07777) == (0600 | S_ISVTX),
       "its version is sticky");
    umask(0777);
    look_in_child((struct look){.flockctl_dir = test_path("made2")});
    umask(before);
    is_int(result->code, 0, "whatever the umask is");
    look_in_child((struct look){.flockctl_dir = test_path("made2")});
    is_int(result->code, 0, "it can be used again");
}

/* ---- version ---- */

static void version(void)
{
    make("version", 0700);
    test_write_file(test_path("version/version"), "2\n");
    look_in_child((struct look){.flockctl_dir = test_path("version")});
    is_int(result->code, -EPROTONOSUPPORT, "a directory of another protocol is refused");
    ok(strstr(result->detail, "protocol 2") != NULL, "which the sentence names: %s", result->detail);
    test_write_file(test_path("version/version"), "junk\n");
    look_in_child((struct look){.flockctl_dir = test_path("version")});
    is_int(result->code, -EPROTONOSUPPORT, "and so is one of none that we know");
    test_write_file(test_path("version/version"), "10\n");
    look_in_child((struct look){.flockctl_dir = test_path("version")});
    is_int(result->code, -EPROTONOSUPPORT, "10 isn't 1");
    test_write_file(test_path("version/version"), "");
    look_in_child((struct look){.flockctl_dir = test_path("version")});
    is_int(result->code, 0, "an empty one, whose maker was killed, is completed");
    struct stat status;
    ok(stat(test_path("version/version"), &status) == 0 && status.st_size == 2, "and written");
    unlink(test_path("version/version"));
    rmdir(test_path("version/rows"));
    look_in_child((struct look){.flockctl_dir = test_path("version")});
    is_int(result->code, 0, "one that has nothing yet is completed too");
}

static int makes_and_uses(void *data)
{
    struct flk_hold *hold;
    setenv("FLOCKCTL_DIR", data, 1);
    if (flk_acquire("x", 0, FLK_FOREVER, &hold) < 0)
        return 1;
    flk_hold_release(hold);
    return 0;
}

static void concurrent(void)
{
    int failures = 0;
    for (int round = 0; round < 10; round++) {
        char path[1024];
        pid_t pids[8];
        snprintf(path, sizeof path, "%s", test_path("rush%d", round));
        for (int i = 0; i < 8; i++) {
            pids[i] = tap_fork();
            if (pids[i] == 0)
                _exit(makes_and_uses(path));
        }
        for (int i = 0; i < 8; i++)
            failures += test_reap(pids[i]) != 0;
    }
    is_int(failures, 0, "eight that make the same directory at once all come to use it");
}

/* ---- two worlds ---- */

static void two_worlds(void)
{
    if (!test_is_root()) {
        skip("needs root's last candidate"); /* an ordinary user's may be in use by this machine's user */
        return;
    }
    struct stat status;
    if (stat("/run/user/" UID, &status) == 0 || stat(LAST, &status) == 0) {
        skip("that user has directories");
        return;
    }
    struct locker holder = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "early"}}};
    const char *last = LAST, *runtime = make("late", 0700);
    setenv("FLOCKCTL_DIR", last, 1);
    if (locker_start(&holder) != 'h' || locker_wait(&holder) < 0)
        bail_out("no holder");
    if (system("chown -R " UID ":" UID " " LAST) != 0)
        bail_out("chown");
    look_as_other(runtime, (struct look){.xdg = runtime});
    is_int(result->code, -EPERM, "a holder in a directory further down: two worlds, an error");
    ok(strstr(result->detail, runtime) && strstr(result->detail, last) && strstr(result->detail, "early"),
       "that names both and what is held: %s", result->detail);
    look_as_other(runtime, (struct look){.xdg = runtime, .flockctl_dir = test_path("late/own")});
    is_int(result->code, 0, "who names a directory gets it");
    locker_release(&holder);
    look_as_other(runtime, (struct look){.xdg = runtime});
    is_int(result->code, 0, "and once that one has let go, so does everybody");
    if (system("rm -rf " LAST) != 0)
        bail_out("rm");
}

/* ---- change ---- */

static void changing(void)
{
    struct flk_hold *hold, *other;
    struct flk_request *request;
    char *path;
    setenv("FLOCKCTL_DIR", test_path("first"), 1);
    if (flk_acquire("x", 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    is_int(flk_root_set(test_path("second")), -EBUSY, "the directory can't be changed while something is held");
    if (flk_request_start(&(struct flk_want){.name = "x"}, 1, NULL, FLK_FOREVER, &request) < 0 ||
        flk_request_step(request, &other) != -EAGAIN)
        bail_out("%s", flk_error_detail());
    flk_hold_release(hold);
    is_int(flk_root_set(test_path("second")), -EBUSY, "nor while something is waited for");
    flk_request_cancel(request);
    is_int(flk_root_set(test_path("second")), 0, "afterwards it can");
    int before = test_descriptors();
    if (flk_acquire("x", 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    ok(test_entries(test_path("second/rows/x")) > 0, "and what is acquired then is in the new one");
    flk_hold_release(hold);
    if (flk_root_set(NULL) < 0 || flk_root_get(&path) < 0)
        bail_out("%s", flk_error_detail());
    is_str(path, test_path("first"), "NULL chooses again");
    free(path);
    is_int(test_descriptors(), before, "and no idle row of the old one stays open");
}

int main(void)
{
    tap_deadline(test_is_slow() ? 60 : 20);
    test_root();
    chmod(tap_directory(), 0755);
    result = test_shared(sizeof *result);
    order();
    spelling();
    safety();
    made();
    version();
    concurrent();
    other_candidates();
    two_worlds();
    changing(); /* the last one: children inherit a choice that has been made */
    return done_testing();
}
