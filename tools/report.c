/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "json.h"
#include "message.h"

int report_open(const char *path)
{
    int fd = fk_fd_open_output(path, O_APPEND);
    if (fd == -ENXIO)
        complain("can't open the report %s: nobody reads from it; start its reader first, or name a file", path);
    else if (fd < 0)
        complain("can't open the report %s: %s; check the path, and who may write there", path, strerrordesc_np(-fd));
    return fd < 0 ? -1 : fd;
}

/* ---- the line ---- */

static void put_hold(FILE *out, const struct flk_hold *hold)
{
    fprintf(out, "\"waited_ms\":%lld,\"id\":", (long long)flk_hold_waited_ms(hold));
    fk_json_string(out, flk_hold_id(hold));
    fputs(",\"slots\":{", out);
    for (size_t i = 0; i < flk_hold_names(hold); i++) {
        const unsigned *slots;
        size_t count = flk_hold_slots(hold, i, &slots);
        fputs(i ? "," : "", out);
        fk_json_string(out, flk_hold_name(hold, i));
        for (size_t j = 0; j < count; j++)
            fprintf(out, "%s%u", j ? "," : ":[", slots[j]);
        fputc(']', out);
    }
    fputs("}", out);
}

void report_begin(struct report *report, const struct flk_hold *hold)
{
    report->text = NULL;
    FILE *out = open_memstream(&report->text, &report->size);
    if (!out)
        return;
    if (hold)
        put_hold(out, hold);
    else
        fputs("\"waited_ms\":0,\"id\":null,\"slots\":{}", out);
    fclose(out);
}

static long long ms_of(struct timeval time)
{
    return (long long)time.tv_sec * 1000 + time.tv_usec / 1000;
}

static void put_number_or_null(FILE *out, const char *name, bool there, int number)
{
    if (there)
        fprintf(out, "\"%s\":%d,", name, number);
    else
        fprintf(out, "\"%s\":null,", name);
}

static void put_line(FILE *out, const char *of_hold, char *const *command, int64_t started_ms, int status,
                     const struct fk_supervise_result *result)
{
    fputs("{\"schema\":1,\"started\":", out);
    fk_json_time(out, started_ms);
    fputs(",\"command\":[", out);
    for (size_t i = 0; command[i]; i++) {
        fputs(i ? "," : "", out);
        fk_json_string(out, command[i]);
    }
    fprintf(out, "],\"status\":%d,", status);
    put_number_or_null(out, "exit", WIFEXITED(result->status), WEXITSTATUS(result->status));
    put_number_or_null(out, "signal", WIFSIGNALED(result->status), WTERMSIG(result->status));
    fprintf(out, "\"timed_out\":%s,\"ran_ms\":%lld,\"user_ms\":%lld,\"system_ms\":%lld,\"max_rss_kib\":%ld,",
            result->timed_out ? "true" : "false", (long long)result->ran_ms, ms_of(result->rusage.ru_utime),
            ms_of(result->rusage.ru_stime), result->rusage.ru_maxrss);
    fprintf(out, "\"stragglers\":%u,\"left\":%u,%s}\n", result->stragglers, result->left, of_hold);
}

void report_write(struct report *report, int fd, const char *path, char *const *command, int64_t started_ms, int status,
                  const struct fk_supervise_result *result)
{
    char *line = NULL;
    size_t size = 0;
    FILE *out = report->text ? open_memstream(&line, &size) : NULL;
    if (out)
        put_line(out, report->text, command, started_ms, status, result);
    bool made = out && fclose(out) == 0;
    signal(SIGPIPE, SIG_IGN); /* a FIFO's reader may have gone: that is told like a full disk */
    ssize_t written = made ? write(fd, line, size) : -1;
    if (!made)
        complain("can't write the report %s: out of memory", path);
    else if (written < 0)
        complain("can't write the report %s: %s%s", path, strerrordesc_np(errno),
                 errno == ENOSPC || errno == EDQUOT ? "; free some space there" : "");
    else if ((size_t)written < size)
        complain("can't write the report %s: there is no room for the whole line; free some space there", path);
    free(line);
    free(report->text);
}
