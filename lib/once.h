/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Build once: look, lock, look again, build, publish. What flk_once() and `flockctl once` share.
 *
 * States of an output for a key (and an age):
 *   ready      it is there and current (stamp.h): who looks goes on at once, without any lock
 *   building   one process has its lock (output.h) exclusively and makes it at a private path (publish.h)
 *   (else)     it isn't there or isn't current, and nobody builds
 * Who finds it not ready tries to get the lock exclusively, without waiting: one builds. The others wait for it shared, so that the
 * end of the build lets all of them through, one behind the other, none waiting for what the one before does with it;
 * those who use the output meanwhile (shared, too) hold up nobody who finds it ready. Who comes through and finds it ready is
 * done. Who finds that the run which it waited for has failed takes that failure (failure.h). Who finds neither, since the builder
 * was killed, was interrupted, or built for another key, queues for the exclusive lock and looks again.
 *
 * A crash at any point: the kernel frees the lock (unless what the builder has started lives and has inherited it; then that is
 * waited for), and what is left on disk is what publish.h says. */
#ifndef FK_ONCE_H
#define FK_ONCE_H

#include <stdbool.h>

#include "failure.h"
#include "flockctl.h"
#include "output.h"
#include "stamp.h"

/* One run. The builder may change the key, which is the stamp's. */
struct fk_build {
    const char *path; /* to be made */
    struct flk_hold *hold;
    const char *key;
    bool unshared; /* a failure isn't the fault of the build (somebody ended it): those who wait try themselves */
    size_t length; /* of what it has printed last, for those who wait; said NULL: nothing */
    const char *said;
};

struct fk_once {
    const struct fk_output *output;
    struct fk_wanted wanted;
    const struct flk_options *options;
    unsigned flags;    /* enum flk_once_flags */
    unsigned how;      /* enum fk_acquire_flags */
    int (*build)(struct fk_build *build, void *data); /* not 0: failed, see below */
    void *data;
};

enum fk_once_end { FK_ONCE_READY, FK_ONCE_BUILT, FK_ONCE_FAILED, FK_ONCE_FAILED_ELSEWHERE };

struct fk_once_result {
    enum fk_once_end end; /* FAILED: the builder gave code; FAILED_ELSEWHERE: so did the one that was waited for */
    int code;
    struct fk_identity identity; /* READY, BUILT */
    struct fk_failure failure; /* FAILED_ELSEWHERE */
};
/* 0 and *result, or an error of the lock (-EBUSY, -ETIMEDOUT, -EDEADLK and so on), of looking or of publishing, with a sentence. */
int fk_once(const struct fk_once *once, int64_t timeout_ms, struct fk_once_result *result);

/* The shared lock of an output that is there. how: enum fk_acquire_flags. */
int fk_once_use(const struct fk_output *output, const struct flk_options *options, unsigned how, int64_t timeout_ms,
                struct flk_hold **hold);

#endif
