/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "deadline.h"
#include "deadlock.h"
#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "output.h"
#include "queue.h"
#include "record.h"
#include "registry.h"
#include "root.h"
#include "row.h"
#include "state.h"

#define LATCH_PATIENCE_MS 1000

struct gc {
    const struct fk_gc_spec *spec;
    int64_t now_ms;
    int code;
    /* the row in hand */
    enum fk_gc_what what;
    const char *shown;
};

static void tell(const struct gc *gc, enum fk_gc_what what, const char *name, int64_t used_ms, unsigned count)
{
    gc->spec->tell(&(struct fk_gc_found){what, name, used_ms, count}, gc->spec->data);
}

/* The thread's last sentence. */
static void pass_over(struct gc *gc, int code)
{
    gc->code = code;
    tell(gc, FK_GC_PROBLEM, flk_error_detail(), 0, 0);
}

/* ---- one row ---- */

static int64_t last_use_ms(const struct fk_row *row)
{
    struct stat status;
    if (fstatat(row->directory, "latch", &status, AT_SYMLINK_NOFOLLOW) < 0)
        return INT64_MAX;
    return (int64_t)status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1000000;
}

static bool is_old(const struct gc *gc, int64_t used_ms)
{
    return gc->spec->max_age_ms >= 0 && gc->now_ms - used_ms >= gc->spec->max_age_ms;
}

/* In a section, with all slots taken. */
static bool may_go(const struct fk_section *section, void *data)
{
    const struct gc *gc = data;
    int64_t used_ms = last_use_ms(section->row);
    bool named = gc->what == FK_GC_ROW;
    if (gc->what != FK_GC_OUTPUT_GONE && !is_old(gc, used_ms))
        return false;
    if (named && section->record[0] == FK_LIVE) /* abandoned: the next one is to be told */
        return false;
    tell(gc, gc->what, gc->shown, used_ms, 0);
    return !gc->spec->dry_run;
}

static void clear_queue(struct gc *gc, struct fk_row *row)
{
    struct fk_section section;
    uint64_t *numbers;
    int count = fk_queue_list(row, UINT64_MAX, &numbers);
    free(count >= 0 ? numbers : NULL);
    if (count <= 0 || fk_row_enter(row, fk_deadline_in_ms(LATCH_PATIENCE_MS), &section) < 0)
        return;
    unsigned dead = fk_queue_forget_dead(&section, gc->spec->dry_run);
    fk_row_leave(&section);
    if (dead)
        tell(gc, FK_GC_TICKETS, gc->shown, 0, dead);
}

/* Makes itself again as it was. */
static bool is_plain(const struct fk_row *row)
{
    return row->slots == 1 && !row->values;
}

static void look_at_row(struct gc *gc, struct fk_row *row, enum fk_gc_what what)
{
    struct fk_row_shown shown;
    gc->what = what;
    gc->shown = fk_row_show(row->text, strlen(row->text), &shown);
    clear_queue(gc, row);
    bool candidate = what != FK_GC_ROW || is_plain(row);
    if (candidate && (what == FK_GC_OUTPUT_GONE || is_old(gc, last_use_ms(row))))
        fk_row_delete_if(row, may_go, gc);
}

/* ---- many rows ---- */

/* Names are collected first, since rows go while we walk. */
struct names {
    char **list;
    size_t count, room;
};

static int add_name(struct names *names, const char *name)
{
    if (names->count == names->room) {
        size_t room = names->room ? 2 * names->room : 64;
        char **list = reallocarray(names->list, room, sizeof *list);
        if (!list)
            return fk_fail(-ENOMEM, "out of memory");
        names->list = list;
        names->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return fk_fail(-ENOMEM, "out of memory");
    names->list[names->count++] = copy;
    return 0;
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
}

static int list_names(int at, const char *path, struct names *names)
{
    DIR *directory;
    *names = (struct names){0};
    int code = fk_fd_open_directory(at, path, &directory);
    if (code < 0)
        return code == -ENOENT || code == -ENOTDIR ? 0 : fk_fail_errno(code, "can't read the directory %s", path);
    for (struct dirent *entry; code == 0 && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            code = add_name(names, entry->d_name);
    fk_fd_close_directory(directory);
    return code;
}

static void look_under(struct gc *gc, const struct fk_row *above)
{
    struct names names;
    struct fk_row *row;
    int code = list_names(above->directory, "under", &names);
    for (size_t i = 0; i < names.count; i++) {
        if (strlen(names.list[i]) >= FLK_ID_SIZE || fk_row_open_under(above->text, names.list[i], 0, NULL, &row) < 0)
            continue;
        look_at_row(gc, row, FK_GC_UNDER);
        fk_registry_unref(row);
    }
    free_names(&names);
    if (code < 0)
        pass_over(gc, code);
}

static void look_at_name(struct gc *gc, const char *name)
{
    struct fk_row *row;
    if (fk_row_check_name(name) < 0) /* not made by us */
        return;
    int code = fk_row_open(name, 0, FK_ROW_LOOK, &row);
    if (code < 0) {
        if (code != -ENOENT)
            pass_over(gc, code);
        return;
    }
    look_under(gc, row);
    look_at_row(gc, row, FK_GC_ROW);
    fk_registry_unref(row);
}

/* Is there an output whose lock has that text? What can't be told counts as there. */
static bool is_there(const char *text)
{
    struct fk_output output = {.directory = -1};
    struct stat status;
    char path[PATH_MAX];
    fk_row_output(text, path, PATH_MAX);
    if (!path[0])
        return true;
    int code = fk_output_open(path, &output);
    if (code < 0)
        return code != -ENOENT && code != -ENOTDIR;
    bool other = strcmp(output.row, text) != 0;
    bool gone = other || (fstatat(output.directory, output.name, &status, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT);
    fk_output_close(&output);
    return !gone;
}

static void look_at_output(struct gc *gc, const char *key)
{
    char text[FK_OUTPUT_KEY_SIZE];
    struct fk_row *row;
    if (snprintf(text, sizeof text, "%c%s", FK_OUTPUT_MARK, key) >= (int)sizeof text)
        return;
    int code = fk_row_open(text, 0, FK_ROW_LOOK, &row);
    if (code < 0) {
        if (code != -ENOENT)
            pass_over(gc, code);
        return;
    }
    look_at_row(gc, row, is_there(text) ? FK_GC_OUTPUT : FK_GC_OUTPUT_GONE);
    fk_registry_unref(row);
}

static bool may_sweep(const char *name, void *data)
{
    const struct gc *gc = data;
    tell(gc, FK_GC_TEMPORARY, name, 0, 0);
    return !gc->spec->dry_run;
}

static void look_at_all(struct gc *gc, const char *root, const char *where,
                        void (*look)(struct gc *gc, const char *name))
{
    struct names names;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", root, where);
    int code = list_names(AT_FDCWD, path, &names);
    for (size_t i = 0; i < names.count; i++)
        look(gc, names.list[i]);
    free_names(&names);
    if (code < 0)
        pass_over(gc, code);
    fk_row_sweep(path, may_sweep, gc);
}

static void sweep_items(struct gc *gc)
{
    struct fk_state_walk walk;
    int code = fk_state_walk_begin(&walk, NULL);
    while (code == 0 && (code = fk_state_walk_directory(&walk)) > 0) {
        code = 0;
        for (const char *entry; (entry = fk_state_walk_entry(&walk));)
            if (entry[0] == '.' && fk_state_sweep(walk.directory, entry, gc->spec->dry_run))
                tell(gc, FK_GC_TEMPORARY, entry, 0, 0);
    }
    fk_state_walk_end(&walk);
    if (code < 0)
        pass_over(gc, code);
}

int fk_gc(const struct fk_gc_spec *spec)
{
    struct timespec now;
    const char *root;
    char path[PATH_MAX];
    clock_gettime(CLOCK_REALTIME, &now);
    struct gc gc = {.spec = spec, .now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000};
    int code = fk_root_path(&root);
    if (code < 0)
        return code;
    sweep_items(&gc);
    look_at_all(&gc, root, "rows", look_at_name);
    look_at_all(&gc, root, "once", look_at_output);
    snprintf(path, sizeof path, "%s/waiting", root);
    int dead = access(path, F_OK) == 0 ? fk_deadlock_forget_dead(spec->dry_run) : 0;
    if (dead > 0)
        tell(&gc, FK_GC_WAITERS, "", 0, (unsigned)dead);
    return dead < 0 ? dead : gc.code;
}
