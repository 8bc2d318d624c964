/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is registered for cleaning up, as `flockctl state` and `flockctl reap` show it. */
#ifndef STATES_H
#define STATES_H

#include <flockctl.h>
#include <stddef.h>

#include "reap.h"

/* One word: alive, dead, failing, cleaning, damaged. */
const char *states_word(const struct flk_state *state);
/* What it does: the command and the paths; cut to what fits. */
const char *states_purpose(const struct flk_state *state, char *text, size_t size);
/* For fk_reap_teller: failures, and with --verbose the rest, as messages. */
void states_tell(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data);
/* The fields of a JSON object, without its braces. */
void states_put_json(const struct flk_state *state);

#endif
