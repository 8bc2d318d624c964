/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "once.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "hold.h"
#include "publish.h"
#include "ready.h"
#include "registry.h"
#include "request.h"

/* ---- one run ---- */

static struct fk_stamp_spec *stamp_of(const struct fk_once *once, const struct fk_build *build,
                                      struct fk_stamp_spec *stamp)
{
    *stamp = (struct fk_stamp_spec){.key = build->key};
    bool only_age = !once->wanted.key && once->wanted.max_age_ms;
    return build->key || only_age ? stamp : NULL;
}

static int build_and_publish(const struct fk_once *once, struct fk_build *build, struct fk_private *private,
                             struct fk_once_result *result)
{
    struct fk_stamp_spec stamp;
    int code = fk_private_open(once->output, flk_hold_id(build->hold), private);
    if (code < 0)
        return code;
    build->path = private->path;
    result->code = once->build(build, once->data);
    result->end = result->code ? FK_ONCE_FAILED : FK_ONCE_BUILT;
    return result->code ? 0 : fk_private_publish(private, stamp_of(once, build, &stamp), &result->identity);
}

/* For those who wait. */
static void leave_failure(const struct fk_once *once, const struct fk_build *build, int code)
{
    const char *said = build->said ? build->said : "", *id = flk_hold_id(build->hold);
    size_t length = build->said ? build->length : 0;
    if (code < 0) {
        said = flk_error_detail();
        length = strlen(said);
    }
    fk_failure_write(once->output, once->wanted.key, id, code, said, length);
}

/* The lock goes on as soon as the output is there: to remove the old one may take longer. What the builder has started and nobody
 * could end has the lock's descriptor still, but nothing to do with the output any more. */
static int run(const struct fk_once *once, struct flk_hold **hold, struct fk_once_result *result)
{
    FK_CLOSE_PRIVATE struct fk_private private = {.directory = -1};
    struct fk_build build = {.hold = *hold, .key = once->wanted.key};
    int code = build_and_publish(once, &build, &private, result);
    if (code < 0 || (result->code && !build.unshared))
        leave_failure(once, &build, code < 0 ? code : result->code);
    fk_hold_take_back(*hold);
    flk_hold_release(*hold);
    *hold = NULL;
    return code;
}

/* ---- who builds ---- */

struct attempt {
    const struct fk_once *once;
    struct fk_wanted wanted; /* since we have asked */
    struct fk_once_result *result;
    int64_t deadline;
    char noted[FLK_ID_SIZE]; /* the failure that was there before */
};

/* 1: it is ready. */
static int look(const struct attempt *attempt)
{
    const struct fk_once *once = attempt->once;
    if (once->flags & FLK_ONCE_FORCE)
        return 0;
    attempt->result->end = FK_ONCE_READY;
    return fk_stamp_look(once->output->directory, once->output->name, &attempt->wanted, &attempt->result->identity);
}

/* 1: it is ready, or the run that was waited for has failed. */
static int look_after_wait(const struct attempt *attempt)
{
    const struct fk_once *once = attempt->once;
    struct fk_once_result *result = attempt->result;
    int found = look(attempt);
    if (found != 0 || (once->flags & FLK_ONCE_RETRY) ||
        !fk_failure_read(once->output, once->wanted.key, attempt->noted, &result->failure))
        return found;
    result->end = FK_ONCE_FAILED_ELSEWHERE;
    result->code = result->failure.code;
    return 1;
}

static int64_t left_ms(const struct attempt *attempt)
{
    int64_t left = fk_deadline_left_ms(attempt->deadline);
    return left == FK_NEVER ? FLK_FOREVER : left > 0 ? left : 1; /* 0 would be to try once, another thing */
}

static int acquire(const struct attempt *attempt, bool shared, int64_t timeout_ms, struct flk_hold **hold)
{
    const struct fk_once *once = attempt->once;
    return fk_acquire_output(once->output, shared, once->options, shared ? 0 : once->how, timeout_ms, hold);
}

/* Lets itself be let through by the end of the build. 1, as look_after_wait(). */
static int pass(const struct attempt *attempt)
{
    FLK_AUTO_RELEASE struct flk_hold *hold = NULL;
    int code = acquire(attempt, true, left_ms(attempt), &hold);
    return code < 0 ? code : look_after_wait(attempt);
}

/* *hold NULL: there is nothing to be built (1), or an error. */
static int wait_for_turn(const struct attempt *attempt, struct flk_hold **hold)
{
    int code = attempt->once->flags & FLK_ONCE_FORCE ? 0 : pass(attempt);
    if (code == 0)
        code = acquire(attempt, false, left_ms(attempt), hold);
    return code == 0 ? look_after_wait(attempt) : code;
}

int fk_once(const struct fk_once *once, int64_t timeout_ms, struct fk_once_result *result)
{
    FLK_AUTO_RELEASE struct flk_hold *hold = NULL;
    struct attempt attempt = {
        .once = once, .wanted = once->wanted, .result = result, .deadline = fk_deadline_in_ms(timeout_ms)};
    attempt.wanted.asked_ns = fk_stamp_now();
    *result = (struct fk_once_result){.end = FK_ONCE_READY};
    int found = look(&attempt);
    if (found != 0)
        return found < 0 ? found : 0;
    fk_failure_note(once->output, attempt.noted);
    int code = acquire(&attempt, false, 0, &hold);
    if (code == 0)
        code = look(&attempt);
    else if (code == -EBUSY && timeout_ms != 0)
        code = wait_for_turn(&attempt, &hold);
    if (code != 0)
        return code < 0 ? code : 0;
    return run(once, &hold, result);
}

int fk_once_use(const struct fk_output *output, const struct flk_options *options, unsigned how, int64_t timeout_ms,
                struct flk_hold **out)
{
    FLK_AUTO_RELEASE struct flk_hold *hold = NULL;
    struct fk_identity identity;
    struct fk_stamp stamp;
    int code = fk_acquire_output(output, true, options, how, timeout_ms, &hold);
    if (code == 0)
        code = fk_stamp_look(output->directory, output->name, &(struct fk_wanted){.key = NULL}, &identity);
    if (code == 0)
        return fk_fail(-ENOENT, "%s isn't there, so it can't be used; build it first", output->shown);
    if (code < 0)
        return code;
    if (fk_stamp_open(output->directory, output->name, &stamp) == 0) {
        fk_stamp_use(&stamp);
        fk_stamp_close(&stamp);
    }
    *out = hold;
    hold = NULL;
    return 0;
}

/* ---- the public calls ---- */

static void free_result(struct fk_once_result **result)
{
    free(*result);
}
#define FK_FREE __attribute__((cleanup(free_result)))

/* What the host's builder is called with, and in: with the thread's cancellation as it was. */
struct host {
    const struct flk_once_spec *spec;
    const int *cancellation;
};

static int build_for_host(struct fk_build *build, void *data)
{
    const struct host *host = data;
    fk_cancel_restore(host->cancellation);
    int code = host->spec->build(build->path, host->spec->data);
    fk_cancel_off();
    return code;
}

static int check_spec(const struct flk_once_spec *spec)
{
    bool unknown = spec->reserved0 || (spec->flags & ~(unsigned)(FLK_ONCE_FORCE | FLK_ONCE_RETRY));
    for (size_t i = 0; i < sizeof spec->reserved / sizeof *spec->reserved; i++)
        unknown |= spec->reserved[i] != 0;
    if (unknown)
        return fk_fail(-EINVAL, "the specification of the build uses something that this release doesn't know");
    if (!spec->output || !spec->build)
        return fk_fail(-EINVAL, "there is no %s; give one", spec->output ? "builder" : "output");
    if (spec->max_age_ms < 0)
        return fk_fail(-EINVAL, "an age of %lld ms can't be; give 0 for any", (long long)spec->max_age_ms);
    return 0;
}

/* One that was let off by another's failure is told of that one. */
static int tell_failure(const struct fk_output *output, const struct fk_once_result *result)
{
    const struct fk_failure *failure = &result->failure;
    const char *said = failure->said;
    size_t room = FK_DETAIL_SIZE / 2, length = failure->length;
    if (length > room) {
        said += length - room;
        length = room;
    }
    return fk_fail(result->code, "the build of %s by pid %d (%.200s) has failed with %d%s%.*s", output->shown,
                   (int)failure->builder.owner.pid, failure->builder.command, result->code,
                   length > 0 ? "; it has said at last: " : "", (int)length, said);
}

static int once_for_host(const struct fk_output *output, const struct flk_once_spec *spec, const int *cancellation,
                         int64_t timeout_ms)
{
    FK_FREE struct fk_once_result *result = malloc(sizeof *result);
    struct host host = {.spec = spec, .cancellation = cancellation};
    const struct fk_once once = {
        .output = output,
        .wanted = {.key = spec->key, .max_age_ms = spec->max_age_ms},
        .options = spec->options,
        .flags = spec->flags,
        .build = build_for_host,
        .data = &host,
    };
    int code = result ? fk_once(&once, timeout_ms, result) : fk_fail(-ENOMEM, "out of memory");
    if (code == 0 && result->end == FK_ONCE_FAILED_ELSEWHERE)
        tell_failure(output, result);
    if (code == 0)
        code = result->code;
    if (code == 0)
        fk_ready_put(spec->output, spec->key, &result->identity);
    return code;
}

/* What this process found ready before; a look at the file says whether it is so still. */
static bool is_remembered(const struct flk_once_spec *spec)
{
    return !(spec->flags & FLK_ONCE_FORCE) && spec->max_age_ms == 0 && fk_ready_get(spec->output, spec->key, 0);
}

int flk_once(const struct flk_once_spec *spec, int64_t timeout_ms)
{
    FK_ENTER();
    FK_CLOSE_OUTPUT struct fk_output output = {.directory = -1};
    int code = check_spec(spec);
    if (code == 0 && is_remembered(spec))
        return 0;
    if (code == 0)
        code = fk_output_open(spec->output, &output);
    return code < 0 ? code : once_for_host(&output, spec, &cancellation, timeout_ms);
}

int flk_once_use(const char *path, int64_t timeout_ms, struct flk_hold **hold)
{
    FK_ENTER();
    FK_CLOSE_OUTPUT struct fk_output output = {.directory = -1};
    int code = fk_output_open(path, &output);
    return code < 0 ? code : fk_once_use(&output, NULL, 0, timeout_ms, hold);
}
