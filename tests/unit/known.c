/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../../tools/known.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

#define NAME "record"
#define MANY 10000

static struct known known;
static const struct timespec began = {.tv_sec = 1000, .tv_nsec = 500000000};

/* A file that was changed so long before `began`. */
static struct stat changed_before(long seconds, long ms)
{
    long long ns = began.tv_sec * 1000000000LL + began.tv_nsec - seconds * 1000000000LL - ms * 1000000LL;
    struct stat status = {.st_dev = 1, .st_ino = 2, .st_size = 3, .st_mtim = {.tv_sec = 4, .tv_nsec = 5}};
    status.st_ctim = (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    return status;
}

static const unsigned char *digest_number_of(unsigned number)
{
    static unsigned char digest[DIGEST_SIZE];
    memcpy(digest, &number, sizeof number);
    return digest;
}

static bool is_known(const struct stat *status, unsigned number)
{
    const unsigned char *found = known_find(&known, status);
    return found && memcmp(found, digest_number_of(number), DIGEST_SIZE) == 0;
}

static int add(const struct stat *status, bool steady, unsigned number)
{
    return known_add(&known, status, &began, steady, digest_number_of(number));
}

static void recognition(void)
{
    struct stat old = changed_before(100, 0), now = old;
    ok(!is_known(&old, 7), "nothing is known at first");
    is_int(add(&old, true, 7), 1, "a file that wasn't known is news");
    ok(is_known(&old, 7), "a file that is as it was is known");
    now.st_mode = 0700;
    now.st_uid = 7;
    now.st_nlink = 3;
    ok(is_known(&now, 7), "mode, owner and links are no matter");
#define OTHER(FIELD) \
    now = old;       \
    now.FIELD++;     \
    ok(!is_known(&now, 7), "with another " #FIELD " it isn't known")
    OTHER(st_dev);
    OTHER(st_ino);
    OTHER(st_size);
    OTHER(st_mtim.tv_sec);
    OTHER(st_mtim.tv_nsec);
    OTHER(st_ctim.tv_sec);
    OTHER(st_ctim.tv_nsec);
    is_int(add(&now, true, 7), 0, "read again with the same content, it is no news");
    ok(is_known(&now, 7) && !is_known(&old, 7), "  and known as it is now");
    is_int(add(&now, true, 8), 1, "with another content it is");
    known_clear(&known);
}

static void trust(const struct stat *status, bool steady, bool wanted, const char *what)
{
    add(status, steady, 7);
    ok(is_known(status, 7) == wanted, "%s: %s", what, wanted ? "trusted" : "not trusted");
    known_clear(&known);
}

static void races(void)
{
    struct stat status = changed_before(0, 25);
    trust(&status, true, true, "changed 25 ms before it was read");
    trust(&status, false, false, "changed while it was read");
    status = changed_before(0, 15);
    trust(&status, true, false, "changed 15 ms before");
    status = changed_before(0, 0);
    trust(&status, true, false, "changed at the same tick");
    status = changed_before(1, 500);
    is_int(status.st_ctim.tv_nsec, 0, "(a time without a part of a second)");
    trust(&status, true, false, "changed 1.5 s before on a file system that counts seconds");
    status = changed_before(2, 500);
    trust(&status, true, true, "changed 2.5 s before there");
    status = changed_before(-3600, 0);
    trust(&status, true, false, "changed in the future, before the clock was set back");
}

static int directory;

static void reload(void)
{
    known_clear(&known);
    known_load(&known, directory, NAME);
}

static void add_many(void)
{
    struct stat status = changed_before(100, 0);
    for (unsigned i = 0; i < MANY; i++, status.st_ino += 1 + i % 3)
        add(&status, true, i);
}

static unsigned count_known(unsigned step)
{
    struct stat status = changed_before(100, 0);
    unsigned count = 0;
    for (unsigned i = 0; i < MANY; i++, status.st_ino += 1 + i % 3)
        count += i % step == 0 && is_known(&status, i);
    return count;
}

static void keeping(void)
{
    struct stat status = changed_before(0, 0);
    known_load(&known, directory, NAME);
    is_int((int)known.count, 0, "no record: nothing is known");
    is_int(known_save(&known, directory, NAME), 0, "nothing to save");
    is_int(faccessat(directory, NAME, F_OK, 0), -1, "  makes no file");
    add_many();
    status.st_ino = 1;
    add(&status, true, 1);
    is_int(known_save(&known, directory, NAME), 0, "saved");
    reload();
    is_int((int)count_known(1), MANY, "all come back");
    is_int((int)known.count, MANY, "but the one that isn't trusted");
    reload();
    is_int((int)count_known(2), MANY / 2, "half of them are used");
    is_int(known_save(&known, directory, NAME), 0, "without news");
    reload();
    is_int((int)known.count, MANY, "  the record stays");
    count_known(2);
    status = changed_before(100, 0);
    status.st_ino = 1;
    add(&status, true, 1);
    is_int(known_save(&known, directory, NAME), 0, "with some");
    reload();
    is_int((int)known.count, MANY / 2 + 1, "  it has what was used and what is new");
}

static void savers(void)
{
    struct stat status = changed_before(100, 0);
    test_write_file(test_path(NAME ".new"), "left by somebody who was killed");
    int fd = openat(directory, NAME ".new", O_RDWR);
    if (flock(fd, LOCK_EX) < 0)
        bail_out("flock");
    status.st_ino = 0;
    add(&status, true, 1);
    is_int(known_save(&known, directory, NAME), -EWOULDBLOCK, "while another saves, nothing is saved");
    close(fd);
    is_int(known_save(&known, directory, NAME), 0, "what another has left is used again");
    is_int(faccessat(directory, NAME ".new", F_OK, 0), -1, "  and gone");
    reload();
    ok(is_known(&status, 1), "  and the record whole");
}

static void damaged(const char *what)
{
    reload();
    is_int((int)known.count, 0, "%s: as none", what);
    unlinkat(directory, NAME, 0);
}

static void save_one(void)
{
    struct stat status = changed_before(100, 0);
    known_clear(&known);
    add(&status, true, 1);
    if (known_save(&known, directory, NAME) < 0)
        bail_out("save");
}

static void put_byte(off_t at, char byte)
{
    int fd = openat(directory, NAME, O_WRONLY);
    if (pwrite(fd, &byte, 1, at) != 1)
        bail_out("pwrite");
    close(fd);
}

static void damage(void)
{
    save_one();
    is_int(truncate(test_path(NAME), 100), 0, "truncated");
    damaged("too short");
    save_one();
    put_byte(104, 'x');
    damaged("too long");
    save_one();
    put_byte(0, 'F');
    damaged("not one");
    save_one();
    put_byte(16, 2);
    damaged("of another version");
    save_one();
    put_byte(24, 2);
    damaged("another number of files");
    test_write_file(test_path(NAME), "");
    damaged("empty");
    save_one();
    if (renameat(directory, NAME, directory, "elsewhere") < 0 || symlinkat("elsewhere", directory, NAME) < 0)
        bail_out("symlink");
    damaged("a symbolic link");
    if (mkfifoat(directory, NAME, 0600) < 0)
        bail_out("mkfifo");
    damaged("a FIFO");
    if (!test_is_root()) {
        skip("only root can give a file away");
        return;
    }
    save_one();
    if (fchownat(directory, NAME, TEST_OTHER_USER, (gid_t)-1, 0) < 0)
        bail_out("chown");
    damaged("another user's");
}

int main(void)
{
    tap_deadline(60);
    directory = open(tap_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    recognition();
    races();
    keeping();
    savers();
    damage();
    known_clear(&known);
    close(directory);
    return done_testing();
}
