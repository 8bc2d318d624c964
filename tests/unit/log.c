/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "root.h"
#include "tap.h"

/* ---- what stands there ---- */

static char *read_all(const char *path)
{
    FILE *in = fopen(path, "r");
    char *text = calloc(1, 32 << 20);
    if (!text)
        bail_out("no memory");
    if (in) {
        text[fread(text, 1, (32 << 20) - 1, in)] = '\0';
        fclose(in);
    }
    return text;
}

static const char *file(void)
{
    return test_path("root/log");
}

static unsigned count(const char *path, const char *word)
{
    char *text = read_all(path);
    unsigned found = 0;
    for (const char *at = text; (at = strstr(at, word)); at++)
        found++;
    free(text);
    return found;
}

static void choose_again(void)
{
    if (flk_root_set(NULL) < 0)
        bail_out("%s", flk_error_detail());
}

static void turn(bool on)
{
    if (fk_root_set_log(on) < 0)
        bail_out("%s", flk_error_detail());
}

static struct flk_hold *take(const char *name)
{
    struct flk_hold *hold = NULL;
    if (flk_acquire(name, 0, FLK_FOREVER, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

/* ---- on and off ---- */

static void on_and_off(void)
{
    flk_hold_release(take("off"));
    ok(!fk_log_is_on() && access(file(), F_OK) < 0, "there is no history unless it was turned on");
    turn(true);
    flk_hold_release(take("off"));
    ok(access(file(), F_OK) < 0, "nor in a process that has chosen its directory before");
    choose_again();
    flk_hold_release(take("on"));
    ok(fk_log_is_on(), "one that chooses it afterwards");
    is_int((int)count(file(), "\"event\":\"acquire\",\"name\":\"on\",\"slots\":[0],"), 1, "writes that it acquired");
    is_int((int)count(file(), "\"event\":\"release\",\"name\":\"on\",\"slots\":[0],"), 1, "and that it released");
    struct stat status;
    ok(stat(file(), &status) == 0 && (status.st_mode & 0777) == 0600, "into a file that is its user's");
    turn(false);
    choose_again();
    flk_hold_release(take("on"));
    ok(!fk_log_is_on(), "turned off it is off");
    is_int((int)count(file(), "\n"), 2, "and nothing is written");
    char *version = read_all(test_path("root/version"));
    is_str(version, "1\n", "the marker is gone");
    free(version);
}

static void by_variable(void)
{
    const char *path = test_path("mine");
    setenv("FLOCKCTL_LOG", path, 1);
    choose_again();
    flk_hold_release(take("variable"));
    is_int((int)count(path, "\"name\":\"variable\""), 2, "FLOCKCTL_LOG names another file, and turns it on");
    setenv("FLOCKCTL_LOG", "/dev/full", 1);
    choose_again();
    flk_hold_release(take("variable"));
    ok(fk_log_is_on(), "a file that is full keeps nobody from a lock");
    setenv("FLOCKCTL_LOG", test_path("not/there"), 1);
    choose_again();
    flk_hold_release(take("variable"));
    ok(fk_log_is_on(), "nor one that can't be opened");
    const char *fifo = test_path("fifo");
    mkfifo(fifo, 0600);
    setenv("FLOCKCTL_LOG", fifo, 1);
    choose_again();
    flk_hold_release(take("variable"));
    ok(fk_log_is_on(), "nor a FIFO that nobody reads");
    setenv("FLOCKCTL_LOG", "", 1);
    choose_again();
    flk_hold_release(take("variable"));
    ok(!fk_log_is_on(), "an empty FLOCKCTL_LOG is none");
    unsetenv("FLOCKCTL_LOG");
    turn(true);
    choose_again();
}

/* ---- events ---- */

static long long last_waited(void)
{
    char *text = read_all(file());
    const char *found = NULL;
    for (const char *at = text; (at = strstr(at, "\"waited\":")); at++)
        found = at;
    long long waited = found ? atoll(found + 9) : -1;
    free(text);
    return waited;
}

static void events(void)
{
    struct flk_hold *hold = take("events");
    const struct flk_options how = {.label = "a \"label\"\n", .command = "make"};
    struct flk_hold *other;
    is_int(flk_acquire("events", 0, 0, &other), -EBUSY, "who tries once");
    is_int((int)count(file(), "\"name\":\"events\""), 1, "and hasn't got it, isn't in the history");
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(flk_acquire_many(&(struct flk_want){.name = "events"}, 1, &how, 20, &other) == -ETIMEDOUT ? 0 : 1);
    is_int(test_reap(pid), 0, "one whose time runs out");
    is_int((int)count(file(), "\"event\":\"wait\",\"name\":\"events\",\"wants\":1,"), 1, "has waited");
    is_int((int)count(file(), "\"event\":\"timeout\",\"name\":\"events\",\"wants\":1,"), 1, "and is said to be late");
    is_int((int)count(file(), "\"label\":\"a \\\"label\\\"\\u000a\",\"command\":\"make\""), 2,
           "with label and command");
    ok(last_waited() >= 20000000, "how long it waited, in ns");
    flk_hold_release(hold);

    pid = tap_fork();
    if (pid == 0) {
        take("events");
        _exit(0);
    }
    test_reap(pid);
    flk_hold_release(take("events"));
    is_int((int)count(file(), test_path("\"other\":{\"pid\":%d,", pid) + strlen(tap_directory()) + 1), 1,
           "who takes over from one that died says from whom");
    is_int((int)count(file(), "\"event\":\"abandonment\""), 1, "as an abandonment");
}

/* ---- many at a time ---- */

static unsigned check_turns(const char *text, const char *name)
{
    bool held = false;
    unsigned wrong = 0;
    char acquire[64], release[64];
    snprintf(acquire, sizeof acquire, "\"event\":\"acquire\",\"name\":\"%s\"", name);
    snprintf(release, sizeof release, "\"event\":\"release\",\"name\":\"%s\"", name);
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        size_t length = (size_t)(end - line);
        bool acquired = memmem(line, length, acquire, strlen(acquire));
        bool released = memmem(line, length, release, strlen(release));
        wrong += (acquired && held) || (released && !held) || *line != '{' || end[-1] != '}';
        held = acquired || (held && !released);
    }
    return wrong;
}

static void turns(void)
{
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0) {
            for (int j = 0; j < 100; j++)
                flk_hold_release(take("turns"));
            _exit(0);
        }
    }
    for (int i = 0; i < 4; i++)
        test_reap(pids[i]);
    char *text = read_all(file());
    is_int((int)check_turns(text, "turns"), 0, "each release stands before the next acquisition");
    free(text);
    is_int((int)count(file(), "\"event\":\"acquire\",\"name\":\"turns\""), 400, "and nothing is lost");
}

#define WRITERS 4
#define LINES 900 /* 3,000 bytes each: 10.8 MB, more than one file and less than two */

static void write_many(int writer)
{
    char detail[3000];
    memset(detail, 'a' + writer, sizeof detail - 1);
    detail[sizeof detail - 1] = '\0';
    for (int i = 0; i < LINES; i++)
        fk_log_write(&(struct fk_log_entry){
            .event = "deadlock", .row = "rotated", .detail = detail, .waited_ns = i, .held_ns = -1});
    _exit(0);
}

static void rotation(void)
{
    pid_t pids[WRITERS];
    struct stat old;
    unlink(file());
    for (int i = 0; i < WRITERS; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            write_many(i);
    }
    for (int i = 0; i < WRITERS; i++)
        test_reap(pids[i]);
    const char *first = test_path("root/log.1");
    ok(stat(first, &old) == 0 && old.st_size >= FK_LOG_LIMIT && old.st_size < FK_LOG_LIMIT + FK_LOG_LIMIT / 8,
       "a file of 8 MB is rotated, once");
    is_int((int)(count(file(), "\"rotated\"") + count(first, "\"rotated\"")), WRITERS * LINES, "and no line is lost");
    char *text = read_all(first), *rest = read_all(file());
    is_int((int)(check_turns(text, "-") + check_turns(rest, "-")), 0, "or cut");
    free(text);
    free(rest);
}

static void stopped_rotator(void)
{
    int fd = open(file(), O_RDONLY);
    unsigned before = count(file(), "\n");
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        bail_out("can't lock the history");
    flk_hold_release(take("stopped"));
    is_int((int)(count(file(), "\n") - before), 2, "one that was stopped while it rotated keeps nobody from writing");
    close(fd);
}

static void after_fork(void)
{
    flk_hold_release(take("forked"));
    pid_t pid = tap_fork();
    if (pid == 0) {
        flk_hold_release(take("forked"));
        _exit(0);
    }
    test_reap(pid);
    char line[64];
    snprintf(line, sizeof line, "\"pid\":%d,", (int)pid);
    is_int((int)count(file(), line), 2, "a forked child writes as itself");
}

int main(void)
{
    tap_deadline(60);
    test_root();
    unsetenv("FLOCKCTL_LOG");
    on_and_off();
    by_variable();
    events();
    turns();
    after_fork();
    rotation();
    stopped_rotator();
    return done_testing();
}
