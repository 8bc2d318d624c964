/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "fd.h"
#include "flockctl.h"
#include "json.h"
#include "owner.h"
#include "row.h"

#define PATIENCE (20 * FK_MS) /* for one that was stopped while it rotated */
#define TRIES 8 /* others may rotate as often meanwhile */

_Atomic bool fk_log_on;

/* A flock belongs to an open file, so each thread that writes has one for itself. The mutex is for these variables alone: the
 * file may be one of the user's, on a slow disk or at the end of a slow reader. */
#define SPARES 4
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *_Atomic file; /* NULL: none */
static int spare[SPARES];
static unsigned spares;

/* Those that are lent are closed when they come back. */
static void close_spares(void)
{
    int old[SPARES];
    pthread_mutex_lock(&lock);
    unsigned n = spares;
    memcpy(old, spare, sizeof old);
    spares = 0;
    pthread_mutex_unlock(&lock);
    while (n > 0)
        fk_fd_close(&old[--n]);
}

void fk_log_set(const char *path)
{
    if (atomic_exchange(&file, *path ? path : NULL) != path)
        close_spares();
    atomic_store(&fk_log_on, *path != '\0');
}

static int borrow(void)
{
    pthread_mutex_lock(&lock);
    int fd = spares > 0 ? spare[--spares] : -1;
    pthread_mutex_unlock(&lock);
    return fd;
}

static void give_back(int fd, const char *path)
{
    pthread_mutex_lock(&lock);
    if (fd >= 0 && spares < SPARES && path == atomic_load(&file)) {
        spare[spares++] = fd;
        fd = -1;
    }
    pthread_mutex_unlock(&lock);
    fk_fd_close(&fd);
}

/* The descriptors are closed already. */
void fk_log_after_fork_child(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    spares = 0;
}

/* ---- the line ---- */

static void put_string(FILE *out, const char *key, const char *value)
{
    fprintf(out, ",\"%s\":", key);
    fk_json_string(out, value);
}

static void put_number(FILE *out, const char *key, int64_t value)
{
    fprintf(out, ",\"%s\":%" PRId64, key, value);
}

static void put_name(FILE *out, const char *row)
{
    const char *slash = strchr(row, '/'), *id = strrchr(row, '/');
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%.*s", slash ? (int)(slash - row) : (int)strlen(row), row);
    if (name[0] == FK_OUTPUT_MARK)
        fk_row_output(strdupa(name), name, sizeof name);
    put_string(out, "name", name);
    if (slash)
        put_string(out, "under", id + 1);
}

static void put_slots(FILE *out, const unsigned *slots, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "%s%u", i ? "," : ",\"slots\":[", slots[i]);
    fputs("]", out);
}

static void put_other(FILE *out, const struct flk_holder *other)
{
    fprintf(out, ",\"other\":{\"pid\":%d", (int)other->pid);
    put_string(out, "id", other->id);
    put_string(out, "command", other->command);
    fputc('}', out);
}

static void put_line(FILE *out, const struct fk_log_entry *entry)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    fprintf(out, "{\"time\":%lld%09ld,\"event\":\"%s\"", (long long)now.tv_sec, now.tv_nsec, entry->event);
    put_name(out, entry->row);
    if (entry->n_slots > 0)
        put_slots(out, entry->slots, entry->n_slots);
    if (entry->wants > 0)
        put_number(out, "wants", entry->wants);
    if (entry->shared)
        fputs(",\"shared\":true", out);
    put_number(out, "pid", getpid());
    if (entry->id)
        put_string(out, "id", entry->id);
    if (entry->label)
        put_string(out, "label", entry->label);
    put_string(out, "command", entry->command ? entry->command : fk_owner_command());
    if (entry->waited_ns >= 0)
        put_number(out, "waited", entry->waited_ns);
    if (entry->held_ns >= 0)
        put_number(out, "held", entry->held_ns);
    if (entry->other)
        put_other(out, entry->other);
    if (entry->signal)
        put_number(out, "signal", entry->signal);
    if (entry->detail)
        put_string(out, "detail", entry->detail);
    fputs("}\n", out);
}

/* ---- the file ---- */

static bool is_at_its_path(const char *path, const struct stat *ours)
{
    struct stat status;
    return stat(path, &status) == 0 && status.st_ino == ours->st_ino && status.st_dev == ours->st_dev;
}

static int lock_file(int fd, int how)
{
    int64_t until = fk_now() + PATIENCE;
    while (flock(fd, how | LOCK_NB) < 0) {
        if (errno != EINTR && (errno != EWOULDBLOCK || fk_now() > until))
            return -errno;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return 0;
}

/* Opened if *fd is -1, and locked as the one at its path, if that can be; *status is of it. */
static bool open_log(const char *path, int *fd, struct stat *status)
{
    for (int tries = 0; tries < TRIES; tries++) {
        if (*fd < 0)
            *fd = fk_fd_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY, 0600);
        if (*fd < 0 || fstat(*fd, status) < 0)
            return false;
        if (!S_ISREG(status->st_mode) || lock_file(*fd, LOCK_SH) < 0 || is_at_its_path(path, status))
            return true;
        fk_fd_close(fd); /* it was rotated */
    }
    return false;
}

/* By who finds it full, which they all do before they write, so that those in the middle of a line become fewer. */
static bool rotate(const char *path, int *fd, struct stat *status)
{
    char old[PATH_MAX + 2];
    snprintf(old, sizeof old, "%s.1", path);
    if (lock_file(*fd, LOCK_EX) == 0 && is_at_its_path(path, status))
        (void)rename(path, old); /* should it fail, the next one tries again */
    fk_fd_close(fd);
    return open_log(path, fd, status);
}

static bool is_full(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_size >= FK_LOG_LIMIT;
}

static void append(const char *line, size_t length)
{
    struct stat status;
    const char *path = atomic_load(&file);
    if (!path)
        return;
    int fd = borrow();
    if (open_log(path, &fd, &status) && (!is_full(&status) || rotate(path, &fd, &status))) {
        (void)!write(fd, line, length);
        fk_latch_unlock(fd);
    }
    give_back(fd, path);
}

void fk_log_write(const struct fk_log_entry *entry)
{
    char *line = NULL;
    size_t size = 0;
    int kept = errno;
    FILE *out = open_memstream(&line, &size);
    if (out) {
        put_line(out, entry);
        if (fclose(out) == 0)
            append(line, size);
    }
    free(line);
    errno = kept;
}

void fk_log_eviction(const char *name, const struct flk_holder *target, int signal)
{
    if (fk_log_is_on())
        fk_log_write(&(struct fk_log_entry){
            .event = "eviction",
            .row = name,
            .other = target,
            .signal = signal,
            .waited_ns = -1,
            .held_ns = -1,
        });
}
