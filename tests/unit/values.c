/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

/* ---- lists ---- */

/* What a text says, joined with spaces; or the code as a number. */
static const char *parsed(const char *text)
{
    static char joined[1024];
    struct fk_value_list list = {0};
    int code = fk_value_list_parse(&list, text);
    snprintf(joined, sizeof joined, "%d", code);
    for (size_t i = 0, used = 0; code == 0 && i < list.n && used < sizeof joined; i++)
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? " " : "", list.items[i]);
    fk_value_list_clear(&list);
    return joined;
}

static size_t count(const char *text)
{
    struct fk_value_list list = {0};
    size_t n = fk_value_list_parse(&list, text) < 0 ? 0 : list.n;
    fk_value_list_clear(&list);
    return n;
}

static void lists(void)
{
    is_str(parsed("a"), "a", "one value");
    is_str(parsed("/dev/nbd0,/dev/nbd1"), "/dev/nbd0 /dev/nbd1", "several");
    is_str(parsed("18080-18083"), "18080 18081 18082 18083", "a range of numbers");
    is_str(parsed("7-7"), "7", "of one");
    is_str(parsed("08-11"), "08 09 10 11", "with leading zeros");
    is_str(parsed("x,1-2,y"), "x 1 2 y", "among others");
    is_str(parsed("127.0.0.254-127.0.1.1"), "127.0.0.254 127.0.0.255 127.0.1.0 127.0.1.1", "a range of addresses");
    is_str(parsed("255.255.255.255-255.255.255.255"), "255.255.255.255", "up to the last");
    const char *literal[] = {"a-b",  "1-b",     "a-1",  "-1", "1-", "-", "1-2-3", "127.0.1-127.0.3",
                             "+1-2", "1.5-2.5", "my-db"};
    for (size_t i = 0; i < sizeof literal / sizeof *literal; i++)
        is_str(parsed(literal[i]), literal[i], "%s stands for itself", literal[i]);
    is_str(parsed("3-1"), "-22", "backwards is refused: %s", flk_error_detail());
    is_str(parsed("127.0.0.2-127.0.0.1"), "-22", "so are addresses");
    is_int((int)count("1-4096"), 4096, "4096 values");
    is_str(parsed("0-4096"), "-22", "4097 are too many: %s", flk_error_detail());
    is_str(parsed("1-4096,x"), "-22", "so is one more");
    is_str(parsed("0-999999999999999999"), "-22", "and very many, without making them");
    is_str(parsed("0.0.0.0-255.255.255.255"), "-22", "or all addresses");
}

static void files(void)
{
    struct fk_value_list list = {0};
    test_write_file(test_path("list"), "one\n1-3\nlast");
    is_int(fk_value_list_read(&list, test_path("list")), 0, "values from a file");
    ok(list.n == 3 && strcmp(list.items[1], "1-3") == 0 && strcmp(list.items[2], "last") == 0,
       "a line each, as it is; the last needs no newline");
    fk_value_list_clear(&list);
    is_int(fk_value_list_read(&list, test_path("none")), -ENOENT, "one that isn't there: %s", flk_error_detail());
    is_int(fk_value_list_read(&list, test_path(".")), -EISDIR, "a directory: %s", flk_error_detail());
    fk_value_list_clear(&list);
}

/* ---- what can't be a pool ---- */

static void refused(const char *what, const char *named, struct flk_pool pool)
{
    is_int(flk_pool_define("bad", &pool), -EINVAL, "refused: %s", what);
    ok(strstr(flk_error_detail(), named) != NULL, "  which is said: %s", flk_error_detail());
}

#define POOL(...)                                                              \
    (struct flk_pool)                                                          \
    {                                                                          \
        .values = (const char *const[]){__VA_ARGS__},                          \
        .n_values = sizeof(const char *[]){__VA_ARGS__} / sizeof(const char *) \
    }

static void bad(void)
{
    char longest[FLK_VALUE_MAX + 2];
    memset(longest, 'v', sizeof longest);
    longest[FLK_VALUE_MAX] = '\0';
    struct flk_pool pool = POOL(longest, "!~");
    is_int(flk_pool_define("long", &pool), 0, "255 bytes, and the first and last printable character, are fine");
    longest[FLK_VALUE_MAX] = 'v';
    longest[FLK_VALUE_MAX + 1] = '\0';
    refused("256 bytes", "256 bytes", POOL(longest));
    refused("none", "0 values", (struct flk_pool){0});
    refused("an empty one", "empty", POOL("a", ""));
    refused("a space", "0x20", POOL("a b"));
    refused("a comma", "0x2c", POOL("a,b"));
    refused("a newline", "0x0a", POOL("a\n"));
    refused("a byte above 0x7e", "0xc3", POOL("gr\xc3\xbcn"));
    refused("a control character", "0x1b", POOL("\033[31m"));
    refused("one twice", "b of bad is given twice", POOL("b", "a", "c", "b"));
    pool = POOL("a");
    pool.flags = 1u << 31;
    refused("an unknown flag", "doesn't know", pool);
    pool = POOL("a");
    pool.reserved[3] = 1;
    refused("something reserved", "doesn't know", pool);
    pool.n_values = 4097;
    pool.reserved[3] = 0;
    refused("4097 values", "4097", pool);
    is_int(access(test_path("root/rows/bad"), F_OK), -1, "nothing was made");
}

/* ---- a row with values ---- */

static void defined(void)
{
    struct flk_pool pool = POOL("a", "b", "c"), other = POOL("a", "x", "c"), fewer = POOL("a", "b");
    struct stat status;
    is_int(flk_pool_define("pool", &pool), 0, "a pool is made");
    is_int(flk_pool_define("pool", &pool), 0, "again with the same values: fine");
    is_int(flk_pool_define("pool", &other), -EUSERS, "with others: %s", flk_error_detail());
    ok(strstr(flk_error_detail(), "value b in slot 1, not x") != NULL, "which are said");
    is_int(flk_pool_define("pool", &fewer), -EUSERS, "with fewer: %s", flk_error_detail());
    is_int(flk_row_define("pool", 3), -EUSERS, "without any: %s", flk_error_detail());
    is_int(flk_row_resize("pool", 3, 0), -EUSERS, "it keeps its size: %s", flk_error_detail());
    is_int(flk_row_define("plain", 3), 0, "a row without");
    is_int(flk_pool_define("plain", &pool), -EUSERS, "gets none: %s", flk_error_detail());
    ok(stat(test_path("root/rows/pool/values"), &status) == 0 && status.st_mode == (S_IFREG | S_ISVTX | 0600),
       "its file is sticky and ours alone");
}

static void held(void)
{
    struct flk_hold *hold;
    struct flk_want wants[] = {{.name = "plain"}, {.name = "pool", .count = 2}};
    if (flk_acquire_many(wants, 2, NULL, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    is_str(flk_hold_value(hold, 1, 0), "a", "the values of a hold");
    is_str(flk_hold_value(hold, 1, 1), "b", "by slot");
    ok(!flk_hold_value(hold, 1, 2) && !flk_hold_value(hold, 2, 0) && !flk_hold_value(hold, 0, 0),
       "NULL where there is none");
    char **envp;
    if (flk_hold_environ(hold, &envp) < 0)
        bail_out("%s", flk_error_detail());
    int found = 0;
    for (char **at = envp; *at; at++) {
        found += strcmp(*at, "FLOCKCTL_VALUES_2=a b") == 0;
        found += 100 * (strncmp(*at, "FLOCKCTL_VALUE", 14) == 0);
    }
    is_int(found, 101, "in the environment, those of the second name alone");
    free(envp);
    flk_hold_release(hold);
}

static void wanted(void)
{
    struct flk_hold *hold;
    struct flk_pool pool = POOL("x", "y"), other = POOL("x", "z");
    struct flk_want want = {.name = "wanted", .count = FLK_ALL, .pool = &pool};
    is_int(flk_acquire_many(&want, 1, NULL, 0, &hold), 0, "a request makes the pool that it wants");
    is_str(flk_hold_value(hold, 0, 1), "y", "and gets it");
    flk_hold_release(hold);
    want.pool = &other;
    is_int(flk_acquire_many(&want, 1, NULL, 0, &hold), -EUSERS, "but not another: %s", flk_error_detail());
    want = (struct flk_want){.name = "larger", .count = 3, .pool = &pool};
    is_int(flk_acquire_many(&want, 1, NULL, 0, &hold), -EINVAL, "nor more than it has: %s", flk_error_detail());
    is_int(access(test_path("root/rows/larger"), F_OK), -1, "which isn't made for that");
}

/* ---- damage ---- */

static int acquire_in_child(void *name)
{
    struct flk_hold *hold;
    int code = flk_acquire(name, 0, 0, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return -code;
}

static void damage(const char *what, const char *text)
{
    char name[] = "pool";
    test_write_file(test_path("root/rows/pool/values"), text);
    is_int(test_in_child(acquire_in_child, name), EBADMSG, "a file of values is damaged: %s", what);
}

static void damaged(void)
{
    char name[] = "pool";
    damage("a line too few", "a\nb\n");
    damage("a line too many", "a\nb\nc\nd\n");
    damage("without its last newline", "a\nb\nc");
    damage("an empty line", "a\n\nc\n");
    damage("a control character", "a\n\033\nc\n");
    damage("nothing in it", "");
    test_write_file(test_path("root/rows/pool/values"), "a\nb\nc\n");
    is_int(test_in_child(acquire_in_child, name), 0, "mended");
    unlink(test_path("root/rows/pool/values"));
    is_int(test_in_child(acquire_in_child, name), EBADMSG, "it isn't there");
    if (symlink("/etc/passwd", test_path("root/rows/pool/values")) < 0)
        bail_out("symlink");
    is_int(test_in_child(acquire_in_child, name), ELOOP, "it is a link");
}

int main(void)
{
    tap_deadline(60);
    test_root();
    lists();
    files();
    bad();
    defined();
    held();
    wanted();
    damaged();
    return done_testing();
}
