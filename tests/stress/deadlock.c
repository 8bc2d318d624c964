/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deadlocks by the thousand, and none. Workers hold one thing after the other:
 *
 *   ordered   random names and counts, in commands inside of commands, everybody by the order of the alphabet: no deadlock is possible, so
 *             each alarm is a false one
 *   at random rows of one to three slots in any order. Who is told of a deadlock lets go of all and starts over. A referee in shared
 *             memory, where everybody notes what it has before it asks for more, looks whether the alarm is true; that all of them end
 *             shows that none is missed
 *
 * STRESS_SCALE multiplies the rounds: 5 makes 10,000 acquisitions of each kind. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/helpers.h"
#include "tap.h"

extern char **environ;

#define WORKERS 8
#define LEVELS 3 /* a, b, c: of names, and of commands inside of commands */
#define ROWS 3 /* of each level: of 1, 2 and 3 slots */
#define COMMANDS 84 /* of each worker: three acquisitions or more */
#define MESSES 500 /* the same at random */

static unsigned scale(void)
{
    const char *text = getenv("STRESS_SCALE");
    int number = text ? atoi(text) : 1;
    return number > 0 ? (unsigned)number : 1;
}

static unsigned below(unsigned *seed, unsigned n)
{
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % n;
}

static void define_all(void)
{
    char name[8];
    for (unsigned level = 0; level < LEVELS; level++)
        for (unsigned row = 0; row < ROWS; row++) {
            snprintf(name, sizeof name, "%c%u", 'a' + level, row);
            if (flk_row_define(name, row + 1) < 0)
                bail_out("%s", flk_error_detail());
        }
}

/* ---- ordered ---- */

/* Some names of a level, each with a count. */
struct choice {
    char names[ROWS][16], operands[ROWS][32];
    struct flk_want wants[ROWS];
    unsigned n;
};

static void choose(unsigned level, unsigned *seed, struct choice *choice)
{
    choice->n = 0;
    while (choice->n == 0)
        for (unsigned row = 0; row < ROWS; row++) {
            if (below(seed, 2))
                continue;
            unsigned count = 1 + below(seed, row + 1), i = choice->n++;
            snprintf(choice->names[i], sizeof choice->names[i], "%c%u", 'a' + (int)level, row);
            snprintf(choice->operands[i], sizeof choice->operands[i], "%c%u:%u", 'a' + (int)level, row, count);
            choice->wants[i] = (struct flk_want){.name = choice->names[i], .count = count};
        }
}

static const char *self;

/* flockctl acquire NAMES -- self CLASS SEED; its exit status. */
static int run_command(const struct choice *choice, unsigned level, unsigned seed)
{
    const char *tool = getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl";
    char next[16], number[16];
    const char *argv[ROWS + 8] = {tool, "-q", "acquire"};
    unsigned n = 3;
    pid_t pid;
    int status;
    for (unsigned i = 0; i < choice->n; i++)
        argv[n++] = choice->operands[i];
    snprintf(next, sizeof next, "%u", level);
    snprintf(number, sizeof number, "%u", seed);
    argv[n++] = "--";
    argv[n++] = self;
    argv[n++] = next;
    argv[n++] = number;
    if (posix_spawn(&pid, tool, NULL, NULL, (char *const *)argv, environ) != 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* What the command does: takes of its level, half of the time by the library and half of the time by another command. */
static int nested(unsigned level, unsigned seed)
{
    struct choice choice;
    struct flk_hold *hold;
    choose(level, &seed, &choice);
    if (level + 1 < LEVELS && below(&seed, 2))
        return run_command(&choice, level + 1, seed);
    int code = flk_acquire_many(choice.wants, choice.n, NULL, FLK_FOREVER, &hold);
    if (code == -EDEADLK)
        diag("%s", flk_error_detail());
    if (code < 0)
        return code == -EDEADLK ? 35 : 1;
    int status = level + 1 < LEVELS ? nested(level + 1, seed) : 0;
    flk_hold_release(hold);
    return status;
}

static void order_worker(unsigned worker, unsigned commands)
{
    unsigned seed = worker * 7919u + 1;
    for (unsigned i = 0; i < commands; i++) {
        struct choice choice;
        choose(0, &seed, &choice);
        int status = run_command(&choice, 1, below(&seed, 30000));
        if (status != 0)
            _exit(status);
    }
    _exit(0);
}

static void ordered(void)
{
    pid_t pids[WORKERS];
    unsigned commands = COMMANDS * scale(), alarms = 0, failures = 0;
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            order_worker(i, commands);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int status = test_reap(pids[i]);
        alarms += status == 35;
        failures += status != 35 && status != 0;
    }
    is_int((int)alarms, 0, "%u nested commands in order: no false alarm", commands * WORKERS);
    is_int((int)failures, 0, "  and all get on");
}

/* ---- at random ---- */

#define MESS_ROWS 6

static struct referee {
    struct {
        _Atomic unsigned has[MESS_ROWS]; /* slots */
        _Atomic int wants; /* a row; -1: nothing */
    } workers[WORKERS];
    _Atomic unsigned alarms, false_ones, done, inside[MESS_ROWS], crowds;
} * referee;

static unsigned slots_of(unsigned row)
{
    return 1 + row % 3;
}

/* Everybody asks for single slots, so what counts is whether one comes free: does any of those who go on have one? */
static bool is_real(unsigned me)
{
    bool live[WORKERS], changed = true;
    for (unsigned i = 0; i < WORKERS; i++)
        live[i] = referee->workers[i].wants < 0;
    live[me] = false;
    while (changed) {
        changed = false;
        for (unsigned i = 0; i < WORKERS; i++) {
            int row = referee->workers[i].wants;
            unsigned stuck = 0;
            if (live[i] || row < 0)
                continue;
            for (unsigned j = 0; j < WORKERS; j++)
                stuck += live[j] ? 0 : referee->workers[j].has[row];
            if (stuck < slots_of((unsigned)row))
                changed = live[i] = true;
        }
    }
    return !live[me];
}

static void name_of(char name[16], unsigned row)
{
    snprintf(name, 16, "mess%u", row);
}

/* 0, or 1: a deadlock. */
static int take_one_more(unsigned me, unsigned row, struct flk_hold **hold)
{
    char name[16];
    name_of(name, row);
    referee->workers[me].wants = (int)row;
    int code = flk_acquire(name, 0, FLK_FOREVER, hold);
    if (code == -EDEADLK) {
        referee->alarms++;
        if (!is_real(me)) {
            referee->false_ones++;
            diag("a false alarm: %s", flk_error_detail());
        }
    } else if (code < 0) {
        diag("%s", flk_error_detail());
        _exit(1);
    } else {
        referee->workers[me].has[row]++;
        if (++referee->inside[row] > slots_of(row))
            referee->crowds++;
    }
    referee->workers[me].wants = -1;
    return code < 0;
}

static void mess_worker(unsigned me, unsigned rounds)
{
    unsigned seed = me * 104729u + 7, rows[3];
    for (unsigned round = 0; round < rounds; round++) {
        struct flk_hold *holds[3];
        unsigned n = 0, most = 1 + below(&seed, 3);
        for (unsigned first = below(&seed, MESS_ROWS); n < most; n++) {
            rows[n] = (first + n * (1 + below(&seed, 2))) % MESS_ROWS;
            bool again = (n > 0 && rows[n] == rows[0]) || (n > 1 && rows[n] == rows[1]);
            if (again || take_one_more(me, rows[n], &holds[n]))
                break;
        }
        while (n > 0) {
            n--;
            referee->inside[rows[n]]--;
            referee->workers[me].has[rows[n]]--;
            flk_hold_release(holds[n]);
        }
    }
    referee->done++;
    _exit(0);
}

static void at_random(void)
{
    pid_t pids[WORKERS];
    char name[16];
    referee = test_shared(sizeof *referee);
    for (unsigned row = 0; row < MESS_ROWS; row++) {
        name_of(name, row);
        if (flk_row_define(name, slots_of(row)) < 0)
            bail_out("%s", flk_error_detail());
    }
    for (unsigned i = 0; i < WORKERS; i++)
        referee->workers[i].wants = -1;
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            mess_worker(i, MESSES * scale());
    }
    for (unsigned i = 0; i < WORKERS; i++)
        test_reap(pids[i]);
    is_int((int)referee->done, WORKERS, "in any order: everybody gets to the end");
    ok(referee->alarms > 0, "  with the help of alarms (%u)", referee->alarms);
    is_int((int)referee->false_ones, 0, "  each of which was true");
    is_int((int)referee->crowds, 0, "  and no slot had two holders");
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc == 3)
        return nested((unsigned)atoi(argv[1]), (unsigned)atoi(argv[2]));
    tap_deadline(60 * scale());
    test_root();
    define_all();
    ordered();
    at_random();
    return done_testing();
}
