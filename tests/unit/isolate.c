/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The test program stands for the supervisor: it clones, and what is run in the new namespaces are functions of its own. */
#include "isolate.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

#define ALL (FLK_NS_PID | FLK_NS_NET | FLK_NS_IPC | FLK_NS_UTS | FLK_NS_MOUNT | FLK_NS_USER | FLK_NS_CGROUP)
#define REFUSED 90 /* exit statuses of a child */

static const struct kind {
    const char *name, *link, *limit;
    unsigned bit;
} kinds[] = {
    {"pid", "pid", "max_pid_namespaces", FLK_NS_PID},
    {"net", "net", "max_net_namespaces", FLK_NS_NET},
    {"ipc", "ipc", "max_ipc_namespaces", FLK_NS_IPC},
    {"uts", "uts", "max_uts_namespaces", FLK_NS_UTS},
    {"mount", "mnt", "max_mnt_namespaces", FLK_NS_MOUNT},
    {"user", "user", "max_user_namespaces", FLK_NS_USER},
    {"cgroup", "cgroup", "max_cgroup_namespaces", FLK_NS_CGROUP},
};
#define KINDS (sizeof kinds / sizeof *kinds)

/* Shared with all children. */
static struct shared {
    char links[KINDS][64], sentence[1024], text[512];
    int numbers[8];
    struct fk_isolate_failure failure;
    _Atomic int step;
} * shared;

struct started {
    pid_t pid; /* -1: refused, and shared->failure says what */
    int failure_pipe;
    struct fk_isolate_ids ids;
};

typedef int run_function(void *data);

__attribute__((noreturn)) static void become(unsigned isolate, const struct fk_isolate_ids *ids, int failure_pipe,
                                             run_function *run, void *data)
{
    struct fk_isolate_failure failure;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0); /* what it sends to its group isn't for the test */
    if (fk_isolate_enter(isolate, ids, &failure) == 0)
        _exit(run(data));
    if (write(failure_pipe, &failure, sizeof failure) != sizeof failure)
        _exit(REFUSED + 1);
    _exit(REFUSED);
}

static struct started start_as_is(unsigned isolate, run_function *run, void *data)
{
    int ends[2];
    struct started started;
    if (pipe2(ends, O_CLOEXEC) < 0)
        _exit(REFUSED + 2);
    fk_isolate_prepare(&started.ids);
    struct clone_args arguments = {.exit_signal = SIGCHLD, .flags = fk_isolate_clone_flags(isolate)};
    started.pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (started.pid == 0)
        become(isolate, &started.ids, ends[1], run, data);
    close(ends[1]);
    started.failure_pipe = ends[0];
    shared->failure = (struct fk_isolate_failure){.code = started.pid < 0 ? errno : 0};
    return started;
}

/* Waits for the end of the failure pipe only where the command executes something, since the command has it, too. */
static struct started start(unsigned isolate, run_function *run, void *data)
{
    fflush(stdout);
    return start_as_is(isolate, run, data);
}

/* The command's exit status, or minus its signal; REFUSED, and shared->failure. */
static int end(struct started *started)
{
    int status = REFUSED << 8;
    if (started->pid > 0 && waitpid(started->pid, &status, 0) != started->pid)
        return REFUSED + 3;
    status = fk_isolate_status(&started->ids, status);
    if (started->pid > 0)
        (void)!read(started->failure_pipe, &shared->failure, sizeof shared->failure);
    close(started->failure_pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int run_in(unsigned isolate, run_function *run, void *data)
{
    struct started started = start(isolate, run, data);
    return end(&started);
}

static void read_link(const char *name, char text[64])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    ssize_t length = readlink(path, text, 63);
    text[length < 0 ? 0 : length] = '\0';
}

static int note_links(void *data)
{
    (void)data;
    for (size_t i = 0; i < KINDS; i++)
        read_link(kinds[i].link, shared->links[i]);
    return 0;
}

/* The bits of those kinds that the command had another namespace of than we have. */
static unsigned changed(void)
{
    unsigned bits = 0;
    for (size_t i = 0; i < KINDS; i++) {
        char own[64];
        read_link(kinds[i].link, own);
        bits |= strcmp(own, shared->links[i]) == 0 ? 0 : kinds[i].bit;
    }
    return bits;
}

struct call {
    run_function *run;
    void *data;
};

/* A change of the uid makes /proc/self root's, until the next exec. */
static int call_as_if_executed(void *data)
{
    const struct call *call = data;
    prctl(PR_SET_DUMPABLE, 1);
    return call->run(call->data);
}

static int as_user(run_function *run, void *data)
{
    return test_as_other_user(NULL, call_as_if_executed, &(struct call){.run = run, .data = data});
}

/* ---- lists ---- */

static void lists(void)
{
    unsigned set = 5;
    ok(fk_isolate_parse("pid,net,ipc,uts,mount,user,cgroup", &set) == 0 && set == ALL, "a list of all kinds");
    ok(fk_isolate_parse("mount", &set) == 0 && set == FLK_NS_MOUNT, "a list of one");
    const char *const bad[] = {"", ",", "pid,", ",pid", "pi", "pids", "pid,,net", "time", "pid net", "PID"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(fk_isolate_parse(bad[i], &set) == -EINVAL && set == FLK_NS_MOUNT, "\"%s\" is refused", bad[i]);
    ok(strstr(flk_error_detail(), "PID") && strstr(flk_error_detail(), "cgroup"), "%s", flk_error_detail());
}

/* ---- each kind ---- */

static void each_kind_as_root(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        is_int(run_in(kinds[i].bit, note_links, NULL), 0, "%s, as root", kinds[i].name);
        is_int(changed(), kinds[i].bit, "a new namespace of that kind and no other");
    }
    is_int(run_in(ALL, note_links, NULL), 0, "all of them, as root");
    is_int(changed(), ALL, "all are new");
}

static int one_with_user(void *kind)
{
    unsigned set = ((const struct kind *)kind)->bit | FLK_NS_USER;
    int code = run_in(set, note_links, NULL);
    return code ? code : changed() == set ? 0 : 1;
}

static int all_as_user(void *data)
{
    int code = run_in(ALL, note_links, data);
    return code ? code : changed() == ALL ? 0 : 1;
}

static void each_kind_as_user(void)
{
    for (size_t i = 0; i < KINDS; i++)
        is_int(as_user(one_with_user, (void *)&kinds[i]), 0, "%s with user, as an ordinary user", kinds[i].name);
    is_int(as_user(all_as_user, NULL), 0, "all of them, as an ordinary user");
}

static int count_processes(void)
{
    int count = 0;
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        count += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (directory)
        closedir(directory);
    return count;
}

static int look_at_pids(void *data)
{
    (void)data;
    shared->numbers[0] = getpid();
    shared->numbers[1] = getppid();
    shared->numbers[2] = count_processes();
    return 7;
}

static int have_look_at_pids(void *data)
{
    return run_in(*(unsigned *)data, look_at_pids, NULL);
}

static void pids(unsigned set, bool user)
{
    const char *who = user ? "an ordinary user" : "root";
    is_int(user ? as_user(have_look_at_pids, &set) : run_in(set, look_at_pids, NULL), 7,
           "the command's exit status arrives, as %s", who);
    is_int(shared->numbers[1], 1, "its parent is pid 1");
    is_int(shared->numbers[2], 2, "and its /proc shows the two of them");
    ok(shared->numbers[0] == 2 || (set & FLK_NS_USER && !user && shared->numbers[0] == 3),
       "the command's pid is the next one");
}

static int look_at_mounts(void *directory)
{
    char line[4096];
    int lines = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    for (; file && fgets(line, sizeof line, file); lines++)
        if (strstr(line, " shared:") || strstr(line, " master:"))
            return 1;
    if (lines == 0 || mount("tmpfs", directory, "tmpfs", 0, NULL) < 0)
        return 2;
    snprintf(line, sizeof line, "%s/inside", (const char *)directory);
    return open(line, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 ? 3 : 0;
}

static int in_shared_world(void *directory)
{
    /* As systemd has it, whatever this machine does. */
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_SHARED, NULL) < 0)
        return 10;
    int code = run_in(FLK_NS_MOUNT, look_at_mounts, directory);
    return code ? code : test_entries(directory);
}

static int look_at_net(void *data)
{
    (void)data;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 1) < 0)
        return 1;
    getsockname(server, (struct sockaddr *)&address, &size);
    if (connect(client, (struct sockaddr *)&address, sizeof address) < 0)
        return 2;
    struct if_nameindex *names = if_nameindex();
    return names && names[0].if_index && strcmp(names[0].if_name, "lo") == 0 ? 0 : 3;
}

static int have_look_at_net(void *data)
{
    return run_in(FLK_NS_NET | FLK_NS_USER, look_at_net, data);
}

static int set_host_name(void *data)
{
    (void)data;
    return sethostname("elsewhere", 9) == 0 ? 0 : 1;
}

static int look_for_segment(void *key)
{
    return shmget(*(key_t *)key, 0, 0) < 0 && errno == ENOENT ? 0 : 1;
}

static int look_at_group(void *data)
{
    (void)data;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(shared->text, sizeof shared->text, file))
        if (strncmp(shared->text, "0::", 3) == 0)
            return strcmp(shared->text, "0::/\n") == 0 ? 0 : 1;
    return 2;
}

static void what_they_do_as_root(void)
{
    char before[65], after[65];
    pids(FLK_NS_PID | FLK_NS_MOUNT, false);
    pids(FLK_NS_PID | FLK_NS_MOUNT | FLK_NS_USER, false);
    const char *directory = test_path("mounts");
    mkdir(directory, 0755);
    is_int(test_in_child(in_shared_world, (void *)directory), 0,
           "mount: nothing is shared, and what is mounted inside isn't seen outside");
    is_int(run_in(FLK_NS_MOUNT | FLK_NS_USER, look_at_mounts, (void *)directory), 0, "with user root inside may mount");
    is_int(run_in(FLK_NS_NET, look_at_net, NULL), 0, "net: only a loopback device, and it is up");
    is_int(run_in(FLK_NS_NET | FLK_NS_USER, look_at_net, NULL), 0, "with user, too");
    gethostname(before, sizeof before);
    is_int(run_in(FLK_NS_UTS, set_host_name, NULL), 0, "uts: the host's name can be set");
    is_int(run_in(FLK_NS_UTS | FLK_NS_USER, set_host_name, NULL), 0, "with user, too");
    gethostname(after, sizeof after);
    is_str(after, before, "and is another's outside");
    is_int(run_in(FLK_NS_CGROUP, look_at_group, NULL), 0, "cgroup: the own group is the root");
}

static void segments(void)
{
    key_t key = (key_t)getpid();
    int segment = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
    if (segment < 0) {
        skip("no System V shared memory here");
        return;
    }
    is_int(run_in(FLK_NS_IPC, look_for_segment, &key), 0, "ipc: another's shared memory isn't there");
    shmctl(segment, IPC_RMID, NULL);
}

/* ---- users ---- */

static int look_at_ids(void *data)
{
    (void)data;
    unsigned long numbers[3];
    FILE *file = fopen("/proc/self/uid_map", "re");
    if (!file || fscanf(file, "%lu %lu %lu", &numbers[0], &numbers[1], &numbers[2]) != 3)
        return 1;
    fclose(file);
    snprintf(shared->text, sizeof shared->text, "%lu %lu %lu, uid %u gid %u", numbers[0], numbers[1], numbers[2],
             geteuid(), getegid());
    return 0;
}

static int have_look_at_ids(void *data)
{
    return run_in(FLK_NS_USER, look_at_ids, data);
}

static void users(void)
{
    char expected[64];
    snprintf(expected, sizeof expected, "0 %u 1, uid 0 gid 0", test_is_root() ? TEST_OTHER_USER : geteuid());
    is_int(as_user(have_look_at_ids, NULL), 0, "user, as an ordinary user");
    is_str(shared->text, expected, "who calls is root inside, and nobody else is there");
    is_int(as_user(have_look_at_net, NULL), 0, "root inside has the loopback device up");
    pids(FLK_NS_PID | FLK_NS_MOUNT | FLK_NS_USER, true);
    if (!test_is_root()) {
        skip("only root has others to map");
        return;
    }
    run_in(FLK_NS_USER, look_at_ids, NULL);
    unsigned long inside, outside, count;
    ok(sscanf(shared->text, "%lu %lu %lu", &inside, &outside, &count) == 3 && inside == outside, "as root: %s",
       shared->text);
    ok(count > 1, "all are who they are");
}

static int look_at_pdeathsig(void *data)
{
    int number = 0;
    (void)data;
    prctl(PR_GET_PDEATHSIG, &number);
    return number;
}

static int have_look_at_pdeathsig(void *data)
{
    return run_in(FLK_NS_USER | FLK_NS_NET, look_at_pdeathsig, data);
}

/* ---- the init ---- */

static int die_of(void *number)
{
    signal(*(int *)number, SIG_DFL);
    prctl(PR_SET_DUMPABLE, 0);
    raise(*(int *)number);
    return 1;
}

static void deaths(unsigned set)
{
    int numbers[] = {SIGTERM, SIGKILL, SIGINT, SIGSEGV};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        is_int(run_in(set, die_of, &numbers[i]), -numbers[i], "the command's death of signal %d arrives as that",
               numbers[i]);
    struct started started = start(set, die_of, &numbers[0]);
    int status;
    waitpid(started.pid, &status, 0);
    is_int(status, (128 + SIGTERM) << 8, "the init itself exits with 128+n");
    fk_isolate_status(&started.ids, status);
    close(started.failure_pipe);
}

/* Ends when it has got USR2, with how many other signals it got before. */
static int count_signals(void *data)
{
    sigset_t set;
    int number, count = 0;
    (void)data;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    shared->step = 1;
    while (sigwait(&set, &number) == 0 && number != SIGUSR2) {
        shared->numbers[count++ % 8] = number;
        shared->step++;
    }
    return count;
}

static void await_step(int step)
{
    for (int tries = 0; shared->step < step; tries++) {
        if (tries > 20000)
            bail_out("step %d, not %d", shared->step, step);
        usleep(1000);
    }
}

static void signals(unsigned set)
{
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGCONT, SIGTSTP};
    int count = sizeof numbers / sizeof *numbers, wrong = 0;
    shared->step = 0;
    struct started started = start(set, count_signals, NULL);
    await_step(1);
    for (int i = 0; i < count; i++) {
        kill(started.pid, numbers[i]);
        await_step(i + 2);
        wrong += shared->numbers[i] != numbers[i];
    }
    kill(started.pid, SIGUSR2);
    is_int(end(&started), count, "the init hands each signal on, once");
    is_int(wrong, 0, "as it is");
}

static int signal_own_group(void *data)
{
    sigset_t set;
    int number;
    (void)data;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(0, SIGUSR1);
    sigwait(&set, &number);
    kill(1, SIGTERM);
    /* The init answers signals in the order of their numbers: the end of this child is taken after those two. */
    pid_t pid = fork();
    if (pid == 0 && fork() == 0)
        _exit(0);
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGUSR1) ? 1 : 0;
}

static int read_mask(void *data)
{
    sigset_t now;
    (void)data;
    sigprocmask(SIG_SETMASK, NULL, &now);
    for (int number = 1; number < 32; number++)
        if (sigismember(&now, number) != (number == SIGUSR1))
            return number;
    return 0;
}

static void mask(unsigned set)
{
    sigset_t usr1, before;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_SETMASK, &usr1, &before);
    is_int(run_in(set, read_mask, NULL), 0, "the command's signal mask is that of the clone");
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Orphans that end at once, and zombies that are left of them. */
static int make_orphans(void *data)
{
    int count = *(int *)data;
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0 && fork() == 0)
            _exit(0);
        if (pid == 0)
            _exit(0);
        waitpid(pid, NULL, 0);
    }
    for (int tries = 0; tries < 10000 && count_processes() > 2; tries++)
        usleep(1000);
    return count_processes() - 2;
}

/* What no signal of a shell ends: sessions of their own, everything ignored, twice forked. They keep fd open. */
static void leave_stragglers(int count)
{
    for (int i = 0; i < count; i++) {
        if (fork() != 0)
            continue;
        setsid();
        for (int number = 1; number < 32; number++)
            signal(number, SIG_IGN);
        if (fork() != 0)
            _exit(0);
        shared->step++;
        for (;;)
            pause();
    }
    await_step(count);
}

static int leave_some(void *count)
{
    leave_stragglers(*(int *)count);
    return 0;
}

/* Has the pipe, which only children still have the write end of, been hung up? */
static bool hung_up(int fd, int ms)
{
    struct pollfd event = {.fd = fd, .events = 0};
    return poll(&event, 1, ms) == 1 && (event.revents & POLLHUP);
}

static void nothing_survives(unsigned set)
{
    int ends[2], count = 10;
    if (pipe(ends) < 0)
        bail_out("pipe");
    shared->step = 0;
    struct started started = start(set, leave_some, &count);
    close(ends[1]);
    is_int(end(&started), 0, "a command that leaves %d behind", count);
    ok(hung_up(ends[0], 0), "they are gone when the init has ended");
    close(ends[0]);
}

static int run_cat(void *end)
{
    dup2(*(int *)end, 0);
    execl("/bin/cat", "cat", NULL);
    return 99;
}

static int run_nothing(void *data)
{
    (void)data;
    execl("/nowhere/at/all", "all", NULL);
    return errno == ENOENT ? 98 : 99;
}

static void failure_pipe(unsigned set)
{
    int ends[2];
    char byte;
    if (pipe2(ends, O_CLOEXEC) < 0)
        bail_out("pipe");
    struct started started = start(set, run_cat, &ends[0]);
    close(ends[0]);
    ok(test_readable(started.failure_pipe, 20000) && read(started.failure_pipe, &byte, 1) == 0,
       "a pipe that closes on exec tells of the exec, though the init is there");
    close(ends[1]);
    is_int(end(&started), 0, "the command ends when it will");
    is_int(run_in(set, run_nothing, NULL), 98,
           "a command that isn't there is told in the process that wanted to be it");
}

static int without_proc(void *data)
{
    char byte;
    int ends[2];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        umount2("/proc", MNT_DETACH) < 0 || pipe2(ends, O_CLOEXEC) < 0)
        return 1;
    struct started started = start(*(unsigned *)data, run_cat, &ends[0]);
    close(ends[0]);
    if (!test_readable(started.failure_pipe, 20000) || read(started.failure_pipe, &byte, 1) != 0)
        return 2;
    close(ends[1]);
    return end(&started);
}

/* ---- kill -9 of the supervisor ---- */

struct doomed {
    unsigned set;
    int survivors, lock; /* write end of a pipe that stragglers have; a descriptor that only the init keeps */
};

static int close_lock_and_stay(void *data)
{
    const struct doomed *doomed = data;
    close(doomed->lock);
    leave_stragglers(5);
    shared->step = 100;
    while (pause() < 0)
        ;
    return 0;
}

static int supervise_for_ever(void *data)
{
    struct doomed *doomed = data;
    struct started started = start_as_is(doomed->set, close_lock_and_stay, doomed);
    close(doomed->survivors);
    return end(&started);
}

static void killed_supervisor(unsigned set)
{
    int early = 0, late = 0, rounds = test_is_slow() ? 3 : 20;
    for (int i = 0; i < rounds; i++) {
        int survivors[2], lock[2];
        if (pipe2(survivors, O_CLOEXEC) < 0 || pipe(lock) < 0) /* of the first the init has nothing */
            bail_out("pipe");
        shared->step = 0;
        struct doomed doomed = {.set = set, .survivors = survivors[1], .lock = lock[1]};
        pid_t pid = tap_fork();
        if (pid == 0)
            _exit(supervise_for_ever(&doomed));
        close(survivors[1]);
        close(lock[1]);
        await_step(100);
        kill(pid, SIGKILL);
        late += !hung_up(lock[0], 20000);
        early += !hung_up(survivors[0], 0);
        test_reap(pid);
        close(survivors[0]);
        close(lock[0]);
    }
    is_int(late, 0, "kill -9 of the parent ends the namespace: %d times", rounds);
    is_int(early, 0, "what the init has inherited it keeps until all others are gone");
}

__attribute__((noreturn)) static void enter_when_alone(const struct doomed *doomed, const struct fk_isolate_ids *ids)
{
    struct fk_isolate_failure failure;
    struct pollfd event = {.fd = ids->parent, .events = POLLIN};
    shared->step = 1;
    poll(&event, 1, -1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fk_isolate_enter(doomed->set, ids, &failure) == 0)
        for (;;)
            pause();
    _exit(REFUSED);
}

static int leave_child_alone(void *data)
{
    struct fk_isolate_ids ids;
    const struct doomed *doomed = data;
    fk_isolate_prepare(&ids);
    struct clone_args arguments = {.exit_signal = SIGCHLD, .flags = fk_isolate_clone_flags(doomed->set)};
    if (syscall(SYS_clone3, &arguments, sizeof arguments) == 0)
        enter_when_alone(doomed, &ids);
    await_step(1);
    return 0;
}

static void orphan_at_start(unsigned set)
{
    int survivors[2];
    if (pipe(survivors) < 0)
        bail_out("pipe");
    struct doomed doomed = {.set = set};
    shared->step = 0;
    is_int(test_in_child(leave_child_alone, &doomed), 0, "a parent that ends while its child makes ready");
    close(survivors[1]);
    ok(hung_up(survivors[0], 20000), "leaves nothing");
    close(survivors[0]);
}

static int init_tests(void *data)
{
    int count = 50;
    (void)data;
    return run_in(FLK_NS_PID | FLK_NS_MOUNT | FLK_NS_USER, make_orphans, &count);
}

static void init(unsigned set)
{
    int count = 200;
    deaths(set);
    signals(set);
    is_int(run_in(set, signal_own_group, NULL), 0, "what the command's own side sends to the init comes to nothing");
    mask(set);
    is_int(run_in(set | FLK_NS_MOUNT, make_orphans, &count), 0, "%d orphans are reaped while the command runs", count);
    nothing_survives(set);
    failure_pipe(set);
    killed_supervisor(set);
    orphan_at_start(set);
}

/* ---- refusals ---- */

static int complain_of(unsigned set)
{
    int code = fk_isolate_complain(set, &shared->failure);
    snprintf(shared->sentence, sizeof shared->sentence, "%s", flk_error_detail());
    return -code;
}

static int refuse_without_user(void *kind)
{
    unsigned set = ((const struct kind *)kind)->bit;
    return run_in(set, note_links, NULL) == REFUSED ? complain_of(set) : 0;
}

static void refusals_of_a_user(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].bit == FLK_NS_USER)
            continue;
        is_int(as_user(refuse_without_user, (void *)&kinds[i]), EPERM, "%s alone is refused to an ordinary user",
               kinds[i].name);
        ok(strstr(shared->sentence, kinds[i].name) && strstr(shared->sentence, "ask for user"), "%s", shared->sentence);
    }
}

static int set_limit_and_try(void *data)
{
    const struct kind *kind = data;
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/user/%s", kind->limit);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        return 1;
    close(fd);
    if (run_in(kind->bit, note_links, NULL) != REFUSED)
        return 2;
    return complain_of(kind->bit);
}

static int try_in_user_namespace(void *kind)
{
    return run_in(FLK_NS_USER, set_limit_and_try, kind);
}

static void refusals_by_limit(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        char name[64], limit[64];
        is_int(as_user(try_in_user_namespace, (void *)&kinds[i]), ENOSPC, "%s is refused when none may be made",
               kinds[i].name);
        snprintf(name, sizeof name, "new %s namespace: ", kinds[i].name);
        snprintf(limit, sizeof limit, "user.%s, which is 0", kinds[i].limit);
        ok(strstr(shared->sentence, name) && strstr(shared->sentence, limit), "%s", shared->sentence);
    }
}

/* A clone that failed doesn't say which. */
static void refusals_of_the_clone(void)
{
    struct fk_isolate_failure failure = {.code = EINVAL};
    is_int(fk_isolate_complain(FLK_NS_PID | FLK_NS_NET, &failure), -EINVAL, "a kernel without pid namespaces");
    ok(strstr(flk_error_detail(), "new pid namespace") && strstr(flk_error_detail(), "leave pid out"), "%s",
       flk_error_detail());
    failure = (struct fk_isolate_failure){.code = EAGAIN};
    is_int(fk_isolate_complain(FLK_NS_PID, &failure), -EAGAIN, "too many processes");
    ok(strstr(flk_error_detail(), "ulimit -u"), "%s", flk_error_detail());
    failure = (struct fk_isolate_failure){.code = EPERM, .what = "net namespace (its loopback device)"};
    fk_isolate_complain(FLK_NS_PID | FLK_NS_NET | FLK_NS_USER, &failure);
    ok(strstr(flk_error_detail(), "net namespace (its loopback device): "), "%s", flk_error_detail());
}

/* ---- where can it be tried? ---- */

static int try_unshare(void *flags)
{
    return unshare(*(int *)flags) == 0 ? 0 : 1;
}

int main(void)
{
    int root_flags = CLONE_NEWNS | CLONE_NEWPID, user_flags = CLONE_NEWUSER;
    tap_deadline(test_is_slow() ? 240 : 90);
    shared = test_shared(sizeof *shared);
    lists();
    refusals_of_the_clone();
    bool root = test_is_root() && test_in_child(try_unshare, &root_flags) == 0;
    bool user = as_user(try_unshare, &user_flags) == 0;
    int before = test_descriptors();
    if (root) {
        each_kind_as_root();
        what_they_do_as_root();
        segments();
        is_int(run_in(FLK_NS_USER | FLK_NS_NET, look_at_pdeathsig, NULL), SIGKILL,
               "PR_SET_PDEATHSIG stays set, as root");
        init(FLK_NS_PID);
        unsigned pid = FLK_NS_PID;
        is_int(test_in_child(without_proc, &pid), 0, "without /proc, too, a pipe tells of the exec");
        init(FLK_NS_PID | FLK_NS_USER);
    } else {
        skip("not root, or a container that may make no namespaces");
    }
    if (user) {
        each_kind_as_user();
        users();
        is_int(as_user(have_look_at_pdeathsig, NULL), SIGKILL, "PR_SET_PDEATHSIG stays set, as an ordinary user");
        is_int(as_user(init_tests, NULL), 0, "orphans are reaped, as an ordinary user");
        refusals_by_limit();
    } else {
        skip("ordinary users may make no user namespaces here");
    }
    refusals_of_a_user();
    is_int(test_descriptors(), before, "no descriptor is left open");
    return done_testing();
}
