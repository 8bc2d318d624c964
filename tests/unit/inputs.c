/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../../tools/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

static char tree[PATH_MAX]; /* the input */
static struct inputs inputs;

static const char *digest_now(void)
{
    static char text[2][DIGEST_TEXT_SIZE];
    static int turn;
    unsigned char result[DIGEST_SIZE];
    turn = !turn;
    if (inputs_digest(&inputs, tree, result) < 0)
        snprintf(text[turn], sizeof text[turn], "error");
    else
        digest_write(result, text[turn]);
    return text[turn];
}

static const char *in(const char *name)
{
    return test_path("tree/%s", name);
}

/* Whether the digest differs from the one of the last call. */
static bool differs(void)
{
    static char last[DIGEST_TEXT_SIZE];
    const char *now = digest_now();
    bool other = strcmp(last, now) != 0;
    strcpy(last, now);
    return other;
}

static void counts(const char *what)
{
    ok(differs(), "counts: %s", what);
}

static void counts_not(const char *what)
{
    ok(!differs(), "doesn't count: %s", what);
}

static void must(int code, const char *what)
{
    if (code < 0)
        bail_out("%s: %s", what, strerror(errno));
}

static void make_tree(void)
{
    snprintf(tree, sizeof tree, "%s", test_path("tree"));
    must(mkdir(tree, 0755), "mkdir");
    must(mkdir(in("sub"), 0755), "mkdir");
    test_write_file(in("a"), "one");
    test_write_file(in("b"), "two");
    test_write_file(in("sub/c"), "three");
    must(symlink("a", in("link")), "symlink");
}

/* Its content, then its stat data alone. */
static void set_times(const char *name, time_t seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    must(utimensat(AT_FDCWD, in(name), times, 0), "utimensat");
}

static void what_counts(void)
{
    differs();
    counts_not("time");
    set_times("a", 1000);
    counts_not("the time of a file");
    test_write_file(in("a"), "One");
    counts("the content of a file");
    must(chmod(in("a"), 0700), "chmod");
    counts("the mode of a file");
    must(rename(in("a"), in("A")), "rename");
    counts("the name of a file");
    must(rename(in("sub"), in("Sub")), "rename");
    counts("the name of a directory");
    must(chmod(in("Sub"), 0700), "chmod");
    counts("the mode of a directory");
    must(mkdir(in("empty"), 0755), "mkdir");
    counts("an empty directory");
    must(unlink(in("link")), "unlink");
    must(symlink("A", in("link")), "symlink");
    counts("what a symbolic link says");
    must(unlink(in("link")), "unlink");
    test_write_file(in("link"), "A");
    counts("that it is a link");
    must(mkfifo(in("fifo"), 0600), "mkfifo");
    counts("a FIFO, which isn't read");
    must(rename(in("b"), in("Sub/b")), "rename");
    counts("in which directory a file is");
    test_write_file(in("new\nline"), "x");
    counts("a name with a newline in it");
}

/* Two lists that would be one stream if names and contents were only put together. */
static void framing(void)
{
    test_write_file(in("ab"), "c");
    differs();
    must(unlink(in("ab")), "unlink");
    test_write_file(in("a"), "bc");
    counts("where a name ends and a content begins");
    must(rename(in("A"), in("swap")), "rename");
    must(rename(in("a"), in("A")), "rename");
    must(rename(in("swap"), in("a")), "rename");
    counts("which of two files has which content");
}

static void order_on_disk(void)
{
    char first[DIGEST_TEXT_SIZE], path[64];
    snprintf(tree, sizeof tree, "%s", test_path("up"));
    must(mkdir(tree, 0755), "mkdir");
    for (int i = 0; i < 300; i++) {
        snprintf(path, sizeof path, "up/%d", i);
        test_write_file(test_path("%s", path), path + 3);
    }
    strcpy(first, digest_now());
    must(mkdir(test_path("down"), 0755), "mkdir");
    for (int i = 299; i >= 0; i--) {
        snprintf(path, sizeof path, "down/%d", i);
        test_write_file(test_path("%s", path), path + 5);
    }
    snprintf(tree, sizeof tree, "%s", test_path("down"));
    is_str(digest_now(), first, "equal directories are equal, in whatever order they were made and wherever they are");
    must(symlink("down", test_path("to-down")), "symlink");
    snprintf(tree, sizeof tree, "%s", test_path("to-down"));
    is_str(digest_now(), first, "a symbolic link that is named itself is followed");
    snprintf(tree, sizeof tree, "%s/", test_path("down"));
    is_str(digest_now(), first, "a slash at the end is of no matter");
    snprintf(tree, sizeof tree, "%s", test_path("tree"));
}

static void what_is_ours(void)
{
    differs();
    must(mkdir(in(".flockctl-k1"), 0700), "mkdir");
    test_write_file(in(".out.flockctl"), "x");
    test_write_file(in(".out.flockctl-inputs"), "x");
    test_write_file(in(".out.flockctl-inputs.new"), "x");
    counts_not("what flockctl keeps beside an output");
    test_write_file(in(".flockctl.conf"), "x slots=2\n");
    counts(".flockctl.conf");
    must(mkdir(in("locks"), 0700), "mkdir");
    must(stat(in("locks"), &inputs.lock_directory), "stat");
    counts_not("the lock directory");
    must(stat(tree, &inputs.output_directory), "stat");
    inputs.before = "out";
    test_write_file(in("out"), "x");
    counts_not("OUTPUT");
    test_write_file(in("out2"), "x");
    counts("a name that only begins as OUTPUT's");
    test_write_file(in("Sub/out"), "x");
    counts("OUTPUT's name in another directory");
    inputs.before = "layer-";
    inputs.after = ".raw";
    differs();
    test_write_file(in("layer-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.raw"), "x");
    counts_not("OUTPUT with a key in its name");
    test_write_file(in("layer-0123456789abcdef.raw"), "x");
    counts("one with something else in its place");
    inputs.before = inputs.after = NULL;
}

static void refused(const char *name, int code, const char *part)
{
    unsigned char result[DIGEST_SIZE];
    is_int(inputs_digest(&inputs, name, result), code, "%s is refused", name);
    ok(strstr(flk_error_detail(), part) != NULL, "  and why: %s", flk_error_detail());
}

static int unreadable(void *data)
{
    unsigned char result[DIGEST_SIZE];
    const char *wanted = data;
    return inputs_digest(&inputs, tree, result) == -EACCES && strstr(flk_error_detail(), wanted) ? 0 : 1;
}

static void bad_ones(void)
{
    must(chmod(in("A"), 0600), "chmod");
    refused(in("missing"), -ENOENT, "tree/missing: No such file or directory; make it first");
    must(symlink("nowhere", test_path("dangling")), "symlink");
    refused(test_path("dangling"), -ENOENT, "dangling");
    refused(in("fifo"), -EINVAL, "neither a file nor a directory");
    refused(in("A/x"), -ENOTDIR, "A/x");
    test_write_file(in("Sub/secret"), "x");
    must(chmod(in("Sub/secret"), 0), "chmod");
    must(chmod(in("Sub"), 0755), "chmod");
    must(chmod(in("a"), 0644), "chmod");
    must(chmod(in("A"), 0644), "chmod");
    inputs_clear(&inputs);
    char wanted[PATH_MAX];
    snprintf(wanted, sizeof wanted, "can't read the input %s", in("Sub/secret"));
    must(rmdir(in(".flockctl-k1")), "rmdir");
    must(rmdir(in("locks")), "rmdir");
    if (test_is_root())
        is_int(test_as_other_user(NULL, unreadable, wanted), 0, "a file that can't be read is named");
    else
        is_int(unreadable(wanted), 0, "a file that can't be read is named");
    must(unlink(in("Sub/secret")), "unlink");
}

int main(void)
{
    tap_deadline(60);
    umask(022);
    make_tree();
    what_counts();
    framing();
    order_on_disk();
    what_is_ours();
    bad_ones();
    inputs_clear(&inputs);
    return done_testing();
}
