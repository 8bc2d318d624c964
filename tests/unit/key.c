/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../../tools/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define INPUTS(...) .inputs = WORDS(__VA_ARGS__)
#define VARIABLES(...) .variables = WORDS(__VA_ARGS__)

/* The text of the key; "" when there is none. */
static const char *text_of(struct key_spec spec)
{
    static char texts[4][200];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    struct key key;
    if (!spec.output)
        spec.output = "out";
    int code = key_make(&key, &spec);
    snprintf(text, sizeof texts[0], "%s", code < 0 ? flk_error_detail() : key.text ? key.text : "");
    key_clear(&key);
    return text;
}
#define KEY(...) text_of((struct key_spec){__VA_ARGS__})

static void texts(void)
{
    is_str(KEY(0), "", "without options there is none");
    is_str(KEY(.text = "v3"), "v3", "a text alone is the key");
    is_str(KEY(.text = "two\nlines"), "two\nlines", "whatever is in it");
    ok(strncmp(KEY(.text = "sha256:0"), "sha256:", 7) == 0 && strlen(KEY(.text = "sha256:0")) == 71,
       "one that looks like a digest is digested");
    setenv("KEY_A", "1", 1);
    unsetenv("KEY_B");
    setenv("KEY_C", "", 1);
    chmod("f", 0644);
    /* By another program, from what flockctl(7) says. */
    is_str(KEY(.text = "v3", INPUTS("sub/../f"), VARIABLES("KEY_A", "KEY_B", "KEY_C"), .command = WORDS("cc", "-o x")),
           "sha256:1e682dcb2f3b44528cf0eec95b5da987f0db812bbd7d137b2840d326590cba0a", "a known answer");
    is_str(KEY(INPUTS("tree/")), "sha256:c2ec55f4077d0c4b8f3a5ce884a53152460f0bba1635386f4c6aae7942d9bad3",
           "one of a tree");
}

/* No two of these are one key. */
static void domains(void)
{
    const struct key_spec specs[] = {
        {.text = "a"},
        {.text = "ab"},
        {.text = "a", .command = WORDS("b")},
        {.command = WORDS("a", "b")},
        {.command = WORDS("ab")},
        {.command = WORDS("a b")},
        {.command = WORDS("a", "")},
        {.command = WORDS("a")},
        {INPUTS("f")},
        {INPUTS("g")},
        {INPUTS("f", "g")},
        {INPUTS("g", "f")},
        {INPUTS("f", "f")},
        {INPUTS("f"), .text = "a"},
        {INPUTS("tree")},
        {INPUTS("sub/tree")},
        {VARIABLES("KEY_A")},
        {VARIABLES("KEY_B")},
        {VARIABLES("KEY_C")},
        {VARIABLES("KEY_A", "KEY_B")},
        {VARIABLES("KEY_A"), .text = "KEY_B"},
        {VARIABLES("KEY_A"), .command = WORDS("KEY_B")},
        {VARIABLES("KEY_A"), INPUTS("f")},
    };
    enum { COUNT = sizeof specs / sizeof *specs };
    static char texts_of[COUNT][200];
    for (size_t i = 0; i < COUNT; i++)
        strcpy(texts_of[i], text_of(specs[i]));
    size_t equal = 0;
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < i; j++)
            equal += strcmp(texts_of[i], texts_of[j]) == 0;
    is_int((int)equal, 0, "%d combinations of options have as many keys", COUNT);
    char last[200];
    strcpy(last, KEY(VARIABLES("KEY_B")));
    setenv("KEY_B", "", 1);
    ok(strcmp(last, KEY(VARIABLES("KEY_B"))) != 0, "an empty variable isn't an unset one");
    strcpy(last, KEY(VARIABLES("KEY_B")));
    setenv("KEY_B", "x", 1);
    ok(strcmp(last, KEY(VARIABLES("KEY_B"))) != 0, "nor one with a value");
    is_str(KEY(INPUTS("sub/../f")), KEY(INPUTS(test_path("f"))), "an input has many spellings");
    ok(strcmp(KEY(INPUTS("f")), KEY(INPUTS("same"))) != 0, "but its last name counts");
}

static void names(void)
{
    struct key key, other;
    struct key_spec spec = {.output = "sub/layer-{key}.raw", .text = "v3"};
    if (key_make(&key, &spec) < 0)
        bail_out("%s", flk_error_detail());
    is_int((int)strlen(key.output), (int)strlen("sub/layer-.raw") + 64, "{key} becomes 64 digits: %s", key.output);
    spec.text = "v4";
    if (key_make(&other, &spec) < 0)
        bail_out("%s", flk_error_detail());
    ok(strcmp(key.output, other.output) != 0, "others for another key");
    key_clear(&key);
    key_clear(&other);
}

static void refused(struct key_spec spec, const char *part)
{
    struct key key;
    if (!spec.output)
        spec.output = "out";
    ok(key_make(&key, &spec) < 0 && strstr(flk_error_detail(), part), "refused: %s", flk_error_detail());
    key_clear(&key);
}
#define REFUSED(PART, ...) refused((struct key_spec){__VA_ARGS__}, PART)

static void bad_ones(void)
{
    REFUSED("--key is empty", .text = "");
    REFUSED("--input is empty", INPUTS("f", ""));
    REFUSED("isn't the name of a variable", VARIABLES("A=b"));
    REFUSED("isn't the name of a variable", VARIABLES(""));
    REFUSED("but no key", .output = "x{key}");
    REFUSED("elsewhere than once", .text = "a", .output = "{key}/x");
    REFUSED("elsewhere than once", .text = "a", .output = "{key}{key}");
    REFUSED("can't read the input missing", INPUTS("missing"));
    REFUSED("is the output itself", .output = "sub/../f", INPUTS("f"));
    REFUSED("directory nowhere/ can't be used", .output = "nowhere/out", INPUTS("f"));
}

static struct key kept = {.place = {.directory = -1}};
static struct key_spec kept_spec = {.output = "out", INPUTS("f", "tree")};

static void keep(void)
{
    key_clear(&kept);
    if (key_make(&kept, &kept_spec) < 0)
        bail_out("%s", flk_error_detail());
}

static void changes(void)
{
    keep();
    is_int(key_check(&kept), 1, "nothing has changed");
    test_write_file("tree/x", "2");
    is_int(key_check(&kept), 0, "a file has");
    ok(strstr(flk_error_detail(), "tree/x has changed") != NULL, "  which is named: %s", flk_error_detail());
    keep();
    test_write_file("tree/new", "");
    is_int(key_check(&kept), 0, "a new file");
    ok(strstr(flk_error_detail(), "tree/new has changed") != NULL, "  is named: %s", flk_error_detail());
    keep();
    unlink("tree/new");
    is_int(key_check(&kept), 0, "a file that is gone");
    ok(strstr(flk_error_detail(), "the input tree has changed") != NULL, "  shows in its directory: %s",
       flk_error_detail());
    keep();
    chmod("f", 0600);
    is_int(key_check(&kept), 0, "a mode");
    chmod("f", 0644);
    is_int(key_check(&kept), 1, "put back");
    test_write_file("out", "");
    is_int(key_check(&kept), 1, "OUTPUT is none of its inputs");
    unlink("out");
    unlink("f");
    is_int(key_check(&kept), -ENOENT, "an input that is gone can't be told");
    test_write_file("f", "one");
}

/* Changes the digest of a file in the record: who trusts it doesn't read the file. */
static void tamper(void)
{
    int fd = open(".out.flockctl-inputs", O_RDWR);
    char byte;
    if (pread(fd, &byte, 1, 32 + 40) != 1)
        bail_out("there is no record");
    byte ^= 1;
    if (pwrite(fd, &byte, 1, 32 + 40) != 1)
        bail_out("pwrite");
    close(fd);
}

/* Until the clock that marks changes has gone on for so long that those of before are trusted. */
static void let_files_rest(void)
{
    struct timespec pause = {.tv_nsec = 60000000};
    nanosleep(&pause, NULL);
}

static void recognition(void)
{
    char first[200];
    let_files_rest();
    strcpy(first, KEY(INPUTS("f")));
    is_int(access(".out.flockctl-inputs", F_OK), 0, "what is known of the inputs stands beside OUTPUT");
    tamper();
    ok(strcmp(first, KEY(INPUTS("f"))) != 0, "an unchanged file isn't read again");
    test_write_file("f", "two");
    test_write_file("f", "one");
    is_str(KEY(INPUTS("f")), first, "one that was written to is");
    is_int(access(".{key}.raw.flockctl-inputs", F_OK), -1, "(nothing is known yet)");
    let_files_rest();
    KEY(.output = "{key}.raw", INPUTS("f"));
    is_int(access(".{key}.raw.flockctl-inputs", F_OK), 0, "whose name is the same for all keys");
}

int main(void)
{
    tap_deadline(60);
    test_root();
    umask(022);
    if (chdir(tap_directory()) < 0 || mkdir("tree", 0755) < 0 || mkdir("sub", 0755) < 0 || mkdir("sub/tree", 0755) < 0)
        bail_out("mkdir: %s", strerror(errno));
    test_write_file("f", "one");
    test_write_file("same", "one");
    test_write_file("g", "two");
    test_write_file("tree/x", "1");
    test_write_file("sub/tree/y", "1");
    if (symlink("x", "tree/link") < 0 || mkdir("tree/d", 0700) < 0)
        bail_out("symlink: %s", strerror(errno));
    texts();
    domains();
    names();
    bad_ones();
    changes();
    recognition();
    key_clear(&kept);
    return done_testing();
}
