/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "referee.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "deadline.h"
#include "hold.h"
#include "queue.h"
#include "request.h"
#include "slot.h"
#include "tap.h"

#define LATE (400 * FK_MS)    /* the look comes once a second, an event within some ms */
#define JUST_NOW (200 * FK_MS) /* from a look at a process's state to what is done about it */

/* With the same types, so that a change of the library's can't go unnoticed. */
#define WRAP(function) __typeof__(function) __real_##function, __wrap_##function
WRAP(fk_slots_take);
WRAP(fk_queue_enter);
WRAP(fk_queue_admit);
WRAP(fk_queue_leave);
WRAP(fk_queue_pass);
WRAP(fk_queue_is_stopped);
WRAP(fk_part_end);
WRAP(fk_row_delete);
WRAP(fk_row_exchange);
WRAP(flk_hold_release);
WRAP(flk_hold_decline);

struct referee *referee;
static _Thread_local struct actor *me;
static _Thread_local bool refused;

/* ---- set up, wipe ---- */

void referee_start(void)
{
    referee = mmap(NULL, sizeof *referee, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (referee == MAP_FAILED)
        bail_out("no shared memory");
}

void referee_enter(unsigned index)
{
    me = &referee->actors[index];
    refused = false;
}

static unsigned index_of(const struct actor *actor)
{
    return (unsigned)(actor - referee->actors);
}

unsigned referee_self(void)
{
    return index_of(me);
}

bool referee_was_refused(void)
{
    bool was = refused;
    refused = false;
    return was;
}

void referee_foul(enum foul foul, const char *format, ...)
{
    va_list args;
    atomic_fetch_add(&referee->fouls[foul], 1);
    unsigned index = atomic_fetch_add(&referee->n_messages[foul], 1);
    if (index >= MESSAGES)
        return;
    va_start(args, format);
    vsnprintf(referee->messages[foul][index], sizeof referee->messages[foul][index], format, args);
    va_end(args);
}

void referee_show_messages(void)
{
    for (unsigned foul = 0; foul < FOULS; foul++) {
        for (unsigned i = 0; i < referee->n_messages[foul] && i < MESSAGES; i++)
            diag("%s", referee->messages[foul][i]);
        referee->n_messages[foul] = 0;
    }
}

/* The number last: who sees it sees the times too. */
static void ticket_gone(struct actor *actor)
{
    struct gone *gone = &actor->gone[actor->name];
    gone->at = fk_now();
    gone->entered = actor->entered;
    gone->row = actor->row;
    gone->number = actor->number;
    actor->state = NO_TICKET;
}

void referee_wipe(struct actor *actor)
{
    if (actor->state != NO_TICKET)
        ticket_gone(actor);
    for (unsigned name = 0; name < ROWS; name++) {
        if (actor->held[name] | actor->releasing[name] | actor->taking[name])
            referee->freed[name] = fk_now();
        actor->held[name] = actor->releasing[name] = actor->taking[name] = 0;
        actor->replacing[name] = false;
    }
}

static unsigned name_of(const struct fk_row *row)
{
    unsigned name = (unsigned)(row->text[1] - '0');
    return row->text[0] == 'r' && row->text[2] == '\0' && name < ROWS ? name : ROWS;
}

static bool machine_stalls(void)
{
    int64_t now = fk_now();
    return now - referee->heartbeat > LATE / 4 || now - referee->stalled < FK_SECOND;
}

static bool just_stopped(const struct actor *actor)
{
    int64_t tolerated = machine_stalls() ? 2 * FK_SECOND : JUST_NOW;
    return actor->process->stopped || fk_now() - actor->process->continued < tolerated;
}

static struct actor *next_other(struct actor *actor)
{
    actor = actor ? actor + 1 : referee->actors;
    while (actor < referee->actors + ACTORS && (actor == me || !actor->process))
        actor++;
    return actor < referee->actors + ACTORS ? actor : NULL;
}
#define for_each_other(at) for (struct actor *at = next_other(NULL); at; at = next_other(at))

/* ---- exclusion ---- */

/* Who replaces a row still has the old one's slots when the new one's are taken already. */
static bool excludes(const struct actor *other, unsigned name, bool shared, ino_t row)
{
    return !(shared && other->shared[name]) && !(other->replacing[name] && other->held_row[name] != row) &&
           !other->process->doomed;
}

/* By name, not by row: nobody may hold a slot of a row that was replaced. */
static void publish_take(const struct fk_row *row, unsigned name, uint32_t bits, bool shared)
{
    me->shared[name] = shared;
    me->held_row[name] = row->inode;
    me->held[name] |= bits;
    for_each_other(other) {
        unsigned incarnation = other->process->incarnation;
        uint32_t both = other->held[name] & bits;
        if (both && excludes(other, name, shared, row->inode) && other->held[name] &&
            other->process->incarnation == incarnation)
            referee_foul(FOUL_OVERLAP, "r%u: slots 0x%x of actor %u were taken by actor %u", name, both,
                         index_of(other), referee_self());
    }
}

/* ---- order ---- */

static bool is_before(const struct actor *other, ino_t row, uint64_t below)
{
    return other->state == WAITING && other->row == row && other->number < below;
}

/* Under the latch, so tickets of living actors stand still; except that one may be given up. */
static void check_order(const struct fk_row *row, uint64_t number)
{
    for_each_other(other) {
        unsigned incarnation = other->process->incarnation;
        uint64_t theirs = other->number;
        if (!is_before(other, row->inode, number) || other->process->doomed || just_stopped(other) || just_stopped(me))
            continue;
        if (other->process->incarnation == incarnation && other->state == WAITING && other->number == theirs)
            referee_foul(FOUL_ORDER, "%s: actor %u with ticket %lld overtook actor %u with %llu", row->text,
                         referee_self(), number == UINT64_MAX ? -1ll : (long long)number, index_of(other),
                         (unsigned long long)theirs);
    }
}

/* When it left the queue with a lower number, or later. */
static int64_t last_departure(const struct actor *other, unsigned name, ino_t row, uint64_t number)
{
    const struct gone *gone = &other->gone[name];
    if (other->state != NO_TICKET && other->row == row)
        return other->number > number ? other->entered : fk_now();
    if (gone->number > 0 && gone->row == row)
        return gone->number < number ? gone->at : gone->entered;
    return 0;
}

/* Who has been waiting got in now; since when could it have? Not known while somebody doomed is in the way. */
static void check_in_time(unsigned name, const struct fk_row *row)
{
    int64_t since = me->entered > referee->freed[name] ? me->entered : referee->freed[name];
    for_each_other(other) {
        bool has = other->state != NO_TICKET || other->held[name] || other->releasing[name] || other->taking[name];
        if (has && other->process->doomed)
            return;
        int64_t departure = last_departure(other, name, row->inode, me->number);
        since = departure > since ? departure : since;
    }
    int64_t late = fk_now() - since;
    if (late > LATE && !referee->stops && !referee->copies_die && !machine_stalls())
        referee_foul(FOUL_LATE, "%s: actor %u was let in %lld ms after it could have been", row->text, referee_self(),
                     (long long)(late / FK_MS));
}

/* ---- the slots ---- */

/* All that may be flocked, whoever has it. Only what is released can change during a section. */
static uint32_t maybe_busy(unsigned name, bool shared)
{
    uint32_t bits = 0;
    for_each_other(other) {
        uint32_t held = other->held[name]; /* before `releasing`, which is published first */
        if (!shared || !other->shared[name] || other->process->doomed)
            bits |= held | other->releasing[name];
        bits |= other->taking[name];
    }
    return bits | me->held[name] | me->releasing[name];
}

static bool shows_nothing(const struct fk_row *row)
{
    struct pollfd poll_for = {.fd = row->watches ? row->watches[0] : -1, .events = POLLIN};
    return poll_for.fd >= 0 && poll(&poll_for, 1, 0) == 0;
}

static void taken(struct fk_row *row, unsigned name, uint32_t bits, bool shared, bool silently)
{
    bool waited = me->state == WAITING && me->row == row->inode;
    publish_take(row, name, bits, shared);
    if (me->state == PASSED && me->row == row->inode)
        referee_foul(FOUL_ORDER, "%s: actor %u was let in with a ticket that others had passed", row->text,
                     referee_self());
    check_order(row, waited ? me->number : UINT64_MAX);
    atomic_fetch_add(&referee->takes, 1);
    if (waited) {
        atomic_fetch_add(&referee->waited, 1);
        check_in_time(name, row);
    }
    if (silently && !referee->copies_die)
        referee_foul(FOUL_NO_EVENT, "%s: the free slot that actor %u took had shown nothing", row->text,
                     referee_self());
}

static void not_taken(const struct fk_row *row, bool sweep, unsigned free_before, unsigned count)
{
    refused = true;
    if (free_before < count)
        return;
    if (sweep || row->slots == 1)
        referee_foul(FOUL_BUSY, "%s: actor %u was refused %u slots of %u though %u were free", row->text,
                     referee_self(), count, row->slots, free_before);
    else if (!referee->copies_die)
        referee_foul(FOUL_NO_EVENT, "%s: actor %u saw no event on %u of %u slots though %u were free", row->text,
                     referee_self(), count, row->slots, free_before);
}

int __wrap_fk_slots_take(struct fk_section *section, unsigned count, int mode, bool sweep, unsigned *slots, int *fds,
                         struct pollfd *busy, unsigned *n_busy)
{
    struct fk_row *row = section->row;
    unsigned name = name_of(row);
    if (name == ROWS || !me)
        return __real_fk_slots_take(section, count, mode, sweep, slots, fds, busy, n_busy);
    bool shared = mode == LOCK_SH;
    uint32_t all = (uint32_t)((1ull << row->slots) - 1), bits = 0;
    unsigned free_before = row->slots - (unsigned)__builtin_popcount(maybe_busy(name, shared) & all);
    bool silently = row->slots == 1 && !(maybe_busy(name, false) & all) && shows_nothing(row);
    me->taking[name] = UINT32_MAX;
    int code = __real_fk_slots_take(section, count, mode, sweep, slots, fds, busy, n_busy);
    for (unsigned i = 0; code == 0 && i < count; i++)
        bits |= 1u << slots[i];
    if (code == 0)
        taken(row, name, bits, shared, silently);
    else if (code == -EAGAIN)
        not_taken(row, sweep, free_before, count);
    me->taking[name] = 0;
    return code;
}

/* Published before the slots are let go; `releasing` until that is done. */
static void begin_release(unsigned name)
{
    me->releasing[name] = me->held[name];
    me->held[name] = 0;
}

static void end_release(unsigned name)
{
    if (me->releasing[name])
        referee->freed[name] = fk_now();
    me->releasing[name] = 0;
    me->replacing[name] = false;
}

/* hold NULL: a request had none when it ended; what its process holds otherwise it goes on to hold. */
static void release(struct flk_hold *hold, void (*real)(struct flk_hold *hold))
{
    for (unsigned name = 0; me && hold && name < ROWS; name++)
        begin_release(name);
    real(hold);
    for (unsigned name = 0; me && hold && name < ROWS; name++)
        end_release(name);
}

void __wrap_flk_hold_release(struct flk_hold *hold)
{
    release(hold, __real_flk_hold_release);
}

void __wrap_flk_hold_decline(struct flk_hold *hold)
{
    release(hold, __real_flk_hold_decline);
}

/* Of a request that had got some of what it wanted. */
void __wrap_fk_part_end(struct fk_part *part, const char *id, bool inherited, bool keep, bool copy)
{
    unsigned name = me && part->count > 0 && !copy && part->row ? name_of(part->row) : ROWS;
    if (name < ROWS)
        begin_release(name);
    __real_fk_part_end(part, id, inherited, keep, copy);
    if (name < ROWS)
        end_release(name);
}

int __wrap_fk_row_delete(struct fk_row *row)
{
    unsigned name = name_of(row);
    if (me && name < ROWS)
        me->replacing[name] = true;
    return __real_fk_row_delete(row);
}

int __wrap_fk_row_exchange(struct fk_row *row, unsigned slots)
{
    unsigned name = name_of(row);
    if (me && name < ROWS)
        me->replacing[name] = true;
    return __real_fk_row_exchange(row, slots);
}

/* ---- the queue ---- */

int __wrap_fk_queue_enter(struct fk_section *section, const char *record, size_t length, struct fk_ticket *ticket)
{
    int code = __real_fk_queue_enter(section, record, length, ticket);
    unsigned name = name_of(section->row);
    if (code < 0 || !me || name == ROWS)
        return code;
    me->name = name;
    me->row = section->row->inode;
    me->number = ticket->number;
    me->entered = fk_now();
    me->state = WAITING;
    atomic_fetch_add(&referee->queued, 1);
    return code;
}

void __wrap_fk_queue_admit(struct fk_section *section, struct fk_ticket *ticket)
{
    __real_fk_queue_admit(section, ticket);
    if (me && me->state != NO_TICKET)
        ticket_gone(me);
}

void __wrap_fk_queue_leave(struct fk_row *row, struct fk_ticket *ticket)
{
    /* Not one that was kept during a hold: that was gone when its owner was admitted. */
    bool has_one = ticket->fd >= 0 && me && me->state != NO_TICKET && !ticket->admitted;
    if (has_one)
        me->state = LEAVING;
    __real_fk_queue_leave(row, ticket);
    if (has_one)
        ticket_gone(me);
}

void __wrap_fk_queue_pass(struct fk_row *row, const struct fk_watch *watch)
{
    for_each_other(other) {
        int waiting = WAITING;
        if (other->row != row->inode || other->number != watch->number || other->state != WAITING)
            continue;
        if (!other->process->doomed && !just_stopped(other) && !just_stopped(me))
            referee_foul(FOUL_PASS, "%s: actor %u with ticket %llu was passed, neither stopped nor dead", row->text,
                         index_of(other), (unsigned long long)watch->number);
        atomic_compare_exchange_strong(&other->state, &waiting, PASSED);
        atomic_fetch_add(&referee->passes, 1);
    }
    __real_fk_queue_pass(row, watch);
}

/* How many may have a ticket in the queue; none of them moving? */
static unsigned count_waiting(const struct fk_row *row, uint64_t below, bool *all_frozen)
{
    unsigned count = 0;
    for_each_other(other) {
        int state = other->state;
        if ((state != WAITING && state != LEAVING) || other->row != row->inode || other->number >= below)
            continue;
        count++;
        *all_frozen &= other->process->frozen && !other->process->doomed;
    }
    return count;
}

/* A victim may have had a ticket that it didn't live to tell of, and that isn't closed yet. */
static bool somebody_dies(void)
{
    for_each_other(other)
        if (other->process->doomed)
            return true;
    return false;
}

int __wrap_fk_queue_is_stopped(struct fk_section *section, uint64_t below)
{
    const struct fk_row *row = section->row;
    bool all_frozen = true;
    unsigned before = me ? count_waiting(row, below, &all_frozen) : 1;
    int stopped = __real_fk_queue_is_stopped(section, below);
    if (stopped || !me || name_of(row) == ROWS)
        return stopped;
    refused = true;
    unsigned after = count_waiting(row, below, &all_frozen);
    if (before == 0 && !somebody_dies())
        referee_foul(FOUL_BUSY, "%s: actor %u was refused because of a queue that was empty", row->text,
                     referee_self());
    else if (before > 0 && all_frozen && after == before)
        referee_foul(FOUL_BUSY, "%s: actor %u was refused because of waiters that were all stopped", row->text,
                     referee_self());
    return stopped;
}
