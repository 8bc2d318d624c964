/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The table: one bit a number, in chunks that are made when first used and never freed. 1024 chunks reach 4 million
 * descriptors, four times the kernel's default ceiling (fs.nr_open). */
#define CHUNK_BITS 4096u
#define WORD_BITS 64u
#define CHUNKS 1024u

struct chunk {
    _Atomic unsigned long long words[CHUNK_BITS / WORD_BITS];
};

static struct chunk *_Atomic chunks[CHUNKS];

/* Threads that make or close a descriptor just now; a fork holds the gate and waits until there are none. Not a rwlock: who
 * has that for writing is a thread that a forked child doesn't have, and a mutex may be unlocked there. */
static _Atomic unsigned inside;
static _Atomic bool forking;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void leave(void)
{
    if (atomic_fetch_sub(&inside, 1) == 1 && atomic_load(&forking))
        syscall(SYS_futex, &inside, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static struct chunk *chunk_of(int fd)
{
    unsigned index = (unsigned)fd / CHUNK_BITS;
    if (index >= CHUNKS)
        return NULL;
    struct chunk *chunk = atomic_load(&chunks[index]);
    if (chunk)
        return chunk;
    struct chunk *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return NULL;
    if (atomic_compare_exchange_strong(&chunks[index], &chunk, fresh))
        return fresh;
    free(fresh);
    return chunk;
}

static int mark(int fd)
{
    struct chunk *chunk = chunk_of(fd);
    if (!chunk)
        return -ENOMEM;
    unsigned bit = (unsigned)fd % CHUNK_BITS;
    atomic_fetch_or(&chunk->words[bit / WORD_BITS], 1ull << (bit % WORD_BITS));
    return 0;
}

static void unmark(int fd)
{
    struct chunk *chunk = chunk_of(fd);
    unsigned bit = (unsigned)fd % CHUNK_BITS;
    if (chunk)
        atomic_fetch_and(&chunk->words[bit / WORD_BITS], ~(1ull << (bit % WORD_BITS)));
}

static int above_stdio(int fd)
{
    if (fd > STDERR_FILENO)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int code = moved < 0 ? -errno : moved;
    close(fd);
    return code;
}

bool fk_fd_is_ours(int fd)
{
    unsigned index = (unsigned)fd / CHUNK_BITS, bit = (unsigned)fd % CHUNK_BITS;
    struct chunk *chunk = index < CHUNKS ? atomic_load(&chunks[index]) : NULL;
    return chunk && (atomic_load(&chunk->words[bit / WORD_BITS]) >> (bit % WORD_BITS) & 1);
}

/* Either the fork sees us inside or we see it. */
void fk_fd_enter(void)
{
    atomic_fetch_add(&inside, 1);
    if (!atomic_load(&forking))
        return;
    leave();
    pthread_mutex_lock(&gate);
    atomic_fetch_add(&inside, 1);
    pthread_mutex_unlock(&gate);
}

static int keep(int fd)
{
    int kept = above_stdio(fd);
    if (kept >= 0 && mark(kept) < 0) {
        close(kept);
        kept = -ENOMEM;
    }
    return kept;
}

int fk_fd_keep(int fd)
{
    int kept = fd < 0 ? -errno : keep(fd);
    leave();
    return kept;
}

int fk_fd_keep_pair(int code, int fds[2])
{
    if (code < 0) {
        code = -errno;
        fds[0] = fds[1] = -1;
    }
    for (int i = 0; i < 2 && fds[i] >= 0; i++) {
        fds[i] = keep(fds[i]);
        if (fds[i] < 0)
            code = fds[i];
    }
    leave();
    for (int i = 0; i < 2 && code < 0; i++)
        fk_fd_close(&fds[i]);
    return code;
}

bool (*_Atomic fk_fd_relief)(void);

bool fk_fd_relieve(int code)
{
    bool (*relief)(void) = code == -EMFILE || code == -ENFILE ? fk_fd_relief : NULL;
    return relief && relief();
}

int fk_fd_open(int directory, const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fk_fd_enter();
        fd = fk_fd_keep(openat(directory, path, flags | O_CLOEXEC, mode));
    } while (fk_fd_relieve(fd));
    return fd;
}

int fk_fd_open_output(const char *path, int flags)
{
    int fd = fk_fd_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | flags, 0666);
    if (fd >= 0)
        fcntl(fd, F_SETFL, flags & O_APPEND); /* it is the opening alone that must not wait */
    return fd;
}

void fk_fd_close(int *fd)
{
    if (*fd < 0)
        return;
    fk_fd_enter();
    unmark(*fd);
    close(*fd);
    leave();
    *fd = -1;
}

int fk_fd_open_directory(int at, const char *path, DIR **directory)
{
    int fd = fk_fd_open(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    *directory = fdopendir(fd);
    if (*directory)
        return 0;
    int code = -errno;
    fk_fd_close(&fd);
    return code;
}

void fk_fd_close_directory(DIR *directory)
{
    fk_fd_enter();
    unmark(dirfd(directory));
    closedir(directory);
    leave();
}

void fk_fd_close_file(FILE *file)
{
    fk_fd_enter();
    unmark(fileno(file));
    fclose(file);
    leave();
}

ssize_t fk_fd_read_text(int directory, const char *path, char *text, size_t size)
{
    FK_CLOSE_FD int fd = fk_fd_open(directory, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    ssize_t length = read(fd, text, size - 1);
    if (length < 0)
        return -errno;
    text[length] = '\0';
    return length;
}

int fk_fd_write_at(int fd, const char *text, size_t length, off_t at)
{
    ssize_t written = pwrite(fd, text, length, at);
    return written == (ssize_t)length ? 0 : written < 0 ? -errno : -ENOSPC;
}

void fk_fd_tell(int fd, size_t count)
{
    if (write(fd, "gg", count) < 0)
        errno = 0;
}

void fk_fd_disown(int fd)
{
    unmark(fd);
}

void fk_fd_own(int fd)
{
    mark(fd); /* its chunk is there since it was kept */
}

int fk_fd_move_up(int fd, int lowest)
{
    if (fd >= lowest)
        return fd;
    fk_fd_enter();
    int moved = fk_fd_keep(fcntl(fd, F_DUPFD_CLOEXEC, lowest));
    if (moved < 0)
        return fd;
    fk_fd_close(&fd);
    return moved;
}

void fk_fd_before_fork(void)
{
    unsigned others;
    pthread_mutex_lock(&gate);
    atomic_store(&forking, true);
    while ((others = atomic_load(&inside)) > 0)
        syscall(SYS_futex, &inside, FUTEX_WAIT_PRIVATE, others, NULL, NULL, 0);
}

void fk_fd_after_fork_parent(void)
{
    atomic_store(&forking, false);
    pthread_mutex_unlock(&gate);
}

static void close_word(_Atomic unsigned long long *word, unsigned first)
{
    unsigned long long bits = atomic_exchange(word, 0);
    while (bits) {
        unsigned bit = (unsigned)__builtin_ctzll(bits);
        bits &= bits - 1;
        close((int)(first + bit));
    }
}

void fk_fd_after_fork_child(void)
{
    for (unsigned index = 0; index < CHUNKS; index++) {
        struct chunk *chunk = atomic_load(&chunks[index]);
        for (unsigned word = 0; chunk && word < CHUNK_BITS / WORD_BITS; word++)
            close_word(&chunk->words[word], index * CHUNK_BITS + word * WORD_BITS);
    }
    atomic_store(&inside, 0); /* of threads that had come to the gate meanwhile */
    fk_fd_after_fork_parent();
}

void fk_fd_after_raw_clone(void)
{
    gate = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&gate);
    fk_fd_after_fork_child();
}
