/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "latch.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "fd.h"

/* A section takes some 10 us: who finds it locked gives the processor away a few times before it sleeps at all. */
#define YIELDS 16
#define FIRST_PAUSE_NS 20000
#define LONGEST_PAUSE_NS 1000000

static void pause_for(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

int fk_latch_lock(int fd, int64_t until)
{
    int64_t pause = FIRST_PAUSE_NS;
    for (unsigned tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return -errno;
        if (tries < YIELDS) {
            sched_yield();
            continue;
        }
        if (fk_now() >= until)
            return -EAGAIN;
        pause_for(pause);
        pause = pause * 2 < LONGEST_PAUSE_NS ? pause * 2 : LONGEST_PAUSE_NS;
    }
    return 0;
}

void fk_latch_unlock(int fd)
{
    flock(fd, LOCK_UN);
}

static const char header_format[] = 
    "slots=%010u\nnumber=%020llu\nliving=%020llu\nshared=%u\nadmitted=%020llu\npool=%u\nstate=%u\n";
#define SLOTS_AT 6
#define NUMBER_AT (SLOTS_AT + 10 + 8)
#define LIVING_AT (NUMBER_AT + 20 + 8)
#define SHARED_AT (LIVING_AT + 20 + 8)
#define ADMITTED_AT (SHARED_AT + 1 + 10)
#define KIND_AT (ADMITTED_AT + 20 + 6)
#define STATE_AT (KIND_AT + 1 + 7)

/* digits decimal digits at text and then a newline. */
static int get_number(const char *text, int digits, uint64_t *value)
{
    uint64_t sum = 0;
    for (int i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EBADMSG;
        sum = sum * 10 + (uint64_t)(text[i] - '0');
    }
    *value = sum;
    return text[digits] == '\n' ? 0 : -EBADMSG;
}

int fk_latch_read(int fd, struct fk_latch *latch, char *record)
{
    char header[FK_LATCH_HEADER + FK_RECORD_SIZE];
    uint64_t slots, shared, kind = 0, state;
    ssize_t length = pread(fd, header, sizeof header, 0);
    if (length < 0)
        return -errno;
    if (length != sizeof header || memcmp(header, "slots=", SLOTS_AT) != 0 ||
        get_number(header + SLOTS_AT, 10, &slots) < 0 || get_number(header + NUMBER_AT, 20, &latch->number) < 0 ||
        get_number(header + LIVING_AT, 20, &latch->living) < 0 || get_number(header + SHARED_AT, 1, &shared) < 0 ||
        get_number(header + ADMITTED_AT, 20, &latch->admitted) < 0 ||
        get_number(header + KIND_AT, 1, &kind) < 0 || get_number(header + STATE_AT, 1, &state) < 0 || slots < 1 ||
        slots > FLK_SLOTS_MAX)
        return -EBADMSG;
    latch->slots = (unsigned)slots;
    latch->shared = shared;
    latch->kind = (unsigned)kind;
    latch->state = state;
    memcpy(record, header + FK_LATCH_HEADER, FK_RECORD_SIZE);
    return 0;
}

/* All of it: spaces up to the last byte, which is a newline. */
static void format_header(char header[FK_LATCH_HEADER], const struct fk_latch *latch)
{
    int length = snprintf(header, FK_LATCH_HEADER, header_format, latch->slots, (unsigned long long)latch->number,
                          (unsigned long long)latch->living, latch->shared ? 1u : 0u,
                          (unsigned long long)latch->admitted, latch->kind % 10, latch->state ? 1u : 0u);
    memset(header + length, ' ', FK_LATCH_HEADER - (size_t)length);
    header[FK_LATCH_HEADER - 1] = '\n';
}

int fk_latch_write(int fd, const struct fk_latch *latch)
{
    char header[FK_LATCH_HEADER];
    format_header(header, latch);
    return fk_fd_write_at(fd, header, sizeof header, 0);
}

int fk_latch_write_both(int fd, const struct fk_latch *latch, const char *record, size_t length)
{
    char both[FK_LATCH_HEADER + FK_RECORD_SIZE];
    format_header(both, latch);
    memcpy(both + FK_LATCH_HEADER, record, length);
    return fk_fd_write_at(fd, both, FK_LATCH_HEADER + length, 0);
}

int fk_latch_init(int fd, unsigned slots, unsigned kind)
{
    char place[FK_RECORD_SIZE];
    memset(place, ' ', sizeof place);
    memcpy(place, "-\nend\n", 6);
    place[sizeof place - 1] = '\n';
    int code = fk_latch_write(fd, &(struct fk_latch){.slots = slots, .kind = kind});
    for (unsigned slot = 0; code == 0 && slot < slots; slot++)
        code = fk_fd_write_at(fd, place, sizeof place, fk_latch_record_at(slot));
    return code;
}

/* Looked up once: it is set by the shell that starts us. */
bool fk_latch_reaches(off_t end)
{
    static _Atomic rlim_t allowed; /* 0: not known */
    struct rlimit limit = {.rlim_cur = atomic_load_explicit(&allowed, memory_order_relaxed)};
    if (limit.rlim_cur == 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0)
        atomic_store_explicit(&allowed, limit.rlim_cur, memory_order_relaxed);
    return (rlim_t)end <= limit.rlim_cur;
}
