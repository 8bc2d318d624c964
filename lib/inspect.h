/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who has it and who waits, read from the records without any lock: true of some moment, good enough to tell a person. */
#ifndef FK_INSPECT_H
#define FK_INSPECT_H

#include "flockctl.h"
#include "row.h"

struct fk_picture {
    struct flk_waiting waiting; /* points into what follows */
    struct fk_record holder, first;
    struct flk_holder holder_shown, first_shown;
};

/* What the waiter with that ticket number (0: none) sees. */
void fk_inspect_wait(const struct fk_row *row, uint64_t number, int64_t waited_ms, struct fk_picture *picture);

#endif
