/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

/* Everything here happens in children: the test program itself must not become a subreaper with a plan to print. Each
 * returns 0, or the line that went wrong. */
#define MUST(condition)                                                  \
    do                                                                   \
        if (!(condition)) {                                              \
            diag("line %d: %s (errno %d)", __LINE__, #condition, errno); \
            return 1;                                                    \
        }                                                                \
    while (0)

static int ready[2];

static void say_ready(void)
{
    if (write(ready[1], "", 1) != 1)
        _exit(1);
}

static bool hear_ready(unsigned count)
{
    char byte;
    for (; count; count--)
        if (!test_readable(ready[0], 20000) || read(ready[0], &byte, 1) != 1)
            return false;
    return true;
}

static void stay(void)
{
    say_ready();
    for (;;)
        pause();
}

static int count_one(pid_t pid, void *data)
{
    (void)pid;
    ++*(unsigned *)data;
    return 0;
}

static int count_tree(void)
{
    unsigned count = 0;
    int code = fk_tree_walk(count_one, &count);
    return code == (int)count ? code : -1;
}

/* Until nobody is left: what a supervisor does. */
static bool end_all(void)
{
    struct fk_tree_signalled signalled;
    for (int tries = 0; tries < 2000; tries++) {
        if (fk_tree_signal(SIGKILL, NULL, 0, &signalled) < 0)
            return false;
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid < 0)
            return errno == ECHILD;
        usleep(1000);
    }
    return false;
}

/* ---- shapes of trees ---- */

static void fork_child(void (*child)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        child();
        _exit(0);
    }
    if (pid < 0)
        _exit(1);
}

static void session(void)
{
    setsid();
    stay();
}

static void daemonize(void)
{
    setsid();
    fork_child(stay); /* whose parent ends */
}

static void *fork_in_thread(void *data)
{
    (void)data;
    fork_child(stay);
    pause();
    return NULL;
}

static void with_threads(void)
{
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, fork_in_thread, NULL) != 0)
            _exit(1);
    stay();
}

/* Its main thread ends, the other one lives: /proc says Z, and the process hasn't ended. */
static void *stay_in_thread(void *data)
{
    (void)data;
    fork_child(stay);
    usleep(1000);
    stay();
    return NULL;
}

static void without_main_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, stay_in_thread, NULL) != 0)
        _exit(1);
    syscall(SYS_exit, 0);
}

static void chain(void)
{
    for (int depth = 0; depth < 30; depth++) {
        pid_t pid = fork();
        if (pid > 0)
            stay();
    }
    stay();
}

static void broad(void)
{
    for (int i = 0; i < 150; i++)
        fork_child(i % 3 == 0 ? session : i % 3 == 1 ? daemonize : stay);
    stay();
}

struct shape {
    void (*grow)(void);
    unsigned size;
    bool without_files;
};

static int find_and_end(void *data)
{
    const struct shape *shape = data;
    MUST(pipe(ready) == 0);
    fk_tree_without_children_files = shape->without_files;
    MUST(fk_tree_adopt() == 0);
    fork_child(shape->grow);
    MUST(hear_ready(shape->size));
    /* Those that were only there to make others may take a moment to end. */
    for (int tries = 0; count_tree() != (int)shape->size; tries++) {
        MUST(tries < 5000);
        usleep(1000);
    }
    MUST(end_all());
    MUST(count_tree() == 0);
    return 0;
}

/* ---- signals ---- */

static volatile sig_atomic_t caught;

static void catch (int number)
{
    caught = number;
}

static void answer(void)
{
    signal(SIGUSR1, catch);
    say_ready();
    while (caught != SIGUSR1)
        usleep(1000);
    stay();
}

static int signal_all_but(void *data)
{
    struct fk_tree_signalled signalled;
    (void)data;
    MUST(pipe(ready) == 0);
    MUST(fk_tree_adopt() == 0);
    pid_t spared = fork();
    if (spared == 0)
        stay();
    for (int i = 0; i < 3; i++)
        fork_child(answer);
    pid_t zombie = fork();
    if (zombie == 0)
        _exit(0);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT) == 0);
    MUST(hear_ready(4));
    MUST(fk_tree_signal(SIGUSR1, &spared, 1, &signalled) == 0);
    MUST(signalled.reached == 3 && signalled.refused == 0); /* neither the spared one nor the zombie */
    MUST(hear_ready(3));
    MUST(kill(spared, 0) == 0);
    MUST(fk_tree_signal_one(zombie, SIGKILL) == -ESRCH);
    MUST(fk_tree_signal_one(getppid(), 0) == -ESRCH); /* lives, but is no descendant */
    MUST(fk_tree_signal_one(spared, SIGKILL) == 0);
    MUST(end_all());
    return 0;
}

static int signal_stopped(void *data)
{
    int status;
    (void)data;
    MUST(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0)
        stay();
    MUST(hear_ready(1));
    kill(pid, SIGSTOP);
    MUST(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    MUST(fk_tree_signal_one(pid, SIGTERM) == 0);
    MUST(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    return 0;
}

static void other_user(void)
{
    if (setresgid(TEST_OTHER_USER, TEST_OTHER_USER, TEST_OTHER_USER) < 0 ||
        setresuid(TEST_OTHER_USER, TEST_OTHER_USER, TEST_OTHER_USER) < 0)
        _exit(1);
    stay();
}

/* Ours is one user, the tree's another one's. */
static int signal_refused(void *data)
{
    struct fk_tree_signalled signalled;
    pid_t foreign = 0;
    (void)data;
    MUST(pipe(ready) == 0);
    foreign = fork();
    if (foreign == 0)
        other_user();
    MUST(foreign > 0 && hear_ready(1));
    MUST(setresuid(TEST_OTHER_USER + 1, TEST_OTHER_USER + 1, 0) == 0);
    MUST(fk_tree_signal(SIGTERM, NULL, 0, &signalled) == 0);
    MUST(signalled.reached == 0 && signalled.refused == 1);
    MUST(fk_tree_signal_one(foreign, SIGKILL) == -EPERM);
    MUST(setresuid(0, 0, 0) == 0);
    MUST(end_all());
    return 0;
}

/* ---- children that were there before ---- */

static int spare(void *data)
{
    (void)data;
    MUST(pipe(ready) == 0);
    MUST(fk_tree_adopt() == 0);
    pid_t before = fork();
    if (before == 0)
        chain();
    MUST(hear_ready(31));
    MUST(count_tree() == 31);
    MUST(fk_tree_spare_children() == 1);
    MUST(count_tree() == 0);
    pid_t ours = fork();
    if (ours == 0)
        stay();
    MUST(hear_ready(1));
    MUST(count_tree() == 1);
    MUST(fk_tree_signal_one(before, SIGKILL) == -ESRCH);
    kill(before, SIGKILL);
    MUST(waitpid(before, NULL, 0) == before);
    MUST(fk_tree_reaped(before));
    MUST(!fk_tree_reaped(before));
    MUST(count_tree() == 31); /* what it leaves behind falls to us */
    MUST(end_all());
    return 0;
}

/* ---- names ---- */

static int command_of(void *data)
{
    char text[64];
    (void)data;
    MUST(pipe(ready) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NAME, "a (b) c");
        stay();
    }
    MUST(hear_ready(1));
    fk_tree_command_of(pid, text, sizeof text);
    MUST(strstr(text, "unit/tree"));
    kill(pid, SIGKILL);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    fk_tree_command_of(pid, text, sizeof text);
    MUST(strcmp(text, "[a (b) c]") == 0);
    MUST(waitpid(pid, NULL, 0) == pid);
    fk_tree_command_of(pid, text, sizeof text);
    MUST(strcmp(text, "[?]") == 0);
    char small[4];
    fk_tree_command_of(getpid(), small, sizeof small);
    MUST(strlen(small) == 3);
    return 0;
}

int main(void)
{
    static struct shape shapes[] = {{stay, 1, false},
                                    {session, 1, false},
                                    {daemonize, 1, false},
                                    {with_threads, 3, false},
                                    {without_main_thread, 2, false},
                                    {chain, 31, false},
                                    {broad, 151, false}};
    static const char *const names[] = {"a child",
                                        "one that called setsid",
                                        "one that forked twice",
                                        "children of several threads",
                                        "a process whose main thread has ended",
                                        "a chain of 31",
                                        "a broad tree of 151"};
    tap_deadline(100);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        ok(test_in_child(find_and_end, &shapes[i]) == 0, "%s: found and ended", names[i]);
        shapes[i].without_files = true;
        ok(test_in_child(find_and_end, &shapes[i]) == 0, "%s: without CONFIG_PROC_CHILDREN too", names[i]);
    }
    ok(test_in_child(signal_all_but, NULL) == 0, "a signal reaches each once, but zombies, strangers and the excepted");
    ok(test_in_child(signal_stopped, NULL) == 0, "one that is stopped goes on, to act on the signal");
    if (test_is_root())
        ok(test_in_child(signal_refused, NULL) == 0, "another user's are refused, and counted");
    else
        skip("needs root");
    ok(test_in_child(spare, NULL) == 0, "children from before, and theirs, are no part of the tree");
    ok(test_in_child(command_of, NULL) == 0, "a process has a command line, or a name");
    return done_testing();
}
