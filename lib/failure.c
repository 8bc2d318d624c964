/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "failure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "row.h"

#define HEAD_SIZE 128
#define FOR_SIZE (2 * FK_OUTPUT_HASH_SIZE)
#define FILE_MODE (0600 | S_ISVTX)

/* Two outputs that share a lock by an accident, or two keys, are told apart. */
static void hash_both(const struct fk_output *output, const char *key, char text[FOR_SIZE])
{
    fk_output_hash(output->name, strlen(output->name), text);
    text[FK_OUTPUT_HASH_SIZE - 1] = '-';
    if (key)
        fk_output_hash(key, strlen(key), text + FK_OUTPUT_HASH_SIZE);
    else
        strcpy(text + FK_OUTPUT_HASH_SIZE, "none");
}

static int open_file(const struct fk_output *output)
{
    FK_CLOSE_FD int row = fk_row_open_directory(output->row);
    return row < 0 ? row : fk_fd_open(row, "failure", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
}

static bool read_builder(int fd, struct fk_record *builder)
{
    char text[FK_RECORD_SIZE];
    ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof text, 0);
    return length > 0 && fk_record_read(text, (size_t)length, builder) == 0;
}

void fk_failure_note(const struct fk_output *output, char id[FLK_ID_SIZE])
{
    struct fk_record builder;
    FK_CLOSE_FD int fd = open_file(output);
    if (read_builder(fd, &builder))
        memcpy(id, builder.id, FLK_ID_SIZE);
    else
        id[0] = '\0';
}

_Static_assert(FOR_SIZE == 66, "read_rest() reads one byte less, and a NUL");

static bool read_rest(int fd, const char *wanted, struct fk_failure *failure)
{
    char head[HEAD_SIZE + 1] = "", which[FOR_SIZE] = "";
    if (pread(fd, head, HEAD_SIZE, FK_RECORD_SIZE) != HEAD_SIZE ||
        sscanf(head, "code=%d\nfor=%65s\nsaid=%zu\n", &failure->code, which, &failure->length) != 3 ||
        strcmp(which, wanted) != 0 || failure->length > FK_SAID_MAX)
        return false;
    failure->said[failure->length] = '\0';
    return pread(fd, failure->said, failure->length, FK_RECORD_SIZE + HEAD_SIZE) == (ssize_t)failure->length;
}

bool fk_failure_read(const struct fk_output *output, const char *key, const char *noted, struct fk_failure *failure)
{
    char wanted[FOR_SIZE];
    FK_CLOSE_FD int fd = open_file(output);
    hash_both(output, key, wanted);
    return read_builder(fd, &failure->builder) && strcmp(failure->builder.id, noted) != 0 &&
           read_rest(fd, wanted, failure);
}

static int write_file(int fd, const struct fk_output *output, const char *key, const char *id, int code,
                      const char *said, size_t length)
{
    char text[FK_RECORD_SIZE + HEAD_SIZE], *head = text + FK_RECORD_SIZE, which[FOR_SIZE];
    const struct fk_record_spec spec = {.id = id};
    if (length > FK_SAID_MAX) {
        said += length - FK_SAID_MAX;
        length = FK_SAID_MAX;
    }
    memset(text, ' ', sizeof text);
    int written = fk_record_write(text, FK_RECORD_SIZE, &spec);
    if (written < 0)
        return written;
    hash_both(output, key, which);
    head[sprintf(head, "code=%d\nfor=%s\nsaid=%zu\n", code, which, length)] = ' ';
    written = fk_fd_write_at(fd, said, length, sizeof text);
    return written < 0 ? written : fk_fd_write_at(fd, text, sizeof text, 0);
}

void fk_failure_write(const struct fk_output *output, const char *key, const char *id, int code, const char *said,
                      size_t length)
{
    FK_CLOSE_FD int row = fk_row_open_directory(output->row);
    FK_CLOSE_FD int fd =
        row < 0 ? row
                : fk_fd_open(row, "failure.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, FILE_MODE);
    if (fd >= 0 && write_file(fd, output, key, id, code, said, length) == 0)
        renameat(row, "failure.new", row, "failure");
}
