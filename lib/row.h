/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A row: the directory $ROOT/rows/NAME, or $ROOT/once/KEY where it is the lock of an output (output.h), and what this process keeps
 * open of it.
 *
 * On disk a row is absent, whole, or gone. It is built under a name of its own, `.tmp.ID`, whose directory its maker flocks
 * meanwhile, and appears by renameat2(RENAME_NOREPLACE); it goes by a rename to such a name and is then deleted. So a
 * crash leaves at most a `.tmp.*` that nobody flocks, and whoever makes the next row deletes it. Resizing exchanges a whole
 * row for a whole new one. Both are done by a holder of all slots, under the latch.
 *
 * A process may still have open what is no longer at the path. So each section begins by comparing the directory's device
 * and inode with those at the absolute path; no decision is made on a row that isn't the one there. */
#ifndef FK_ROW_H
#define FK_ROW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/limits.h>

#include "flockctl.h"
#include "latch.h"
#include "output.h"

struct fk_name;
struct fk_values;

#define FK_SPARE_LATCHES 3
#define FK_ROW_PLACE_SIZE (FLK_NAME_MAX + FLK_ID_SIZE + 16)

struct fk_row {
    /* under the registry's mutex */
    unsigned references;
    struct fk_name *name; /* set once, by the registry */
    struct fk_row *next_garbage;
    bool latch_lent;
    unsigned char spares;
    int spare[FK_SPARE_LATCHES]; /* more descriptors of the latch, for threads in a section at the same time */
    /* fixed while it is open */
    uint64_t generation;
    dev_t device;
    ino_t inode; /* of the directory */
    unsigned slots;
    struct fk_values *values; /* NULL: none */
    bool covered; /* when it was opened a command held some of it, perhaps one that we run under */
    int directory;
    int latch; /* lent to one section at a time; for pread and pwrite anybody's */
    /* used inside sections only, of which there is one at a time on the whole machine. The kernel's flock orders them, but no
     * rule of C says so: each section acquires what the last one of this process released. */
    _Atomic unsigned sections;
    bool used, checked;
    bool had_first; /* of a row of several: the last slot that we took alone was the lowest */
    unsigned takes; /* tries of the slot of a row of one */
    int *watches; /* a read-only descriptor of each slot's FIFO, -1: none; see slot.h */
    unsigned n_watches;
    char text[]; /* the name, or an output's; NAME/under/ID of a row below a hold */
};

enum fk_row_create {
    FK_ROW_LOOK,          /* -ENOENT when it isn't there; of an output's lock, too */
    FK_ROW_MAKE_DECLARED, /* makes it when its number of slots is given or in the configuration */
    FK_ROW_MAKE,          /* makes it, of one slot when nothing is said */
};

int fk_row_check_name(const char *name);
/* Of a row, whether it is there or not; its directory in the lock directory, as a kernel's path of it ends too. */
const char *fk_row_place(const char *text, char place[FK_ROW_PLACE_SIZE]);
/* The same with the lock directory. */
int fk_row_path(const char *text, char path[PATH_MAX]);
/* Opens its directory, to look at what is in there; or -errno. */
int fk_row_open_directory(const char *text);
/* The output whose lock that row is, as its file `output` tells; its length. "" and -errno: it can't be told. */
ssize_t fk_row_output(const char *text, char *path, size_t size);
/* What people call a row: its name, or the output whose lock it is. What lies below a hold is called as what it lies below. */
struct fk_row_shown {
    char text[FK_OUTPUT_SHOWN_SIZE];
};
const char *fk_row_show(const char *text, size_t length, struct fk_row_shown *shown);
/* "can't WHAT ROW: ...", as fk_fail_errno(). */
int fk_row_fail(int code, const char *text, const char *format, ...) __attribute__((cold, format(printf, 3, 4)));
/* slots: 0, or the number it must have: -EUSERS. The row is the caller's until fk_registry_unref(). */
int fk_row_open(const char *name, unsigned slots, enum fk_row_create create, struct fk_row **row);
/* The lock of an output, made when it isn't there: of one slot, and with a file `output` that has the output's path, bytes as
 * they are, for those who only have the row. */
int fk_row_open_output(const struct fk_output *output, struct fk_row **row);
/* The same with the values that it must have, in what they say: -EUSERS. NULL: whatever it has. */
int fk_row_open_pool(const char *name, unsigned slots, const struct fk_values *values, enum fk_row_create create,
                     struct fk_row **row);
/* The row NAME/under/ID, of which slot K is number numbers[K] of the row NAME. numbers NULL: -ENOENT without a sentence when it isn't
 * there. -ESTALE, also without: the row NAME has gone. */
int fk_row_open_under(const char *name, const char *id, unsigned slots, const unsigned *numbers, struct fk_row **row);
/* The numbers that its maker has written. */
int fk_row_read_numbers(const struct fk_row *row, unsigned *numbers);
bool fk_row_is_current(const struct fk_row *row); /* the one at its path */
/* True: it isn't. Then it is retired, and a reference is gone, so that it can be opened anew. */
bool fk_row_is_outdated(struct fk_row *row);
/* For those who only look: read-only, and entered nowhere; for fk_row_free(). path: in the directory rows, which is open. Without a
 * sentence: -ENOENT, it isn't there. */
int fk_row_peek(int rows, const char *path, struct fk_row **row);
int fk_row_peek_at(const char *text, struct fk_row **row); /* the same, of any row */
/* -EBADMSG, with a sentence that says what is wrong and what to delete. */
int fk_row_damaged(const char *text, const char *what);
void fk_row_free(struct fk_row *row);
/* A reference less to a copy that a fork made. */
void fk_row_unref_copy(struct fk_row *row);
unsigned fk_row_descriptors(const struct fk_row *row);

/* One stay in the latch. */
struct fk_section {
    struct fk_row *row;
    int fd; /* of the latch, ours meanwhile */
    struct fk_latch latch;
    bool dirty;                  /* latch is to be written before the section ends, best effort */
    const bool *passed;          /* slots that aren't to be taken, though they are free; NULL: none */
    char record[FK_RECORD_SIZE]; /* of slot 0 */
};
/* -ESTALE: the row isn't the one at its path any more. -EAGAIN: the latch wasn't to be had until then. */
int fk_row_enter(struct fk_row *row, int64_t until, struct fk_section *section);
void fk_row_leave(struct fk_section *section);

/* Deletes it if nobody holds it, nobody queues and nothing is to be cleaned up; best effort. */
void fk_row_delete_idle(struct fk_row *row);
/* The same if may() says so, which is asked with all slots taken. */
void fk_row_delete_if(struct fk_row *row, bool (*may)(const struct fk_section *section, void *data), void *data);
/* Deletes in a directory of rows what killed processes have left half-made; what may() denies stays. */
void fk_row_sweep(const char *directory, bool (*may)(const char *name, void *data), void *data);

/* By a holder of all slots. */
int fk_row_delete(struct fk_row *row);
int fk_row_exchange(struct fk_row *row, unsigned slots);

#endif
