/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "fd.h"
#include "log.h"
#include "pool.h"
#include "queue.h"
#include "registry.h"
#include "root.h"
#include "shared.h"
#include "slot.h"
#include "values.h"

#define HELD_MAX 98304 /* bytes of FLOCKCTL_HELD */
#define LONG_ENOUGH (FK_MS / 4) /* that a look for waiters costs nothing beside it */

/* ---- records on disk ---- */

/* The row below a hold whose slots were left to others goes when those have ended, too: who gets a slot next sees to it. */
static void note_before(struct fk_part *part, const char *record, size_t length)
{
    struct fk_record before;
    if (length > 0 && (record[0] == FK_LIVE || fk_record_has_ended(record, length)) &&
        fk_record_read(record, length, &before) == 0)
        memcpy(part->before, before.id, sizeof part->before);
}

/* Notes the first predecessor that died holding. */
static int note_predecessor(struct fk_part *part, unsigned slot, const char *record, size_t length)
{
    if (part->predecessor || length < 2 || record[0] != FK_LIVE)
        return 0;
    part->predecessor = malloc(FK_RECORD_SIZE);
    if (!part->predecessor)
        return -ENOMEM;
    memset(part->predecessor, ' ', FK_RECORD_SIZE);
    memcpy(part->predecessor, record, length);
    part->predecessor_slot = slot;
    return 0;
}

static int begin_exclusive(struct fk_section *section, struct fk_part *part, unsigned slot, const char *text,
                           size_t length)
{
    char other[FK_RECORD_SIZE];
    const char *record = section->record;
    ssize_t got = FK_RECORD_SIZE;
    /* What the section read first is older than our flock: its holder may have ended between the two. */
    if (slot > 0 || record[0] == FK_LIVE) {
        got = pread(section->fd, other, sizeof other, fk_latch_record_at(slot));
        if (got < 0)
            return -errno;
        record = other;
    }
    part->left_over |= got > 0 && record[0] == FK_LEAVING;
    note_before(part, record, (size_t)got);
    int code = note_predecessor(part, slot, record, (size_t)got);
    if (code < 0)
        return code;
    if (slot == 0 && section->dirty) {
        section->dirty = false;
        return fk_latch_write_both(section->fd, &section->latch, text, length);
    }
    return fk_fd_write_at(section->fd, text, length, fk_latch_record_at(slot));
}

/* Failures are nobody's to mend here: a record that stays live only says "abandoned" to the next one. */
static void end_records(struct fk_part *part, const char *id, bool inherited, bool keep)
{
    char text[FK_END_SIZE] = {part->ticket.fd >= 0 || part->left_over ? FK_LEAVING : FK_ENDED};
    bool spreads = fk_pool_spreads(part->row);
    size_t length = inherited || spreads ? fk_record_end(text, text[0], inherited, spreads) : 1;
    ssize_t ignored = 0;
    if (part->shared)
        fk_shared_end(part->row, id, part->place);
    for (unsigned i = 0; !part->shared && i < part->count; i++) {
        off_t at = fk_latch_record_at(part->slots[i]);
        if (keep && part->predecessor && part->slots[i] == part->predecessor_slot)
            ignored = pwrite(part->row->latch, part->predecessor, FK_RECORD_SIZE, at);
        else
            ignored = pwrite(part->row->latch, text, length, at);
    }
    (void)ignored;
}

/* One that fails takes back what it has written, and nothing else: what stands in the other places is still to be read. */
static int write_records(struct fk_section *section, struct fk_part *part, const char *id, const char *text,
                         size_t length)
{
    unsigned all = part->count;
    int code = 0;
    if (part->shared)
        return fk_shared_begin(section, id, text, length, &part->place);
    for (unsigned i = 0; code == 0 && i < all; i++) {
        part->count = i;
        code = begin_exclusive(section, part, part->slots[i], text, length);
    }
    if (code < 0)
        end_records(part, id, false, true);
    part->count = all;
    return code;
}

int fk_part_begin(struct fk_section *section, struct fk_part *part, const char *id, const char *text, size_t length)
{
    bool died = section->latch.shared && !part->shared && fk_shared_sweep(section);
    int code = write_records(section, part, id, text, length);
    if (code < 0)
        return fk_fail_errno(code, "can't write down who holds %s", part->name);
    /* One that was admitted and killed before it unlinked its ticket: nobody else has a reason to look for that. Who queued
     * leaves it to the next one: the one before it is most likely at it just now. */
    if (died || part->predecessor || (part->left_over && !part->number))
        part->left_over = fk_queue_sweep(section, part->number);
    fk_registry_begin(part);
    return 0;
}

void fk_part_free(struct fk_part *part, bool copy)
{
    void (*unref)(struct fk_row *row) = copy ? fk_row_unref_copy : fk_registry_unref;
    fk_nest_free(part->nest, copy);
    if (part->row)
        unref(part->row);
    if (part->outer)
        unref(part->outer);
    if (part->slots != &part->only_slot) {
        free(part->slots);
        free(part->fds);
    }
    free(part->values_wanted);
    free(part->predecessor);
    free(part->path);
    free(part->shown);
    free(part->label);
    free(part->command);
}

/* What nobody uses any more below our hold, if we had handed it on, and below those before us. One that could not clear up itself
 * had others below it still, who may have left rows of their own. */
static void clear_under(const struct fk_part *part, const char *id, bool inherited)
{
    const struct fk_row *row = part->outer ? part->outer : part->row;
    if (inherited)
        fk_nest_clear(row, id);
    bool left = part->before[0] && (part->count > 1 || fk_nest_clear(row, part->before));
    if (left || part->predecessor)
        fk_nest_sweep(row);
}

/* Before it is done, so that the next one's acquisition stands behind it. */
static void note_release(const struct fk_part *part, const char *id)
{
    if (part->since == 0 || !fk_log_is_on())
        return;
    fk_log_write(&(struct fk_log_entry){
        .event = "release",
        .row = part->row->text,
        .slots = part->shown ? part->shown : part->slots,
        .n_slots = part->count,
        .shared = part->shared,
        .id = id,
        .label = part->label,
        .command = part->command,
        .waited_ns = -1,
        .held_ns = fk_now() - part->since,
    });
}

/* After it was given back: whether somebody was woken by that, as far as is known without asking in every short cycle. */
static bool is_awaited(const struct fk_part *part)
{
    struct fk_latch latch;
    char record[FK_RECORD_SIZE];
    if (part->followed)
        return true;
    return part->count > 0 && fk_now() - part->asked >= LONG_ENOUGH &&
           fk_latch_read(part->row->latch, &latch, record) == 0 && latch.living != 0;
}

void fk_part_end(struct fk_part *part, const char *id, bool inherited, bool keep, bool copy)
{
    if (copy) {
        for (unsigned i = 0; inherited && i < part->count; i++)
            close(part->fds[i]);
        fk_nest_end(part->nest, inherited, true);
        return;
    }
    if (part->count > 0) {
        note_release(part, id);
        end_records(part, id, inherited, keep);
        fk_registry_end(part);
    }
    for (unsigned i = 0; i < part->count; i++)
        inherited ? fk_fd_close(&part->fds[i]) : fk_slot_unlock(part->fds[i]);
    fk_queue_tell(&part->ticket);
    for (unsigned i = 0; i < part->count; i++)
        fk_fd_close(&part->fds[i]);
    if (inherited ? part->followed : is_awaited(part))
        sched_yield(); /* to the one just woken, who may be on this very processor: what follows can wait */
    if (part->row)
        fk_queue_leave(part->row, &part->ticket);
    fk_nest_end(part->nest, false, false);
    if (part->count > 0)
        clear_under(part, id, inherited);
}

/* ---- handed to a run ---- */

int fk_hold_hand(struct flk_hold *hold, struct fk_handed **handed)
{
    if (!hold->handed) {
        hold->handed = calloc(1, sizeof *hold->handed);
        if (!hold->handed)
            return fk_fail(-ENOMEM, "out of memory");
        atomic_store(&hold->handed->references, 1);
    }
    atomic_fetch_add(&hold->handed->references, 1);
    atomic_fetch_add(&hold->handed->live, 1);
    *handed = hold->handed;
    return 0;
}

void fk_handed_end(struct fk_handed *handed)
{
    atomic_fetch_sub(&handed->live, 1);
}

void fk_handed_unref(struct fk_handed *handed)
{
    if (handed && atomic_fetch_sub(&handed->references, 1) == 1)
        free(handed);
}

static unsigned count_fetched(const struct fk_part *part)
{
    return part->nest && part->nest->fetched ? part->nest->slots : 0;
}

size_t fk_hold_count_slots(const struct flk_hold *hold)
{
    size_t count = 0;
    for (size_t i = 0; i < hold->n_parts; i++)
        count += hold->parts[i].count + count_fetched(&hold->parts[i]);
    return count;
}

void fk_hold_list_slots(const struct flk_hold *hold, int *fds)
{
    for (size_t i = 0; i < hold->n_parts; i++) {
        memcpy(fds, hold->parts[i].fds, hold->parts[i].count * sizeof *fds);
        fds += hold->parts[i].count;
    }
    for (size_t i = 0; i < hold->n_parts; i++) {
        unsigned fetched = count_fetched(&hold->parts[i]);
        if (fetched > 0)
            memcpy(fds, hold->parts[i].nest->fds, fetched * sizeof *fds);
        fds += fetched;
    }
}

/* ---- the public calls ---- */

static void unref_hold(struct flk_hold *hold)
{
    if (atomic_fetch_sub(&hold->references, 1) > 1)
        return;
    bool copy = hold->generation != fk_registry_generation();
    for (size_t i = 0; i < hold->n_parts; i++)
        fk_part_free(&hold->parts[i], copy);
    free(hold->parts);
    free(hold->predecessor);
    free(hold);
}

/* Whoever else has the slots, an heir or a run's tree, keeps them: unlocking would unlock for those too, closing doesn't. */
static void end_hold(struct flk_hold *hold, bool keep)
{
    if (!hold)
        return;
    FK_ENTER();
    bool copy = hold->generation != fk_registry_generation();
    bool shared = hold->inherited;
    if (!copy)
        shared = hold->lent || (hold->handed && atomic_load(&hold->handed->live) > 0);
    for (size_t i = hold->n_parts; i-- > 0;)
        fk_part_end(&hold->parts[i], hold->id, shared, keep, copy);
    fk_handed_unref(hold->handed);
    if (!copy)
        fk_registry_unlist(hold);
    unref_hold(hold);
}

void flk_hold_release(struct flk_hold *hold)
{
    end_hold(hold, false);
}

void flk_hold_decline(struct flk_hold *hold)
{
    end_hold(hold, true);
}

struct holds {
    struct flk_hold **holds;
    size_t count;
};

static void unref_holds(struct holds *all)
{
    for (size_t i = 0; i < all->count; i++)
        unref_hold(all->holds[i]);
    free(all->holds);
}

/* No lock is held while each runs: it may release, acquire or throw. */
int flk_hold_foreach(int (*each)(const struct flk_hold *hold, void *data), void *data)
{
    __attribute__((cleanup(unref_holds))) struct holds all = {0};
    FK_ENTER();
    int code = fk_registry_list_holds(&all.holds, &all.count);
    for (size_t i = 0; code == 0 && i < all.count; i++)
        code = each(all.holds[i], data);
    return code;
}

const char *flk_hold_id(const struct flk_hold *hold)
{
    return hold->id;
}

size_t flk_hold_names(const struct flk_hold *hold)
{
    return hold->n_parts;
}

const char *flk_hold_name(const struct flk_hold *hold, size_t index)
{
    if (index >= hold->n_parts)
        return NULL;
    const struct fk_part *part = &hold->parts[index];
    return part->path ? part->path : part->name;
}

/* Whoever draws from a hold above is told which of that one's slots it has. */
static const unsigned *shown_slots(const struct fk_part *part)
{
    return part->shown ? part->shown : part->slots;
}

size_t flk_hold_slots(const struct flk_hold *hold, size_t index, const unsigned **slots)
{
    if (index >= hold->n_parts)
        return 0;
    *slots = shown_slots(&hold->parts[index]);
    return hold->parts[index].count;
}

static const char *value_of(const struct fk_part *part, size_t index)
{
    const struct fk_row *row = part->outer ? part->outer : part->row;
    return row && row->values && index < part->count ? row->values->value[shown_slots(part)[index]] : NULL;
}

const char *flk_hold_value(const struct flk_hold *hold, size_t index, size_t slot_index)
{
    return index < hold->n_parts ? value_of(&hold->parts[index], slot_index) : NULL;
}

int flk_hold_abandoned(const struct flk_hold *hold)
{
    return hold->predecessor != NULL;
}

const struct flk_holder *flk_hold_predecessor(const struct flk_hold *hold)
{
    return hold->predecessor ? &hold->predecessor_shown : NULL;
}

int64_t flk_hold_waited_ms(const struct flk_hold *hold)
{
    return hold->waited_ms;
}

static void move_up(const struct flk_hold *hold)
{
    for (size_t i = 0; i < hold->n_parts; i++) {
        struct fk_part *part = &hold->parts[i];
        unsigned fetched = count_fetched(part);
        for (unsigned j = 0; j < part->count; j++)
            part->fds[j] = fk_fd_move_up(part->fds[j], FK_LOWEST_INHERITED);
        for (unsigned j = 0; j < fetched; j++)
            part->nest->fds[j] = fk_fd_move_up(part->nest->fds[j], FK_LOWEST_INHERITED);
    }
}

static int inherit_one(int fd, bool on)
{
    on ? fk_fd_disown(fd) : fk_fd_own(fd);
    return fcntl(fd, F_SETFD, on ? 0 : FD_CLOEXEC) < 0 ? -errno : 0;
}

static int inherit_part(const struct fk_part *part, bool on)
{
    unsigned fetched = count_fetched(part);
    int code = 0;
    for (unsigned i = 0; code == 0 && i < part->count; i++)
        code = inherit_one(part->fds[i], on);
    for (unsigned i = 0; code == 0 && i < fetched; i++)
        code = inherit_one(part->nest->fds[i], on);
    return code < 0 ? fk_fail_errno(code, "can't hand %s on", part->name) : 0;
}

/* Under the mutex a fork comes before or after: else the child's copy would not know which descriptors are its own. */
static int inherit_all(struct flk_hold *hold, bool on)
{
    int code = 0;
    fk_registry_lock();
    for (size_t i = 0; code == 0 && i < hold->n_parts; i++)
        code = inherit_part(&hold->parts[i], on);
    if (code == 0)
        hold->inherited = on;
    fk_registry_unlock();
    return code;
}

/* The generation of the process that was the first to do so; a child is another one. */
static _Atomic uint64_t handed_on_in;

bool fk_hold_came_by_fork(void)
{
    uint64_t generation = atomic_load(&handed_on_in);
    return generation && generation != fk_registry_generation();
}

int flk_hold_inherit(struct flk_hold *hold, int on)
{
    FK_ENTER();
    if (hold->generation != fk_registry_generation())
        return fk_fail(-EINVAL, "a forked child can't change who inherits its parent's hold");
    if (hold->inherited == (on != 0))
        return 0;
    if (on)
        move_up(hold);
    int code = inherit_all(hold, on != 0);
    if (code < 0)
        return code;
    uint64_t never = 0;
    atomic_compare_exchange_strong(&handed_on_in, &never, hold->generation);
    hold->lent |= hold->inherited;
    return 0;
}

void fk_hold_take_back(struct flk_hold *hold)
{
    if (flk_hold_inherit(hold, 0) == 0)
        hold->lent = false;
}

/* ---- environment ---- */

static void put_slots(FILE *out, const struct fk_part *part)
{
    for (unsigned i = 0; i < part->count; i++)
        fprintf(out, "%s%u", i ? " " : "", shown_slots(part)[i]);
    fputc('\0', out);
}

/* Nothing for a row that has none. */
static void put_values(FILE *out, const struct fk_part *part, const char *name)
{
    if (!value_of(part, 0))
        return;
    fprintf(out, "FLOCKCTL_%s=", name);
    for (unsigned i = 0; i < part->count; i++)
        fprintf(out, "%s%s", i ? " " : "", value_of(part, i));
    fputc('\0', out);
}

static const char *look_up(char *const *base, const char *name)
{
    size_t length = strlen(name);
    for (; base && *base; base++)
        if (strncmp(*base, name, length) == 0 && (*base)[length] == '=')
            return *base + length + 1;
    return "";
}

/* What the holds around us have put there and then ours, a descriptor each: name@id@fd,... A kernel's limit for one string is 128
 * KiB; whoever has so many slots is found by ancestry. */
static void put_held(FILE *out, const struct flk_hold *hold, char *const *base, const int *fds)
{
    const char *outer = look_up(base, "FLOCKCTL_HELD"), *comma = *outer ? "," : "";
    size_t size = strlen(outer);
    for (size_t i = 0; i < hold->n_parts; i++)
        size += hold->parts[i].count * (strlen(hold->parts[i].text) + strlen(hold->id) + 13);
    if (size > HELD_MAX)
        return;
    fprintf(out, "FLOCKCTL_HELD=%s", outer);
    for (size_t i = 0; i < hold->n_parts; i++)
        for (unsigned j = 0; j < hold->parts[i].count; j++) {
            fprintf(out, "%s%s@%s@%d", comma, hold->parts[i].text, hold->id, *fds++);
            comma = ",";
        }
    fputc('\0', out);
}

static void put_all_values(FILE *out, const struct flk_hold *hold)
{
    char name[32];
    if (value_of(&hold->parts[0], 0))
        fprintf(out, "FLOCKCTL_VALUE=%s%c", value_of(&hold->parts[0], 0), '\0');
    put_values(out, &hold->parts[0], "VALUES");
    for (size_t i = 0; i < hold->n_parts; i++) {
        snprintf(name, sizeof name, "VALUES_%zu", i + 1);
        put_values(out, &hold->parts[i], name);
    }
}

/* NUL-terminated assignments, one after the other. */
static void put_variables(FILE *out, const struct flk_hold *hold, char *const *base, const int *fds)
{
    fputs("FLOCKCTL_NAME=", out);
    for (size_t i = 0; i < hold->n_parts; i++)
        fprintf(out, "%s%s", i ? " " : "", flk_hold_name(hold, i));
    fprintf(out, "%cFLOCKCTL_ID=%s%c", '\0', hold->id, '\0');
    fprintf(out, "FLOCKCTL_SLOT=%u%c", shown_slots(&hold->parts[0])[0], '\0');
    fputs("FLOCKCTL_SLOTS=", out);
    put_slots(out, &hold->parts[0]);
    for (size_t i = 0; i < hold->n_parts; i++) {
        fprintf(out, "FLOCKCTL_SLOTS_%zu=", i + 1);
        put_slots(out, &hold->parts[i]);
    }
    put_all_values(out, hold);
    if (fk_root_named())
        fprintf(out, "FLOCKCTL_DIR=%s%c", fk_root_named(), '\0');
    if (hold->predecessor)
        fprintf(out, "FLOCKCTL_ABANDONED=1%c", '\0');
    fprintf(out, "FLOCKCTL_WAITED_MS=%lld%c", (long long)hold->waited_ms, '\0');
    if (fds)
        put_held(out, hold, base, fds);
}

/* Variables of ours that an outer flockctl set and that don't hold for this one are taken out. */
static bool is_replaced(const char *assignment, bool held, bool all)
{
    static const char *const ours[] = {"NAME=",  "ID=",     "SLOT=",   "SLOTS=",     "SLOTS_",
                                       "VALUE=", "VALUES=", "VALUES_", "ABANDONED=", "WAITED_MS="};
    if (strncmp(assignment, "FLOCKCTL_", 9) != 0)
        return false;
    if (strncmp(assignment + 9, "HELD=", 5) == 0)
        return held;
    if (!all)
        return false;
    if (strncmp(assignment + 9, "DIR=", 4) == 0)
        return fk_root_named() != NULL;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strncmp(assignment + 9, ours[i], strlen(ours[i])) == 0)
            return true;
    return false;
}

static char **join(char *const *base, char *variables, size_t size, bool all)
{
    size_t count = 0;
    bool held = false;
    for (char *at = variables; at < variables + size; at += strlen(at) + 1, count++)
        held |= strncmp(at, "FLOCKCTL_HELD=", 14) == 0;
    for (char *const *at = base; at && *at; at++)
        count++;
    char **envp = malloc((count + 1) * sizeof *envp + size), **next = envp;
    if (!envp)
        return NULL;
    char *copy = (char *)(envp + count + 1);
    memcpy(copy, variables, size);
    for (char *const *at = base; at && *at; at++)
        if (!is_replaced(*at, held, all))
            *next++ = *at;
    for (char *at = copy; at < copy + size; at += strlen(at) + 1)
        *next++ = at;
    *next = NULL;
    return envp;
}

static int make_environ(const struct flk_hold *hold, char *const *base, const int *fds, bool all, char ***envp)
{
    char *variables = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&variables, &size);
    if (!out)
        return fk_fail(-ENOMEM, "out of memory");
    if (all)
        put_variables(out, hold, base, fds);
    else
        put_held(out, hold, base, fds);
    char **joined = fclose(out) == 0 ? join(base, variables, size, all) : NULL;
    free(variables);
    if (!joined)
        return fk_fail(-ENOMEM, "out of memory");
    *envp = joined;
    return 0;
}

int fk_hold_environ(const struct flk_hold *hold, char *const *base, const int *fds, char ***envp)
{
    return make_environ(hold, base, fds, true, envp);
}

int fk_hold_environ_held(const struct flk_hold *hold, char *const *base, const int *fds, char ***envp)
{
    return make_environ(hold, base, fds, false, envp);
}

int flk_hold_environ(const struct flk_hold *hold, char ***envp)
{
    int *fds = hold->inherited ? malloc(fk_hold_count_slots(hold) * sizeof *fds) : NULL;
    if (hold->inherited && !fds)
        return fk_fail(-ENOMEM, "out of memory");
    if (fds)
        fk_hold_list_slots(hold, fds);
    int code = fk_hold_environ(hold, environ, fds, envp);
    free(fds);
    return code;
}
