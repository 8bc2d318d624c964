/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One build for 64 processes that ask at the same time, by library and tool, of files and of directories. Then builders and waiters
 * are killed at random moments under load: nobody ever sees half an output, or one whose stamp is
 * another's, nobody hangs, and nothing stays behind.
 *
 * STRESS_SCALE multiplies rounds and kills (10: 100 rounds, 500 kills), STRESS_SEED repeats the random choices, though not the
 * timing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "flockctl.h"
#include "stamp.h"
#include "../unit/helpers.h"
#include "tap.h"

#define STARTERS 64
#define WORKERS 12
#define TOOLS 4 /* of the workers, those that use the tool */
#define LINES 4
#define SIZE (LINES * 9)

static struct common {
    _Atomic int runs, go, wanted, over;
    _Atomic int torn, wrong, failed; /* what must not be */
    _Atomic int builder; /* the pid of one that builds; 0 */
    _Atomic int victims[WORKERS]; /* the pid that is at work for that worker */
    _Atomic int done[WORKERS]; /* the last key that it got */
    char message[300];
} * common;

static unsigned long scale(void)
{
    const char *text = getenv("STRESS_SCALE");
    return text ? strtoul(text, NULL, 10) : 1;
}

static void nap(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* ---- builders ---- */

/* A line a write, so that a kill comes in between. */
static int write_lines(const char *path, int number)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    char line[16];
    bool good = fd >= 0;
    for (int i = 0; good && i < LINES; i++) {
        snprintf(line, sizeof line, "%08d\n", number);
        good = write(fd, line, 9) == 9;
        nap(random() % 300);
    }
    close(fd);
    return good ? 0 : -EIO;
}

static int build(const char *path, void *data)
{
    int number = *(int *)data, code = 0;
    char below[4200];
    atomic_fetch_add(&common->runs, 1);
    atomic_store(&common->builder, getpid());
    if (number % 2) {
        code = write_lines(path, number);
    } else {
        code = mkdir(path, 0755) < 0 ? -errno : 0;
        for (int i = 0; code == 0 && i < 2; i++) {
            snprintf(below, sizeof below, "%s/%d", path, i);
            code = write_lines(below, number);
        }
    }
    atomic_store(&common->builder, 0);
    return code;
}

static int ask(const char *output, int number)
{
    char key[16];
    snprintf(key, sizeof key, "%d", number);
    const struct flk_once_spec spec = {.output = output, .key = key, .build = build, .data = &number};
    int code = flk_once(&spec, FLK_FOREVER);
    if (code != 0)
        snprintf(common->message, sizeof common->message, "%d: %.250s", code, flk_error_detail());
    return code;
}

/* The tool in its own process, told of by *victim. Its exit status, or minus the signal it died of. */
static int ask_by_tool(const char *output, int number, _Atomic int *victim)
{
    static const char script[] =
        "echo >>\"$2\"; if [ $(($1 % 2)) = 1 ]; then set -- \"$1\" \"$FLOCKCTL_OUT\" \"$FLOCKCTL_OUT\"; "
        "else mkdir \"$FLOCKCTL_OUT\"; set -- \"$1\" \"$FLOCKCTL_OUT/0\" \"$FLOCKCTL_OUT/1\"; fi\n"
        "for file in \"$2\" \"$3\"; do for i in 1 2 3 4; do printf '%08d\\n' \"$1\"; done >\"$file\"; done";
    char key[16], runs[4200];
    int status;
    pid_t pid;
    snprintf(key, sizeof key, "%d", number);
    snprintf(runs, sizeof runs, "%s", test_path("runs"));
    const char *const argv[] = {
        getenv("FLOCKCTL"), "-q", "once", "-o", output, "--key", key, "--", "sh", "-c", script, "sh", key, runs, NULL};
    if (posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) != 0)
        return 127;
    if (victim)
        atomic_store(victim, pid);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- readers ---- */

/* The number that a whole one has; 0: another one was being put in its place; -1: torn. */
static int read_file(int at, const char *path)
{
    char text[SIZE + 2];
    int fd = openat(at, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -errno : read(fd, text, sizeof text);
    close(fd);
    if (length == -ENOENT || length == -ENOTDIR || length == -EISDIR || (length < 0 && errno == EISDIR))
        return 0;
    for (int i = 1; i < LINES && length == SIZE; i++)
        if (memcmp(text, text + 9 * i, 9) != 0)
            return -1;
    return length == SIZE ? atoi(text) : -1;
}

static int read_output(const char *output)
{
    int directory = open(output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return errno == ENOENT ? -1 : read_file(AT_FDCWD, output);
    int first = read_file(directory, "0"), second = read_file(directory, "1");
    close(directory);
    return first == 0 || second == 0 ? 0 : first == second ? first : -1;
}

/* At any time it is there, whole. */
static int look(const char *output)
{
    int found = 0;
    for (int tries = 0; found == 0 && tries < 1000; tries++)
        found = read_output(output);
    atomic_fetch_add(&common->torn, found < 0);
    return found;
}

/* While nobody can change it, its stamp, where it describes it, tells which one it is. */
static void look_at_stamp(const char *output)
{
    struct flk_hold *hold;
    struct fk_stamp stamp;
    struct fk_identity identity;
    struct stat status;
    if (flk_once_use(output, FLK_FOREVER, &hold) < 0)
        return;
    int found = look(output);
    if (lstat(output, &status) == 0 && fk_stamp_open(AT_FDCWD, output, &stamp) == 0) {
        fk_identity_take(&status, &identity);
        atomic_fetch_add(&common->wrong, fk_identity_is(&identity, &stamp.output) && atoi(stamp.key) != found);
        fk_stamp_close(&stamp);
    }
    flk_hold_release(hold);
}

/* ---- all at the same time ---- */

static void start_together(const char *output, int number, bool tool)
{
    while (!atomic_load(&common->go))
        nap(200);
    int code = tool ? ask_by_tool(output, number, NULL) : ask(output, number);
    atomic_fetch_add(&common->failed, code != 0);
    atomic_fetch_add(&common->wrong, look(output) != number);
    _exit(0);
}

static int count_runs(void)
{
    struct stat status;
    return stat(test_path("runs"), &status) < 0 ? 0 : (int)status.st_size;
}

/* How many builds there were. */
static int round_of(const char *output, int number, bool tool)
{
    pid_t pids[STARTERS];
    atomic_store(&common->runs, 0);
    atomic_store(&common->go, 0);
    unlink(test_path("runs"));
    for (int i = 0; i < STARTERS; i++) {
        pids[i] = tap_fork();
        if (pids[i] == 0)
            start_together(output, number, tool);
    }
    atomic_store(&common->go, 1);
    for (int i = 0; i < STARTERS; i++)
        test_reap(pids[i]);
    return tool ? count_runs() : atomic_load(&common->runs);
}

static void together(const char *output, int rounds)
{
    int several = 0;
    for (int i = 1; i <= rounds; i++)
        several += round_of(output, i, i % 4 >= 2) != 1;
    is_int(several, 0, "%d rounds of %d processes: one build in each", rounds, STARTERS);
    is_int(atomic_load(&common->failed), 0, "all have it%s%s", common->message[0] ? ": " : "", common->message);
    is_int(atomic_load(&common->torn), 0, "whole");
    is_int(atomic_load(&common->wrong), 0, "and as they asked for it");
}

/* ---- kills ---- */

static void work(int index, const char *output)
{
    srandom((unsigned)getpid());
    while (!atomic_load(&common->over)) {
        int number = atomic_load(&common->wanted), code;
        if (index < TOOLS) {
            code = ask_by_tool(output, number, &common->victims[index]);
            if (code == -SIGKILL)
                continue;
        } else {
            atomic_store(&common->victims[index], getpid());
            code = ask(output, number);
        }
        atomic_fetch_add(&common->failed, code != 0);
        look(output);
        if (number % 4 == 0)
            look_at_stamp(output);
        atomic_store(&common->done[index], number);
    }
    _exit(0);
}

static pid_t workers[WORKERS];

static void start_worker(int index, const char *output)
{
    workers[index] = tap_fork();
    if (workers[index] == 0)
        work(index, output);
}

/* Often the one that builds, else anybody. */
static void kill_one(const char *output)
{
    int index = (int)(random() % WORKERS), builder = atomic_load(&common->builder);
    for (int i = 0; i < WORKERS && builder && random() % 2; i++)
        index = workers[i] == builder ? i : index;
    pid_t victim = atomic_load(&common->victims[index]);
    if (victim <= 0)
        return;
    if (index <
        TOOLS) { /* it may have ended, and its number be used again: only its parent knows. It is stopped meanwhile */
        char path[64], stat[512] = "";
        kill(workers[index], SIGSTOP);
        waitpid(workers[index], NULL, WUNTRACED);
        victim = atomic_load(&common->victims[index]);
        snprintf(path, sizeof path, "/proc/%d/stat", (int)victim);
        int fd = open(path, O_RDONLY | O_CLOEXEC), parent = 0;
        char *end = fd >= 0 && read(fd, stat, sizeof stat - 1) > 0 ? strrchr(stat, ')') : NULL;
        close(fd);
        if (end && sscanf(end, ") %*c %d", &parent) == 1 && parent == workers[index])
            kill(victim, SIGKILL);
        kill(workers[index], SIGCONT);
        return;
    }
    kill(workers[index], SIGKILL);
    test_reap(workers[index]);
    atomic_store(&common->builder, 0);
    start_worker(index, output);
}

static bool has_somebody(int number)
{
    for (int i = 0; i < WORKERS; i++)
        if (atomic_load(&common->done[i]) >= number)
            return true;
    return false;
}

static void kills(const char *output, int first, int count)
{
    atomic_store(&common->wanted, first);
    for (int i = 0; i < WORKERS; i++)
        start_worker(i, output);
    for (int i = 1; i <= count; i++) {
        atomic_store(&common->wanted, first + i);
        nap(random() % 6000);
        kill_one(output);
        if (i % 10 == 0)
            while (!has_somebody(first + i)) /* it goes on; the test's limit ends what hangs */
                nap(1000);
    }
    atomic_store(&common->over, 1);
    for (int i = 0; i < WORKERS; i++)
        test_reap(workers[i]);
    is_int(atomic_load(&common->failed), 0, "%d kills of builders and waiters: nobody else fails%s%s", count,
           common->message[0] ? ": " : "", common->message);
    is_int(atomic_load(&common->torn), 0, "nobody sees half an output");
    is_int(atomic_load(&common->wrong), 0, "or one for a key that isn't its own");
}

int main(void)
{
    const char *seed = getenv("STRESS_SEED");
    if (!getenv("FLOCKCTL"))
        skip_all("FLOCKCTL doesn't say where the tool is");
    test_root();
    common = test_shared(sizeof *common);
    srandom(seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)time(NULL));
    int rounds = 10 * (int)scale(), count = 50 * (int)scale();
    tap_deadline(60 + 40 * (unsigned)scale());
    mkdir(test_path("outputs"), 0755);
    char *output = strdup(test_path("outputs/x"));
    together(output, rounds);
    kills(output, rounds + 1, count);
    is_int(ask(output, rounds + count + 2), 0, "one more build");
    is_int(test_entries(test_path("outputs")), 2, "and nothing is left beside the output and its stamp");
    free(output);
    return done_testing();
}
