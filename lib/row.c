/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "row.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "config.h"
#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "id.h"
#include "nest.h"
#include "queue.h"
#include "registry.h"
#include "removal.h"
#include "root.h"
#include "slot.h"
#include "state.h"
#include "values.h"

#define FILE_MODE (0600 | S_ISVTX) /* sticky: sweepers of runtime directories leave it alone */
#define TEMPORARY ".tmp."
#define SHOWN 40 /* bytes of a bad name */
#define SHOWN_SIZE (4 * SHOWN + sizeof "\"\"...")
#define TRIES \
    100 /* of what another process may undo in between; each try that fails means that somebody else went on */

static bool is_allowed(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           (byte && strchr("._@+-", byte));
}

/* In quotes; what is cut off is told outside of them. */
static const char *show_name(const char *name, char text[SHOWN_SIZE])
{
    size_t used = 1;
    text[0] = '"';
    for (size_t i = 0; name[i] && i < SHOWN; i++)
        used += (size_t)fk_show_byte(text + used, SHOWN_SIZE - used, (unsigned char)name[i]);
    snprintf(text + used, SHOWN_SIZE - used, "\"%s", strlen(name) > SHOWN ? "..." : "");
    return text;
}

int fk_row_check_name(const char *name)
{
    char shown[SHOWN_SIZE], byte[5];
    size_t length = strlen(name), good = 0;
    while (is_allowed(name[good]))
        good++;
    if (length == 0)
        return fk_fail(-EINVAL, "a name is empty; give one of 1 to %d of A-Z a-z 0-9 . _ @ + -", FLK_NAME_MAX);
    if (length > FLK_NAME_MAX)
        return fk_fail(-EINVAL, "the name %s has %zu bytes; at most %d are possible", show_name(name, shown), length,
                       FLK_NAME_MAX);
    if (good < length) {
        fk_show_byte(byte, sizeof byte, (unsigned char)name[good]);
        return fk_fail(-EINVAL, "the name %s has \"%s\" at position %zu; possible are A-Z a-z 0-9 . _ @ + -",
                       show_name(name, shown), byte, good + 1);
    }
    if (name[0] == '.' || name[0] == '-')
        return fk_fail(-EINVAL, "the name %s begins with \"%c\"; it must not begin with \".\" or \"-\"",
                       show_name(name, shown), name[0]);
    return 0;
}

/* ---- where it is ---- */

const char *fk_row_place(const char *text, char place[FK_ROW_PLACE_SIZE])
{
    bool output = text[0] == FK_OUTPUT_MARK;
    snprintf(place, FK_ROW_PLACE_SIZE, output ? "/once/%s" : "/rows/%s", text + output);
    return place;
}

int fk_row_path(const char *text, char path[PATH_MAX])
{
    const char *root;
    char place[FK_ROW_PLACE_SIZE];
    int code = fk_root_path(&root);
    if (code == 0)
        stpcpy(stpcpy(path, root), fk_row_place(text, place));
    return code;
}

/* In the directory that open_rows() opens for it. */
static const char *last_part(const char *text)
{
    return text[0] == FK_OUTPUT_MARK ? text + 1 : text;
}

int fk_row_open_directory(const char *text)
{
    const char *root;
    char place[FK_ROW_PLACE_SIZE];
    int code = fk_root_path(&root);
    return code < 0 ? code
                    : fk_fd_open(AT_FDCWD, FK_ROOT_BELOW(root, fk_row_place(text, place)),
                                 O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

ssize_t fk_row_output(const char *text, char *path, size_t size)
{
    FK_CLOSE_FD int row = fk_row_open_directory(text);
    ssize_t length = row < 0 ? row : fk_fd_read_text(row, "output", path, size);
    if (length < 0)
        path[0] = '\0';
    return length;
}

const char *fk_row_show(const char *text, size_t length, struct fk_row_shown *shown)
{
    const char *slash = memchr(text, '/', length);
    snprintf(shown->text, sizeof shown->text, "%.*s", (int)(slash ? slash - text : (ptrdiff_t)length), text);
    if (text[0] != FK_OUTPUT_MARK)
        return shown->text;
    char *path = malloc(PATH_MAX);
    if (path && fk_row_output(shown->text, path, PATH_MAX) > 0)
        fk_output_show(path, shown->text);
    free(path);
    return shown->text;
}

int fk_row_fail(int code, const char *text, const char *format, ...)
{
    struct fk_row_shown shown;
    char what[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return fk_fail_errno(code, "can't %s %s", what, fk_row_show(text, strlen(text), &shown));
}

/* ---- delete ---- */

/* Best effort, and nothing is said: what stays is a `.tmp.*`. */
static void delete_tree(int parent, const char *name)
{
    struct fk_detail saved;
    fk_error_save(&saved);
    if (fk_remove_tree(parent, name, 0) < 0)
        fk_error_restore(&saved);
}

static int make_directory(int parent, const char *name)
{
    if (mkdirat(parent, name, 0700) < 0)
        return -errno;
    return fchmodat(parent, name, 0700, 0) < 0 ? -errno : 0;
}

/* The directory in which that row is one entry. */
static int open_rows(const char *text, int *rows)
{
    const char *root;
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    const char *path = FK_ROOT_BELOW(root, text[0] == FK_OUTPUT_MARK ? "/once" : "/rows");
    int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd == -ENOENT) {
        code = make_directory(AT_FDCWD, path);
        if (code < 0 && code != -EEXIST)
            return fk_fail_errno(code, "can't make %s", path);
        fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    }
    if (fd < 0)
        return fk_fail_errno(fd, "can't open %s", path);
    *rows = fd;
    return 0;
}

/* What a killed process left half-made: its flock on it is gone with it. */
static void sweep_those(int rows, bool (*may)(const char *name, void *data), void *data)
{
    FK_CLOSE_FD int copy = fk_fd_open(rows, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (strncmp(entry->d_name, TEMPORARY, sizeof TEMPORARY - 1) != 0)
            continue;
        FK_CLOSE_FD int fd = fk_fd_open(rows, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || (may && !may(entry->d_name, data)))
            continue;
        if (fk_state_keep(fd) == 0)
            delete_tree(rows, entry->d_name);
    }
    fk_fd_take(&copy);
    fk_fd_close_directory(directory);
}

static void sweep(int rows)
{
    sweep_those(rows, NULL, NULL);
}

void fk_row_sweep(const char *directory, bool (*may)(const char *name, void *data), void *data)
{
    FK_CLOSE_FD int rows = fk_fd_open(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (rows >= 0)
        sweep_those(rows, may, data);
}

/* ---- make ---- */

static int make_slots(int directory, unsigned slots)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, "slots", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    for (unsigned slot = 0; slot < slots; slot++) {
        char name[16];
        snprintf(name, sizeof name, "%u", slot);
        if (mkfifoat(fd, name, FILE_MODE) < 0 || fchmodat(fd, name, FILE_MODE, 0) < 0)
            return -errno;
    }
    return 0;
}

#define NUMBER_SIZE 11 /* of a slot in the file `numbers`, with its newline */

/* Which slots of the row above they are. */
static int write_numbers(int directory, unsigned slots, const unsigned *numbers)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, "numbers", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    char line[NUMBER_SIZE + 1];
    int code = fd < 0 ? fd : 0;
    for (unsigned slot = 0; code == 0 && slot < slots; slot++) {
        snprintf(line, sizeof line, "%010u\n", numbers[slot]);
        code = fk_fd_write_at(fd, line, NUMBER_SIZE, (off_t)slot * NUMBER_SIZE);
    }
    return code;
}

static int write_output(int directory, const struct fk_output *output)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, "output", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    return fd < 0 ? fd : fk_fd_write_at(fd, output->path, strlen(output->path), 0);
}

/* What a new row is to have. */
struct plan {
    unsigned slots;
    const struct fk_values *values; /* NULL: none */
    const unsigned *numbers;        /* of a row below a hold, else NULL */
    const struct fk_output *output; /* whose lock it is, or NULL */
};

static int make_latch(int directory, const struct plan *plan)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, "latch", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return fd;
    return fchmod(fd, FILE_MODE) < 0 ? -errno : fk_latch_init(fd, plan->slots, fk_values_kind(plan->values));
}

static int fill(int directory, const struct plan *plan)
{
    int code = make_directory(directory, "slots");
    if (code == 0)
        code = make_directory(directory, "queue");
    if (code == 0)
        code = make_directory(directory, "holders");
    if (code == 0)
        code = make_slots(directory, plan->slots);
    if (code == 0 && plan->values)
        code = fk_values_write(directory, plan->values);
    if (code == 0 && plan->numbers)
        code = write_numbers(directory, plan->slots, plan->numbers);
    if (code == 0 && plan->output)
        code = write_output(directory, plan->output);
    return code < 0 ? code : make_latch(directory, plan);
}

/* A new empty directory of our own in rows, flocked. -EAGAIN: a sweeper was quicker than our flock. */
static int make_temporary(int rows, char name[64])
{
    char id[FLK_ID_SIZE];
    fk_id_make(id);
    snprintf(name, 64, TEMPORARY "%s", id);
    int code = make_directory(rows, name);
    if (code < 0)
        return code == -ENOENT ? -EAGAIN : code;
    FK_CLOSE_FD int fd = fk_fd_open(rows, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    struct stat status;
    if (fd == -ENOENT)
        return -EAGAIN;
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &status) < 0 || status.st_nlink == 0)
        return -EAGAIN;
    return fk_fd_take(&fd);
}

/* A whole row under a temporary name; its directory's descriptor, which keeps sweepers away. */
static int build(int rows, const struct plan *plan, char temporary[64])
{
    int fd = -EAGAIN;
    for (int tries = 0; fd == -EAGAIN && tries < TRIES; tries++)
        fd = make_temporary(rows, temporary);
    if (fd < 0)
        return fd;
    int code = fill(fd, plan);
    if (code < 0) {
        delete_tree(rows, temporary);
        fk_fd_close(&fd);
        return code;
    }
    return fd;
}

int fk_row_read_numbers(const struct fk_row *row, unsigned *numbers)
{
    FK_CLOSE_FD int fd = fk_fd_open(row->directory, "numbers", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    char line[NUMBER_SIZE + 1] = "";
    for (unsigned slot = 0; slot < row->slots; slot++) {
        if (fd < 0 || pread(fd, line, NUMBER_SIZE, (off_t)slot * NUMBER_SIZE) != NUMBER_SIZE)
            return fk_row_damaged(row->text, "its file numbers can't be read");
        numbers[slot] = (unsigned)strtoul(line, NULL, 10);
    }
    return 0;
}

/* -EEXIST: somebody else made it meanwhile. */
static int make(int rows, const char *text, const struct plan *plan)
{
    char temporary[64];
    const char *shown = plan->output ? plan->output->shown : text;
    sweep(rows);
    FK_CLOSE_FD int directory = build(rows, plan, temporary);
    if (directory < 0)
        return fk_fail_errno(directory, "can't make the row %s of %u slot%s", shown, plan->slots,
                             plan->slots == 1 ? "" : "s");
    if (renameat2(rows, temporary, rows, last_part(text), RENAME_NOREPLACE) == 0)
        return 0;
    int code = -errno;
    delete_tree(rows, temporary);
    bool gone = plan->numbers && code == -ENOENT;
    return code == -EEXIST || gone ? code : fk_fail_errno(code, "can't make the row %s", shown);
}

/* ---- open ---- */

/* Of the row's directory: it is one component nearer than the latch, and asking for the latch's times (which stat does)
 * would make the kernel write finer ones at each change of it (multigrain timestamps, Linux 6.13). */
bool fk_row_is_current(const struct fk_row *row)
{
    const char *root;
    char place[FK_ROW_PLACE_SIZE];
    struct statx status;
    if (fk_root_path(&root) < 0)
        return false;
    const char *path = FK_ROOT_BELOW(root, fk_row_place(row->text, place));
    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO, &status) == 0 && status.stx_ino == row->inode &&
           makedev(status.stx_dev_major, status.stx_dev_minor) == row->device;
}

bool fk_row_is_outdated(struct fk_row *row)
{
    if (fk_row_is_current(row))
        return false;
    fk_registry_retire(row);
    fk_registry_unref(row);
    return true;
}

/* Neither `remove` nor `path` can help here: they would have to take its slots and open its latch. */
int fk_row_damaged(const char *text, const char *what)
{
    char place[FK_ROW_PLACE_SIZE];
    struct fk_row_shown shown;
    const char *root;
    if (fk_root_path(&root) < 0)
        root = "";
    fk_row_place(text, place);
    if (text[0] == FK_OUTPUT_MARK)
        text = fk_row_show(text, strlen(text), &shown);
    return fk_fail(-EBADMSG, "the row %s is damaged: %s; when nobody uses it, delete it: rm -r %s%s", text, what, root,
                   place);
}

/* access: O_RDWR, or O_RDONLY for those who only look. -ENOENT without a sentence. */
static int open_latch(int directory, const char *name, int access)
{
    int fd = fk_fd_open(directory, "latch", access | O_NOFOLLOW | O_NONBLOCK | O_NOATIME, 0);
    if (fd == -EPERM) /* another user's, which its opener is about to find out */
        fd = fk_fd_open(directory, "latch", access | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd == -EISDIR || fd == -ELOOP)
        return fk_row_damaged(name, "its latch isn't a regular file");
    return fd < 0 && fd != -ENOENT ? fk_row_fail(fd, name, "open the latch of") : fd;
}

/* The directory that we have open may have been removed since: then it isn't the one at its path any more. */
static int has_no_latch(const struct fk_row *row)
{
    return fk_row_is_current(row) ? fk_row_damaged(row->text, "it has no latch") : -ESTALE;
}

static int look_at_directory(struct fk_row *row)
{
    struct stat status;
    if (fstat(row->directory, &status) < 0)
        return fk_row_fail(-errno, row->text, "look at the row");
    row->device = status.st_dev;
    row->inode = status.st_ino;
    return 0;
}

static int read_values(struct fk_row *row, unsigned kind)
{
    int code = fk_values_read(row->directory, row->slots, kind, &row->values);
    if (code == -ENOENT && !fk_row_is_current(row))
        return -ESTALE;
    if (code == -EBADMSG || code == -ENOENT)
        return fk_row_damaged(row->text, "its values can't be read");
    return code < 0 ? fk_row_fail(code, row->text, "read the values of") : 0;
}

/* What the kernel says of a descriptor is no damage of the file: nobody should be told to delete the row for that. */
static int cannot_read_latch(int code, const char *text)
{
    return code == -EBADMSG ? fk_row_damaged(text, "its latch can't be read") : fk_row_fail(code, text, "read the latch of");
}

static int look_at_latch(struct fk_row *row)
{
    struct stat status;
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    if (fstat(row->latch, &status) < 0)
        return fk_row_fail(-errno, row->text, "look at the latch of");
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
        return fk_row_damaged(row->text,
                              S_ISREG(status.st_mode) ? "its latch isn't ours" : "its latch isn't a regular file");
    int code = fk_latch_read(row->latch, &latch, record);
    if (code < 0)
        return cannot_read_latch(code, row->text);
    row->slots = latch.slots;
    row->covered = fk_nest_is_hinted(row, record, latch.shared);
    return latch.kind ? read_values(row, latch.kind) : 0;
}

/* From disk. Without a sentence: -ENOENT, it isn't there; -ESTALE, it was removed or replaced while we looked. */
static int open_from_disk(int rows, const char *name, int access, struct fk_row **out)
{
    FK_CLOSE_FD int directory = fk_fd_open(rows, last_part(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (directory == -ENOENT)
        return directory;
    if (directory == -ENOTDIR || directory == -ELOOP)
        return fk_row_damaged(name, "it isn't a directory");
    if (directory < 0)
        return fk_row_fail(directory, name, "open the row");
    struct fk_row *row = calloc(1, sizeof *row + strlen(name) + 1);
    if (!row)
        return fk_fail(-ENOMEM, "out of memory");
    strcpy(row->text, name);
    row->references = 1;
    row->generation = fk_registry_generation();
    row->directory = fk_fd_take(&directory);
    row->latch = open_latch(row->directory, name, access);
    int code = look_at_directory(row);
    if (code == 0)
        code = row->latch == -ENOENT ? has_no_latch(row) : row->latch < 0 ? row->latch : look_at_latch(row);
    if (code < 0) {
        fk_row_free(row);
        return code;
    }
    *out = row;
    return 0;
}

int fk_row_peek(int rows, const char *path, struct fk_row **row)
{
    int code = -ESTALE;
    for (int tries = 0; code == -ESTALE && tries < TRIES; tries++)
        code = open_from_disk(rows, path, O_RDONLY, row);
    return code == -ESTALE ? -ENOENT : code;
}

int fk_row_peek_at(const char *text, struct fk_row **row)
{
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(text, &rows);
    return code < 0 ? code : fk_row_peek(rows, text, row);
}

/* wanted 0, values NULL: as the configuration says. */
static int make_wanted(int rows, const char *name, unsigned wanted, const struct fk_values *values,
                       enum fk_row_create create)
{
    struct fk_config_entry *entry = malloc(sizeof *entry);
    if (!entry)
        return fk_fail(-ENOMEM, "out of memory");
    int code = fk_config_look_up(name, entry);
    if (code == 0)
        code = fk_config_check(entry, name, wanted, values, false);
    struct plan plan = {
        .slots = wanted ? wanted : entry->slots ? entry->slots : create == FK_ROW_MAKE ? 1 : 0,
        .values = entry->values ? entry->values : values,
    };
    if (code == 0 && plan.slots == 0)
        code = fk_fail(
            -ENOENT,
            "%s isn't defined, so the number of its slots isn't known; say --slots N, or: flockctl define %s --slots N",
            name, name);
    if (code == 0)
        code = make(rows, name, &plan);
    fk_config_clear(entry);
    free(entry);
    return code;
}

static int fail_tries(const char *name)
{
    return fk_fail(-EIO, "the row %s is made and removed again and again by others; try later", name);
}

/* From disk, made when it isn't there; never handed out unless it was whole. */
static int open_or_make(const char *name, unsigned wanted, const struct fk_values *values, enum fk_row_create create,
                        struct fk_row **row)
{
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(name, &rows);
    if (code < 0)
        return code;
    for (int tries = 0; tries < TRIES; tries++) {
        code = open_from_disk(rows, name, O_RDWR, row);
        if (code == -ESTALE)
            continue;
        if (code != -ENOENT)
            return code;
        if (create == FK_ROW_LOOK)
            return fk_fail(-ENOENT, "%s isn't defined; first: flockctl define %s --slots N", name, name);
        code = make_wanted(rows, name, wanted, values, create);
        if (code < 0 && code != -EEXIST)
            return code;
    }
    return fail_tries(name);
}

/* What begins with the mark may come from an environment. */
static int check_text(const char *text, enum fk_row_create create)
{
    if (text[0] != FK_OUTPUT_MARK || create != FK_ROW_LOOK)
        return fk_row_check_name(text);
    size_t length = strlen(text);
    return length < FK_OUTPUT_KEY_SIZE && strspn(text + 1, "0123456789abcdef-") == length - 1
               ? 0
               : fk_fail(-EINVAL, "that isn't the lock of an output");
}

/* Is it as it was asked for? */
static int check_form(const struct fk_row *row, unsigned slots, const struct fk_values *values)
{
    struct fk_values_difference difference;
    const char *name = row->text;
    if (values && !row->values)
        return fk_fail(-EUSERS, "%s has %u slot%s without values; to make it a pool: flockctl remove %s", name,
                       row->slots, row->slots == 1 ? "" : "s", name);
    if (values && !fk_values_agree(row->values, values, false, &difference))
        return fk_fail(-EUSERS, "%s has %s, not %s; ask for what it has, or: flockctl remove %s", name,
                       difference.there, difference.wanted, name);
    if (slots && row->slots != slots && row->values)
        return fk_fail(-EUSERS, "%s has %u value%s, not %u slot%s; ask for as many, or: flockctl remove %s", name,
                       row->slots, row->slots == 1 ? "" : "s", slots, slots == 1 ? "" : "s", name);
    if (slots && row->slots != slots)
        return fk_fail(-EUSERS, "%s has %u slot%s, not %u; ask for as many, or: flockctl resize %s %u", name,
                       row->slots, row->slots == 1 ? "" : "s", slots, name, slots);
    return 0;
}

int fk_row_open(const char *name, unsigned slots, enum fk_row_create create, struct fk_row **row)
{
    return fk_row_open_pool(name, slots, NULL, create, row);
}

int fk_row_open_pool(const char *name, unsigned slots, const struct fk_values *values, enum fk_row_create create,
                     struct fk_row **out)
{
    int code;
    if (values)
        slots = values->n;
    if (slots > FLK_SLOTS_MAX)
        return fk_fail(-EINVAL, "%u slots for %s are too many; a row has 1 to %u", slots, name, FLK_SLOTS_MAX);
    struct fk_row *row = fk_registry_get(name);
    bool doubtful = row && (create == FK_ROW_LOOK || check_form(row, slots, values) < 0);
    if (doubtful && fk_row_is_outdated(row))
        row = NULL;
    if (!row) {
        code = check_text(name, create);
        if (code == 0)
            code = open_or_make(name, slots, values, create, &row);
        if (code < 0)
            return code;
        row = fk_registry_put(row);
        if (!row)
            return fk_fail(-ENOMEM, "out of memory");
    }
    code = check_form(row, slots, values);
    if (code < 0)
        fk_registry_unref(row);
    else
        *out = row;
    return code;
}

/* ---- the lock of an output ---- */

static int open_or_make_output(const struct fk_output *output, struct fk_row **row)
{
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(output->row, &rows);
    for (int tries = 0; code == 0 && tries < TRIES; tries++) {
        code = open_from_disk(rows, output->row, O_RDWR, row);
        if (code == 0)
            return 0;
        if (code == -EMFILE || code == -ENFILE || code == -EACCES) /* with these nobody can read whose it is */
            return fk_fail_errno(code, "can't open the lock of %s", output->shown);
        if (code == -ENOENT)
            code = make(rows, output->row, &(struct plan){.slots = 1, .output = output});
        code = code == -EEXIST || code == -ESTALE ? 0 : code;
    }
    return code < 0 ? code : fail_tries(output->shown);
}

int fk_row_open_output(const struct fk_output *output, struct fk_row **out)
{
    struct fk_row *row = fk_registry_get(output->row);
    if (!row) {
        int code = open_or_make_output(output, &row);
        if (code < 0)
            return code;
        row = fk_registry_put(row);
        if (!row)
            return fk_fail(-ENOMEM, "out of memory");
    }
    *out = row;
    return 0;
}

/* ---- below a hold ---- */

struct under_text {
    char text[FLK_NAME_MAX + 7 + FLK_ID_SIZE];
};

static int make_under(int rows, const char *name, const char *text, unsigned slots, const unsigned *numbers)
{
    char under[FLK_NAME_MAX + 7];
    stpcpy(stpcpy(under, last_part(name)), "/under");
    int code = make_directory(rows, under);
    if (code == 0 || code == -EEXIST)
        code = make(rows, text, &(struct plan){.slots = slots, .numbers = numbers});
    return code == -ENOENT ? -ESTALE : code;
}

static int open_or_make_under(const char *name, const char *text, unsigned slots, const unsigned *numbers,
                              struct fk_row **row)
{
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(name, &rows);
    for (int tries = 0; code == 0 && tries < TRIES; tries++) {
        code = open_from_disk(rows, text, O_RDWR, row);
        if (code == 0 || (code == -ENOENT && !numbers))
            return code;
        if (code == -ENOENT)
            code = make_under(rows, name, text, slots, numbers);
        code = code == -EEXIST || (code == -ESTALE && faccessat(rows, last_part(name), F_OK, 0) == 0) ? 0 : code;
    }
    return code < 0 ? code : fail_tries(text);
}

int fk_row_open_under(const char *name, const char *id, unsigned slots, const unsigned *numbers, struct fk_row **out)
{
    struct under_text under;
    snprintf(under.text, sizeof under.text, "%s/under/%s", name, id);
    struct fk_row *row = fk_registry_get(under.text);
    if (row && !fk_row_is_current(row)) {
        fk_registry_retire(row);
        fk_registry_unref(row);
        row = NULL;
    }
    if (!row) {
        int code = open_or_make_under(name, under.text, slots, numbers, &row);
        if (code < 0)
            return code;
        row = fk_registry_put(row);
        if (!row)
            return fk_fail(-ENOMEM, "out of memory");
    }
    if (numbers && row->slots != slots) {
        fk_registry_unref(row);
        return fk_row_damaged(under.text, "it hasn't as many slots as the hold above it");
    }
    *out = row;
    return 0;
}

static void free_memory(struct fk_row *row)
{
    free(row->watches);
    free(row->values);
    free(row);
}

void fk_row_free(struct fk_row *row)
{
    for (unsigned slot = 0; row->watches && slot < row->slots; slot++)
        fk_fd_close(&row->watches[slot]);
    while (row->spares > 0)
        fk_fd_close(&row->spare[--row->spares]);
    fk_fd_close(&row->latch);
    fk_fd_close(&row->directory);
    free_memory(row);
}

void fk_row_unref_copy(struct fk_row *row)
{
    if (--row->references == 0)
        free_memory(row);
}

unsigned fk_row_descriptors(const struct fk_row *row)
{
    return 2u + row->spares + row->n_watches;
}

/* ---- sections ---- */

static int borrow_latch(struct fk_row *row)
{
    int fd = -1;
    fk_registry_lock();
    if (!row->latch_lent) {
        row->latch_lent = true;
        fd = row->latch;
    } else if (row->spares > 0) {
        fd = row->spare[--row->spares];
    }
    fk_registry_unlock();
    if (fd < 0)
        fd = open_latch(row->directory, row->text, O_RDWR);
    return fd == -ENOENT ? has_no_latch(row) : fd;
}

static void return_latch(struct fk_row *row, int fd)
{
    fk_registry_lock();
    if (fd == row->latch) {
        row->latch_lent = false;
        fd = -1;
    } else if (row->spares < FK_SPARE_LATCHES) {
        row->spare[row->spares++] = fd;
        fd = -1;
    }
    fk_registry_unlock();
    fk_fd_close(&fd);
}

int fk_row_enter(struct fk_row *row, int64_t until, struct fk_section *section)
{
    int fd = borrow_latch(row);
    if (fd < 0)
        return fd;
    int code = fk_latch_lock(fd, until);
    if (code < 0) {
        return_latch(row, fd);
        return code == -EAGAIN ? code : fk_row_fail(code, row->text, "lock the latch of");
    }
    atomic_load_explicit(&row->sections, memory_order_acquire);
    section->row = row;
    section->fd = fd;
    section->dirty = false;
    section->passed = NULL;
    code = fk_row_is_current(row) ? fk_latch_read(fd, &section->latch, section->record) : -ESTALE;
    if (code < 0 && code != -ESTALE)
        code = cannot_read_latch(code, row->text);
    if (code < 0)
        fk_row_leave(section);
    return code;
}

void fk_row_leave(struct fk_section *section)
{
    if (section->dirty)
        fk_latch_write(section->fd, &section->latch); /* should it fail, the next one finds out the same again */
    atomic_fetch_add_explicit(&section->row->sections, 1, memory_order_release);
    fk_latch_unlock(section->fd);
    return_latch(section->row, section->fd);
}

/* ---- remove ---- */

static int rename_away(int rows, const char *text, char temporary[64])
{
    char id[FLK_ID_SIZE];
    fk_id_make(id);
    snprintf(temporary, 64, TEMPORARY "%s", id);
    return renameat2(rows, last_part(text), rows, temporary, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

/* All its slots, in a section, at once. */
static bool delete_in_section(struct fk_section *section, int rows, bool (*may)(const struct fk_section *section, void *data),
                              void *data, char temporary[64])
{
    struct fk_row *row = section->row;
    struct fk_watch last;
    bool done = false;
    unsigned n_busy, *slots = malloc(row->slots * 2 * sizeof *slots);
    int *fds = slots ? (int *)(slots + row->slots) : NULL;
    bool empty = slots && fk_queue_last(section, &last) == 0 && last.fd < 0;
    if (slots && !empty)
        fk_queue_unwatch(&last);
    empty = empty && !section->latch.state;
    if (empty && fk_slots_take(section, row->slots, LOCK_EX, true, slots, fds, NULL, &n_busy) == 0) {
        done = (!may || may(section, data)) && rename_away(rows, row->text, temporary) == 0;
        for (unsigned i = 0; i < row->slots; i++)
            fk_slot_drop(&fds[i]);
    }
    free(slots);
    return done;
}

void fk_row_delete_if(struct fk_row *row, bool (*may)(const struct fk_section *section, void *data), void *data)
{
    struct fk_section section;
    char temporary[64];
    FK_CLOSE_FD int rows = -1;
    if (open_rows(row->text, &rows) < 0 || fk_row_enter(row, 0, &section) < 0)
        return;
    bool done = delete_in_section(&section, rows, may, data, temporary);
    fk_row_leave(&section);
    if (!done)
        return;
    fk_registry_retire(row);
    delete_tree(rows, temporary);
}

void fk_row_delete_idle(struct fk_row *row)
{
    fk_row_delete_if(row, NULL, NULL);
}

int fk_row_delete(struct fk_row *row)
{
    struct fk_section section;
    char temporary[64];
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(row->text, &rows);
    if (code == 0)
        code = fk_row_enter(row, FK_NEVER, &section);
    if (code < 0)
        return code;
    code = section.latch.state ? fk_state_keep(row->directory) : 0;
    if (code == 0)
        code = rename_away(rows, row->text, temporary);
    if (code < 0)
        code = fk_row_fail(code, row->text, "remove the row");
    fk_row_leave(&section);
    if (code == 0) {
        fk_registry_retire(row);
        delete_tree(rows, temporary);
    }
    return code;
}

/* The new row's latch, locked, so that nobody takes it for one that has nothing to clean up before it has. */
static int mark_state(int directory, bool state)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    FK_CLOSE_FD int fd = fk_fd_open(directory, "latch", O_RDWR | O_NOFOLLOW, 0);
    int code = fd < 0 ? fd : fk_latch_lock(fd, FK_NEVER);
    if (code == 0)
        code = fk_latch_read(fd, &latch, record);
    latch.state = state;
    if (code == 0)
        code = fk_latch_write(fd, &latch);
    return code < 0 ? code : fk_fd_take(&fd);
}

/* What is to be cleaned up moves along. Between the two steps the old row could be swept, which our lock prevents; if we are
 * killed there, the sweeper keeps those items, without the name. */
static int exchange(struct fk_section *section, int rows, const char *temporary, int fresh)
{
    struct fk_row *row = section->row;
    FK_CLOSE_FD int latch = mark_state(fresh, section->latch.state);
    /* Whoever made the old one may have it locked still: it appears before its maker closes it. */
    int code = latch < 0 ? latch : fk_latch_lock(row->directory, fk_now() + FK_SECOND);
    if (code == 0 && renameat2(rows, temporary, rows, row->text, RENAME_EXCHANGE) < 0)
        code = -errno;
    if (code == 0 && section->latch.state)
        code = fk_state_move(row->directory, fresh);
    return code < 0 ? fk_row_fail(code, row->text, "resize the row") : 0;
}

int fk_row_exchange(struct fk_row *row, unsigned slots)
{
    struct fk_section section;
    char temporary[64];
    FK_CLOSE_FD int rows = -1;
    int code = open_rows(row->text, &rows);
    if (code < 0)
        return code;
    sweep(rows);
    FK_CLOSE_FD int fresh = build(rows, &(struct plan){.slots = slots}, temporary);
    if (fresh < 0)
        return fk_fail_errno(fresh, "can't make %s with %u slots", row->text, slots);
    code = fk_row_enter(row, FK_NEVER, &section);
    if (code == 0) {
        code = exchange(&section, rows, temporary, fresh);
        fk_row_leave(&section);
    }
    if (code == 0)
        fk_registry_retire(row);
    delete_tree(rows, temporary); /* the old row, or what we built in vain */
    return code;
}
