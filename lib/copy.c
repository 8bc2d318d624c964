/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"

#define PIPE_SIZE (1 << 20) /* what anybody may have (fs.pipe-max-size) */
#define BUFFER_SIZE (1 << 17)

/* States: open; full (the limit is reached, and said); failed. In the last two nothing more is written. */
struct fk_copy_file {
    int fd;
    char *path;
    uint64_t limit, left; /* limit 0: none */
    bool full, splices;
    int failure, show_failure; /* negative errno */
    char *kept; /* the last keep bytes, NULL: none are */
    size_t keep, n_kept;
    pthread_mutex_t lock; /* of all that stands above, and of the descriptor's offset */
    _Atomic bool wanted; /* neither full nor failed */
};

struct fk_copy {
    struct fk_copy_file *file;
    int pipe, shown, stop; /* shown -1: nowhere, or no more; stop: an eventfd */
    bool shown_is_pipe, show_ended; /* ended: it was shown until that failed */
    _Atomic bool stopping;
    bool stopped; /* seen by the thread, which then takes out no more than what was left */
    size_t left;
    pthread_t thread;
    bool joined;
    char *buffer;
};

/* ---- to a descriptor, whatever it is ---- */

static int await_room(int fd)
{
    struct pollfd event = {.fd = fd, .events = POLLOUT};
    return poll(&event, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

/* How many were written before it failed; then *code is negative. */
static size_t write_all(int fd, const char *bytes, size_t size, int *code)
{
    size_t done = 0;
    *code = 0;
    while (done < size && *code == 0) {
        ssize_t written = write(fd, bytes + done, size - done);
        if (written > 0)
            done += (size_t)written;
        else if (written == 0)
            *code = -ENOSPC;
        else if (errno == EAGAIN)
            *code = await_room(fd);
        else if (errno != EINTR)
            *code = -errno;
    }
    return done;
}

/* ---- to the file; under its lock ---- */

static void set_failure(struct fk_copy_file *file, int code)
{
    file->failure = code;
    file->wanted = false;
}

static void keep_bytes(struct fk_copy_file *file, const char *bytes, size_t size)
{
    if (!file->kept)
        return;
    if (size > file->keep) {
        bytes += size - file->keep;
        size = file->keep;
    }
    size_t stays = file->n_kept + size > file->keep ? file->keep - size : file->n_kept;
    memmove(file->kept, file->kept + file->n_kept - stays, stays);
    memcpy(file->kept + stays, bytes, size);
    file->n_kept = stays + size;
}

static void write_to_file(struct fk_copy_file *file, const char *bytes, size_t size)
{
    int code;
    if (file->fd < 0)
        return;
    file->left -= write_all(file->fd, bytes, size, &code);
    if (code < 0)
        set_failure(file, code);
}

/* Begins with a newline, since what was cut off may have ended anywhere. */
static void say_that_it_is_full(struct fk_copy_file *file)
{
    char text[128];
    int code, length = snprintf(text, sizeof text,
                                "\nflockctl: the limit of %" PRIu64 " bytes is reached; the rest was left out\n",
                                file->limit);
    file->full = true;
    file->wanted = false;
    write_all(file->fd, text, (size_t)length, &code);
    if (code < 0)
        file->failure = code;
}

/* How many of so many bytes the file still takes. */
static size_t allow(const struct fk_copy_file *file, size_t size)
{
    if (!file->wanted)
        return 0;
    return file->limit && size > file->left ? (size_t)file->left : size;
}

static void put_bytes(struct fk_copy_file *file, const char *bytes, size_t size)
{
    pthread_mutex_lock(&file->lock);
    keep_bytes(file, bytes, size);
    size_t allowed = allow(file, size);
    write_to_file(file, bytes, allowed);
    if (allowed < size && file->wanted)
        say_that_it_is_full(file);
    pthread_mutex_unlock(&file->lock);
}

/* Up to so many bytes that are in the pipe; how many went. */
static size_t splice_to_file(struct fk_copy_file *file, int pipe, size_t size)
{
    size_t done = 0;
    while (file->splices && file->wanted && done < size) {
        ssize_t moved = splice(pipe, NULL, file->fd, NULL, size - done, 0);
        if (moved > 0)
            done += (size_t)moved;
        else if (moved < 0 && errno == EINVAL)
            file->splices = false;
        else if (moved < 0 && errno == EAGAIN)
            await_room(file->fd);
        else if (moved == 0 || errno != EINTR)
            set_failure(file, moved == 0 ? -ENOSPC : -errno);
    }
    file->left -= done;
    return done;
}

/* size bytes that are in the pipe leave it, whether the file takes them or not. */
static void move_to_file(struct fk_copy *copy, size_t size)
{
    struct fk_copy_file *file = copy->file;
    pthread_mutex_lock(&file->lock);
    size_t allowed = allow(file, size), done = splice_to_file(file, copy->pipe, allowed);
    while (done < size) {
        size_t most = size - done < BUFFER_SIZE ? size - done : BUFFER_SIZE;
        ssize_t got = read(copy->pipe, copy->buffer, most);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break; /* can't be: nobody else reads */
        keep_bytes(file, copy->buffer, (size_t)got);
        if (file->wanted && done < allowed)
            write_to_file(file, copy->buffer, (size_t)got < allowed - done ? (size_t)got : allowed - done);
        done += (size_t)got;
    }
    if (allowed < size && file->wanted)
        say_that_it_is_full(file);
    pthread_mutex_unlock(&file->lock);
}

/* ---- the thread ---- */

static void end_showing(struct fk_copy *copy, int code)
{
    copy->shown = -1;
    copy->show_ended = true;
    if (code == -EPIPE)
        return;
    pthread_mutex_lock(&copy->file->lock);
    if (copy->file->show_failure == 0)
        copy->file->show_failure = code;
    pthread_mutex_unlock(&copy->file->lock);
}

/* To show by tee() or splice() didn't go. */
static void consider(struct fk_copy *copy, int code)
{
    if (code == -EINVAL)
        copy->shown_is_pipe = false;
    else if (code == -EAGAIN)
        await_room(copy->shown);
    else if (code != -EINTR)
        end_showing(copy, code);
}

/* How many of size bytes left the pipe; 0: try again. */
static size_t tee_and_move(struct fk_copy *copy, size_t size)
{
    ssize_t shown = tee(copy->pipe, copy->shown, size, SPLICE_F_NONBLOCK);
    if (shown < 0)
        consider(copy, -errno);
    if (shown <= 0)
        return 0;
    move_to_file(copy, (size_t)shown);
    return (size_t)shown;
}

static size_t splice_to_shown(struct fk_copy *copy, size_t size)
{
    ssize_t shown = splice(copy->pipe, NULL, copy->shown, NULL, size, SPLICE_F_NONBLOCK);
    if (shown < 0)
        consider(copy, -errno);
    return shown < 0 ? 0 : (size_t)shown;
}

static size_t read_and_write(struct fk_copy *copy, size_t size)
{
    int code = 0;
    ssize_t got = read(copy->pipe, copy->buffer, size < BUFFER_SIZE ? size : BUFFER_SIZE);
    if (got <= 0)
        return 0;
    if (copy->shown >= 0)
        write_all(copy->shown, copy->buffer, (size_t)got, &code);
    if (code < 0)
        end_showing(copy, code);
    put_bytes(copy->file, copy->buffer, (size_t)got);
    return (size_t)got;
}

static size_t move(struct fk_copy *copy, size_t size)
{
    if (copy->shown < 0) {
        move_to_file(copy, size);
        return size;
    }
    if (!copy->shown_is_pipe)
        return read_and_write(copy, size);
    return copy->file->wanted ? tee_and_move(copy, size) : splice_to_shown(copy, size);
}

static size_t bytes_in(int pipe)
{
    int bytes = 0;
    return ioctl(pipe, FIONREAD, &bytes) < 0 ? 0 : (size_t)bytes;
}

/* How many bytes there are to be moved; 0: no more will be. */
static size_t await_bytes(struct fk_copy *copy)
{
    for (;;) {
        if (!copy->stopped && copy->stopping) {
            copy->stopped = true;
            copy->left = bytes_in(copy->pipe);
        }
        if (copy->stopped)
            return copy->left;
        size_t bytes = bytes_in(copy->pipe);
        if (bytes > 0)
            return bytes;
        struct pollfd events[] = {{.fd = copy->pipe, .events = POLLIN}, {.fd = copy->stop, .events = POLLIN}};
        poll(events, 2, -1);
        if ((events[0].revents & (POLLHUP | POLLIN)) == POLLHUP && bytes_in(copy->pipe) == 0)
            return 0;
    }
}

static void *run(void *data)
{
    struct fk_copy *copy = data;
    for (size_t bytes; (!copy->show_ended || copy->file->wanted) && (bytes = await_bytes(copy)) > 0;) {
        size_t moved = move(copy, bytes);
        if (copy->stopped)
            copy->left -= moved;
    }
    fk_fd_close(&copy->pipe); /* whoever still writes gets SIGPIPE */
    return NULL;
}

/* ---- files ---- */

static int fail_open(const char *path, int code)
{
    if (code == -ENXIO)
        return fk_fail(
            code,
            "can't open %s for the copy of the output: nobody reads from it; start its reader first, or name "
            "a file",
            path);
    return fk_fail(code, "can't open %s for the copy of the output: %s; check the path, and who may write there", path,
                   strerrordesc_np(-code));
}

static struct fk_copy_file *new_file(const char *path)
{
    struct fk_copy_file *fresh = calloc(1, sizeof *fresh);
    if (!fresh || !(fresh->path = strdup(path))) {
        free(fresh);
        fk_fail(-ENOMEM, "no memory for the copy of the output in %s", path);
        return NULL;
    }
    fresh->fd = -1;
    fresh->wanted = true;
    pthread_mutex_init(&fresh->lock, NULL);
    return fresh;
}

int fk_copy_file_none(struct fk_copy_file **file)
{
    *file = new_file("memory");
    return *file ? 0 : -ENOMEM;
}

int fk_copy_file_keep(struct fk_copy_file *file, size_t size)
{
    file->kept = malloc(size);
    file->keep = size;
    file->splices = false;
    return file->kept ? 0 : fk_fail(-ENOMEM, "no memory for the last of what is printed");
}

size_t fk_copy_file_kept(const struct fk_copy_file *file, const char **bytes)
{
    *bytes = file->kept ? file->kept : "";
    return file->n_kept;
}

int fk_copy_file_open(const char *path, uint64_t limit, struct fk_copy_file **file)
{
    struct fk_copy_file *fresh = new_file(path);
    if (!fresh)
        return -ENOMEM;
    fresh->limit = fresh->left = limit;
    fresh->splices = true;
    fresh->fd = fk_fd_open_output(path, O_TRUNC);
    if (fresh->fd < 0) {
        int code = fresh->fd;
        fk_copy_file_close(fresh);
        return fail_open(path, code);
    }
    *file = fresh;
    return 0;
}

static int complain_of_failures(const struct fk_copy_file *file)
{
    if (file->failure)
        return fk_fail(
            file->failure, "the copy of the output in %s isn't whole: %s%s", file->path,
            strerrordesc_np(-file->failure),
            file->failure == -ENOSPC || file->failure == -EDQUOT ? "; free some space there, and run it again" : "");
    if (file->show_failure && file->fd >= 0)
        return fk_fail(file->show_failure, "the output can't be shown where it should: %s; all of it is in %s",
                       strerrordesc_np(-file->show_failure), file->path);
    return 0;
}

int fk_copy_file_close(struct fk_copy_file *file)
{
    if (!file)
        return 0;
    if (file->fd >= 0) {
        fk_fd_disown(file->fd);
        if (close(file->fd) < 0 && file->failure == 0) /* NFS tells of a full disk only here */
            file->failure = -errno;
    }
    int code = complain_of_failures(file);
    pthread_mutex_destroy(&file->lock);
    free(file->kept);
    free(file->path);
    free(file);
    return code;
}

/* ---- start and finish ---- */

static void release(struct fk_copy *copy)
{
    fk_fd_close(&copy->pipe);
    fk_fd_close(&copy->stop);
    free(copy->buffer);
    free(copy);
}

static int open_pipe(int *read_end, int *write_end)
{
    int ends[2];
    fk_fd_enter();
    int code = fk_fd_keep_pair(pipe2(ends, O_CLOEXEC), ends);
    if (code < 0)
        return code;
    fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one is only slower */
    *read_end = ends[0];
    *write_end = ends[1];
    return 0;
}

static int start_thread(struct fk_copy *copy)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&copy->thread, NULL, run, copy);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -code;
}

static struct fk_copy *new_copy(struct fk_copy_file *file, int shown)
{
    struct stat status;
    struct fk_copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return NULL;
    *copy = (struct fk_copy){.file = file, .pipe = -1, .shown = shown, .stop = -1};
    copy->shown_is_pipe = shown >= 0 && !file->kept && fstat(shown, &status) == 0 && S_ISFIFO(status.st_mode);
    copy->buffer = malloc(BUFFER_SIZE);
    if (copy->buffer)
        return copy;
    free(copy);
    return NULL;
}

int fk_copy_start(struct fk_copy_file *file, int shown, struct fk_copy **copy, int *write_end)
{
    int end = -1;
    struct fk_copy *fresh = new_copy(file, shown);
    if (!fresh)
        return fk_fail(-ENOMEM, "no memory to copy the output to %s", file->path);
    int code = open_pipe(&fresh->pipe, &end);
    if (code == 0) {
        fk_fd_enter();
        fresh->stop = fk_fd_keep(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        code = fresh->stop < 0 ? fresh->stop : start_thread(fresh);
    }
    if (code < 0) {
        fk_fd_close(&end);
        release(fresh);
        return fk_fail_errno(code, "can't start to copy the output to %s", file->path);
    }
    *copy = fresh;
    *write_end = end;
    return 0;
}

static void stop(struct fk_copy *copy)
{
    copy->stopping = true;
    eventfd_write(copy->stop, 1);
}

bool fk_copy_wait(struct fk_copy *copy, int64_t timeout_ms)
{
    if (!copy || copy->joined)
        return true;
    int64_t until = fk_deadline_in_ms(timeout_ms);
    const struct timespec at = {.tv_sec = until / FK_SECOND, .tv_nsec = until % FK_SECOND};
    stop(copy);
    copy->joined = pthread_clockjoin_np(copy->thread, NULL, CLOCK_MONOTONIC, &at) == 0;
    return copy->joined;
}

void fk_copy_finish(struct fk_copy *copy)
{
    if (!copy)
        return;
    stop(copy);
    if (!copy->joined)
        pthread_join(copy->thread, NULL);
    release(copy);
}
