/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pthread_cancel(3) in a thread of the host. Every system call of ours that can sleep is a point where the thread may end, and
 * hardly any of them is a good one: a descriptor just made would be nobody's. So cancellation is off in every public call
 * (FK_ENTER() in registry.h), and as the host has it around one poll alone, where a call has nothing in hand but what
 * cleanup attributes give back: the library is compiled with -fexceptions, without which they don't run. The same attributes
 * serve a C++ exception or a pthread_exit(3) that leaves one of the host's callbacks. */
#ifndef FK_CANCEL_H
#define FK_CANCEL_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define FK_CANCEL_OFF() __attribute__((cleanup(fk_cancel_restore))) int cancellation = fk_cancel_off()
int fk_cancel_off(void);
void fk_cancel_restore(const int *before);

/* Polls until something is ready (how many) or that point in time has passed (0); signals don't end it. -errno. The
 * thread may be cancelled meanwhile. */
int fk_cancel_poll(struct pollfd *polls, size_t n, int64_t until);
/* The same without that. */
int fk_poll_until(struct pollfd *polls, size_t n, int64_t until);
/* Doesn't sleep, so nothing is cancelled. With a signal pending poll(2) itself may say EINTR even so. */
int fk_poll_now(struct pollfd *polls, size_t n);

#endif
