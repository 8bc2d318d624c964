/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "registry.h"
#include "shared.h"
#include "tap.h"

static struct flk_hold *acquire(const char *name, unsigned count, unsigned flags, const char *label)
{
    struct flk_hold *hold;
    struct flk_want want = {.name = name, .count = count, .flags = flags};
    struct flk_options options = {.label = label};
    if (flk_acquire_many(&want, 1, &options, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

static bool is_free(const char *name)
{
    struct flk_hold *hold;
    int code = flk_acquire(name, 0, 0, &hold);
    if (code == 0)
        flk_hold_decline(hold); /* leaves no trace */
    return code == 0;
}

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

static void contents(void)
{
    const unsigned *slots, wanted[] = {0, 2, 3};
    define("row4", 4);
    struct flk_hold *zero = acquire("row4", 1, 0, NULL), *one = acquire("row4", 1, 0, NULL);
    flk_hold_slots(one, 0, &slots);
    is_int(slots[0], 1, "a hold says which slot it has");
    flk_hold_release(zero);
    struct flk_hold *three = acquire("row4", 3, 0, NULL);
    is_int((int)flk_hold_slots(three, 0, &slots), 3, "a hold of three has three");
    ok(memcmp(slots, wanted, sizeof wanted) == 0, "in rising order");
    ok(strcmp(flk_hold_id(three), flk_hold_id(one)) != 0, "every hold has an id of its own");
    is_int((int)flk_hold_names(three), 1, "one name");
    is_str(flk_hold_name(three, 0), "row4", "which is the one asked for");
    ok(!flk_hold_name(three, 1) && flk_hold_slots(three, 1, &slots) == 0, "there is nothing behind the last name");
    ok(flk_hold_waited_ms(three) >= 0 && flk_hold_waited_ms(three) < 5000, "it says how long it waited");
    ok(!flk_hold_abandoned(three) && !flk_hold_predecessor(three), "nobody died holding it");
    flk_hold_release(one);
    flk_hold_release(three);
    flk_hold_release(NULL);
    flk_hold_decline(NULL);
}

static const char *value_of(char **envp, const char *name)
{
    const char *value = NULL;
    size_t length = strlen(name);
    for (; *envp; envp++)
        if (strncmp(*envp, name, length) == 0 && (*envp)[length] == '=')
            value = value ? "twice" : *envp + length + 1;
    return value;
}

static void environment(void)
{
    char **envp;
    struct flk_hold *hold;
    struct flk_want wants[] = {{.name = "row4", .count = 2}, {.name = "alone"}};
    setenv("FLOCKCTL_NAME", "outer", 1);
    setenv("FLOCKCTL_SLOTS_7", "3", 1);
    setenv("FLOCKCTL_ABANDONED", "1", 1);
    if (flk_acquire_many(wants, 2, NULL, 0, &hold) < 0 || flk_hold_environ(hold, &envp) < 0)
        bail_out("%s", flk_error_detail());
    is_str(value_of(envp, "FLOCKCTL_NAME"), "row4 alone", "environment: the names, instead of an outer hold's");
    is_str(value_of(envp, "FLOCKCTL_ID"), flk_hold_id(hold), "the id");
    is_str(value_of(envp, "FLOCKCTL_SLOT"), "0", "the first slot");
    is_str(value_of(envp, "FLOCKCTL_SLOTS"), "0 1", "all slots of the first name");
    is_str(value_of(envp, "FLOCKCTL_SLOTS_1"), "0 1", "the same by number");
    is_str(value_of(envp, "FLOCKCTL_SLOTS_2"), "0", "and those of the second");
    is_str(value_of(envp, "FLOCKCTL_SLOTS_7"), NULL, "nothing of an outer hold is left");
    is_str(value_of(envp, "FLOCKCTL_ABANDONED"), NULL, "not abandoned: not set");
    ok(value_of(envp, "FLOCKCTL_WAITED_MS") != NULL, "how long it waited");
    is_str(value_of(envp, "FLOCKCTL_DIR"), test_path("root"), "the lock directory that was named");
    is_str(value_of(envp, "FLOCKCTL_CONFIG"), "/dev/null", "and what the user set stays");
    free(envp);
    flk_hold_release(hold);
    unsetenv("FLOCKCTL_NAME");
    unsetenv("FLOCKCTL_SLOTS_7");
    unsetenv("FLOCKCTL_ABANDONED");
}

/* ---- abandoned ---- */

static pid_t die_holding(const char *name, unsigned count, unsigned flags, const char *label)
{
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        struct flk_hold *hold;
        struct flk_want want = {.name = name, .count = count, .flags = flags};
        if (flk_acquire_many(&want, 1, &(struct flk_options){.label = label, .command = "the command"}, 0, &hold) < 0 ||
            write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        bail_out("the holder has failed");
    close(ready[0]);
    kill(pid, SIGKILL);
    is_int(test_reap(pid), -SIGKILL, "a holder of %s is killed", name);
    return pid;
}

static void abandoned(void)
{
    char **envp;
    pid_t pid = die_holding("dead", 1, 0, "its label");
    struct flk_hold *hold = acquire("dead", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 1, "the next holder learns that its predecessor died holding");
    const struct flk_holder *predecessor = flk_hold_predecessor(hold);
    if (!predecessor)
        bail_out("no predecessor");
    is_int(predecessor->pid, pid, "who it was");
    is_str(predecessor->label, "its label", "with its label");
    is_str(predecessor->command, "the command", "and command");
    ok(predecessor->since_ms > 0 && *predecessor->id && predecessor->start_time > 0, "since when, id and start time");
    if (flk_hold_environ(hold, &envp) < 0)
        bail_out("%s", flk_error_detail());
    is_str(value_of(envp, "FLOCKCTL_ABANDONED"), "1", "and so does its command");
    free(envp);
    flk_hold_release(hold);
    hold = acquire("dead", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 0, "the one after that doesn't: it has been dealt with");
    flk_hold_release(hold);
}

static void declined(void)
{
    pid_t pid = die_holding("declined", 1, 0, NULL);
    flk_hold_decline(acquire("declined", 1, 0, NULL));
    struct flk_hold *hold = acquire("declined", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 1, "declined, it is still marked");
    is_int(flk_hold_predecessor(hold) ? flk_hold_predecessor(hold)->pid : 0, pid, "as the first one's");
    flk_hold_release(hold);
    flk_hold_decline(acquire("declined", 1, 0, NULL));
    hold = acquire("declined", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 0, "declining what nobody died holding leaves no mark");
    flk_hold_release(hold);
}

static void abandoned_slot(void)
{
    const unsigned *slots;
    define("row3", 3);
    struct flk_hold *first = acquire("row3", 1, 0, NULL);
    pid_t pid = die_holding("row3", 1, 0, NULL);
    struct flk_hold *hold = acquire("row3", 2, 0, NULL);
    is_int(flk_hold_abandoned(hold), 1, "one of several slots was abandoned: so is the hold");
    is_int(flk_hold_predecessor(hold) ? flk_hold_predecessor(hold)->pid : 0, pid, "by whom is known");
    flk_hold_slots(hold, 0, &slots);
    flk_hold_decline(hold);
    flk_hold_release(first);
    hold = acquire("row3", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 0, "the slot beside it isn't");
    flk_hold_release(hold);
    hold = acquire("row3", 3, 0, NULL);
    is_int(flk_hold_abandoned(hold), 1, "declined with others, that one stays marked");
    flk_hold_release(hold);
}

static void next_waits_for_dead(void)
{
    struct locker first = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "order"}}}, second = first;
    locker_start(&first);
    locker_wait(&first);
    locker_start(&second);
    locker_kill(&first);
    locker_wait(&second);
    locker_release(&second);
    struct flk_hold *hold = acquire("order", 1, 0, NULL);
    is_int(flk_hold_abandoned(hold), 0, "one that waited for a holder to die and then released has dealt with it");
    flk_hold_release(hold);
}

/* ---- shared ---- */

static void count_live(const char *text, size_t length, void *data)
{
    *(int *)data += length > 0 && text[0] == FK_LIVE;
}

static int records_of_many(void)
{
    struct fk_row *row;
    int count = 0;
    if (fk_row_open("many", 0, FK_ROW_LOOK, &row) < 0)
        bail_out("%s", flk_error_detail());
    fk_shared_foreach(row, count_live, &count);
    fk_registry_unref(row);
    return count;
}

static void shared_records(void)
{
    struct flk_hold *a = acquire("many", 1, FLK_SHARED, NULL), *b = acquire("many", 1, FLK_SHARED, NULL);
    is_int(records_of_many(), 2, "each shared holder has a record");
    flk_hold_release(a);
    is_int(records_of_many(), 1, "which vanishes with its release");
    flk_hold_decline(b);
    is_int(records_of_many(), 0, "to the last");
    die_holding("many", 1, FLK_SHARED, NULL);
    is_int(records_of_many(), 1, "a killed one leaves its record");
    a = acquire("many", 1, FLK_SHARED, NULL);
    is_int(flk_hold_abandoned(a), 0, "its death is no abandonment for another shared one");
    flk_hold_release(a);
    a = acquire("many", 1, 0, NULL);
    is_int(flk_hold_abandoned(a), 0, "nor for an exclusive one");
    is_int(records_of_many(), 0, "which sweeps the record away");
    flk_hold_release(a);
    die_holding("many", 1, 0, NULL);
    a = acquire("many", 1, FLK_SHARED, NULL);
    is_int(flk_hold_abandoned(a), 0, "a shared holder isn't told of a dead exclusive one");
    flk_hold_release(a);
    a = acquire("many", 1, 0, NULL);
    is_int(flk_hold_abandoned(a), 1, "and leaves it to the next exclusive one");
    flk_hold_release(a);
}

static void many_shared_records(void)
{
    enum { MANY = 10 };
    const char *files = test_path("root/rows/many/holders");
    struct flk_hold *holds[MANY];
    for (int i = 0; i < MANY; i++)
        holds[i] = acquire("many", 1, FLK_SHARED, NULL);
    is_int(records_of_many(), MANY, "as many shared holders as there may be have records");
    ok(test_entries(files) > 0, "in files, where the places are in use");
    for (int i = 0; i < MANY; i++)
        flk_hold_release(holds[i]);
    is_int(records_of_many(), 0, "which all vanish");
    is_int(test_entries(files), 0, "the files too");
}

/* ---- records that can't be written ---- */

static void half_written(void)
{
    struct rlimit before;
    struct flk_hold *hold;
    const struct flk_want both = {.name = "half", .count = 2, .slots = 2};
    if (flk_row_define("half", 2) < 0)
        bail_out("%s", flk_error_detail());
    die_holding("half", 2, 0, NULL);
    flk_hold_release(acquire("half", 2, 0, NULL));
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)fk_latch_record_at(1), before.rlim_max});
    is_int(flk_acquire_many(&both, 1, NULL, 0, &hold), -EFBIG, "a second record that can't be written is an error");
    setrlimit(RLIMIT_FSIZE, &before);
    hold = acquire("half", 2, 0, NULL);
    is_int(flk_hold_abandoned(hold), 0, "and the first one doesn't stay, as if its holder had died");
    flk_hold_release(hold);
}

/* ---- fork ---- */

static int release_copy(void *hold)
{
    int before = test_descriptors();
    flk_hold_release(hold);
    return flk_held("fork") == 0 && test_descriptors() == before && !is_free("fork") ? 0 : 1;
}

static int inherit_copy(void *hold)
{
    return flk_hold_inherit(hold, 1) == -EINVAL ? 0 : 1;
}

static void forked_child(void)
{
    struct flk_hold *hold = acquire("fork", 1, 0, NULL);
    is_int(test_in_child(release_copy, hold), 0, "releasing in a forked child only frees: it is still taken");
    is_int(flk_held("fork"), 2, "by the parent");
    is_int(test_in_child(inherit_copy, hold), 0, "a child can't hand on what its parent holds");
    flk_hold_release(hold);
    ok(is_free("fork"), "the parent releases");
}

/* A command that has what it inherited until it is killed. */
static pid_t start_command(void)
{
    pid_t pid = tap_fork();
    if (pid == 0) {
        execlp("sleep", "sleep", "1000", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void end_command(pid_t pid)
{
    kill(pid, SIGKILL);
    test_reap(pid);
}

/* How many descriptors of slots a command would inherit, and the lowest. */
static int inheritable(int *lowest)
{
    int count = 0;
    *lowest = -1;
    for (int fd = 3; fd < 1000; fd++) {
        char path[32], target[4096] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) < 0 || !strstr(target, "/slots/") ||
            (fcntl(fd, F_GETFD) & FD_CLOEXEC))
            continue;
        *lowest = count++ == 0 ? fd : *lowest;
    }
    return count;
}

static void inherited(void)
{
    define("hand", 2);
    struct flk_hold *hold = acquire("hand", FLK_ALL, 0, NULL);
    int lowest;
    is_int(inheritable(&lowest), 0, "no command inherits a hold by itself");
    is_int(flk_hold_inherit(hold, 1), 0, "a hold is handed on");
    is_int(inheritable(&lowest), 2, "with all its slots");
    ok(lowest >= 200, "at descriptors of 200 and above");
    pid_t pid = start_command();
    flk_hold_release(hold);
    ok(!is_free("hand"), "what a command inherited stays taken after our release");
    struct locker waiter = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "hand"}}};
    is_int(locker_start(&waiter), 'q', "others wait");
    ok(locker_waits(&waiter), "for the command");
    end_command(pid);
    is_int(locker_wait(&waiter), 0, "which ends and lets the next one in");
    locker_release(&waiter);
    is_int(inheritable(&lowest), 0, "nothing stays open here");
}

static int use_inherited(void *data)
{
    int lowest;
    flk_hold_release(data); /* closes the child's copies */
    return inheritable(&lowest) == 0 && !is_free("copies") ? 0 : 1;
}

static void inherited_by_fork(void)
{
    struct flk_hold *hold = acquire("copies", 1, 0, NULL);
    if (flk_hold_inherit(hold, 1) < 0)
        bail_out("%s", flk_error_detail());
    is_int(test_in_child(use_inherited, hold), 0, "a child that releases what it inherited closes its own copies only");
    if (flk_hold_inherit(hold, 0) < 0)
        bail_out("%s", flk_error_detail());
    pid_t pid = start_command();
    flk_hold_release(hold);
    is_int(flk_acquire("copies", 0, 10000, &hold), 0, "no longer handed on, a later command doesn't have it");
    end_command(pid);
    flk_hold_release(hold);

    hold = acquire("copies", 1, 0, NULL);
    if (flk_hold_inherit(hold, 1) < 0)
        bail_out("%s", flk_error_detail());
    pid = start_command();
    if (flk_hold_inherit(hold, 0) < 0)
        bail_out("%s", flk_error_detail());
    flk_hold_release(hold);
    ok(!is_free("copies"), "an earlier one still has it after our release");
    end_command(pid);
    is_int(flk_acquire("copies", 0, 10000, &hold), 0, "until it ends");
    flk_hold_release(hold);
}

static _Atomic bool enough;

static void *hand_on_and_take_back(void *hold)
{
    for (int on = 1; !enough; on = !on)
        if (flk_hold_inherit(hold, on) < 0)
            bail_out("%s", flk_error_detail());
    return NULL;
}

/* Everything that a wrong number could be is open, and nothing of the slot is when the copy has been released. */
static int release_amid(struct flk_hold *hold, const struct stat *slot)
{
    enum { HIGHEST = 256 };
    bool ours[HIGHEST] = {false};
    struct stat status;
    int fd, wrong = 0;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0 && fd < HIGHEST - 1)
        ours[fd] = true;
    flk_hold_release(hold);
    for (fd = 0; fd < HIGHEST; fd++) {
        bool is_open = fstat(fd, &status) == 0;
        wrong |= ours[fd] && !is_open ? 1 : 0;
        wrong |= is_open && status.st_ino == slot->st_ino && status.st_dev == slot->st_dev ? 2 : 0;
    }
    return wrong;
}

static void forked_amid_handing_on(void)
{
    struct flk_hold *hold = acquire("amid", 1, 0, NULL);
    struct stat slot;
    pthread_t thread;
    int forks = test_is_slow() ? 50 : 300, wrong = 0;
    if (stat(test_path("root/rows/amid/slots/0"), &slot) < 0)
        bail_out("no slot");
    test_start(&thread, hand_on_and_take_back, hold);
    for (int i = 0; test_child_may_allocate() && i < forks; i++) {
        pid_t pid = tap_fork();
        if (pid == 0)
            _exit(release_amid(hold, &slot));
        wrong |= test_reap(pid);
    }
    enough = true;
    pthread_join(thread, NULL);
    is_int(wrong, 0, "forked while a hold is handed on or taken back, a child closes what it has of it, and nothing else");
    flk_hold_release(hold);
}

int main(void)
{
    tap_deadline(test_is_slow() ? 60 : 20);
    test_root();
    contents();
    environment();
    abandoned();
    declined();
    abandoned_slot();
    next_waits_for_dead();
    shared_records();
    many_shared_records();
    half_written();
    forked_child();
    inherited();
    inherited_by_fork();
    forked_amid_handing_on();
    return done_testing();
}
