/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inputs of a build: reading them, against SHA-256 of a buffer that stays in the processor's cache (which is what
 * `openssl speed sha256` does); and recognising 100,000 that haven't changed, against a walk that looks at each. Then the tool
 * with these inputs, when there is nothing to be built, against `flockctl version` and that. $FLOCKCTL is the tool. */
#include "../../tools/inputs.h"

#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define LARGE (256 << 20)
#define BLOCK (64 << 10)
#define DIRECTORIES 1000
#define FILES 100 /* in each */
#define FILE_SIZE 4096

static char path[PATH_MAX], block[BLOCK];

static void write_file(int directory, const char *name, size_t size)
{
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    bench_check(fd >= 0, name);
    for (; size > BLOCK; size -= BLOCK)
        bench_check(write(fd, block, BLOCK) == BLOCK, name);
    bench_check(write(fd, block, size) == (ssize_t)size, name);
    close(fd);
}

static double digest_input(struct inputs *inputs)
{
    unsigned char result[DIGEST_SIZE];
    int64_t start = bench_now();
    bench_must(inputs_digest(inputs, path, result), "digest");
    return (double)(bench_now() - start);
}

static double digest_block(size_t times)
{
    struct digest digest;
    unsigned char result[DIGEST_SIZE];
    int64_t start = bench_now();
    digest_begin(&digest);
    for (size_t i = 0; i < times; i++)
        digest_bytes(&digest, block, sizeof block);
    digest_end(&digest, result);
    return (double)(bench_now() - start);
}

static void compare_reading(const char *what, double size, double goal)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    for (int run = 0; run < BENCH_RUNS; run++) {
        struct inputs inputs = {.buffer = NULL};
        ours[run] = size / digest_input(&inputs);
        peer[run] = LARGE / digest_block(LARGE / BLOCK);
        inputs_clear(&inputs);
    }
    bench_print(what, "GB/s", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), goal);
}

static void make_tree(void)
{
    char name[20];
    bench_check(mkdir(path, 0755) == 0, path);
    int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < DIRECTORIES; i++) {
        snprintf(name, sizeof name, "directory-%d", i);
        bench_check(mkdirat(top, name, 0755) == 0, name);
        int directory = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (int j = 0; j < FILES; j++) {
            snprintf(name, sizeof name, "file-%d", j);
            memcpy(block, &(int){i * FILES + j}, sizeof(int));
            write_file(directory, name, FILE_SIZE);
        }
        close(directory);
    }
    close(top);
}

/* The least that anybody does who wants to know whether something has changed. */
static size_t look_at_all(int at, const char *name)
{
    struct stat status;
    size_t count = 1;
    DIR *directory = fdopendir(openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bench_check(directory != NULL, name);
    for (const struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        bench_check(fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0, entry->d_name);
        count += S_ISDIR(status.st_mode) ? look_at_all(dirfd(directory), entry->d_name) : 1;
    }
    closedir(directory);
    return count;
}

static double recognise(int directory)
{
    struct inputs inputs = {.buffer = NULL};
    int64_t start = bench_now();
    known_load(&inputs.known, directory, "record");
    digest_input(&inputs);
    if (inputs.news)
        errx(1, "%s was read", inputs.news);
    inputs_clear(&inputs);
    return (double)(bench_now() - start);
}

static void compare_recognising(int directory)
{
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    struct inputs inputs = {.buffer = NULL};
    bench_sleep(100000000); /* what was just written isn't trusted */
    digest_input(&inputs);
    bench_must(known_save(&inputs.known, directory, "record"), "save");
    inputs_clear(&inputs);
    for (int run = 0; run < BENCH_RUNS; run++) {
        ours[run] = recognise(directory) / 1e6;
        int64_t start = bench_now();
        look_at_all(AT_FDCWD, path);
        peer[run] = (double)(bench_now() - start) / 1e6;
    }
    bench_print("100,000 files that haven't changed", "ms", bench_median(ours, BENCH_RUNS),
                bench_median(peer, BENCH_RUNS), 0);
}

static double run_tool(const char *const *argv)
{
    pid_t pid;
    int status;
    int64_t start = bench_now();
    int code = posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)argv, environ);
    if (code != 0)
        errx(1, "%s: %s", argv[0], strerror(code));
    bench_check(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status != 0)
        errx(1, "%s %s ended with status %d", argv[0], argv[1], status);
    return (double)(bench_now() - start) / 1e6;
}

static void compare_tool(const char *tool, int directory)
{
    const char *const version[] = {tool, "version", NULL};
    const char *const once[] = {tool, "once", "-o", "out", "--input", path, "-c", "echo >\"$FLOCKCTL_OUT\"", NULL};
    double ours[BENCH_RUNS], peer[BENCH_RUNS];
    run_tool(once);
    for (int run = 0; run < BENCH_RUNS; run++) {
        ours[run] = run_tool(once);
        peer[run] = run_tool(version) + recognise(directory) / 1e6;
    }
    bench_print("the tool with them", "ms", bench_median(ours, BENCH_RUNS), bench_median(peer, BENCH_RUNS), 1.1);
}

int main(void)
{
    const char *root = bench_root();
    int directory = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 7);
    snprintf(path, sizeof path, "%s/large", root);
    write_file(directory, "large", LARGE);
    compare_reading("a file of 256 MB", LARGE, -0.8);
    bench_check(unlinkat(directory, "large", 0) == 0, "unlink");
    snprintf(path, sizeof path, "%s/tree", root);
    make_tree();
    compare_reading("100,000 files of 4 KB", (double)DIRECTORIES * FILES * FILE_SIZE, 0);
    compare_recognising(directory);
    if (getenv("FLOCKCTL") && chdir(root) == 0)
        compare_tool(getenv("FLOCKCTL"), directory);
    close(directory);
    return 0;
}
