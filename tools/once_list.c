/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "once_list.h"

#include <errno.h>
#include <flockctl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "exit_status.h"
#include "inspect.h"
#include "job.h"
#include "json.h"
#include "message.h"
#include "output.h"
#include "outputs.h"
#include "row.h"
#include "table.h"

/* ---- who has it ---- */

/* An output and its lock. One that is built for the first time has no stamp yet, and is known by its lock only. */
struct line {
    const char *path;
    const struct found_output *found; /* NULL: it has no stamp */
    const struct flk_slot *slot;      /* NULL: nobody has asked for it since the last reboot */
};

static bool is_shared(const struct line *line)
{
    return line->slot->n_holders > 0 && line->slot->holders[0]->shared;
}

static const char *state_of(const struct line *line)
{
    static const char *const names[] = {"ready", "stale", "missing"};
    if (slot_is_taken(line->slot) && !is_shared(line))
        return "building";
    if (slot_is_taken(line->slot) && line->found->state == OUTPUT_READY)
        return "used";
    return names[line->found->state];
}

/* ---- all of them ---- */

struct lines {
    struct line *lines;
    size_t count;
};

static void add_found(struct lines *lines, const struct outputs *outputs, struct flk_row **rows)
{
    for (size_t i = 0; i < outputs->count; i++) {
        const struct found_output *found = &outputs->found[i];
        lines->lines[lines->count++] = (struct line){found->path, found, output_slot(rows, found->path)};
    }
}

static bool is_listed(const struct lines *lines, const struct flk_slot *slot)
{
    for (size_t i = 0; i < lines->count; i++)
        if (lines->lines[i].slot == slot)
            return true;
    return false;
}

/* Those that are built for the first time, in the directory at root. */
static void add_new(struct lines *lines, const char *root, struct flk_row **rows)
{
    size_t length = strlen(root);
    char path[PATH_MAX];
    for (size_t i = 0; rows[i]; i++) {
        struct line line = {.slot = rows[i]->under || rows[i]->n_slots == 0 ? NULL : rows[i]->slots[0]};
        if (!slot_is_taken(line.slot) || is_shared(&line) || is_listed(lines, line.slot))
            continue;
        fk_row_output(rows[i]->name, path, sizeof path);
        if (strncmp(path, root, length) != 0 || (path[length] != '/' && length > 1))
            continue;
        line.path = strdup(path);
        if (line.path)
            lines->lines[lines->count++] = line;
    }
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(((const struct line *)a)->path, ((const struct line *)b)->path);
}

/* ---- the table ---- */

enum { OUTPUT, STATE, SIZE, BUILT, USED, PID, KEY, N_COLUMNS };
static const struct table_column columns[N_COLUMNS] = {
    {"OUTPUT", 24}, {"STATE", 0}, {"SIZE", 0}, {"BUILT", 0}, {"USED", 0}, {"PID", 0}, {"KEY", 12},
};

#define AGE_TEXT_SIZE 32
/* "5 m ago"; "-" for a time to come. */
static const char *age_text(int64_t since_ms, char text[AGE_TEXT_SIZE])
{
    static const struct {
        int64_t s;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};
    int64_t age = (int64_t)time(NULL) - since_ms / 1000;
    size_t unit = 0;
    while (unit < 3 && age < 2 * units[unit].s)
        unit++;
    if (age < 0)
        return "-";
    snprintf(text, AGE_TEXT_SIZE, "%lld %s ago", (long long)(age / units[unit].s), units[unit].name);
    return text;
}

static const char *pid_text(const struct line *line, char text[32])
{
    size_t count = slot_is_taken(line->slot) ? line->slot->n_holders : 0;
    pid_t pid = count > 0 ? line->slot->holders[0]->pid : 0;
    if (count == 0)
        return "-";
    if (pid == 0)
        return "?";
    snprintf(text, 32, count > 1 ? "%d +%zu" : "%d", (int)pid, count - 1);
    return text;
}

static void add_line(struct table *table, const struct line *line)
{
    struct table_cell cells[N_COLUMNS] = {{"-", TABLE_PLAIN}};
    char size[SIZE_TEXT_SIZE], built[AGE_TEXT_SIZE], used[AGE_TEXT_SIZE], pid[32];
    const struct found_output *found = line->found;
    cells[OUTPUT].text = line->path;
    cells[STATE].text = state_of(line);
    cells[SIZE].text = found && found->state != OUTPUT_MISSING ? size_text(found->size, size) : "-";
    cells[BUILT].text = found ? age_text(found->built_ms, built) : "-";
    cells[USED].text = found ? age_text(found->used_ms, used) : "-";
    cells[PID].text = pid_text(line, pid);
    cells[KEY].text = found ? found->key : "";
    table_add(table, cells);
}

static bool print_table(const struct lines *lines)
{
    struct table table;
    struct table_form form = table_form_of_stdout();
    table_begin(&table, columns, N_COLUMNS);
    for (size_t i = 0; i < lines->count; i++)
        add_line(&table, &lines->lines[i]);
    bool printed = table_print(&table, stdout, &form);
    table_end(&table);
    if (!printed)
        complain("out of memory");
    return printed;
}

/* ---- JSON ---- */

static void put_found(const struct found_output *found)
{
    printf(",\"size\":%llu", found ? (unsigned long long)found->size : 0);
    fk_json_put_time(stdout, "built", found ? found->built_ms : 0);
    fk_json_put_time(stdout, "used", found ? found->used_ms : 0);
    fk_json_put_text(stdout, "key", found ? found->key : NULL);
}

static void put_pids(const struct line *line)
{
    const char *comma = "";
    printf(",\"pids\":[");
    for (size_t i = 0; slot_is_taken(line->slot) && i < line->slot->n_holders; i++) {
        if (line->slot->holders[i]->pid == 0)
            continue;
        printf("%s%d", comma, (int)line->slot->holders[i]->pid);
        comma = ",";
    }
    printf("]}");
}

static void print_json(const struct lines *lines)
{
    printf("{\"schema\":1,\"outputs\":[");
    for (size_t i = 0; i < lines->count; i++) {
        const struct line *line = &lines->lines[i];
        printf("%s{\"output\":", i ? "," : "");
        fk_json_string(stdout, line->path);
        printf(",\"state\":\"%s\"", state_of(line));
        put_found(line->found);
        put_pids(line);
    }
    printf("]}\n");
}

/* ---- the verb's two forms ---- */

static int print(const struct outputs *outputs, const char *root, struct flk_row **rows, bool json)
{
    struct lines lines = {0};
    size_t most = outputs->count;
    for (size_t i = 0; rows[i]; i++)
        most++;
    lines.lines = calloc(most + 1, sizeof *lines.lines);
    if (!lines.lines) {
        complain("out of memory");
        return EXIT_OURS;
    }
    add_found(&lines, outputs, rows);
    add_new(&lines, root, rows);
    qsort(lines.lines, lines.count, sizeof *lines.lines, compare_lines);
    bool printed = true;
    if (json)
        print_json(&lines);
    else
        printed = print_table(&lines);
    for (size_t i = 0; i < lines.count; i++)
        if (!lines.lines[i].found)
            free((char *)lines.lines[i].path);
    free(lines.lines);
    return printed && !outputs->failed ? 0 : EXIT_OURS;
}

int once_list(const char *directory, const struct options *options)
{
    struct outputs outputs;
    struct flk_row **rows;
    char root[PATH_MAX];
    if (!realpath(directory ? directory : ".", root)) {
        complain("can't look for outputs in %s: %s", directory ? directory : ".", strerrordesc_np(errno));
        return EXIT_OURS;
    }
    if (!outputs_find(root, &outputs))
        return EXIT_OURS;
    int code = fk_inspect_outputs(&rows), status;
    if (code < 0) {
        status = complain_of(code, EXIT_OURS);
    } else {
        status = print(&outputs, root, rows, options->json);
        flk_inspect_free(rows);
    }
    outputs_free(&outputs);
    return status;
}

int once_forget(const char *output, const struct options *options)
{
    struct job job;
    enum discarded discarded;
    struct stat status;
    char shown[FK_OUTPUT_SHOWN_SIZE];
    int64_t wait_ms;
    int failed = job_bound_wait(&job, options, &wait_ms);
    if (failed)
        return failed;
    int code = output_discard(output, 0, wait_ms, &discarded);
    fk_output_show(output, shown);
    if (code < 0)
        return job_complain_of_wait(&job, code);
    if (discarded == DISCARDED_STAMP && lstat(output, &status) == 0)
        say("%s isn't what was built any more, so it stays; only its record is removed", shown);
    if (discarded != DISCARD_NOTHING || lstat(output, &status) < 0)
        return 0;
    complain("%s has no record: it was built without a key, or by others; build it anew with --force, or remove it "
             "yourself",
             shown);
    return EXIT_OURS;
}
