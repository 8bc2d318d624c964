/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "states.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "message.h"

const char *states_word(const struct flk_state *state)
{
    if (state->problem)
        return "damaged";
    if (state->cleaning)
        return "cleaning";
    if (state->alive)
        return "alive";
    return state->failures ? "failing" : "dead";
}

const char *states_purpose(const struct flk_state *state, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    if (*state->command)
        used += (size_t)snprintf(text, size, "%s", state->command);
    for (const char *const *path = state->paths; *path && used < size; path++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "; " : "", *path);
    return text;
}

void states_put_json(const struct flk_state *state)
{
    printf("\"id\":");
    fk_json_string(stdout, state->id);
    fk_json_put_text(stdout, "name", state->name);
    fk_json_put_text(stdout, "label", state->label);
    fk_json_put_text(stdout, "command", state->command);
    printf(",\"paths\":[");
    for (size_t i = 0; state->paths[i]; i++) {
        fputs(i ? "," : "", stdout);
        fk_json_string(stdout, state->paths[i]);
    }
    if (state->owner)
        printf("],\"owner\":%d", (int)state->owner);
    else
        printf("],\"owner\":null");
    printf(",\"alive\":%s", state->alive ? "true" : "false");
    fk_json_put_text(stdout, "state", states_word(state));
    fk_json_put_text(stdout, "reason", state->reason);
    printf(",\"attempts\":%u,\"failures\":%u", state->attempts, state->failures);
    fk_json_put_time(stdout, "since", state->since_ms);
    fk_json_put_time(stdout, "retry", state->retry_ms);
    fk_json_put_text(stdout, "problem", state->problem);
}

void states_tell(const struct flk_state *state, enum fk_reap_result result, const char *detail, void *data)
{
    char purpose[512];
    (void)data;
    states_purpose(state, purpose, sizeof purpose);
    switch (result) {
    case FK_REAP_CLEANED:
        if (state->owner == getpid())
            chat("cleaned up: %s", purpose);
        else
            say("cleaned up what pid %d has left: %s", (int)state->owner, purpose);
        break;
    case FK_REAP_FAILED:
        complain("cleaning up %s, which pid %d left, has failed %u time%s: %s (%s); flockctl state drop %s gives it up",
                 state->id, (int)state->owner, state->failures, state->failures == 1 ? "" : "s", detail, purpose, state->id);
        break;
    case FK_REAP_DAMAGED:
        complain("%s", detail);
        break;
    case FK_REAP_ALIVE:
    case FK_REAP_BUSY:
    case FK_REAP_LATER:
        chat("%s of pid %d is left: %s (%s)", state->id, (int)state->owner, detail, purpose);
        break;
    case FK_REAP_WOULD:
        break;
    }
}
