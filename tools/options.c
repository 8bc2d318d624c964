/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <errno.h>
#include <flockctl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deadline.h"
#include "exit_status.h"
#include "isolate.h"
#include "message.h"

/* Long options without a letter. */
enum {
    OPT_DIR = 256,
    OPT_VERSION,
    OPT_SLOTS,
    OPT_VALUES,
    OPT_VALUES_FROM,
    OPT_CHECK,
    OPT_SPREAD,
    OPT_PROBE,
    OPT_PROBE_TIMEOUT,
    OPT_ON_ABANDONED,
    OPT_TIMEOUT,
    OPT_DEADLINE,
    OPT_SIGNAL,
    OPT_DETACH,
    OPT_PGRP,
    OPT_OUTPUT,
    OPT_STDOUT,
    OPT_STDERR,
    OPT_OUTPUT_LIMIT,
    OPT_CGROUP,
    OPT_ISOLATE,
    OPT_REPORT,
    OPT_TMPDIR,
    OPT_WHILE,
    OPT_LATCH,
    OPT_JSON,
    OPT_WATCH,
    OPT_COLOR,
    OPT_ON,
    OPT_OFF,
    OPT_OWNER,
    OPT_PATH,
    OPT_CLEANUP,
    OPT_CLEANUP_TIMEOUT,
    OPT_DRY_RUN,
    OPT_USE,
    OPT_KEY,
    OPT_INPUT,
    OPT_ENV,
    OPT_COMMAND_KEY,
    OPT_PRINT,
    OPT_MAX_AGE,
    OPT_FORCE,
    OPT_RETRY,
    OPT_MAX_SIZE,
    OPT_LIST,
    OPT_FORGET,
};

static const struct {
    struct option option;
    unsigned group;
} table[] = {
    {{"dir", required_argument, NULL, OPT_DIR}, GROUP_GLOBAL},
    {{"quiet", no_argument, NULL, 'q'}, GROUP_GLOBAL},
    {{"verbose", no_argument, NULL, 'v'}, GROUP_GLOBAL},
    {{"help", no_argument, NULL, 'h'}, GROUP_GLOBAL},
    {{"version", no_argument, NULL, OPT_VERSION}, GROUP_GLOBAL},
    {{"nonblock", no_argument, NULL, 'n'}, GROUP_WAIT},
    {{"wait", required_argument, NULL, 'w'}, GROUP_WAIT},
    {{"conflict-exit-code", required_argument, NULL, 'E'}, GROUP_WAIT},
    {{"slots", required_argument, NULL, OPT_SLOTS}, GROUP_SLOTS},
    {{"values", required_argument, NULL, OPT_VALUES}, GROUP_VALUES},
    {{"values-from", required_argument, NULL, OPT_VALUES_FROM}, GROUP_POOL},
    {{"check", required_argument, NULL, OPT_CHECK}, GROUP_POOL},
    {{"spread", no_argument, NULL, OPT_SPREAD}, GROUP_POOL},
    {{"shared", no_argument, NULL, 's'}, GROUP_LOCK},
    {{"label", required_argument, NULL, 'l'}, GROUP_LOCK | GROUP_LABEL},
    {{"probe", required_argument, NULL, OPT_PROBE}, GROUP_LOCK},
    {{"probe-timeout", required_argument, NULL, OPT_PROBE_TIMEOUT}, GROUP_LOCK},
    {{"on-abandoned", required_argument, NULL, OPT_ON_ABANDONED}, GROUP_LOCK},
    {{"shell", required_argument, NULL, 'c'}, GROUP_RUN},
    {{"timeout", required_argument, NULL, OPT_TIMEOUT}, GROUP_RUN},
    {{"deadline", required_argument, NULL, OPT_DEADLINE}, GROUP_RUN},
    {{"kill-after", required_argument, NULL, 'k'}, GROUP_RUN | GROUP_END},
    {{"signal", required_argument, NULL, OPT_SIGNAL}, GROUP_RUN | GROUP_END},
    {{"detach", no_argument, NULL, OPT_DETACH}, GROUP_RUN},
    {{"pgrp", no_argument, NULL, OPT_PGRP}, GROUP_RUN},
    {{"output", required_argument, NULL, OPT_OUTPUT}, GROUP_RUN},
    {{"stdout", required_argument, NULL, OPT_STDOUT}, GROUP_RUN},
    {{"stderr", required_argument, NULL, OPT_STDERR}, GROUP_RUN},
    {{"output-limit", required_argument, NULL, OPT_OUTPUT_LIMIT}, GROUP_RUN},
    {{"cgroup", required_argument, NULL, OPT_CGROUP}, GROUP_RUN},
    {{"isolate", required_argument, NULL, OPT_ISOLATE}, GROUP_RUN},
    {{"report", required_argument, NULL, OPT_REPORT}, GROUP_RUN},
    {{"tmpdir", no_argument, NULL, OPT_TMPDIR}, GROUP_RUN},
    {{"while", required_argument, NULL, OPT_WHILE}, GROUP_WHILE},
    {{"latch", no_argument, NULL, OPT_LATCH}, GROUP_LATCH},
    {{"json", no_argument, NULL, OPT_JSON}, GROUP_STATUS | GROUP_JSON},
    {{"watch", no_argument, NULL, OPT_WATCH}, GROUP_STATUS},
    {{"color", required_argument, NULL, OPT_COLOR}, GROUP_STATUS},
    {{"yes", no_argument, NULL, 'y'}, GROUP_YES},
    {{"follow", no_argument, NULL, 'f'}, GROUP_LOG},
    {{"on", no_argument, NULL, OPT_ON}, GROUP_LOG},
    {{"off", no_argument, NULL, OPT_OFF}, GROUP_LOG},
    {{"owner", required_argument, NULL, OPT_OWNER}, GROUP_STATE},
    {{"path", required_argument, NULL, OPT_PATH}, GROUP_STATE},
    {{"cleanup", required_argument, NULL, OPT_CLEANUP}, GROUP_CLEANUP | GROUP_RUN},
    {{"cleanup-timeout", required_argument, NULL, OPT_CLEANUP_TIMEOUT}, GROUP_STATE},
    {{"dry-run", no_argument, NULL, OPT_DRY_RUN}, GROUP_DRY_RUN},
    {{"target", required_argument, NULL, 'o'}, GROUP_ONCE},
    {{"use", required_argument, NULL, OPT_USE}, GROUP_ONCE},
    {{"key", required_argument, NULL, OPT_KEY}, GROUP_ONCE},
    {{"input", required_argument, NULL, OPT_INPUT}, GROUP_ONCE},
    {{"env", required_argument, NULL, OPT_ENV}, GROUP_ONCE},
    {{"command-key", no_argument, NULL, OPT_COMMAND_KEY}, GROUP_ONCE},
    {{"print", no_argument, NULL, OPT_PRINT}, GROUP_ONCE},
    {{"max-age", required_argument, NULL, OPT_MAX_AGE}, GROUP_MAX_AGE},
    {{"force", no_argument, NULL, OPT_FORCE}, GROUP_ONCE},
    {{"retry", no_argument, NULL, OPT_RETRY}, GROUP_ONCE},
    {{"max-size", required_argument, NULL, OPT_MAX_SIZE}, GROUP_PRUNE},
    {{"list", no_argument, NULL, OPT_LIST}, GROUP_OUTPUTS},
    {{"forget", required_argument, NULL, OPT_FORGET}, GROUP_OUTPUTS},
};
#define TABLE_SIZE (sizeof table / sizeof *table)

/* ---- values ---- */

static const struct {
    const char *name;
    int64_t ms;
} units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

static const char *take_digits(const char *at, int64_t *value)
{
    *value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (*value > (INT64_MAX - 9) / 10)
            return NULL;
        *value = *value * 10 + (*at - '0');
    }
    return at;
}

/* The fraction of a unit, in ms, rounded up. */
static const char *take_fraction(const char *at, int64_t unit_ms, int64_t *ms)
{
    double value = 0, weight = 0.1;
    for (; *at >= '0' && *at <= '9'; at++, weight /= 10)
        value += (*at - '0') * weight;
    value *= (double)unit_ms;
    *ms = (int64_t)value;
    if (value - (double)*ms > 1e-6)
        ++*ms;
    return at;
}

bool parse_time(const char *text, int64_t *ms)
{
    int64_t whole, part = 0;
    if (strcmp(text, "forever") == 0) {
        *ms = FLK_FOREVER;
        return true;
    }
    bool begins = (*text >= '0' && *text <= '9') || (*text == '.' && text[1] >= '0' && text[1] <= '9');
    const char *end = begins ? take_digits(text, &whole) : NULL;
    if (!end)
        return false;
    const char *fraction = *end == '.' && end[1] >= '0' && end[1] <= '9' ? end + 1 : NULL;
    const char *unit = end;
    if (fraction)
        unit = fraction + strspn(fraction, "0123456789");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name) != 0)
            continue;
        if (fraction)
            take_fraction(fraction, units[i].ms, &part);
        if (whole > (INT64_MAX - part) / units[i].ms)
            return false;
        *ms = whole * units[i].ms + part;
        return true;
    }
    return false;
}

bool parse_number(const char *text, unsigned long least, unsigned long most, unsigned long *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (*end || errno || number < least || number > most)
        return false;
    *value = number;
    return true;
}

bool parse_size(const char *text, uint64_t *size)
{
    static const char suffixes[] = "KMG";
    int64_t number;
    const char *end = *text >= '0' && *text <= '9' ? take_digits(text, &number) : NULL;
    if (!end)
        return false;
    const char *suffix = *end ? strchr(suffixes, *end) : NULL;
    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    if (end[suffix ? 1 : 0] || number > INT64_MAX >> shift)
        return false;
    *size = (uint64_t)number << shift;
    return true;
}

static bool parse_real_time_signal(const char *name, int *number)
{
    unsigned long above = 0;
    if (strncmp(name, "RTMIN", 5) != 0)
        return false;
    name += 5;
    if (*name && (*name != '+' || !parse_number(name + 1, 0, (unsigned long)(SIGRTMAX - SIGRTMIN), &above)))
        return false;
    *number = SIGRTMIN + (int)above;
    return true;
}

bool parse_signal(const char *text, int *number)
{
    unsigned long value;
    if (parse_number(text, 1, (unsigned long)SIGRTMAX, &value)) {
        *number = (int)value;
        return true;
    }
    const char *name = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
    for (int i = 1; i < SIGRTMIN; i++) {
        const char *known = sigabbrev_np(i);
        if (known && strcmp(known, name) == 0) {
            *number = i;
            return true;
        }
    }
    return parse_real_time_signal(name, number);
}

static bool take_number(const char *what, const char *text, unsigned long least, unsigned long most,
                        unsigned long *value)
{
    if (parse_number(text, least, most, value))
        return true;
    complain("\"%s\" is not %s; give a number from %lu to %lu", text, what, least, most);
    return false;
}

static bool take_time(const char *what, const char *text, int64_t *ms)
{
    if (parse_time(text, ms))
        return true;
    complain("\"%s\" is not a time for %s; give one like 1.5, 250ms, 30s, 2m, 1h, 1d or forever", text, what);
    return false;
}

static bool take_deadline(struct options *options, const char *text)
{
    int64_t ms;
    if (!take_time("--deadline", text, &ms))
        return false;
    options->deadline = fk_deadline_in_ms(ms);
    return true;
}

static bool take_limit(const char *what, const char *text, int64_t *ms)
{
    if (!take_time(what, text, ms))
        return false;
    if (*ms == FLK_FOREVER)
        *ms = 0;
    return true;
}

static bool take_size(const char *what, const char *text, uint64_t *size)
{
    if (parse_size(text, size))
        return true;
    complain("\"%s\" is not a size for %s; give one like 4096, 10K, 5M or 2G", text, what);
    return false;
}

static bool take_signal(const char *text, int *number)
{
    if (parse_signal(text, number))
        return true;
    complain("\"%s\" is not a signal; give one like TERM, INT or 15 (all of them: kill -l)", text);
    return false;
}

static bool take_isolate(const char *text, unsigned *isolate)
{
    if (fk_isolate_parse(text, isolate) == 0)
        return true;
    complain("%s", flk_error_detail());
    return false;
}

static bool take_color(const char *text, enum color *color)
{
    static const char *const words[] = {"auto", "always", "never"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *color = (enum color)i;
            return true;
        }
    }
    complain("%s is not a value for --color; give auto, always or never", text);
    return false;
}

static bool take_value_of_run(struct options *options, int which, const char *text)
{
    switch (which) {
    case OPT_PROBE:
        options->probe = text;
        return true;
    case OPT_PROBE_TIMEOUT:
        return take_limit("--probe-timeout", text, &options->probe_timeout_ms);
    case OPT_ON_ABANDONED:
        options->on_abandoned = text;
        return true;
    case 'c':
        options->shell = text;
        return true;
    case OPT_TIMEOUT:
        return take_limit("--timeout", text, &options->timeout_ms);
    case OPT_DEADLINE:
        return take_deadline(options, text);
    case 'k':
        return take_time("--kill-after", text, &options->kill_after_ms);
    case OPT_SIGNAL:
        return take_signal(text, &options->signal);
    case OPT_DETACH:
        options->detach = true;
        return true;
    case OPT_PGRP:
        options->pgrp = true;
        return true;
    case OPT_OUTPUT:
        options->output = text;
        return true;
    case OPT_STDOUT:
        options->out = text;
        return true;
    case OPT_STDERR:
        options->err = text;
        return true;
    case OPT_OUTPUT_LIMIT:
        return take_size("--output-limit", text, &options->output_limit);
    case OPT_CGROUP:
        options->cgroup = text;
        return true;
    case OPT_ISOLATE:
        return take_isolate(text, &options->isolate);
    case OPT_REPORT:
        options->report = text;
        return true;
    case OPT_TMPDIR:
        options->tmpdir = true;
        return true;
    }
    return false;
}

static bool take_value_of_pool(struct options *options, int which, const char *text)
{
    switch (which) {
    case OPT_VALUES:
        options->values = text;
        return true;
    case OPT_VALUES_FROM:
        options->values_from = text;
        return true;
    case OPT_CHECK:
        options->check = text;
        return true;
    case OPT_SPREAD:
        options->spread = true;
        return true;
    }
    return take_value_of_run(options, which, text);
}

/* To a list that ends with NULL. */
static bool add_to(const char ***list, const char *text)
{
    size_t count = 0;
    while (*list && (*list)[count])
        count++;
    const char **longer = reallocarray(*list, count + 2, sizeof *longer);
    if (!longer) {
        complain("out of memory");
        return false;
    }
    longer[count] = text;
    longer[count + 1] = NULL;
    *list = longer;
    return true;
}

static bool take_cleanup_timeout(struct options *options, const char *text)
{
    if (!take_time("--cleanup-timeout", text, &options->cleanup_timeout_ms))
        return false;
    if (options->cleanup_timeout_ms <= 0)
        complain("\"%s\" is no limit for a cleanup, which others wait for; give a time above 0", text);
    return options->cleanup_timeout_ms > 0;
}

static bool take_value_of_outputs(struct options *options, int which, const char *text)
{
    switch (which) {
    case OPT_MAX_SIZE:
        options->has_max_size = true;
        return take_size("--max-size", text, &options->max_size);
    case OPT_LIST:
        options->list = true;
        return true;
    case OPT_FORGET:
        options->forget = text;
        return true;
    }
    return take_value_of_pool(options, which, text);
}

static bool take_process(const char *text, pid_t *pid)
{
    unsigned long number;
    if (!take_number("a process id", text, 1, INT_MAX, &number))
        return false;
    *pid = (pid_t)number;
    return true;
}

static bool take_value_of_state(struct options *options, int which, const char *text)
{
    switch (which) {
    case OPT_OWNER:
        return take_process(text, &options->owner);
    case OPT_PATH:
        return add_to(&options->paths, text);
    case OPT_CLEANUP:
        if (!*text)
            complain("--cleanup is empty; give it a command, or leave it out");
        options->cleanup = text;
        return *text;
    case OPT_CLEANUP_TIMEOUT:
        return take_cleanup_timeout(options, text);
    case OPT_DRY_RUN:
        options->dry_run = true;
        return true;
    }
    return take_value_of_outputs(options, which, text);
}

static bool take_value_of_once(struct options *options, int which, const char *text)
{
    switch (which) {
    case 'o':
        options->target = text;
        return true;
    case OPT_USE:
        options->use = text;
        return true;
    case OPT_KEY:
        options->key = text;
        return true;
    case OPT_INPUT:
        return add_to(&options->inputs, text);
    case OPT_ENV:
        return add_to(&options->variables, text);
    case OPT_COMMAND_KEY:
        options->command_key = true;
        return true;
    case OPT_PRINT:
        options->print = true;
        return true;
    case OPT_MAX_AGE:
        options->has_max_age = true;
        return take_time("--max-age", text, &options->max_age_ms);
    case OPT_FORCE:
        options->force = true;
        return true;
    case OPT_RETRY:
        options->retry = true;
        return true;
    }
    return take_value_of_state(options, which, text);
}

static bool take_value(struct options *options, int which, const char *text)
{
    unsigned long number;
    switch (which) {
    case OPT_DIR:
        if (!*text)
            complain("--dir is empty; give it the path of a directory, or leave it out");
        options->dir = text;
        return *text;
    case 'q':
        message_quiet = true;
        message_verbose = false;
        return true;
    case 'v':
        message_verbose = true;
        message_quiet = false;
        return true;
    case 'h':
        options->help = true;
        return true;
    case OPT_VERSION:
        options->version = true;
        return true;
    case 'n':
        options->wait_ms = 0;
        return true;
    case 'w':
        return take_time("--wait", text, &options->wait_ms);
    case 'E':
        if (!take_number("an exit status", text, 0, 255, &number))
            return false;
        options->conflict_status = (int)number;
        return true;
    case OPT_SLOTS:
        if (!take_number("a number of slots", text, 1, FLK_SLOTS_MAX, &number))
            return false;
        options->slots = (unsigned)number;
        return true;
    case 's':
        options->shared = true;
        return true;
    case 'l':
        options->label = text;
        return true;
    case OPT_WHILE:
        return take_process(text, &options->while_pid);
    case OPT_LATCH:
        options->latch = true;
        return true;
    case OPT_JSON:
        options->json = true;
        return true;
    case OPT_WATCH:
        options->watch = true;
        return true;
    case OPT_COLOR:
        return take_color(text, &options->color);
    case 'y':
        options->yes = true;
        return true;
    case 'f':
        options->follow = true;
        return true;
    case OPT_ON:
        options->log_on = true;
        options->log_off = false;
        return true;
    case OPT_OFF:
        options->log_off = true;
        options->log_on = false;
        return true;
    }
    return take_value_of_once(options, which, text);
}

/* Without COMMAND there is nothing that these could be about. */
static void note_need(struct options *options, int which)
{
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (table[i].option.val == which &&
            ((table[i].group & GROUP_RUN) || which == OPT_PROBE || which == OPT_ON_ABANDONED))
            options->needs_command = table[i].option.name;
}

/* ---- the line ---- */

struct grammar {
    struct option longs[TABLE_SIZE + 1];
    char letters[3 * TABLE_SIZE + 3];
};

/* mode: how getopt treats operands: '-' hands each over in its place, '+' stops at the first. Without one of the two the
 * environment (POSIXLY_CORRECT) would decide. */
static void select_options(struct grammar *grammar, unsigned groups, char mode)
{
    size_t n = 0;
    char *letter = grammar->letters;
    *letter++ = mode;
    *letter++ = ':';
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        if (!(table[i].group & groups))
            continue;
        grammar->longs[n++] = table[i].option;
        if (table[i].option.val < 256) {
            *letter++ = (char)table[i].option.val;
            if (table[i].option.has_arg == required_argument)
                *letter++ = ':';
        }
    }
    grammar->longs[n] = (struct option){0};
    *letter = '\0';
}

/* The options that begin as word does; how many. */
static size_t list_meant(const struct grammar *grammar, const char *word, char *list, size_t size)
{
    size_t length = strcspn(word, "="), count = 0, used = 0;
    list[0] = '\0';
    for (const struct option *option = grammar->longs; option->name; option++) {
        if (length < 3 || strncmp(option->name, word + 2, length - 2) != 0)
            continue;
        if (used < size)
            used += (size_t)snprintf(list + used, size - used, "%s--%s", count ? ", " : "", option->name);
        count++;
    }
    return count;
}

/* word: the one of the line that getopt refused; it may have several letters. */
static void complain_of_option(const struct grammar *grammar, const char *verb, int which, const char *word)
{
    char shown[3] = {'-', (char)optopt, '\0'}, meant[512];
    const char *gap = *verb ? " " : "";
    bool is_long = word[1] == '-';
    size_t count = is_long ? list_meant(grammar, word, meant, sizeof meant) : 0;
    if (which == ':')
        complain("%s needs a value; see flockctl %s%s--help", is_long ? word : shown, verb, gap);
    else if (!is_long)
        complain("%s isn't an option of flockctl%s%s; see flockctl %s%s--help", shown, gap, verb, verb, gap);
    else if (count > 1)
        complain("%s is short for several options: %s; say which", word, meant);
    else if (count == 1)
        complain("%s takes no value; leave \"%s\" out", meant, strchrnul(word, '='));
    else
        complain("%s isn't an option of flockctl%s%s; see flockctl %s%s--help", word, gap, verb, verb, gap);
}

/* ---- the line as it should be ---- */

static void put_word(FILE *out, const char *word)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"; /* to every shell */
    if (*word && word[strspn(word, plain)] == '\0') {
        fprintf(out, " %s", word);
        return;
    }
    fputs(" '", out);
    for (; *word; word++)
        fputs(*word == '\'' ? "'\\''" : (char[]){*word, '\0'}, out);
    fputs("'", out);
}

static void put_line(FILE *out, const struct options *options)
{
    bool name_is_missing = options->takes_names && options->n_operands == 0 && !options->command_word;
    for (char **word = options->line; *word; word++) {
        if (options->command && word + 1 == options->command && name_is_missing)
            fputs(" NAME", out);
        if (word == options->command_word)
            fputs(" --", out);
        put_word(out, *word);
    }
    if (!options->command && name_is_missing)
        fputs(" NAME", out);
    if (!options->command && !options->command_word)
        fputs(" --", out);
    if (!options->command_word && !(options->command && *options->command))
        fputs(" COMMAND", out);
}

void complain_of_line(const struct options *options, const char *what)
{
    char *line = NULL;
    size_t size;
    FILE *out = open_memstream(&line, &size);
    if (out)
        put_line(out, options);
    if (out && fclose(out) == 0)
        complain("%s; for example: flockctl%s", what, line);
    free(line);
}

void complain_of_missing_dashes(const struct options *options, const char *verb)
{
    char what[64];
    snprintf(what, sizeof what, "%s needs \"--\" before the command", verb);
    complain_of_line(options, what);
}

static unsigned group_of(int which)
{
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (table[i].option.val == which)
            return table[i].group;
    return 0;
}

/* Options after which COMMAND isn't to come. */
static bool replaces_command(int which)
{
    return which == 'c' || which == 'h' || which == OPT_VERSION ||
           !(group_of(which) &
             (GROUP_GLOBAL | GROUP_WAIT | GROUP_SLOTS | GROUP_VALUES | GROUP_LOCK | GROUP_RUN | GROUP_ONCE));
}

/* Finds where COMMAND seems to begin. True: that is so, and what comes there are options of its own as likely as ours. */
static bool lacks_dashes(int argc, char **argv, const struct grammar *grammar, struct options *options)
{
    size_t names = options->takes_names ? 1 : 0, operands = 0;
    int which;
    opterr = 0;
    optind = 0; /* glibc: start anew, after the GLOBAL options were parsed */
    while ((which = getopt_long(argc, argv, grammar->letters, grammar->longs, NULL)) != -1) {
        bool bad = which == '?' || which == ':';
        if (which == 1 && operands++ == names)
            options->command_word = argv + optind - 1;
        else if (bad)
            return options->command_word != NULL;
        else if (which != 1 && replaces_command(which))
            return false;
    }
    return options->command_word != NULL;
}

static void set_defaults(struct options *options)
{
    const char *dir = options->dir;
    char **line = options->line;
    bool help = options->help, version = options->version;
    *options = (struct options){.wait_ms = FLK_FOREVER,
                                .max_age_ms = FLK_FOREVER,
                                .conflict_status = EXIT_NOT_ACQUIRED,
                                .probe_timeout_ms = 10000,
                                .kill_after_ms = 10000,
                                .deadline = FK_NEVER,
                                .signal = SIGTERM,
                                .dir = dir,
                                .line = line,
                                .help = help,
                                .version = version};
}

bool options_parse(int argc, char **argv, unsigned groups, struct options *options)
{
    struct grammar grammar;
    int end = 1, at = 1, which;
    set_defaults(options);
    options->takes_names = groups & GROUP_SLOTS;
    while (end < argc && strcmp(argv[end], "--") != 0)
        end++;
    options->command = end < argc ? argv + end + 1 : NULL;
    options->operands = calloc((size_t)end, sizeof *options->operands);
    if (!options->operands) {
        complain("out of memory");
        return false;
    }
    select_options(&grammar, groups, '-');
    if (!options->command && groups & GROUP_RUN && lacks_dashes(end, argv, &grammar, options)) {
        complain_of_missing_dashes(options, argv[0]);
        return false;
    }
    opterr = 0;
    optind = 0; /* glibc: start anew */
    for (; (which = getopt_long(end, argv, grammar.letters, grammar.longs, NULL)) != -1; at = optind) {
        if (which == 1) {
            options->operands[options->n_operands++] = optarg;
        } else if (which == '?' || which == ':') {
            complain_of_option(&grammar, argv[0], which, argv[at]);
            return false;
        } else if (!take_value(options, which, optarg)) {
            return false;
        }
        note_need(options, which);
    }
    return true;
}

int options_parse_global(int argc, char **argv, struct options *options)
{
    struct grammar grammar;
    int at = 1, which;
    select_options(&grammar, GROUP_GLOBAL, '+');
    opterr = 0;
    for (; (which = getopt_long(argc, argv, grammar.letters, grammar.longs, NULL)) != -1; at = optind) {
        if (which == '?' || which == ':') {
            complain_of_option(&grammar, "", which, argv[at]);
            return -1;
        }
        if (!take_value(options, which, optarg))
            return -1;
    }
    return optind;
}
