/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What inspect.c and picture.c share: one look at rows, see inspect.h. */
#ifndef FK_LOOKER_H
#define FK_LOOKER_H

#include "arena.h"
#include "flockctl.h"
#include "owner.h"
#include "record.h"
#include "row.h"

/* A pipe of our own, into which tee(2) copies. */
struct scratch {
    int fds[2];
};

struct question;
struct view;
struct known;

struct looker {
    struct known *known; /* KNOWN places, by pid; NULL: none */
    struct fk_arena *arena;
    struct scratch scratch;
    bool outputs; /* the rows are the locks of outputs */
    int rows; /* the directory */
    struct view *first, **end;
    size_t n_views;
    struct question *questions;
    size_t n_questions;
};

/* Arrays of pointers to things in the arena. */
struct list {
    void **items;
    size_t count, room;
};

int fk_looker_open(struct looker *looker, struct fk_arena *arena);
void fk_looker_close(struct looker *looker);
/* Into list the names (NULL: all there are), sorted; opens looker->rows. */
int fk_looker_rows(struct looker *looker, const char *const *names, struct list *list);
/* The slots of a row; what their records don't explain is left to fk_looker_answer(). */
int fk_looker_slots(struct looker *looker, const struct fk_row *row, struct flk_row *shown);
/* row: NULL, or the open one that all questions are about. */
int fk_looker_answer(struct looker *looker, const struct fk_row *row);
/* Numbers in the queue below `below` that weren't admitted, rising; how many. The caller frees them. */
int fk_looker_tickets(const struct fk_row *row, uint64_t below, uint64_t **numbers);
/* Does the ticket's owner wait still? *known: its record can be read. */
bool fk_looker_waits(const struct looker *looker, const struct fk_row *row, uint64_t number, struct fk_record *record,
                     bool *known, enum fk_life *life);
/* A copy in the arena, or NULL. */
struct flk_holder *fk_looker_show(struct fk_arena *arena, const struct fk_record *record);

#endif
