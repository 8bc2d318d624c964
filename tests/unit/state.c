/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "helpers.h"
#include "reap.h"
#include "tap.h"

/* ---- what is listed ---- */

struct seen {
    unsigned count, alive, problems;
    char id[FLK_ID_SIZE], name[64], label[64], command[256], path[256], reason[128], problem[1024];
    pid_t owner;
};

static int see(const struct flk_state *state, void *data)
{
    struct seen *seen = data;
    seen->count++;
    seen->alive += state->alive != 0;
    seen->problems += state->problem != NULL;
    seen->owner = state->owner;
    snprintf(seen->id, sizeof seen->id, "%s", state->id);
    snprintf(seen->name, sizeof seen->name, "%s", state->name ? state->name : "");
    snprintf(seen->label, sizeof seen->label, "%s", state->label);
    snprintf(seen->command, sizeof seen->command, "%s", state->command);
    snprintf(seen->path, sizeof seen->path, "%s", state->paths[0] ? state->paths[0] : "");
    snprintf(seen->reason, sizeof seen->reason, "%s", state->reason);
    snprintf(seen->problem, sizeof seen->problem, "%s", state->problem ? state->problem : "");
    return 0;
}

static struct seen list(const char *name)
{
    struct seen seen = {0};
    if (flk_state_list(name, see, &seen) < 0)
        bail_out("%s", flk_error_detail());
    return seen;
}

static char *add(const char *name, const char *command)
{
    static char id[FLK_ID_SIZE];
    const struct flk_state_spec spec = {.name = name, .command = command};
    if (flk_state_add(&spec, id) < 0)
        bail_out("%s", flk_error_detail());
    return id;
}

static void registers(void)
{
    const char *paths[] = {test_path("gone"), NULL};
    const struct flk_state_spec spec = {.name = "r", .label = "a\nb", .command = "true \\ \x01", .paths = paths};
    char id[FLK_ID_SIZE];
    is_int(flk_state_add(&spec, id), 0, "an item is registered");
    struct seen seen = list("r");
    is_int(seen.count, 1, "and listed");
    is_str(seen.id, id, "its id");
    is_str(seen.name, "r", "its name");
    is_str(seen.label, "a\nb", "its label, line ends and all");
    is_str(seen.command, "true \\ \x01", "its command, control characters and all");
    is_str(seen.path, paths[0], "its path");
    is_int(seen.owner, getpid(), "its owner");
    ok(seen.alive, "who is alive");
    is_str(seen.reason, "it holds its lock", "and why");
    is_int(list("other").count, 0, "another name has none");
    is_int(list(NULL).count, 1, "all together it is the one");
    is_int(flk_state_drop(id), 0, "it is dropped");
    is_int(list(NULL).count, 0, "and gone");
    is_int(flk_state_drop(id), -ENOENT, "it can't be dropped twice");
    is_int(test_entries(test_path("root/rows/r/state")), -1, "its directory went with it");
}

static void without_a_name(void)
{
    int descriptors = test_descriptors();
    char *id = add(NULL, "true");
    is_int(list(NULL).count, 1, "an item without a name is listed");
    is_int(flk_state_drop(id), 0, "and dropped");
    is_int(test_descriptors(), descriptors, "no descriptor is left");
}

static void is_refused(const char *what, int code, const struct flk_state_spec *spec)
{
    char id[FLK_ID_SIZE] = "-";
    is_int(flk_state_add(spec, id), code, "refused: %s (%s)", what, flk_error_detail());
    is_str(id, "-", "  and no id is given");
}

static void bad_input(void)
{
    const char *root[] = {"/", NULL}, *empty[] = {"", NULL}, *nowhere[] = {"/nowhere/at/all", NULL};
    is_refused("nothing to undo", -EINVAL, &(struct flk_state_spec){.name = "r"});
    is_refused("an empty command", -EINVAL, &(struct flk_state_spec){.command = ""});
    is_refused("no limit", -EINVAL, &(struct flk_state_spec){.command = "true", .command_limit_ms = -1});
    is_refused("a flag", -EINVAL, &(struct flk_state_spec){.command = "true", .flags = 1});
    is_refused("a bad name", -EINVAL, &(struct flk_state_spec){.name = "a/b", .command = "true"});
    is_refused("the root", -EPERM, &(struct flk_state_spec){.paths = root});
    is_refused("an empty path", -EINVAL, &(struct flk_state_spec){.paths = empty});
    is_refused("a path in no directory", -ENOENT, &(struct flk_state_spec){.paths = nowhere});
    is_refused("no such owner", -ESRCH, &(struct flk_state_spec){.command = "true", .owner = 0x7fffffff});
    is_int(list(NULL).count, 0, "nothing is registered by these");
    is_int(flk_state_drop("../x"), -EINVAL, "an id isn't a path");
}

/* ---- the owner's end ---- */

static void dies(void)
{
    int pipes[2];
    char id[FLK_ID_SIZE] = "";
    if (pipe(pipes) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        const struct flk_state_spec spec = {.name = "r", .command = "true"};
        if (flk_state_add(&spec, id) < 0 || write(pipes[1], id, sizeof id) != sizeof id)
            _exit(1);
        pause();
    }
    if (read(pipes[0], id, sizeof id) != sizeof id)
        bail_out("the child has failed");
    struct seen seen = list("r");
    ok(seen.alive && seen.owner == pid, "another process's item is alive: %s", seen.reason);
    kill(pid, SIGKILL);
    test_reap(pid);
    seen = list("r");
    ok(seen.count == 1 && !seen.alive, "when it has been killed, it is dead: %s", seen.reason);
    is_int(flk_state_drop(id), 0, "anybody can drop it");
    close(pipes[0]);
    close(pipes[1]);
}

static int look_from_child(void *data)
{
    struct seen seen = list("r");
    (void)data;
    return seen.count == 1 && seen.alive && fk_state_own_fd(seen.id) < 0 ? 0 : 1;
}

static void forks(void)
{
    char *id = add("r", "true");
    is_int(test_in_child(look_from_child, NULL), 0, "a forked child doesn't own it, and sees that its parent lives");
    is_int(flk_root_set(NULL), -EBUSY, "the lock directory can't be changed meanwhile");
    is_int(flk_state_drop(id), 0, "the parent drops it");
}

/* ---- damage ---- */

static void damaged(const char *what, off_t length, const char *text, const char *says)
{
    char *id = add("r", "true");
    const char *path = test_path("root/rows/r/state/%s", id);
    if (text)
        test_write_file(path, text);
    else if (truncate(path, length) < 0)
        bail_out("truncate: %s", strerror(errno));
    struct seen seen = list("r");
    ok(seen.count == 1 && seen.problems == 1 && seen.alive == 1, "%s: reported", what);
    ok(strstr(seen.problem, says) != NULL, "  %s", seen.problem);
    is_int(flk_state_drop(id), 0, "  it can be dropped");
}

static void damage(void)
{
    damaged("cut short to nothing", 0, NULL, "damaged");
    damaged("cut short in its head", 40, NULL, "damaged");
    damaged("cut short later", 600, NULL, "damaged");
    damaged("of a newer release", 0, "state=2\nwhat it says\n", "newer release");
    damaged("garbage", 0, "rm -rf /\n", "damaged");
}

/* ---- rows that change ---- */

static void rows_change(void)
{
    char *id = add("r", "true");
    is_int(flk_row_resize("r", 3, -1), 0, "the row is resized");
    is_int(list("r").count, 1, "and has its item still");
    is_int(flk_row_remove("r", -1), 0, "the row is removed");
    struct seen seen = list(NULL);
    ok(seen.count == 1 && seen.alive, "its item is kept, and its owner's lock is");
    is_str(seen.name, "r", "with the name that it had");
    is_int(flk_state_drop(id), 0, "its owner finds it");
}

/* ---- cleaning up ---- */

/* An item of an owner that is dead. */
static char *leave(const char *name, const char *command, const char *path)
{
    static char id[FLK_ID_SIZE];
    const char *paths[] = {path, NULL};
    pid_t pid = tap_fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    const struct flk_state_spec spec = {.name = name, .command = command, .paths = path ? paths : NULL, .owner = pid};
    if (flk_state_add(&spec, id) < 0)
        bail_out("%s", flk_error_detail());
    kill(pid, SIGKILL);
    test_reap(pid);
    return id;
}

static void reaps(void)
{
    const char *path = test_path("left");
    if (mkdir(path, 0700) < 0)
        bail_out("mkdir: %s", strerror(errno));
    leave("r", NULL, path);
    char *id = add("r", "true");
    is_int(flk_reap("r", 1), 1, "one item would be cleaned up");
    is_int(access(path, F_OK), 0, "and nothing is done yet");
    is_int(flk_reap("other", 0), 0, "another name has none");
    is_int(flk_reap("r", 0), 1, "one is cleaned up");
    is_int(access(path, F_OK), -1, "its path is gone");
    is_int(list("r").count, 1, "ours is left");
    is_int(flk_state_drop(id), 0, "and is ours to drop");
    is_int(flk_reap("a/b", 0), -EINVAL, "a bad name is refused");
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void wait_for(const char *path)
{
    for (int i = 0; i < 60000 && !exists(path); i++)
        usleep(1000);
    if (!exists(path))
        bail_out("%s doesn't appear", path);
}

/* A request goes on while a cleanup runs, and can be given up. */
static void request_cleans(void)
{
    char command[1024];
    struct flk_request *request;
    struct flk_hold *hold = NULL;
    snprintf(command, sizeof command, ": >%s; [ $FLOCKCTL_STATE_ATTEMPT -gt 1 ] || sleep 1000; : >%s", test_path("begun"),
             test_path("done"));
    leave("r", command, NULL);
    const struct flk_want want = {.name = "r"};
    is_int(flk_request_start(&want, 1, NULL, 0, &request), 0, "a request that won't wait");
    int code = flk_request_step(request, &hold);
    is_int(code, -EAGAIN, "isn't done before the cleanup is, though it has the lock");
    wait_for(test_path("begun"));
    is_int(flk_request_step(request, &hold), -EAGAIN, "the command runs");
    is_int(flk_acquire("r", 0, 0, &hold), -EBUSY, "others don't have the lock meanwhile");
    flk_request_cancel(request);
    ok(!exists(test_path("done")), "given up, the command is ended");
    is_int(list("r").count, 1, "and the item is left");
    is_int(flk_acquire("r", 0, 0, &hold), 0, "the lock is free: the next one gets it");
    ok(exists(test_path("done")), "after a second attempt");
    is_int(list("r").count, 0, "and nothing is left");
    flk_hold_release(hold);
}

static void request_polls(void)
{
    struct flk_request *request;
    struct flk_hold *hold = NULL;
    int code, rounds = 0;
    is_int(flk_root_set(NULL), 0, "nothing is held");
    int descriptors = test_descriptors();
    leave("r", "sleep 0.05", NULL);
    if (flk_request_start(&(struct flk_want){.name = "r"}, 1, NULL, FLK_FOREVER, &request) < 0)
        bail_out("%s", flk_error_detail());
    int fd = flk_request_fd(request);
    while ((code = flk_request_step(request, &hold)) == -EAGAIN && rounds++ < 1000)
        if (!test_readable(fd, 60000))
            bail_out("nothing to read");
    is_int(code, 0, "a request's descriptor tells when the cleanup is over");
    ok(rounds < 100, "without many steps in vain: %d", rounds);
    flk_request_cancel(request);
    flk_hold_release(hold);
    is_int(flk_root_set(NULL), 0, "nothing is held any more");
    is_int(test_descriptors(), descriptors, "no descriptor is left");
}

/* ---- locks ---- */

static int ready[2];

/* A child that registers an item of its own and then does something; comes back when that has closed our pipe. */
static pid_t start_owner(void (*then)(void))
{
    char id[FLK_ID_SIZE];
    if (pipe2(ready, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        const struct flk_state_spec spec = {.name = "r", .command = "true"};
        if (flk_state_add(&spec, id) == 0)
            then();
        _exit(1);
    }
    close(ready[1]);
    if (read(ready[0], id, 1) < 0)
        bail_out("read: %s", strerror(errno));
    close(ready[0]);
    return pid;
}

static void execute(void)
{
    execl("/bin/sleep", "sleep", "1000", NULL);
}

static void executes(void)
{
    pid_t pid = start_owner(execute);
    struct seen seen = list("r");
    ok(seen.count == 1 && seen.alive, "one that executes another program is alive: %s", seen.reason);
    is_int(flk_reap("r", 0), 0, "and is left alone");
    kill(pid, SIGKILL);
    test_reap(pid);
    is_int(flk_reap("r", 0), 1, "until it has ended");
}

static _Atomic pid_t *copy;

/* A raw clone has a copy of the lock's descriptor. */
static void copy_lock(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0ul);
    if (pid == 0) {
        close(ready[1]);
        pause();
        _exit(0);
    }
    *copy = pid;
}

static void copies(void)
{
    copy = test_shared(sizeof *copy);
    pid_t pid = start_owner(copy_lock);
    test_reap(pid);
    if (*copy <= 0)
        bail_out("no copy");
    struct seen seen = list("r");
    ok(seen.count == 1 && seen.alive, "while somebody has its lock it is alive: %s", seen.reason);
    is_int(flk_reap("r", 0), 0, "and is left alone");
    kill(*copy, SIGKILL);
    for (int i = 0; i < 60000 && list("r").alive; i++)
        usleep(1000);
    is_int(flk_reap("r", 0), 1, "until nobody has");
}

/* ---- those who look on ---- */

#define ONLOOKERS 4

static struct looks {
    _Atomic unsigned done, wrong, ended;
    char example[256];
} *looks;

static void note_wrong(const struct flk_state *state)
{
    if (atomic_fetch_add(&looks->wrong, 1) == 0)
        snprintf(looks->example, sizeof looks->example, "alive %d, cleaning %d: %s", state->alive, state->cleaning, state->reason);
}

static int must_be_dead(const struct flk_state *state, void *data)
{
    (void)data;
    atomic_fetch_add(&looks->done, 1);
    if (state->alive || state->cleaning)
        note_wrong(state);
    return 0;
}

static int must_be_alive(const struct flk_state *state, void *data)
{
    (void)data;
    atomic_fetch_add(&looks->done, 1);
    if (!state->alive || state->cleaning)
        note_wrong(state);
    return 0;
}

static void leave_at_once(void)
{
    _exit(0);
}

/* Some list it, others ask what would be cleaned up. */
static void look_often(bool asks)
{
    for (int i = 0; i < 300; i++) {
        if (flk_state_list("r", must_be_dead, NULL) < 0 || (asks && flk_reap("r", 1) != 1))
            note_wrong(&(struct flk_state){.reason = "it isn't found"});
    }
    _exit(0);
}

static void onlookers(void)
{
    pid_t pids[ONLOOKERS];
    *looks = (struct looks){0};
    test_reap(start_owner(leave_at_once));
    for (int i = 0; i < ONLOOKERS; i++)
        if ((pids[i] = tap_fork()) == 0)
            look_often(i % 2);
    for (int i = 0; i < ONLOOKERS; i++)
        test_reap(pids[i]);
    is_int(looks->done, 300 * ONLOOKERS, "%d processes look at an item that is left, again and again", ONLOOKERS);
    is_int(looks->wrong, 0, "none takes another for its owner, or for one that cleans up: %s", looks->example);
    is_int(flk_reap("r", 0), 1, "nor is it locked afterwards");
}

static void own_and_drop(void)
{
    for (int i = 0; i < 150; i++) {
        pid_t pid = tap_fork();
        if (pid == 0) {
            bool dropped = flk_state_drop(add("r", "true")) == 0;
            _exit(!dropped);
        }
        if (test_reap(pid) != 0)
            note_wrong(&(struct flk_state){.reason = "not dropped"});
    }
    atomic_fetch_add(&looks->ended, 1);
    _exit(0);
}

/* An owner may end between the opening of its item and the look at it. */
static void dropped(void)
{
    pid_t pids[ONLOOKERS];
    *looks = (struct looks){0};
    for (int i = 0; i < ONLOOKERS; i++) {
        if ((pids[i] = tap_fork()) != 0)
            continue;
        if (i % 2)
            own_and_drop();
        while (looks->ended < ONLOOKERS / 2)
            if (flk_state_list("r", must_be_alive, NULL) < 0)
                note_wrong(&(struct flk_state){.reason = flk_error_detail()});
        _exit(0);
    }
    for (int i = 0; i < ONLOOKERS; i++)
        test_reap(pids[i]);
    is_int(looks->wrong, 0, "what its owner drops before it ends is never listed as left, in %u looks: %s", looks->done, looks->example);
    is_int(list("r").count, 0, "and nothing is");
}

/* ---- whose turn is it ---- */

static int is_due(void *data)
{
    (void)data;
    return fk_reap_is_due();
}

/* Asked by a process that hasn't asked before; the file's time is that much away from now. */
static int due_after(int seconds)
{
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec += seconds;
    times[1] = times[0];
    if (utimensat(AT_FDCWD, test_path("root/reaped"), times, 0) < 0)
        bail_out("utimensat: %s", strerror(errno));
    return test_in_child(is_due, NULL);
}

static void turns(void)
{
    unlink(test_path("root/reaped"));
    is_int(test_in_child(is_due, NULL), 1, "one of those that wait sees to all names");
    is_int(test_in_child(is_due, NULL), 0, "another one doesn't");
    is_int(due_after(-30), 0, "nor after half a minute");
    is_int(due_after(-61), 1, "but after a minute");
    is_int(test_in_child(is_due, NULL), 0, "once");
    is_int(due_after(3600), 1, "a time of the future, before the clock was set back, doesn't count");
    setenv("FLOCKCTL_STATE_ID", "f0", 1);
    is_int(due_after(-61), 0, "a cleanup never begins others");
    unsetenv("FLOCKCTL_STATE_ID");
}

static int own_elsewhere(void *data)
{
    int *pipes = data;
    char byte;
    (void)data;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, NULL, NULL, NULL, 0ul);
    if (pid < 0)
        return 77;
    if (pid == 0) {
        const struct flk_state_spec spec = {.name = "r", .command = "true"};
        char id[FLK_ID_SIZE];
        if (flk_state_add(&spec, id) < 0 || write(pipes[1], "", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    if (read(pipes[0], &byte, 1) != 1)
        return 1;
    struct seen seen = list("r");
    if (seen.count != 1 || !seen.alive || flk_reap("r", 0) != 0)
        return 2;
    kill(pid, SIGKILL);
    test_reap(pid);
    seen = list("r");
    return seen.count != 1 || seen.alive || flk_reap("r", 0) != 1 ? 3 : 0;
}

static void another_namespace(void)
{
    int pipes[2];
    if (pipe(pipes) < 0)
        bail_out("pipe: %s", strerror(errno));
    int status = test_in_child(own_elsewhere, pipes);
    if (status == 77)
        skip("no new pid namespace can be made here");
    else
        is_int(status, 0, "an owner in another pid namespace is alive while it has its lock, and dead when it hasn't");
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    tap_deadline(120);
    test_root();
    setenv("FLOCKCTL_TOOL", getenv("FLOCKCTL") ? getenv("FLOCKCTL") : "tools/flockctl", 1);
    registers();
    without_a_name();
    bad_input();
    dies();
    forks();
    damage();
    rows_change();
    reaps();
    request_cleans();
    request_polls();
    executes();
    copies();
    looks = test_shared(sizeof *looks);
    onlookers();
    dropped();
    turns();
    another_namespace();
    return done_testing();
}
