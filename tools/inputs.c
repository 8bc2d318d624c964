/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inputs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"

#define BUFFER_SIZE (256 * 1024) /* stays in the second level cache, between read and digest */
#define PERMISSIONS 07777u
#define NOT_THERE 1

/* Where the walk is: a name in an open directory that is itself such a place. */
struct place {
    const struct place *above; /* NULL: an input that was named */
    int directory;
    const char *name;
    struct stat status;
};

/* The names in a directory, sorted by their bytes. */
struct names {
    char *text;
    size_t length, room;
    const char **list;
    size_t count;
};

static int digest_place(struct inputs *inputs, struct digest *digest, struct place *place);

/* ---- messages ---- */

static void write_path(const struct place *place, char *text, size_t size)
{
    if (place->above) {
        write_path(place->above, text, size);
        if (text[strlen(text) - 1] != '/')
            strncat(text, "/", size - strlen(text) - 1);
    }
    strncat(text, place->name, size - strlen(text) - 1);
}

/* Apart from the recursion, whose every level would else have room for a path. */
__attribute__((noinline)) static int fail(int code, const struct place *place)
{
    char path[PATH_MAX] = "";
    write_path(place, path, sizeof path);
    const char *remedy = code == -ENOENT                     ? "; make it first, or leave it out"
                         : code == -EACCES || code == -EPERM ? "; give this user access to it"
                         : code == -EMFILE                   ? "; raise this process's limit of open files (ulimit -n)"
                                                             : "";
    return fk_fail(code, "can't read the input %s: %s%s", path, strerrordesc_np(-code), remedy);
}

__attribute__((noinline)) static int note_news(struct inputs *inputs, const struct place *place)
{
    char path[PATH_MAX] = "";
    if (inputs->news)
        return 0;
    write_path(place, path, sizeof path);
    inputs->news = strdup(path);
    return inputs->news ? 0 : -ENOMEM;
}

/* ---- what flockctl itself makes ---- */

static bool begins_with(const char *name, const char *text)
{
    return strncmp(name, text, strlen(text)) == 0;
}

static bool ends_with(const char *name, const char *text)
{
    size_t length = strlen(name), wanted = strlen(text);
    return length > wanted && strcmp(name + length - wanted, text) == 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

static bool is_output(const struct inputs *inputs, const char *name)
{
    if (!inputs->after)
        return strcmp(name, inputs->before) == 0;
    size_t length = strlen(inputs->before);
    return begins_with(name, inputs->before) && strspn(name + length, "0123456789abcdef") >= DIGEST_TEXT_SIZE - 1 &&
           strcmp(name + length + DIGEST_TEXT_SIZE - 1, inputs->after) == 0;
}

static bool is_ours(const char *name)
{
    return *name == '.' && (begins_with(name, ".flockctl-") || ends_with(name, ".flockctl") ||
                            ends_with(name, ".flockctl" INPUTS_SUFFIX) ||
                            ends_with(name, ".flockctl" INPUTS_SUFFIX ".new"));
}

/* ---- files ---- */

static int read_content(struct inputs *inputs, int fd, uint64_t size, unsigned char result[DIGEST_SIZE])
{
    struct digest digest;
    uint64_t done = 0;
    digest_begin(&digest);
    if (size > BUFFER_SIZE)
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (;;) {
        ssize_t length = read(fd, inputs->buffer, BUFFER_SIZE);
        if (length < 0)
            return -errno;
        digest_bytes(&digest, inputs->buffer, (size_t)length);
        done += (uint64_t)length;
        if (length == 0 || (done == size && length < BUFFER_SIZE))
            break;
    }
    digest_end(&digest, result);
    return 0;
}

static bool is_steady(const struct stat *a, const struct stat *b)
{
    return same_file(a, b) && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int read_file(struct inputs *inputs, const struct place *place, unsigned char result[DIGEST_SIZE])
{
    struct timespec began;
    struct stat after;
    int flags = O_RDONLY | O_NOCTTY | O_NONBLOCK | (place->above ? O_NOFOLLOW : 0);
    clock_gettime(CLOCK_REALTIME_COARSE, &began);
    FK_CLOSE_FD int fd = fk_fd_open(place->directory, place->name, flags, 0);
    int code = fd < 0 ? fd : read_content(inputs, fd, (uint64_t)place->status.st_size, result);
    if (code == 0 && fstat(fd, &after) < 0)
        code = -errno;
    if (code < 0)
        return code == -ENOENT && place->above ? NOT_THERE : fail(code, place);
    code = known_add(&inputs->known, &place->status, &began, is_steady(&place->status, &after), result);
    if (code > 0)
        code = note_news(inputs, place);
    return code < 0 ? fail(code, place) : 0;
}

static void put_name(struct digest *digest, const struct place *place)
{
    if (place->above)
        digest_text(digest, 'n', place->name);
}

static int digest_file(struct inputs *inputs, struct digest *digest, const struct place *place)
{
    unsigned char read[DIGEST_SIZE];
    const unsigned char *content = known_find(&inputs->known, &place->status);
    int code = content ? 0 : read_file(inputs, place, read);
    if (code != 0)
        return code < 0 ? code : 0;
    put_name(digest, place);
    digest_number(digest, 'f', place->status.st_mode & PERMISSIONS);
    digest_field(digest, 'c', content ? content : read, DIGEST_SIZE);
    return 0;
}

static int digest_link(struct inputs *inputs, struct digest *digest, const struct place *place)
{
    ssize_t length = readlinkat(place->directory, place->name, inputs->buffer, BUFFER_SIZE);
    if (length < 0)
        return errno == ENOENT ? 0 : fail(-errno, place);
    put_name(digest, place);
    digest_field(digest, 'l', inputs->buffer, (size_t)length);
    return 0;
}

/* FIFOs, sockets and devices can't be read, but their names count as others do. */
static int digest_special(struct digest *digest, const struct place *place)
{
    if (!place->above)
        return fk_fail(-EINVAL, "the input %s is neither a file nor a directory; give it as one", place->name);
    put_name(digest, place);
    digest_number(digest, 's', place->status.st_mode);
    digest_number(digest, 'r', place->status.st_rdev);
    return 0;
}

/* ---- directories ---- */

static void clear_names(struct names *names)
{
    free(names->text);
    free(names->list);
}

static int add_name(struct names *names, const char *name)
{
    size_t size = strlen(name) + 1;
    if (names->room - names->length < size) {
        size_t room = 2 * names->room + 4096;
        char *text = realloc(names->text, room);
        if (!text)
            return -ENOMEM;
        names->text = text;
        names->room = room;
    }
    memcpy(names->text + names->length, name, size);
    names->length += size;
    names->count++;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int sort_names(struct names *names)
{
    const char *at = names->text;
    names->list = calloc(names->count + 1, sizeof *names->list);
    if (!names->list)
        return -ENOMEM;
    for (size_t i = 0; i < names->count; i++, at += strlen(at) + 1)
        names->list[i] = at;
    qsort(names->list, names->count, sizeof *names->list, compare_names);
    return 0;
}

/* getdents64 and not readdir: the descriptor stays ours, and the buffer is a large one. */
static int read_names(struct inputs *inputs, int directory, const struct stat *status, struct names *names)
{
    bool beside_output = inputs->before && same_file(status, &inputs->output_directory);
    ssize_t length;
    while ((length = getdents64(directory, inputs->buffer, BUFFER_SIZE)) > 0) {
        const struct dirent64 *entry;
        for (char *at = inputs->buffer; at < inputs->buffer + length; at += entry->d_reclen) {
            entry = (const struct dirent64 *)at;
            bool skip = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_ours(entry->d_name) ||
                        (beside_output && is_output(inputs, entry->d_name));
            if (!skip && add_name(names, entry->d_name) < 0)
                return -ENOMEM;
        }
    }
    return length < 0 ? -errno : sort_names(names);
}

static int digest_names(struct inputs *inputs, struct digest *digest, const struct place *place, int directory,
                        const struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        struct place below = {.above = place, .directory = directory, .name = names->list[i]};
        int code = digest_place(inputs, digest, &below);
        if (code < 0)
            return code;
    }
    return 0;
}

static int digest_directory(struct inputs *inputs, struct digest *digest, const struct place *place)
{
    struct names names = {0};
    if (same_file(&place->status, &inputs->lock_directory))
        return 0;
    FK_CLOSE_FD int fd =
        fk_fd_open(place->directory, place->name, O_RDONLY | O_DIRECTORY | (place->above ? O_NOFOLLOW : 0), 0);
    if (fd == -ENOENT && place->above)
        return 0;
    int code = fd < 0 ? fd : read_names(inputs, fd, &place->status, &names);
    if (code < 0)
        code = fail(code, place);
    put_name(digest, place);
    digest_number(digest, 'd', place->status.st_mode & PERMISSIONS);
    if (code == 0)
        code = digest_names(inputs, digest, place, fd, &names);
    digest_text(digest, 'e', "");
    clear_names(&names);
    return code;
}

static int digest_place(struct inputs *inputs, struct digest *digest, struct place *place)
{
    if (fstatat(place->directory, place->name, &place->status, place->above ? AT_SYMLINK_NOFOLLOW : 0) < 0)
        return errno == ENOENT && place->above ? 0 : fail(-errno, place);
    switch (place->status.st_mode & S_IFMT) {
    case S_IFREG:
        return digest_file(inputs, digest, place);
    case S_IFDIR:
        return digest_directory(inputs, digest, place);
    case S_IFLNK:
        return digest_link(inputs, digest, place);
    default:
        return digest_special(digest, place);
    }
}

int inputs_digest(struct inputs *inputs, const char *path, unsigned char result[DIGEST_SIZE])
{
    struct place place = {.directory = AT_FDCWD, .name = path};
    struct digest digest;
    if (!inputs->buffer)
        inputs->buffer = malloc(BUFFER_SIZE);
    if (!inputs->buffer)
        return fail(-ENOMEM, &place);
    digest_begin(&digest);
    int code = digest_place(inputs, &digest, &place);
    digest_end(&digest, result);
    return code;
}

void inputs_clear(struct inputs *inputs)
{
    known_clear(&inputs->known);
    free(inputs->buffer);
    free(inputs->news);
    *inputs = (struct inputs){0};
}
