/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helpers.h"
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
    char id[FLK_ID_SIZE];
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

int main(void)
{
    tap_deadline(60);
    test_root();
    registers();
    without_a_name();
    bad_input();
    dies();
    forks();
    damage();
    rows_change();
    return done_testing();
}
