/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl once: builds OUTPUT unless it is there and current; or runs a command while nobody changes it (--use).
 *
 * A hit is a look at OUTPUT and its stamp: no lock directory is chosen for it, no lock taken, nothing written. */
#include "once.h"

#include <errno.h>
#include <fcntl.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "acquire.h"
#include "deadline.h"
#include "exit_status.h"
#include "job.h"
#include "key.h"
#include "message.h"
#include "once_list.h"
#include "request.h"
#include "signals.h"
#include "verbs.h"

#define TRIES 10 /* of inputs that change each time before COMMAND begins */

/* ---- the key ---- */

/* What OUTPUT is to be current for. */
static struct key_spec key_of(const struct job *job)
{
    const struct options *options = job->options;
    return (struct key_spec){
        .output = options->target,
        .text = options->key,
        .inputs = options->inputs,
        .variables = options->variables,
        .command = options->command_key ? (const char *const *)job->command : NULL,
        .lock_directory = options->dir ? options->dir : getenv("FLOCKCTL_DIR"),
    };
}

/* ---- waiting ---- */

struct wait {
    struct job *job;
    struct signals signals;
    struct rlimit limit;
    struct fk_output output;
    int64_t until;
};

static void end_wait(struct wait *wait)
{
    fk_output_close(&wait->output);
}
#define END_WAIT __attribute__((cleanup(end_wait)))
#define WAIT_FOR(JOB) ((struct wait){.job = (JOB), .output = {.directory = -1}, .signals = {.fd = -1}})

/* Again, for another path, only when it has been done. */
static int begin_wait(struct wait *wait, struct job *job, const char *path)
{
    fk_output_close(&wait->output);
    int code = fk_output_open(path, &wait->output);
    if (code < 0)
        return complain_of(code, EXIT_OURS);
    if (wait->signals.fd >= 0)
        return 0;
    code = signals_block(&wait->signals, true);
    if (code < 0) {
        complain("can't wait for signals: %s", strerrordesc_np(-code));
        return EXIT_OURS;
    }
    acquire_raise_limit(&wait->limit);
    job->files = &wait->limit;
    wait->until = fk_deadline_in_ms(job->options->wait_ms);
    return 0;
}

/* The wait was cancelled by a signal: dies of it; or has stopped, and been continued. */
static void take_signal(const struct signals *signals)
{
    int caught = signals_take(signals);
    if (caught == SIGTSTP)
        signals_stop();
    else if (caught)
        signals_die_of(caught);
}

static struct flk_options how_to_wait(const struct wait *wait)
{
    return (struct flk_options){
        .label = wait->job->options->label, .cancel_fd = &wait->signals.fd, .waiting = message_waiting};
}

static int give_up(const struct wait *wait, int code)
{
    if (code == -ENODATA) {
        complain("%s has succeeded, but made nothing at $FLOCKCTL_OUT, which is where it is to make %s",
                 wait->job->command[0], wait->output.shown);
        return EXIT_OURS;
    }
    return job_complain_of_wait(wait->job, code);
}

/* ---- build ---- */

struct building {
    struct wait *wait;
    struct key *key;
    struct job_build told;
    int status;
    bool changed; /* the inputs have, before COMMAND began: the key is another one by now */
};

/* Before COMMAND, since the lock may have been waited for. */
static bool may_begin(struct building *building)
{
    int same = key_check(building->key);
    building->changed = same == 0;
    if (same < 0)
        complain("%s", flk_error_detail());
    else if (same == 0)
        chat("%s, so there is another key to look for", flk_error_detail());
    return same == 1;
}

/* After it: what it made is for no key when it can't be told from which inputs. */
static void check_inputs(struct building *building, struct fk_build *build)
{
    const struct key *key = building->key;
    const char *output = building->wait->output.shown, *command = building->wait->job->command[0];
    int same = key_check(building->key);
    if (same == 1)
        return;
    if (same < 0)
        complain("%s", flk_error_detail());
    const char *why = same < 0 ? "its inputs can't be read any more" : flk_error_detail();
    if (strcmp(key->output, key->spec->output) != 0) {
        complain("%s since %s began, so %s isn't published; run it again", why, command, output);
        building->status = EXIT_OURS;
        build->unshared = true;
        return;
    }
    say("%s since %s began, so %s is published but not current; the next run builds it again", why, command, output);
    build->key = NULL;
}

/* The builder that fk_once() calls. */
static int build(struct fk_build *build, void *data)
{
    struct building *building = data;
    struct job *job = building->wait->job;
    build->unshared = true;
    building->status = EXIT_OURS;
    if (!may_begin(building))
        return building->status;
    setenv("FLOCKCTL_OUT", build->path, 1);
    chat("building %s, id %s", building->wait->output.shown, flk_hold_id(build->hold));
    building->told.shows_on_stderr = job->options->print;
    job->build = &building->told;
    building->status = job_run(job, build->hold, &building->wait->signals);
    build->unshared = building->told.interrupted;
    build->said = building->told.said;
    build->length = building->told.length;
    if (building->status == 0)
        check_inputs(building, build);
    return building->status;
}

/* Whoever is let off by another's failure sees what that one saw. */
static int tell_failure(const struct building *building, const struct fk_failure *failure)
{
    bool ours = failure->code < 0; /* a sentence of the library's: COMMAND may have printed nothing */
    complain("the build of %s by pid %d (%s), which was waited for, has failed%s%s", building->wait->output.shown,
             (int)failure->builder.owner.pid, failure->builder.command,
             failure->length == 0 ? ""
             : ours               ? ": "
                                  : "; it has printed, at last:",
             ours ? failure->said : "");
    if (ours)
        return EXIT_OURS;
    fwrite(failure->said, 1, failure->length, stderr);
    if (failure->length > 0 && failure->said[failure->length - 1] != '\n')
        fputc('\n', stderr);
    return failure->code > 0 && failure->code < 256 ? failure->code : EXIT_OURS;
}

static int end(struct building *building, const struct fk_once_result *result)
{
    switch (result->end) {
    case FK_ONCE_READY:
        chat("%s has been built meanwhile", building->wait->output.shown);
        return 0;
    case FK_ONCE_BUILT:
        return 0;
    case FK_ONCE_FAILED:
        return building->status;
    case FK_ONCE_FAILED_ELSEWHERE:
        return tell_failure(building, &result->failure);
    }
    return EXIT_OURS;
}

/* *changed: it is to be looked for again, with another key. */
static int build_or_wait(struct wait *wait, struct key *key, const struct fk_wanted *wanted, bool *changed)
{
    const struct options *options = wait->job->options;
    const struct flk_options how = how_to_wait(wait);
    struct building building = {.wait = wait, .key = key};
    struct fk_once_result result;
    const struct fk_once once = {
        .output = &wait->output,
        .wanted = *wanted,
        .options = &how,
        .flags = (options->force ? FLK_ONCE_FORCE : 0) | (options->retry ? FLK_ONCE_RETRY : 0),
        .how = FK_FOR_COMMAND,
        .build = build,
        .data = &building,
    };
    int code;
    while ((code = fk_once(&once, job_left_ms(wait->job, wait->until), &result)) == -ECANCELED)
        take_signal(&wait->signals);
    int status = code < 0 ? give_up(wait, code) : end(&building, &result);
    int late = building.told.signal ? building.told.signal : signals_take_late();
    if (late)
        signals_die_of(late);
    *changed = building.changed;
    return status;
}

/* 1: it is there and current. */
static int look(const struct options *options, const char *path, const struct fk_wanted *wanted)
{
    struct fk_identity identity;
    return options->force ? 0 : fk_stamp_look(AT_FDCWD, path, wanted, &identity);
}

static int build_unless_ready(struct wait *wait, struct key *key, bool *changed)
{
    const struct options *options = wait->job->options;
    const struct fk_wanted wanted = {.key = key->text, .max_age_ms = options->max_age_ms > 0 ? options->max_age_ms : 0};
    int found = look(options, key->output, &wanted);
    if (found != 0)
        return found < 0 ? complain_of(found, EXIT_OURS) : 0;
    int status = prepare_root(options);
    if (status == 0)
        status = begin_wait(wait, wait->job, key->output);
    return status ? status : build_or_wait(wait, key, &wanted, changed);
}

static int build_for_key(struct wait *wait, const struct key_spec *spec, bool *changed)
{
    struct key key;
    int code = key_make(&key, spec);
    int status = code < 0 ? complain_of(code, EXIT_OURS) : build_unless_ready(wait, &key, changed);
    if (status == 0 && wait->job->options->print)
        puts(key.output);
    key_clear(&key);
    return status;
}

static int run_build(const struct options *options)
{
    struct job job;
    END_WAIT struct wait wait = WAIT_FOR(&job);
    int status = job_prepare(&job, options, "once");
    if (status)
        return status;
    const struct key_spec spec = key_of(&job);
    for (int tries = 0; tries < TRIES; tries++) {
        bool changed = false;
        status = build_for_key(&wait, &spec, &changed);
        if (!changed)
            return status;
    }
    complain("the inputs of %s don't come to rest (-v tells which); run it again when they do", options->target);
    return EXIT_OURS;
}

/* ---- use ---- */

static int run_use(const struct options *options)
{
    struct job job;
    END_WAIT struct wait wait = WAIT_FOR(&job);
    struct flk_hold *hold;
    int code, status = job_prepare(&job, options, "once");
    if (status == 0)
        status = prepare_root(options);
    if (status == 0)
        status = begin_wait(&wait, &job, options->use);
    if (status)
        return status;
    const struct flk_options how = how_to_wait(&wait);
    while ((code = fk_once_use(&wait.output, &how, FK_FOR_COMMAND, job_left_ms(&job, wait.until), &hold)) == -ECANCELED)
        take_signal(&wait.signals);
    return code < 0 ? give_up(&wait, code) : job_run(&job, hold, &wait.signals);
}

/* ---- the verb ---- */

/* Of the options about building, the first that is there; NULL: none. */
static const char *about_building(const struct options *options)
{
    return options->key           ? "--key"
           : options->inputs      ? "--input"
           : options->variables   ? "--env"
           : options->command_key ? "--command-key"
           : options->has_max_age ? "--max-age"
           : options->force       ? "--force"
           : options->retry       ? "--retry"
           : options->print       ? "--print"
                                  : NULL;
}

static int refuse(const struct options *options)
{
    const char *build_only = about_building(options);
    if (options->target && options->use)
        complain("--target and --use can't both be given: one builds, the other runs a command with what is there");
    else if (!options->target && !options->use)
        complain(
            "once needs to know what to build; it is used so: flockctl once -o OUTPUT -- COMMAND, which makes it at "
            "$FLOCKCTL_OUT");
    else if (options->detach)
        complain("once can't leave processes alone that outlive COMMAND: %s; leave --detach out",
                 options->use ? "they would use the output without its lock"
                              : "an output is published when all have ended");
    else if (options->json)
        complain("--json is about --list; leave it out");
    else if (options->has_max_age && options->max_age_ms == 0)
        complain("nothing is of no age, as --max-age 0 would have it; give a time above 0, or --force");
    else if (options->use && build_only)
        complain("%s is about building, and --use builds nothing; leave it out", build_only);
    else if (options->target && fk_output_check(options->target) < 0)
        complain("%s", flk_error_detail());
    else
        return 0;
    return EXIT_OURS;
}

/* Forms without COMMAND. */
static int tell_or_forget(const struct options *options)
{
    const char *form = options->list ? "--list" : "--forget";
    const char *misplaced = options->needs_command ? options->needs_command : about_building(options);
    if (misplaced)
        misplaced += strspn(misplaced, "-");
    int status = EXIT_OURS;
    if (options->list && options->forget)
        complain("--list and --forget can't both be given");
    else if (options->target || options->use || options->command)
        complain("%s doesn't go with %s; leave one out", form,
                 options->target ? "--target"
                 : options->use  ? "--use"
                                 : "a command");
    else if (misplaced)
        complain("%s builds and runs nothing; leave --%s out", form, misplaced);
    else if (options->list && options->wait_ms != FLK_FOREVER)
        complain("--list waits for nothing; leave --%s out", options->wait_ms ? "wait" : "nonblock");
    else if (options->forget && options->json)
        complain("--json is about --list; leave it out");
    else if (check_operands(&verb_once, options, 0, options->list))
        status = prepare_root(options);
    if (status)
        return status;
    return options->list ? once_list(options->operands[0], options) : once_forget(options->forget, options);
}

static int run_once(struct options *options)
{
    if (options->list || options->forget)
        return tell_or_forget(options);
    int status = refuse(options);
    if (status == 0 && !check_operands(&verb_once, options, 0, 0))
        status = EXIT_OURS;
    if (status)
        return status;
    return options->use ? run_use(options) : run_build(options);
}

const struct verb verb_once = {
    .name = "once",
    .synopsis = "once -o OUTPUT [OPTION]... -- COMMAND [ARG]...\n"
                "flockctl once --use OUTPUT [OPTION]... -- COMMAND [ARG]...\n"
                "flockctl once --list [--json] [DIR]\n"
                "flockctl once --forget OUTPUT [OPTION]...",
    .summary = "build a file or directory once, however many ask for it",
    .help =
        "Exits at once when OUTPUT is there and current. Else one of all that ask runs COMMAND, which makes a file or "
        "a\n"
        "directory at $FLOCKCTL_OUT, a private path beside OUTPUT; when it succeeds, that appears as OUTPUT, whole. "
        "The "
        "others\n"
        "wait for it; when it fails, they exit with its status, and show the end of what it printed to stderr.\n"
        "\n"
        "  -o, --target OUTPUT         what to build; a link there is replaced, not followed\n"
        "                              {key} in its name: the key, in 64 hexadecimal digits\n"
        "      --key TEXT              current is only what was built for the same TEXT,\n"
        "      --input PATH            from the same file, or directory with all in it: content, mode and names,\n"
        "      --env VAR               with the same value of VAR,\n"
        "      --command-key           and by the same COMMAND\n"
        "      --max-age TIME          and not longer ago than that\n"
        "      --force                 build, however current it is\n"
        "      --retry                 build also when the build that was waited for has failed\n"
        "      --print                 print the path of OUTPUT to stdout, and what COMMAND prints there to stderr\n"
        "      --use OUTPUT            don't build: run COMMAND while OUTPUT, which must be there, isn't changed or "
        "pruned\n"
        "      --list [--json] [DIR]   show what was built for a key in DIR (where we are) and below it, and who is at "
        "it\n"
        "      --forget OUTPUT         remove it and its record, when nobody uses or builds it; then it is built "
        "again\n"
        "  -n, --nonblock              don't wait for others (= -w 0)\n"
        "  -w, --wait TIME             how long to wait for others: 1.5, 250ms, 30s, 2m, 1h, 1d, forever (default)\n"
        "  -E, --conflict-exit-code N  instead of 75, when others were still at it\n"
        "  -l, --label TEXT            shown to those who wait\n" RUN_HELP_OF_ONCE EXIT_STATUS_HELP(
            "35 OUTPUT's build needs\nOUTPUT itself; 75 others were still at it; ") "\n"
                                                                                    "Example: one initrd for all "
                                                                                    "tests, "
                                                                                    "however many start together\n"
                                                                                    "  flockctl once -o initrd.img -- "
                                                                                    "sh -c './mkinitrd "
                                                                                    "\"$FLOCKCTL_OUT\"'\n",
    .groups = GROUP_WAIT | GROUP_LABEL | GROUP_RUN | GROUP_ONCE | GROUP_MAX_AGE | GROUP_OUTPUTS | GROUP_JSON,
    .without_locks = true,
    .run = run_once,
};
