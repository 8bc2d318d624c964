/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <fts.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"
#include "hold.h"
#include "inputs.h"
#include "message.h"
#include "output.h"
#include "publish.h"
#include "request.h"
#include "row.h"
#include "stamp.h"

#define BLOCK 512 /* of st_blocks, on any file system */

static FTS *open_walk(const char *path, int options)
{
    return fts_open((char *[]){(char *)path, NULL}, FTS_NOCHDIR | FTS_XDEV | options, NULL);
}

static bool complain_of_path(const char *path, int code, const char *what)
{
    char shown[FK_OUTPUT_SHOWN_SIZE];
    fk_output_show(path, shown);
    complain("can't %s %s: %s", what, shown, strerrordesc_np(code));
    return false;
}

/* ---- sizes ---- */

struct file {
    dev_t device;
    ino_t inode;
};

static int compare_files(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    int devices = (x->device > y->device) - (x->device < y->device);
    return devices ? devices : (x->inode > y->inode) - (x->inode < y->inode);
}

/* A file of several links counts once. When there is no memory to know that, it counts each time. */
static bool is_counted(void **counted, const struct stat *status)
{
    if (status->st_nlink == 1 || S_ISDIR(status->st_mode))
        return false;
    struct file *file = malloc(sizeof *file), **known;
    if (!file)
        return false;
    *file = (struct file){status->st_dev, status->st_ino};
    known = tsearch(file, counted, compare_files);
    if (!known || *known != file)
        free(file);
    return known && *known != file;
}

static uint64_t measure(const char *path)
{
    uint64_t size = 0;
    void *counted = NULL;
    FTS *walk = open_walk(path, FTS_PHYSICAL);
    for (FTSENT *entry; walk && (entry = fts_read(walk));) {
        bool has_status = entry->fts_info != FTS_NS && entry->fts_info != FTS_DP && entry->fts_info != FTS_ERR;
        if (has_status && !is_counted(&counted, entry->fts_statp))
            size += (uint64_t)entry->fts_statp->st_blocks * BLOCK;
    }
    if (walk)
        fts_close(walk);
    tdestroy(counted, free);
    return size;
}

/* ---- find ---- */

static struct found_output *add(struct outputs *outputs)
{
    if (outputs->count == outputs->room) {
        size_t room = outputs->room ? 2 * outputs->room : 64;
        struct found_output *found = reallocarray(outputs->found, room, sizeof *found);
        if (!found)
            return NULL;
        outputs->found = found;
        outputs->room = room;
    }
    return &outputs->found[outputs->count++];
}

static enum output_state state_of(const char *path, const struct fk_stamp *stamp)
{
    struct stat status;
    struct fk_identity identity;
    if (lstat(path, &status) < 0)
        return OUTPUT_MISSING;
    fk_identity_take(&status, &identity);
    return fk_identity_is(&identity, &stamp->output) ? OUTPUT_READY : OUTPUT_STALE;
}

static bool is_output(const char *path)
{
    struct fk_stamp stamp;
    if (fk_stamp_open(AT_FDCWD, path, &stamp) < 0)
        return false;
    fk_stamp_close(&stamp);
    return true;
}

/* False: out of memory. */
static bool add_output(struct outputs *outputs, const char *path)
{
    struct fk_stamp stamp;
    if (fk_stamp_open(AT_FDCWD, path, &stamp) < 0)
        return true;
    struct found_output *found = add(outputs);
    if (found) {
        *found = (struct found_output){
            .path = strdup(path),
            .key = strdup(stamp.key ? stamp.key : ""),
            .state = state_of(path, &stamp),
            .built_ms = stamp.built_ns / FK_MS,
            .used_ms = stamp.used_ns / FK_MS,
        };
        found->size = found->state == OUTPUT_MISSING ? 0 : measure(path);
    }
    fk_stamp_close(&stamp);
    return found && found->path && found->key;
}

/* The path of the output whose stamp the entry seems to be. */
static bool take_output(const FTSENT *entry, char path[PATH_MAX])
{
    static const char ending[] = ".flockctl";
    size_t length = entry->fts_namelen, cut = sizeof ending - 1;
    const char *name = entry->fts_path + entry->fts_pathlen - length;
    if (length <= cut + 1 || *name != '.' || strcmp(name + length - cut, ending) != 0)
        return false;
    snprintf(path, PATH_MAX, "%.*s%.*s", (int)(name - entry->fts_path), entry->fts_path, (int)(length - cut - 1),
             name + 1);
    return true;
}

/* A stamp may have a hash in the place of a long name, by which it is found. */
static bool is_hash(const char *path)
{
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    return strlen(name) == FK_OUTPUT_HASH_SIZE - 1 && strspn(name, "0123456789abcdef") == FK_OUTPUT_HASH_SIZE - 1;
}

static bool add_by_stamp(struct outputs *outputs, const FTSENT *entry)
{
    char path[PATH_MAX];
    struct stat status;
    if (!take_output(entry, path) || (is_hash(path) && lstat(path, &status) < 0))
        return true;
    return add_output(outputs, path);
}

static bool has_long_name(const FTSENT *entry)
{
    return entry->fts_namelen > FK_STAMP_NAME_MAX;
}

static bool is_private(const FTSENT *entry)
{
    return strncmp(entry->fts_name, FK_PRIVATE_PREFIX, sizeof FK_PRIVATE_PREFIX - 1) == 0;
}

/* False: out of memory. */
static bool add_entry(struct outputs *outputs, FTS *walk, FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_D:
        if (entry->fts_level == 0 || (!is_private(entry) && !is_output(entry->fts_path)))
            return true;
        fts_set(walk, entry, FTS_SKIP);
        return !has_long_name(entry) || add_output(outputs, entry->fts_path);
    case FTS_DP:
        return true;
    case FTS_DNR:
    case FTS_ERR:
        if (entry->fts_errno == ENOENT)
            return true; /* it went meanwhile */
        outputs->failed = true;
        complain_of_path(entry->fts_path, entry->fts_errno, "read");
        return true;
    default:
        return has_long_name(entry) ? add_output(outputs, entry->fts_path) : add_by_stamp(outputs, entry);
    }
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const struct found_output *)a)->path, ((const struct found_output *)b)->path);
}

bool outputs_find(const char *directory, struct outputs *outputs)
{
    struct stat status;
    *outputs = (struct outputs){0};
    if (stat(directory, &status) < 0)
        return complain_of_path(directory, errno, "look for outputs in");
    if (!S_ISDIR(status.st_mode))
        return complain_of_path(directory, ENOTDIR, "look for outputs in");
    FTS *walk = open_walk(directory, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOSTAT);
    bool found = walk;
    for (FTSENT *entry; found && (entry = fts_read(walk));)
        found = add_entry(outputs, walk, entry);
    if (walk)
        fts_close(walk);
    if (!found) {
        complain("out of memory");
        outputs_free(outputs);
    } else if (outputs->count > 0) {
        qsort(outputs->found, outputs->count, sizeof *outputs->found, compare_paths);
    }
    return found;
}

void outputs_free(struct outputs *outputs)
{
    for (size_t i = 0; i < outputs->count; i++) {
        free(outputs->found[i].path);
        free(outputs->found[i].key);
    }
    free(outputs->found);
    *outputs = (struct outputs){0};
}

/* ---- who has it ---- */

const struct flk_slot *output_slot(struct flk_row **rows, const char *path)
{
    struct fk_output output;
    const struct flk_slot *slot = NULL;
    if (fk_output_open(path, &output) < 0)
        return NULL;
    for (size_t i = 0; rows[i] && !slot; i++)
        if (!rows[i]->under && rows[i]->n_slots > 0 && strcmp(rows[i]->name, output.row) == 0)
            slot = rows[i]->slots[0];
    fk_output_close(&output);
    return slot;
}

bool slot_is_taken(const struct flk_slot *slot)
{
    return slot && (slot->state == FLK_SLOT_HELD || slot->state == FLK_SLOT_INHERITED);
}

/* ---- discard ---- */

/* And what is known of its inputs; that of an output with {key} in its name is that of all keys, called otherwise, and stays. */
static int unlink_stamp(const struct fk_output *output)
{
    char path[PATH_MAX + sizeof INPUTS_SUFFIX];
    int code = fk_stamp_path(output->name, path);
    if (code == 0 && unlinkat(output->directory, path, 0) < 0 && errno != ENOENT)
        code = -errno;
    if (code < 0)
        return fk_fail_errno(code, "can't remove the record of %s", output->shown);
    unlinkat(output->directory, strcat(path, INPUTS_SUFFIX), 0);
    return 0;
}

static int move_away(const struct fk_output *output, const char *id)
{
    struct fk_private private = {.directory = -1};
    int code = fk_private_open(output, id, &private);
    if (code == 0)
        code = fk_private_take_old(&private);
    if (code == 0)
        code = unlink_stamp(output);
    fk_private_close(&private);
    return code;
}

/* By a holder of its lock, with that id. */
static int discard(const struct fk_output *output, const char *id, int64_t used_ms, enum discarded *discarded)
{
    struct fk_stamp stamp;
    struct stat status;
    struct fk_identity identity = {0};
    *discarded = DISCARD_NOTHING;
    if (fk_stamp_open(output->directory, output->name, &stamp) < 0)
        return 0;
    bool touched = used_ms && stamp.used_ns / FK_MS != used_ms;
    if (fstatat(output->directory, output->name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        fk_identity_take(&status, &identity);
    bool described = fk_identity_is(&identity, &stamp.output);
    fk_stamp_close(&stamp);
    *discarded = touched ? DISCARD_TOUCHED : described ? DISCARDED : DISCARDED_STAMP;
    return touched ? 0 : described ? move_away(output, id) : unlink_stamp(output);
}

int output_discard(const char *path, int64_t used_ms, int64_t wait_ms, enum discarded *discarded)
{
    struct fk_output output;
    struct flk_hold *hold;
    int code = fk_output_open(path, &output);
    if (code < 0)
        return code;
    const struct flk_options options = {.waiting = message_waiting};
    code = fk_acquire_output(&output, false, &options, 0, wait_ms, &hold);
    if (code == 0) {
        code = discard(&output, flk_hold_id(hold), used_ms, discarded);
        if (code == 0 && *discarded != DISCARD_TOUCHED)
            (void)fk_row_delete(hold->parts[0].row); /* best effort: what it was for is gone */
        flk_hold_release(hold);
    }
    fk_output_close(&output);
    return code;
}
