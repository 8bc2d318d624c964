/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"
#include "row.h"
#include "values.h"

#define FILE_NAME ".flockctl.conf"

static bool is_there(const char *directory, int length, const char *name, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%.*s/%s", length, directory, name) < PATH_MAX && access(path, F_OK) == 0;
}

/* The nearest FILE_NAME from the working directory upwards, inside the work tree. */
static bool find_in_tree(char path[PATH_MAX])
{
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here))
        return false;
    int nearest = 0, length = (int)strlen(here);
    bool outermost = false;
    for (;;) {
        if (!nearest && is_there(here, length, FILE_NAME, path))
            nearest = length;
        outermost = is_there(here, length, ".git", path);
        const char *slash = memrchr(here, '/', (size_t)length);
        if (outermost || !slash || slash == here)
            break;
        length = (int)(slash - here);
    }
    /* Outside of a work tree only the directory itself counts. */
    bool found = nearest > 0 && (outermost || nearest == (int)strlen(here));
    return found && is_there(here, nearest, FILE_NAME, path);
}

static bool find_file(char path[PATH_MAX])
{
    const char *named = getenv("FLOCKCTL_CONFIG"), *home = getenv("HOME");
    if (named && *named) {
        snprintf(path, PATH_MAX, "%s", named);
        return true;
    }
    return find_in_tree(path) || (home && *home && is_there(home, (int)strlen(home), ".config/flockctl.conf", path));
}

/* Takes the values. */
static int declare(struct fk_config_entry *entry, unsigned line, const char *name, unsigned slots,
                   struct fk_values *values)
{
    if (entry->slots) {
        free(values);
        return fk_fail(-EINVAL, "%s:%u: %s is declared in line %u already; remove one of the two", entry->file, line,
                       name, entry->line);
    }
    entry->slots = values ? values->n : slots;
    entry->values = values;
    entry->line = line;
    return 0;
}

/* What stands in a line behind the name. */
struct settings {
    unsigned slots;
    const char *values, *check; /* NULL: not there */
    bool spread;
};

/* What isn't a setting, or not there where one is needed. */
static int refuse_setting(const struct fk_config_entry *entry, unsigned line, const char *setting)
{
    int key = (int)strcspn(setting ? setting : "", "=");
    if (!setting || !setting[key])
        return fk_fail(-EINVAL,
                       "%s:%u: a line reads \"NAME slots=N\" or \"NAME values=LIST [spread] [check=CMD]\"; correct it",
                       entry->file, line);
    return fk_fail(-EINVAL,
                   "%s:%u: \"%.*s=\" isn't known to this release of flockctl, which knows slots=, values= and check=; "
                   "correct it",
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

/* The next word of a line, which is cut off; NULL: there is none, or a comment. */
static char *take_word(char **at)
{
    char *word = *at + strspn(*at, " \t\n");
    if (!*word || *word == '#')
        return NULL;
    char *end = word + strcspn(word, " \t\n");
    *at = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

/* The rest of a line. */
static char *take_rest(char *word, char **at)
{
    size_t length = strlen(word);
    if (*at > word + length)
        word[length] = ' ';
    length = strlen(word);
    while (length > 0 && strchr(" \t\n", word[length - 1]))
        word[--length] = '\0';
    *at = word + length;
    return word;
}

static int read_settings(const struct fk_config_entry *entry, unsigned line, char *at, struct settings *settings)
{
    int code = 0;
    bool any = false;
    for (char *word; code == 0 && (word = take_word(&at)); any = true) {
        if (strncmp(word, "slots=", 6) == 0 && !any)
            code = read_slots(entry, line, word + 6, &settings->slots);
        else if (strncmp(word, "values=", 7) == 0 && !any)
            settings->values = word + 7;
        else if (strcmp(word, "spread") == 0 && settings->values && !settings->spread)
            settings->spread = true;
        else if (strncmp(word, "check=", 6) == 0 && settings->values)
            settings->check = take_rest(word, &at) + 6;
        else
            code = refuse_setting(entry, line, word);
    }
    return code == 0 && !any ? refuse_setting(entry, line, NULL) : code;
}

static int read_values(const struct fk_config_entry *entry, unsigned line, const char *name,
                       const struct settings *settings, struct fk_values **values)
{
    struct fk_detail detail;
    struct fk_value_list list = {0};
    int code = fk_value_list_parse(&list, settings->values);
    const struct flk_pool pool = {
        .values = (const char *const *)list.items,
        .n_values = list.n,
        .check = settings->check,
        .flags = settings->spread ? FLK_POOL_SPREAD : 0,
    };
    if (code == 0)
        code = fk_values_make(name, &pool, values);
    fk_value_list_clear(&list);
    fk_error_save(&detail);
    return code == -EINVAL ? fk_fail(code, "%s:%u: %.1000s", entry->file, line, detail.text) : code;
}

/* One line, into entry when it is about name; or an error that names file and line. */
static int read_line(char *text, unsigned line, const char *name, struct fk_config_entry *entry)
{
    struct settings settings = {0};
    struct fk_values *values = NULL;
    if (strchr(text, '\r'))
        return fk_fail(-EINVAL, "%s:%u: the line ends with a carriage return, as on Windows; remove it (dos2unix)",
                       entry->file, line);
    char *word = take_word(&text);
    if (!word)
        return 0;
    if (fk_row_check_name(word) < 0)
        return fk_fail(-EINVAL, "%s:%u: \"%s\" isn't a name that a row can have", entry->file, line, word);
    int code = read_settings(entry, line, text, &settings);
    if (code == 0 && settings.values)
        code = read_values(entry, line, word, &settings, &values);
    if (code == 0 && strcmp(word, name) == 0)
        return declare(entry, line, name, settings.slots, values);
    free(values);
    return code;
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

void fk_config_clear(struct fk_config_entry *entry)
{
    free(entry->values);
    entry->values = NULL;
}

static int differs(const struct fk_config_entry *entry, const char *name, const char *there, const char *wanted)
{
    return fk_fail(-EUSERS, "%s:%u declares %s with %s, not %s; correct the file, or ask for what it says", entry->file,
                   entry->line, name, there, wanted);
}

static int has_other_count(const struct fk_config_entry *entry, const char *name, unsigned slots)
{
    char there[48], wanted[48];
    const char *unit = entry->values ? "value" : "slot";
    snprintf(there, sizeof there, "%u %s%s", entry->slots, unit, entry->slots == 1 ? "" : "s");
    snprintf(wanted, sizeof wanted, entry->values ? "%u slot%s" : "%u", slots, slots == 1 ? "" : "s");
    return differs(entry, name, there, wanted);
}

int fk_config_check(const struct fk_config_entry *entry, const char *name, unsigned slots,
                    const struct fk_values *values, bool exact)
{
    struct fk_values_difference difference;
    if (!entry->slots)
        return 0;
    if (values && !entry->values)
        return differs(entry, name, "slots alone", "values");
    if (values && !fk_values_agree(entry->values, values, exact, &difference))
        return differs(entry, name, difference.there, difference.wanted);
    if (slots && slots != entry->slots)
        return has_other_count(entry, name, slots);
    return exact && entry->values && !values ? differs(entry, name, "values", "slots alone") : 0;
}
