/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "values.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "error.h"
#include "fd.h"
#include "latch.h"

#define FILE_MODE (0600 | S_ISVTX) /* as of all files of a row */
#define SHOWN 60 /* bytes of a value in a sentence */

/* ---- one value ---- */

static bool is_allowed(char byte)
{
    return byte > ' ' && byte < 0x7f && byte != ',';
}

static int check_value(const char *name, const char *value)
{
    size_t length = strlen(value), good = 0;
    while (is_allowed(value[good]))
        good++;
    if (length == 0)
        return fk_fail(-EINVAL, "a value of %s is empty; leave it out, or give it 1 to %d bytes", name, FLK_VALUE_MAX);
    if (good < length)
        return fk_fail(-EINVAL,
                       "the value \"%.*s...\" of %s goes on with byte 0x%02x; possible are printable ASCII characters, "
                       "but no space and no comma",
                       (int)(good < SHOWN ? good : SHOWN), value, name, (unsigned char)value[good]);
    if (length > FLK_VALUE_MAX)
        return fk_fail(-EINVAL, "the value \"%.*s...\" of %s has %zu bytes; at most %d are possible", SHOWN, value,
                       name, length, FLK_VALUE_MAX);
    return 0;
}

static int check_values(const char *name, const struct flk_pool *pool)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < pool->n_values; i++)
        code = check_value(name, pool->values[i]);
    return code;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_distinct(const char *name, const struct flk_pool *pool)
{
    const char **sorted = malloc(pool->n_values * sizeof *sorted);
    int code = 0;
    if (!sorted)
        return fk_fail(-ENOMEM, "out of memory");
    memcpy(sorted, pool->values, pool->n_values * sizeof *sorted);
    qsort(sorted, pool->n_values, sizeof *sorted, compare_texts);
    for (size_t i = 1; code == 0 && i < pool->n_values; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            code = fk_fail(-EINVAL, "the value %s of %s is given twice; one that two may have at a time is no value",
                           sorted[i], name);
    free(sorted);
    return code;
}

/* ---- all of them ---- */

static int check_command(const char *name, const char *check)
{
    if (!*check)
        return fk_fail(-EINVAL, "the check of %s is empty; give tcp-port, udp-port, path-free or a command", name);
    if (strlen(check) > FLK_CHECK_MAX)
        return fk_fail(-EINVAL, "the check of %s has %zu bytes; at most %d are possible; put it into a script", name,
                       strlen(check), FLK_CHECK_MAX);
    if (strchr(check, '\n'))
        return fk_fail(-EINVAL, "the check of %s has more than one line; put it into a script", name);
    return 0;
}

static int check_pool(const char *name, const struct flk_pool *pool)
{
    uint64_t unknown = pool->reserved0 | (pool->flags & ~(unsigned)FLK_POOL_SPREAD);
    for (size_t i = 0; i < sizeof pool->reserved / sizeof *pool->reserved; i++)
        unknown |= pool->reserved[i];
    if (unknown)
        return fk_fail(-EINVAL, "the pool %s uses something that this release doesn't know", name);
    if (pool->n_values < 1 || pool->n_values > FLK_SLOTS_MAX)
        return fk_fail(-EINVAL, "%s can't have %zu values; a row has 1 to %u slots", name, pool->n_values,
                       FLK_SLOTS_MAX);
    int code = pool->check ? check_command(name, pool->check) : 0;
    if (code == 0)
        code = check_values(name, pool);
    for (size_t i = 0; code == 0 && pool->check && i < pool->n_values; i++)
        code = fk_check_fits(pool->check, name, pool->values[i]);
    return code == 0 ? check_distinct(name, pool) : code;
}

static struct fk_values *copy(const struct flk_pool *pool)
{
    size_t size = sizeof(struct fk_values) + pool->n_values * sizeof(char *);
    size_t total = size + (pool->check ? strlen(pool->check) + 1 : 0);
    for (size_t i = 0; i < pool->n_values; i++)
        total += strlen(pool->values[i]) + 1;
    struct fk_values *values = malloc(total);
    if (!values)
        return NULL;
    char *at = (char *)values + size;
    values->n = (unsigned)pool->n_values;
    values->spread = pool->flags & FLK_POOL_SPREAD;
    for (size_t i = 0; i < pool->n_values; i++) {
        values->value[i] = at;
        at = stpcpy(at, pool->values[i]) + 1;
    }
    values->check = pool->check ? strcpy(at, pool->check) : NULL;
    return values;
}

int fk_values_make(const char *name, const struct flk_pool *pool, struct fk_values **made)
{
    int code = check_pool(name, pool);
    struct fk_values *values = code == 0 ? copy(pool) : NULL;
    if (code == 0 && !values)
        code = fk_fail(-ENOMEM, "out of memory");
    if (code == 0)
        *made = values;
    return code;
}

static void tell_count(char text[320], const struct fk_values *values)
{
    snprintf(text, 320, "%u value%s", values->n, values->n == 1 ? "" : "s");
}

static void tell_check(char text[320], const struct fk_values *values)
{
    snprintf(text, 320, values->check ? "the check \"%.280s\"" : "no check", values->check);
}

bool fk_values_agree(const struct fk_values *there, const struct fk_values *wanted, bool thorough,
                     struct fk_values_difference *difference)
{
    if (there->n != wanted->n) {
        tell_count(difference->there, there);
        tell_count(difference->wanted, wanted);
        return false;
    }
    for (unsigned i = 0; i < there->n; i++) {
        if (strcmp(there->value[i], wanted->value[i]) == 0)
            continue;
        snprintf(difference->there, sizeof difference->there, "the value %s in slot %u", there->value[i], i);
        snprintf(difference->wanted, sizeof difference->wanted, "%s", wanted->value[i]);
        return false;
    }
    bool same_check =
        there->check && wanted->check ? strcmp(there->check, wanted->check) == 0 : there->check == wanted->check;
    if (!same_check && (thorough || wanted->check)) {
        tell_check(difference->there, there);
        tell_check(difference->wanted, wanted);
        return false;
    }
    if (there->spread != wanted->spread && (thorough || wanted->spread)) {
        strcpy(difference->there, there->spread ? "its slots spread" : "the lowest free slot first");
        strcpy(difference->wanted, wanted->spread ? "spread" : "the lowest first");
        return false;
    }
    return true;
}

/* ---- on disk ---- */

unsigned fk_values_kind(const struct fk_values *values)
{
    if (!values)
        return 0;
    return FK_HAS_VALUES | (values->check ? FK_HAS_CHECK : 0) | (values->spread ? FK_SPREADS : 0);
}

static int write_file(int directory, const char *name, const char *text, size_t length)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return fd;
    return fchmod(fd, FILE_MODE) < 0 ? -errno : fk_fd_write_at(fd, text, length, 0);
}

/* The lines of a file. NULL: out of memory. */
static char *join(const char *const *texts, size_t n, size_t *length)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += strlen(texts[i]) + 1;
    char *joined = malloc(size + 1), *at = joined;
    for (size_t i = 0; joined && i < n; i++)
        at = stpcpy(stpcpy(at, texts[i]), "\n");
    *length = size;
    return joined;
}

static int write_lines(int directory, const char *name, const char *const *texts, size_t n)
{
    size_t length;
    char *text = join(texts, n, &length);
    int code = text ? write_file(directory, name, text, length) : -ENOMEM;
    free(text);
    return code;
}

/* What pool.h says of it, in full size, so that a full file system doesn't stop a pool that is there. */
static int write_blocked(int directory, unsigned n)
{
    char *text = malloc(n * FK_BLOCKED_LINE + 1);
    for (unsigned i = 0; text && i < n; i++)
        memcpy(text + i * FK_BLOCKED_LINE, "00000000000000000000\n", FK_BLOCKED_LINE);
    int code = text ? write_file(directory, "blocked", text, n * FK_BLOCKED_LINE) : -ENOMEM;
    free(text);
    return code;
}

int fk_values_write(int directory, const struct fk_values *values)
{
    int code = write_lines(directory, "values", values->value, values->n);
    if (code == 0 && values->check)
        code = write_lines(directory, "check", &values->check, 1);
    return code == 0 && values->check ? write_blocked(directory, values->n) : code;
}

/* All of a file of at most that size, with a NUL; for free(). */
static int read_file(int directory, const char *name, size_t most, char **text)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    struct stat status;
    if (fd < 0)
        return fd;
    if (fstat(fd, &status) < 0)
        return -errno;
    size_t size = (size_t)status.st_size;
    if (!S_ISREG(status.st_mode) || size > most)
        return -EBADMSG;
    char *all = malloc(size + 1);
    ssize_t got = all ? pread(fd, all, size, 0) : -1;
    if (!all || got != (ssize_t)size) {
        free(all);
        return all ? -EBADMSG : -ENOMEM;
    }
    all[size] = '\0';
    *text = all;
    return 0;
}

/* Cuts text into its lines. False: not so many. */
static bool cut_lines(char *text, const char **lines, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *end = strchr(text, '\n');
        if (!end)
            return false;
        *end = '\0';
        lines[i] = text;
        text = end + 1;
    }
    return *text == '\0';
}

static int take_pool(char *values, char *check, unsigned slots, bool spread, struct fk_values **made)
{
    const char **lines = malloc(slots * sizeof *lines), *line = NULL;
    if (!lines)
        return -ENOMEM;
    struct flk_pool pool = {.values = lines, .n_values = slots, .flags = spread ? FLK_POOL_SPREAD : 0};
    bool whole = cut_lines(values, lines, slots) && (!check || cut_lines(check, &line, 1)) &&
                 check_values("the row", &pool) == 0;
    pool.check = line;
    struct fk_values *copied = whole ? copy(&pool) : NULL;
    free(lines);
    if (copied)
        *made = copied;
    return copied ? 0 : whole ? -ENOMEM : -EBADMSG;
}

int fk_values_read(int directory, unsigned slots, unsigned kind, struct fk_values **values)
{
    char *text = NULL, *check = NULL;
    int code = read_file(directory, "values", slots * (FLK_VALUE_MAX + 1), &text);
    if (code == 0 && (kind & FK_HAS_CHECK))
        code = read_file(directory, "check", FLK_CHECK_MAX + 1, &check);
    if (code == 0)
        code = take_pool(text, check, slots, kind & FK_SPREADS, values);
    free(text);
    free(check);
    return code;
}

/* ---- lists ---- */

void fk_value_list_clear(struct fk_value_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct fk_value_list){0};
}

static int too_many(void)
{
    return fk_fail(-EINVAL, "these are more than %u values, the most that a row has slots", FLK_SLOTS_MAX);
}

static int add(struct fk_value_list *list, const char *text, size_t length)
{
    if (list->n == FLK_SLOTS_MAX)
        return too_many();
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        char **items = reallocarray(list->items, room, sizeof *items);
        if (!items)
            return fk_fail(-ENOMEM, "out of memory");
        list->items = items;
        list->room = room;
    }
    list->items[list->n] = strndup(text, length);
    if (!list->items[list->n])
        return fk_fail(-ENOMEM, "out of memory");
    list->n++;
    return 0;
}

/* A range: first to last, formatted as numbers of that width or as addresses. */
struct range {
    uint64_t first, last;
    int width;
    bool addresses;
};

static bool read_number(const char *text, size_t length, uint64_t *number)
{
    if (length < 1 || length > 18 || strspn(text, "0123456789") < length)
        return false;
    *number = strtoull(text, NULL, 10); /* stops at what follows, which is no digit */
    return true;
}

static bool read_address(const char *text, size_t length, uint64_t *number)
{
    char copied[INET_ADDRSTRLEN];
    struct in_addr address;
    if (length >= sizeof copied)
        return false;
    memcpy(copied, text, length);
    copied[length] = '\0';
    if (inet_pton(AF_INET, copied, &address) != 1)
        return false;
    *number = ntohl(address.s_addr);
    return true;
}

static bool read_range(const char *text, size_t length, struct range *range)
{
    const char *dash = memchr(text, '-', length);
    if (!dash)
        return false;
    size_t left = (size_t)(dash - text), right = length - left - 1;
    range->width = text[0] == '0' ? (int)left : 1;
    range->addresses = read_address(text, left, &range->first) && read_address(dash + 1, right, &range->last);
    return range->addresses || (read_number(text, left, &range->first) && read_number(dash + 1, right, &range->last));
}

static int add_range(struct fk_value_list *list, const struct range *range, const char *text, size_t length)
{
    char value[INET_ADDRSTRLEN + 8];
    int code = 0;
    if (range->first > range->last)
        return fk_fail(-EINVAL, "the range %.*s runs backwards; give the lower end first", (int)length, text);
    if (range->last - range->first >= FLK_SLOTS_MAX - list->n)
        return too_many();
    for (uint64_t at = range->first; code == 0 && at <= range->last; at++) {
        if (range->addresses)
            inet_ntop(AF_INET, &(struct in_addr){htonl((uint32_t)at)}, value, sizeof value);
        else
            snprintf(value, sizeof value, "%0*" PRIu64, range->width, at);
        code = add(list, value, strlen(value));
    }
    return code;
}

int fk_value_list_parse(struct fk_value_list *list, const char *text)
{
    int code = 0;
    for (const char *end; code == 0; text = end + 1) {
        struct range range;
        end = strchrnul(text, ',');
        size_t length = (size_t)(end - text);
        code = read_range(text, length, &range) ? add_range(list, &range, text, length) : add(list, text, length);
        if (!*end)
            break;
    }
    return code;
}

int fk_value_list_read(struct fk_value_list *list, const char *path)
{
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file)
        return fk_fail_errno(fd < 0 ? fd : -ENOMEM, "can't read the values from %s", path);
    fk_fd_take(&fd);
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    int code = 0;
    for (unsigned number = 1; code == 0 && (length = getline(&line, &size, file)) > 0; number++) {
        if (memchr(line, '\0', (size_t)length))
            code =
                fk_fail(-EINVAL, "%s:%u: there is a NUL byte; the file has to be a text, a value a line", path, number);
        else
            code = add(list, line, strcspn(line, "\n"));
    }
    if (code == 0 && ferror(file))
        code = fk_fail_errno(-errno, "can't read the values from %s", path);
    free(line);
    fk_fd_close_file(file);
    return code;
}
