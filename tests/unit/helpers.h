/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the unit tests share: a lock directory of their own, memory shared with their children, and children that hold
 * and wait on command. Every wait here is for an event; it is bounded only so that a broken build ends. */
#ifndef HELPERS_H
#define HELPERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "flockctl.h"

/* An environment without the user's settings, and a lock directory of this test's own that isn't there yet. */
void test_root(void);
/* A path inside tap_directory(). The last 32 stay valid. */
const char *test_path(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Zeroed memory that children share with us. */
void *test_shared(size_t size);
void test_write_file(const char *path, const char *text);
/* How many entries a directory has, those that begin with a dot included; -1: it can't be read. */
int test_entries(const char *path);
/* How many tickets a row has. A holder that had to queue may still have its own. */
int test_tickets(const char *name);
/* Until so many wait. */
void test_wait_queued(const char *name, int count);
/* How many descriptors this process has open. */
int test_descriptors(void);
/* Runs in a forked child; its exit status, or minus the signal that ended it. */
int test_in_child(int (*run)(void *data), void *data);
#define TEST_OTHER_USER 64321 /* nobody uses it, not even nobody */
/* The same as an ordinary user, who is refused what root isn't. directory, given to that user, may be NULL. */
int test_as_other_user(const char *directory, int (*run)(void *data), void *data);
bool test_is_root(void);
/* Waits until the child has ended; as test_in_child(). */
int test_reap(pid_t pid);
void test_stop(pid_t pid);
/* Valgrind and the sanitizers take several times as long. */
bool test_is_slow(void);
/* After a fork amid threads. The sanitizers' allocators aren't kept whole across it: a lock of theirs may never be free again. */
bool test_child_may_allocate(void);
/* A thread; none: bails out. */
void test_start(pthread_t *thread, void *(*run)(void *), void *data);
/* Is fd readable within so many ms? */
bool test_readable(int fd, int ms);

/* ---- who was in, when, with how many others ---- */

struct log {
    _Atomic unsigned count, inside, most, by_look;
    char letters[1024]; /* of those that got in, in that order */
};
void log_clear(struct log *log);
void log_enter(struct log *log, char letter);
void log_leave(struct log *log);

/* ---- children that hold and wait ---- */

struct locker {
    char letter; /* for the log; 0: none */
    struct log *log;
    struct flk_want wants[4];
    int64_t timeout_ms;
    bool brief; /* releases at once */
    bool early; /* and exits when told by locker_release() without releasing */
    pid_t pid;
    int socket;
};

/* Starts a child that makes a request and says how far the first step got: 'h' it holds, 'q' it queues, 'e' it failed.
 */
char locker_start(struct locker *locker);
/* Waits until it holds: 0, or its error. */
int locker_wait(struct locker *locker);
/* Whether it has said nothing yet. */
bool locker_waits(struct locker *locker);
void locker_release(struct locker *locker); /* comes back when that is done and the child has ended */
void locker_kill(struct locker *locker); /* -9, and reaps it */

#endif
