/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "request.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/timerfd.h>
#include <time.h>

#include "cancel.h"
#include "deadline.h"
#include "deadlock.h"
#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "hold.h"
#include "id.h"
#include "inspect.h"
#include "log.h"
#include "owner.h"
#include "pool.h"
#include "queue.h"
#include "reap.h"
#include "registry.h"
#include "shared.h"
#include "slot.h"
#include "state.h"
#include "trial.h"
#include "values.h"

#define LOOK_EVERY FK_SECOND
#define LATCH_PATIENCE (10 * FK_MS) /* of one step; should its holder be stopped, we come back */
#define SEARCH_PATIENCE (100 * FK_MS) /* a thousand may search at the same time */

enum place { NEWCOMER, QUEUED, HEAD };

struct flk_request {
    uint64_t generation;
    struct fk_part *parts; /* in the order asked for */
    size_t n_parts, current;
    size_t *order, only_order; /* indices of parts, by name */
    char id[FLK_ID_SIZE];
    char *label, *command;
    int cancel_fd;
    unsigned how; /* enum fk_acquire_flags */
    bool blocking; /* nothing else is done by this thread meanwhile */
    void (*waiting)(const struct flk_waiting *waiting, void *data);
    void *data;
    int64_t started, deadline; /* deadline == started: try once */
    /* the wait for the current part */
    enum place place;
    struct fk_ticket ticket;
    struct fk_watch watch;
    struct pollfd *busy; /* as head: slots that aren't free; before that: all */
    unsigned n_busy;
    int64_t next_look, next_message;
    bool latch_was_taken;
    struct fk_trial trial; /* of slots of a pool with a check */
    bool hurry; /* this step is the last */
    struct fk_deadlock deadlock;
    bool looked;   /* for a deadlock, with this ticket */
    bool noted;    /* in the history, that the current part is waited for */
    int64_t part_started;
    /* cleaning up: before the hold is handed out what its names' dead owners left; while it waits what all did */
    struct flk_hold *hold; /* served, and not yet handed out */
    size_t reaped;         /* parts of it that have been seen to */
    struct fk_reap *reap;
    bool reaps_own; /* what reap does belongs to the current part's name */
    int64_t next_own;
    /* for flk_request_fd() */
    int epoll, timer;
    int *entered;
    size_t n_entered;
};

_Atomic unsigned fk_request_let_in_by_look;

static bool tries_once(const struct flk_request *request)
{
    return request->deadline == request->started;
}

/* Which it does whatever its deadline says. */
static bool waits_for_check(const struct flk_request *request)
{
    return tries_once(request) && fk_trial_fd(&request->trial) >= 0;
}

static struct fk_part *current_part(const struct flk_request *request)
{
    return &request->parts[request->order[request->current]];
}

/* ---- start ---- */

static int check_want(const struct flk_want *want)
{
    if ((want->flags & ~(unsigned)FLK_SHARED) || want->reserved0 || want->reserved[0])
        return fk_fail(-EINVAL, "the request for %s uses something that this release doesn't know", want->name);
    size_t slots = want->pool ? want->pool->n_values : want->slots;
    if (slots && want->count != FLK_ALL && want->count > slots) /* said before it is made */
        return fk_fail(-EINVAL, "%u of %zu slots of %s can't be had; ask for fewer", want->count, slots, want->name);
    if ((want->flags & FLK_SHARED) && want->count > 1)
        return fk_fail(-EINVAL, "%s can't be both shared and counted; leave one out", want->name);
    if ((want->flags & FLK_SHARED) && slots > 1)
        return fk_fail(-EINVAL, "%s can't be shared with %zu slots; only a row of one can", want->name, slots);
    return 0;
}

/* Insertion sort: requests have a handful of names. */
static int sort_parts(struct flk_request *request)
{
    for (size_t i = 0; i < request->n_parts; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            int order = strcmp(request->parts[request->order[at - 1]].name, request->parts[i].name);
            if (order == 0)
                return fk_fail(-EINVAL, "%s is asked for twice; ask once, with a count", request->parts[i].name);
            if (order < 0)
                break;
            request->order[at] = request->order[at - 1];
        }
        request->order[at] = i;
    }
    return 0;
}

static int check_wants(const struct flk_want *wants, size_t n_wants)
{
    int code = n_wants > 0 ? 0 : fk_fail(-EINVAL, "nothing is asked for; give a name");
    for (size_t i = 0; code == 0 && i < n_wants; i++) {
        code = fk_row_check_name(wants[i].name);
        if (code == 0)
            code = check_want(&wants[i]);
    }
    return code;
}

/* The parts and, behind them in the same block, their names. */
static int copy_wants(struct flk_request *request, const struct flk_want *wants, size_t n_wants)
{
    size_t size = n_wants * sizeof *request->parts;
    for (size_t i = 0; i < n_wants; i++)
        size += strlen(wants[i].name) + 1;
    request->parts = calloc(1, size);
    request->order = n_wants == 1 ? &request->only_order : calloc(n_wants, sizeof *request->order);
    if (!request->parts || !request->order)
        return fk_fail(-ENOMEM, "out of memory");
    char *names = (char *)(request->parts + n_wants);
    for (size_t i = 0; i < n_wants; i++) {
        struct fk_part *part = &request->parts[i];
        part->name = part->text = names;
        names = stpcpy(names, wants[i].name) + 1;
        part->wanted = wants[i].count ? wants[i].count : 1;
        part->slots_wanted = wants[i].slots;
        part->ticket.fd = -1;
        part->shared = wants[i].flags & FLK_SHARED;
    }
    request->n_parts = n_wants;
    int code = sort_parts(request);
    for (size_t i = 0; code == 0 && i < n_wants; i++)
        if (wants[i].pool)
            code = fk_values_make(wants[i].name, wants[i].pool, &request->parts[i].values_wanted);
    return code;
}

static int copy_options(struct flk_request *request, const struct flk_options *options)
{
    if (!options)
        return 0;
    for (size_t i = 0; i < sizeof options->reserved / sizeof *options->reserved; i++)
        if (options->reserved[i])
            return fk_fail(-EINVAL, "the options use something that this release doesn't know");
    request->cancel_fd = options->cancel_fd ? *options->cancel_fd : -1;
    request->waiting = options->waiting;
    request->data = options->data;
    request->label = options->label ? strdup(options->label) : NULL;
    request->command = options->command ? strdup(options->command) : NULL;
    if ((options->label && !request->label) || (options->command && !request->command))
        return fk_fail(-ENOMEM, "out of memory");
    return 0;
}

static void set_times(struct flk_request *request, int64_t timeout_ms)
{
    request->started = fk_now();
    request->deadline = fk_deadline_in_ms(timeout_ms);
    if (timeout_ms == 0)
        request->deadline = request->started;
    request->next_look = request->started + LOOK_EVERY;
    request->next_message = request->waiting ? request->started + FK_SECOND : FK_NEVER;
}

/* Of wants that have been checked. */
static int start(const struct flk_want *wants, size_t n_wants, const struct flk_options *options, int64_t timeout_ms,
                 struct flk_request **out)
{
    struct flk_request *request = calloc(1, sizeof *request);
    if (!request)
        return fk_fail(-ENOMEM, "out of memory");
    request->generation = fk_registry_generation();
    request->ticket.fd = request->watch.fd = request->epoll = request->timer = request->cancel_fd = -1;
    request->deadlock.fd = -1;
    request->trial.retry_at = FK_NEVER;
    fk_registry_users(1);
    int code = copy_wants(request, wants, n_wants);
    if (code == 0)
        code = copy_options(request, options);
    const struct fk_owner *self; /* looked up now, not in the latch */
    if (code == 0)
        code = fk_owner_self(&self);
    if (code == 0 && !request->command)
        fk_owner_command(); /* the same */
    if (code < 0) {
        flk_request_cancel(request);
        return code;
    }
    fk_id_make(request->id);
    set_times(request, timeout_ms);
    *out = request;
    return 0;
}

int flk_request_start(const struct flk_want *wants, size_t n_wants, const struct flk_options *options,
                      int64_t timeout_ms, struct flk_request **out)
{
    FK_ENTER();
    int code = check_wants(wants, n_wants);
    return code < 0 ? code : start(wants, n_wants, options, timeout_ms, out);
}

/* ---- the row of the current part ---- */

static int cannot_draw(const struct flk_request *request, const struct fk_part *part, const struct fk_nest *nest)
{
    const char *what = NULL;
    char holder[176];
    snprintf(holder, sizeof holder, "pid %d (%.100s), whose command this runs under,", (int)nest->owner.pid,
             nest->command);
    if (request->how & FK_WHOLE_ROW)
        what = ", so the row can't be had whole meanwhile; change it outside of that command";
    else if (part->output && !nest->shared)
        return fk_fail(-EDEADLK, "%s builds %s, which can't be had before; a build mustn't need its own output", holder,
                       part->name);
    else if (part->output && !part->shared)
        return fk_fail(-EDEADLK, "%s uses %s, so it can't be built meanwhile; build it before", holder, part->name);
    else if (nest->shared && !part->shared)
        what = " shared, so it can't be had alone meanwhile; acquire it exclusively there";
    if (what)
        return fk_fail(-EDEADLK, "%s holds %s%s", holder, part->name, what);
    if (part->wanted != FLK_ALL && part->wanted > nest->slots)
        return fk_fail(-EDEADLK, "%s holds %u slot%s of %s, so %u can't be had meanwhile; acquire more there", holder,
                       nest->slots, nest->slots == 1 ? "" : "s", part->name, part->wanted);
    return 0;
}

static int cannot_have(const struct fk_part *part, const struct fk_row *row)
{
    unsigned slots = row->slots;
    if (part->shared && fk_pool_checks(row))
        return fk_fail(-EINVAL, "%s has a check, which would find its value in use, so it can't be shared", part->name);
    if (part->shared && slots > 1)
        return fk_fail(-EINVAL, "%s has %u slots, so it can't be shared; only a row of one can", part->name, slots);
    if (part->wanted != FLK_ALL && part->wanted > slots && row->values)
        return fk_fail(-EINVAL, "%s has %u value%s, so %u can't be had; ask for fewer", part->name, slots,
                       slots == 1 ? "" : "s", part->wanted);
    if (part->wanted != FLK_ALL && part->wanted > slots)
        return fk_fail(-EINVAL, "%s has %u slot%s, so %u can't be had; ask for fewer, or: flockctl resize %s %u",
                       part->name, slots, slots == 1 ? "" : "s", part->wanted, part->name, part->wanted);
    return 0;
}

/* Again when the row has been replaced by a larger one. */
static int make_room(struct fk_part *part, unsigned count)
{
    if (part->slots && part->slots != &part->only_slot) {
        free(part->slots);
        free(part->fds);
    }
    part->slots = count == 1 ? &part->only_slot : malloc(count * sizeof *part->slots);
    part->fds = count == 1 ? &part->only_fd : malloc(count * sizeof *part->fds);
    if (part->slots && part->fds)
        return 0;
    free(part->slots);
    free(part->fds);
    part->slots = NULL;
    part->fds = NULL;
    return fk_fail(-ENOMEM, "out of memory");
}

static int find_row(const struct fk_part *part, struct fk_row **row)
{
    enum fk_row_create create = part->wanted > 1 ? FK_ROW_MAKE_DECLARED : FK_ROW_MAKE;
    if (part->output)
        return fk_row_open_output(part->output, row);
    return fk_row_open_pool(part->name, part->slots_wanted, part->values_wanted, create, row);
}

static int open_row(struct fk_part *part)
{
    struct fk_row *row;
    int code = find_row(part, &row);
    /* What can't be had of an idle one of ours may be had of the one that others have put in its place. */
    if (code == 0 && cannot_have(part, row) < 0 && fk_row_is_outdated(row))
        code = find_row(part, &row);
    if (code < 0)
        return code;
    code = cannot_have(part, row);
    if (code == 0)
        code = make_room(part, part->wanted == FLK_ALL ? row->slots : part->wanted);
    if (code < 0) {
        fk_registry_unref(row);
        return code;
    }
    part->row = row;
    return 0;
}

static void close_row(struct fk_part *part)
{
    if (part->row)
        fk_registry_unref(part->row);
    if (part->outer)
        fk_registry_unref(part->outer);
    fk_nest_free(part->nest, false);
    part->row = part->outer = NULL;
    part->nest = NULL;
}

/* The row below a hold of ours that covers what is wanted, if there is one. -ESTALE: that hold isn't there any more. */
static int open_nested_row(struct flk_request *request, struct fk_part *part)
{
    struct fk_row *row;
    int found = fk_nest_find(part->row, &part->nest);
    if (found <= 0)
        return found;
    int code = cannot_draw(request, part, part->nest);
    if (code == 0)
        code = fk_row_open_under(part->text, part->nest->id, part->nest->slots, part->nest->numbers, &row);
    if (code < 0)
        return code;
    part->outer = part->row;
    part->row = row;
    return make_room(part, part->wanted == FLK_ALL ? row->slots : part->wanted);
}

static int open_rows(struct flk_request *request, struct fk_part *part)
{
    int code;
    do {
        code = open_row(part);
        if (code == 0)
            code = open_nested_row(request, part);
        if (code < 0)
            close_row(part);
    } while (code == -ESTALE);
    return code;
}

static int want_count(const struct fk_part *part)
{
    return (int)(part->wanted == FLK_ALL ? part->row->slots : part->wanted);
}

static void leave_queue(struct flk_request *request)
{
    struct fk_part *part = request->current < request->n_parts ? current_part(request) : NULL;
    fk_deadlock_withdraw(&request->deadlock);
    request->looked = false;
    if (part)
        fk_trial_end(&request->trial, part->fds, false);
    request->trial.retry_at = FK_NEVER;
    if (part && part->row)
        fk_queue_leave(part->row, &request->ticket);
    fk_queue_unwatch(&request->watch);
    free(request->busy);
    request->busy = NULL;
    request->n_busy = 0;
    request->place = NEWCOMER;
}

static void start_over(struct flk_request *request, struct fk_part *part)
{
    leave_queue(request);
    fk_registry_retire(part->row);
    close_row(part);
}

/* ---- inside a section ---- */

static int write_record(const struct flk_request *request, const struct fk_part *part, unsigned wants, char *text,
                        size_t size)
{
    const struct fk_record_spec spec = {
        .id = request->id,
        .label = request->label,
        .command = request->command,
        .wants = wants,
        .shared = part->shared,
        .nests = !wants && (request->how & FK_FOR_COMMAND),
        .spreads = !wants && !part->shared && fk_pool_spreads(part->row),
    };
    return fk_record_write(text, size, &spec);
}

static void drop_slots(struct fk_part *part)
{
    for (unsigned i = 0; i < part->count; i++)
        fk_slot_drop(&part->fds[i]);
    part->count = 0;
}

/* Which of the outer hold's slots we have got. -ESTALE: its process died meanwhile, and nobody has kept them for us. */
static int draw(struct fk_part *part)
{
    if (!fk_nest_stands(part->nest))
        return -ESTALE;
    free(part->shown);
    part->shown = malloc(part->count * sizeof *part->shown);
    if (!part->shown)
        return fk_fail(-ENOMEM, "out of memory");
    for (unsigned i = 0; i < part->count; i++)
        part->shown[i] = part->nest->numbers[part->slots[i]];
    return 0;
}

/* Slots taken: says so on disk, and leaves the queue as the one that was served. */
static int begin_part(struct flk_request *request, struct fk_section *section, struct fk_part *part)
{
    char text[FK_RECORD_SIZE];
    part->count = (unsigned)want_count(part);
    part->number = request->ticket.fd >= 0 ? request->ticket.number : 0;
    part->asked = request->started;
    part->state = part->outer ? fk_state_is_marked(part->outer) : section->latch.state;
    int code = part->nest ? draw(part) : 0;
    if (code < 0) {
        drop_slots(part);
        return code;
    }
    bool has_all = part->count == part->row->slots && !part->shared;
    if (request->place == HEAD && request->ticket.fd >= 0) {
        part->followed = section->latch.living != request->ticket.number;
        fk_queue_admit(section, &request->ticket);
    }
    size_t size = part->shared ? FK_SHARED_SIZE : FK_RECORD_SIZE;
    int length = write_record(request, part, 0, text, size);
    code = length < 0 ? length : fk_part_begin(section, part, request->id, text, (size_t)length);
    if (code < 0) {
        drop_slots(part);
        return code;
    }
    if (request->place != HEAD) {
        fk_queue_leave(part->row, &request->ticket); /* past stopped ones, which are still before those behind us */
    } else if (has_all) {
        part->ticket = request->ticket;
        request->ticket.fd = -1;
    }
    return 0;
}

/* Who changes the row itself has no use for the values. */
static bool has_trial(const struct flk_request *request, const struct fk_part *part)
{
    return fk_pool_checks(part->row) && !(request->how & FK_WHOLE_ROW);
}

/* Only who tries once waits for a command that looks at a value when the time is over. */
static int take_on_trial(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool sweep,
                         bool will_sleep)
{
    if (request->hurry && !tries_once(request) && fk_check_is_command(part->row->values->check)) {
        fk_trial_end(&request->trial, part->fds, false);
        return -EAGAIN;
    }
    return fk_trial_take(&request->trial, section, (unsigned)want_count(part), request->hurry, sweep, part->slots,
                         part->fds, will_sleep ? request->busy : NULL, &request->n_busy);
}

static int take(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool sweep,
                bool will_sleep)
{
    if (will_sleep && !request->busy) {
        request->busy = malloc(part->row->slots * sizeof *request->busy);
        if (!request->busy)
            return fk_fail(-ENOMEM, "out of memory");
    }
    if (has_trial(request, part))
        return take_on_trial(request, section, part, sweep, will_sleep);
    int code = fk_slots_take(section, (unsigned)want_count(part), part->shared ? LOCK_SH : LOCK_EX, sweep, part->slots,
                             part->fds, will_sleep ? request->busy : NULL, &request->n_busy);
    return code < 0 ? code : begin_part(request, section, part);
}

/* -EAGAIN: its watched slots are busy. */
static int step_head(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool due)
{
    bool was_head = request->place == HEAD;
    request->place = HEAD;
    int code = take(request, section, part, false, true);
    if (code != -EAGAIN || !due || part->row->slots == 1)
        return code;
    code = take(request, section, part, true, true); /* the watches say no: look for what they can't tell */
    if (code == 0 && was_head)
        atomic_fetch_add(&fk_request_let_in_by_look, 1);
    return code;
}

/* May one that won't wait longer go past those in the queue below `below`? They must all be stopped. */
static int take_past_stopped(struct flk_request *request, struct fk_section *section, struct fk_part *part,
                             uint64_t below)
{
    int stopped = fk_queue_is_stopped(section, below);
    if (stopped < 0)
        return stopped;
    return stopped ? take(request, section, part, true, false) : -EAGAIN;
}

/* One that won't wait longer. */
static int try_last(struct flk_request *request, struct fk_section *section, struct fk_part *part)
{
    uint64_t living = section->latch.living;
    int code = fk_queue_last(section, &request->watch);
    if (code < 0)
        return code;
    bool empty = request->watch.fd < 0;
    fk_queue_unwatch(&request->watch);
    code = empty ? take(request, section, part, true, false) : take_past_stopped(request, section, part, UINT64_MAX);
    section->dirty |= section->latch.living != living; /* dead tickets were found */
    return code;
}

/* What this thread holds of it comes free only when this very call is over. */
static int wait_for_self(const struct flk_request *request, const struct fk_part *part)
{
    unsigned own = request->blocking ? fk_registry_own(part->row) : 0;
    if (own == 0 || (unsigned)want_count(part) + own <= part->row->slots)
        return 0;
    if (part->row->slots == 1)
        return fk_fail(-EDEADLK, "%s is held by this very thread; release it first, or don't ask again", part->name);
    return fk_fail(-EDEADLK, "this very thread holds %u of the %u slots of %s, so it can't wait for %d; release first",
                   own, part->row->slots, part->name, want_count(part));
}

static int enter_queue(struct flk_request *request, struct fk_section *section, const struct fk_part *part)
{
    int code = wait_for_self(request, part);
    if (code < 0)
        return code;
    char text[FK_WAITER_RECORD];
    int length = write_record(request, part, (unsigned)want_count(part), text, sizeof text);
    return length < 0 ? length : fk_queue_enter(section, text, (size_t)length, &request->ticket);
}

/* For sleeps_as_head(). Best effort. */
static void watch_slots(struct flk_request *request, struct fk_row *row)
{
    request->n_busy = 0;
    request->busy = malloc(row->slots * sizeof *request->busy);
    if (request->busy && fk_slots_watch(row, request->busy))
        request->n_busy = row->slots;
}

/* Whether the last in the queue still lives isn't asked here: settle() does, without the latch. */
static int step_newcomer(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool last)
{
    if (last)
        return try_last(request, section, part);
    uint64_t before = section->latch.living;
    int code = before || has_trial(request, part) ? -EAGAIN : take(request, section, part, false, false);
    if (code != -EAGAIN)
        return code;
    code = enter_queue(request, section, part);
    if (code < 0)
        return code;
    request->place = QUEUED;
    request->watch.number = before;
    if (before && part->row->slots > 1)
        watch_slots(request, part->row);
    return before ? -EAGAIN : step_head(request, section, part, true);
}

/* The watched ticket is in nobody's way: on to the nearest living one below, past all whose owners are stopped too. */
static int pass(struct flk_request *request, struct fk_section *section)
{
    struct fk_row *row = section->row;
    struct fk_record who;
    int code = 0;
    do {
        fk_queue_pass(row, &request->watch);
        fk_queue_unwatch(&request->watch);
        code = fk_queue_before(section, request->ticket.number, &request->watch);
    } while (code == 0 && request->watch.fd >= 0 && fk_queue_who(row, request->watch.number, &who) == 0 &&
             fk_owner_look(&who.owner) != FK_ALIVE);
    return code;
}

static int step_queued(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool due,
                       bool last)
{
    enum fk_told told = fk_queue_told(&request->watch);
    bool was_admitted = request->watch.number <= section->latch.admitted;
    int code = 0;
    /* Who holds for longer is watched by its slots: somebody else who has them may let go of them first. */
    if (was_admitted && (told == FK_TOLD_LEFT || due))
        return step_head(request, section, part, due);
    if (told == FK_TOLD_NOTHING && due && fk_queue_look(part->row, &request->watch)) {
        code = pass(request, section);
    } else if (told == FK_TOLD_LEFT) {
        fk_queue_unwatch(&request->watch);
        code = fk_queue_before(section, request->ticket.number, &request->watch);
    }
    if (code < 0)
        return code;
    if (told == FK_TOLD_ADMITTED || request->watch.fd < 0)
        return step_head(request, section, part, due);
    return last ? take_past_stopped(request, section, part, request->ticket.number) : -EAGAIN;
}

static int settle_trial(struct flk_request *request, struct fk_section *section, struct fk_part *part)
{
    bool waits = request->place == HEAD;
    int code = fk_trial_settle(&request->trial, section, (unsigned)want_count(part), part->slots, part->fds);
    if (code == 0)
        return begin_part(request, section, part);
    return code == -EAGAIN ? take(request, section, part, !waits, waits) : code;
}

static int step_in_section(struct flk_request *request, struct fk_section *section, struct fk_part *part, bool due,
                           bool last)
{
    if (request->ticket.fd >= 0 && fk_queue_is_passed(&request->ticket))
        leave_queue(request);
    if (request->trial.n > 0)
        return settle_trial(request, section, part);
    switch (request->place) {
    case NEWCOMER:
        return step_newcomer(request, section, part, last);
    case QUEUED:
        return step_queued(request, section, part, due, last);
    case HEAD:
        return step_head(request, section, part, due);
    }
    return -EINVAL;
}

/* ---- one part ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The one before us keeps its ticket while it holds: then we are the first. */
static bool follows_holder(const struct flk_request *request, const struct fk_row *row)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    return fk_latch_read(row->latch, &latch, record) < 0 || request->watch.number <= latch.admitted;
}

/* Nothing was told: whether a section can change anything nevertheless. */
static bool is_quiet(struct flk_request *request, struct fk_part *part, bool due)
{
    if (!due)
        return true;
    if (fk_queue_is_passed(&request->ticket) || follows_holder(request, part->row))
        return false;
    struct fk_watch look = request->watch;
    bool in_the_way = !fk_queue_look(part->row, &look);
    if (in_the_way)
        request->watch.stopped = look.stopped; /* else the section looks again and counts this one itself */
    return in_the_way;
}

/* Admitted to a row of several: whether a slot is free, the sleep itself tells at once, and a section would be ten system calls.
 * False: go and see. */
static bool sleeps_as_head(struct flk_request *request)
{
    if (request->n_busy == 0)
        return false;
    request->place = HEAD;
    fk_queue_unwatch(&request->watch);
    return true;
}

/* Whether one in the queue goes on sleeping, as far as can be told without the latch. */
static bool sleeps_on(struct flk_request *request, struct fk_part *part, bool due)
{
    if (request->place != QUEUED || request->latch_was_taken)
        return false;
    enum fk_told told = fk_queue_told(&request->watch);
    if (told == FK_TOLD_NOTHING)
        return is_quiet(request, part, due);
    return told == FK_TOLD_ADMITTED && !due && sleeps_as_head(request);
}

/* After a section that left us waiting, what needs no latch. 1: the one before us has gone already, so again (a watch of -1 tells
 * that it has left); 0; or an error. */
static int settle(struct flk_request *request, const struct fk_part *part)
{
    if (request->place == HEAD)
        fk_queue_unwatch(&request->watch);
    if (request->place != QUEUED || request->watch.fd >= 0)
        return 0;
    int living = fk_queue_watch(part->row, request->watch.number, &request->watch);
    return living < 0 ? living : !living;
}

/* 0: taken. -EAGAIN: not yet. */
static int step_part(struct flk_request *request, struct fk_part *part, int64_t now)
{
    bool due = now >= request->next_look, last = now >= request->deadline;
    request->hurry = last;
    if (!last && sleeps_on(request, part, due))
        return -EAGAIN;
    for (;;) {
        struct fk_section section;
        int code = part->row ? 0 : open_rows(request, part);
        if (code == 0)
            code = fk_trial_look(&request->trial, part->row, part->slots);
        if (code < 0)
            return code;
        int64_t until = tries_once(request) ? now + FK_SECOND : earlier(request->deadline, now + LATCH_PATIENCE);
        code = fk_row_enter(part->row, until, &section);
        request->latch_was_taken = code == -EAGAIN;
        if (code == -ESTALE) {
            start_over(request, part);
            continue;
        }
        if (code < 0)
            return code;
        code = step_in_section(request, &section, part, due, last);
        fk_row_leave(&section);
        if (code == -EINPROGRESS)
            continue;
        if (code == -ESTALE) {
            leave_queue(request);
            close_row(part);
            continue;
        }
        int again = code == -EAGAIN ? settle(request, part) : 0;
        if (again <= 0)
            return again < 0 ? again : code;
    }
}

/* ---- deadlock ---- */

/* Once for each ticket, and again where somebody in the way was stopped. */
static int look_for_deadlock(struct flk_request *request, const struct fk_part *part, bool due)
{
    if (request->ticket.fd < 0 || (request->looked && !(due && request->deadlock.doubtful)))
        return -EAGAIN;
    const struct fk_deadlock_wait wait = {
        .row = part->row,
        .number = request->ticket.number,
        .count = (unsigned)want_count(part),
        .shared = part->shared,
        .blocking = request->blocking,
        .parts = request->parts,
        .n_parts = request->n_parts,
        .id = request->id,
        .command = request->command,
    };
    request->looked = true;
    if (!fk_deadlock_concerns(&wait))
        return -EAGAIN;
    int64_t patience = request->blocking ? SEARCH_PATIENCE : LATCH_PATIENCE;
    int code = fk_deadlock_look(&request->deadlock, &wait, earlier(request->deadline, fk_now() + patience));
    return code < 0 ? code : -EAGAIN;
}

/* ---- history ---- */

static void note(const struct flk_request *request, const struct fk_part *part, const char *event, const char *detail)
{
    bool has = part->count > 0;
    if (!fk_log_is_on())
        return;
    fk_log_write(&(struct fk_log_entry){
        .event = event,
        .row = part->row ? part->row->text : part->text,
        .slots = part->shown ? part->shown : part->slots,
        .n_slots = has ? part->count : 0,
        .wants = has ? 0 : part->row ? (unsigned)want_count(part) : part->wanted,
        .shared = part->shared,
        .id = request->id,
        .label = request->label,
        .command = request->command,
        .waited_ns = strcmp(event, "wait") == 0 ? -1 : fk_now() - request->part_started,
        .held_ns = -1,
        .detail = detail,
    });
}

static void note_abandonment(const struct flk_request *request, const struct fk_part *part)
{
    struct fk_record dead;
    struct flk_holder shown;
    if (!part->predecessor || fk_record_read(part->predecessor, FK_RECORD_SIZE, &dead) < 0)
        return;
    fk_record_show(&dead, &shown);
    fk_log_write(&(struct fk_log_entry){
        .event = "abandonment",
        .row = part->row->text,
        .slots = &part->predecessor_slot,
        .n_slots = 1,
        .id = request->id,
        .label = request->label,
        .command = request->command,
        .waited_ns = -1,
        .held_ns = -1,
        .other = &shown,
    });
}

/* What became of a step for that part. */
static void note_step(struct flk_request *request, struct fk_part *part, int code)
{
    if (!fk_log_is_on())
        return;
    if (request->part_started == 0)
        request->part_started = request->current == 0 ? request->started : fk_now();
    if (code == -EAGAIN && !request->noted) {
        request->noted = true;
        note(request, part, "wait", NULL);
    } else if (code == -ETIMEDOUT) {
        note(request, part, "timeout", NULL);
    } else if (code == -EDEADLK) {
        note(request, part, "deadlock", flk_error_detail());
    } else if (code == 0) {
        note_abandonment(request, part);
        note(request, part, "acquire", NULL);
        part->since = fk_now();
        part->label = request->label ? strdup(request->label) : NULL;
        part->command = request->command ? strdup(request->command) : NULL;
        request->part_started = 0;
        request->noted = false;
    }
}

static void free_picture(struct fk_picture **picture)
{
    if (*picture)
        fk_picture_clear(*picture);
    free(*picture);
}

/* The callback may leave by an exception, so all is as it should be before it is called. */
static void send_message(struct flk_request *request, struct fk_part *part, int64_t now)
{
    int64_t waited = now - request->started;
    __attribute__((cleanup(free_picture))) struct fk_picture *picture = calloc(1, sizeof *picture);
    request->next_message =
        request->started +
        (waited < 10 * FK_SECOND ? 10 * FK_SECOND : (waited / (60 * FK_SECOND) + 1) * 60 * FK_SECOND);
    if (!picture || !part->row)
        return;
    fk_inspect_wait(part->row, request->ticket.fd < 0 ? 0 : request->ticket.number, waited / FK_MS, true, picture);
    picture->waiting.name = part->name;
    request->waiting(&picture->waiting, request->data);
}

static bool is_cancelled(const struct flk_request *request)
{
    struct pollfd poll_for = {.fd = request->cancel_fd, .events = POLLIN};
    return request->cancel_fd >= 0 && fk_poll_now(&poll_for, 1) > 0;
}

/* ---- the result ---- */

static int find_predecessor(struct flk_hold *hold)
{
    for (size_t i = 0; i < hold->n_parts && !hold->predecessor; i++) {
        if (!hold->parts[i].predecessor)
            continue;
        hold->predecessor = calloc(1, sizeof *hold->predecessor);
        if (!hold->predecessor)
            return fk_fail(-ENOMEM, "out of memory");
        /* A record cut short still says that somebody died. */
        if (fk_record_read(hold->parts[i].predecessor, FK_RECORD_SIZE, hold->predecessor) < 0)
            *hold->predecessor = (struct fk_record){0};
        fk_record_show(hold->predecessor, &hold->predecessor_shown);
    }
    return 0;
}

static int make_hold(struct flk_request *request, int64_t now, struct flk_hold **out)
{
    struct flk_hold *hold = calloc(1, sizeof *hold);
    if (!hold)
        return fk_fail(-ENOMEM, "out of memory");
    hold->parts = request->parts;
    hold->n_parts = request->n_parts;
    int code = find_predecessor(hold);
    if (code < 0) {
        free(hold);
        return code;
    }
    hold->generation = request->generation;
    memcpy(hold->id, request->id, sizeof hold->id);
    hold->waited_ms = (now - request->started) / FK_MS;
    atomic_store(&hold->references, 1);
    request->parts = NULL;
    request->n_parts = request->current = 0;
    fk_registry_enlist(hold);
    *out = hold;
    return 0;
}

struct taken {
    char by[600], blocked[300];
};

/* " by pid 812 (make)" and "; in use by others: 8080 and 2 more", for the sentence that says that it's taken. */
static void name_holder(const struct fk_part *part, bool thorough, struct taken *taken)
{
    struct fk_picture *picture = malloc(sizeof *picture);
    *taken = (struct taken){.by = ""};
    if (picture && part->row) {
        fk_inspect_wait(part->row, 0, 0, thorough, picture);
        const struct flk_holder *holder = picture->waiting.holder;
        if (holder && holder->pid)
            snprintf(taken->by, sizeof taken->by, " by pid %d (%s)", (int)holder->pid, holder->command);
        unsigned blocked = picture->waiting.n_blocked;
        if (blocked > 0)
            snprintf(taken->blocked, sizeof taken->blocked,
                     blocked > 1 ? "; in use by others: %s and %u more" : "; in use by others: %s",
                     picture->waiting.blocked, blocked - 1);
        fk_picture_clear(picture);
    }
    free(picture);
}

static int too_late(const struct flk_request *request, const struct fk_part *part)
{
    int64_t waited = (fk_now() - request->started) / FK_MS;
    int code = tries_once(request) ? -EBUSY : -ETIMEDOUT;
    struct taken taken;
    if (request->latch_was_taken)
        return fk_fail(code, "the latch of %s is held by a process that doesn't go on (stopped?); continue or end it",
                       part->name);
    if (fk_trial_fd(&request->trial) >= 0)
        return fk_fail(code, "the check of %s was still looking at its value %s after %lld.%03lld s", part->name,
                       part->row->values->value[part->slots[request->trial.looked]], (long long)(waited / 1000),
                       (long long)(waited % 1000));
    name_holder(part, code == -ETIMEDOUT, &taken);
    if (code == -EBUSY)
        return fk_fail(code, "%s is taken%s%s", part->name, taken.by, taken.blocked);
    return fk_fail(code, "%s is still taken%s after %lld.%03lld s%s", part->name, taken.by, (long long)(waited / 1000),
                   (long long)(waited % 1000), taken.blocked);
}

static void clear_epoll(struct flk_request *request);
static void update_epoll(struct flk_request *request);

/* As far as it goes: 0 means that all parts are taken. */
static int step_parts(struct flk_request *request, int64_t *now)
{
    bool first = request->place == NEWCOMER && request->current == 0 && !request->latch_was_taken &&
                 request->trial.n == 0;
    *now = first ? request->started : fk_now();
    if (!first && is_cancelled(request))
        return fk_fail(-ECANCELED, "the wait for %s was cancelled", current_part(request)->name);
    for (; request->current < request->n_parts; request->current++) {
        struct fk_part *part = current_part(request);
        int code = step_part(request, part, *now);
        if (code == -EAGAIN && *now >= request->deadline && !waits_for_check(request))
            code = too_late(request, part);
        if (code == -EAGAIN)
            code = look_for_deadlock(request, part, *now >= request->next_look);
        note_step(request, part, code);
        if (code == -EAGAIN && *now >= request->next_message && request->trial.n == 0) /* else we hold it ourselves */
            send_message(request, part, *now);
        if (*now >= request->next_look && !request->latch_was_taken)
            request->next_look = *now + LOOK_EVERY;
        if (code < 0)
            return code;
        leave_queue(request);
    }
    return 0;
}

/* ---- cleaning up ---- */

static void end_reaping(struct flk_request *request)
{
    fk_reap_end(request->reap);
    request->reap = NULL;
    request->reaps_own = false;
}

static int start_reaping(struct flk_request *request, const char *name, unsigned flags)
{
    const struct fk_reap_spec spec = {.name = name, .hold = request->hold, .flags = flags, .tell = fk_reap_teller};
    return fk_reap_start(&spec, &request->reap);
}

static int reap_part(struct flk_request *request, const struct fk_part *part)
{
    if (!part->state || (request->how & FK_WITHOUT_REAPING) || fk_reap_is_inside())
        return 0;
    int code = request->reap ? 0 : start_reaping(request, part->name, FK_REAP_WAIT);
    if (code == 0)
        code = fk_reap_step(request->reap);
    if (code != -EAGAIN)
        end_reaping(request);
    return code < 0 ? code : 0;
}

/* What dead owners left behind goes before the lock is handed on. Of what was begun while it waited, this one is finished first. */
static int reap_parts(struct flk_request *request)
{
    int code = request->reaps_own ? fk_reap_step(request->reap) : 0;
    if (code == -EAGAIN)
        return code;
    if (request->reaps_own)
        end_reaping(request);
    for (code = 0; request->reaped < request->hold->n_parts; request->reaped++) {
        code = reap_part(request, &request->hold->parts[request->reaped]);
        if (code < 0)
            break;
    }
    return code;
}

/* The first in line looks once a second for what the dead have left of the name: that may be what keeps the slot. */
static bool own_is_due(struct flk_request *request, int64_t now)
{
    const struct fk_part *part = current_part(request);
    const struct fk_row *row = part->outer ? part->outer : part->row;
    if (request->place != HEAD || now < request->next_own || !row || fk_reap_is_inside())
        return false;
    request->next_own = now + LOOK_EVERY;
    return fk_state_is_marked(row);
}

/* Begins what is to be done meanwhile by one that sleeps anyway. -EAGAIN: nothing is. */
static int start_meanwhile(struct flk_request *request, int64_t now)
{
    if (now < request->started + LOOK_EVERY || (request->how & FK_WITHOUT_REAPING))
        return -EAGAIN;
    if (own_is_due(request, now)) {
        request->reaps_own = true;
        return start_reaping(request, current_part(request)->name, FK_REAP_SINGLY);
    }
    return fk_reap_is_due() ? start_reaping(request, NULL, FK_REAP_SINGLY) : -EAGAIN;
}

/* An item at a time. */
static void reap_meanwhile(struct flk_request *request, int64_t now)
{
    struct fk_detail detail;
    fk_error_save(&detail);
    int code = request->reap ? 0 : start_meanwhile(request, now);
    if (code == 0)
        code = fk_reap_step(request->reap);
    if (code != -EAGAIN)
        end_reaping(request);
    fk_error_restore(&detail);
}

static int serve_parts(struct flk_request *request)
{
    int64_t now;
    int code = step_parts(request, &now);
    if (code == -EAGAIN)
        reap_meanwhile(request, now);
    if (code < 0)
        return code;
    if (!request->reaps_own)
        end_reaping(request);
    return make_hold(request, request->ticket.number ? fk_now() : now, &request->hold);
}

int flk_request_step(struct flk_request *request, struct flk_hold **hold)
{
    FK_ENTER();
    if (request->generation != fk_registry_generation())
        return fk_fail(-EINVAL, "a forked child can't go on with its parent's request; start one of its own");
    if (!request->parts && !request->hold)
        return fk_fail(-EINVAL, "the request has been served already");
    clear_epoll(request);
    bool goes_on = request->hold;
    int code = goes_on ? 0 : serve_parts(request);
    if (goes_on && is_cancelled(request))
        code = fk_fail(-ECANCELED, "the acquisition was cancelled while it cleaned up what others had left");
    if (code == 0)
        code = reap_parts(request);
    if (code == 0) {
        *hold = request->hold;
        request->hold = NULL;
    }
    update_epoll(request);
    return code;
}

void flk_request_cancel(struct flk_request *request)
{
    if (!request)
        return;
    FK_ENTER();
    bool copy = request->generation != fk_registry_generation();
    if (copy) {
        request->ticket.fd = request->watch.fd = request->epoll = request->timer = request->deadlock.fd = -1;
        fk_trial_end(&request->trial, NULL, true);
    }
    end_reaping(request);
    flk_hold_decline(request->hold);
    leave_queue(request);
    for (size_t i = request->n_parts; i-- > 0;) {
        fk_part_end(&request->parts[i], request->id, false, true, copy);
        fk_part_free(&request->parts[i], copy);
    }
    fk_fd_close(&request->epoll);
    fk_fd_close(&request->timer);
    if (!copy)
        fk_registry_users(-1);
    free(request->entered);
    free(request->parts);
    if (request->order != &request->only_order)
        free(request->order);
    free(request->label);
    free(request->command);
    free(request);
}

/* ---- sleep ---- */

static size_t list_events(const struct flk_request *request, struct pollfd *polls)
{
    size_t n = 0;
    if (request->cancel_fd >= 0)
        polls[n++] = (struct pollfd){.fd = request->cancel_fd, .events = POLLIN};
    int check = fk_trial_fd(&request->trial), watch = check >= 0 ? check : request->watch.fd;
    if (watch >= 0)
        polls[n++] = (struct pollfd){.fd = watch, .events = POLLIN};
    if (request->reap && fk_reap_fd(request->reap) >= 0)
        polls[n++] = (struct pollfd){.fd = fk_reap_fd(request->reap), .events = POLLIN};
    size_t n_slots = request->place == HEAD && check < 0 ? request->n_busy : 0;
    if (n_slots > 0)
        memcpy(polls + n, request->busy, n_slots * sizeof *polls);
    return n + n_slots;
}

static int64_t wake_at(const struct flk_request *request)
{
    int64_t reap_at = request->reap ? fk_reap_wake_at(request->reap) : FK_NEVER;
    if (request->hold)
        return reap_at;
    int64_t deadline = waits_for_check(request) ? FK_NEVER : request->deadline;
    int64_t at = earlier(earlier(deadline, request->next_look), reap_at);
    if (request->trial.n == 0)
        at = earlier(at, request->next_message);
    if (request->trial.n == 0 && request->place == HEAD)
        at = earlier(at, request->trial.retry_at);
    return request->latch_was_taken ? earlier(at, fk_now() + LATCH_PATIENCE) : at;
}

static void free_polls(struct pollfd **polls)
{
    free(*polls);
}

static int sleep_until_event(struct flk_request *request)
{
    __attribute__((cleanup(free_polls))) struct pollfd *many = NULL;
    struct pollfd few[8], *polls = few;
    if (request->n_busy + 3 > sizeof few / sizeof *few)
        polls = many = malloc((request->n_busy + 3) * sizeof *polls);
    if (!polls)
        return fk_fail(-ENOMEM, "out of memory");
    size_t n = list_events(request, polls);
    int ready = fk_cancel_poll(polls, n, wake_at(request));
    if (ready < 0)
        return fk_fail_errno(ready, "can't wait");
    if (ready > 0 && request->place == HEAD && request->n_busy > 0 && fk_trial_fd(&request->trial) < 0)
        memcpy(request->busy, polls + n - request->n_busy, request->n_busy * sizeof *polls); /* what they showed */
    return 0;
}

static void cancel_at(struct flk_request **request)
{
    flk_request_cancel(*request);
}

/* Blocks until it is served or has failed, and ends it. */
static int serve(struct flk_request *request, unsigned flags, struct flk_hold **hold)
{
    __attribute__((cleanup(cancel_at))) struct flk_request *served = request;
    int code;
    request->how = flags;
    request->blocking = true;
    while ((code = flk_request_step(request, hold)) == -EAGAIN) {
        code = sleep_until_event(request);
        if (code < 0)
            break;
    }
    return code;
}

int fk_acquire_many(const struct flk_want *wants, size_t n_wants, const struct flk_options *options, unsigned flags,
                    int64_t timeout_ms, struct flk_hold **hold)
{
    struct flk_request *request;
    FK_ENTER();
    int code = flk_request_start(wants, n_wants, options, timeout_ms, &request);
    return code < 0 ? code : serve(request, flags, hold);
}

static int set_output(struct fk_part *part, const struct fk_output *output)
{
    part->path = malloc(strlen(output->path) + 1 + sizeof output->row);
    if (!part->path)
        return fk_fail(-ENOMEM, "out of memory");
    part->text = strcpy(stpcpy(part->path, output->path) + 1, output->row);
    part->output = output;
    return 0;
}

int fk_acquire_output(const struct fk_output *output, bool shared, const struct flk_options *options, unsigned flags,
                      int64_t timeout_ms, struct flk_hold **hold)
{
    struct flk_request *request;
    const struct flk_want want = {.name = output->shown, .flags = shared ? FLK_SHARED : 0};
    FK_ENTER();
    int code = start(&want, 1, options, timeout_ms, &request);
    if (code < 0)
        return code;
    code = set_output(request->parts, output);
    if (code == 0)
        return serve(request, flags, hold);
    flk_request_cancel(request);
    return code;
}

int flk_acquire_many(const struct flk_want *wants, size_t n_wants, const struct flk_options *options,
                     int64_t timeout_ms, struct flk_hold **hold)
{
    return fk_acquire_many(wants, n_wants, options, 0, timeout_ms, hold);
}

int flk_acquire(const char *name, unsigned flags, int64_t timeout_ms, struct flk_hold **hold)
{
    return flk_acquire_many(&(struct flk_want){.name = name, .flags = flags}, 1, NULL, timeout_ms, hold);
}

/* ---- the descriptor ---- */

static int enter_event(struct flk_request *request, int fd)
{
    return epoll_ctl(request->epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN}) < 0 ? -errno : 0;
}

static void set_timer(struct flk_request *request, int64_t at)
{
    struct itimerspec when = {.it_value = {.tv_sec = at / FK_SECOND, .tv_nsec = at % FK_SECOND}};
    timerfd_settime(request->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Before a step, which may close what is entered: another thread could have the number then. */
static void clear_epoll(struct flk_request *request)
{
    for (size_t i = 0; i < request->n_entered; i++)
        epoll_ctl(request->epoll, EPOLL_CTL_DEL, request->entered[i], NULL);
    request->n_entered = 0;
}

/* Enters what matters now. What can't be entered (out of memory) is made up for by waking at once. */
static void update_epoll(struct flk_request *request)
{
    if (request->epoll < 0)
        return;
    if (!request->parts && !request->hold)
        return;
    size_t room = request->n_busy + 3;
    struct pollfd *polls = malloc(room * sizeof *polls);
    int *entered = realloc(request->entered, room * sizeof *entered);
    request->entered = entered ? entered : request->entered;
    size_t n = polls && entered ? list_events(request, polls) : 0;
    int64_t at = polls && entered ? wake_at(request) : 1;
    for (size_t i = 0; i < n; i++) {
        if (enter_event(request, polls[i].fd) < 0)
            at = 1;
        entered[request->n_entered++] = polls[i].fd;
    }
    free(polls);
    set_timer(request, at);
}

static int make_epoll(void)
{
    int fd;
    do {
        fk_fd_enter();
        fd = fk_fd_keep(epoll_create1(EPOLL_CLOEXEC));
    } while (fk_fd_relieve(fd));
    return fd;
}

static int make_timer(void)
{
    int fd;
    do {
        fk_fd_enter();
        fd = fk_fd_keep(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    } while (fk_fd_relieve(fd));
    return fd;
}

int flk_request_fd(struct flk_request *request)
{
    FK_ENTER();
    if (request->epoll >= 0)
        return request->epoll;
    FK_CLOSE_FD int epoll = make_epoll();
    FK_CLOSE_FD int timer = make_timer();
    if (epoll < 0 || timer < 0)
        return fk_fail_errno(epoll < 0 ? epoll : timer, "can't make a descriptor for the request");
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &(struct epoll_event){.events = EPOLLIN}) < 0)
        return fk_fail_errno(-errno, "can't make a descriptor for the request");
    request->epoll = fk_fd_take(&epoll);
    request->timer = fk_fd_take(&timer);
    bool stepped = request->place != NEWCOMER || request->current > 0;
    if (stepped)
        update_epoll(request);
    else
        set_timer(request, 1); /* the first step is due */
    return request->epoll;
}
