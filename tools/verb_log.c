/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl log: shows the history (log.h), follows it, turns it on and off.
 *
 * --follow sleeps on an inotify watch of the file's directory: lines that are appended, and the rotation, which gives the
 * file's name to a new one. What a rotated file still has is read before the new one is opened; nobody writes to it any more then. */
#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <linux/limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "exit_status.h"
#include "json.h"
#include "message.h"
#include "output.h"
#include "root.h"
#include "row.h"
#include "utf8.h"
#include "verbs.h"

/* ---- one line ---- */

/* Behind the string that begins at text; NULL: it doesn't end. */
static const char *skip_string(const char *text)
{
    for (text++; *text && *text != '"'; text++)
        if (*text == '\\' && text[1])
            text++;
    return *text ? text + 1 : NULL;
}

/* Behind the value that begins at text: up to the comma or bracket that ends it. */
static const char *skip_value(const char *text)
{
    for (int depth = 0; text && *text;) {
        if (depth == 0 && (*text == ',' || *text == '}' || *text == ']'))
            return text;
        depth += (*text == '{' || *text == '[') - (*text == '}' || *text == ']');
        text = *text == '"' ? skip_string(text) : text + 1;
    }
    return NULL;
}

/* The value of a key of the object at text, not terminated; NULL: it has none. */
static const char *find(const char *text, const char *key)
{
    size_t length = strlen(key);
    while (text && (*text == '{' || *text == ',')) {
        const char *name = text + 1, *end = *name == '"' ? skip_string(name) : NULL;
        if (!end || *end != ':')
            return NULL;
        if ((size_t)(end - name) == length + 2 && memcmp(name + 1, key, length) == 0)
            return end + 1;
        text = skip_value(end + 1);
    }
    return NULL;
}

static long long number_of(const char *text, const char *key)
{
    const char *value = find(text, key);
    return value ? strtoll(value, NULL, 10) : 0;
}

/* Escapes of controls stay as they are. The file may have been written by anybody: what a terminal would obey is escaped here, too. */
static void print_string(const char *value)
{
    const char *end = value && *value == '"' ? skip_string(value) : NULL;
    for (const char *at = end ? value + 1 : NULL; end && at < end - 1;) {
        const unsigned char *byte = (const unsigned char *)at;
        size_t length = fk_utf8_character(byte);
        bool quoted = *at == '\\' && (at[1] == '"' || at[1] == '\\');
        if (quoted)
            putchar(*++at);
        else if (length == 0 || fk_utf8_is_control(byte))
            printf("\\x%02x", *byte);
        else
            fwrite(at, 1, length, stdout);
        at += quoted || length == 0 || fk_utf8_is_control(byte) ? 1 : length;
    }
}

static void print_time(long long ns)
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm tm;
    char text[64] = "?";
    if (localtime_r(&seconds, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    printf("%s.%03d", text, (int)(ns / 1000000 % 1000));
}

static void print_slots(const char *value)
{
    const char *end = value && *value == '[' ? strchr(value, ']') : NULL;
    fputs(end ? " slot " : "", stdout);
    for (const char *at = value; end && at < end; at++)
        if ((*at >= '0' && *at <= '9') || *at == ',')
            putchar(*at);
}

static void print_duration(const char *line, const char *key)
{
    if (find(line, key))
        printf(" %s %.3f s", key, (double)number_of(line, key) / 1e9);
}

static void print_process(const char *object)
{
    printf(" pid %lld (", number_of(object, "pid"));
    print_string(find(object, "command"));
    putchar(')');
}

static bool is_string(const char *value, const char *wanted)
{
    size_t length = strlen(wanted);
    return value && *value == '"' && strncmp(value + 1, wanted, length) == 0 && value[length + 1] == '"';
}

static bool is_of(const char *line, const char *name)
{
    const char *value = find(line, "name");
    return value && strncmp(value, name, strlen(name)) == 0;
}

/* Nothing for a line that isn't one of ours, or of another name. */
static void print_line(const char *line, const char *name)
{
    const char *event = find(line, "event"), *other = find(line, "other"), *word;
    if (!event || !find(line, "time") || (name && !is_of(line, name)))
        return;
    print_time(number_of(line, "time"));
    fputs("  ", stdout);
    print_string(event);
    fputs("  ", stdout);
    print_string(find(line, "name"));
    if (find(line, "under"))
        fputs(" (nested)", stdout);
    print_slots(find(line, "slots"));
    if (number_of(line, "wants") > 1)
        printf(" wants %lld", number_of(line, "wants"));
    if (find(line, "shared"))
        fputs(" shared", stdout);
    print_duration(line, "waited");
    print_duration(line, "held");
    fputs(" by", stdout);
    print_process(line);
    word = find(line, "label");
    if (word) {
        fputs(" \"", stdout);
        print_string(word);
        putchar('"');
    }
    if (other) {
        fputs(is_string(event, "abandonment") ? " of" : ":", stdout);
        print_process(other);
    }
    if (number_of(line, "signal"))
        printf(" signal %lld", number_of(line, "signal"));
    word = find(line, "detail");
    if (word) {
        fputs(": ", stdout);
        print_string(word);
    }
    putchar('\n');
}

/* ---- the file ---- */

struct reader {
    const char *path, *old;
    char *name; /* as it stands in the file, with its quotes; NULL: all */
    FILE *in; /* NULL: it isn't there yet */
    ino_t inode;
    char *line;
    size_t room, length; /* of a line that isn't whole yet */
};

static bool open_file(struct reader *reader, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    reader->in = fd < 0 ? NULL : fdopen(fd, "r");
    if (!reader->in) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    reader->inode = fstat(fd, &status) == 0 ? status.st_ino : 0;
    reader->length = 0;
    return true;
}

/* Up to the end that it has now. */
static void read_lines(struct reader *reader)
{
    char *part = NULL;
    size_t room = 0;
    ssize_t length;
    if (!reader->in)
        return;
    clearerr(reader->in);
    while ((length = getline(&part, &room, reader->in)) > 0) {
        char *grown = realloc(reader->line, reader->length + (size_t)length + 1);
        if (!grown)
            break;
        reader->line = grown;
        memcpy(grown + reader->length, part, (size_t)length + 1);
        reader->length += (size_t)length;
        if (part[length - 1] != '\n')
            continue;
        grown[strcspn(grown, "\n")] = '\0';
        print_line(grown, reader->name);
        reader->length = 0;
    }
    free(part);
}

static void close_file(struct reader *reader)
{
    if (reader->in)
        fclose(reader->in);
    reader->in = NULL;
}

static void read_whole(struct reader *reader, const char *path)
{
    if (open_file(reader, path))
        read_lines(reader);
}

static bool is_rotated(const struct reader *reader)
{
    struct stat status;
    return stat(reader->path, &status) == 0 && (!reader->in || status.st_ino != reader->inode);
}

static void read_on(struct reader *reader)
{
    bool rotated = is_rotated(reader), had_one = reader->in != NULL;
    ino_t before = reader->inode;
    struct stat status;
    read_lines(reader);
    if (!rotated)
        return;
    close_file(reader);
    if (had_one && stat(reader->old, &status) == 0 && status.st_ino != before) {
        read_whole(reader, reader->old); /* rotated twice meanwhile */
        close_file(reader);
    }
    read_whole(reader, reader->path);
}

/* ---- follow ---- */

static int watch_directory(const char *path)
{
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    slash[slash == directory] = '\0';
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd >= 0 && inotify_add_watch(fd, directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM) < 0) {
        int code = errno;
        close(fd);
        errno = code;
        fd = -1;
    }
    if (fd < 0)
        complain("can't follow %s: %s%s", path, strerrordesc_np(errno),
                 errno == EMFILE || errno == ENOSPC ? "; raise fs.inotify.max_user_instances or max_user_watches" : "");
    return fd;
}

/* Until somebody ends us, or nobody reads what we print. */
static int follow(struct reader *reader, int watch)
{
    struct pollfd polls[] = {{.fd = watch, .events = POLLIN}, {.fd = STDOUT_FILENO, .events = 0}};
    char events[4096];
    for (;;) {
        read_on(reader);
        if (fflush(stdout) != 0)
            return EXIT_OURS;
        if (poll(polls, 2, -1) < 0 && errno != EINTR)
            return EXIT_OURS;
        if (polls[1].revents & (POLLERR | POLLHUP))
            return 0;
        while (read(watch, events, sizeof events) > 0)
            ;
    }
}

/* What has a slash is the path of an output, which may be gone. */
static int find_name(const char *operand, char **name)
{
    FK_CLOSE_OUTPUT struct fk_output output = {.directory = -1};
    size_t size;
    bool is_path = strchr(operand, '/') != NULL;
    int code = is_path ? fk_output_check(operand) : fk_row_check_name(operand);
    if (code < 0)
        return code;
    const char *found = is_path && fk_output_open(operand, &output) == 0 ? output.path : operand;
    FILE *out = open_memstream(name, &size);
    if (out)
        fk_json_string(out, found);
    return out && fclose(out) == 0 ? 0 : fk_fail(-ENOMEM, "out of memory");
}

static int show(const struct options *options)
{
    char path[PATH_MAX], old[PATH_MAX + 2];
    struct reader reader = {.path = path, .old = old};
    int code = fk_root_log_path(path), watch = -1;
    if (code == 0 && options->n_operands)
        code = find_name(options->operands[0], &reader.name);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    if (options->follow) {
        watch = watch_directory(path); /* before anything is read, so that nothing is missed */
        if (watch < 0) {
            free(reader.name);
            return EXIT_OURS;
        }
    }
    snprintf(old, sizeof old, "%s.1", path);
    read_whole(&reader, old);
    close_file(&reader);
    read_whole(&reader, path);
    if (!reader.in && !options->follow)
        say("there is no history in %s; to begin one: flockctl log --on", path);
    int status = options->follow ? follow(&reader, watch) : 0;
    close_file(&reader);
    free(reader.line);
    free(reader.name);
    if (watch >= 0)
        close(watch);
    return status;
}

/* ---- the verb ---- */

static int turn(bool on)
{
    char path[PATH_MAX];
    int code = fk_root_set_log(on);
    if (code == 0)
        code = fk_root_log_path(path);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    chat("history is %s: %s", on ? "on" : "off", path);
    return 0;
}

static int run_log(struct options *options)
{
    bool turns = options->log_on || options->log_off;
    if (turns && options->follow) {
        complain("log --%s doesn't follow; leave --follow out", options->log_on ? "on" : "off");
        return EXIT_OURS;
    }
    if (!check_operands(&verb_log, options, 0, turns ? 0 : 1))
        return EXIT_OURS;
    return turns ? turn(options->log_on) : show(options);
}

const struct verb verb_log = {
    .name = "log",
    .synopsis = "log [-f] [NAME] | --on | --off",
    .summary = "show the history of names",
    .help = "Prints who acquired, waited for and released what, and when, of one NAME or of all: what the history has, "
            "which\n"
            "is kept once it was turned on. The NAME of an output that once has built is its path, with a slash.\n"
            "\n"
            "  -f, --follow  go on printing what is added\n"
            "      --on      keep a history, of what is started from now on\n"
            "      --off     keep none\n"
            "\n"
            "With FLOCKCTL_LOG=FILE in the environment the history is in FILE.\n"
            "\n"
            "Example: see how the containers take turns\n"
            "  flockctl log --on\n"
            "  flockctl log --follow podman\n",
    .groups = GROUP_LOG,
    .run = run_log,
};
