/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "publish.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "helpers.h"
#include "id.h"
#include "owner.h"
#include "registry.h"
#include "tap.h"

/* ---- builders ---- */

#define REPLACED 60

enum kind { NOTHING, A_FILE, A_DIRECTORY, A_LINK, A_FIFO };

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        bail_out("can't write %s: %s", path, strerror(errno));
    close(fd);
}

/* A directory has two files of one content. */
static void make(enum kind kind, const char *path, const char *text)
{
    char below[PATH_MAX + 8];
    int code = 0;
    switch (kind) {
    case NOTHING:
        break;
    case A_FILE:
        write_text(path, text);
        break;
    case A_DIRECTORY:
        code = mkdir(path, 0755);
        for (const char *file = "ab"; *file; file++) {
            snprintf(below, sizeof below, "%s/%c", path, *file);
            write_text(below, text);
        }
        break;
    case A_LINK:
        code = symlink(text, path);
        break;
    case A_FIFO:
        code = mkfifo(path, 0600);
        break;
    }
    if (code < 0)
        bail_out("can't make %s: %s", path, strerror(errno));
}

/* What the output has; "" when it is none of these. */
static const char *content(const char *path)
{
    static char text[PATH_MAX];
    char below[PATH_MAX + 8];
    ssize_t length = fk_fd_read_text(AT_FDCWD, path, text, sizeof text);
    if (length == -EISDIR) {
        snprintf(below, sizeof below, "%s/b", path);
        length = fk_fd_read_text(AT_FDCWD, below, text, sizeof text);
    }
    return length < 0 ? "" : text;
}

static int build_of(const char *path, enum kind kind, const char *text, const char *key)
{
    struct fk_output output;
    struct fk_private private;
    struct fk_stamp_spec stamp = {.key = key};
    struct fk_identity made;
    char id[FLK_ID_SIZE];
    int code = fk_output_open(path, &output);
    if (code < 0)
        return code;
    fk_id_make(id);
    code = fk_private_open(&output, id, &private);
    if (code == 0) {
        make(kind, private.path, text);
        code = fk_private_publish(&private, key ? &stamp : NULL, &made);
        fk_private_close(&private);
    }
    fk_output_close(&output);
    return code;
}

static int entries(const char *path)
{
    return test_entries(path);
}

static void everything_over_everything(void)
{
    static const char *const names[] = {"nothing", "a file", "a directory", "a link"};
    const char *d = test_path("over"), *x = test_path("over/x");
    for (int old = NOTHING; old <= A_LINK; old++)
        for (int new = A_FILE; new <= A_DIRECTORY; new ++) {
            mkdir(d, 0755);
            write_text(test_path("target"), "kept");
            make(old, x, old == A_LINK ? test_path("target") : "old");
            is_int(build_of(x, new, "new", NULL), 0, "%s over %s", names[new], names[old]);
            is_str(content(x), "new", "is there");
            is_int(entries(d), 1, "and nothing else");
            is_str(content(test_path("target")), "kept", "no link was followed");
            if (system("rm -rf \"$D/over\"") != 0)
                bail_out("can't clear up");
        }
    mkdir(d, 0755);
    make(A_LINK, x, "nowhere");
    is_int(build_of(x, A_FILE, "new", NULL), 0, "over a link to nothing");
    is_str(content(x), "new", "too");
}

static void stamps(void)
{
    struct fk_identity identity;
    const char *x = test_path("over/x");
    is_int(build_of(x, A_DIRECTORY, "1", "k"), 0, "with a key");
    is_int(fk_stamp_look(AT_FDCWD, x, &(struct fk_wanted){.key = "k"}, &identity), 1, "it is current for that");
    is_int(build_of(x, A_FILE, "2", "l"), 0, "with another one");
    is_int(fk_stamp_look(AT_FDCWD, x, &(struct fk_wanted){.key = "k"}, &identity), 0, "it isn't any more");
    is_int(fk_stamp_look(AT_FDCWD, x, &(struct fk_wanted){.key = "l"}, &identity), 1, "but for that");
    is_int(entries(test_path("over")), 2, "the output and its stamp are there");
    is_int(build_of(x, A_FILE, "2", NULL), 0, "without a key");
    is_int(entries(test_path("over")), 1, "there is no stamp either");
}

static void refused(void)
{
    const char *x = test_path("over/x");
    struct fk_identity identity;
    build_of(x, A_FILE, "old", "k");
    is_int(build_of(x, NOTHING, "", "l"), -ENODATA, "nothing was made: %s", flk_error_detail());
    is_int(build_of(x, A_LINK, "y", "l"), -EINVAL, "a link was: %s", flk_error_detail());
    is_int(build_of(x, A_FIFO, "", "l"), -EINVAL, "a FIFO was: %s", flk_error_detail());
    is_str(content(x), "old", "the old one is still there");
    is_int(fk_stamp_look(AT_FDCWD, x, &(struct fk_wanted){.key = "k"}, &identity), 1, "and current");
    is_int(entries(test_path("over")), 2, "nothing is left of the others");
}

static void names(void)
{
    char longest[NAME_MAX + 1], path[PATH_MAX];
    struct fk_identity identity;
    memset(longest, 'l', NAME_MAX);
    longest[NAME_MAX] = '\0';
    const char *const some[] = {"new\nline", ".owner", "+owner", ".stamp", "+stamp", "-n", longest};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        snprintf(path, sizeof path, "%s/%s", test_path("over"), some[i]);
        is_int(build_of(path, A_FILE, "n", "k"), 0, "a name %zu can have", i);
        ok(strcmp(content(path), "n") == 0 &&
               fk_stamp_look(AT_FDCWD, path, &(struct fk_wanted){.key = "k"}, &identity) == 1,
           "is published under it");
    }
}

/* ---- remains ---- */

/* Makes a private directory with something in it and waits to be killed. */
static pid_t start_builder(const char *path, int *ready)
{
    int pipe[2];
    char byte;
    if (pipe2(pipe, O_CLOEXEC) < 0)
        bail_out("no pipe");
    pid_t pid = tap_fork();
    if (pid == 0) {
        struct fk_output output;
        struct fk_private private;
        char id[FLK_ID_SIZE], below[PATH_MAX + 8];
        fk_id_make(id);
        if (fk_output_open(path, &output) < 0 || fk_private_open(&output, id, &private) < 0)
            _exit(1);
        make(A_DIRECTORY, private.path, "half");
        snprintf(below, sizeof below, "%s/a", private.path);
        unlink(below);
        chmod(private.path, 0555);
        if (write(pipe[1], "r", 1) == 1)
            pause();
        _exit(1);
    }
    close(pipe[1]);
    *ready = read(pipe[0], &byte, 1) == 1;
    close(pipe[0]);
    return pid;
}

static void sweep(void)
{
    int ready;
    mkdir(test_path("swept"), 0755);
    const char *d = test_path("swept"), *x = test_path("swept/x");
    pid_t pid = start_builder(x, &ready);
    ok(ready, "a builder is at work");
    is_int(entries(d), 1, "nothing but its private directory is there");
    is_int(build_of(test_path("swept/y"), A_FILE, "y", NULL), 0, "one builds something else beside it");
    is_int(entries(d), 2, "and leaves it alone");
    kill(pid, SIGKILL);
    test_reap(pid);
    is_int(entries(d), 2, "killed it leaves what it had begun");
    is_int(build_of(x, A_FILE, "whole", NULL), 0, "the next builder");
    is_str(content(x), "whole", "builds");
    is_int(entries(d), 2, "and removes the remains");
}

/* A private directory that nobody flocks, with that as its owner. */
static bool survives(const char *owner)
{
    const char *remains = test_path("swept/.flockctl-fplantedplantedplanted00"), *file = test_path("swept/.flockctl-fplantedplantedplanted00/.owner");
    mkdir(remains, 0700);
    if (owner)
        write_text(file, owner);
    build_of(test_path("swept/x"), A_FILE, "x", NULL);
    bool there = access(remains, F_OK) == 0;
    unlink(file);
    rmdir(remains);
    return there;
}

static void proof(void)
{
    char living[FK_OWNER_TEXT_SIZE + 1], dead[FK_OWNER_TEXT_SIZE + 1];
    const struct fk_owner *self;
    if (fk_owner_self(&self) < 0)
        bail_out("%s", flk_error_detail());
    fk_owner_format(self, ',', living);
    strcat(living, "\n");
    struct fk_owner other = *self;
    other.boot_id[0] = other.boot_id[0] == '0' ? '1' : '0';
    fk_owner_format(&other, ',', dead);
    strcat(dead, "\n");
    ok(survives(living), "whose owner lives stays, though nobody flocks it");
    ok(!survives(dead), "one of another boot goes, as after a power cut");
    ok(!survives(NULL), "one whose maker was killed before it wrote goes");
    living[strlen(living) / 2] = '\0';
    ok(!survives(living), "or while it did");
    int fd = -1;
    mkdir(test_path("swept/.flockctl-fplantedplantedplanted00"), 0700);
    fd = open(test_path("swept/.flockctl-fplantedplantedplanted00"), O_RDONLY | O_CLOEXEC);
    ok(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && survives(NULL), "one that somebody has flocked stays");
    close(fd);
    write_text(test_path("swept/.flockctl-file"), "");
    build_of(test_path("swept/x"), A_FILE, "x", NULL);
    is_int(access(test_path("swept/.flockctl-file"), F_OK), 0, "what is no directory is none of ours");
}

/* ---- faults ---- */

static int build_as_other(void *data)
{
    const char *directory = data;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/x", directory);
    int code = build_of(path, A_FILE, "x", NULL);
    return code == -EACCES && strstr(flk_error_detail(), "this user must be able to write") ? 0 : 1;
}

/* In a file system of its own. */
static int build_where_full(void *data)
{
    (void)data;
    const char *d = test_path("full"), *x = test_path("full/x");
    static char big[100000];
    memset(big, 'b', sizeof big - 1);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    if (mount("none", d, "tmpfs", 0, "nr_inodes=8,size=64k") < 0)
        return 77;
    if (build_of(x, A_FILE, "old", "k") != 0 || entries(d) != 2)
        return 1;
    write_text(test_path("full/1"), "");
    write_text(test_path("full/2"), ""); /* with the root 5 of 8 */
    if (build_of(x, A_FILE, "new", "k") != -ENOSPC || !strstr(flk_error_detail(), "free some space"))
        return 2; /* its stamp has no inode any more */
    if (strcmp(content(x), "old") != 0 || entries(d) != 4)
        return 3;
    unlink(test_path("full/1"));
    if (build_of(x, A_FILE, "new", "k") != 0 || strcmp(content(x), "new") != 0)
        return 4;
    unlink(test_path("full/2"));
    unlink(x);
    mkdir(x, 0755);
    if (mount("none", x, "tmpfs", 0, "size=64k") < 0)
        return 77;
    if (build_of(x, A_FILE, "newer", NULL) != -EIO || !strstr(flk_error_detail(), "something is mounted there"))
        return 5;
    umount(x);
    if (mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
        return 77;
    return build_of(x, A_FILE, "newest", NULL) == -EROFS ? 0 : 6;
}

static void faults(void)
{
    const char *d = test_path("theirs");
    mkdir(d, 0755);
    if (test_is_root()) {
        is_int(test_as_other_user(NULL, build_as_other, (void *)d), 0, "a directory of somebody else's is refused");
        is_int(entries(d), 0, "with nothing left there");
        mkdir(test_path("full"), 0755);
        int code = test_in_child(build_where_full, NULL);
        if (code == 77)
            skip("no file system of its own can be mounted");
        else
            is_int(code, 0, "full, mounted over, read-only: errors, and all is as it was");
    } else {
        skip("needs root");
    }
    is_int(build_of(test_path("missing/x"), A_FILE, "x", NULL), -ENOENT, "no directory: %s", flk_error_detail());
}

static int build_deep(void *data)
{
    (void)data;
    struct fk_output output;
    struct fk_private private;
    struct fk_identity made;
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){48, 48});
    if (fk_output_open(test_path("over/deep"), &output) < 0 || fk_private_open(&output, "deep", &private) < 0)
        return 1;
    if (mkdir(private.path, 0755) < 0 || chdir(private.path) < 0)
        return 2;
    for (int i = 0; i < 500; i++)
        if (mkdir("deep", 0755) < 0 || chdir("deep") < 0)
            return 3;
    write_text("file", "deep");
    chmod("file", 0);
    int code = fk_private_publish(&private, NULL, &made);
    fk_private_close(&private);
    return code < 0 ? 4 : 0;
}

/* ---- readers ---- */

/* Until told to stop: how often what it saw was torn. */
static int read_on(const char *path, _Atomic int *stop, bool directory)
{
    int torn = 0;
    while (!atomic_load(stop)) {
        char a[16], b[16];
        if (!directory) {
            ssize_t length = fk_fd_read_text(AT_FDCWD, path, a, sizeof a);
            torn += length != 8;
            continue;
        }
        FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
            torn++;
        else if (fk_fd_read_text(fd, "a", a, sizeof a) == 8 && fk_fd_read_text(fd, "b", b, sizeof b) == 8)
            torn += strcmp(a, b) != 0; /* an old one that is being removed has lost one of them */
    }
    return torn > 99 ? 99 : torn;
}

static void readers(bool directory)
{
    _Atomic int *stop = test_shared(sizeof *stop);
    const char *x = test_path("over/%s", directory ? "tree" : "leaf");
    int failed = build_of(x, directory ? A_DIRECTORY : A_FILE, "00000000", NULL);
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(read_on(x, stop, directory));
    for (int i = 1; i < REPLACED; i++) {
        char text[16];
        snprintf(text, sizeof text, "%08d", i);
        failed += build_of(x, directory ? A_DIRECTORY : A_FILE, text, NULL) != 0;
    }
    atomic_store(stop, 1);
    is_int(failed, 0, "a %s is replaced %d times", directory ? "directory" : "file", REPLACED - 1);
    is_int(test_reap(pid), 0, "a reader sees always the old one whole or the new one whole");
}

int main(void)
{
    tap_deadline(120);
    test_root();
    fk_registry_enter(); /* what forks from here on knows that it is another process */
    setenv("D", tap_directory(), 1);
    everything_over_everything();
    stamps();
    refused();
    names();
    sweep();
    proof();
    faults();
    is_int(test_in_child(build_deep, NULL), 0,
           "a tree deeper than there are descriptors, with a file that nobody may read");
    readers(false);
    readers(true);
    return done_testing();
}
