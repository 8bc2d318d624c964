/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <urcu/list.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "id.h"
#include "proc.h"
#include "record.h"
#include "registry.h"
#include "removal.h"
#include "root.h"
#include "row.h"

#define FILE_MODE (0600 | S_ISVTX)
#define TRIES 100
#define SUFFIX_SIZE 3
#define TEMPORARY_SIZE (12 + FLK_ID_SIZE + SUFFIX_SIZE)
#define LATCH_PATIENCE (10 * FK_SECOND)
#define FORMAT 1
#define HEAD_SIZE 1024 /* the owner stands in it, whatever the rest */
#define LOOK_PATIENCE (100 * FK_MS) /* with one that was stopped while it looked */
#define LOOK_PAUSE (FK_MS / 5)
#define LOOK_YIELDS 3

static const char head_format[] = "state=%u\nattempts=%010u\nfailures=%010u\nretry=%020" PRIu64 "\nran=%u\n";

/* ---- the items of this process ---- */

struct own {
    struct cds_list_head node;
    char id[FLK_ID_SIZE];
    int fd; /* with LOCK_SH */
};

static CDS_LIST_HEAD(own_items);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct own *find_own(const char *id)
{
    struct own *own;
    cds_list_for_each_entry (own, &own_items, node)
        if (strcmp(own->id, id) == 0)
            return own;
    return NULL;
}

int fk_state_own_fd(const char *id)
{
    pthread_mutex_lock(&lock);
    struct own *own = find_own(id);
    int fd = own ? own->fd : -1;
    pthread_mutex_unlock(&lock);
    return fd;
}

static void keep_own(struct own *own, const char *id, int fd)
{
    strcpy(own->id, id);
    own->fd = fd;
    pthread_mutex_lock(&lock);
    cds_list_add(&own->node, &own_items);
    pthread_mutex_unlock(&lock);
    fk_registry_users(1);
}

/* After the file has gone: nobody may take it for one whose owner has died. */
void fk_state_forget(const char *id)
{
    pthread_mutex_lock(&lock);
    struct own *own = find_own(id);
    if (own)
        cds_list_del(&own->node);
    pthread_mutex_unlock(&lock);
    if (!own)
        return;
    fk_fd_close(&own->fd);
    fk_registry_users(-1);
    free(own);
}

void fk_state_after_fork_child(void)
{
    struct own *own, *next;
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    cds_list_for_each_entry_safe (own, next, &own_items, node)
        free(own);
    CDS_INIT_LIST_HEAD(&own_items);
}

/* ---- write ---- */

static void put_escaped(FILE *out, const char *key, const char *value)
{
    fprintf(out, "%s=", key);
    for (; *value; value++) {
        unsigned char byte = (unsigned char)*value;
        if (byte >= 0x20 && byte < 0x7f && byte != '\\')
            putc(byte, out);
        else
            fprintf(out, "\\x%02x", byte);
    }
    putc('\n', out);
}

static void put_head(FILE *out, const struct fk_item *item)
{
    fprintf(out, head_format, FORMAT, item->attempts, item->failures, (uint64_t)item->retry_ns, item->ran ? 1u : 0u);
}

static void put_item(FILE *out, const struct fk_item *item)
{
    char owner[FK_OWNER_TEXT_SIZE];
    put_head(out, item);
    fk_owner_format(&item->owner, '\n', owner);
    fprintf(out, "id=%s\n%s\nheld=%u\nsince=%" PRIi64 "\nlimit=%" PRIi64 "\n", item->id, owner, item->held ? 1u : 0u,
            item->since_ns, item->limit_ms);
    if (item->name)
        put_escaped(out, "name", item->name);
    if (item->label)
        put_escaped(out, "label", item->label);
    for (const char **path = item->paths; *path; path++)
        put_escaped(out, "path", *path);
    if (item->command) {
        put_escaped(out, "command", item->command);
        put_escaped(out, "dir", item->dir);
        for (const char **assignment = item->env; *assignment; assignment++)
            put_escaped(out, "env", *assignment);
    }
    fputs("end\n", out);
}

static int make_text(const struct fk_item *item, char **text, size_t *size)
{
    *text = NULL;
    FILE *out = open_memstream(text, size);
    if (out)
        put_item(out, item);
    if (out && fclose(out) == 0)
        return 0;
    free(*text);
    return fk_fail(-ENOMEM, "out of memory");
}

int fk_item_update(int fd, const struct fk_item *item)
{
    char head[160];
    int length = snprintf(head, sizeof head, head_format, FORMAT, item->attempts, item->failures,
                          (uint64_t)item->retry_ns, item->ran ? 1u : 0u);
    return fk_fd_write_at(fd, head, (size_t)length, 0);
}

/* ---- read ---- */

static int read_text(int fd, bool whole, char **text, size_t *length)
{
    struct stat status = {.st_size = HEAD_SIZE};
    if (whole && fstat(fd, &status) < 0)
        return -errno;
    size_t size = (size_t)status.st_size;
    char *memory = malloc(size + 1);
    ssize_t got = memory ? pread(fd, memory, size, 0) : -1;
    if (got < 0) {
        int code = memory ? -errno : -ENOMEM;
        free(memory);
        return code;
    }
    memory[got] = '\0';
    *text = memory;
    *length = (size_t)got;
    return 0;
}

static bool begins(const char *line, const char *key)
{
    return strncmp(line, key, strlen(key)) == 0;
}

/* Values get shorter by it, so they stay where they are. */
static const char *unescape(char *line, size_t key_length)
{
    char *value = line + key_length;
    fk_record_unescape(value, strlen(value) + 1, value, strlen(value));
    return value;
}

/* path= and env= are counted first, and then listed. */
struct lists {
    size_t n_paths, n_env;
};

static void take_line(struct fk_item *item, struct lists *lists, char *line)
{
    if (fk_owner_read_line(&item->owner, line, strlen(line)))
        return;
    if (begins(line, "attempts="))
        item->attempts = (unsigned)strtoul(line + 9, NULL, 10);
    else if (begins(line, "failures="))
        item->failures = (unsigned)strtoul(line + 9, NULL, 10);
    else if (begins(line, "retry="))
        item->retry_ns = strtoll(line + 6, NULL, 10);
    else if (begins(line, "ran="))
        item->ran = line[4] == '1';
    else if (begins(line, "held="))
        item->held = line[5] == '1';
    else if (begins(line, "since="))
        item->since_ns = strtoll(line + 6, NULL, 10);
    else if (begins(line, "limit="))
        item->limit_ms = strtoll(line + 6, NULL, 10);
    else if (begins(line, "id="))
        item->id = unescape(line, 3);
    else if (begins(line, "name="))
        item->name = unescape(line, 5);
    else if (begins(line, "label="))
        item->label = unescape(line, 6);
    else if (begins(line, "command="))
        item->command = unescape(line, 8);
    else if (begins(line, "dir="))
        item->dir = unescape(line, 4);
    else if (begins(line, "path="))
        item->paths[lists->n_paths++] = unescape(line, 5);
    else if (begins(line, "env="))
        item->env[lists->n_env++] = unescape(line, 4);
}

static size_t count_lines(const char *text, const char *key)
{
    size_t count = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        count += begins(line, key);
    }
    return count;
}

static int make_lists(struct fk_item *item, const char *text)
{
    size_t n_paths = count_lines(text, "path="), n_env = count_lines(text, "env=");
    item->paths = calloc(n_paths + n_env + 2, sizeof *item->paths);
    if (!item->paths)
        return -ENOMEM;
    item->env = item->paths + n_paths + 1;
    return 0;
}

/* The last line of a text that isn't whole may be cut, and is left out. */
static int parse(struct fk_item *item, char *text, size_t length, bool whole)
{
    struct lists lists = {0, 0};
    char *end = text + length;
    if (memchr(text, '\0', length) || !begins(text, "state=") || !memchr(text, '\n', length))
        return -EBADMSG;
    if (strtoul(text + 6, NULL, 10) != FORMAT)
        return -EPROTONOSUPPORT;
    if (whole && (length < 5 || strcmp(end - 5, "\nend\n") != 0))
        return -EBADMSG;
    int code = make_lists(item, text);
    for (char *stop, *line = text; code == 0 && (stop = memchr(line, '\n', (size_t)(end - line))); line = stop + 1) {
        *stop = '\0';
        take_line(item, &lists, line);
    }
    bool known = item->owner.pid > 0 && strlen(item->owner.boot_id) == FK_BOOT_ID_SIZE - 1; /* another one proves death */
    if (code == 0 && (!item->id || !known || (item->command && !item->dir && whole)))
        code = -EBADMSG;
    return code;
}

int fk_item_read(int fd, bool whole, struct fk_item *item)
{
    size_t length = 0;
    *item = (struct fk_item){0};
    int code = read_text(fd, whole, &item->memory, &length);
    if (code == 0)
        code = parse(item, item->memory, length, whole);
    if (code < 0)
        fk_item_clear(item);
    return code;
}

void fk_item_clear(struct fk_item *item)
{
    free(item->memory);
    free(item->paths);
    *item = (struct fk_item){0}; /* all else points into what is gone */
}

int fk_item_complain(const char *name, const char *id, int code)
{
    const char *root;
    if (fk_root_path(&root) < 0)
        root = "";
    const char *above = name ? "/rows/" : "", *row = name ? name : "";
    if (code == -EPROTONOSUPPORT)
        return fk_fail(code, "%s%s%s/state/%s was registered by a newer release of flockctl; it is left to that one", root,
                       above, row, id);
    if (code == -EBADMSG)
        return fk_fail(code,
                       "%s%s%s/state/%s is damaged (cut short?), so it is left alone; what it was for is yours to find out, "
                       "then: flockctl state drop %s",
                       root, above, row, id, id);
    return fk_fail_errno(code, "can't read %s%s%s/state/%s", root, above, row, id);
}

/* False: somebody doesn't go on. It is done without, then, and what that one has shows. */
static bool begin_look(int fd)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int64_t until = fk_now() + LOOK_PATIENCE;
    bool mine;
    for (int tries = 0; !(mine = fcntl(fd, F_OFD_SETLK, &all) == 0) && errno == EAGAIN && fk_now() < until; tries++) {
        if (tries < LOOK_YIELDS)
            sched_yield();
        else
            fk_poll_until(NULL, 0, fk_now() + LOOK_PAUSE);
    }
    return mine;
}

static void end_look(int fd)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(fd, F_OFD_SETLK, &all);
}

/* With LOCK_SH no reaper is in the way, so who keeps it from becoming LOCK_EX is an owner. A reaper may have ended since the first try. */
enum fk_grip fk_item_grip(int fd, bool keep)
{
    bool looking = begin_look(fd);
    enum fk_grip grip = flock(fd, LOCK_EX | LOCK_NB) == 0   ? FK_GRIP_OURS
                        : flock(fd, LOCK_SH | LOCK_NB) < 0  ? FK_GRIP_REAPERS
                        : flock(fd, LOCK_EX | LOCK_NB) == 0 ? FK_GRIP_OURS
                                                            : FK_GRIP_OWNERS;
    if (grip == FK_GRIP_OWNERS || (grip == FK_GRIP_OURS && !keep))
        flock(fd, LOCK_UN);
    if (looking)
        end_look(fd);
    return grip;
}

bool fk_item_is_gone(int fd)
{
    struct stat status;
    return fstat(fd, &status) < 0 || status.st_nlink == 0;
}

enum fk_life fk_item_judge(const struct fk_item *item, bool locked, int patience_ms, const char **reason)
{
    const struct fk_owner *self;
    if (locked) {
        *reason = "it holds its lock";
        return FK_ALIVE;
    }
    enum fk_life life = fk_owner_judge(&item->owner, patience_ms, reason);
    if (life != FK_DEAD && item->held && fk_owner_self(&self) == 0 && item->owner.pid_ns != self->pid_ns) {
        *reason = "it has let go of its lock, in another pid namespace";
        return FK_DEAD;
    }
    return life;
}

/* ---- register ---- */

static int check_spec(const struct flk_state_spec *spec)
{
    uint64_t reserved = spec->flags;
    for (size_t i = 0; i < sizeof spec->reserved / sizeof *spec->reserved; i++)
        reserved |= spec->reserved[i];
    if (reserved)
        return fk_fail(-EINVAL, "a state's specification has fields that this release doesn't know; a newer library is "
                                "needed");
    if (!spec->command && !(spec->paths && spec->paths[0]))
        return fk_fail(-EINVAL, "nothing is to be undone; give a path or a command");
    if (spec->command && !*spec->command)
        return fk_fail(-EINVAL, "the command is empty; leave it out");
    if (spec->command_limit_ms < 0)
        return fk_fail(-EINVAL, "a cleanup needs a limit, since others wait for it; give one above 0");
    return spec->name ? fk_row_check_name(spec->name) : 0;
}

static size_t count_strings(const char *const *strings)
{
    size_t count = 0;
    while (strings && strings[count])
        count++;
    return count;
}

static void free_strings(const char **strings)
{
    for (size_t i = 0; strings && strings[i]; i++)
        free((char *)strings[i]);
    free(strings);
}

/* Relative ones are below this process's directory. */
static int settle_path(const char *path, char **settled)
{
    char absolute[PATH_MAX], real[PATH_MAX];
    size_t used = 0;
    if (path[0] != '/') {
        if (!getcwd(absolute, sizeof absolute))
            return fk_fail_errno(-errno, "can't tell the working directory, which \"%.200s\" is below", path);
        used = strlen(absolute);
        absolute[used++] = '/';
    }
    if (!*path || used + strlen(path) >= sizeof absolute)
        return fk_fail(*path ? -ENAMETOOLONG : -EINVAL, *path ? "the path %.60s... is too long" : "a path is empty%s", path);
    strcpy(absolute + used, path);
    int code = fk_removal_check(absolute, real);
    if (code < 0)
        return code;
    *settled = strdup(real);
    return *settled ? 0 : fk_fail(-ENOMEM, "out of memory");
}

static int settle_paths(const struct flk_state_spec *spec, const char ***paths)
{
    size_t count = count_strings(spec->paths);
    int code = 0;
    char **list = calloc(count + 1, sizeof *list);
    if (!list)
        return fk_fail(-ENOMEM, "out of memory");
    for (size_t i = 0; code == 0 && i < count; i++)
        code = settle_path(spec->paths[i], &list[i]);
    *paths = (const char **)list;
    return code;
}

static int find_directory(const struct flk_state_spec *spec, char dir[PATH_MAX])
{
    if (!spec->command)
        return 0;
    if (spec->dir && realpath(spec->dir, dir))
        return 0;
    if (spec->dir)
        return fk_fail_errno(-errno, "can't use the directory %s for the command", spec->dir);
    return getcwd(dir, PATH_MAX) ? 0 : fk_fail_errno(-errno, "can't tell the working directory, which the command is for");
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * FK_SECOND + now.tv_nsec;
}

static int make_directory(int parent, const char *name)
{
    if (mkdirat(parent, name, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    return fchmodat(parent, name, 0700, 0) < 0 ? -errno : 0;
}

/* A new empty file, locked, in a directory state below parent that is made where it isn't there. -EAGAIN: somebody who
 * looked for left-overs was quicker than our lock, or removed the directory. */
static int make_file(int parent, const char *temporary)
{
    struct stat status;
    int code = make_directory(parent, "state");
    if (code < 0)
        return code == -ENOENT ? -ESTALE : code;
    FK_CLOSE_FD int fd = fk_fd_open(parent, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return fd == -ENOENT ? -EAGAIN : fd;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 || fstat(fd, &status) < 0 || status.st_nlink == 0)
        return -EAGAIN;
    return fchmod(fd, FILE_MODE) < 0 ? -errno : fk_fd_take(&fd);
}

/* Its descriptor, locked. Each try has a name of its own, since who was quicker may be about to unlink the last one's. */
static int write_file(int parent, char temporary[TEMPORARY_SIZE], const char *text, size_t size)
{
    FK_CLOSE_FD int fd = -EAGAIN;
    char *suffix = temporary + strlen(temporary);
    for (unsigned tries = 0; fd == -EAGAIN && tries < TRIES; tries++) {
        snprintf(suffix, SUFFIX_SIZE, "%02u", tries);
        fd = make_file(parent, temporary);
    }
    if (fd < 0)
        return fd;
    int code = fk_fd_write_at(fd, text, size, 0);
    if (code < 0) {
        unlinkat(parent, temporary, 0);
        return code;
    }
    return fk_fd_take(&fd);
}

/* The moment from which on it counts. */
static int publish(int parent, const char *temporary, const char *id)
{
    char final[8 + FLK_ID_SIZE];
    snprintf(final, sizeof final, "state/%s", id);
    if (renameat2(parent, temporary, parent, final, RENAME_NOREPLACE) == 0)
        return 0;
    int code = -errno;
    unlinkat(parent, temporary, 0);
    return code;
}

static int publish_in_row(struct fk_row *row, const char *temporary, const char *id)
{
    struct fk_section section;
    int code = fk_row_enter(row, fk_now() + LATCH_PATIENCE, &section);
    if (code < 0) {
        unlinkat(row->directory, temporary, 0);
        return code == -EAGAIN ? fk_fail(-ETIMEDOUT,
                                         "the latch of %s is held by a process that doesn't go on (stopped?); continue "
                                         "or end it",
                                         row->text)
                               : code;
    }
    if (!section.latch.state) {
        section.latch.state = true;
        code = fk_latch_write(section.fd, &section.latch);
    }
    if (code == 0)
        code = publish(row->directory, temporary, id);
    else
        unlinkat(row->directory, temporary, 0);
    fk_row_leave(&section);
    return code;
}

static int add_to_row(struct fk_row *row, char temporary[TEMPORARY_SIZE], const struct fk_item *item, const char *text, size_t size)
{
    FK_CLOSE_FD int fd = write_file(row->directory, temporary, text, size);
    if (fd < 0)
        return fd;
    int code = publish_in_row(row, temporary, item->id);
    return code < 0 ? code : fk_fd_take(&fd);
}

static int add_with_name(char temporary[TEMPORARY_SIZE], const struct fk_item *item, const char *text, size_t size)
{
    int fd = -ESTALE;
    for (int tries = 0; fd == -ESTALE && tries < TRIES; tries++) {
        struct fk_row *row;
        int code = fk_row_open(item->name, 0, FK_ROW_MAKE, &row);
        if (code < 0)
            return code;
        snprintf(temporary, TEMPORARY_SIZE, "state/.tmp.%s", item->id);
        fd = add_to_row(row, temporary, item, text, size);
        if (fd == -ESTALE)
            fk_registry_retire(row);
        fk_registry_unref(row);
    }
    return fd;
}

static int open_root(void)
{
    const char *root;
    int code = fk_root_path(&root);
    return code < 0 ? code : fk_fd_open(AT_FDCWD, root, O_RDONLY | O_DIRECTORY, 0);
}

static int add_without_name(char temporary[TEMPORARY_SIZE], const struct fk_item *item, const char *text, size_t size)
{
    FK_CLOSE_FD int root = open_root();
    if (root < 0)
        return root;
    FK_CLOSE_FD int fd = write_file(root, temporary, text, size);
    int code = fd < 0 ? fd : publish(root, temporary, item->id);
    return code < 0 ? code : fk_fd_take(&fd);
}

static int add_item(const struct fk_item *item)
{
    char temporary[TEMPORARY_SIZE], *text;
    size_t size;
    int code = make_text(item, &text, &size);
    if (code < 0)
        return code;
    snprintf(temporary, sizeof temporary, "state/.tmp.%s", item->id);
    int fd = (item->name ? add_with_name : add_without_name)(temporary, item, text, size);
    free(text);
    if (fd >= 0 || fd == -ETIMEDOUT || fd == -EBADMSG)
        return fd;
    return fk_fail_errno(fd, "can't register what is to be cleaned up%s%s", item->name ? " for " : "",
                         item->name ? item->name : "");
}

static int add(const struct flk_state_spec *spec, const struct fk_owner *owner, bool held, char id[FLK_ID_SIZE])
{
    char dir[PATH_MAX];
    struct own *own = NULL;
    struct fk_item item = {.owner = *owner, .held = held, .id = id, .name = spec->name, .label = spec->label};
    item.limit_ms = spec->command_limit_ms ? spec->command_limit_ms : FK_STATE_LIMIT_MS;
    item.since_ns = now_ns();
    item.command = spec->command;
    item.dir = dir;
    item.env = spec->envp ? (const char **)spec->envp : (const char **)environ;
    int code = find_directory(spec, dir);
    if (code == 0)
        code = settle_paths(spec, &item.paths);
    if (code == 0 && held && !(own = malloc(sizeof *own)))
        code = fk_fail(-ENOMEM, "out of memory");
    FK_CLOSE_FD int fd = code < 0 ? -1 : add_item(&item);
    if (code == 0 && fd < 0)
        code = fd;
    if (code == 0 && held)
        keep_own(own, id, fk_fd_take(&fd));
    else
        free(own);
    free_strings(item.paths);
    return code;
}

int fk_state_add(const struct flk_state_spec *spec, const struct fk_owner *owner, char id[FLK_ID_SIZE])
{
    const struct fk_owner *self;
    char fresh[FLK_ID_SIZE];
    int code = check_spec(spec);
    if (code == 0)
        code = fk_owner_self(&self);
    if (code < 0)
        return code;
    fk_id_make(fresh);
    code = add(spec, owner ? owner : self, !owner, fresh);
    if (code == 0)
        strcpy(id, fresh);
    return code;
}

int flk_state_add(const struct flk_state_spec *spec, char id[FLK_ID_SIZE])
{
    struct fk_owner owner;
    FK_ENTER();
    if (spec->owner == 0)
        return fk_state_add(spec, NULL, id);
    int code = fk_owner_of(spec->owner, &owner);
    return code < 0 ? code : fk_state_add(spec, &owner, id);
}

/* ---- the flockctl around us ---- */

static bool is_above(pid_t pid)
{
    struct fk_proc_stat stat;
    for (pid_t at = getppid(); at > 0; at = stat.parent) {
        if (at == pid)
            return true;
        if (fk_proc_stat(at, &stat) < 0)
            return false;
    }
    return false;
}

int fk_state_owner_around(const char *variable, struct fk_owner *owner, const char **name)
{
    const struct fk_owner *self;
    const char *reason, *at = variable ? strrchr(variable, '@') : NULL;
    char word[FK_OWNER_TEXT_SIZE];
    if (!variable || !*variable)
        return -ENOENT;
    if (!at || (size_t)(at - variable) >= sizeof word)
        return -EINVAL;
    snprintf(word, sizeof word, "%.*s", (int)(at - variable), variable);
    int code = fk_owner_parse(word, owner);
    if (code == 0)
        code = fk_owner_self(&self);
    if (code < 0)
        return code;
    /* From a pid namespace of our own it can't be seen. */
    bool seen = owner->pid_ns == self->pid_ns;
    if (fk_owner_judge(owner, 0, &reason) == FK_DEAD || (seen && fk_proc_is_ours() && !is_above(owner->pid)))
        return -ESRCH;
    *name = at + 1;
    return 0;
}

/* ---- go through all ---- */

int fk_state_walk_begin(struct fk_state_walk *walk, const char *only)
{
    *walk = (struct fk_state_walk){.only = only, .directory = -1};
    int code = only && *only ? fk_row_check_name(only) : 0;
    if (code < 0)
        return code;
    FK_CLOSE_FD int root = open_root();
    if (root < 0)
        return root;
    code = only ? 0 : fk_fd_open_directory(root, "rows", &walk->rows);
    return code == -ENOENT ? 0 : code < 0 ? fk_fail_errno(code, "can't look at the names") : 0;
}

static void close_items(struct fk_state_walk *walk)
{
    if (walk->items)
        fk_fd_close_directory(walk->items);
    walk->items = NULL;
}

/* The directory of a name's items, NULL: of those without. 0: it has none. */
static int open_items(struct fk_state_walk *walk, const char *name)
{
    const char *root;
    char below[8 + FLK_NAME_MAX + 8];
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    snprintf(below, sizeof below, "%s%s/state", name ? "/rows/" : "", name ? name : "");
    const char *path = FK_ROOT_BELOW(root, below);
    code = fk_fd_open_directory(AT_FDCWD, path, &walk->items);
    if (code < 0)
        return code == -ENOENT ? 0 : fk_fail_errno(code, "can't look at %s", path);
    walk->directory = dirfd(walk->items);
    walk->name = name;
    return 1;
}

int fk_state_walk_directory(struct fk_state_walk *walk)
{
    int code = 0;
    close_items(walk);
    if (walk->step++ == 0)
        code = open_items(walk, walk->only && *walk->only ? walk->only : NULL);
    while (code == 0 && walk->rows) {
        struct dirent *entry = readdir(walk->rows);
        if (!entry)
            return 0;
        if (entry->d_name[0] == '.' || strlen(entry->d_name) > FLK_NAME_MAX)
            continue;
        strcpy(walk->row, entry->d_name);
        code = open_items(walk, walk->row);
    }
    return code;
}

const char *fk_state_walk_entry(struct fk_state_walk *walk)
{
    struct dirent *entry;
    while ((entry = readdir(walk->items))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strlen(name) < 6 + FLK_ID_SIZE + SUFFIX_SIZE)
            return name;
    }
    return NULL;
}

bool fk_state_sweep(int directory, const char *entry, bool dry)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, entry, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return false;
    return dry || unlinkat(directory, entry, 0) == 0;
}

void fk_state_walk_end(struct fk_state_walk *walk)
{
    close_items(walk);
    if (walk->rows)
        fk_fd_close_directory(walk->rows);
    walk->rows = NULL;
}

/* ---- list ---- */

/* To be looked at alone, which takes write access; on a read-only file system nobody registers or cleans up. */
static int open_item(int directory, const char *id)
{
    int fd = fk_fd_open(directory, id, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    return fd == -EROFS ? fk_fd_open(directory, id, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0) : fd;
}

static int show_item(const struct fk_state_walk *walk, const char *id,
                     int (*each)(const struct flk_state *state, void *data), void *data)
{
    struct fk_item item;
    struct flk_state state = {.id = id, .name = walk->name, .label = "", .command = "", .alive = 1};
    static const char *const none[] = {NULL};
    state.paths = none;
    FK_CLOSE_FD int fd = open_item(walk->directory, id);
    if (fd == -ENOENT)
        return 0;
    int code = fd < 0 ? fd : fk_item_read(fd, true, &item);
    if (code < 0) {
        fk_item_complain(walk->name, id, code);
        state.problem = flk_error_detail();
        state.reason = "its owner isn't known";
        return each(&state, data);
    }
    enum fk_grip grip = fk_state_own_fd(id) >= 0 ? FK_GRIP_OWNERS : fk_item_grip(fd, false);
    state.alive = fk_item_judge(&item, grip == FK_GRIP_OWNERS, 0, &state.reason) != FK_DEAD;
    state.cleaning = grip == FK_GRIP_REAPERS;
    if (fk_item_is_gone(fd)) { /* and its owner may have ended since */
        fk_item_clear(&item);
        return 0;
    }
    state.name = item.name;
    state.label = item.label ? item.label : "";
    state.command = item.command ? item.command : "";
    state.paths = item.paths;
    state.owner = item.owner.pid;
    state.attempts = item.attempts;
    state.failures = item.failures;
    state.since_ms = item.since_ns / FK_MS;
    state.retry_ms = item.retry_ns / FK_MS;
    code = each(&state, data);
    fk_item_clear(&item);
    return code;
}

int flk_state_list(const char *name, int (*each)(const struct flk_state *state, void *data), void *data)
{
    struct fk_state_walk walk;
    FK_ENTER();
    int code = fk_state_walk_begin(&walk, name);
    while (code == 0 && (code = fk_state_walk_directory(&walk)) > 0) {
        code = 0;
        for (const char *id; code == 0 && (id = fk_state_walk_entry(&walk));)
            code = id[0] == '.' ? 0 : show_item(&walk, id, each, data);
    }
    fk_state_walk_end(&walk);
    return code;
}

/* ---- drop ---- */

static int check_id(const char *id)
{
    size_t length = strlen(id);
    if (length >= 2 && length < FLK_ID_SIZE && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == length)
        return 0;
    return fk_fail(-EINVAL, "\"%.40s\" is not an id; give one that flockctl state add has printed", id);
}

/* 1: it was there. */
int fk_state_unlink(const char *id)
{
    struct fk_state_walk walk;
    bool done = false;
    int code = fk_state_walk_begin(&walk, NULL);
    while (code == 0 && !done && (code = fk_state_walk_directory(&walk)) > 0) {
        done = unlinkat(walk.directory, id, 0) == 0;
        code = done || errno == ENOENT ? 0 : fk_fail_errno(-errno, "can't drop %s", id);
        if (done && walk.name)
            fk_state_tidy(walk.name);
    }
    fk_state_walk_end(&walk);
    return code < 0 ? code : done;
}

int flk_state_drop(const char *id)
{
    FK_ENTER();
    int code = check_id(id);
    if (code == 0)
        code = fk_state_unlink(id);
    if (code > 0)
        fk_state_forget(id);
    else if (code == 0)
        code = fk_fail(-ENOENT, "there is no state %s; it has been dropped or cleaned up", id);
    return code < 0 ? code : 0;
}

/* ---- rows ---- */

static int move_all(DIR *from, int to)
{
    int code = 0;
    for (struct dirent *entry; (entry = readdir(from));)
        if (entry->d_name[0] != '.' && renameat(dirfd(from), entry->d_name, to, entry->d_name) < 0 && errno != ENOENT)
            code = -errno;
    return code;
}

int fk_state_move(int from, int to)
{
    DIR *items;
    int code = fk_fd_open_directory(from, "state", &items);
    if (code < 0)
        return code == -ENOENT ? 0 : code;
    code = make_directory(to, "state");
    FK_CLOSE_FD int directory = code < 0 ? code : fk_fd_open(to, "state", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    code = directory < 0 ? directory : move_all(items, directory);
    fk_fd_close_directory(items);
    return code;
}

int fk_state_keep(int directory)
{
    FK_CLOSE_FD int root = open_root();
    return root < 0 ? root : fk_state_move(directory, root);
}

bool fk_state_is_marked(const struct fk_row *row)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    return fk_latch_read(row->latch, &latch, record) == 0 && latch.state;
}

bool fk_state_has_nameless(void)
{
    char path[PATH_MAX];
    if (!fk_root_peek(path))
        return false;
    strcat(path, "/state");
    return access(path, F_OK) == 0;
}

void fk_state_tidy(const char *name)
{
    struct fk_section section;
    struct fk_row *row;
    struct fk_detail detail;
    fk_error_save(&detail);
    if (fk_row_open(name, 0, FK_ROW_LOOK, &row) == 0) {
        if (fk_row_enter(row, 0, &section) == 0) {
            bool gone = unlinkat(row->directory, "state", AT_REMOVEDIR) == 0 || errno == ENOENT;
            section.dirty |= gone && section.latch.state;
            section.latch.state &= !gone;
            fk_row_leave(&section);
        }
        fk_registry_unref(row);
    }
    fk_error_restore(&detail);
}
