/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"
#include "values.h"

static struct fk_config_entry entry;

static void make(const char *name)
{
    if (mkdir(test_path("%s", name), 0700) < 0)
        bail_out("mkdir %s", name);
}

static void go(const char *name)
{
    if (chdir(test_path("%s", name)) < 0)
        bail_out("chdir %s", name);
}

static unsigned slots_of(const char *name)
{
    return fk_config_look_up(name, &entry) < 0 ? 9999 : entry.slots;
}

static void search(void)
{
    make("home");
    make("home/.config");
    make("tree");
    make("tree/.git");
    make("tree/sub");
    make("tree/sub/deep");
    make("loose");
    make("loose/sub");
    setenv("HOME", test_path("home"), 1);
    unsetenv("FLOCKCTL_CONFIG");
    test_write_file(test_path(".flockctl.conf"), "x slots=99\n");
    go("tree/sub/deep");
    is_int((int)slots_of("x"), 0, "without any file nothing is declared, and none above the work tree counts");
    test_write_file(test_path("home/.config/flockctl.conf"), "x slots=1\n");
    is_int((int)slots_of("x"), 1, "~/.config/flockctl.conf");
    test_write_file(test_path("tree/.flockctl.conf"), "x slots=2\n");
    is_int((int)slots_of("x"), 2, "before it, the one at the root of the work tree");
    test_write_file(test_path("tree/sub/.flockctl.conf"), "x slots=3\n");
    is_int((int)slots_of("x"), 3, "before that, a nearer one");
    is_str(entry.file, test_path("tree/sub/.flockctl.conf"), "which is named");
    test_write_file(test_path("named.conf"), "x slots=4\n");
    setenv("FLOCKCTL_CONFIG", test_path("named.conf"), 1);
    is_int((int)slots_of("x"), 4, "before all, the one that FLOCKCTL_CONFIG names");
    setenv("FLOCKCTL_CONFIG", test_path("missing.conf"), 1);
    is_int(fk_config_look_up("x", &entry), -ENOENT, "which must be there");
    setenv("FLOCKCTL_CONFIG", "", 1);
    is_int((int)slots_of("x"), 3, "an empty one isn't set");
    unsetenv("FLOCKCTL_CONFIG");
    rmdir(test_path("tree/.git"));
    test_write_file(test_path("tree/.git"), "gitdir: elsewhere\n");
    is_int((int)slots_of("x"), 3, "a .git that is a file marks a work tree too");
    go("loose/sub");
    test_write_file(test_path("loose/.flockctl.conf"), "x slots=5\n");
    is_int((int)slots_of("x"), 1, "outside any work tree the directory above doesn't count");
    test_write_file(test_path("loose/sub/.flockctl.conf"), "x slots=6\n");
    is_int((int)slots_of("x"), 6, "but the working directory does");
    unsetenv("HOME");
    unlink(test_path("loose/sub/.flockctl.conf"));
    is_int((int)slots_of("x"), 0, "without HOME there is nothing left");
}

static void use(const char *text)
{
    test_write_file(test_path("test.conf"), text);
}

static void check_bad(const char *line)
{
    char text[200];
    strcpy(text, "# first\ngood slots=1\n");
    use(strcat(text, line));
    is_int(fk_config_look_up("bad", &entry), -EINVAL, "a bad line is refused");
    ok(strstr(flk_error_detail(), "test.conf:3:") != NULL, "by file and line: %s", flk_error_detail());
}

static void lines(void)
{
    unsigned slots;
    char *path;
    setenv("FLOCKCTL_CONFIG", test_path("test.conf"), 1);
    use("# a comment\n\n  podman \t slots=3  # with a reason\nnbd slots=16\n\t# another\nlast slots=4096");
    is_int((int)slots_of("podman"), 3, "blanks and comments don't matter");
    is_int((int)entry.line, 3, "the line is counted");
    is_int((int)slots_of("nbd"), 16, "the next line");
    is_int((int)slots_of("last"), 4096, "the last one needs no newline");
    is_int((int)slots_of("pod"), 0, "names are compared whole");
    is_int(flk_row_path("podman", 0, &slots, &path), 0, "a row is made");
    is_int((int)slots, 3, "as it is declared");
    free(path);
    is_int(flk_row_define("nbd", 2), -EUSERS, "and not otherwise");
    ok(strstr(flk_error_detail(), "test.conf:4") != NULL, "which says where: %s", flk_error_detail());
    use("");
    is_int((int)slots_of("podman"), 0, "an empty file declares nothing");
    check_bad("bad\n");
    check_bad("bad slots\n");
    check_bad("bad slots=\n");
    check_bad("bad slots=0\n");
    check_bad("bad slots=4097\n");
    check_bad("bad slots=-1\n");
    check_bad("bad slots=+1\n");
    check_bad("bad slots=2x\n");
    check_bad("bad slots=99999999999999999999\n");
    check_bad("bad slots=2 more\n");
    check_bad("bad = 2\n");
    check_bad("b/d slots=2\n");
    check_bad("other slots=x\nbad slots=2\n");
    check_bad("bad colour=red\n");
    ok(strstr(flk_error_detail(), "\"colour=\" isn't known") != NULL, "an unknown setting is named");
    check_bad("bad slots=2\r\n");
    ok(strstr(flk_error_detail(), "carriage return") != NULL, "so is a carriage return");
    check_bad("bad values=\n");
    check_bad("bad values=a,a\n");
    ok(strstr(flk_error_detail(), "a of bad is given twice") != NULL, "so is what is wrong with values");
    check_bad("bad values=3-1\n");
    check_bad("bad values=a values=b\n");
    check_bad("bad values=a slots=1\n");
    check_bad("bad slots=1 values=a\n");
    check_bad("bad slots=1 spread\n");
    check_bad("bad slots=1 check=true\n");
    check_bad("bad spread values=a\n");
    check_bad("bad values=a spread spread\n");
    check_bad("bad values=a spread=1\n");
    use("a slots=1\nb slots=2\na slots=1\n");
    is_int(fk_config_look_up("a", &entry), -EINVAL, "a name that is declared twice is refused");
    ok(strstr(flk_error_detail(), ".conf:3: ") && strstr(flk_error_detail(), "line 1 "), "with both lines: %s",
       flk_error_detail());
    is_int((int)slots_of("b"), 2, "which is no matter for other names");
    setenv("FLOCKCTL_CONFIG", test_path("."), 1);
    is_int(fk_config_look_up("a", &entry), -EISDIR, "a directory is none: %s", flk_error_detail());
}

static void pools(void)
{
    setenv("FLOCKCTL_CONFIG", test_path("test.conf"), 1);
    use("port \tvalues=8080-8083,x # ports\nrest values=a,b\tspread\n");
    is_int((int)slots_of("port"), 5, "a pool has a slot for each value");
    ok(entry.values && strcmp(entry.values->value[3], "8083") == 0 && strcmp(entry.values->value[4], "x") == 0,
       "ranges are ranges");
    ok(!entry.values->spread && !entry.values->check, "without more");
    fk_config_clear(&entry);
    is_int((int)slots_of("rest"), 2, "another");
    ok(entry.values->spread, "which spreads");
    fk_config_clear(&entry);
    is_int((int)slots_of("other"), 0, "and no other");
    ok(!entry.values, "without values");
}

int main(void)
{
    tap_deadline(30);
    test_root();
    lines();
    pools();
    search();
    return chdir("/") == 0 ? done_testing() : 1;
}
