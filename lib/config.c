/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* What isn't "slots=N", where that is expected. */
static int refuse_setting(const struct fk_config_entry *entry, unsigned line, const char *setting)
{
    int key = (int)strcspn(setting ? setting : "", "=");
    if (!setting || !setting[key])
        return fk_fail(-EINVAL, "%s:%u: a line reads \"NAME slots=N\"; correct it", entry->file, line);
    return fk_fail(-EINVAL, "%s:%u: \"%.*s=\" isn't known to this release of flockctl, which knows slots=N; correct it",
                   entry->file, line, key, setting);
}

static int read_slots(const struct fk_config_entry *entry, unsigned line, const char *text, unsigned *slots)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || number < 1 || number > FLK_SLOTS_MAX)
        return fk_fail(-EINVAL, "%s:%u: \"%s\" isn't a number of slots from 1 to %u; correct it", entry->file, line,
                       text, FLK_SLOTS_MAX);
    *slots = (unsigned)number;
    return 0;
}

/* One line, into entry when it is about name; or an error that names file and line. */
static int read_line(char *text, unsigned line, const char *name, struct fk_config_entry *entry)
{
    unsigned slots = 0;
    if (strchr(text, '\r'))
        return fk_fail(-EINVAL, "%s:%u: the line ends with a carriage return, as on Windows; remove it (dos2unix)",
                       entry->file, line);
    char *rest, *word = strtok_r(text, " \t\n", &rest);
    if (!word || word[0] == '#')
        return 0;
    if (fk_row_check_name(word) < 0)
        return fk_fail(-EINVAL, "%s:%u: \"%s\" isn't a name that a row can have", entry->file, line, word);
    char *setting = strtok_r(NULL, " \t\n", &rest), *more = strtok_r(NULL, " \t\n", &rest);
    if (!setting || strncmp(setting, "slots=", 6) != 0)
        return refuse_setting(entry, line, setting);
    if (more && more[0] != '#')
        return refuse_setting(entry, line, more);
    int code = read_slots(entry, line, setting + 6, &slots);
    if (code < 0 || strcmp(word, name) != 0)
        return code;
    if (entry->slots)
        return fk_fail(-EINVAL, "%s:%u: %s is declared in line %u already; remove one of the two", entry->file, line,
                       name, entry->line);
    entry->slots = slots;
    entry->line = line;
    return 0;
}

static int read_lines(FILE *file, const char *name, struct fk_config_entry *entry)
{
    char *text = NULL;
    size_t size = 0;
    int code = 0;
    for (unsigned line = 1; code == 0 && getline(&text, &size, file) > 0; line++)
        code = read_line(text, line, name, entry);
    if (code == 0 && ferror(file))
        code = fk_fail_errno(-errno, "can't read the configuration file %s", entry->file);
    free(text);
    return code;
}

static int check_file(int fd, const char *path)
{
    struct stat status;
    if (fd == -ENOENT)
        return fk_fail(fd, "the configuration file %s isn't there; make it, or correct FLOCKCTL_CONFIG", path);
    if (fd < 0)
        return fk_fail_errno(fd, "can't read the configuration file %s", path);
    if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode))
        return fk_fail(-EISDIR, "the configuration file %s is a directory; name a file in FLOCKCTL_CONFIG", path);
    return 0;
}

int fk_config_look_up(const char *name, struct fk_config_entry *entry)
{
    *entry = (struct fk_config_entry){0};
    if (!find_file(entry->file))
        return 0;
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, entry->file, O_RDONLY, 0);
    int code = check_file(fd, entry->file);
    if (code < 0)
        return code;
    FILE *file = fdopen(fd, "r");
    if (!file)
        return fk_fail(-ENOMEM, "out of memory");
    code = read_lines(file, name, entry);
    fk_fd_take(&fd);
    fk_fd_close_file(file);
    return code;
}
