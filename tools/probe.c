/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deadline.h"
#include "exit_status.h"
#include "message.h"
#include "supervise.h"

#define KEPT 4096

/* A thread of ours reads the pipe, so that the probe never waits for a reader. */
struct ear {
    int pipe[2], stop;
    pthread_t thread;
    char text[KEPT + 1]; /* the last of it */
    size_t length;
    bool cut; /* there was more before it */
};

static void keep(struct ear *ear, const char *text, size_t length)
{
    if (length > KEPT) {
        text += length - KEPT;
        length = KEPT;
        ear->cut = true;
    }
    size_t stays = ear->length + length > KEPT ? KEPT - length : ear->length;
    ear->cut = ear->cut || stays < ear->length;
    memmove(ear->text, ear->text + ear->length - stays, stays);
    memcpy(ear->text + stays, text, length);
    ear->length = stays + length;
}

/* Until nobody has the other end, or we are told that nobody counts who still has it. */
static void *listen(void *data)
{
    struct ear *ear = data;
    char text[4096];
    for (;;) {
        struct pollfd fds[] = {{.fd = ear->pipe[0], .events = POLLIN}, {.fd = ear->stop, .events = POLLIN}};
        poll(fds, 2, -1);
        if (!fds[0].revents && fds[1].revents)
            return NULL;
        ssize_t length = fds[0].revents ? read(ear->pipe[0], text, sizeof text) : -1;
        if (length == 0)
            return NULL;
        if (length > 0)
            keep(ear, text, (size_t)length);
    }
}

static void close_ear(struct ear *ear)
{
    close(ear->pipe[0]);
    close(ear->pipe[1]);
    close(ear->stop);
}

static int open_ear(struct ear *ear)
{
    sigset_t all, before;
    ear->length = 0;
    ear->cut = false;
    if (pipe2(ear->pipe, O_CLOEXEC) < 0)
        return -errno;
    ear->stop = eventfd(0, EFD_CLOEXEC);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    int code = ear->stop < 0 ? errno : pthread_create(&ear->thread, NULL, listen, ear);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (code)
        close_ear(ear);
    return -code;
}

/* What it has heard, in whole lines as far as there are any. */
static char *shut_ear(struct ear *ear)
{
    eventfd_write(ear->stop, 1);
    pthread_join(ear->thread, NULL);
    close_ear(ear);
    while (ear->length > 0 && strchr(" \t\r\n", ear->text[ear->length - 1]))
        ear->length--;
    ear->text[ear->length] = '\0';
    char *line = ear->cut ? strchr(ear->text, '\n') : NULL;
    return line ? line + 1 : ear->text;
}

static void complain_of_probe(const struct job *job, const struct probe *probe, const char *how, char *heard)
{
    bool several = strchr(heard, '\n') != NULL;
    complain("the %s \"%s\" %s, so \"%s\" wasn't started; it has printed%s%s", probe->what, probe->command, how,
             job->command[0],
             !*heard   ? " nothing"
             : several ? ", at last:"
                       : ": ",
             several ? "" : heard);
    for (char *rest, *line = several ? strtok_r(heard, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
        complain("  %s", line);
}

/* late: the deadline that ended it, which bounds all; NULL: its own limit. */
static int judge(const struct job *job, const struct probe *probe, const struct fk_supervise_result *result,
                 const char *late, char *heard)
{
    char how[128], time[TIME_TEXT_SIZE];
    if (result->timed_out && late)
        snprintf(how, sizeof how, "had not ended when the time was over that is given by %s", late);
    else if (result->timed_out)
        snprintf(how, sizeof how, "wasn't done in %s", time_text(probe->limit_ms, time));
    else if (WIFSIGNALED(result->status))
        snprintf(how, sizeof how, "died of signal %d", WTERMSIG(result->status));
    else if (WEXITSTATUS(result->status) != 0)
        snprintf(how, sizeof how, "failed with exit status %d", WEXITSTATUS(result->status));
    else
        return 0;
    complain_of_probe(job, probe, how, heard);
    return result->timed_out && late ? EXIT_TIMED_OUT : EXIT_PROBE;
}

/* 0: none. */
static int64_t limit_of(const struct job *job, const struct probe *probe, const char **late)
{
    int64_t own = probe->limit_ms, left = fk_deadline_left_ms(job->deadline);
    bool deadline = left != FK_NEVER && (own == 0 || own > left);
    *late = deadline ? job_deadline_name(job) : NULL;
    if (!deadline)
        return own;
    return left > 0 ? left : 1;
}

int probe_run(const struct job *job, const struct probe *probe, char *const *environment, const sigset_t *mask,
              int *signalled)
{
    const char *const argv[] = {"/bin/sh", "-c", probe->command, NULL};
    struct fk_supervise_result result = {0};
    struct ear ear;
    bool at_exec;
    const char *late;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), code = null < 0 ? -errno : open_ear(&ear);
    *signalled = 0;
    if (code < 0) {
        complain("can't start the %s: %s", probe->what, strerrordesc_np(-code));
        return EXIT_OURS;
    }
    const struct fk_supervise_spec spec = {
        .argv = argv,
        .envp = (const char *const *)environment,
        .stdio = {null, ear.pipe[1], ear.pipe[1]},
        .limit_ms = limit_of(job, probe, &late),
        .kill_after_ms = job->options->kill_after_ms,
        .signal = job->options->signal,
        .flags = FK_SUPERVISE_TERMINAL | (signals_size_limit_is_ours ? FK_SUPERVISE_SIZE_LIMIT : 0),
        .mask = *mask,
        .control = -1,
    };
    code = fk_supervise(&spec, &result, &at_exec);
    close(null);
    char *heard = shut_ear(&ear);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    *signalled = result.signalled;
    return judge(job, probe, &result, late, heard);
}
