/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "helpers.h"
#include "tap.h"

static struct fk_identity there(const char *path)
{
    struct fk_identity identity;
    struct stat status;
    if (lstat(path, &status) < 0)
        bail_out("%s isn't there", path);
    fk_identity_take(&status, &identity);
    return identity;
}

/* As a builder does: an output, and its stamp. */
static void stamp(const char *output, const char *key)
{
    char path[PATH_MAX];
    fk_stamp_path(output, path);
    unlink(path);
    const struct fk_stamp_spec spec = {.output = there(output), .key = key};
    if (fk_stamp_write(AT_FDCWD, path, &spec) < 0)
        bail_out("can't write %s", path);
}

static int look(const char *output, const char *key, int64_t max_age_ms)
{
    struct fk_identity identity;
    return fk_stamp_look(AT_FDCWD, output, &(struct fk_wanted){.key = key, .max_age_ms = max_age_ms}, &identity);
}

static void without_key(const char *x)
{
    const char *link = test_path("link");
    is_int(look(x, NULL, 0), 0, "what isn't there isn't current");
    test_write_file(x, "1");
    is_int(look(x, NULL, 0), 1, "what is there is, when no key is asked for");
    is_int(look(x, "k", 0), 0, "with a key it isn't, without a stamp");
    if (symlink(x, link) < 0)
        bail_out("no link");
    is_int(look(link, NULL, 0), 1, "a link to something is there");
    is_int(look(link, "k", 0), 0, "it has no key");
    unlink(link);
    if (symlink(test_path("nothing"), link) < 0)
        bail_out("no link");
    is_int(look(link, NULL, 0), 0, "a link to nothing isn't there");
    is_int(look(test_path("x/below"), NULL, 0), -ENOTDIR, "no directory where one must be: %s", flk_error_detail());
}

static void with_key(const char *x)
{
    const char *const keys[] = {"k", "", "two\nlines \\x0a \xff", NULL};
    char *long_key = calloc(1, 10001);
    memset(long_key, 'l', 10000);
    for (size_t i = 0; keys[i]; i++) {
        stamp(x, keys[i]);
        is_int(look(x, keys[i], 0), 1, "key %zu is recognised", i);
        is_int(look(x, "other", 0), 0, "another one isn't");
        is_int(look(x, NULL, 0), 1, "and none is asked for");
    }
    stamp(x, "k");
    is_int(look(x, "", 0), 0, "no key is another one");
    is_int(look(x, "k\n", 0), 0, "a longer one, too");
    stamp(x, long_key);
    is_int(look(x, long_key, 0), 1, "a key of 10,000 bytes is recognised");
    long_key[9999] = 'm';
    is_int(look(x, long_key, 0), 0, "also one that differs in the last of them");
    free(long_key);
}

static void identity(const char *x)
{
    stamp(x, "k");
    test_write_file(test_path("y"), "1");
    if (rename(test_path("y"), x) < 0)
        bail_out("can't rename");
    is_int(look(x, "k", 0), 0, "another file of that name isn't current");
    stamp(x, "k");
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    utimensat(AT_FDCWD, x, times, 0);
    is_int(look(x, "k", 0), 0, "nor is the same one with another time");
    stamp(x, "k");
    is_int(look(x, "k", 0), 1, "a time of 1970 is one like any other");
    times[1].tv_sec = -5;
    utimensat(AT_FDCWD, x, times, 0);
    stamp(x, "k");
    is_int(look(x, "k", 0), 1, "and so is one before");
    if (truncate(x, 1000) < 0)
        bail_out("can't truncate");
    utimensat(AT_FDCWD, x, times, 0);
    is_int(look(x, "k", 0), 0, "another size isn't the same");
}

static void damage(const char *file, const char *text)
{
    unlink(file);
    test_write_file(file, text);
}

static void damaged(const char *x)
{
    char path[PATH_MAX], text[4096];
    fk_stamp_path(x, path);
    stamp(x, "k");
    ssize_t length = fk_fd_read_text(AT_FDCWD, path, text, sizeof text);
    is_int(look(x, "k", 0), 1, "a whole stamp is taken");
    unsigned refused = 0;
    for (ssize_t cut = length - 1; cut >= 0; cut--) {
        text[cut] = '\0';
        damage(path, text);
        refused += look(x, "k", 0) == 0;
    }
    is_int(refused, length, "cut off anywhere it is noticed");
    unlink(path);
    if (mkfifo(path, 0600) < 0)
        bail_out("no FIFO");
    is_int(look(x, "k", 0), 0, "a FIFO in its place hangs nobody");
    unlink(path);
}

static void age(const char *x)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    utimensat(AT_FDCWD, x, times, 0);
    is_int(look(x, NULL, 3600000), 1, "written just now it is younger than an hour");
    times[1] = (struct timespec){.tv_sec = time(NULL) - 7200};
    utimensat(AT_FDCWD, x, times, 0);
    is_int(look(x, NULL, 3600000), 0, "two hours old it isn't");
    stamp(x, NULL);
    is_int(look(x, NULL, 3600000), 1, "the stamp knows when it was built");
    is_int(look(x, "", 0), 0, "for no key, which is none of no bytes");
    times[1].tv_sec = time(NULL) + 7200;
    utimensat(AT_FDCWD, x, times, 0);
    is_int(look(x, NULL, 3600000), 0, "one of the future has no age that could be told");
}

/* Seconds since its stamp says it was used. */
static int64_t unused_for(const char *x)
{
    char path[PATH_MAX];
    fk_stamp_path(x, path);
    return time(NULL) - there(path).mtime_ns / 1000000000;
}

static void use(const char *x)
{
    char path[PATH_MAX];
    stamp(x, "k");
    fk_stamp_path(x, path);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 30}};
    utimensat(AT_FDCWD, path, times, 0);
    look(x, "k", 0);
    ok(unused_for(x) >= 29, "a hit within a minute writes nothing");
    times[1].tv_sec -= 1000;
    utimensat(AT_FDCWD, path, times, 0);
    look(x, "other", 0);
    ok(unused_for(x) >= 1000, "what isn't a hit doesn't either");
    look(x, "k", 0);
    ok(unused_for(x) < 1000, "a hit after that does");
}

static void names(void)
{
    char name[NAME_MAX + 1], path[PATH_MAX], other[PATH_MAX];
    memset(name, 'n', sizeof name);
    name[NAME_MAX] = '\0';
    is_int(fk_stamp_path("d/x", path), 0, "the stamp of a file");
    is_str(path, "d/.x.flockctl", "is beside it");
    fk_stamp_path("d/x//", path);
    is_str(path, "d/.x.flockctl", "slashes at the end don't count");
    fk_stamp_path(name, path);
    ok(strlen(path) <= NAME_MAX, "of the longest name, too, it can be made");
    name[NAME_MAX - 1] = 'm';
    fk_stamp_path(name, other);
    ok(strcmp(path, other) != 0, "and is another one for another name");
    const char *output = test_path("%s", name);
    test_write_file(output, "");
    stamp(output, "k");
    is_int(look(output, "k", 0), 1, "there it is found");
}

int main(void)
{
    tap_deadline(60);
    test_root();
    char *x = strdup(test_path("x"));
    without_key(x);
    with_key(x);
    identity(x);
    damaged(x);
    age(x);
    use(x);
    names();
    free(x);
    return done_testing();
}
