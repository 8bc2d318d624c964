/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "deadline.h"
#include "error.h"
#include "pool.h"
#include "slot.h"

static int begin(struct fk_trial *trial, unsigned slots)
{
    if (trial->seen)
        return 0;
    trial->seen = calloc(slots, 1 + sizeof *trial->passed);
    if (!trial->seen)
        return fk_fail(-ENOMEM, "out of memory");
    trial->passed = (bool *)(trial->seen + slots);
    return 0;
}

/* Which slots aren't to be taken: those seen in use in this attempt and, unless in a hurry, by anybody a short while ago. */
static int pass_over(struct fk_trial *trial, const struct fk_row *row, bool hurry)
{
    int64_t *found = malloc(row->slots * sizeof *found), soonest = FK_NEVER;
    int code = found ? fk_pool_read_blocked(row, found) : fk_fail(-ENOMEM, "out of memory");
    for (unsigned slot = 0; code == 0 && slot < row->slots; slot++) {
        int64_t rest = fk_pool_rest_of(found[slot]);
        bool in_use = trial->seen[slot] == FK_TRIAL_IN_USE;
        trial->passed[slot] = in_use || (rest > 0 && !hurry);
        if (in_use && rest == 0) /* the note could not be written */
            rest = FK_POOL_RETRY;
        if (trial->passed[slot] && rest < soonest)
            soonest = rest;
    }
    trial->retry_at = soonest == FK_NEVER ? FK_NEVER : fk_now() + soonest;
    free(found);
    return code;
}

int fk_trial_take(struct fk_trial *trial, struct fk_section *section, unsigned count, bool hurry, bool sweep,
                  unsigned *slots, int *fds, struct pollfd *busy, unsigned *n_busy)
{
    int code = begin(trial, section->row->slots);
    if (code == 0)
        code = pass_over(trial, section->row, hurry);
    if (code == 0) {
        section->passed = trial->passed;
        code = fk_slots_take(section, count - trial->n, LOCK_EX, sweep, slots + trial->n, fds + trial->n, busy, n_busy);
        section->passed = NULL;
    }
    if (code < 0) {
        fk_trial_end(trial, fds, false);
        return code;
    }
    trial->n = count;
    return -EINPROGRESS;
}

/* ---- look ---- */

/* -EAGAIN: a command is looking. */
static int look_at(struct fk_trial *trial, const struct fk_row *row, unsigned slot)
{
    const char *check = row->values->check, *value = row->values->value[slot];
    if (!fk_check_is_command(check))
        return fk_check_now(check, row->text, value);
    int code = trial->check ? 0 : fk_check_start(check, row->text, slot, value, &trial->check);
    if (code == 0)
        code = fk_check_result(trial->check);
    if (code != -EAGAIN) {
        fk_check_free(trial->check);
        trial->check = NULL;
    }
    return code;
}

int fk_trial_look(struct fk_trial *trial, const struct fk_row *row, const unsigned *slots)
{
    for (; trial->looked < trial->n; trial->looked++) {
        unsigned slot = slots[trial->looked];
        int code = look_at(trial, row, slot);
        if (code < 0)
            return code;
        trial->seen[slot] = code ? FK_TRIAL_IN_USE : FK_TRIAL_USABLE;
    }
    return 0;
}

int fk_trial_fd(const struct fk_trial *trial)
{
    return trial->check ? fk_check_fd(trial->check) : -1;
}

/* ---- settle ---- */

/* What others have noted of slots that turned out otherwise is corrected. */
static int note(const struct fk_trial *trial, const struct fk_row *row, const unsigned *slots)
{
    int64_t *found = malloc(row->slots * sizeof *found);
    int code = found ? fk_pool_read_blocked(row, found) : fk_fail(-ENOMEM, "out of memory");
    for (unsigned i = 0; code == 0 && i < trial->n; i++) {
        bool in_use = trial->seen[slots[i]] == FK_TRIAL_IN_USE;
        if (in_use || found[slots[i]] != 0)
            fk_pool_note_blocked(row, slots[i], in_use);
    }
    free(found);
    return code;
}

static void let_go_blocked(struct fk_trial *trial, unsigned *slots, int *fds)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < trial->n; i++) {
        if (trial->seen[slots[i]] == FK_TRIAL_IN_USE) {
            fk_slot_drop(&fds[i]);
            continue;
        }
        slots[kept] = slots[i];
        fds[kept++] = fds[i];
    }
    trial->n = trial->looked = kept;
}

int fk_trial_settle(struct fk_trial *trial, struct fk_section *section, unsigned count, unsigned *slots, int *fds)
{
    int code = note(trial, section->row, slots);
    if (code < 0)
        return code;
    let_go_blocked(trial, slots, fds);
    if (trial->n < count)
        return -EAGAIN;
    fk_slots_sort(count, slots, fds);
    trial->n = 0;
    fk_trial_end(trial, fds, false);
    trial->retry_at = FK_NEVER;
    return 0;
}

void fk_trial_end(struct fk_trial *trial, int *fds, bool copy)
{
    for (unsigned i = 0; !copy && i < trial->n; i++)
        fk_slot_drop(&fds[i]);
    fk_check_free(trial->check);
    free(trial->seen);
    *trial = (struct fk_trial){.retry_at = trial->retry_at};
}
