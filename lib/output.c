/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "utf8.h"

/* ---- sentences ---- */

/* How many bytes at text stay as they are, 0: the first is to be escaped. */
static size_t plain_bytes(const char *text)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t length = fk_utf8_character(bytes);
    return length == 0 || fk_utf8_is_control(bytes) || *text == '\\' ? 0 : length;
}

void fk_output_show(const char *path, char shown[FK_OUTPUT_SHOWN_SIZE])
{
    char *at = shown, *end = shown + FK_OUTPUT_SHOWN_SIZE - 5;
    size_t length = strlen(path), most = (FK_OUTPUT_SHOWN_SIZE - 8) / 4; /* if all are escaped */
    bool cut = length > FK_OUTPUT_SHOWN_SIZE - 8;
    if (cut) {
        path += length - most;
        at = stpcpy(at, "...");
    }
    while (*path && at < end) {
        size_t plain = plain_bytes(path);
        if (plain > 0)
            at = mempcpy(at, path, plain);
        else
            at += sprintf(at, "\\x%02x", (unsigned char)*path);
        path += plain ? plain : 1;
    }
    *at = '\0';
}

/* ---- which one ---- */

/* Two hashes of 64 bits that have nothing to do with each other: one multiplies and the other adds first, and each shifts its
 * upper half down, so that every byte reaches every bit. */
void fk_output_hash(const char *name, size_t length, char text[FK_OUTPUT_HASH_SIZE])
{
    uint64_t a = 0x9e3779b97f4a7c15u, b = 0xd1b54a32d192ed03u;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)name[i];
        a = (a ^ byte) * 0xbf58476d1ce4e5b9u;
        a ^= a >> 31;
        b = (b + byte + 1) * 0x94d049bb133111ebu;
        b ^= b >> 29;
    }
    snprintf(text, FK_OUTPUT_HASH_SIZE, "%016" PRIx64 "%016" PRIx64, a, b);
}

static void make_key(struct fk_output *output)
{
    char hash[FK_OUTPUT_HASH_SIZE];
    fk_output_hash(output->name, strlen(output->name), hash);
    snprintf(output->row, sizeof output->row, "%c%llx-%llx-%s", FK_OUTPUT_MARK, (unsigned long long)output->device,
             (unsigned long long)output->inode, hash);
}

/* Its length without the slashes at the end, where its last component begins. */
static int split(const char *path, size_t *length, size_t *name)
{
    char shown[FK_OUTPUT_SHOWN_SIZE];
    size_t end = strlen(path), begin;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    size_t size = end - begin;
    fk_output_show(path, shown);
    if (size == 0)
        return fk_fail(-EINVAL, "\"%s\" isn't the name of an output; name a file or a directory", shown);
    if (path[begin] == '.' && (size == 1 || (size == 2 && path[begin + 1] == '.')))
        return fk_fail(-EINVAL, "the output %s is called \"%.*s\"; give it by its name", shown, (int)size,
                       path + begin);
    if (size > NAME_MAX)
        return fk_fail(-ENAMETOOLONG, "the name of the output %s has %zu bytes; at most %d are possible", shown, size,
                       NAME_MAX);
    *length = end;
    *name = begin;
    return 0;
}

int fk_output_check(const char *path)
{
    size_t length, name;
    return split(path, &length, &name);
}

static int open_directory(const char *path, size_t length, struct fk_output *output)
{
    char *directory = length > 0 ? strndup(path, length) : strdup("."), shown[FK_OUTPUT_SHOWN_SIZE];
    if (!directory)
        return fk_fail(-ENOMEM, "out of memory");
    int fd = fk_fd_open(AT_FDCWD, directory, O_PATH | O_DIRECTORY, 0);
    if (fd < 0) {
        fk_output_show(directory, shown);
        fk_fail(fd, "the output's directory %s can't be used: %s%s", shown, strerrordesc_np(-fd),
                fd == -ENOENT ? "; make it first (mkdir -p)" : "");
    }
    free(directory);
    output->directory = fd;
    return fd < 0 ? fd : 0;
}

static int look_at_directory(struct fk_output *output)
{
    struct stat status;
    if (fstat(output->directory, &status) < 0)
        return fk_fail_errno(-errno, "can't look at the output's directory");
    if (status.st_nlink == 0)
        return fk_fail(-ENOENT, "the output's directory has been removed; make it again");
    output->device = status.st_dev;
    output->inode = status.st_ino;
    return 0;
}

static int make_path(const char *name, size_t length, struct fk_output *output)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", output->directory);
    output->path = malloc(PATH_MAX + 1 + length + 1);
    if (!output->path)
        return fk_fail(-ENOMEM, "out of memory");
    ssize_t got = readlink(link, output->path, PATH_MAX);
    if (got < 0)
        return fk_fail_errno(-errno, "can't find out the path of the output's directory");
    char *at = output->path + (got > 1 ? got : 0); /* of "/" nothing */
    *at++ = '/';
    output->name = at;
    *(char *)mempcpy(at, name, length) = '\0';
    return 0;
}

int fk_output_open(const char *path, struct fk_output *out)
{
    struct fk_output output = {.directory = -1};
    size_t end = 0, name = 0;
    int code = split(path, &end, &name);
    if (code == 0)
        code = open_directory(path, name, &output);
    if (code == 0)
        code = look_at_directory(&output);
    if (code == 0)
        code = make_path(path + name, end - name, &output);
    if (code < 0) {
        fk_output_close(&output);
        return code;
    }
    make_key(&output);
    fk_output_show(output.path, output.shown);
    *out = output;
    return 0;
}

void fk_output_close(struct fk_output *output)
{
    fk_fd_close(&output->directory);
    free(output->path);
    output->path = NULL;
}
