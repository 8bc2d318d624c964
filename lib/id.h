/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names that are never given twice on this machine: [a-z][a-z0-9]{23}, good as a suffix for names of containers, files and
 * databases. The process's first use fixes the moment (ns) and 20 random bits, a counter does the rest, so one costs no system
 * call; a forked child starts afresh. flk_id() is the same with a prefix, and each thread has a moment of its own. */
#ifndef FK_ID_H
#define FK_ID_H

#include <stdbool.h>

void fk_id_make(char *id); /* FLK_ID_SIZE bytes */
bool fk_id_is(const char *text);  /* has it the form of those? */
void fk_id_after_fork_child(void);

#endif
