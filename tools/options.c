/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <errno.h>
#include <flockctl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "exit_status.h"
#include "message.h"

/* Long options without a letter. */
enum { OPT_DIR = 256, OPT_VERSION, OPT_SLOTS, OPT_DETACH, OPT_WHILE, OPT_LATCH };

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
    {{"shared", no_argument, NULL, 's'}, GROUP_LOCK},
    {{"label", required_argument, NULL, 'l'}, GROUP_LOCK},
    {{"shell", required_argument, NULL, 'c'}, GROUP_RUN},
    {{"detach", no_argument, NULL, OPT_DETACH}, GROUP_RUN},
    {{"while", required_argument, NULL, OPT_WHILE}, GROUP_WHILE},
    {{"latch", no_argument, NULL, OPT_LATCH}, GROUP_LATCH},
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
    const char *end = *text >= '0' && *text <= '9' ? take_digits(text, &whole) : NULL;
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

static bool take_number(const char *what, const char *text, unsigned long least, unsigned long most,
                        unsigned long *value)
{
    if (parse_number(text, least, most, value))
        return true;
    complain("%s is not %s; give a number from %lu to %lu", text, what, least, most);
    return false;
}

static bool take_time(const char *what, const char *text, int64_t *ms)
{
    if (parse_time(text, ms))
        return true;
    complain("%s is not a time for %s; give one like 1.5, 250ms, 30s, 2m, 1h, 1d or forever", text, what);
    return false;
}

static bool take_value(struct options *options, int which, const char *text)
{
    unsigned long number;
    switch (which) {
    case OPT_DIR:
        options->dir = text;
        return true;
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
    case 'c':
        options->shell = text;
        return true;
    case OPT_DETACH:
        options->detach = true;
        return true;
    case OPT_WHILE:
        if (!take_number("a process id", text, 1, INT_MAX, &number))
            return false;
        options->while_pid = (pid_t)number;
        return true;
    case OPT_LATCH:
        options->latch = true;
        return true;
    }
    return false;
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

static void complain_of_option(const char *verb, int which, const char *word)
{
    if (which == ':')
        complain("%s needs a value; see flockctl %s%s--help", word, verb, *verb ? " " : "");
    else if (optopt > 0 && optopt < 256 && word[0] == '-' && word[1] != '-')
        complain("-%c isn't an option of flockctl%s%s; see flockctl %s%s--help", optopt, *verb ? " " : "", verb, verb,
                 *verb ? " " : "");
    else
        complain("%s isn't an option of flockctl%s%s, or not the only one that begins so; see flockctl %s%s--help",
                 word, *verb ? " " : "", verb, verb, *verb ? " " : "");
}

static void set_defaults(struct options *options)
{
    const char *dir = options->dir;
    bool help = options->help, version = options->version;
    *options = (struct options){
        .wait_ms = FLK_FOREVER, .conflict_status = EXIT_NOT_ACQUIRED, .dir = dir, .help = help, .version = version};
}

bool options_parse(int argc, char **argv, unsigned groups, struct options *options)
{
    struct grammar grammar;
    int end = 1, which;
    set_defaults(options);
    while (end < argc && strcmp(argv[end], "--") != 0)
        end++;
    options->command = end < argc ? argv + end + 1 : NULL;
    options->operands = calloc((size_t)end, sizeof *options->operands);
    if (!options->operands) {
        complain("out of memory");
        return false;
    }
    select_options(&grammar, groups, '-');
    opterr = 0;
    optind = 0; /* glibc: start anew, after the GLOBAL options were parsed */
    while ((which = getopt_long(end, argv, grammar.letters, grammar.longs, NULL)) != -1) {
        if (which == 1) {
            options->operands[options->n_operands++] = optarg;
        } else if (which == '?' || which == ':') {
            complain_of_option(argv[0], which, argv[optind - 1]);
            return false;
        } else if (!take_value(options, which, optarg)) {
            return false;
        }
    }
    return true;
}

int options_parse_global(int argc, char **argv, struct options *options)
{
    struct grammar grammar;
    int which;
    select_options(&grammar, GROUP_GLOBAL, '+');
    opterr = 0;
    while ((which = getopt_long(argc, argv, grammar.letters, grammar.longs, NULL)) != -1) {
        if (which == '?' || which == ':') {
            complain_of_option("", which, argv[optind - 1]);
            return -1;
        }
        take_value(options, which, optarg);
    }
    return optind;
}
