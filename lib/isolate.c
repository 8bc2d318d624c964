/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "isolate.h"

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
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"

#define UNKNOWN -1 /* no wait status is that */
#define LAST_WAIT_S 1
#define MOST_FDS 65536 /* that are looked at where there is no /proc */

static const struct kind {
    const char *name;
    unsigned bit;
    const char *limit; /* below user. */
} kinds[] = {
    {"pid", FLK_NS_PID, "max_pid_namespaces"},          {"net", FLK_NS_NET, "max_net_namespaces"},
    {"ipc", FLK_NS_IPC, "max_ipc_namespaces"},          {"uts", FLK_NS_UTS, "max_uts_namespaces"},
    {"mount", FLK_NS_MOUNT, "max_mnt_namespaces"},      {"user", FLK_NS_USER, "max_user_namespaces"},
    {"cgroup", FLK_NS_CGROUP, "max_cgroup_namespaces"},
};
#define KINDS (sizeof kinds / sizeof *kinds)

/* Root's user namespace isn't made by the clone: the map of more than one id must be written by somebody outside, and that
 * is a process which the child makes before it goes inside. */
uint64_t fk_isolate_clone_flags(unsigned isolate)
{
    uint64_t flags = isolate & FLK_NS_PID ? CLONE_NEWPID : 0;
    return isolate & FLK_NS_USER && geteuid() != 0 ? flags | CLONE_NEWUSER : flags;
}

/* ---- before the clone ---- */

/* Each id that there is here, mapped to itself. */
static void map_identity(const char *path, char *map, size_t size)
{
    size_t used = 0;
    unsigned long inside, outside, count;
    FILE *file = fopen(path, "re");
    while (file && fscanf(file, "%lu %lu %lu", &inside, &outside, &count) == 3) {
        int length = snprintf(map + used, size - used, "%lu %lu %lu\n", inside, inside, count);
        if (length < 0 || (size_t)length >= size - used)
            break;
        used += (size_t)length;
    }
    map[used] = '\0';
    if (file)
        fclose(file);
    if (used == 0)
        snprintf(map, size, "0 0 1\n");
}

void fk_isolate_prepare(struct fk_isolate_ids *ids)
{
    uid_t uid = geteuid();
    ids->root = uid == 0;
    snprintf(ids->uid_map, sizeof ids->uid_map, "0 %u 1\n", uid);
    snprintf(ids->gid_map, sizeof ids->gid_map, "0 %u 1\n", getegid());
    if (ids->root) {
        map_identity("/proc/self/uid_map", ids->uid_map, sizeof ids->uid_map);
        map_identity("/proc/self/gid_map", ids->gid_map, sizeof ids->gid_map);
    }
    fk_fd_enter();
    ids->parent = fk_fd_keep(pidfd_open(getpid(), 0));
    ids->status = mmap(NULL, sizeof *ids->status, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ids->status == MAP_FAILED)
        ids->status = NULL;
    else
        *ids->status = UNKNOWN;
}

int fk_isolate_status(struct fk_isolate_ids *ids, int status)
{
    if (ids->status && *ids->status != UNKNOWN)
        status = *ids->status;
    if (ids->status)
        munmap(ids->status, sizeof *ids->status);
    ids->status = NULL;
    fk_fd_close(&ids->parent);
    return status;
}

/* ---- in the child: system calls only ---- */

static int refused(struct fk_isolate_failure *failure, const char *what)
{
    failure->code = errno;
    failure->what = what;
    return -1;
}

/* fork() would run the handlers of the program and of the library. */
static pid_t copy_process(int exit_signal)
{
    struct clone_args arguments = {.exit_signal = (unsigned)exit_signal};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static int write_file(int directory, const char *name, const char *text)
{
    int fd = openat(directory, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, text, strlen(text));
    int code = errno;
    close(fd);
    errno = code;
    return written < 0 ? -1 : 0;
}

static int map_own_id(const struct fk_isolate_ids *ids, struct fk_isolate_failure *failure)
{
    /* An unprivileged process may map its group only once setgroups is given up. */
    if (write_file(AT_FDCWD, "/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
        return refused(failure, "user namespace (its setgroups)");
    if (write_file(AT_FDCWD, "/proc/self/uid_map", ids->uid_map) < 0)
        return refused(failure, "user namespace (its uid_map)");
    if (write_file(AT_FDCWD, "/proc/self/gid_map", ids->gid_map) < 0)
        return refused(failure, "user namespace (its gid_map)");
    return 0;
}

__attribute__((noreturn)) static void write_maps(int directory, const int go[2], const struct fk_isolate_ids *ids)
{
    char byte;
    close(go[1]); /* so that the child's end is seen */
    if (read(go[0], &byte, 1) != 1)
        _exit(ECANCELED);
    if (write_file(directory, "uid_map", ids->uid_map) < 0 || write_file(directory, "gid_map", ids->gid_map) < 0)
        _exit(errno);
    _exit(0);
}

static int reap_writer(pid_t writer)
{
    int status;
    while (waitpid(writer, &status, __WALL) < 0)
        if (errno != EINTR)
            return -1;
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    return errno ? -1 : 0;
}

static int enter_user_as_root(const struct fk_isolate_ids *ids, struct fk_isolate_failure *failure)
{
    int go[2];
    int directory = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || pipe2(go, O_CLOEXEC) < 0)
        return refused(failure, "user namespace (its uid_map)");
    pid_t writer = copy_process(0);
    if (writer == 0)
        write_maps(directory, go, ids);
    close(directory);
    close(go[0]);
    if (writer < 0)
        return refused(failure, "user namespace (its uid_map)");
    bool inside = unshare(CLONE_NEWUSER) == 0;
    int code = inside ? refused(failure, "user namespace (its uid_map)") : refused(failure, "user namespace");
    if (inside && write(go[1], "", 1) == 1)
        code = 0;
    close(go[1]);
    if (reap_writer(writer) < 0 && code == 0)
        return refused(failure, "user namespace (its uid_map)");
    return code;
}

static int enter_mount(bool fresh_proc, struct fk_isolate_failure *failure)
{
    if (unshare(CLONE_NEWNS) < 0)
        return refused(failure, "mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return refused(failure, "mount namespace (private propagation)");
    if (fresh_proc && mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return refused(failure, "mount namespace (a fresh /proc)");
    return 0;
}

static int raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), code = -1;
    if (fd < 0)
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        code = ioctl(fd, SIOCSIFFLAGS, &request);
    }
    int failure = errno;
    close(fd);
    errno = failure;
    return code;
}

static int enter_user(unsigned isolate, const struct fk_isolate_ids *ids, struct fk_isolate_failure *failure)
{
    if (!ids->root)
        return map_own_id(ids, failure);
    /* The pid namespace stays one of the outer user namespace's, which only its root may mount a /proc of. */
    if ((isolate & FLK_NS_MOUNT) && (isolate & FLK_NS_PID) && enter_mount(true, failure) < 0)
        return -1;
    return enter_user_as_root(ids, failure);
}

static int enter_others(unsigned isolate, bool fresh_proc, struct fk_isolate_failure *failure)
{
    if ((isolate & FLK_NS_MOUNT) && enter_mount(fresh_proc, failure) < 0)
        return -1;
    if ((isolate & FLK_NS_NET) && unshare(CLONE_NEWNET) < 0)
        return refused(failure, "net namespace");
    if ((isolate & FLK_NS_NET) && raise_loopback() < 0)
        return refused(failure, "net namespace (its loopback device)");
    if ((isolate & FLK_NS_IPC) && unshare(CLONE_NEWIPC) < 0)
        return refused(failure, "ipc namespace");
    if ((isolate & FLK_NS_UTS) && unshare(CLONE_NEWUTS) < 0)
        return refused(failure, "uts namespace");
    /* Not in the clone: its root would be the group of who clones, not that of CLONE_INTO_CGROUP. */
    if ((isolate & FLK_NS_CGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return refused(failure, "cgroup namespace");
    return 0;
}

/* ---- the init ---- */

/* Sent when the parent ends. Not KILL: ended by that, the init would let go of what it has inherited, locks above all, before
 * the kernel has ended the others. */
#define ORPHANED (SIGRTMAX - 1)

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    unsigned short d_reclen;
    unsigned char d_type;
    char d_name[];
};

static int number_of(const char *text)
{
    int number = 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        number = number * 10 + (*text - '0');
    }
    return number;
}

static void close_if_on_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC))
        close(fd);
}

/* Whoever waits for the command's exec at a pipe mustn't wait for the init. */
static void close_what_closes_on_exec(void)
{
    char buffer[4096] __attribute__((aligned(8)));
    int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int fd = 0; directory < 0 && fd < MOST_FDS; fd++)
        close_if_on_exec(fd);
    for (long length; (length = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < length;) {
            const struct linux_dirent64 *entry = (const void *)(buffer + at);
            int fd = number_of(entry->d_name);
            if (fd >= 0 && fd != directory)
                close_if_on_exec(fd);
            at += entry->d_reclen;
        }
    close(directory);
}

/* The kernel would end them as well, but only after our descriptors are closed. */
__attribute__((noreturn)) static void end_all(int status)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    kill(-1, SIGKILL);
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) >= 0;)
        if (pid == 0 && sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = LAST_WAIT_S}) < 0 && errno == EAGAIN)
            break; /* not ours to kill, but the kernel's */
    _exit(status);
}

static void reap(pid_t command, int *result)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == command) {
            if (result)
                *result = status;
            end_all(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        }
}

/* All signals are blocked: for a pid 1 those would be lost that it has no handler for. */
__attribute__((noreturn)) static void serve(pid_t command, const sigset_t *all, int *result)
{
    for (;;) {
        siginfo_t info;
        if (sigwaitinfo(all, &info) < 0)
            continue;
        if (info.si_signo == SIGCHLD)
            reap(command, result);
        else if (info.si_code <= 0 && info.si_pid == 0 && info.si_signo == ORPHANED)
            end_all(128 + SIGKILL);
        else if (info.si_code <= 0 && info.si_pid == 0) /* from outside */
            kill(command, info.si_signo);
    }
}

static bool is_over(int pidfd)
{
    struct pollfd event = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 && poll(&event, 1, 0) == 1;
}

/* Returns in the command. */
static int become_init(const struct fk_isolate_ids *ids, int on_parents_end, struct fk_isolate_failure *failure)
{
    sigset_t all, before;
    struct sigaction action = {.sa_handler = SIG_DFL}, action_before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    sigaction(SIGCHLD, &action, &action_before); /* ignored, it would take the command's end from us */
    pid_t command = copy_process(SIGCHLD);
    if (command <= 0) {
        sigaction(SIGCHLD, &action_before, NULL);
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    if (command < 0)
        return refused(failure, "pid namespace (its second process)");
    if (command == 0)
        return 0;
    if (on_parents_end)
        prctl(PR_SET_PDEATHSIG, ORPHANED);
    if (on_parents_end && is_over(ids->parent))
        end_all(128 + SIGKILL);
    close_what_closes_on_exec();
    serve(command, &all, ids->status);
}

int fk_isolate_enter(unsigned isolate, const struct fk_isolate_ids *ids, struct fk_isolate_failure *failure)
{
    int on_parents_end = 0;
    bool user = isolate & FLK_NS_USER, pid = isolate & FLK_NS_PID;
    prctl(PR_GET_PDEATHSIG, &on_parents_end);
    if (user && enter_user(isolate, ids, failure) < 0)
        return -1;
    if (enter_others(isolate, pid && !(user && ids->root), failure) < 0)
        return -1;
    if (pid)
        return become_init(ids, on_parents_end, failure);
    if (user && on_parents_end) /* a change of credentials takes it back */
        prctl(PR_SET_PDEATHSIG, on_parents_end);
    if (on_parents_end && is_over(ids->parent))
        _exit(128 + SIGKILL); /* the signal was asked for too late */
    return 0;
}

/* ---- what was refused ---- */

static long read_sysctl(const char *directory, const char *name)
{
    char path[128], text[32] = "";
    snprintf(path, sizeof path, "/proc/sys/%s/%s", directory, name);
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
    return fd >= 0 && read(fd, text, sizeof text - 1) > 0 ? strtol(text, NULL, 10) : -1;
}

static const struct kind *kind_named(const char *what)
{
    for (size_t i = 0; what && i < KINDS; i++) {
        size_t length = strlen(kinds[i].name);
        if (strncmp(what, kinds[i].name, length) == 0 && what[length] == ' ')
            return &kinds[i];
    }
    return NULL;
}

/* The clone makes two at most, and doesn't say which of them it couldn't. */
static const struct kind *kind_of_clone(unsigned isolate)
{
    const struct kind *pid = &kinds[0], *user = &kinds[5];
    if (!(isolate & FLK_NS_USER) || geteuid() == 0)
        return pid;
    return (isolate & FLK_NS_PID) && read_sysctl("user", pid->limit) == 0 ? pid : user;
}

static void explain_refusal(unsigned isolate, char *text, size_t size)
{
    bool root = geteuid() == 0;
    if (!(isolate & FLK_NS_USER) && !root)
        snprintf(text, size, "; only root may do that by itself: ask for user as well");
    else if (!root && read_sysctl("kernel", "unprivileged_userns_clone") == 0)
        snprintf(text, size,
                 "; the sysctl kernel.unprivileged_userns_clone is 0, which leaves it to root: set it to 1");
    else if (!root && read_sysctl("kernel", "apparmor_restrict_unprivileged_userns") > 0)
        snprintf(text, size,
                 "; the sysctl kernel.apparmor_restrict_unprivileged_userns forbids it: set it to 0, or give this "
                 "program an "
                 "AppArmor profile with userns");
    else
        snprintf(text, size, "; a container, a chroot or a security policy around us forbids it: run outside of that");
}

static void explain(unsigned isolate, const struct kind *kind, int code, char *text, size_t size)
{
    *text = '\0';
    if (code == EPERM || code == EACCES)
        explain_refusal(isolate, text, size);
    if (code == ENOSPC || code == EUSERS)
        snprintf(text, size, "; the limit is reached: raise the sysctl user.%s, which is %ld", kind->limit,
                 read_sysctl("user", kind->limit));
    if (code == EINVAL)
        snprintf(text, size, "; this kernel was made without it: leave %s out", kind->name);
    if (code == EAGAIN)
        snprintf(text, size, "; too many processes: end some, or raise the limit (ulimit -u)");
}

int fk_isolate_complain(unsigned isolate, const struct fk_isolate_failure *failure)
{
    char remedy[256], what[64];
    const struct kind *kind = kind_named(failure->what);
    if (!kind)
        kind = kind_of_clone(isolate);
    snprintf(what, sizeof what, "%s namespace", kind->name);
    explain(isolate, kind, failure->code, remedy, sizeof remedy);
    return fk_fail(-failure->code, "can't make a new %s: %s%s", kind_named(failure->what) ? failure->what : what,
                   strerrordesc_np(failure->code), remedy);
}

/* ---- the list ---- */

static unsigned bit_named(const char *word, size_t length)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strlen(kinds[i].name) == length && strncmp(kinds[i].name, word, length) == 0)
            return kinds[i].bit;
    return 0;
}

int fk_isolate_parse(const char *list, unsigned *isolate)
{
    unsigned set = 0;
    for (const char *word = list;; word++) {
        size_t length = strcspn(word, ",");
        unsigned bit = bit_named(word, length);
        if (!bit)
            return fk_fail(
                -EINVAL,
                "\"%.*s\" isn't a kind of namespace; give a list of pid, net, ipc, uts, mount, user and cgroup, "
                "with commas",
                (int)(length < 60 ? length : 60), word);
        set |= bit;
        word += length;
        if (!*word)
            break;
    }
    *isolate = set;
    return 0;
}
