/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "removal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

/* A removal that is broken must find nothing of anybody's. So no symlink here leads out of the test's own directory, which lies
 * deeper below the temporary one than any tree is moved about in; and root, who may do everything, is locked up. */
#define DEEP "1/2/3/4/5/6/7/8/9/10/11/12"

static int top; /* the test's own directory */

static const char *in_top(const char *name)
{
    return test_path(DEEP "/%s", name);
}

/* ---- what happens between a look and what follows it ---- */

static void (*meanwhile)(unsigned looks); /* called after each read of a directory */
static unsigned looks;

ssize_t __real_getdents64(int fd, void *buffer, size_t size);
ssize_t __wrap_getdents64(int fd, void *buffer, size_t size);
ssize_t __wrap_getdents64(int fd, void *buffer, size_t size)
{
    ssize_t length = __real_getdents64(fd, buffer, size);
    if (meanwhile)
        meanwhile(++looks);
    return length;
}

static int remove_meanwhile(const char *name, void (*what)(unsigned looks))
{
    looks = 0;
    meanwhile = what;
    int code = fk_remove_tree(top, name, 0);
    meanwhile = NULL;
    return code;
}

/* ---- trees ---- */

static void make_directory(const char *path)
{
    if (mkdirat(top, path, 0700) < 0)
        bail_out("mkdir %s: %s", path, strerror(errno));
}

static void make_file(const char *path)
{
    int fd = openat(top, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        bail_out("%s: %s", path, strerror(errno));
    close(fd);
}

static void make_link(const char *to, const char *path)
{
    if (symlinkat(to, top, path) < 0)
        bail_out("symlink %s: %s", path, strerror(errno));
}

static bool is_there(const char *path)
{
    return faccessat(top, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What nobody may touch. */
static void make_outside(void)
{
    if (!is_there("outside"))
        make_directory("outside");
    make_file("outside/precious");
}

/* ---- what is removed ---- */

static void one_thing(void)
{
    make_outside();
    make_file("file");
    make_link("outside", "link");
    make_directory("empty");
    is_int(fk_remove_tree(top, "file", 0), 0, "a file is removed");
    is_int(fk_remove_tree(top, "link", 0), 0, "so is a symlink,");
    ok(is_there("outside/precious"), "not what it points to,");
    is_int(fk_remove_tree(top, "empty", 0), 0, "and an empty directory");
    ok(!is_there("file") && !is_there("link") && !is_there("empty"), "they are gone");
    is_int(fk_remove_tree(top, "nothing", 0), 0, "what isn't there needs no removal");
    const char *const bad[] = {"", ".", "..", "a/b", "/", "/tmp"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(fk_remove_tree(top, bad[i], 0), -EINVAL, "\"%s\" isn't a name", bad[i]);
}

static void one_tree(void)
{
    char name[64];
    int before = test_descriptors();
    make_outside();
    make_directory("tree");
    make_directory("tree/with\nnewline");
    make_file("tree/with\nnewline/-rf *");
    make_file("tree/\033[2J");
    make_link("../outside", "tree/link");
    make_link("../../outside", "tree/with\nnewline/link");
    mkfifoat(top, "tree/fifo", 0600);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "tree/%d", i);
        if (i % 10)
            make_file(name);
        else
            make_directory(name);
    }
    is_int(fk_remove_tree(top, "tree", 0), 0, "a tree of thousands, with strange names and symlinks, is removed");
    ok(!is_there("tree"), "it is gone");
    ok(is_there("outside/precious"), "what its symlinks point to isn't");
    is_int(test_descriptors(), before, "no descriptor is left open");
}

static void make_deep(const char *name, int depth)
{
    int at = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < depth; i++) {
        const char *next = i ? "d" : name;
        if (mkdirat(at, next, 0700) < 0)
            bail_out("mkdir at depth %d: %s", i, strerror(errno));
        int below = openat(at, next, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = below;
        if (i % 1000 == 999 && symlinkat("d", at, "link") < 0)
            bail_out("symlink at depth %d: %s", i, strerror(errno));
    }
    close(at);
}

static void *remove_deep(void *code)
{
    *(int *)code = fk_remove_tree(top, "deep", 0);
    return NULL;
}

/* On a stack that deep recursion wouldn't fit on, with few descriptors. */
static void deep(void)
{
    struct rlimit limit, few;
    pthread_attr_t small;
    pthread_t thread;
    int code = 1;
    make_deep("deep", 10000);
    getrlimit(RLIMIT_NOFILE, &limit);
    few = (struct rlimit){(rlim_t)(test_descriptors() + FK_REMOVE_OPEN + 8), limit.rlim_max};
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    setrlimit(RLIMIT_NOFILE, &few);
    if (pthread_create(&thread, &small, remove_deep, &code) != 0)
        bail_out("no thread");
    pthread_join(thread, NULL);
    setrlimit(RLIMIT_NOFILE, &limit);
    is_int(code, 0, "10,000 levels are removed with a small stack and %d descriptors to spare", FK_REMOVE_OPEN + 8);
    ok(!is_there("deep"), "they are gone");
}

/* Many directories on each of more levels than are kept open: the way back is found for each. */
static int make_bushy(const char *path, int depth)
{
    char below[512];
    int made = 1;
    make_directory(path);
    for (int i = 0; depth > 0 && i < (depth % 10 ? 1 : 3); i++) {
        snprintf(below, sizeof below, "%s/%d", path, i);
        made += make_bushy(below, depth - 1);
        strcat(below, ".file");
        make_file(below);
    }
    return made;
}

static void bushy(void)
{
    int made = make_bushy("bushy", 3 * FK_REMOVE_OPEN);
    is_int(fk_remove_tree(top, "bushy", 0), 0, "%d directories on %d levels are removed", made, 3 * FK_REMOVE_OPEN);
    ok(!is_there("bushy"), "they are gone");
}

/* ---- what others do meanwhile ---- */

static void exchange_for_symlink(unsigned looks_so_far)
{
    if (looks_so_far == 1 && renameat2(top, "tree/d", top, "spare", RENAME_EXCHANGE) < 0)
        bail_out("exchange: %s", strerror(errno));
}

static void exchanged(void)
{
    make_outside();
    make_directory("tree");
    make_directory("tree/d");
    make_link("../outside", "spare"); /* as seen from within tree */
    is_int(remove_meanwhile("tree", exchange_for_symlink), 0,
           "a directory becomes a symlink when it has been looked at");
    ok(!is_there("tree"), "it is gone");
    ok(is_there("outside/precious"), "what the symlink points to isn't");
    ok(is_there("spare"), "nor is the directory, which is elsewhere now");
    fk_remove_tree(top, "spare", 0);
}

static void exchange_top(unsigned looks_so_far)
{
    if (looks_so_far == 1 && renameat2(top, "tree", top, "spare", RENAME_EXCHANGE) < 0)
        bail_out("exchange: %s", strerror(errno));
}

static void top_exchanged(void)
{
    make_outside();
    make_directory("tree");
    make_directory("tree/d");
    make_link("outside", "spare");
    is_int(remove_meanwhile("tree", exchange_top), 0, "the topmost directory becomes a symlink while it is emptied");
    ok(!is_there("tree"), "it is gone");
    ok(is_there("outside/precious"), "what the symlink points to isn't");
    fk_remove_tree(top, "spare", 0);
}

/* So far down that the topmost directories are closed: ".." of what was moved is another one. */
static void move_away(unsigned looks_so_far)
{
    if (looks_so_far == 2 * FK_REMOVE_OPEN && renameat(top, "deep/d/d/d", top, "outside/moved") < 0)
        bail_out("move: %s", strerror(errno));
}

static void moved(void)
{
    make_outside();
    make_deep("deep", 2 * FK_REMOVE_OPEN + 4);
    is_int(remove_meanwhile("deep", move_away), 0, "a directory is moved away while its inside is being removed");
    ok(!is_there("deep"), "what is left is gone");
    ok(is_there("outside/precious"), "nothing is removed where it was moved to");
    fk_remove_tree(top, "outside", 0);
}

static void add_files(unsigned looks_so_far)
{
    char name[64];
    snprintf(name, sizeof name, "tree/late/%u", looks_so_far);
    if (looks_so_far <= 40 && is_there("tree/late"))
        make_file(name);
}

static void add_files_for_ever(unsigned looks_so_far)
{
    add_files(looks_so_far % 40);
}

static void filled(void)
{
    make_directory("tree");
    make_directory("tree/late");
    make_file("tree/other");
    is_int(remove_meanwhile("tree", add_files), 0, "what is added meanwhile is removed, too");
    ok(!is_there("tree"), "all is gone");
    make_directory("tree");
    make_directory("tree/late");
    make_file("tree/other");
    is_int(remove_meanwhile("tree", add_files_for_ever), -ENOTEMPTY, "who fills it for ever wins");
    ok(strstr(flk_error_detail(), "tree/late: others fill it"), "%s", flk_error_detail());
    ok(!is_there("tree/other"), "the rest is gone");
    fk_remove_tree(top, "tree", 0);
}

/* ---- permissions ---- */

static int without_bits(void *data)
{
    (void)data;
    make_directory("mine/tree");
    make_directory("mine/tree/none");
    make_file("mine/tree/none/file");
    make_directory("mine/tree/none/below");
    make_directory("mine/tree/read");
    make_file("mine/tree/read/file");
    make_directory("mine/tree/search");
    make_file("mine/tree/search/file");
    fchmodat(top, "mine/tree/none/below", 0, 0);
    fchmodat(top, "mine/tree/none", 0, 0);
    fchmodat(top, "mine/tree/read", 0400, 0);
    fchmodat(top, "mine/tree/search", 0300, 0);
    fchmodat(top, "mine/tree", 0500, 0);
    int mine = openat(top, "mine", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fk_remove_tree(mine, "tree", 0);
    if (code < 0)
        diag("%s", flk_error_detail());
    close(mine);
    return code == 0 && !is_there("mine/tree") ? 0 : 1;
}

static int of_another(void *data)
{
    (void)data;
    int mine = openat(top, "mine", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fk_remove_tree(mine, "tree", FK_REMOVE_OWN_ONLY);
    bool said = strstr(flk_error_detail(), "tree/theirs: it, or the directory that it is in, belongs to user 0; ");
    diag("%s", flk_error_detail());
    close(mine);
    return code == -EACCES && said && !is_there("mine/tree/other") ? 0 : 1;
}

static int not_own(void *data)
{
    (void)data;
    int mine = openat(top, "mine", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fk_remove_tree(mine, "file", FK_REMOVE_OWN_ONLY);
    bool said = strstr(flk_error_detail(), "it belongs to user 0") != NULL, stays = is_there("mine/file");
    int other = fk_remove_tree(mine, "file", 0);
    close(mine);
    return code == -EPERM && said && stays && other == 0 ? 0 : 1;
}

static void permissions(void)
{
    make_directory("mine");
    is_int(test_as_other_user(in_top("mine"), without_bits, NULL), 0,
           "directories of ours without permission bits are removed");
    if (!test_is_root()) {
        for (int i = 0; i < 3; i++)
            skip("needs another user's files");
    } else {
        make_directory("mine/tree");
        make_directory("mine/tree/theirs");
        make_file("mine/tree/theirs/file");
        make_file("mine/tree/other");
        fchownat(top, "mine/tree", TEST_OTHER_USER, TEST_OTHER_USER, 0);
        is_int(test_as_other_user(NULL, of_another, NULL), 0,
               "a filled directory of another user stays, and is named; the rest goes");
        make_file("mine/file");
        is_int(test_as_other_user(NULL, not_own, NULL), 0, "only one's own, when that is asked for");
        is_int(fk_remove_tree(top, "mine", 0), 0, "root removes it all");
    }
    fk_remove_tree(top, "mine", 0);
}

/* ---- mounts ---- */

static int own_namespace(void)
{
    if (unshare(CLONE_NEWNS | (test_is_root() ? 0 : CLONE_NEWUSER)) < 0)
        return -errno;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
}

/* As under Linux before 5.6. */
static int without_openat2(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

#define NOT_ALLOWED 77 /* to make mounts */

static int with_mounts(void *old)
{
    if (own_namespace() < 0)
        return NOT_ALLOWED;
    top = open(in_top(""), O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* in that namespace */
    if (mount(in_top("outside"), in_top("tree/bound/here"), NULL, MS_BIND, NULL) < 0 ||
        mount("none", in_top("tree/other"), "tmpfs", 0, NULL) < 0)
        return NOT_ALLOWED;
    if (old && without_openat2() < 0)
        return NOT_ALLOWED;
    int code = fk_remove_tree(top, "tree", 0), again = fk_remove_tree(top, "tree", 0);
    bool rest = is_there("tree/bound/file") || is_there("tree/file"), mounted = is_there("tree/bound/here/precious");
    diag("%s", flk_error_detail());
    return code == -EXDEV && again == -EXDEV && mounted && !rest && strstr(flk_error_detail(), "is mounted there") ? 0
                                                                                                                   : 1;
}

static void mounts(void *old)
{
    make_outside();
    make_directory("tree");
    make_directory("tree/bound");
    make_directory("tree/bound/here");
    make_file("tree/bound/file");
    make_directory("tree/other");
    make_file("tree/file");
    int status = test_in_child(with_mounts, old);
    if (status == NOT_ALLOWED)
        skip("may not mount here");
    else
        is_int(status, 0, "mounts aren't entered, of the same file system neither; the rest is removed%s",
               old ? " (without openat2)" : "");
    fk_remove_tree(top, "tree", 0);
    ok(is_there("outside/precious"), "what was mounted is there");
}

/* ---- what may be removed at all ---- */

static void make_path(const char *in, const char *path)
{
    char all[PATH_MAX];
    snprintf(all, sizeof all, "%s%s/", in, path);
    for (char *slash = strchr(all + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(all, 0755) < 0 && errno != EEXIST)
            bail_out("mkdir %s: %s", all, strerror(errno));
        *slash = '/';
    }
}

static void refused(const char *path, int wanted, const char *why)
{
    char real[PATH_MAX] = "as it was";
    is_int(fk_removal_check(path, real), wanted, "%s: \"%s\"", why, path);
    is_str(real, "as it was", "  no result; %s", flk_error_detail());
}

static void allowed(const char *path, const char *wanted, const char *why)
{
    char real[PATH_MAX] = "";
    is_int(fk_removal_check(path, real), 0, "%s", why);
    is_str(real, wanted, "  its real path is told");
}

/* Only where we are locked up it is ours to say where that is. */
static void users_home(bool locked_up)
{
    char line[PATH_MAX + 64];
    if (!locked_up) {
        skip("only root can be locked up"), skip("only root can be locked up");
        return;
    }
    make_directory("home/named");
    snprintf(line, sizeof line, "nobody:x:1:1::/:\nroot:x:0:0::%s:/bin/sh\n", in_top("home/named"));
    make_path("", "/etc");
    test_write_file("/etc/passwd", line);
    refused(in_top("home/named"), -EPERM, "the user's home directory, whatever HOME is");
}

static void policy(bool locked_up)
{
    char root[PATH_MAX], *locks;
    make_outside();
    make_directory("home");
    make_directory("home/me");
    make_link("home/me", "homelink");
    setenv("HOME", in_top("homelink"), 1);
    if (flk_root_set(in_top("locks")) < 0 || flk_root_get(&locks) < 0)
        bail_out("%s", flk_error_detail());
    free(locks);
    refused("tree", -EINVAL, "a relative path is refused");
    refused("", -EINVAL, "an empty one, too");
    refused("/", -EPERM, "the root directory");
    refused("///", -EPERM, "in any spelling");
    refused(in_top("outside/.."), -EINVAL, "what ends in dots");
    refused(in_top("outside/."), -EINVAL, "or one dot");
    refused(in_top("home/me"), -EPERM, "the home directory");
    refused(in_top("home/me/"), -EPERM, "with a slash behind it");
    refused(in_top("home"), -EPERM, "what is above it");
    refused(in_top("locks"), -EPERM, "the lock directory");
    if (test_is_root())
        skip("root owns it"), skip("root owns it");
    else
        refused("/usr", -EPERM, "another user's");
    refused(in_top("nowhere/file"), -ENOENT, "what is in no directory");
    allowed(in_top("home/me/file"), in_top("home/me/file"), "what is in the home directory is allowed, there or not");
    allowed(in_top("homelink"), in_top("homelink"), "a symlink, itself");
    allowed(in_top("homelink/x///"), in_top("home/me/x"), "symlinks on the way are resolved");
    snprintf(root, sizeof root, "/%s", "flockctl-test-that-nobody-has");
    allowed(root, root, "what is in the root directory");
    users_home(locked_up);
    unsetenv("HOME");
    fk_remove_tree(top, "home", 0);
    fk_remove_tree(top, "homelink", 0);
}

static int by_path(void *old)
{
    char real[PATH_MAX];
    if (old && without_openat2() < 0)
        return NOT_ALLOWED;
    make_directory("way");
    make_directory("way/sub");
    make_directory("way/sub/tree");
    int wrong = fk_removal_check(in_top("way/sub/tree"), real) != 0;
    renameat(top, "way/sub", top, "way/was");
    make_link("../outside", "way/sub");
    make_directory("outside/tree");
    wrong += fk_remove_path(real) != -ELOOP || !is_there("outside/tree") || !is_there("way/was/tree");
    diag("%s", flk_error_detail());
    unlinkat(top, "way/sub", 0);
    wrong += fk_remove_path(real) != 0;
    renameat(top, "way/was", top, "way/sub");
    wrong += fk_remove_path(real) != 0 || is_there("way/sub/tree");
    setenv("HOME", in_top("way"), 1);
    wrong += fk_remove_path(in_top("way")) != -EPERM || !is_there("way");
    unsetenv("HOME");
    wrong += fk_remove_path(in_top("way")) != 0 || is_there("way");
    fk_remove_tree(top, "outside", 0);
    return wrong;
}

/* ---- a place for it ---- */

/* A file system of its own as root directory, in which the same paths are. What was the root directory; -1: not locked up. */
static int lock_up(void)
{
    const char *jail = test_path("jail");
    if (!test_is_root() || own_namespace() < 0)
        return -1;
    make_path("", jail);
    int before = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC); /* in that namespace */
    if (mount("none", jail, "tmpfs", 0, "mode=755") < 0)
        return -1;
    make_path(jail, tap_directory());
    make_path(jail, "/proc");
    if (mount("/proc", test_path("jail/proc"), NULL, MS_BIND, NULL) < 0 || chroot(jail) < 0 || chdir("/") < 0)
        bail_out("can't lock the test up: %s", strerror(errno));
    return before;
}

static void let_out(int before)
{
    if (before >= 0 && (fchdir(before) < 0 || chroot(".") < 0 || umount2(test_path("jail"), MNT_DETACH) < 0))
        bail_out("can't let the test out: %s", strerror(errno));
}

int main(void)
{
    tap_deadline(120);
    test_root();
    int before = lock_up();
    make_path(tap_directory(), "/" DEEP);
    chmod(in_top(""), 0755);
    top = open(in_top(""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    one_thing();
    one_tree();
    deep();
    bushy();
    exchanged();
    top_exchanged();
    moved();
    filled();
    permissions();
    mounts(NULL);
    mounts(&top);
    policy(before >= 0);
    make_outside();
    is_int(test_in_child(by_path, NULL), 0, "by its path, unless a symlink is on the way now");
    make_outside();
    is_int(test_in_child(by_path, &top), 0, "the same without openat2");
    close(top);
    let_out(before);
    return done_testing();
}
