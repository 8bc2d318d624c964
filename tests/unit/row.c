/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "row.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "hold.h"
#include "nest.h"
#include "registry.h"
#include "slot.h"
#include "tap.h"

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

static unsigned slots_of(const char *name)
{
    unsigned slots = 0;
    char *path = NULL;
    if (flk_row_path(name, 0, &slots, &path) == 0)
        free(path);
    return slots;
}

/* In a process that has never seen the row. */
static int acquire_all_in_child(void *name)
{
    struct flk_hold *hold;
    int code = flk_acquire_many(&(struct flk_want){.name = name, .count = FLK_ALL}, 1, NULL, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return -code;
}

static int acquire_in_child(void *name)
{
    struct flk_hold *hold;
    int code = flk_acquire(name, 0, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return -code;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    if (nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        bail_out("can't delete %s", path);
}

static int temporaries(void)
{
    int count = 0;
    DIR *rows = opendir(test_path("root/rows"));
    for (struct dirent *entry; rows && (entry = readdir(rows));)
        count += strncmp(entry->d_name, ".tmp.", 5) == 0;
    if (rows)
        closedir(rows);
    return count;
}

/* ---- names and numbers ---- */

static void names(void)
{
    char longest[FLK_NAME_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[FLK_NAME_MAX] = '\0';
    const char *good[] = {"a", "0", "podman", "A.b_c@d+e-f", "_", "@", "+1", "x..y", longest};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        is_int(fk_row_check_name(good[i]), 0, "%.20s is a name", good[i]);
    is_int(flk_row_define(longest, 1), 0, "one of 200 bytes can be made");
    const char *bad[] = {"",     ".",    "..",   ".hidden", "-x",          "a/b", "/",    "../x", "a b",
                         "a\nb", "a\tb", "\x01", "\x7f",    "gr\xc3\xbcn", "a*",  "a\\b", "a:b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(fk_row_check_name(bad[i]), -EINVAL, "a bad name is refused: %s", flk_error_detail());
    longest[FLK_NAME_MAX] = 'n';
    longest[FLK_NAME_MAX + 1] = '\0';
    is_int(fk_row_check_name(longest), -EINVAL, "201 bytes are too many");
    ok(strstr(flk_error_detail(), "201") && strstr(flk_error_detail(), "200"), "which the sentence says");
    fk_row_check_name("a\033[31mb");
    ok(!strchr(flk_error_detail(), '\033') && strstr(flk_error_detail(), "\\x1b"),
       "no control character gets into a sentence");
}

static void numbers(void)
{
    is_int(flk_row_define("none", 0), -EINVAL, "no slots are refused");
    is_int(flk_row_define("none", 4097), -EINVAL, "4097 slots are refused");
    is_int(flk_row_define("most", 4096), 0, "4096 are possible");
    is_int(test_entries(test_path("root/rows/most/slots")), 4096, "and there are as many");
    is_int(flk_row_remove("most", 0), 0, "and can be removed");
    define("three", 3);
    is_int(flk_row_define("three", 3), 0, "defining it again with the same number is fine");
    is_int(flk_row_define("three", 4), -EUSERS, "with another number it is refused");
    ok(strstr(flk_error_detail(), "3") && strstr(flk_error_detail(), "4"), "which says both: %s", flk_error_detail());
    is_int((int)slots_of("three"), 3, "and it stays as it was");
}

/* ---- on disk ---- */

static unsigned mode_of(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 ? status.st_mode : 0;
}

static void check_modes(const char *name)
{
    is_int(mode_of(test_path("root/rows/%s", name)), S_IFDIR | 0700, "%s: its directory is ours alone", name);
    is_int(mode_of(test_path("root/rows/%s/queue", name)), S_IFDIR | 0700, "%s: its queue too", name);
    is_int(mode_of(test_path("root/rows/%s/latch", name)), S_IFREG | S_ISVTX | 0600, "%s: the latch is sticky", name);
    is_int(mode_of(test_path("root/rows/%s/slots/0", name)), S_IFIFO | S_ISVTX | 0600, "%s: and so are the FIFOs",
           name);
}

static void modes(void)
{
    mode_t before = umask(0);
    define("umask0", 1);
    umask(0777);
    define("umask777", 1);
    umask(before);
    is_int(mode_of(test_path("root/rows")), S_IFDIR | 0700, "the directory of rows is ours alone");
    check_modes("umask0");
    check_modes("umask777");
}

/* ---- whole or not at all ---- */

#define MAKERS 20
#define ROUNDS 10

static int make_rounds(void *data)
{
    const unsigned *slots = data;
    for (int round = 0; round < ROUNDS; round++) {
        char name[32];
        snprintf(name, sizeof name, "rush%d", round);
        int code = flk_row_define(name, *slots);
        if (code < 0 && code != -EUSERS)
            return 1;
        /* Whoever sees it sees all of it. */
        struct stat status;
        char path[64];
        snprintf(path, sizeof path, "%u", slots_of(name) - 1);
        if (lstat(test_path("root/rows/%s/slots/%s", name, path), &status) < 0 || acquire_in_child(name) == EBADMSG)
            return 2;
    }
    return 0;
}

static void concurrent_makers(void)
{
    pid_t pids[MAKERS];
    int failures = 0, halves = 0;
    unsigned slots[] = {2, 5};
    for (int i = 0; i < MAKERS; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            _exit(make_rounds(&slots[i % 2]));
    }
    for (int i = 0; i < MAKERS; i++)
        failures += test_reap(pids[i]) != 0;
    is_int(failures, 0, "of 20 concurrent makers each makes it, finds it, or is told of the other number");
    for (int round = 0; round < ROUNDS; round++) {
        const char *path = test_path("root/rows/rush%d/slots", round);
        int count = test_entries(path);
        halves += count != 2 && count != 5;
    }
    is_int(halves, 0, "and no row is a mixture");
    is_int(temporaries(), 0, "and nothing else is left");
}

static void killed_makers(void)
{
    int damaged = 0;
    unsigned seed = 1;
    for (int round = 0; round < 30; round++) {
        char name[32];
        pid_t pid = tap_fork();
        for (int i = 0; pid == 0; i++) {
            snprintf(name, sizeof name, "killed%d.%d", round, i % 3);
            if (flk_row_define(name, 200) < 0 || flk_row_remove(name, 0) < 0)
                _exit(1);
        }
        usleep(rand_r(&seed) % 4000);
        kill(pid, SIGKILL);
        test_reap(pid);
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "killed%d.%d", round, i);
            int code = test_in_child(acquire_all_in_child, name);
            damaged += code != 0 && code != ENOENT;
        }
    }
    is_int(damaged, 0, "30 makers and removers killed at random leave whole rows or none");
    define("afterwards", 1);
    is_int(temporaries(), 0, "and what they left half-made goes when the next row is made");
}

/* ---- resize and remove ---- */

static pid_t resize_in_child(const char *name, unsigned slots)
{
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(-flk_row_resize(name, slots, FLK_FOREVER));
    return pid;
}

static void resizing(void)
{
    struct flk_hold *hold;
    define("sized", 2);
    is_int(flk_row_resize("unheardof", 2, 0), -ENOENT, "what isn't defined can't be resized");
    is_int(flk_row_resize("sized", 0, 0), -EINVAL, "nor to no slots");
    is_int(flk_row_resize("sized", 4, 0), 0, "a row is resized");
    is_int((int)slots_of("sized"), 4, "and has the new number");
    is_int(flk_row_resize("sized", 4, 0), 0, "to the number it has is fine");
    struct locker holder = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "sized", .count = 3}}}, waiter = holder;
    locker_start(&holder);
    locker_wait(&holder);
    is_int(flk_row_resize("sized", 3, 0), -EBUSY, "while somebody holds a slot, a resize that won't wait says so");
    is_int(flk_row_resize("sized", 3, 20), -ETIMEDOUT, "and one with a deadline gives up");
    pid_t pid = resize_in_child("sized", 3);
    test_wait_queued("sized", 1);
    is_int(locker_start(&waiter), 'q', "a resize waits in the queue like everybody");
    locker_release(&holder);
    is_int(test_reap(pid), 0, "and is served when its turn comes");
    is_int(locker_wait(&waiter), 0, "who waited behind it goes on in the new row");
    is_int((int)slots_of("sized"), 3, "of the new number");
    is_int(flk_acquire("sized", 0, 0, &hold), -EBUSY, "in which all are now taken");
    locker_release(&waiter);
    is_int(temporaries(), 0, "the old row is deleted");
}

static void resized_too_small(void)
{
    struct locker holder = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "shrunk", .count = 3}}}, waiter = holder;
    define("shrunk", 3);
    locker_start(&holder);
    locker_wait(&holder);
    pid_t pid = resize_in_child("shrunk", 2);
    test_wait_queued("shrunk", 1);
    locker_start(&waiter);
    locker_release(&holder);
    test_reap(pid);
    is_int(locker_wait(&waiter), -EINVAL, "who waits for more than a resize leaves is told");
    locker_release(&waiter);
}

static void removing(void)
{
    struct flk_hold *hold;
    is_int(flk_row_remove("unheardof", 0), 0, "removing what isn't there is fine");
    define("gone", 2);
    struct locker holder = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "gone"}}},
                  waiter = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "gone"}}};
    locker_start(&holder);
    locker_wait(&holder);
    is_int(flk_row_remove("gone", 0), -EBUSY, "what is held isn't removed");
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(-flk_row_remove("gone", FLK_FOREVER));
    test_wait_queued("gone", 1);
    locker_start(&waiter);
    locker_release(&holder);
    is_int(test_reap(pid), 0, "a removal waits for its turn");
    is_int(locker_wait(&waiter), 0, "who waited behind it goes on with a new row");
    is_int((int)slots_of("gone"), 1, "made afresh");
    is_int(flk_acquire("gone", 0, 0, &hold), -EBUSY, "which we see, though we knew the old one");
    locker_release(&waiter);
    is_int(flk_row_remove("gone", 0), 0, "a free row is removed");
    is_int(test_entries(test_path("root/rows/gone")), -1, "and gone");
    is_int(temporaries(), 0, "entirely");
}

static void deleted_by_hand(void)
{
    struct flk_hold *hold, *other;
    if (flk_acquire("swept", 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    flk_hold_release(hold);
    remove_tree(test_path("root/rows/swept"));
    is_int(flk_acquire("swept", 0, 0, &hold), 0, "a row deleted under a running process is made anew");
    ok(test_entries(test_path("root/rows/swept/slots")) == 1, "on disk");
    struct locker waiter = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "swept"}}};
    is_int(locker_start(&waiter), 'q', "others wait");
    remove_tree(test_path("root/rows/swept"));
    is_int(locker_wait(&waiter), 0, "until that is deleted under them: then they go on with a new one");
    is_int(flk_acquire("swept", 0, 0, &other), -EBUSY, "and we see theirs");
    locker_release(&waiter);
    flk_hold_release(hold);
    is_int(test_entries(test_path("root/rows/swept/queue")), 0, "nothing of the old ones is left there");
}

/* ---- damage ---- */

static void check_damage(const char *what, char *name)
{
    is_int(test_in_child(acquire_in_child, name), EBADMSG, "%s is refused", what);
}

static void replace_slot(const char *name)
{
    const char *path = test_path("root/rows/%s/slots/0", name);
    if (unlink(path) < 0 && rmdir(path) < 0)
        bail_out("%s", path);
}

static void foreign_files(char *name, unsigned slots)
{
    define(name, slots);
    const char *slot = test_path("root/rows/%s/slots/0", name);
    replace_slot(name);
    check_damage("a missing slot", name);
    test_write_file(slot, "");
    check_damage("a regular file as slot", name);
    replace_slot(name);
    if (symlink("/dev/null", slot) < 0)
        bail_out("symlink");
    check_damage("a symbolic link as slot", name);
    replace_slot(name);
    if (mkdir(slot, 0700) < 0)
        bail_out("mkdir");
    check_damage("a directory as slot", name);
    replace_slot(name);
    if (mkfifo(slot, 0600) < 0)
        bail_out("mkfifo");
    is_int(test_in_child(acquire_in_child, name), 0, "a FIFO of ours is as good as the first");
    if (test_is_root() && chown(slot, TEST_OTHER_USER, TEST_OTHER_USER) == 0)
        check_damage("another user's FIFO", name);
    else
        skip("only root can give files away");
}

static void damaged_rows(void)
{
    define("nolatch", 1);
    unlink(test_path("root/rows/nolatch/latch"));
    check_damage("a row without latch", (char[]){"nolatch"});
    if (mkdir(test_path("root/rows/nolatch/latch"), 0700) < 0)
        bail_out("mkdir");
    ok(test_in_child(acquire_in_child, (char[]){"nolatch"}) > 0, "a directory as latch is refused");
    test_write_file(test_path("root/rows/afile"), "");
    check_damage("a file as row", (char[]){"afile"});
    if (symlink("three", test_path("root/rows/alink")) < 0)
        bail_out("symlink");
    check_damage("a symbolic link as row", (char[]){"alink"});
    define("lost", 1);
    struct flk_hold *hold;
    unlink(test_path("root/rows/lost/slots/0"));
    int code = flk_acquire("lost", 0, 0, &hold);
    is_int(code, -EBADMSG, "a slot deleted under a running process is an error, not a lock");
    ok(strstr(flk_error_detail(), "slots/0") != NULL, "that names it: %s", flk_error_detail());
    ok(strstr(flk_error_detail(), test_path("root/rows/lost")) != NULL, "and the directory to delete");
}

/* ---- refusals of the system ---- */

static int acquire_without_descriptors(void *name)
{
    struct rlimit limit, few = {.rlim_cur = 4, .rlim_max = 4};
    struct flk_hold *hold;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (few.rlim_cur = 3; few.rlim_cur < 30; few.rlim_cur++) {
        few.rlim_max = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &few);
        int code = flk_acquire(name, 0, 0, &hold);
        if (code == 0) {
            flk_hold_release(hold);
            return 0;
        }
        if (code != -EMFILE || !strstr(flk_error_detail(), "ulimit -n"))
            return 1;
    }
    return 2;
}

static int fail_to_make(void *name)
{
    if (setenv("FLOCKCTL_DIR", test_path("unwritable"), 1) < 0 || flk_root_set(NULL) < 0)
        return 1;
    int code = flk_row_define(name, 1);
    return code == -EACCES && strstr(flk_error_detail(), name) ? 0 : 2;
}

static void refusals(void)
{
    is_int(test_in_child(acquire_without_descriptors, (char[]){"three"}), 0,
           "without descriptors: -EMFILE with a remedy, until there are enough");
    const char *root = test_path("unwritable"), *rows = test_path("unwritable/rows");
    if (mkdir(root, 0700) < 0 || mkdir(rows, 0500) < 0)
        bail_out("mkdir");
    if (test_is_root() && chown(rows, TEST_OTHER_USER, TEST_OTHER_USER) < 0)
        bail_out("chown");
    is_int(test_as_other_user(root, fail_to_make, (char[]){"name"}), 0,
           "where no row can be made, the error says which and why");
}

/* ---- sections ---- */

static void sections(void)
{
    struct fk_row *row;
    struct fk_section section, second;
    fk_registry_enter();
    is_int(fk_row_open("section", 0, FK_ROW_LOOK, &row), -ENOENT, "looking doesn't make a row");
    is_int(fk_row_open("section", 0, FK_ROW_MAKE_DECLARED, &row), -ENOENT, "nor does making one of an unknown number");
    is_int(fk_row_open("section", 2, FK_ROW_MAKE_DECLARED, &row), 0, "given a number, it does");
    is_int(fk_row_enter(row, FK_NEVER, &section), 0, "a section is entered");
    is_int((int)section.latch.slots, 2, "and knows the row");
    is_int(fk_row_enter(row, fk_now() + 5 * FK_MS, &second), -EAGAIN,
           "a second one isn't, not even by the same process");
    fk_row_leave(&section);
    is_int(fk_row_enter(row, FK_NEVER, &second), 0, "until the first is left");
    fk_row_leave(&second);
    int pipe_fds[2], latch = dup(row->latch);
    if (latch < 0 || pipe(pipe_fds) < 0 || dup2(pipe_fds[0], row->latch) < 0) /* as a host does that closes a number twice */
        bail_out("pipe");
    is_int(fk_row_enter(row, FK_NEVER, &section), -ESPIPE, "a latch whose descriptor has become another file is an error");
    ok(!strstr(flk_error_detail(), "rm -r"), "but none of the row: nobody is told to delete it");
    dup2(latch, row->latch);
    is_int(fk_row_enter(row, FK_NEVER, &section), 0, "and the row itself is whole");
    fk_row_leave(&section);
    close(latch);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    remove_tree(test_path("root/rows/section"));
    is_int(fk_row_enter(row, FK_NEVER, &section), -ESTALE, "no section is entered in a row that isn't at its path");
    ok(!fk_row_is_current(row), "which isn't current");
    fk_registry_retire(row);
    fk_registry_unref(row);
}

static void paths(void)
{
    unsigned slots = 0;
    char *path = NULL;
    is_int(flk_row_path("path", 3, &slots, &path), 0, "the path of a row is told, and made");
    is_str(path, test_path("root/rows/path"), "absolute");
    is_int((int)slots, 3, "with its number of slots");
    free(path);
    is_int(flk_row_path("path", 4, &slots, &path), -EUSERS, "another number is refused");
}

static bool is_there(const char *name, const char *id)
{
    return access(test_path("root/rows/%s/under/%s", name, id), F_OK) == 0;
}

static void below_a_hold(void)
{
    struct fk_row *row, *again;
    struct flk_hold *hold;
    unsigned read_back[3];
    const unsigned numbers[] = {2, 5, 4095};
    define("above", 6);
    is_int(fk_row_open_under("above", "ahold", 0, NULL, &row), -ENOENT, "there is no row below a hold yet");
    is_int(fk_row_open_under("nothing", "ahold", 3, numbers, &row), -ESTALE, "nor can there be one below no row");
    is_int(fk_row_open_under("above", "ahold", 3, numbers, &row), 0, "it is made when it is needed");
    is_int(row->slots, 3, "with as many slots");
    is_int(fk_row_read_numbers(row, read_back), 0, "and their numbers above");
    ok(memcmp(read_back, numbers, sizeof numbers) == 0, "which come back");
    is_int(fk_row_open_under("above", "ahold", 0, NULL, &again), 0, "then it is there");
    ok(again == row, "and the same");
    fk_registry_unref(again);
    is_int(fk_row_open_under("above", "ahold", 2, numbers, &again), -EBADMSG, "with as many slots as its hold has");
    is_int(flk_row_define("above/under/ahold", 3), -EINVAL, "it has no name that could be asked for");

    struct fk_section section;
    unsigned slot;
    int fd;
    if (fk_row_enter(row, FK_NEVER, &section) < 0 ||
        fk_slots_take(&section, 1, LOCK_EX, false, &slot, &fd, NULL, NULL) < 0)
        bail_out("%s", flk_error_detail());
    fk_row_leave(&section);
    fk_row_delete_idle(row);
    ok(is_there("above", "ahold"), "while somebody holds a slot of it, it isn't deleted");
    if (fk_row_enter(row, FK_NEVER, &section) < 0)
        bail_out("%s", flk_error_detail());
    fk_slot_drop(&fd);
    fk_row_delete_idle(row);
    ok(is_there("above", "ahold"), "nor while somebody is at its latch");
    fk_row_leave(&section);
    fk_row_delete_idle(row);
    ok(!is_there("above", "ahold"), "when nobody uses it, it is");
    is_int(fk_row_enter(row, FK_NEVER, &section), -ESTALE, "who has it open finds out");
    fk_registry_unref(row);
    is_int(fk_row_open_under("above", "ahold", 3, numbers, &row), 0, "and makes it again");
    fk_registry_unref(row);

    if (flk_acquire("above", 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    fk_nest_sweep(hold->parts[0].row);
    ok(!is_there("above", "ahold"), "a row below a hold that isn't any more is swept");
    if (fk_row_open_under("above", flk_hold_id(hold), 1, numbers, &row) < 0)
        bail_out("%s", flk_error_detail());
    fk_nest_sweep(hold->parts[0].row);
    ok(is_there("above", flk_hold_id(hold)), "one below a hold that is stays");
    flk_hold_release(hold);
    fk_registry_unref(row);
    is_int(flk_row_remove("above", 0), 0, "removing the row above it");
    is_int(fk_row_open_under("above", "ahold", 0, NULL, &row), -ENOENT, "removes all that is below");
}

int main(void)
{
    tap_deadline(test_is_slow() ? 90 : 20);
    test_root();
    names();
    numbers();
    modes();
    concurrent_makers();
    killed_makers();
    resizing();
    resized_too_small();
    removing();
    deleted_by_hand();
    foreign_files((char[]){"single"}, 1);
    foreign_files((char[]){"several"}, 2);
    damaged_rows();
    refusals();
    sections();
    paths();
    below_a_hold();
    return done_testing();
}
