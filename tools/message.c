/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "exit_status.h"

#define LINE_SIZE 4000 /* less than PIPE_BUF: a line in a pipe stays in one piece */

bool message_quiet, message_verbose;

struct line {
    char text[LINE_SIZE];
    size_t length;
};

__attribute__((format(printf, 2, 0))) static void add_list(struct line *line, const char *format, va_list arguments)
{
    int written = vsnprintf(line->text + line->length, sizeof line->text - line->length, format, arguments);
    if (written > 0)
        line->length += (size_t)written;
    if (line->length > sizeof line->text - 1)
        line->length = sizeof line->text - 1;
}

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    add_list(line, format, arguments);
    va_end(arguments);
}

/* Others choose their command lines; a terminal must not obey them. Bytes above 0x7f are left alone unless they could be a C1
 * control, alone or in UTF-8. */
static void add_text(struct line *line, const char *text, size_t most)
{
    for (size_t i = 0; text[i] && i < most; i++) {
        unsigned char byte = (unsigned char)text[i], before = i ? (unsigned char)text[i - 1] : 0;
        bool c1 = byte >= 0x80 && byte < 0xa0 && (before < 0x80 || before == 0xc2);
        if (byte < 0x20 || byte == 0x7f || c1)
            add(line, "\\x%02x", byte);
        else
            add(line, "%c", byte);
    }
    if (strlen(text) > most)
        add(line, "...");
}

static size_t end_line(struct line *line)
{
    if (line->length == sizeof line->text - 1)
        line->length--;
    line->text[line->length++] = '\n';
    return line->length;
}

/* A descriptor of our own of a pipe or terminal, which alone is non-blocking; O_NONBLOCK on stderr itself would change it for
 * everybody who shares it. */
static int open_stderr(void)
{
    struct stat status;
    if (fstat(STDERR_FILENO, &status) < 0)
        return -1;
    if (!S_ISFIFO(status.st_mode) && !S_ISCHR(status.st_mode))
        return STDERR_FILENO;
    return open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static void write_now(struct line *line)
{
    size_t length = end_line(line);
    int fd = open_stderr();
    struct pollfd room = {.fd = fd < 0 ? STDERR_FILENO : fd, .events = POLLOUT};
    bool writable =
        poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) && !(room.revents & POLLERR); /* no SIGPIPE for a message */
    if (writable && write(room.fd, line->text, length) < 0)
        errno = 0; /* full after all */
    if (fd > STDERR_FILENO)
        close(fd);
}

__attribute__((format(printf, 2, 0))) static void compose_line(struct line *line, const char *format, va_list arguments)
{
    struct line text = {.length = 0};
    line->length = 0;
    add_list(&text, format, arguments);
    add(line, "flockctl: ");
    add_text(line, text.text, sizeof text.text);
}

__attribute__((format(printf, 1, 0))) static void write_line(const char *format, va_list arguments)
{
    struct line line;
    compose_line(&line, format, arguments);
    size_t length = end_line(&line);
    if (write(STDERR_FILENO, line.text, length) < 0)
        errno = 0; /* nobody is left to be told */
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!message_quiet)
        write_line(format, arguments);
    va_end(arguments);
}

void chat(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (message_verbose)
        write_line(format, arguments);
    va_end(arguments);
}

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

void say_now(const char *format, ...)
{
    struct line line;
    va_list arguments;
    va_start(arguments, format);
    compose_line(&line, format, arguments);
    va_end(arguments);
    if (!message_quiet)
        write_now(&line);
}

void complain_now(const char *format, ...)
{
    struct line line;
    va_list arguments;
    va_start(arguments, format);
    compose_line(&line, format, arguments);
    va_end(arguments);
    write_now(&line);
}

int exit_status_of(int code, int conflict_status)
{
    if (code == -EBUSY || code == -ETIMEDOUT)
        return conflict_status;
    return code == -EDEADLK ? EXIT_DEADLOCK : EXIT_OURS;
}

int complain_of(int code, int conflict_status)
{
    if (code != -EBUSY && code != -ETIMEDOUT)
        complain("%s", flk_error_detail());
    else
        say("%s", flk_error_detail());
    return exit_status_of(code, conflict_status);
}

const char *time_text(int64_t ms, char text[TIME_TEXT_SIZE])
{
    if (ms % 1000 == 0)
        snprintf(text, TIME_TEXT_SIZE, "%lld s", (long long)(ms / 1000));
    else
        snprintf(text, TIME_TEXT_SIZE, "%lld ms", (long long)ms);
    return text;
}

/* ---- the waiting message ---- */

const char *size_text(uint64_t size, char text[SIZE_TEXT_SIZE])
{
    static const char units[] = "KMGTPE";
    double value = (double)size;
    int unit = -1;
    for (; value >= 1024 && units[unit + 1]; unit++)
        value /= 1024;
    if (unit < 0)
        snprintf(text, SIZE_TEXT_SIZE, "%d", (int)size);
    else
        snprintf(text, SIZE_TEXT_SIZE, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return text;
}

bool since_text(int64_t since_ms, char text[SINCE_TEXT_SIZE])
{
    time_t since = (time_t)(since_ms / 1000), now = time(NULL);
    struct tm then, today;
    if (!localtime_r(&since, &then) || !localtime_r(&now, &today))
        return false;
    bool same_day = then.tm_yday == today.tm_yday && then.tm_year == today.tm_year;
    return strftime(text, SINCE_TEXT_SIZE, same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &then) > 0;
}

static void add_since(struct line *line, int64_t since_ms)
{
    char text[SINCE_TEXT_SIZE];
    if (since_ms && since_text(since_ms, text))
        add(line, " since %s", text);
}

static void add_command(struct line *line, const struct flk_holder *who)
{
    add(line, "pid %d (", (int)who->pid);
    add_text(line, who->command, 200);
    add(line, ")");
}

static void add_process(struct line *line, const struct flk_holder *who)
{
    if (who->pid == 0) {
        add(line, "a process that we may not see");
        return;
    }
    add_command(line, who);
    if (who->foreign & FLK_FOREIGN_PID)
        add(line, " of pid namespace %llu", (unsigned long long)who->pid_namespace);
    if (who->label[0]) {
        add(line, " \"");
        add_text(line, who->label, 100);
        add(line, "\"");
    }
    add_since(line, who->since_ms);
    if (who->stopped)
        add(line, " (stopped)");
}

static void add_duration(struct line *line, int64_t ms)
{
    long long seconds = ms / 1000;
    if (seconds < 120)
        add(line, "%lld s", seconds);
    else
        add(line, "%lld min", seconds / 60);
}

/* Why it may take longer than it looks. */
static void add_wanting(struct line *line, const struct flk_waiting *waiting)
{
    if (!waiting->wanting)
        return;
    add(line, ", which waits for %s itself", waiting->holder_wants);
    if (waiting->wanting->pid != waiting->holder->pid) {
        add(line, ": ");
        add_command(line, waiting->wanting);
    }
}

static void add_blocked(struct line *line, const struct flk_waiting *waiting)
{
    add(line, "%s%s", waiting->holder ? "; in use by others: " : "in use by others: ", waiting->blocked);
    if (waiting->n_blocked > 1)
        add(line, " and %u more", waiting->n_blocked - 1);
}

static void add_holder(struct line *line, const struct flk_waiting *waiting)
{
    if (!waiting->holder && waiting->blocked)
        return;
    if (!waiting->holder) {
        add(line, "nobody is known to hold it");
        return;
    }
    add(line, "held by ");
    add_process(line, waiting->holder);
    if (waiting->acquirer) {
        add(line, ", left by ");
        add_command(line, waiting->acquirer);
        add(line, ", which is gone");
    }
    add_wanting(line, waiting);
    if (waiting->holders > 1)
        add(line, " and %u more", waiting->holders - 1);
}

static void compose(struct line *line, const struct flk_waiting *waiting)
{
    add(line, "flockctl: waiting for %s for ", waiting->name);
    add_duration(line, waiting->waited_ms);
    add(line, ": ");
    add_holder(line, waiting);
    if (waiting->blocked)
        add_blocked(line, waiting);
    if (!waiting->first) {
        add(line, "; we are first in line");
        return;
    }
    add(line, "; %u ahead of us, first in line: ", waiting->ahead);
    if (waiting->first->pid == 0)
        add(line, "one whose record can't be read");
    else
        add_process(line, waiting->first);
}

void message_waiting(const struct flk_waiting *waiting, void *data)
{
    struct line line = {.length = 0};
    (void)data;
    if (message_quiet)
        return;
    compose(&line, waiting);
    write_now(&line);
}
