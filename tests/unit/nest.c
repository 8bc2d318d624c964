/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nesting in programs: this one executes itself below the tool and below its own holds. */
#include "nest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hold.h"
#include "helpers.h"
#include "tap.h"

static char self[4096];
static const char *tool;

/* ---- what it does below a hold ---- */

/* These numbers come through everything that is executed in between. */
#define SAY 100
#define HEAR 101
#define OTHER 2 /* more: those of a second one */

static int exit_code(int code)
{
    return code == 0 ? 0 : code == -EBUSY ? 75 : code == -EDEADLK ? 35 : code == -ETIMEDOUT ? 76 : 125;
}

/* As Python and others do with what they inherit. */
static void close_slots(void)
{
    if (syscall(SYS_close_range, FK_LOWEST_INHERITED, ~0U, 0) < 0)
        _exit(120);
}

/* pidfd_getfd(2) is refused, as where ptrace(2) of others is. */
static void refuse_descriptors(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_getfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(121);
}

/* A child that waits; what it has to say goes another way. */
static const char *fork_another(const char *what)
{
    if (fork() != 0)
        return what;
    if (dup2(SAY + OTHER, SAY) < 0 || dup2(HEAR + OTHER, HEAR) < 0)
        _exit(119);
    return "cerdwk";
}

static int run_below(const char *what)
{
    struct flk_hold *hold;
    if (strchr(what, 'f'))
        what = fork_another(what);
    int64_t timeout_ms = strchr(what, 'w') ? 20000 : 0; /* waits */
    char byte = 0;
    prctl(PR_SET_PDEATHSIG, 0);
    if (strchr(what, 'c'))
        close_slots();
    if (strchr(what, 'r'))
        refuse_descriptors();
    if (strchr(what, 'e'))
        unsetenv("FLOCKCTL_HELD");
    if (strchr(what, 'd')) { /* hears first */
        if (write(SAY, "d", 1) != 1 || read(HEAR, &byte, 1) != 1)
            return 123;
    }
    int code = flk_acquire("x", 0, timeout_ms, &hold);
    if (code < 0)
        return exit_code(code);
    if (strchr(what, 'k')) { /* keeps it until told */
        char letter = flk_hold_abandoned(hold) ? 'a' : hold->parts[0].nest ? 'n' : 'o';
        if (write(SAY, &letter, 1) != 1 || read(HEAR, &byte, 1) != 1)
            return 122;
    }
    flk_hold_release(hold);
    return 0;
}

/* ---- who starts it ---- */

struct below {
    pid_t pid;
    int hear, say;
    int ends[2]; /* its own */
};

static void open_pipes(struct below *below)
{
    int from[2], to[2];
    if (pipe2(from, O_CLOEXEC) < 0 || pipe2(to, O_CLOEXEC) < 0)
        bail_out("pipe: %s", strerror(errno));
    *below = (struct below){-1, from[0], to[1], {from[1], to[0]}};
}

static void close_ends(struct below *below)
{
    close(below->ends[0]);
    close(below->ends[1]);
}

/* By the tool, which holds the names; NULL: by itself, in the environment envp. another: a second one that it makes, or NULL. */
static void start_two(struct below *below, struct below *another, const char *names, char **envp, const char *what)
{
    open_pipes(below);
    if (another)
        open_pipes(another);
    below->pid = tap_fork();
    if (below->pid == 0) {
        dup2(below->ends[0], SAY);
        dup2(below->ends[1], HEAR);
        if (another) {
            dup2(another->ends[0], SAY + OTHER);
            dup2(another->ends[1], HEAR + OTHER);
        }
        if (names)
            execl(tool, tool, "-q", "acquire", names, "--", self, what, (char *)NULL);
        else
            execle(self, self, what, (char *)NULL, envp);
        _exit(124);
    }
    close_ends(below);
    if (another)
        close_ends(another);
}

static void start(struct below *below, const char *names, char **envp, const char *what)
{
    start_two(below, NULL, names, envp, what);
}

/* What it says: a letter, or '-' when it has ended without a word. */
static char hear(const struct below *below)
{
    char letter = '-';
    return read(below->hear, &letter, 1) == 1 ? letter : '-';
}

static void tell(const struct below *below)
{
    if (write(below->say, "", 1) != 1)
        bail_out("it has gone");
}

static int end(struct below *below)
{
    close(below->say);
    close(below->hear);
    return test_reap(below->pid);
}

static int run(const char *names, char **envp, const char *what)
{
    struct below below;
    start(&below, names, envp, what);
    return end(&below);
}

static bool is_busy(void)
{
    struct flk_hold *hold;
    int code = flk_acquire("x", 0, 0, &hold);
    if (code == 0)
        flk_hold_decline(hold);
    return code == -EBUSY;
}

static bool test_free(void)
{
    struct flk_hold *hold;
    if (flk_acquire("x", 0, 20000, &hold) < 0)
        return false;
    flk_hold_release(hold);
    return true;
}

/* ---- below the tool ---- */

static void below_the_tool(void)
{
    is_int(run("x", NULL, "-"), 0, "a program that uses the library draws from the tool's hold");
    is_int(run("x", NULL, "c"), 0, "one that has closed the slots, too");
    is_int(run("x", NULL, "e"), 0, "one without the variable, too");
    is_int(run("x", NULL, "ce"), 0, "one with neither, too");
    is_int(run("x", NULL, "cer"), 0, "and where it can't get the descriptors, either");
    is_int(test_entries(test_path("root/rows/x/under")), 0, "nothing is left below the holds");
}

static void descriptors_are_fetched(void)
{
    struct below below;
    start(&below, "x", NULL, "ck");
    is_int(hear(&below), 'n', "one that has closed the slots draws");
    kill(below.pid, SIGKILL);
    is_int(test_reap(below.pid), -SIGKILL, "flockctl is killed");
    ok(is_busy(), "the slot stays taken: the one that draws had got the descriptor back");
    tell(&below);
    ok(test_free(), "until it ends");
    close(below.hear);
    close(below.say);
}

/* Nothing but the outer flockctl keeps the slot: who then gets what lay below it must not believe that it has the lock. */
static void ancestor_dies_meanwhile(void)
{
    struct below below;
    struct flk_hold *hold;
    start(&below, "x", NULL, "cerdwk");
    is_int(hear(&below), 'd', "a command whose descriptors are closed");
    kill(below.pid, SIGKILL);
    is_int(test_reap(below.pid), -SIGKILL, "and whose flockctl is killed");
    is_int(flk_acquire("x", 0, 20000, &hold), 0, "has lost the lock");
    tell(&below);
    test_wait_queued("x", 1);
    is_int(test_tickets("x"), 1, "asking for it, it queues as everybody does");
    flk_hold_release(hold);
    is_int(hear(&below), 'o', "and gets it, not drawn from anybody");
    tell(&below);
    close(below.hear);
    close(below.say);
    ok(test_free(), "it is free");
}

static void ancestor_dies_while_one_waits(void)
{
    struct below below, another;
    struct flk_hold *hold;
    char under[FLK_NAME_MAX];
    start_two(&below, &another, "x", NULL, "fcerk");
    is_int(hear(&below), 'n', "a command whose descriptors are closed draws");
    is_int(hear(&another), 'd', "another one below the same hold");
    tell(&another);
    DIR *directory = opendir(test_path("root/rows/x/under"));
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] != '.')
            snprintf(under, sizeof under, "x/under/%.40s", entry->d_name);
    closedir(directory);
    test_wait_queued(under, 1);
    kill(below.pid, SIGKILL);
    is_int(test_reap(below.pid), -SIGKILL, "waits for it, when flockctl is killed");
    is_int(flk_acquire("x", 0, 20000, &hold), 0, "the lock is lost");
    tell(&below);
    test_wait_queued("x", 1);
    is_int(test_tickets("x"), 1,
           "the one that waited gets what lay below, and doesn't take it for the lock: it queues for that");
    flk_hold_release(hold);
    is_int(hear(&another), 'o', "and gets it");
    tell(&another);
    ok(test_free(), "it is free");
    close(below.hear);
    close(below.say);
    close(another.hear);
    close(another.say);
}

/* ---- below a program ---- */

static struct flk_hold *acquire(void)
{
    struct flk_hold *hold;
    if (flk_acquire("x", 0, 20000, &hold) < 0)
        bail_out("%s", flk_error_detail());
    return hold;
}

static char **environment_of(const struct flk_hold *hold)
{
    char **envp;
    if (flk_hold_environ(hold, &envp) < 0)
        bail_out("%s", flk_error_detail());
    return envp;
}

static const char *held_in(char **envp)
{
    for (; *envp; envp++)
        if (strncmp(*envp, "FLOCKCTL_HELD=", 14) == 0)
            return *envp + 14;
    return NULL;
}

static void below_a_program(void)
{
    char expected[128];
    struct flk_hold *hold = acquire();
    char **envp = environment_of(hold);
    is_str(held_in(envp), NULL, "a hold that isn't inherited exports nothing");
    is_int(run(NULL, envp, "-"), 75, "what the program starts doesn't draw from it");
    is_int(run(NULL, envp, "c"), 75, "nor by ancestry");
    free(envp);
    if (flk_hold_inherit(hold, 1) < 0)
        bail_out("%s", flk_error_detail());
    is_int(run(NULL, environ, "-"), 75, "nor when it is inherited and not in the environment");
    envp = environment_of(hold);
    snprintf(expected, sizeof expected, "x@%s@%d", flk_hold_id(hold), hold->parts[0].fds[0]);
    is_str(held_in(envp), expected, "inherited, it exports name, id and descriptor");
    is_int(run(NULL, envp, "-"), 0, "and what the program starts draws from it");
    is_int(run(NULL, envp, "c"), 75, "if it has the descriptor: not by ancestry");

    struct below heir, other;
    start(&heir, NULL, envp, "k");
    is_int(hear(&heir), 'n', "a heir draws from it");
    flk_hold_release(hold);
    ok(is_busy(), "released, it is still taken: the heir has it");
    start(&other, NULL, envp, "-");
    is_int(end(&other), 75, "an heir made later than that has no descriptor, and is like anybody");
    tell(&heir);
    is_int(end(&heir), 0, "the heir ends");
    ok(test_free(), "then it is free");
    is_int(run(NULL, envp, "-"), 0, "and the environment is a stale one");
    free(envp);
    is_int(test_entries(test_path("root/rows/x/under")), 0, "what lay below it was deleted by the next holder");
}

static int run_command(struct flk_hold *hold, unsigned flags, const char *what, bool release)
{
    const char *const argv[] = {self, what, NULL};
    struct flk_run_spec spec = {.argv = argv, .hold = hold, .flags = flags};
    struct flk_run_result result;
    struct flk_run *run;
    if (flk_run_start(&spec, &run) < 0)
        bail_out("%s", flk_error_detail());
    if (release)
        flk_hold_release(hold);
    if (flk_run_wait(run, 30000, &result) < 0)
        bail_out("%s", flk_error_detail());
    flk_run_free(run);
    return result.exit_code;
}

static void below_a_run(void)
{
    struct flk_hold *hold = acquire();
    is_int(run_command(hold, 0, "-", false), 0, "a run's command draws from the hold it was given");
    is_int(run_command(hold, 0, "c", false), 75, "by descriptor only");
    is_int(run_command(hold, FLK_RUN_DETACH, "-", false), 75, "not a detached one");
    is_int(run_command(hold, 0, "-", true), 0, "and also when the hold has been released since");
    ok(test_free(), "it is free");
}

/* ---- a forked child that doesn't execute anything ---- */

static int draw_twice(void *data)
{
    struct flk_hold *outer, *inner;
    (void)data;
    int code = flk_acquire("x", 0, 0, &outer);
    if (code < 0)
        return exit_code(code);
    if (flk_held("x") != 2 || strcmp(flk_hold_name(outer, 0), "x") != 0)
        return 1;
    code = flk_acquire("x", 0, 20000, &inner);
    return code == -EDEADLK ? 0 : 2;
}

static void in_a_forked_child(void)
{
    struct flk_hold *hold = acquire();
    if (flk_hold_inherit(hold, 1) < 0)
        bail_out("%s", flk_error_detail());
    char **envp = environment_of(hold);
    setenv("FLOCKCTL_HELD", held_in(envp), 1);
    free(envp);
    is_int(test_in_child(draw_twice, NULL), 0, "a forked child draws; what it holds itself it can't wait for");
    unsetenv("FLOCKCTL_HELD");
    flk_hold_release(hold);
    ok(test_free(), "it is free");
    is_int(test_entries(test_path("root/rows/x/under")), 0, "with nothing below it");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        _exit(run_below(argv[1])); /* no TAP at its exit */
    tap_deadline(test_is_slow() ? 120 : 60);
    test_root();
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        bail_out("no /proc/self/exe");
    tool = getenv("FLOCKCTL");
    tool = tool && *tool ? tool : "tools/flockctl";
    setenv("FLOCKCTL_TOOL", tool, 1);
    char *path;
    if (flk_root_get(&path) < 0)
        bail_out("%s", flk_error_detail());
    setenv("FLOCKCTL_DIR", path, 1);
    free(path);
    below_the_tool();
    descriptors_are_fetched();
    ancestor_dies_meanwhile();
    ancestor_dies_while_one_waits();
    below_a_program();
    below_a_run();
    in_a_forked_child();
    return done_testing();
}
