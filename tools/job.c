/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "copy.h"
#include "deadline.h"
#include "error.h"
#include "exit_status.h"
#include "fd.h"
#include "message.h"
#include "probe.h"
#include "reap.h"
#include "report.h"
#include "state.h"
#include "supervise.h"

#define COPY_PATIENCE_MS 1000
#define NAMED 5 /* stragglers */

/* ---- before anything is waited for ---- */

static int choose_command(struct job *job, const struct options *options, const char *verb)
{
    char *shell[] = {(char *)"sh", (char *)"-c", (char *)options->shell, NULL};
    memcpy(job->shell, shell, sizeof shell);
    job->command = options->shell ? job->shell : options->command;
    if (options->shell && options->command) {
        complain("-c and \"-- COMMAND\" can't both be given; leave one out");
        return EXIT_OURS;
    }
    if (!job->command) {
        complain_of_missing_dashes(options, verb);
        return EXIT_OURS;
    }
    if (!job->command[0]) {
        complain_of_line(options, "there is no command behind \"--\"");
        return EXIT_OURS;
    }
    return 0;
}

static int check_output(const struct options *options)
{
    if (options->output && (options->out || options->err)) {
        complain("--output is for both streams; give either that, or --stdout and --stderr");
        return EXIT_OURS;
    }
    if (options->detach && (options->output || options->out || options->err)) {
        complain(
            "%s ends with flockctl, and what --detach leaves alone would die of its next output; redirect instead: "
            "-- sh -c '... >FILE 2>&1'",
            options->output ? "--output"
            : options->out  ? "--stdout"
                            : "--stderr");
        return EXIT_OURS;
    }
    if (options->output_limit && !options->output && !options->out && !options->err) {
        complain("--output-limit limits a copy, and there is none; give --output FILE, too");
        return EXIT_OURS;
    }
    return 0;
}

static int read_deadline(struct job *job)
{
    const char *text = getenv("FLOCKCTL_DEADLINE");
    job->outer = FK_NEVER;
    if (text && *text) {
        int64_t outer;
        int code = fk_deadline_parse(text, &outer);
        if (code == -ESTALE)
            chat("FLOCKCTL_DEADLINE is of another boot or time namespace: it doesn't count here");
        else if (code < 0)
            return complain_of(code, EXIT_OURS);
        else
            job->outer = fk_deadline_inside(outer);
    }
    job->deadline = job->options->deadline < job->outer ? job->options->deadline : job->outer;
    return 0;
}

int job_prepare(struct job *job, const struct options *options, const char *verb)
{
    *job = (struct job){.options = options, .report = -1};
    int status = choose_command(job, options, verb);
    if (status == 0)
        status = check_output(options);
    if (status == 0)
        status = cleanup_check(options);
    if (status == 0)
        status = read_deadline(job);
    if (status == 0 && options->report) {
        job->report = report_open(options->report);
        status = job->report < 0 ? EXIT_OURS : 0;
    }
    return status;
}

int job_bound_wait(struct job *job, const struct options *options, int64_t *wait_ms)
{
    *job = (struct job){.options = options, .report = -1};
    int status = read_deadline(job);
    if (status == 0)
        *wait_ms = job_left_ms(job, fk_deadline_in_ms(options->wait_ms));
    return status;
}

int job_complain_of_wait(const struct job *job, int code)
{
    int status = complain_of(code, job->options->conflict_status);
    if (code == -ETIMEDOUT || code == -EBUSY)
        job_tell_late(job);
    return status;
}

int64_t job_left_ms(const struct job *job, int64_t until)
{
    int64_t left = fk_deadline_left_ms(until < job->deadline ? until : job->deadline);
    return left == FK_NEVER ? FLK_FOREVER : left;
}

const char *job_deadline_name(const struct job *job)
{
    return job->options->deadline <= job->outer ? "--deadline"
                                                : "FLOCKCTL_DEADLINE, which the flockctl around us has set";
}

void job_tell_late(const struct job *job)
{
    if (job->deadline <= fk_now())
        say("the time is over that is given by %s", job_deadline_name(job));
}

/* ---- the copies of what it prints ---- */

struct copies {
    struct fk_copy_file *files[2];
    struct fk_copy *streams[2];
    int ends[2]; /* the command's stdout and stderr; -1: ours */
    int null;    /* its stdin; -1: ours */
    bool one_pipe; /* ends[0] is for both */
    bool both_to_err; /* ends[1] is */
    bool whole; /* all that was printed has been shown */
};

/* Through one pipe what a command prints stays in its order. */
static bool are_shown_in_one_place(void)
{
    struct stat out, err;
    return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 && out.st_dev == err.st_dev &&
           out.st_ino == err.st_ino;
}

static int start_copy(struct copies *copies, size_t stream, int shown, struct fk_copy_file *file)
{
    return file ? fk_copy_start(file, shown, &copies->streams[stream], &copies->ends[stream]) : 0;
}

/* What a builder prints to stderr is kept for those who wait for it. */
static int keep_last(struct copies *copies, bool one)
{
    struct fk_copy_file **file = &copies->files[one ? 0 : 1];
    int code = *file ? 0 : fk_copy_file_none(file);
    copies->null = fk_fd_open(AT_FDCWD, "/dev/null", O_RDONLY, 0);
    if (code == 0 && copies->null < 0)
        code = fk_fail_errno(copies->null, "can't open /dev/null");
    return code < 0 ? code : fk_copy_file_keep(*file, JOB_SAID_MAX);
}

static int start_copies(struct copies *copies, const struct job *job)
{
    const struct options *options = job->options;
    const char *paths[] = {options->output ? options->output : options->out, options->err};
    int shown = job->build && job->build->shows_on_stderr ? STDERR_FILENO : STDOUT_FILENO;
    *copies = (struct copies){.ends = {-1, -1}, .null = -1};
    bool one = options->output || (paths[0] && paths[1] && strcmp(paths[0], paths[1]) == 0);
    int code = paths[0] ? fk_copy_file_open(paths[0], options->output_limit, &copies->files[0]) : 0;
    if (code == 0 && paths[1] && !one)
        code = fk_copy_file_open(paths[1], options->output_limit, &copies->files[1]);
    if (code == 0 && job->build)
        code = keep_last(copies, one);
    if (code == 0)
        code = start_copy(copies, 0, shown, copies->files[0]);
    copies->one_pipe = one && (shown == STDERR_FILENO || are_shown_in_one_place());
    if (code == 0 && !copies->one_pipe)
        code = start_copy(copies, 1, STDERR_FILENO, copies->files[one ? 0 : 1]);
    if (shown == STDERR_FILENO && copies->ends[0] < 0)
        copies->both_to_err = true;
    return code;
}

/* The lock waits for the copies to be whole, but not for ever for somebody who doesn't read what is shown. */
static void wait_for_copies(struct copies *copies)
{
    int64_t until = fk_deadline_in_ms(COPY_PATIENCE_MS);
    for (size_t i = 0; i < 2; i++)
        fk_fd_close(&copies->ends[i]);
    copies->whole = true;
    for (size_t i = 0; i < 2; i++)
        copies->whole &= fk_copy_wait(copies->streams[i], fk_deadline_left_ms(until));
}

static void take_last_words(const struct copies *copies, struct job_build *build)
{
    const struct fk_copy_file *file = copies->files[1] ? copies->files[1] : copies->files[0];
    const char *bytes;
    if (!build || !file)
        return;
    build->length = fk_copy_file_kept(file, &bytes);
    memcpy(build->said, bytes, build->length);
}

/* A copy that couldn't be written changes nothing for the command. Whoever doesn't read what is shown keeps us, until a signal
 * ends us. */
static void finish_copies(struct copies *copies, struct job_build *build, const sigset_t *mask)
{
    sigset_t blocked;
    if (!copies->whole)
        sigprocmask(SIG_SETMASK, mask, &blocked);
    for (size_t i = 0; i < 2; i++)
        fk_copy_finish(copies->streams[i]);
    if (!copies->whole)
        sigprocmask(SIG_SETMASK, &blocked, NULL);
    take_last_words(copies, build);
    fk_fd_close(&copies->null);
    for (size_t i = 0; i < 2; i++)
        if (fk_copy_file_close(copies->files[i]) < 0)
            complain("%s", flk_error_detail());
}

/* ---- what the supervisor tells ---- */

static const char *signal_text(int number, char text[16])
{
    const char *name = sigabbrev_np(number);
    if (name)
        snprintf(text, 16, "SIG%s", name);
    else
        snprintf(text, 16, "signal %d", number);
    return text;
}

static void tell_timeout(const struct job *job, int64_t limit_ms)
{
    char limit[TIME_TEXT_SIZE], grace[TIME_TEXT_SIZE], name[16];
    int64_t kill_after_ms = job->options->kill_after_ms;
    signal_text(job->options->signal, name);
    time_text(limit_ms, limit);
    bool then = kill_after_ms >= 0 && job->options->signal != SIGKILL;
    say_now("%s has run for %s, the limit by %s: %s is sent to all its processes%s%s", job->command[0], limit,
            job->limit, name,
            !then                ? ""
            : kill_after_ms == 0 ? ", SIGKILL right after it"
                                 : ", SIGKILL after ",
            then && kill_after_ms > 0 ? time_text(kill_after_ms, grace) : "");
}

static void tell_straggler(struct job *job, const struct fk_supervise_notice *notice)
{
    const char *end = job->options->kill_after_ms == 0 ? "is killed" : "is sent SIGTERM";
    if (job->stragglers++ < NAMED)
        say_now("pid %d (%s) has outlived the command and %s%s", (int)notice->pid, notice->command, end,
                job->stragglers == 1 && !job->build ? "; --detach leaves such processes alone" : "");
}

static void tell(const struct fk_supervise_notice *notice, void *data)
{
    struct job *job = data;
    char time[TIME_TEXT_SIZE];
    switch (notice->what) {
    case FK_NOTICE_TIMEOUT:
        tell_timeout(job, notice->ms);
        break;
    case FK_NOTICE_STRAGGLER:
        tell_straggler(job, notice);
        break;
    case FK_NOTICE_CLEARING:
        if (job->stragglers > NAMED)
            say_now("and %u more", job->stragglers - NAMED);
        break;
    case FK_NOTICE_LEFT:
        if (notice->pid)
            complain_now("pid %d (%s) can't be ended: it is another user's; it goes on, and keeps a lock that it has "
                         "inherited",
                         (int)notice->pid, notice->command);
        else
            complain_now("processes that outlived the command can't be found, and go on: %s", notice->command);
        break;
    case FK_NOTICE_KILL:
        if (notice->ms > 0)
            say_now("processes are left after %s: SIGKILL is sent to all", time_text(notice->ms, time));
        else if (notice->ms < 0)
            say_now("asked to end at once: SIGKILL is sent to all processes of %s", job->command[0]);
        break;
    }
}

/* ---- run ---- */

/* Commands that are told of a directory by name must find the same one, wherever they are started. */
static int export_root(const struct options *options)
{
    const char *named = getenv("FLOCKCTL_DIR");
    char *path;
    if (!options->dir && (!named || !*named))
        return 0;
    int code = flk_root_get(&path);
    if (code == 0) {
        setenv("FLOCKCTL_DIR", path, 1);
        free(path);
    }
    return code;
}

/* Without a lock of ours the directory matters only where COMMAND would take it for another one. */
static bool needs_root(const struct options *options)
{
    const char *named = getenv("FLOCKCTL_DIR");
    return options->dir || (named && *named && *named != '/');
}

/* NULL: there is none; an output's lock has only the output's path. */
static const char *name_of(const struct flk_hold *hold)
{
    const char *name = hold ? flk_hold_name(hold, 0) : NULL;
    return name && name[0] != '/' ? name : NULL;
}

/* So that what registers a cleanup below us can say whose it is. */
static int export_owner(const struct flk_hold *hold)
{
    const struct fk_owner *self;
    char owner[FK_OWNER_TEXT_SIZE], text[FK_OWNER_TEXT_SIZE + FLK_NAME_MAX + 2];
    int code = fk_owner_self(&self);
    if (code < 0 && !hold) { /* without /proc: the supervisor has more to say of that */
        unsetenv(FK_STATE_OWNER_VARIABLE);
        return 0;
    }
    if (code < 0)
        return code;
    fk_owner_format(self, ',', owner);
    snprintf(text, sizeof text, "%s@%s", owner, name_of(hold) ? name_of(hold) : "");
    setenv(FK_STATE_OWNER_VARIABLE, text, 1);
    return 0;
}

/* The limit of the command: 0 is none. False: there is no time left. */
static bool choose_limit(struct job *job, int64_t *limit_ms)
{
    int64_t left = fk_deadline_left_ms(job->deadline);
    *limit_ms = job->options->timeout_ms;
    job->limit = "--timeout";
    job->by_deadline = false;
    if (left == FK_NEVER || (*limit_ms && *limit_ms <= left))
        return true;
    *limit_ms = left;
    job->limit = job_deadline_name(job);
    job->by_deadline = true;
    return left > 0;
}

static int export_deadline(const struct job *job)
{
    char text[FK_DEADLINE_SIZE];
    int64_t deadline = job->deadline;
    if (job->options->timeout_ms) {
        int64_t own = fk_deadline_in_ms(job->options->timeout_ms);
        deadline = own < deadline ? own : deadline;
    }
    if (deadline == FK_NEVER)
        return 0;
    int code = fk_deadline_format(deadline, text);
    if (code == 0)
        setenv("FLOCKCTL_DEADLINE", text, 1);
    return code;
}

/* What the shell would say: died by signal n is 128 + n. */
static int status_of(const struct fk_supervise_result *result)
{
    if (result->interrupted)
        return EXIT_SIGNALLED + result->interrupted;
    if (result->timed_out)
        return EXIT_TIMED_OUT;
    return WIFEXITED(result->status) ? WEXITSTATUS(result->status) : EXIT_SIGNALLED + WTERMSIG(result->status);
}

/* Of the signals that people end things with we die too, so that a loop around us stops as it would without us. */
static int exit_as(struct job *job, const struct fk_supervise_result *result, int status)
{
    int number = WIFSIGNALED(result->status) && !result->timed_out ? WTERMSIG(result->status) : 0;
    if (result->interrupted) /* who ended us while we ended stragglers wants the loop to end, too */
        number = result->interrupted;
    if (number != SIGINT && number != SIGQUIT && number != SIGTERM && number != SIGHUP)
        number = 0;
    if (number && !job->build)
        signals_die_of(number);
    if (job->build) {
        job->build->signal = number;
        job->build->interrupted =
            result->signalled || result->interrupted || (result->timed_out && job->by_deadline);
    }
    return status;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int fail_start(int code, bool at_exec)
{
    complain("%s", flk_error_detail());
    if (!at_exec)
        return EXIT_OURS;
    return code == -ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

static struct fk_supervise_spec describe(struct job *job, char *const *environment, const sigset_t *mask)
{
    const struct options *options = job->options;
    return (struct fk_supervise_spec){
        .argv = (const char *const *)job->command,
        .envp = (const char *const *)environment,
        .kill_after_ms = options->kill_after_ms,
        .signal = options->signal,
        .flags = FK_SUPERVISE_TERMINAL | (options->detach ? FK_SUPERVISE_DETACH : 0) |
                 (options->pgrp ? FK_SUPERVISE_PGRP : 0) | (signals_size_limit_is_ours ? FK_SUPERVISE_SIZE_LIMIT : 0),
        .isolate = options->isolate,
        .cgroup = options->cgroup,
        .mask = *mask,
        .control = -1,
        .notice = tell,
        .data = job,
    };
}

/* 0, or the exit status of a command that wasn't started. */
static int start_and_wait(struct job *job, struct fk_supervise_spec *spec, struct copies *copies,
                          struct fk_supervise_result *result)
{
    bool at_exec = false, in_time = true;
    int code = start_copies(copies, job);
    memcpy(spec->stdio,
           (int[]){copies->null, copies->ends[copies->both_to_err ? 1 : 0], copies->ends[copies->one_pipe ? 0 : 1]},
           sizeof spec->stdio);
    if (code == 0)
        in_time = choose_limit(job, &spec->limit_ms);
    if (code == 0 && in_time)
        code = fk_supervise(spec, result, &at_exec);
    if (job->build)
        job->build->interrupted = !in_time || (code < 0 && !at_exec);
    int status = code < 0 ? fail_start(code, at_exec) : 0;
    if (!job->blocked) /* they must not cut a cleanup short */
        signals_hold();
    wait_for_copies(copies);
    if (in_time)
        return status;
    complain("%s wasn't started: the time is over that is given by %s", job->command[0], job->limit);
    return EXIT_TIMED_OUT;
}

/* What has been registered for us below the command. What fails stays, for others. */
static void clean_up(struct flk_hold *hold)
{
    if (fk_reap_own(name_of(hold) ? hold : NULL) < 0)
        complain("%s", flk_error_detail());
}

/* COMMAND's lock is let go, and signals come again. One that came after its end, while it was cleaned up, is what we die of. True:
 * there was one. */
static bool let_go(struct flk_hold *hold, const sigset_t *mask, struct fk_supervise_result *result)
{
    flk_hold_release(hold);
    int late = signals_take_late();
    if (late && !result->interrupted)
        result->interrupted = late;
    sigprocmask(SIG_SETMASK, mask, NULL);
    return late;
}

/* The lock goes on when the whole tree has ended and what it has printed is written. From then on there is nothing to be lost by
 * a signal that ends us but the report. */
static int supervise(struct job *job, char *const *environment, const sigset_t *mask, struct flk_hold *hold)
{
    struct fk_supervise_spec spec = describe(job, environment, mask);
    struct fk_supervise_result result;
    struct report report;
    struct copies copies;
    int64_t started_ms = wall_ms();
    int failed = start_and_wait(job, &spec, &copies, &result);
    if (failed)
        cleanup_forget(&job->cleanup);
    clean_up(hold);
    if (failed) {
        if (!job->build)
            flk_hold_decline(hold);
        finish_copies(&copies, job->build, mask);
        return failed;
    }
    if (job->report >= 0)
        report_begin(&report, hold);
    bool late = job->build ? false : let_go(hold, mask, &result);
    int status = status_of(&result);
    if (job->report >= 0)
        report_write(&report, job->report, job->options->report, job->command, started_ms, status, &result);
    if (copies.whole || !late)
        finish_copies(&copies, job->build, mask);
    return exit_as(job, &result, status);
}

/* The command gets back what we were started with. */
static void restore_limit(const struct rlimit *before)
{
    if (before && before->rlim_cur < before->rlim_max)
        setrlimit(RLIMIT_NOFILE, before);
}

/* Anew after a probe: the command's time begins now. */
static int make_environment(const struct job *job, const struct flk_hold *hold, char ***environment)
{
    int code = export_deadline(job);
    if (hold)
        free(*environment);
    *environment = hold ? NULL : environ;
    return code == 0 && hold ? flk_hold_environ(hold, environment) : code;
}

static int prepare(const struct job *job, struct flk_hold *hold, char ***environment)
{
    int code = hold || needs_root(job->options) ? export_root(job->options) : 0;
    if (code == 0 && hold && !job->options->detach)
        code = flk_hold_inherit(hold, 1);
    if (code == 0)
        code = export_owner(hold);
    if (code == 0)
        code = make_environment(job, hold, environment);
    restore_limit(job->files);
    return code;
}

/* Whoever was signalled between acquiring and exec doesn't start the command. What comes from here on is pending still when the
 * supervisor looks. */
static int take_last(struct signals *signals)
{
    int caught = signals_take(signals);
    if (caught == SIGTSTP) {
        signals_stop();
        caught = signals_take(signals);
    }
    close(signals->fd);
    signals->fd = -1;
    return caught;
}

static int probe(const struct job *job, const struct flk_hold *hold, const struct probe *what, char ***environment,
                 const sigset_t *mask, int *caught)
{
    int status = *caught || !what->command ? 0 : probe_run(job, what, *environment, mask, caught);
    if (status || !what->command)
        return status;
    int code = make_environment(job, hold, environment);
    return code < 0 ? complain_of(code, EXIT_OURS) : 0;
}

/* 0: it is the command's turn, unless a signal was caught. */
static int probe_all(const struct job *job, const struct flk_hold *hold, char ***environment, const sigset_t *mask,
                     int *caught)
{
    const struct options *options = job->options;
    const struct probe abandoned = {.what = "--on-abandoned command",
                                    .command = hold && flk_hold_abandoned(hold) ? options->on_abandoned : NULL};
    const struct probe last = {"probe", options->probe, options->probe_timeout_ms};
    int status = probe(job, hold, &abandoned, environment, mask, caught);
    return status ? status : probe(job, hold, &last, environment, mask, caught);
}

/* The last thing before COMMAND: from here on it has to be undone. 0, or the exit status after having complained. */
static int prepare_cleanup(struct job *job, struct flk_hold *hold, char ***environment)
{
    if (!cleanup_is_wanted(job->options))
        return 0;
    int code = cleanup_choose(&job->cleanup, job->options);
    if (code == 0)
        code = make_environment(job, hold, environment);
    if (code == 0)
        code = cleanup_register(&job->cleanup, job->options, name_of(hold), *environment);
    return code < 0 ? complain_of(code, EXIT_OURS) : 0;
}

int job_run(struct job *job, struct flk_hold *hold, struct signals *signals)
{
    if (job->build)
        job->build->interrupted = true; /* until it has been started */
    char **environment = NULL;
    sigset_t mask;
    int caught = 0, code = prepare(job, hold, &environment);
    job->blocked = signals != NULL;
    int status = code < 0 ? complain_of(code, EXIT_OURS) : 0;
    if (signals)
        mask = signals->before;
    else
        sigprocmask(SIG_BLOCK, NULL, &mask);
    if (status == 0)
        status = probe_all(job, hold, &environment, &mask, &caught);
    if (status == 0 && !caught)
        status = prepare_cleanup(job, hold, &environment);
    if (signals && !caught)
        caught = take_last(signals);
    if (caught)
        cleanup_forget(&job->cleanup);
    if (status == 0 && !caught)
        status = supervise(job, environment, &mask, hold);
    else if (!job->build)
        flk_hold_decline(hold);
    if (hold)
        free(environment);
    if (!caught)
        return status;
    if (!job->build)
        signals_die_of(caught);
    job->build->signal = caught;
    job->build->interrupted = true;
    return EXIT_SIGNALLED + caught;
}
