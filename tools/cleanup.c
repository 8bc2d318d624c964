/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "exit_status.h"
#include "message.h"
#include "removal.h"
#include "state.h"

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

void cleanup_forget(struct cleanup *cleanup)
{
    struct fk_detail saved;
    fk_error_save(&saved);
    bool removed = cleanup->id[0] && (!cleanup->tmpdir[0] || fk_remove_path(cleanup->tmpdir) == 0);
    if (removed && flk_state_drop(cleanup->id) < 0)
        complain("%s", flk_error_detail());
    cleanup->id[0] = '\0';
    fk_error_restore(&saved);
}
