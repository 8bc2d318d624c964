/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What flockctl exits with where it isn't COMMAND's own status. Died COMMAND by signal n: 128 + n. */
#ifndef EXIT_STATUS_H
#define EXIT_STATUS_H

enum exit_status {
    EXIT_NO = 1,             /* the answer of status -q, holders and evict */
    EXIT_DEADLOCK = 35,      /* only waiting could end it, and waiting would never end */
    EXIT_PROBE = 69,         /* --probe or --on-abandoned failed: COMMAND wasn't started */
    EXIT_NOT_ACQUIRED = 75,  /* somebody else has it; -E gives another number */
    EXIT_TIMED_OUT = 124,    /* COMMAND's time ran out */
    EXIT_OURS = 125,         /* flockctl itself failed: usage, lock directory, system */
    EXIT_CANNOT_RUN = 126,   /* COMMAND was found but can't be executed */
    EXIT_NOT_FOUND = 127,    /* COMMAND wasn't found */
    EXIT_SIGNALLED = 128,    /* + n */
};

/* For a negative result of the library. */
int exit_status_of(int code, int conflict_status);

#endif
