/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "exit_status.h"
#include "message.h"
#include "removal.h"
#include "signals.h"
#include "state.h"
#include "supervise.h"

#define KILL_AFTER_MS 2000

bool cleanup_is_wanted(const struct options *options)
{
    return options->cleanup || options->tmpdir;
}

/* ---- the directory ---- */

static const char *parent_of_tmpdir(void)
{
    const char *named = getenv("TMPDIR");
    return named && *named ? named : "/tmp";
}

/* Room for "/flockctl.ID" is left. */
static int find_parent(char real[PATH_MAX])
{
    const char *parent = parent_of_tmpdir();
    if (!realpath(parent, real))
        return fk_fail(-errno, "can't make a directory in %s, which TMPDIR names: %s; unset it, or name another",
                       parent, strerrordesc_np(errno));
    if (access(real, W_OK | X_OK) < 0)
        return fk_fail(-errno, "can't make a directory in %s: %s; name another with TMPDIR", parent,
                       strerrordesc_np(errno));
    if (strlen(real) + FLK_ID_SIZE + sizeof "/flockctl." > PATH_MAX)
        return fk_fail(-ENAMETOOLONG, "the path of TMPDIR is too long; name another");
    return 0;
}

int cleanup_check(const struct options *options)
{
    char parent[PATH_MAX];
    if (options->tmpdir && options->detach) {
        complain(
            "--tmpdir is removed when the command ends, and what --detach leaves alone would be without it; make one "
            "that stays: mktemp -d");
        return EXIT_OURS;
    }
    return options->tmpdir && find_parent(parent) < 0 ? complain_of(-1, EXIT_OURS) : 0;
}

int cleanup_choose(struct cleanup *cleanup, const struct options *options)
{
    char name[FLK_ID_SIZE];
    *cleanup = (struct cleanup){.id = ""};
    if (!options->tmpdir)
        return 0;
    int code = find_parent(cleanup->tmpdir);
    if (code == 0)
        code = flk_id("tmp", name, sizeof name);
    if (code < 0) {
        cleanup->tmpdir[0] = '\0';
        return code;
    }
    size_t length = strlen(cleanup->tmpdir);
    snprintf(cleanup->tmpdir + length, sizeof cleanup->tmpdir - length, "%sflockctl.%s", length > 1 ? "/" : "", name);
    setenv("FLOCKCTL_TMPDIR", cleanup->tmpdir, 1);
    setenv("TMPDIR", cleanup->tmpdir, 1);
    return 0;
}

/* ---- register ---- */

/* Nested calls of flockctl in the cleanup must not end at once because COMMAND's time is over. */
static const char **without_deadline(char *const *environment)
{
    static const char deadline[] = "FLOCKCTL_DEADLINE=";
    size_t count = 0, kept = 0;
    while (environment[count])
        count++;
    const char **copy = calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++)
        if (strncmp(environment[i], deadline, sizeof deadline - 1) != 0)
            copy[kept++] = environment[i];
    return copy;
}

/* mkdir may have been told of another umask. */
static int make_tmpdir(const char *path)
{
    if (mkdir(path, 0700) < 0)
        return fk_fail(-errno, "can't make the directory %s: %s; name another place with TMPDIR", path,
                       strerrordesc_np(errno));
    return chmod(path, 0700) < 0 ? -errno : 0;
}

int cleanup_register(struct cleanup *cleanup, const struct options *options, const char *name, char *const *environment)
{
    const char *const paths[] = {cleanup->tmpdir, NULL};
    const char **envp = without_deadline(environment);
    const struct flk_state_spec spec = {
        .name = name,
        .label = options->label,
        .paths = cleanup->tmpdir[0] ? paths : NULL,
        .command = options->cleanup,
        .envp = envp,
    };
    int code = envp ? fk_state_add(&spec, NULL, cleanup->id) : fk_fail(-ENOMEM, "out of memory");
    free(envp);
    if (code == 0 && cleanup->tmpdir[0])
        code = make_tmpdir(cleanup->tmpdir);
    if (code < 0)
        cleanup_forget(cleanup);
    return code;
}

/* ---- undo ---- */

static void drop(struct cleanup *cleanup)
{
    int code = cleanup->id[0] ? flk_state_drop(cleanup->id) : 0;
    if (code < 0 && code != -ENOENT)
        complain_of(code, EXIT_OURS);
    cleanup->id[0] = '\0';
}

/* A directory that can't be removed keeps the item, and a reaper tries again. */
static bool remove_tmpdir(const struct cleanup *cleanup)
{
    if (!cleanup->tmpdir[0] || fk_remove_path(cleanup->tmpdir) == 0)
        return true;
    complain("%s; it stays registered, see: flockctl state list", flk_error_detail());
    return false;
}

void cleanup_forget(struct cleanup *cleanup)
{
    struct fk_detail saved;
    fk_error_save(&saved);
    if (cleanup->id[0] && remove_tmpdir(cleanup))
        drop(cleanup);
    fk_error_restore(&saved);
}

struct added {
    char id[sizeof "FLOCKCTL_STATE_ID=" + FLK_ID_SIZE], attempt[sizeof "FLOCKCTL_STATE_ATTEMPT=" + 10], *label;
};

static const char **make_environment(const struct fk_item *item, struct added *added)
{
    size_t count = 0;
    while (item->env[count])
        count++;
    const char **environment = calloc(count + 4, sizeof *environment);
    if (asprintf(&added->label, "FLOCKCTL_STATE_LABEL=%s", item->label ? item->label : "") < 0)
        added->label = NULL;
    snprintf(added->id, sizeof added->id, "FLOCKCTL_STATE_ID=%s", item->id);
    snprintf(added->attempt, sizeof added->attempt, "FLOCKCTL_STATE_ATTEMPT=%u", item->attempts);
    if (!environment || !added->label)
        return environment;
    const char *const more[] = {added->id, added->attempt, added->label};
    memcpy(environment, more, sizeof more);
    memcpy(environment + 3, item->env, count * sizeof *environment);
    return environment;
}

/* NULL: it has succeeded. Else what became of it. */
static const char *judge(const struct fk_supervise_result *result, int64_t limit_ms, char how[64])
{
    char time[TIME_TEXT_SIZE];
    if (result->timed_out)
        snprintf(how, 64, "wasn't done in %s, and was ended", time_text(limit_ms, time));
    else if (WIFSIGNALED(result->status))
        snprintf(how, 64, "died of signal %d", WTERMSIG(result->status));
    else if (WEXITSTATUS(result->status) != 0)
        snprintf(how, 64, "failed with exit status %d", WEXITSTATUS(result->status));
    else
        return NULL;
    return how;
}

/* What it prints is no output of COMMAND's, so it goes to stderr. */
static bool run_command(const struct fk_item *item, int lock, const sigset_t *mask, int *signalled)
{
    const char *const argv[] = {"/bin/sh", "-c", item->command, NULL};
    struct fk_supervise_result result = {0};
    struct added added;
    bool at_exec;
    char how[64];
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const char **environment = make_environment(item, &added);
    const struct fk_supervise_spec spec = {
        .argv = argv,
        .envp = environment,
        .dir = item->dir,
        .stdio = {null, STDERR_FILENO, -1},
        .limit_ms = item->limit_ms,
        .kill_after_ms = KILL_AFTER_MS,
        .signal = SIGTERM,
        .flags = FK_SUPERVISE_PGRP | FK_SUPERVISE_DEAF | (signals_size_limit_is_ours ? FK_SUPERVISE_SIZE_LIMIT : 0),
        .mask = *mask,
        .control = -1,
    };
    fcntl(lock, F_SETFD, 0); /* as long as any of its processes lives, nobody else begins */
    int code = environment && added.label ? fk_supervise(&spec, &result, &at_exec) : fk_fail(-ENOMEM, "out of memory");
    fcntl(lock, F_SETFD, FD_CLOEXEC);
    close(null);
    free(environment);
    free(added.label);
    *signalled = result.signalled;
    const char *failed = code < 0 ? flk_error_detail() : judge(&result, item->limit_ms, how);
    if (failed)
        complain("the cleanup \"%s\" %s; it stays registered and is tried again, see: flockctl state list",
                 item->command, failed);
    return !failed;
}

/* The counts are for whoever comes next; what can't be written is tried again without. */
static void note(int fd, const struct fk_item *item)
{
    if (fk_item_update(fd, item) < 0)
        chat("%s", flk_error_detail());
}

int cleanup_run(struct cleanup *cleanup, const sigset_t *mask)
{
    struct fk_item item;
    int signalled = 0, fd = cleanup->id[0] ? fk_state_own_fd(cleanup->id) : -1;
    if (!cleanup->id[0])
        return 0;
    int code =
        fd < 0 ? fk_fail(-ENOENT, "what is to be cleaned up isn't registered any more") : fk_item_read(fd, true, &item);
    if (code < 0) {
        complain_of(code, EXIT_OURS);
        return 0;
    }
    item.attempts++;
    note(fd, &item);
    item.ran = !item.command || run_command(&item, fd, mask, &signalled);
    bool done = item.ran && remove_tmpdir(cleanup);
    if (done) {
        drop(cleanup);
    } else {
        item.failures++;
        note(fd, &item);
    }
    fk_item_clear(&item);
    return signalled;
}
