/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "proc.h"
#include "record.h"
#include "registry.h"
#include "shared.h"

#define ANCESTORS_MAX 1024
#define CHUNK 16 /* records read at a time */

/* ---- the records of a row ---- */

static int compare_numbers(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

typedef void (*each_record)(unsigned slot, const char *text, size_t length, void *data);

static void read_exclusive(const struct fk_row *row, each_record each, void *data)
{
    char *text = malloc(CHUNK * FK_RECORD_SIZE);
    for (unsigned slot = 0; text && slot < row->slots; slot++) {
        unsigned at = slot % CHUNK;
        if (at == 0 && pread(row->latch, text, CHUNK * FK_RECORD_SIZE, fk_latch_record_at(slot)) < FK_RECORD_SIZE)
            break;
        each(slot, text + at * FK_RECORD_SIZE, FK_RECORD_SIZE, data);
    }
    free(text);
}

struct each_shared {
    each_record each;
    void *data;
};

static void hand_shared(const char *text, size_t length, void *data)
{
    struct each_shared *to = data;
    to->each(0, text, length, to->data);
}

static void read_records(const struct fk_row *row, bool shared, each_record each, void *data)
{
    read_exclusive(row, each, data);
    if (shared && row->slots == 1)
        fk_shared_foreach(row, hand_shared, &(struct each_shared){each, data});
}

static void hint(unsigned slot, const char *text, size_t length, void *data)
{
    (void)slot;
    if (length > 0 && text[0] == FK_LIVE && memmem(text, length, "\nnests=1\n", 9))
        *(bool *)data = true;
}

bool fk_nest_is_hinted(const struct fk_row *row, const char *record, bool shared)
{
    bool hinted = false;
    if (row->slots == 1 && !shared)
        hint(0, record, FK_RECORD_SIZE, &hinted);
    else
        read_records(row, shared, hint, &hinted);
    return hinted;
}

/* A hold as its records tell. */
struct holding {
    const char *id;
    unsigned n, *slots; /* room for a row's worth */
    struct fk_record record;
};

static void gather(unsigned slot, const char *text, size_t length, void *data)
{
    struct holding *holding = data;
    struct fk_record record;
    if (fk_record_read(text, length, &record) < 0 || strcmp(record.id, holding->id) != 0)
        return;
    if (record.shared && !record.live)
        return;
    holding->slots[holding->n++] = slot;
    holding->record = record;
}

static int read_holding(const struct fk_row *row, const char *id, struct holding *holding)
{
    *holding = (struct holding){.id = id, .slots = malloc((row->slots + 1) * sizeof *holding->slots)};
    if (!holding->slots)
        return fk_fail(-ENOMEM, "out of memory");
    read_exclusive(row, gather, holding);
    if (holding->n == 0 && row->slots == 1)
        fk_shared_foreach(row, hand_shared, &(struct each_shared){gather, holding});
    if (holding->n > row->slots)
        holding->n = row->slots;
    return 0;
}

/* ---- one descriptor ---- */

static bool is_slot(const struct fk_row *row, unsigned slot, const struct stat *status)
{
    struct stat there;
    char path[24];
    snprintf(path, sizeof path, "slots/%u", slot);
    return S_ISFIFO(status->st_mode) && fstatat(row->directory, path, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           there.st_dev == status->st_dev && there.st_ino == status->st_ino;
}

/* A copy of a descriptor that others may close, or of another process. */
static int copy_fd(int fd)
{
    fk_fd_enter();
    return fk_fd_keep(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

static int fetch_fd(int pidfd, int fd)
{
    fk_fd_enter();
    return fk_fd_keep(pidfd_getfd(pidfd, fd, 0));
}

static void close_fds(int *fds, unsigned n)
{
    for (unsigned i = 0; fds && i < n; i++)
        fk_fd_close(&fds[i]);
    free(fds);
}

static int *no_fds(unsigned n)
{
    int *fds = malloc(n * sizeof *fds);
    if (fds)
        memset(fds, -1, n * sizeof *fds);
    return fds;
}

/* ---- what was found ---- */

/* In the row that was asked for: those of a hold below another one are told by the row between. */
static int find_numbers(const struct fk_row *row, const struct holding *holding, unsigned *numbers)
{
    bool below = strchr(row->text, '/') != NULL;
    unsigned *above = below ? malloc(row->slots * sizeof *above) : NULL;
    int code = below ? above ? fk_row_read_numbers(row, above) : fk_fail(-ENOMEM, "out of memory") : 0;
    for (unsigned i = 0; code == 0 && i < holding->n; i++)
        numbers[i] = below ? above[holding->slots[i]] : holding->slots[i];
    free(above);
    if (code == 0)
        qsort(numbers, holding->n, sizeof *numbers, compare_numbers);
    return code;
}

/* Takes the row's reference and fds, also when it fails. */
static int make_nest(struct fk_row *row, const struct holding *holding, int *fds, bool fetched, struct fk_nest **out)
{
    struct fk_nest *nest = calloc(1, sizeof *nest + holding->n * sizeof *nest->numbers);
    if (!nest) {
        close_fds(fds, holding->n);
        fk_registry_unref(row);
        return fk_fail(-ENOMEM, "out of memory");
    }
    nest->row = row;
    nest->numbers = (unsigned *)(nest + 1);
    snprintf(nest->id, sizeof nest->id, "%s", holding->id);
    nest->shared = holding->record.shared;
    nest->fetched = fetched;
    nest->owner = holding->record.owner;
    snprintf(nest->command, sizeof nest->command, "%.*s", (int)sizeof nest->command - 1, holding->record.command);
    nest->slots = holding->n;
    nest->fds = fds;
    int code = find_numbers(row, holding, nest->numbers);
    if (code < 0) {
        fk_nest_free(nest, false);
        return code;
    }
    *out = nest;
    return 1;
}

void fk_nest_end(struct fk_nest *nest, bool handed_on, bool copy)
{
    for (unsigned i = 0; nest && nest->fds && i < nest->slots; i++) {
        if (!copy)
            fk_fd_close(&nest->fds[i]);
        else if (handed_on && nest->fetched)
            close(nest->fds[i]);
    }
}

void fk_nest_free(struct fk_nest *nest, bool copy)
{
    if (!nest)
        return;
    if (!copy)
        fk_nest_end(nest, false, false);
    (copy ? fk_row_unref_copy : fk_registry_unref)(nest->row);
    free(nest->fds);
    free(nest);
}

bool fk_nest_stands(const struct fk_nest *nest)
{
    struct holding holding;
    if (nest->fds)
        return true;
    if (fk_owner_look(&nest->owner) == FK_DEAD || read_holding(nest->row, nest->id, &holding) < 0)
        return false;
    free(holding.slots);
    return holding.n == nest->slots && holding.record.live;
}

/* ---- by descriptor ---- */

struct entry {
    const char *name, *id;
    size_t name_length, id_length;
    int fd;
};

/* The last entry of the text of *length bytes, which is cut off. False: there is none. What can't be an entry has no name. */
static bool take_last(const char *text, size_t *length, struct entry *entry)
{
    if (*length == 0)
        return false;
    const char *end = text + *length, *comma = memrchr(text, ',', *length);
    const char *begin = comma ? comma + 1 : text;
    *length = comma ? (size_t)(comma - text) : 0;
    *entry = (struct entry){.name = begin, .fd = -1};
    const char *fd = memrchr(begin, '@', (size_t)(end - begin));
    const char *id = fd ? memrchr(begin, '@', (size_t)(fd - begin)) : NULL;
    if (!id || end - fd < 2 || end - fd > 10 || fd - id < 2 || fd - id > FLK_ID_SIZE)
        return true;
    char number[12] = "", *rest;
    memcpy(number, fd + 1, (size_t)(end - fd - 1));
    long value = strtol(number, &rest, 10);
    if (*rest || number[0] < '0' || number[0] > '9')
        return true;
    *entry = (struct entry){begin, id + 1, (size_t)(id - begin), (size_t)(fd - id - 1), (int)value};
    return true;
}

static bool is_of(const struct entry *entry, const char *name)
{
    return entry->name_length == strlen(name) && memcmp(entry->name, name, entry->name_length) == 0;
}

static bool has_id(const struct entry *entry, const char *id)
{
    return entry->id_length == strlen(id) && memcmp(entry->id, id, entry->id_length) == 0;
}

/* Whether path ends with tail, which is cut off. */
static bool cut_off(char *path, const char *tail)
{
    size_t length = strlen(path), tail_length = strlen(tail);
    if (length < tail_length || strcmp(path + length - tail_length, tail) != 0)
        return false;
    path[length - tail_length] = '\0';
    return true;
}

/* The directory of the row of which a descriptor is a slot, and which one; as its path says, which proves nothing. */
static bool read_link(const char *link, char path[PATH_MAX], unsigned *slot)
{
    char *end;
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    char *number = strrchr(path, '/');
    if (!number || number[1] < '0' || number[1] > '9')
        return false;
    unsigned long value = strtoul(number + 1, &end, 10);
    *slot = (unsigned)value;
    *number = '\0';
    return *end == '\0' && value < FLK_SLOTS_MAX && cut_off(path, "/slots");
}

static bool read_own_link(int fd, char path[PATH_MAX], unsigned *slot)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return read_link(link, path, slot);
}

/* The row of that name, or below one of its holds, of which fd may be a slot. NULL: none. */
static struct fk_row *row_of(int fd, const char *name)
{
    char path[PATH_MAX], place[FK_ROW_PLACE_SIZE];
    struct fk_row *row;
    unsigned slot;
    if (!read_own_link(fd, path, &slot))
        return NULL;
    fk_row_place(name, place);
    if (cut_off(path, place))
        return fk_registry_get(name);
    char *id = strrchr(path, '/');
    if (!id)
        return NULL;
    *id++ = '\0';
    strcat(place, "/under");
    return cut_off(path, place) && fk_row_open_under(name, id, 0, NULL, &row) == 0 ? row : NULL;
}

/* Copies of the descriptors that the variable names for the hold, those of ours that are open. */
static int copy_entries(const char *text, const char *name, const char *id, int *fds, unsigned room)
{
    struct entry entry;
    unsigned n = 0;
    for (size_t length = strlen(text); take_last(text, &length, &entry);) {
        if (!is_of(&entry, name) || !has_id(&entry, id))
            continue;
        if (n == room)
            return -1;
        fds[n] = copy_fd(entry.fd);
        if (fds[n] < 0)
            return -1;
        n++;
    }
    return (int)n;
}

/* Which of the hold's slots fd is, locked; -1: none. */
static int prove_one(const struct fk_row *row, const struct holding *holding, int fd)
{
    char path[PATH_MAX];
    struct stat status;
    unsigned slot;
    bool shared;
    if (!read_own_link(fd, path, &slot) || fstat(fd, &status) < 0 || !is_slot(row, slot, &status) ||
        !fk_proc_has_lock(fd, &shared))
        return -1;
    const unsigned *at = bsearch(&slot, holding->slots, holding->n, sizeof slot, compare_numbers);
    return at ? (int)(at - holding->slots) : -1;
}

/* Each of them is another slot of the hold, and there is one for each. */
static bool prove(const struct fk_row *row, const struct holding *holding, const int *fds, unsigned n)
{
    bool *seen = n == holding->n && fk_row_is_current(row) ? calloc(n, sizeof *seen) : NULL;
    unsigned proven = 0;
    for (; seen && proven < n; proven++) {
        int at = prove_one(row, holding, fds[proven]);
        if (at < 0 || seen[at])
            break;
        seen[at] = true;
    }
    free(seen);
    return proven == n;
}

static int prove_entries(struct fk_row *asked, const char *text, const struct entry *first, struct fk_nest **nest)
{
    char id[FLK_ID_SIZE];
    struct holding holding;
    snprintf(id, sizeof id, "%.*s", (int)first->id_length, first->id);
    struct fk_row *row = row_of(first->fd, asked->text);
    if (!row)
        return 0;
    int *fds = NULL, code = read_holding(row, id, &holding);
    if (code == 0 && holding.n > 0) {
        fds = no_fds(holding.n);
        int n = fds ? copy_entries(text, asked->text, id, fds, holding.n) : -1;
        if (n > 0 && prove(row, &holding, fds, (unsigned)n)) {
            code = make_nest(row, &holding, fds, false, nest);
            fds = NULL;
            row = NULL;
        }
    }
    close_fds(fds, holding.n);
    free(holding.slots);
    if (row)
        fk_registry_unref(row);
    return code;
}

/* ---- by ancestry ---- */

struct ancestors {
    size_t n;
    struct {
        pid_t pid;
        uint64_t start_time;
    } list[ANCESTORS_MAX]; /* the nearest first */
};

static void list_ancestors(struct ancestors *ancestors)
{
    pid_t pid = getppid();
    ancestors->n = 0;
    while (pid > 0 && ancestors->n < ANCESTORS_MAX) {
        struct fk_proc_stat stat;
        if (fk_proc_stat(pid, &stat) < 0)
            return;
        ancestors->list[ancestors->n].pid = pid;
        ancestors->list[ancestors->n++].start_time = stat.start_time;
        pid = stat.parent;
    }
}

struct search {
    const struct ancestors *ancestors;
    const struct fk_owner *self;
    size_t nearest; /* an index of ancestors */
    char id[FLK_ID_SIZE];
};

static void search_record(unsigned slot, const char *text, size_t length, void *data)
{
    struct search *search = data;
    struct fk_record record;
    bool hinted = false;
    hint(slot, text, length, &hinted);
    if (!hinted || fk_record_read(text, length, &record) < 0)
        return;
    const struct fk_owner *owner = &record.owner;
    if (owner->pid_ns != search->self->pid_ns || owner->time_ns != search->self->time_ns ||
        strcmp(owner->boot_id, search->self->boot_id) != 0)
        return;
    for (size_t i = 0; i < search->nearest; i++)
        if (search->ancestors->list[i].pid == owner->pid &&
            search->ancestors->list[i].start_time == owner->start_time) {
            search->nearest = i;
            memcpy(search->id, record.id, sizeof search->id);
        }
}

/* From the row asked for down, as long as there is a nearer one. *row is replaced by the row that the hold has slots of. */
static bool find_nearest(struct fk_row **row, const char *name, struct search *search)
{
    bool found = false;
    for (;;) {
        size_t before = search->nearest;
        struct fk_row *below;
        char above[FLK_ID_SIZE];
        memcpy(above, search->id, sizeof above);
        if (found) {
            if (fk_row_open_under(name, above, 0, NULL, &below) < 0)
                return true;
        } else {
            below = fk_registry_get(name);
            if (!below)
                return false;
        }
        read_records(below, true, search_record, search);
        if (search->nearest == before) {
            fk_registry_unref(below);
            return found;
        }
        if (*row)
            fk_registry_unref(*row);
        *row = below;
        found = true;
    }
}

/* Takes a copy of descriptor number of that process if it is one of the hold's slots that is still missing. */
static bool try_fd(const char *directory_path, const char *number, int pidfd, const struct fk_row *row,
                   const struct holding *holding, int *fds)
{
    char link[64], path[PATH_MAX];
    unsigned slot;
    snprintf(link, sizeof link, "%s/%.10s", directory_path, number);
    const unsigned *at =
        read_link(link, path, &slot) ? bsearch(&slot, holding->slots, holding->n, sizeof slot, compare_numbers) : NULL;
    size_t index = at ? (size_t)(at - holding->slots) : 0;
    if (!at || fds[index] >= 0)
        return false;
    int fd = atoi(number);
    fds[index] = pidfd < 0 ? copy_fd(fd) : fetch_fd(pidfd, fd);
    if (fds[index] >= 0 && prove_one(row, holding, fds[index]) != (int)index)
        fk_fd_close(&fds[index]);
    return fds[index] >= 0;
}

/* Fills what is missing in fds, from our own descriptors or another process's. How many are still missing. */
static unsigned look_for_fds(const char *directory_path, int pidfd, const struct fk_row *row,
                             const struct holding *holding, int *fds)
{
    unsigned missing = holding->n;
    DIR *directory = NULL;
    int opened = fk_fd_open_directory(AT_FDCWD, directory_path, &directory);
    for (unsigned i = 0; i < holding->n; i++)
        missing -= fds[i] >= 0;
    for (struct dirent *entry; opened == 0 && missing > 0 && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            missing -= try_fd(directory_path, entry->d_name, pidfd, row, holding, fds);
    if (directory)
        fk_fd_close_directory(directory);
    return missing;
}

static int open_pidfd(pid_t pid)
{
    fk_fd_enter();
    return fk_fd_keep(pidfd_open(pid, 0));
}

/* All, or NULL. *fetched: some are the other process's. */
static int *get_fds(const struct fk_row *row, const struct holding *holding, bool *fetched)
{
    int *fds = no_fds(holding->n);
    pid_t pid = holding->record.owner.pid;
    *fetched = false;
    if (!fds)
        return NULL;
    unsigned missing = look_for_fds("/proc/self/fd", -1, row, holding, fds);
    if (missing > 0) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
        FK_CLOSE_FD int pidfd = open_pidfd(pid);
        *fetched = true;
        missing = pidfd < 0 ? missing : look_for_fds(path, pidfd, row, holding, fds);
    }
    if (missing == 0)
        return fds;
    close_fds(fds, holding->n);
    return NULL;
}

static int find_by_ancestry(struct fk_row *asked, struct fk_nest **nest)
{
    struct fk_row *row = NULL;
    struct holding holding;
    struct search search = {.id = ""};
    struct ancestors *ancestors = malloc(sizeof *ancestors);
    int code = ancestors ? fk_owner_self(&search.self) : fk_fail(-ENOMEM, "out of memory");
    if (code == 0) {
        list_ancestors(ancestors);
        search.ancestors = ancestors;
        search.nearest = ancestors->n;
    }
    if (code == 0 && find_nearest(&row, asked->text, &search)) {
        code = read_holding(row, search.id, &holding);
        if (code == 0 && holding.n > 0) {
            bool fetched;
            int *fds = get_fds(row, &holding, &fetched);
            code = make_nest(row, &holding, fds, fetched, nest);
            row = NULL;
        }
        free(holding.slots);
    }
    if (row)
        fk_registry_unref(row);
    free(ancestors);
    return code;
}

/* All, or NULL. */
static int *fetch_from_ancestors(const struct fk_row *row, const struct holding *holding)
{
    int *fds = no_fds(holding->n);
    struct ancestors *ancestors = fds ? malloc(sizeof *ancestors) : NULL;
    unsigned missing = holding->n;
    if (ancestors)
        list_ancestors(ancestors);
    for (size_t i = 0; ancestors && missing > 0 && i < ancestors->n; i++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d/fd", (int)ancestors->list[i].pid);
        FK_CLOSE_FD int pidfd = open_pidfd(ancestors->list[i].pid);
        if (pidfd >= 0)
            missing = look_for_fds(path, pidfd, row, holding, fds);
    }
    free(ancestors);
    if (missing == 0)
        return fds;
    close_fds(fds, holding->n);
    return NULL;
}

/* A command's hold whose flockctl is dead, and what ran in between has closed its copy of the descriptor; but one above us has it
 * still, and waits for us. */
static int find_by_heir(const struct fk_row *asked, const struct entry *entry, struct fk_nest **nest)
{
    char id[FLK_ID_SIZE];
    struct holding holding = {.n = 0};
    snprintf(id, sizeof id, "%.*s", (int)entry->id_length, entry->id);
    struct fk_row *row = fk_registry_get(asked->text);
    int code = row ? read_holding(row, id, &holding) : 0;
    bool told = row && code == 0 && holding.n > 0 && holding.record.nests;
    int *fds = told && fk_row_is_current(row) ? fetch_from_ancestors(row, &holding) : NULL;
    if (fds) {
        code = make_nest(row, &holding, fds, true, nest);
        row = NULL;
    }
    if (row)
        fk_registry_unref(row);
    free(holding.slots);
    return code;
}

/* ---- find ---- */

/* The nearest hold first: if it isn't proven by descriptor it may be by ancestry, and only then come those further out. */
int fk_nest_find(struct fk_row *row, struct fk_nest **nest)
{
    const char *text = getenv("FLOCKCTL_HELD");
    struct entry entry;
    const char *tried = "";
    size_t length = text ? strlen(text) : 0, tried_length = 0;
    bool asked = false;
    int code = 0;
    while (code == 0 && take_last(text, &length, &entry)) {
        if (!is_of(&entry, row->text))
            continue;
        if (entry.id_length == tried_length && memcmp(entry.id, tried, tried_length) == 0)
            continue;
        code = prove_entries(row, text, &entry, nest);
        tried = entry.id;
        tried_length = entry.id_length;
        if (code == 0 && !asked && row->covered)
            code = find_by_ancestry(row, nest);
        asked = true;
        if (code == 0)
            code = find_by_heir(row, &entry, nest);
    }
    return code == 0 && !asked && row->covered ? find_by_ancestry(row, nest) : code;
}

/* ---- rows below holds ---- */

static void clear(const char *name, const char *id)
{
    struct fk_row *under;
    if (fk_row_open_under(name, id, 0, NULL, &under) < 0)
        return;
    fk_row_delete_idle(under);
    fk_registry_unref(under);
}

bool fk_nest_clear(const struct fk_row *row, const char *id)
{
    char path[8 + FLK_ID_SIZE];
    struct fk_detail detail;
    snprintf(path, sizeof path, "under/%s", id);
    if (faccessat(row->directory, path, F_OK, 0) < 0)
        return false;
    fk_error_save(&detail);
    clear(row->text, id);
    fk_error_restore(&detail);
    return true;
}

void fk_nest_sweep(const struct fk_row *row)
{
    struct fk_detail detail;
    DIR *directory;
    if (fk_fd_open_directory(row->directory, "under", &directory) < 0)
        return;
    fk_error_save(&detail);
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct holding holding;
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= FLK_ID_SIZE ||
            read_holding(row, entry->d_name, &holding) < 0)
            continue;
        if (holding.n == 0)
            clear(row->text, entry->d_name);
        free(holding.slots);
    }
    fk_fd_close_directory(directory);
    fk_error_restore(&detail);
}
