/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cancel.h"
#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "hold.h"
#include "registry.h"
#include "removal.h"
#include "request.h"
#include "root.h"
#include "run.h"
#include "state.h"

#define PATIENCE_MS 100 /* with an owner that is exiting: what is left of that takes less than one */
#define GRACE_MS 2000   /* of a command that had its time */
#define LONGEST_PAUSE (3600 * FK_SECOND)
#define FIRST_LOOK FK_MS
#define LONGEST_LOOK (50 * FK_MS)
#define WAIT_BEYOND (15 * FK_SECOND) /* how much longer than a command may take somebody else's is waited for */
#define REST_EVERY (60 * FK_SECOND)
#define OWN_PATIENCE (10 * FK_SECOND)  /* with those that have the lock of what is ours: they merely look */
#define STRAY_PATIENCE FK_SECOND       /* with a row that is being exchanged or removed */

int fk_reap_output = -1;
void (*fk_reap_teller)(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data);

/* One that somebody else is cleaning up. */
struct busy {
    char id[FLK_ID_SIZE];
    int64_t until;
};

struct fk_reap {
    struct fk_reap_spec spec;
    struct fk_state_walk walk;
    uint64_t generation;
    int64_t started_ns; /* of CLOCK_REALTIME */
    unsigned cleaned, remaining; /* remaining: items that the current directory still has */
    /* the item in hand */
    int fd;
    char id[FLK_ID_SIZE];
    struct fk_item item;
    const char *reason; /* why its owner is taken for dead or alive */
    struct flk_run *run;
    struct flk_hold *lent;
    const char **env;
    /* what others are at */
    struct busy *busy;
    size_t n_busy, room, again; /* again: how many of them are to be looked at in this round */
    int64_t look_at, pause, until; /* until: of the one in hand; 0: it isn't one of them */
};

static int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * FK_SECOND + now.tv_nsec;
}

/* ---- telling ---- */

static void tell(const struct fk_reap *reap, enum fk_reap_result result, const char *detail)
{
    const struct fk_item *item = &reap->item;
    static const char *const none[] = {NULL};
    if (!reap->spec.tell)
        return;
    const struct flk_state state = {
        .id = reap->id,
        .name = item->name ? item->name : reap->walk.name,
        .label = item->label ? item->label : "",
        .command = item->command ? item->command : "",
        .paths = item->paths ? item->paths : none,
        .owner = item->owner.pid,
        .alive = result == FK_REAP_ALIVE || result == FK_REAP_DAMAGED,
        .reason = reap->reason ? reap->reason : "",
        .failures = item->failures,
        .attempts = item->attempts,
        .cleaning = result == FK_REAP_BUSY,
        .since_ms = item->since_ns / FK_MS,
        .retry_ms = item->retry_ns / FK_MS,
        .problem = result == FK_REAP_DAMAGED ? detail : NULL,
    };
    reap->spec.tell(&state, result, detail, reap->spec.data);
}

/* ---- one item ---- */

/* The lock of an item of ours stays. */
static void put_down(struct fk_reap *reap)
{
    fk_item_clear(&reap->item);
    free(reap->env);
    reap->env = NULL;
    if (reap->fd >= 0 && reap->fd == fk_state_own_fd(reap->id)) {
        flock(reap->fd, LOCK_SH | LOCK_NB);
        reap->fd = -1;
    }
    fk_fd_close(&reap->fd);
}

static int64_t pause_after(unsigned failures)
{
    int64_t pause = failures > 12 ? LONGEST_PAUSE : FK_SECOND << (failures - 1);
    return pause < LONGEST_PAUSE ? pause : LONGEST_PAUSE;
}

/* Others needn't wait for it while somebody is told, who may not read that (a pipe that is full). */
static void let_go(struct fk_reap *reap)
{
    bool own = reap->fd == fk_state_own_fd(reap->id);
    flock(reap->fd, own ? LOCK_SH | LOCK_NB : LOCK_UN);
}

static void fail_item(struct fk_reap *reap, const char *detail)
{
    reap->item.failures++;
    reap->item.retry_ns = wall_ns() + pause_after(reap->item.failures);
    fk_item_update(reap->fd, &reap->item);
    let_go(reap);
    tell(reap, FK_REAP_FAILED, detail);
    put_down(reap);
}

/* Its row may have been resized or removed meanwhile, and the item moved along. */
static void unlink_item(const struct fk_reap *reap)
{
    if (unlinkat(reap->walk.directory, reap->id, 0) == 0 || errno != ENOENT)
        return;
    for (int64_t until = fk_now() + STRAY_PATIENCE; !fk_item_is_gone(reap->fd) && fk_now() < until; fk_poll_until(NULL, 0, fk_now() + FIRST_LOOK))
        fk_state_unlink(reap->id);
}

static void finish_item(struct fk_reap *reap)
{
    unlink_item(reap);
    if (reap->fd == fk_state_own_fd(reap->id))
        reap->fd = -1;
    fk_state_forget(reap->id);
    tell(reap, FK_REAP_CLEANED, NULL);
    reap->cleaned++;
    reap->remaining--;
    put_down(reap);
}

static void remove_paths(struct fk_reap *reap)
{
    int code = 0;
    for (const char **path = reap->item.paths; *path && code == 0; path++)
        code = fk_remove_path(*path);
    if (code < 0)
        fail_item(reap, flk_error_detail());
    else
        finish_item(reap);
}

/* ---- its command ---- */

/* What says where the one that registered it stood among others doesn't hold for us. */
static bool is_passed_on(const char *assignment)
{
    static const char *const ours[] = {"HELD=", "DEADLINE=", "OWNER=", "DIR=", "STATE_"};
    if (strncmp(assignment, "FLOCKCTL_", 9) != 0)
        return true;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strncmp(assignment + 9, ours[i], strlen(ours[i])) == 0)
            return false;
    return true;
}

/* The strings stand behind the array. */
static int make_environment(struct fk_reap *reap)
{
    const struct fk_item *item = &reap->item;
    const char *root, *held = getenv("FLOCKCTL_HELD");
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    size_t count = 0, size = strlen(root) + strlen(reap->id) + strlen(item->label ? item->label : "") +
                             strlen(held ? held : "") + 256;
    while (item->env[count])
        count++;
    reap->env = malloc((count + 6) * sizeof *reap->env + size);
    if (!reap->env)
        return fk_fail(-ENOMEM, "out of memory");
    const char **next = reap->env;
    char *text = (char *)(reap->env + count + 6), *end = text + size;
    for (const char **at = item->env; *at; at++)
        if (is_passed_on(*at))
            *next++ = *at;
#define PUT(...) (*next++ = text, text += snprintf(text, (size_t)(end - text), __VA_ARGS__) + 1)
    PUT("FLOCKCTL_DIR=%s", root);
    PUT("FLOCKCTL_STATE_ID=%s", reap->id);
    PUT("FLOCKCTL_STATE_ATTEMPT=%u", item->attempts);
    if (item->label)
        PUT("FLOCKCTL_STATE_LABEL=%s", item->label);
    if (held && *held)
        PUT("FLOCKCTL_HELD=%s", held);
#undef PUT
    *next = NULL;
    return 0;
}

static struct flk_hold *hold_for(struct fk_reap *reap)
{
    const char *name = reap->walk.name;
    if (reap->spec.hold || !name || !(reap->spec.flags & FK_REAP_LEND))
        return reap->spec.hold;
    const struct flk_want want = {.name = name};
    if (!reap->lent && fk_acquire_many(&want, 1, NULL, FK_WITHOUT_REAPING, 0, &reap->lent) < 0)
        reap->lent = NULL;
    return reap->lent;
}

static void start_command(struct fk_reap *reap)
{
    FK_CLOSE_FD int null = fk_fd_open(AT_FDCWD, "/dev/null", O_RDWR, 0);
    const int output = fk_reap_output >= 0 ? fk_reap_output : null;
    const char *const argv[] = {"/bin/sh", "-c", reap->item.command, NULL};
    int code = null < 0 ? fk_fail_errno(null, "can't open /dev/null") : make_environment(reap);
    const struct flk_run_spec spec = {
        .argv = argv,
        .envp = reap->env,
        .dir = reap->item.dir,
        .fds = (const int[]){null, output, output},
        .hold = hold_for(reap),
        .limit_ms = reap->item.limit_ms,
        .kill_after_ms = GRACE_MS,
        .flags = FLK_RUN_PGRP,
    };
    if (code == 0)
        code = fk_run_start_cleanup(&spec, reap->fd, &reap->run);
    if (code < 0)
        fail_item(reap, flk_error_detail());
}

static void judge_command(struct fk_reap *reap, int code, const struct flk_run_result *result)
{
    char text[128];
    if (code < 0) {
        fail_item(reap, flk_error_detail());
        return;
    }
    if (!result->timed_out && !result->signal && result->exit_code == 0) {
        reap->item.ran = true;
        if (reap->item.paths[0])
            fk_item_update(reap->fd, &reap->item);
        remove_paths(reap);
        return;
    }
    if (result->timed_out)
        snprintf(text, sizeof text, "its command wasn't done in %lld.%03lld s, and was ended",
                 (long long)reap->item.limit_ms / 1000, (long long)reap->item.limit_ms % 1000);
    else if (result->signal)
        snprintf(text, sizeof text, "its command died of signal %d", result->signal);
    else
        snprintf(text, sizeof text, "its command failed with exit status %d", result->exit_code);
    fail_item(reap, text);
}

/* False: it still runs. */
static bool look_at_command(struct fk_reap *reap)
{
    struct flk_run_result result;
    int code = flk_run_wait(reap->run, 0, &result);
    if (code == -EAGAIN)
        return false;
    struct flk_run *run = reap->run;
    reap->run = NULL;
    judge_command(reap, code, &result);
    flk_run_free(run);
    return true;
}

/* Locked, dead, whole: the attempt begins. */
static void begin_item(struct fk_reap *reap)
{
    if (reap->spec.flags & FK_REAP_DRY_RUN) {
        tell(reap, FK_REAP_WOULD, NULL);
        reap->cleaned++;
        put_down(reap);
        return;
    }
    reap->item.attempts++;
    bool runs = reap->item.command && !reap->item.ran;
    int code = runs ? fk_item_update(reap->fd, &reap->item) : 0;
    if (code < 0) {
        fk_fail_errno(code, "can't write down that it is cleaned up");
        tell(reap, FK_REAP_FAILED, flk_error_detail());
        put_down(reap);
    } else if (runs) {
        start_command(reap);
    } else {
        remove_paths(reap);
    }
}

/* ---- whose is it, and may we ---- */

static bool is_this_process(const struct fk_owner *owner)
{
    const struct fk_owner *self;
    return fk_owner_self(&self) == 0 && owner->pid == self->pid && owner->pid_ns == self->pid_ns &&
           owner->start_time == self->start_time && owner->pidfd_inode == self->pidfd_inode &&
           strcmp(owner->boot_id, self->boot_id) == 0;
}

static void note_busy(struct fk_reap *reap)
{
    int64_t until = reap->until ? reap->until : fk_now() + reap->item.limit_ms * FK_MS + WAIT_BEYOND;
    if (reap->n_busy == reap->room) {
        size_t room = reap->room ? 2 * reap->room : 16;
        struct busy *busy = reallocarray(reap->busy, room, sizeof *busy);
        if (!busy)
            return;
        reap->busy = busy;
        reap->room = room;
    }
    strcpy(reap->busy[reap->n_busy].id, reap->id);
    reap->busy[reap->n_busy++].until = until;
}

static enum fk_grip grip_within(int fd, int64_t patience)
{
    int64_t until = fk_now() + patience;
    enum fk_grip how = fk_item_grip(fd, true);
    for (; how != FK_GRIP_OURS && fk_now() < until; how = fk_item_grip(fd, true))
        fk_poll_until(NULL, 0, fk_now() + FIRST_LOOK);
    return how;
}

/* True: its owner is dead, and LOCK_EX is ours if we keep it. Its lock is tried only then: one that is alive is never locked, not for
 * a moment; and a process that is proven dead has let go of its own. */
static bool take_item(struct fk_reap *reap, bool keep)
{
    const struct fk_item *item = &reap->item;
    bool own = is_this_process(&item->owner);
    reap->reason = own ? "it is this process" : "it isn't known yet";
    if (reap->spec.flags & FK_REAP_OWN) {
        int fd = own ? fk_state_own_fd(reap->id) : -1;
        if (fd >= 0) {
            fk_fd_close(&reap->fd);
            reap->fd = fd;
        }
        return own && grip_within(reap->fd, OWN_PATIENCE) == FK_GRIP_OURS;
    }
    if (own || fk_item_judge(item, false, PATIENCE_MS, &reap->reason) != FK_DEAD) {
        tell(reap, FK_REAP_ALIVE, reap->reason);
        return false;
    }
    enum fk_grip how = fk_item_grip(reap->fd, keep);
    if (how == FK_GRIP_OWNERS) {
        fk_item_judge(item, true, 0, &reap->reason);
        tell(reap, FK_REAP_ALIVE, reap->reason);
    } else if (how == FK_GRIP_REAPERS) {
        if ((reap->spec.flags & FK_REAP_WAIT) && (reap->until == 0 || fk_now() < reap->until))
            note_busy(reap);
        else
            tell(reap, FK_REAP_BUSY, "it is being cleaned up");
    }
    return how == FK_GRIP_OURS;
}

/* It has failed, and it isn't yet time; or somebody else has tried it since we were asked to. */
static bool is_early(const struct fk_reap *reap)
{
    const struct fk_item *item = &reap->item;
    int64_t now = wall_ns();
    if (item->failures == 0 || item->retry_ns <= now || item->retry_ns > now + LONGEST_PAUSE)
        return false;
    return !(reap->spec.flags & FK_REAP_NOW) || item->retry_ns - pause_after(item->failures) >= reap->started_ns;
}

static int read_item(struct fk_reap *reap, bool whole)
{
    fk_item_clear(&reap->item);
    int code = fk_item_read(reap->fd, whole, &reap->item);
    if (code < 0) {
        fk_item_complain(reap->walk.name, reap->id, code);
        tell(reap, FK_REAP_DAMAGED, flk_error_detail());
    }
    return code;
}

static void see_to(struct fk_reap *reap)
{
    reap->fd = fk_fd_open(reap->walk.directory, reap->id, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    if (reap->fd == -ENOENT) {
        reap->remaining--;
        return;
    }
    if (reap->fd < 0) {
        fk_item_complain(reap->walk.name, reap->id, reap->fd);
        tell(reap, FK_REAP_DAMAGED, flk_error_detail());
        return;
    }
    if (read_item(reap, false) < 0) {
        put_down(reap);
        return;
    }
    bool early = is_early(reap), dry_run = reap->spec.flags & FK_REAP_DRY_RUN;
    if (!take_item(reap, !early && !dry_run)) {
        put_down(reap);
    } else if (fk_item_is_gone(reap->fd)) {
        reap->remaining--;
        put_down(reap);
    } else if (read_item(reap, true) < 0) {
        put_down(reap);
    } else if (early || is_early(reap)) {
        tell(reap, FK_REAP_LATER, "its pause isn't over");
        put_down(reap);
    } else {
        begin_item(reap);
    }
}

/* ---- all of them ---- */

/* What others were at: is it time to look again, and at which? */
static int next_busy(struct fk_reap *reap)
{
    if (reap->n_busy == 0)
        return 0;
    if (reap->again == 0) {
        if (fk_now() < reap->look_at)
            return -EAGAIN;
        reap->again = reap->n_busy;
        reap->pause = reap->pause * 2 < LONGEST_LOOK ? reap->pause * 2 : LONGEST_LOOK;
        reap->look_at = fk_now() + reap->pause;
    }
    reap->again--;
    memcpy(reap->id, reap->busy[0].id, sizeof reap->id);
    reap->until = reap->busy[0].until;
    memmove(reap->busy, reap->busy + 1, --reap->n_busy * sizeof *reap->busy);
    return 1;
}

static void leave_directory(struct fk_reap *reap)
{
    flk_hold_decline(reap->lent);
    reap->lent = NULL;
    if (reap->walk.name && reap->remaining == 0 && !(reap->spec.flags & FK_REAP_DRY_RUN))
        fk_state_tidy(reap->walk.name);
}

static int next_directory(struct fk_reap *reap)
{
    reap->remaining = 0;
    reap->pause = FIRST_LOOK;
    reap->look_at = 0;
    return fk_state_walk_directory(&reap->walk);
}

/* 1: the item is in reap->id; 0: there are no more; -EAGAIN: those that are left others are at. */
static int next_item(struct fk_reap *reap)
{
    int code = 1;
    while (code > 0) {
        const char *entry = reap->walk.items ? fk_state_walk_entry(&reap->walk) : NULL;
        if (entry && entry[0] == '.') {
            fk_state_sweep(reap->walk.directory, entry, false);
        } else if (entry) {
            snprintf(reap->id, sizeof reap->id, "%s", entry);
            reap->until = 0;
            reap->remaining++;
            return 1;
        } else {
            code = reap->walk.items ? next_busy(reap) : 0;
            if (code != 0)
                return code;
            if (reap->walk.items)
                leave_directory(reap);
            code = next_directory(reap);
        }
    }
    return code;
}

int fk_reap_start(const struct fk_reap_spec *spec, struct fk_reap **out)
{
    struct fk_reap *reap = calloc(1, sizeof *reap);
    if (!reap)
        return fk_fail(-ENOMEM, "out of memory");
    reap->spec = *spec;
    reap->generation = fk_registry_generation();
    reap->started_ns = wall_ns();
    reap->fd = -1;
    int code = fk_state_walk_begin(&reap->walk, spec->name);
    if (code < 0)
        fk_reap_end(reap);
    else
        *out = reap;
    return code;
}

int fk_reap_step(struct fk_reap *reap)
{
    for (;;) {
        if (reap->run && !look_at_command(reap))
            return -EAGAIN;
        int code = next_item(reap);
        if (code <= 0)
            return code < 0 ? code : (int)reap->cleaned;
        see_to(reap);
        if (reap->spec.flags & FK_REAP_SINGLY)
            return -EAGAIN;
    }
}

int fk_reap_fd(const struct fk_reap *reap)
{
    return reap->run ? flk_run_fd(reap->run) : -1;
}

int64_t fk_reap_wake_at(const struct fk_reap *reap)
{
    return reap->run ? FK_NEVER : reap->n_busy > 0 ? reap->look_at : 0;
}

void fk_reap_end(struct fk_reap *reap)
{
    if (!reap)
        return;
    flk_run_free(reap->run);
    flk_hold_decline(reap->lent);
    if (reap->generation == fk_registry_generation()) {
        put_down(reap);
        fk_state_walk_end(&reap->walk);
    }
    fk_item_clear(&reap->item); /* of a copy that a fork has made, whose descriptors are closed, it is all there is */
    free(reap->env);
    free(reap->busy);
    free(reap);
}

static void end_at(struct fk_reap **reap)
{
    fk_reap_end(*reap);
}

int fk_reap_run(const struct fk_reap_spec *spec, int cancel_fd)
{
    FK_ENTER();
    __attribute__((cleanup(end_at))) struct fk_reap *reap = NULL;
    int code = fk_reap_start(spec, &reap);
    if (code < 0)
        return code;
    while ((code = fk_reap_step(reap)) == -EAGAIN) {
        struct pollfd polls[] = {{.fd = fk_reap_fd(reap), .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
        int ready = fk_cancel_poll(polls, 2, fk_reap_wake_at(reap));
        code = ready < 0 ? fk_fail_errno(ready, "can't wait for a cleanup") : 0;
        if (code == 0 && polls[1].revents)
            code = fk_fail(-ECANCELED, "the cleaning up was cancelled");
        if (code < 0)
            break;
    }
    return code;
}

static int reap_own(const char *name, struct flk_hold *hold)
{
    const struct fk_reap_spec spec = {.name = name, .hold = hold, .flags = FK_REAP_OWN | FK_REAP_NOW, .tell = fk_reap_teller};
    int code = fk_reap_run(&spec, -1);
    return code < 0 ? code : 0;
}

int fk_reap_own(struct flk_hold *hold)
{
    int code = 0;
    if (!hold)
        return fk_state_has_nameless() ? reap_own("", NULL) : 0;
    for (size_t i = 0; code == 0 && i < hold->n_parts; i++) {
        const struct fk_part *part = &hold->parts[i];
        if (fk_state_is_marked(part->outer ? part->outer : part->row))
            code = reap_own(part->name, hold);
    }
    return code;
}

/* ---- whose turn is it ---- */

bool fk_reap_is_inside(void)
{
    const char *id = getenv("FLOCKCTL_STATE_ID");
    return id && *id;
}

/* The time of the last one is that of the file. */
static bool claim(int fd)
{
    struct stat status;
    int64_t now = wall_ns();
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &status) < 0)
        return false;
    int64_t since = now - ((int64_t)status.st_mtim.tv_sec * FK_SECOND + status.st_mtim.tv_nsec);
    return (status.st_size == 0 || since < 0 || since >= REST_EVERY) && fk_fd_write_at(fd, "\n", 1, 0) == 0;
}

bool fk_reap_is_due(void)
{
    static _Atomic int64_t next;
    const char *root;
    int64_t now = fk_now();
    if (now < atomic_load(&next) || fk_reap_is_inside() || fk_root_path(&root) < 0)
        return false;
    atomic_store(&next, now + REST_EVERY);
    const char *path = FK_ROOT_BELOW(root, "/reaped");
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600 | S_ISVTX);
    return fd >= 0 && claim(fd);
}

/* ---- by hand ---- */

int flk_reap(const char *name, int dry_run)
{
    return fk_reap_run(&(struct fk_reap_spec){.name = name, .flags = FK_REAP_NOW | FK_REAP_LEND | (dry_run ? FK_REAP_DRY_RUN : 0)},
                       -1);
}
