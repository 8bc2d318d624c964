/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "row.h"

#define FILE_NAME ".flockctl.conf"

static bool is_there(const char *directory, const char *name, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX && access(path, F_OK) == 0;
}

/* The nearest FILE_NAME from the working directory upwards, inside the work tree. */
static bool find_in_tree(char path[PATH_MAX])
{
    char here[PATH_MAX], marker[PATH_MAX], own[PATH_MAX];
    bool found = false, outermost = false;
    if (!getcwd(here, sizeof here))
        return false;
    bool beside = is_there(here, FILE_NAME, own);
    for (;;) {
        if (!found)
            found = is_there(here, FILE_NAME, path);
        outermost = is_there(here, ".git", marker);
        char *slash = strrchr(here, '/');
        if (outermost || !slash || slash == here)
            break;
        *slash = '\0';
    }
    if (!outermost && beside)
        memcpy(path, own, sizeof own);
    return outermost ? found : beside;
}

static bool find_file(char path[PATH_MAX])
{
    const char *named = getenv("FLOCKCTL_CONFIG"), *home = getenv("HOME");
    if (named && *named) {
        snprintf(path, PATH_MAX, "%s", named);
        return true;
    }
    return find_in_tree(path) || (home && *home && is_there(home, ".config/flockctl.conf", path));
}

/* One line: 0 not about name, 1 found, or an error that names file and line. */
static int read_line(char *line, const char *name, struct fk_config_entry *entry)
{
    char *rest, *word = strtok_r(line, " \t\n", &rest), *end;
    if (!word || word[0] == '#')
        return 0;
    if (fk_row_check_name(word) < 0)
        return fk_fail(-EINVAL, "%s:%u: %s isn't a name that a row can have", entry->file, entry->line, word);
    char *setting = strtok_r(NULL, " \t\n", &rest), *more = strtok_r(NULL, " \t\n", &rest);
    if (!setting || strncmp(setting, "slots=", 6) != 0 || (more && more[0] != '#'))
        return fk_fail(-EINVAL, "%s:%u: a line reads \"NAME slots=N\"; correct it", entry->file, entry->line);
    errno = 0;
    unsigned long slots = strtoul(setting + 6, &end, 10);
    if (setting[6] < '0' || setting[6] > '9' || *end || errno || slots < 1 || slots > FLK_SLOTS_MAX)
        return fk_fail(-EINVAL, "%s:%u: %s isn't a number of slots from 1 to %u; correct it", entry->file, entry->line,
                       setting + 6, FLK_SLOTS_MAX);
    if (strcmp(word, name) != 0)
        return 0;
    entry->slots = (unsigned)slots;
    return 1;
}

int fk_config_look_up(const char *name, struct fk_config_entry *entry)
{
    *entry = (struct fk_config_entry){0};
    if (!find_file(entry->file))
        return 0;
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, entry->file, O_RDONLY, 0);
    if (fd == -ENOENT)
        return fk_fail(fd, "the configuration file %s isn't there; make it, or correct FLOCKCTL_CONFIG", entry->file);
    if (fd < 0)
        return fk_fail_errno(fd, "can't read the configuration file %s", entry->file);
    FILE *file = fdopen(fd, "r");
    if (!file)
        return fk_fail(-ENOMEM, "out of memory");
    char *line = NULL;
    size_t size = 0;
    int code = 0;
    while (code == 0 && getline(&line, &size, file) > 0) {
        entry->line++;
        code = read_line(line, name, entry);
    }
    if (code == 0 && ferror(file))
        code = fk_fail_errno(-EIO, "can't read the configuration file %s", entry->file);
    free(line);
    fk_fd_take(&fd);
    fk_fd_close_file(file);
    return code < 0 ? code : 0;
}
