/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl status: who has what, and who waits; as a table, again and again, or as JSON. */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "exit_status.h"
#include "json.h"
#include "message.h"
#include "table.h"
#include "verbs.h"

#define REDRAW_NS 500000000

static const char *const state_names[] = {"free", "held", "inherited", "abandoned", "blocked"};

/* ---- the table ---- */

enum { NAME, SLOT, VALUE, STATE, PID, SINCE, COMMAND, LABEL, N_COLUMNS };

static const struct table_column columns[N_COLUMNS] = {
    {"NAME", 12}, {"SLOT", 0}, {"VALUE", 12}, {"STATE", 0}, {"PID", 0}, {"SINCE", 0}, {"COMMAND", 24}, {"LABEL", 8},
};
static const enum table_color state_colors[] = {TABLE_GREEN, TABLE_YELLOW, TABLE_MAGENTA, TABLE_RED, TABLE_RED};

/* The table, of which pools have one column more. */
struct sheet {
    struct table table;
    bool with_values;
};

static void without_value(void *cells, size_t size)
{
    memmove((char *)cells + VALUE * size, (char *)cells + (VALUE + 1) * size, (N_COLUMNS - VALUE - 1) * size);
}

struct line {
    struct table_cell cells[N_COLUMNS];
    char name[2 * FLK_NAME_MAX], slot[16], pid[48], since[64], command[2048];
};

static void begin_line(struct line *line, const struct flk_row *row)
{
    snprintf(line->name, sizeof line->name, "%s%s", row->under ? "  " : "", row->name);
    for (size_t i = 0; i < N_COLUMNS; i++)
        line->cells[i] = (struct table_cell){"-", TABLE_PLAIN};
    line->cells[NAME].text = line->name;
    line->cells[LABEL].text = "";
}

static void add_line(struct sheet *sheet, struct line *line)
{
    if (!sheet->with_values)
        without_value(line->cells, sizeof *line->cells);
    table_add(&sheet->table, line->cells);
}

static void put_process(struct line *line, const struct flk_holder *who)
{
    line->cells[PID].text = line->pid;
    line->cells[COMMAND].text = line->command;
    line->cells[LABEL].text = who->label;
    if (who->since_ms && since_text(who->since_ms, line->since))
        line->cells[SINCE].text = line->since;
    if (who->pid == 0)
        snprintf(line->pid, sizeof line->pid, "?");
    else if (who->foreign & FLK_FOREIGN_PID)
        snprintf(line->pid, sizeof line->pid, "%d@%llu", (int)who->pid, (unsigned long long)who->pid_namespace);
    else
        snprintf(line->pid, sizeof line->pid, "%d", (int)who->pid);
    snprintf(line->command, sizeof line->command, "%s%s", who->command, who->stopped ? " (stopped)" : "");
}

static void put_last(struct line *line, const struct flk_slot *slot)
{
    size_t used = strlen(line->command);
    line->cells[COMMAND].text = line->command;
    if (slot->state == FLK_SLOT_ABANDONED && slot->last)
        snprintf(line->command, sizeof line->command, "(pid %d died holding it: %s)", (int)slot->last->pid,
                 slot->last->command);
    else if (slot->state == FLK_SLOT_ABANDONED)
        snprintf(line->command, sizeof line->command, "(its last holder died holding it)");
    else if (slot->state == FLK_SLOT_BLOCKED && slot->last)
        snprintf(line->command, sizeof line->command, "(in use by others; pid %d died holding it: %s)",
                 (int)slot->last->pid, slot->last->command);
    else if (slot->last)
        snprintf(line->command + used, sizeof line->command - used, "%s(from pid %d: %s)", used ? " " : "",
                 (int)slot->last->pid, slot->last->command);
}

static void add_slot_line(struct sheet *sheet, const struct flk_row *row, const struct flk_slot *slot,
                          const struct flk_holder *holder)
{
    struct line line = {.command = ""};
    begin_line(&line, row);
    snprintf(line.slot, sizeof line.slot, "%u", slot->number);
    line.cells[SLOT].text = line.slot;
    if (slot->value)
        line.cells[VALUE].text = slot->value;
    line.cells[STATE] = (struct table_cell){state_names[slot->state], state_colors[slot->state]};
    if (holder)
        put_process(&line, holder);
    if (holder && holder->pid == 0)
        snprintf(line.command, sizeof line.command, "(a process that we may not see)");
    else if (!holder && (slot->state == FLK_SLOT_HELD || slot->state == FLK_SLOT_INHERITED))
        line.cells[COMMAND].text = "(changing hands)";
    else if (slot->state == FLK_SLOT_BLOCKED)
        line.cells[COMMAND].text = slot->blocked_ms ? "(in use by others)" : "(its file is damaged)";
    if (slot->blocked_ms && since_text(slot->blocked_ms, line.since))
        line.cells[SINCE].text = line.since;
    if (slot->state == FLK_SLOT_ABANDONED || slot->state == FLK_SLOT_INHERITED || slot->last)
        put_last(&line, slot);
    add_line(sheet, &line);
}

static void add_waiter_line(struct sheet *sheet, const struct flk_row *row, const struct flk_waiter *waiter)
{
    struct line line = {.command = ""};
    const struct flk_want *want = &waiter->wants[0];
    begin_line(&line, row);
    put_process(&line, waiter->who);
    if (waiter->who->pid == 0)
        snprintf(line.command, sizeof line.command, "(its record can't be read)");
    else
        snprintf(line.since, sizeof line.since, "for %lld s", (long long)(waiter->waited_ms / 1000));
    snprintf(line.slot, sizeof line.slot, want->flags & FLK_SHARED ? "shared" : want->count ? "x%u" : "?", want->count);
    line.cells[SLOT].text = line.slot;
    line.cells[STATE] = (struct table_cell){waiter->who->stopped ? "stopped" : "waiting", TABLE_CYAN};
    add_line(sheet, &line);
}

static void add_row(struct sheet *sheet, const struct flk_row *row)
{
    for (size_t i = 0; i < row->n_slots; i++) {
        const struct flk_slot *slot = row->slots[i];
        if (slot->n_holders == 0)
            add_slot_line(sheet, row, slot, NULL);
        for (size_t j = 0; j < slot->n_holders; j++)
            add_slot_line(sheet, row, slot, slot->holders[j]);
    }
    for (size_t i = 0; i < row->n_waiters; i++)
        add_waiter_line(sheet, row, row->waiters[i]);
    if (row->n_slots == 0 && !row->problem) {
        struct line line;
        begin_line(&line, row);
        line.cells[STATE] = (struct table_cell){state_names[FLK_SLOT_FREE], state_colors[FLK_SLOT_FREE]};
        line.cells[COMMAND].text = "(nobody has used it yet)";
        add_line(sheet, &line);
    }
}

static bool in_color(const struct options *options)
{
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (options->color != COLOR_AUTO)
        return options->color == COLOR_ALWAYS;
    return isatty(STDOUT_FILENO) && !(no_color && *no_color) && terminal && strcmp(terminal, "dumb") != 0;
}

static struct table_form form_for_stdout(const struct options *options)
{
    struct table_form form = table_form_of_stdout();
    form.color = in_color(options);
    form.height = options->watch && form.height > 2 ? form.height - 1 : 0;
    if (options->watch)
        form.line_end = "\033[K\n"; /* what the last picture had there */
    return form;
}

static bool has_values(struct flk_row **rows)
{
    bool found = false;
    for (; *rows; rows++)
        found |= (*rows)->n_slots > 0 && (*rows)->slots[0]->value;
    return found;
}

static bool print_table(const struct options *options, struct flk_row **rows)
{
    struct sheet sheet = {.with_values = has_values(rows)};
    struct table_column shown[N_COLUMNS];
    struct table_form form = form_for_stdout(options);
    memcpy(shown, columns, sizeof shown);
    if (!sheet.with_values)
        without_value(shown, sizeof *shown);
    table_begin(&sheet.table, shown, sheet.with_values ? N_COLUMNS : N_COLUMNS - 1);
    for (size_t i = 0; rows[i]; i++)
        add_row(&sheet, rows[i]);
    bool printed = table_print(&sheet.table, stdout, &form);
    table_end(&sheet.table);
    if (!printed)
        complain("out of memory");
    return printed;
}

/* ---- JSON ---- */

static void put_number(const char *key, unsigned long long number)
{
    if (number)
        printf(",\"%s\":%llu", key, number);
    else
        printf(",\"%s\":null", key);
}

static void put_bool(const char *key, bool value)
{
    printf(",\"%s\":%s", key, value ? "true" : "false");
}

/* Without its braces: a waiter has more. */
static void put_holder(const struct flk_holder *who)
{
    if (who->pid)
        printf("\"pid\":%d", (int)who->pid);
    else
        printf("\"pid\":null");
    put_number("start_time", who->start_time);
    put_number("pid_namespace", who->pid_namespace);
    fk_json_put_text(stdout, "command", who->command);
    fk_json_put_text(stdout, "label", who->label);
    fk_json_put_text(stdout, "id", who->id);
    fk_json_put_time(stdout, "since", who->since_ms);
    put_bool("acquirer", who->acquirer);
    put_bool("shared", who->shared);
    put_bool("stopped", who->stopped);
    put_bool("foreign", who->foreign != 0);
}

static void put_slot(const struct flk_slot *slot)
{
    printf("{\"slot\":%u,\"state\":\"%s\"", slot->number, state_names[slot->state]);
    fk_json_put_text(stdout, "value", slot->value);
    printf(",\"holders\":[");
    for (size_t i = 0; i < slot->n_holders; i++) {
        printf("%s{", i ? "," : "");
        put_holder(slot->holders[i]);
        putchar('}');
    }
    printf("],\"last\":");
    if (slot->last) {
        putchar('{');
        put_holder(slot->last);
        putchar('}');
    } else {
        printf("null");
    }
    fk_json_put_time(stdout, "blocked", slot->blocked_ms);
    putchar('}');
}

static void put_waiter(const struct flk_waiter *waiter)
{
    putchar('{');
    put_holder(waiter->who);
    printf(",\"wants\":[");
    for (size_t i = 0; i < waiter->n_wants; i++) {
        printf("%s{\"name\":", i ? "," : "");
        fk_json_string(stdout, waiter->wants[i].name);
        put_number("count", waiter->wants[i].count);
        put_bool("shared", waiter->wants[i].flags & FLK_SHARED);
        putchar('}');
    }
    printf("],\"waited_ms\":%lld}", (long long)waiter->waited_ms);
}

static void put_row(const struct flk_row *row)
{
    printf(",\"slots\":[");
    for (size_t i = 0; i < row->n_slots; i++) {
        fputs(i ? "," : "", stdout);
        put_slot(row->slots[i]);
    }
    printf("],\"waiters\":[");
    for (size_t i = 0; i < row->n_waiters; i++) {
        fputs(i ? "," : "", stdout);
        put_waiter(row->waiters[i]);
    }
    putchar(']');
    fk_json_put_text(stdout, "problem", row->problem);
}

/* The index behind the row and those under it. */
static size_t put_name(struct flk_row **rows, size_t at)
{
    printf("{\"name\":");
    fk_json_string(stdout, rows[at]->name);
    put_row(rows[at++]);
    printf(",\"under\":[");
    for (size_t first = at; rows[at] && rows[at]->under; at++) {
        printf("%s{\"id\":", at > first ? "," : "");
        fk_json_string(stdout, rows[at]->under);
        put_row(rows[at]);
        putchar('}');
    }
    printf("]}");
    return at;
}

static bool print_json(struct flk_row **rows)
{
    char *root;
    int code = flk_root_get(&root);
    if (code < 0) {
        complain_of(code, EXIT_OURS);
        return false;
    }
    printf("{\"schema\":1,\"root\":");
    fk_json_string(stdout, root);
    printf(",\"names\":[");
    for (size_t i = 0; rows[i];) {
        fputs(i ? "," : "", stdout);
        i = put_name(rows, i);
    }
    printf("]}\n");
    free(root);
    return true;
}

/* ---- the verb ---- */

/* Those who wait go first, but for stopped ones, which are passed over. */
static int answer_quietly(const struct flk_row *row)
{
    bool free = row->n_slots == 0;
    if (row->problem) {
        complain("%s", row->problem);
        return EXIT_OURS;
    }
    for (size_t i = 0; i < row->n_slots; i++)
        free |= row->slots[i]->state == FLK_SLOT_FREE || row->slots[i]->state == FLK_SLOT_ABANDONED;
    for (size_t i = 0; i < row->n_waiters; i++)
        free &= row->waiters[i]->who->stopped != 0;
    return free ? 0 : EXIT_NO;
}

static int complain_of_rows(struct flk_row **rows)
{
    int status = 0;
    for (size_t i = 0; rows[i]; i++) {
        if (!rows[i]->problem)
            continue;
        complain("%s", rows[i]->problem);
        status = EXIT_OURS;
    }
    return status;
}

static int show_once(const struct options *options)
{
    struct flk_row **rows;
    const char *const *names = options->n_operands ? (const char *const *)options->operands : NULL;
    int code = flk_inspect(names, &rows), status;
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    if (message_quiet) {
        status = answer_quietly(rows[0]);
    } else {
        bool shown = options->json ? print_json(rows) : print_table(options, rows);
        status = !shown ? EXIT_OURS : options->watch ? 0 : complain_of_rows(rows);
    }
    flk_inspect_free(rows);
    return status;
}

/* Until a signal ends us: nothing is changed on the terminal that would have to be put back. */
static int watch(const struct options *options)
{
    printf("\033[2J");
    for (;;) {
        printf("\033[H");
        int status = show_once(options);
        printf("\033[J");
        if (status)
            return status;
        if (fflush(stdout) != 0) {
            complain("can't write to stdout: %s", strerrordesc_np(errno));
            return EXIT_OURS;
        }
        nanosleep(&(struct timespec){.tv_nsec = REDRAW_NS}, NULL);
    }
}

static int run_status(struct options *options)
{
    if (!check_operands(&verb_status, options, 0, SIZE_MAX))
        return EXIT_OURS;
    if (message_quiet && options->n_operands != 1) {
        complain("status -q tells whether one name is free; give one: flockctl -q status NAME");
        return EXIT_OURS;
    }
    if (!options->watch)
        return show_once(options);
    if (options->json || message_quiet) {
        complain("--watch draws a table; leave %s out", options->json ? "--json" : "-q");
        return EXIT_OURS;
    }
    if (!isatty(STDOUT_FILENO)) {
        complain("--watch needs a terminal, and stdout is none; leave --watch out");
        return EXIT_OURS;
    }
    return watch(options);
}

const struct verb verb_status = {
    .name = "status",
    .synopsis = "status [--json | --watch] [--color auto|always|never] [NAME]...",
    .summary = "show who has what, and who waits",
    .help =
        "Shows each slot of each NAME (all of them, if none is given) and every process that has it, then those who "
        "wait, in\n"
        "their order. Disturbs nobody. With -q and one NAME it prints nothing: exit status 0, one slot would be had "
        "at once; 1,\n"
        "it is taken.\n"
        "\n"
        "      --json                  the same for programs; flockctl(1) describes it\n"
        "      --watch                 draw it anew twice a second, until Ctrl-C\n"
        "      --color WHEN            auto (on a terminal, unless NO_COLOR is set), always or never\n"
        "\n"
        "Example\n"
        "  flockctl status podman\n",
    .groups = GROUP_STATUS,
    .run = run_status,
};
