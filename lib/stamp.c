/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stamp.h"

#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "output.h"

#define FIRST_LINE "flockctl=1\n"
#define READ_FIRST 2048 /* enough where the key is a digest */
#define MOST (256 << 20) /* of a stamp; a larger one is none of ours */

/* ---- identity ---- */

static int64_t ns_of(const struct timespec *time)
{
    return time->tv_sec * FK_SECOND + time->tv_nsec;
}

void fk_identity_take(const struct stat *status, struct fk_identity *identity)
{
    *identity = (struct fk_identity){status->st_dev, status->st_ino, status->st_size, ns_of(&status->st_mtim)};
}

bool fk_identity_is(const struct fk_identity *a, const struct fk_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

/* ---- where it is ---- */

#define SUFFIX ".flockctl"
/* Bytes that the path of its stamp has at most, with its NUL. */
#define PATH_SIZE(output) (strlen(output) + FK_OUTPUT_HASH_SIZE + sizeof "." SUFFIX)

static int make_path(const char *output, char *path, size_t size)
{
    size_t end = strlen(output), begin;
    char hash[FK_OUTPUT_HASH_SIZE];
    while (end > 0 && output[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && output[begin - 1] != '/'; begin--)
        ;
    const char *name = output + begin;
    if (end - begin > FK_STAMP_NAME_MAX) {
        fk_output_hash(name, end - begin, hash);
        name = hash;
        end = begin + sizeof hash - 1;
    }
    int length = snprintf(path, size, "%.*s.%.*s" SUFFIX, (int)begin, output, (int)(end - begin), name);
    return (size_t)length < size ? 0 : -ENAMETOOLONG;
}

int fk_stamp_path(const char *output, char path[PATH_MAX])
{
    return make_path(output, path, PATH_MAX);
}

void fk_stamp_name(const char *name, char file[NAME_MAX + 1])
{
    make_path(name, file, NAME_MAX + 1);
}

/* ---- read ---- */

/* Behind the line's key=, where the next line begins; or NULL. */
static const char *take_line(const char **at, const char *key)
{
    size_t length = strlen(key);
    const char *value = *at + length, *end = strncmp(*at, key, length) == 0 ? strchr(value, '\n') : NULL;
    if (end)
        *at = end + 1;
    return end ? value : NULL;
}

static bool take_number(const char **at, const char *key, uint64_t *number)
{
    char *end;
    const char *value = take_line(at, key);
    *number = value ? strtoull(value, &end, 10) : 0;
    return value && end > value && *end == '\n';
}

/* False: it isn't whole, or none of ours. */
static bool parse(struct fk_stamp *stamp)
{
    uint64_t device, inode, size, mtime, built;
    const char *at = stamp->text;
    if (strncmp(at, FIRST_LINE, sizeof FIRST_LINE - 1) != 0)
        return false;
    at += sizeof FIRST_LINE - 1;
    if (!take_number(&at, "device=", &device) || !take_number(&at, "inode=", &inode) ||
        !take_number(&at, "size=", &size) || !take_number(&at, "mtime=", &mtime) || !take_number(&at, "built=", &built))
        return false;
    stamp->key = take_line(&at, "key=");
    if (!stamp->key && !take_line(&at, "keyless"))
        return false;
    stamp->text[at - 1 - stamp->text] = '\0';
    stamp->output = (struct fk_identity){device, inode, (off_t)size, (int64_t)mtime};
    stamp->built_ns = (int64_t)built;
    return true;
}

static int read_text(int fd, size_t size, char **out)
{
    char *text = malloc(size + 1);
    ssize_t length = text ? pread(fd, text, size, 0) : -1;
    if (length < 0) {
        free(text);
        return -ENOENT;
    }
    text[length] = '\0';
    *out = text;
    return 0;
}

/* The beginning at first, all of it where the key is long. */
static int read_stamp(struct fk_stamp *stamp, size_t size)
{
    int code = read_text(stamp->fd, size < READ_FIRST ? size : READ_FIRST, &stamp->text);
    if (code < 0 || parse(stamp))
        return code;
    if (size <= READ_FIRST)
        return -ENOENT;
    free(stamp->text);
    stamp->text = NULL;
    code = read_text(stamp->fd, size, &stamp->text);
    return code < 0 || parse(stamp) ? code : -ENOENT;
}

int fk_stamp_open(int at, const char *output, struct fk_stamp *out)
{
    struct fk_stamp stamp = {.fd = -1};
    struct stat status;
    size_t size = PATH_SIZE(output);
    char *path = size < PATH_MAX ? alloca(size) : NULL;
    if (!path || make_path(output, path, size) < 0)
        return -ENOENT;
    stamp.fd = fk_fd_open(at, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int code = stamp.fd < 0 ? -ENOENT : 0;
    if (code == 0 && (fstat(stamp.fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size > MOST))
        code = -ENOENT;
    if (code == 0)
        code = read_stamp(&stamp, (size_t)status.st_size);
    if (code < 0) {
        fk_stamp_close(&stamp);
        return code;
    }
    stamp.used_ns = ns_of(&status.st_mtim);
    *out = stamp;
    return 0;
}

void fk_stamp_close(struct fk_stamp *stamp)
{
    fk_fd_close(&stamp->fd);
    free(stamp->text);
    stamp->text = NULL;
}

/* ---- keys ---- */

static bool is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '\\';
}

/* The byte as it stands in a stamp; how many bytes that are. */
static size_t escape(unsigned char byte, char text[5])
{
    if (!is_plain(byte))
        return (size_t)snprintf(text, 5, "\\x%02x", byte);
    text[0] = (char)byte;
    return 1;
}

bool fk_stamp_has_key(const struct fk_stamp *stamp, const char *key)
{
    const char *at = stamp->key;
    char text[5];
    if (!at)
        return false;
    for (; *key; key++) {
        size_t length = escape((unsigned char)*key, text);
        if (strncmp(at, text, length) != 0)
            return false;
        at += length;
    }
    return *at == '\0';
}

/* ---- write ---- */

static void put_key(FILE *out, const char *key)
{
    char text[5];
    fputs("key=", out);
    for (; *key; key++)
        fwrite(text, 1, escape((unsigned char)*key, text), out);
    fputc('\n', out);
}

int64_t fk_stamp_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ns_of(&now);
}

static void put_stamp(FILE *out, const struct fk_stamp_spec *spec)
{
    const struct fk_identity *output = &spec->output;
    fprintf(out, FIRST_LINE "device=%llu\ninode=%llu\nsize=%lld\nmtime=%lld\nbuilt=%lld\n",
            (unsigned long long)output->device, (unsigned long long)output->inode, (long long)output->size,
            (long long)output->mtime_ns, (long long)fk_stamp_now());
    if (spec->key)
        put_key(out, spec->key);
    else
        fputs("keyless\n", out);
}

static int write_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, text, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        size -= (size_t)written;
    }
    return 0;
}

int fk_stamp_write(int directory, const char *file, const struct fk_stamp_spec *spec)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    put_stamp(out, spec);
    int code = fclose(out) == 0 ? 0 : -ENOMEM;
    FK_CLOSE_FD int fd = code < 0 ? code : fk_fd_open(directory, file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
    code = fd < 0 ? fd : write_all(fd, text, size);
    free(text);
    return code == 0 && fsync(fd) < 0 ? -errno : code;
}

void fk_stamp_use(const struct fk_stamp *stamp)
{
    int64_t age = fk_stamp_now() - stamp->used_ns;
    if (age > FK_STAMP_USED_EVERY || age < 0)
        futimens(stamp->fd, NULL);
}

/* ---- the question ---- */

/* A time in the future tells no age: the clock was set back. Of what its stamp doesn't describe, or that has none (stamp NULL), only
 * the file's own time is known. */
static bool is_young(const struct fk_wanted *wanted, const struct fk_stamp *stamp, int64_t mtime_ns)
{
    int64_t built_ns = stamp ? stamp->built_ns : mtime_ns, age = fk_stamp_now() - built_ns;
    bool since = stamp && wanted->asked_ns && built_ns >= wanted->asked_ns;
    return wanted->max_age_ms == 0 || (age >= -FK_SECOND && (since || age / FK_MS < wanted->max_age_ms));
}

static int cannot_look(int code, const char *output)
{
    char shown[FK_OUTPUT_SHOWN_SIZE];
    fk_output_show(output, shown);
    return fk_fail(code, "can't look at %s: %s", shown, strerrordesc_np(-code));
}

/* 1: there, 0: not. */
static int look_at_output(int at, const char *output, bool follow, struct fk_identity *identity)
{
    struct stat status;
    if (fstatat(at, output, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0) {
        fk_identity_take(&status, identity);
        return 1;
    }
    size_t length = strlen(output);
    if (errno == ENOENT || (errno == ELOOP && follow) || (errno == ENOTDIR && length > 0 && output[length - 1] == '/'))
        return 0; /* the last: whoever has the lock looks without the slash, which doesn't count */
    return cannot_look(-errno, output);
}

int fk_stamp_look(int at, const char *output, const struct fk_wanted *wanted, struct fk_identity *identity)
{
    struct fk_identity found;
    struct fk_stamp stamp;
    int there = look_at_output(at, output, !wanted->key, &found);
    if (there == 1 && (wanted->key || wanted->max_age_ms)) {
        bool stamped = fk_stamp_open(at, output, &stamp) == 0;
        bool describes = stamped && fk_identity_is(&stamp.output, &found);
        if ((wanted->key && (!describes || !fk_stamp_has_key(&stamp, wanted->key))) ||
            !is_young(wanted, describes ? &stamp : NULL, found.mtime_ns))
            there = 0;
        else if (describes)
            fk_stamp_use(&stamp);
        if (stamped)
            fk_stamp_close(&stamp);
    }
    if (there == 1)
        *identity = found;
    return there;
}
