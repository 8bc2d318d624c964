/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cancel.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "deadline.h"

/* The host has it on, outside of the outermost call of ours. */
static _Thread_local bool allowed;

int fk_cancel_off(void)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    if (before == PTHREAD_CANCEL_ENABLE)
        allowed = true;
    return before;
}

void fk_cancel_restore(const int *before)
{
    int ignored;
    if (*before != PTHREAD_CANCEL_ENABLE)
        return;
    allowed = false;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &ignored);
}

static int poll_once(struct pollfd *polls, size_t n, int64_t until)
{
    int64_t left = until == FK_NEVER ? 0 : until - fk_now();
    struct timespec timeout = {.tv_sec = left / FK_SECOND, .tv_nsec = left % FK_SECOND};
    if (left < 0)
        timeout = (struct timespec){0};
    int ready = ppoll(polls, n, until == FK_NEVER ? NULL : &timeout, NULL);
    return ready < 0 ? -errno : ready;
}

int fk_poll_until(struct pollfd *polls, size_t n, int64_t until)
{
    int ready;
    do
        ready = poll_once(polls, n, until);
    while (ready == -EINTR);
    return ready;
}

int fk_cancel_poll(struct pollfd *polls, size_t n, int64_t until)
{
    int ignored;
    if (allowed)
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &ignored);
    int ready = fk_poll_until(polls, n, until);
    if (allowed)
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &ignored);
    return ready;
}

int fk_poll_now(struct pollfd *polls, size_t n)
{
    int ready;
    do
        ready = poll(polls, n, 0);
    while (ready < 0 && errno == EINTR);
    return ready < 0 ? -errno : ready;
}
