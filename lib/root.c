/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "log.h"
#include "registry.h"

#define CANDIDATES 5
#define WARNING_SIZE (PATH_MAX + 512)
#define ROOM_BELOW 300 /* bytes that our own names may add to the directory's */

struct candidate {
    const char *source;
    char path[PATH_MAX]; /* "" when it can't be told */
    bool usable, named; /* named: by the user, who knows what he does */
    bool odd; /* passed over for a reason that the user should hear */
    char why[256];
};

/* The choice is made without any lock, since the directory may be on a slow disk; the first of several threads that have made
 * one is believed. What the variables point to is never freed, so a thread may go on with it, and a forked child finds it whole. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows, for writing */
static const char *_Atomic asked_for; /* by flk_root_set(); NULL: nothing */
static const char *_Atomic chosen;    /* NULL: not yet */
static const char *_Atomic warning;   /* NULL: none */
static _Atomic bool chosen_by_name;

/* Texts that are kept, each once, so that a host that sets the same directories again and again doesn't grow. */
struct kept {
    struct kept *next;
    char text[];
};
static struct kept *_Atomic all_kept;

/* Under the mutex. NULL: out of memory. */
static const char *keep(const char *text)
{
    for (struct kept *kept = all_kept; kept; kept = kept->next)
        if (strcmp(kept->text, text) == 0)
            return kept->text;
    struct kept *fresh = malloc(sizeof *fresh + strlen(text) + 1);
    if (!fresh)
        return NULL;
    strcpy(fresh->text, text);
    fresh->next = all_kept;
    all_kept = fresh;
    return fresh->text;
}

__attribute__((format(printf, 2, 3))) static void because(struct candidate *candidate, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(candidate->why, sizeof candidate->why, format, arguments);
    va_end(arguments);
}

static void consider_named(struct candidate *candidate, const char *source, const char *path)
{
    candidate->source = source;
    candidate->named = true;
    if (!path || !*path) {
        because(candidate, "not set");
        return;
    }
    candidate->usable = true;
    because(candidate, "named by the user");
    snprintf(candidate->path, sizeof candidate->path, "%s", path);
}

/* path is that of a directory for flockctl in parent, a runtime directory that must be ours. */
static void consider_runtime(struct candidate *candidate, const char *source, const char *parent)
{
    struct stat status;
    candidate->source = source;
    if (!parent || !*parent) {
        because(candidate, "not set");
        return;
    }
    snprintf(candidate->path, sizeof candidate->path, "%s/flockctl", parent);
    if (parent[0] != '/') {
        candidate->odd = true;
        because(candidate, "%s isn't an absolute path", parent);
    } else if (stat(parent, &status) < 0) {
        because(candidate, "%s: %s", parent, strerrordesc_np(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        candidate->odd = true;
        because(candidate, "%s isn't a directory", parent);
    } else if (status.st_uid != geteuid()) {
        candidate->odd = true;
        because(candidate, "%s belongs to uid %u, not to us (uid %u)", parent, status.st_uid, geteuid());
    } else {
        candidate->usable = true;
        because(candidate, "%s is ours", parent);
    }
}

static void consider_last(struct candidate *candidate)
{
    candidate->usable = true;
    if (geteuid() == 0) {
        candidate->source = "root's directory";
        snprintf(candidate->path, sizeof candidate->path, "/run/flockctl");
        because(candidate, "we are root");
        return;
    }
    candidate->source = "last resort";
    snprintf(candidate->path, sizeof candidate->path, "/tmp/flockctl-%u", geteuid());
    because(candidate, "there is no runtime directory of ours");
}

static void list_candidates(struct candidate candidates[CANDIDATES], const char *asked)
{
    char parent[64];
    memset(candidates, 0, CANDIDATES * sizeof *candidates);
    consider_named(&candidates[0], "--dir", asked);
    consider_named(&candidates[1], "FLOCKCTL_DIR", getenv("FLOCKCTL_DIR"));
    consider_runtime(&candidates[2], "XDG_RUNTIME_DIR", getenv("XDG_RUNTIME_DIR"));
    snprintf(parent, sizeof parent, "/run/user/%u", geteuid());
    consider_runtime(&candidates[3], "runtime directory", parent);
    consider_last(&candidates[4]);
}

static unsigned first_usable(const struct candidate candidates[CANDIDATES])
{
    unsigned i = 0;
    while (!candidates[i].usable)
        i++;
    return i;
}

static int make_absolute(const char *path, char out[PATH_MAX])
{
    char here[PATH_MAX] = "";
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return fk_fail_errno(-errno, "the lock directory %s can't be found: the working directory has no path", path);
    size_t before = strlen(here), length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (before + 1 + length + ROOM_BELOW >= PATH_MAX)
        return fk_fail(
            -ENAMETOOLONG,
            "the path of the lock directory %.60s... is too long; choose a shorter one with FLOCKCTL_DIR or --dir",
            path);
    memcpy(out, here, before);
    out[before] = '/';
    before += path[0] != '/';
    memcpy(out + before, path, length);
    out[before + length] = '\0';
    return 0;
}

/* Of a directory that isn't for locks alone (a home, /tmp) the mode is nobody's to change for our sake. */
static int refuse_mode(const char *path, mode_t mode, const char *so_that)
{
    const char *slash = strrchr(path, '/');
    bool ours = strncmp(slash ? slash + 1 : path, "flockctl", strlen("flockctl")) == 0;
    return fk_fail(-EPERM,
                   "the lock directory %s has mode %04o, so that %s; choose another directory (--dir or "
                   "FLOCKCTL_DIR)%s%s",
                   path, mode & 07777, so_that, ours ? ", or, if it is for locks alone: chmod 700 " : "",
                   ours ? path : "");
}

int fk_root_check(const char *path, const struct fk_root_policy *policy)
{
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd == -ELOOP || fd == -ENOTDIR) {
        struct stat status;
        bool link = lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
        return fk_fail(
            -EPERM, "the lock directory %s is %s, which isn't safe; choose another directory (--dir or FLOCKCTL_DIR)",
            path, link ? "a symbolic link" : "not a directory");
    }
    if (fd < 0)
        return fk_fail_errno(fd, "can't open the lock directory %s", path);
    struct stat status;
    if (fstat(fd, &status) < 0)
        return fk_fail_errno(-errno, "can't look at the lock directory %s", path);
    if (status.st_uid != policy->owner)
        return fk_fail(-EPERM,
                       "the lock directory %s belongs to uid %u, not to us (uid %u); choose another one with "
                       "FLOCKCTL_DIR or --dir",
                       path, status.st_uid, policy->owner);
    if (status.st_mode & policy->forbidden)
        return refuse_mode(path, status.st_mode, "others can get in");
    if ((status.st_mode & 0700) != 0700)
        return refuse_mode(path, status.st_mode, "we can't use it");
    return fk_fd_take(&fd);
}

/* chmod, because the caller's umask is none of our business and may take any bit away. 1: made, 0: was there. */
static int make_directory(const char *path)
{
    int code = mkdir(path, 0700) < 0 ? -errno : 0;
    if (code == -ENOENT)
        return fk_fail(code,
                       "can't make the lock directory %s: the directory above it isn't there; make that first, or "
                       "choose another one with FLOCKCTL_DIR or --dir",
                       path);
    if (code < 0)
        return code == -EEXIST ? 0 : fk_fail_errno(code, "can't make the lock directory %s", path);
    if (chmod(path, 0700) < 0)
        return fk_fail_errno(-errno, "can't set the mode of %s", path);
    return 1;
}

#define LOG_MARK "log\n" /* a line in `version` */

static int check_version(int directory, const char *path, bool *log_marked)
{
    char text[16] = "";
    FK_CLOSE_FD int fd = fk_fd_open(directory, "version", O_RDWR | O_CREAT | O_NOFOLLOW, 0600 | S_ISVTX);
    if (fd < 0)
        return fk_fail_errno(fd, "can't open %s/version", path);
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    if (length < 0)
        return fk_fail_errno(-errno, "can't read %s/version", path);
    if (length == 0) { /* new, or its maker died */
        length = snprintf(text, sizeof text, "%d\n", FK_PROTOCOL);
        if (fchmod(fd, 0600 | S_ISVTX) < 0 || pwrite(fd, text, (size_t)length, 0) != length)
            return fk_fail_errno(errno ? -errno : -ENOSPC, "can't write %s/version", path);
    }
    if (atoi(text) != FK_PROTOCOL)
        return fk_fail(-EPROTONOSUPPORT,
                       "%s is written by another release of flockctl (protocol %.*s, ours is %d); use one release, or "
                       "another directory with FLOCKCTL_DIR or --dir",
                       path, (int)strcspn(text, "\n"), text, FK_PROTOCOL);
    *log_marked = strstr(text, "\n" LOG_MARK) != NULL;
    return 0;
}

/* 1: made it, 0: it was there. */
static int prepare(const char *path, bool *log_marked)
{
    const struct fk_root_policy ours = {.owner = geteuid(), .forbidden = 077};
    int made = access(path, F_OK) < 0 && errno == ENOENT ? make_directory(path) : 0;
    if (made < 0)
        return made;
    FK_CLOSE_FD int directory = fk_root_check(path, &ours);
    if (directory < 0)
        return directory;
    int code = check_version(directory, path, log_marked);
    return code < 0 ? code : made;
}

/* tee(2) on a read-only descriptor says whether a FIFO has a writer, and disturbs nobody: 0 none, EAGAIN there is one. */
static bool has_writer(int directory, const char *name, int scratch)
{
    FK_CLOSE_FD int fifo = fk_fd_open(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
    return fifo >= 0 && tee(fifo, scratch, 1, SPLICE_F_NONBLOCK) < 0 && errno == EAGAIN;
}

static bool row_has_holder(DIR *rows, const char *row, int scratch)
{
    char path[NAME_MAX + sizeof "/slots"];
    bool found = false;
    DIR *slots;
    snprintf(path, sizeof path, "%.*s/slots", NAME_MAX, row);
    if (fk_fd_open_directory(dirfd(rows), path, &slots) < 0)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(slots));)
        found = entry->d_name[0] != '.' && has_writer(dirfd(slots), entry->d_name, scratch);
    fk_fd_close_directory(slots);
    return found;
}

static bool is_held_below(const char *path, int scratch, char name[NAME_MAX + 1])
{
    DIR *rows;
    bool found = false;
    if (fk_fd_open_directory(AT_FDCWD, path, &rows) < 0)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(rows));) {
        found = entry->d_name[0] != '.' && row_has_holder(rows, entry->d_name, scratch);
        if (found)
            snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
    }
    fk_fd_close_directory(rows);
    return found;
}

/* The name of a row in root that has a holder, or the key of an output that is built or used there, into name. */
static bool has_holder(const char *root, char name[NAME_MAX + 1])
{
    int scratch[2];
    struct stat status;
    if (lstat(root, &status) < 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
        pipe2(scratch, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    bool found = is_held_below(FK_ROOT_BELOW(root, "/rows"), scratch[1], name) ||
                 is_held_below(FK_ROOT_BELOW(root, "/once"), scratch[1], name);
    close(scratch[0]);
    close(scratch[1]);
    return found;
}

/* Somebody whose environment differs from ours (a cron job started before the login) may hold locks elsewhere: then we would
 * exclude nobody. */
static int refuse_two_worlds(const struct candidate candidates[CANDIDATES], unsigned choice)
{
    char row[NAME_MAX + 1];
    for (unsigned i = choice + 1; i < CANDIDATES; i++)
        if (candidates[i].usable && strcmp(candidates[i].path, candidates[choice].path) != 0 &&
            has_holder(candidates[i].path, row))
            return fk_fail(-EPERM,
                           "two lock directories are in use: %s is ours now, but %s is held in %s; let that one end, "
                           "or set FLOCKCTL_DIR to the same directory for both",
                           candidates[choice].path, row, candidates[i].path);
    return 0;
}

static void warn(const struct candidate candidates[CANDIDATES], unsigned choice, bool made, char text[WARNING_SIZE])
{
    for (unsigned i = 0; i < choice; i++)
        if (candidates[i].odd && !text[0])
            snprintf(text, WARNING_SIZE, "%s is passed over, %s; the lock directory is %s", candidates[i].source,
                     candidates[i].why, candidates[choice].path);
    if (!text[0] && made && choice == CANDIDATES - 1 && geteuid() != 0)
        snprintf(text, WARNING_SIZE,
                 "the lock directory is %s, since there is no runtime directory of ours; set FLOCKCTL_DIR to choose "
                 "another one",
                 candidates[choice].path);
}

static bool has_log_variable(void)
{
    const char *variable = getenv("FLOCKCTL_LOG");
    return variable && *variable;
}

/* The lock directory's path becomes the history's. */
static int find_log(char path[PATH_MAX])
{
    if (has_log_variable())
        return make_absolute(getenv("FLOCKCTL_LOG"), path);
    strcat(path, "/log"); /* make_absolute() has seen to it that there is room */
    return 0;
}

/* Large, so that it isn't on the stack. */
struct choice {
    struct candidate candidates[CANDIDATES];
    const char *asked_for; /* when it was begun */
    unsigned number;
    char path[PATH_MAX];
    char log[PATH_MAX]; /* "": none */
    char warning[WARNING_SIZE];
};

static int look_around(struct choice *choice)
{
    bool log_marked = false;
    choice->asked_for = asked_for;
    list_candidates(choice->candidates, choice->asked_for);
    unsigned number = choice->number = first_usable(choice->candidates);
    int code = make_absolute(choice->candidates[number].path, choice->path);
    if (code == 0)
        code = prepare(choice->path, &log_marked);
    int made = code;
    if (code >= 0 && !choice->candidates[number].named)
        code = refuse_two_worlds(choice->candidates, number);
    if (code < 0)
        return code;
    warn(choice->candidates, number, made > 0, choice->warning);
    memcpy(choice->log, choice->path, sizeof choice->log);
    if ((!log_marked && !has_log_variable()) || find_log(choice->log) < 0)
        choice->log[0] = '\0';
    return 0;
}

/* Under the mutex. */
static int believe(const struct choice *choice)
{
    const char *path = keep(choice->path), *text = choice->warning[0] ? keep(choice->warning) : NULL;
    const char *log = choice->log[0] ? keep(choice->log) : "";
    if (!path || !log || (choice->warning[0] && !text))
        return fk_fail(-ENOMEM, "out of memory");
    fk_log_set(log);
    warning = text;
    chosen_by_name = choice->candidates[choice->number].named;
    chosen = path;
    return 0;
}

static int choose(void)
{
    struct choice *choice = calloc(1, sizeof *choice);
    int code = choice ? look_around(choice) : fk_fail(-ENOMEM, "out of memory");
    if (code == 0) {
        pthread_mutex_lock(&lock);
        if (!chosen && asked_for == choice->asked_for)
            code = believe(choice);
        pthread_mutex_unlock(&lock);
    }
    free(choice);
    return code;
}

int fk_root_path(const char **path)
{
    const char *root;
    while (!(root = chosen)) { /* again when flk_root_set() came in between */
        int code = choose();
        if (code < 0)
            return code;
    }
    *path = root;
    return 0;
}

bool fk_root_peek(char path[PATH_MAX])
{
    struct candidate *candidates = malloc(CANDIDATES * sizeof *candidates);
    bool there = false;
    if (candidates) {
        list_candidates(candidates, asked_for);
        there = make_absolute(candidates[first_usable(candidates)].path, path) == 0 && access(path, F_OK) == 0;
    }
    free(candidates);
    return there;
}

int fk_root_log_path(char path[PATH_MAX])
{
    const char *root;
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    stpcpy(path, root);
    return find_log(path);
}

int fk_root_set_log(bool on)
{
    const char *root;
    char path[PATH_MAX + 16], text[16];
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    snprintf(path, sizeof path, "%s/version", root);
    off_t end = snprintf(text, sizeof text, "%d\n", FK_PROTOCOL);
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDWR | O_NOFOLLOW, 0);
    code = fd < 0 ? fd : on ? fk_fd_write_at(fd, LOG_MARK, strlen(LOG_MARK), end) : ftruncate(fd, end) < 0 ? -errno : 0;
    return code < 0 ? fk_fail_errno(code, "can't write %s", path) : 0;
}

const char *fk_root_named(void)
{
    return chosen_by_name ? chosen : NULL;
}

int flk_root_get(char **path)
{
    const char *root;
    FK_ENTER();
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    char *copy = strdup(root);
    if (!copy)
        return fk_fail(-ENOMEM, "out of memory");
    *path = copy;
    return 0;
}

int flk_root_set(const char *dir)
{
    char path[PATH_MAX];
    FK_ENTER();
    if (dir && !*dir)
        return fk_fail(-EINVAL, "the name of the lock directory is empty");
    int code = dir ? make_absolute(dir, path) : 0;
    if (code == 0)
        code = fk_registry_forget();
    if (code < 0)
        return code;
    fk_log_set(""); /* closes the old one here, and not under the mutex later */
    pthread_mutex_lock(&lock);
    const char *kept = dir ? keep(path) : NULL;
    if (kept || !dir) {
        asked_for = kept;
        chosen = NULL;
    }
    pthread_mutex_unlock(&lock);
    return kept || !dir ? 0 : fk_fail(-ENOMEM, "out of memory");
}

static void describe(FILE *out, const struct candidate *candidate, const char *verdict)
{
    fprintf(out, "%s: %s", verdict, candidate->source);
    if (candidate->path[0])
        fprintf(out, " (%s)", candidate->path);
    fprintf(out, ": %s\n", candidate->why);
}

int flk_root_describe(char **text)
{
    const char *path;
    FK_ENTER();
    int code = fk_root_path(&path);
    if (code < 0)
        return code;
    struct candidate *candidates = malloc(CANDIDATES * sizeof *candidates);
    char *buffer = NULL;
    size_t size;
    FILE *out = candidates ? open_memstream(&buffer, &size) : NULL;
    if (out) {
        list_candidates(candidates, asked_for);
        unsigned choice = first_usable(candidates);
        fprintf(out, "%s\n", path);
        describe(out, &candidates[choice], "chosen");
        for (unsigned i = 0; i < CANDIDATES; i++)
            if (i != choice)
                describe(out, &candidates[i], candidates[i].usable ? "further down" : "passed over");
        if (fclose(out) != 0) {
            free(buffer);
            buffer = NULL;
        }
    }
    free(candidates);
    if (!buffer)
        return fk_fail(-ENOMEM, "out of memory");
    *text = buffer;
    return 0;
}

const char *flk_root_warning(void)
{
    return warning;
}

void fk_root_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}
