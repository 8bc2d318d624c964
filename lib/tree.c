/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "proc.h"

#define LOOKS 3 /* at the ancestors of a process, which may end and change between two steps */

bool fk_tree_without_children_files;

struct pids {
    pid_t *pids;
    size_t count, size;
};

static struct pids spared;

int fk_tree_adopt(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0
               ? fk_fail_errno(-errno, "can't adopt the command's descendants")
               : 0;
}

/* ---- lists ---- */

static bool contains(const pid_t *pids, size_t count, pid_t pid)
{
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

static int add(struct pids *list, pid_t pid)
{
    if (contains(list->pids, list->count, pid)) /* its parent's thread ended and another one has it now */
        return 0;
    if (list->count == list->size) {
        size_t size = list->size ? 2 * list->size : 64;
        pid_t *pids = reallocarray(list->pids, size, sizeof *pids);
        if (!pids)
            return fk_fail(-ENOMEM, "out of memory");
        list->pids = pids;
        list->size = size;
    }
    list->pids[list->count++] = pid;
    return 0;
}

/* ---- /proc ---- */

/* "12 34 " may come in several pieces, cut anywhere. */
static int add_listed(struct pids *list, int fd)
{
    char text[4096];
    int number = 0, code = 0;
    ssize_t length;
    while (code == 0 && (length = read(fd, text, sizeof text)) > 0) {
        for (ssize_t i = 0; code == 0 && i < length; i++) {
            if (isdigit((unsigned char)text[i])) {
                number = number * 10 + (text[i] - '0');
            } else if (number) {
                code = add(list, number);
                number = 0;
            }
        }
    }
    return code;
}

/* Children belong to the thread that made them. */
static int add_children(struct pids *list, pid_t pid, bool *no_files)
{
    char path[80];
    DIR *tasks;
    int code = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    code = fk_fd_open_directory(AT_FDCWD, path, &tasks);
    if (code == -EMFILE || code == -ENFILE)
        return fk_fail_errno(code, "can't read %s", path);
    if (code < 0)
        return 0; /* it has ended: its children are ours now, and the next walk finds them */
    for (struct dirent *entry; code == 0 && (entry = readdir(tasks));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", (int)pid, entry->d_name);
        FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
        if (fd >= 0)
            code = add_listed(list, fd);
        else if (fd == -ENOENT && pid == getpid()) /* our own threads don't end while we look */
            *no_files = true;
        else if (fd == -EMFILE || fd == -ENFILE)
            code = fk_fail_errno(fd, "can't read %s", path);
    }
    fk_fd_close_directory(tasks);
    return code;
}

/* ---- without CONFIG_PROC_CHILDREN ---- */

struct family {
    pid_t pid, parent;
};

static int read_families(struct family **families, size_t *count)
{
    DIR *proc;
    size_t size = 0;
    struct fk_proc_stat stat;
    int code = fk_fd_open_directory(AT_FDCWD, "/proc", &proc);
    if (code < 0)
        return fk_fail_errno(code, "can't read /proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        struct family one = {.pid = atoi(entry->d_name)};
        if (one.pid <= 0 || fk_proc_stat(one.pid, &stat) < 0)
            continue;
        one.parent = stat.parent;
        if (*count == size) {
            size = size ? 2 * size : 256;
            struct family *more = reallocarray(*families, size, sizeof *more);
            if (!more) {
                code = fk_fail(-ENOMEM, "out of memory");
                break;
            }
            *families = more;
        }
        (*families)[(*count)++] = one;
    }
    fk_fd_close_directory(proc);
    return code;
}

static int list_by_parents(struct pids *list, bool children_only)
{
    struct family *families = NULL;
    size_t count = 0;
    int code = read_families(&families, &count);
    for (size_t i = 0; code == 0 && i < (children_only ? 1 : list->count); i++)
        for (size_t j = 0; code == 0 && j < count; j++)
            if (families[j].parent == list->pids[i] && !contains(spared.pids, spared.count, families[j].pid))
                code = add(list, families[j].pid);
    free(families);
    return code;
}

/* ---- walk ---- */

/* 0, and whose /proc this is. */
static int read_self(char text[32])
{
    ssize_t length = readlink("/proc/self", text, 31);
    if (length < 0)
        return fk_fail(-ENOSYS, "/proc isn't mounted; flockctl needs it to find the command's descendants: mount it");
    text[length] = '\0';
    return 0;
}

int fk_tree_check(void)
{
    char text[32];
    return read_self(text);
}

/* A /proc of another pid namespace speaks of other processes. */
static int check_proc(void)
{
    char text[32];
    int code = read_self(text);
    if (code < 0)
        return code;
    if (atoi(text) != getpid())
        return fk_fail(-ENOSYS, "/proc is that of another pid namespace; flockctl needs its own to find the command's "
                                "descendants: mount a new one");
    return 0;
}

/* This process first, then its descendants, each behind its parent. */
static int list_tree(struct pids *list)
{
    bool no_files = fk_tree_without_children_files;
    int code = check_proc();
    if (code == 0)
        code = add(list, getpid());
    for (size_t i = 0; code == 0 && !no_files && i < list->count; i++)
        if (!contains(spared.pids, spared.count, list->pids[i]))
            code = add_children(list, list->pids[i], &no_files);
    if (code == 0 && no_files)
        code = list_by_parents(list, false);
    return code;
}

static bool climbs_to_us(pid_t pid, char *state)
{
    pid_t at = pid, self = getpid();
    struct fk_proc_stat stat;
    while (!contains(spared.pids, spared.count, at)) {
        if (fk_proc_stat(at, &stat) < 0)
            return false;
        if (at == pid)
            *state = stat.state;
        if (stat.parent == self)
            return true;
        if (stat.parent <= 1)
            return false;
        at = stat.parent;
    }
    return false;
}

/* Opened before it is looked at, so that what we see is what we signal. Zombies have ended, whoever reaps them. */
static int open_descendant(pid_t pid, char *state)
{
    fk_fd_enter();
    FK_CLOSE_FD int pidfd = fk_fd_keep(pidfd_open(pid, 0));
    if (pidfd < 0)
        return pidfd;
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    for (int looks = 0; looks < LOOKS; looks++) {
        if (poll(&ended, 1, 0) > 0)
            return -ESRCH;
        if (climbs_to_us(pid, state))
            return fk_fd_take(&pidfd);
    }
    return -ESRCH;
}

static int for_each(int (*each)(pid_t pid, int pidfd, char state, void *data), void *data)
{
    struct pids list = {0};
    int count = 0, code = list_tree(&list);
    for (size_t i = 1; code == 0 && i < list.count; i++) {
        char state = 0;
        FK_CLOSE_FD int pidfd = open_descendant(list.pids[i], &state);
        if (pidfd == -EMFILE || pidfd == -ENFILE)
            code = fk_fail_errno(pidfd, "can't open process %d", (int)list.pids[i]);
        if (pidfd < 0)
            continue;
        count++;
        code = each(list.pids[i], pidfd, state, data);
    }
    free(list.pids);
    return code ? code : count;
}

struct visitor {
    int (*each)(pid_t pid, void *data);
    void *data;
};

static int visit(pid_t pid, int pidfd, char state, void *data)
{
    const struct visitor *visitor = data;
    (void)pidfd, (void)state;
    return visitor->each(pid, visitor->data);
}

int fk_tree_walk(int (*each)(pid_t pid, void *data), void *data)
{
    struct visitor visitor = {each, data};
    return for_each(visit, &visitor);
}

int fk_tree_spare_children(void)
{
    struct pids list = {0};
    bool no_files = fk_tree_without_children_files;
    int code = check_proc();
    if (code == 0)
        code = add(&list, getpid());
    if (code == 0 && !no_files)
        code = add_children(&list, getpid(), &no_files);
    if (code == 0 && no_files)
        code = list_by_parents(&list, true);
    for (size_t i = 1; code == 0 && i < list.count; i++)
        code = add(&spared, list.pids[i]);
    free(list.pids);
    return code ? code : (int)spared.count;
}

bool fk_tree_reaped(pid_t pid)
{
    for (size_t i = 0; i < spared.count; i++)
        if (spared.pids[i] == pid) {
            spared.pids[i] = spared.pids[--spared.count];
            return true;
        }
    return false;
}

/* ---- signals ---- */

static int signal_open(int pidfd, char state, int number)
{
    if (pidfd_send_signal(pidfd, number, NULL, 0) < 0)
        return -errno;
    if (state == 'T' && number != SIGKILL && number != SIGSTOP)
        pidfd_send_signal(pidfd, SIGCONT, NULL, 0);
    return 0;
}

struct signaller {
    int number;
    const pid_t *except;
    size_t n_except;
    struct fk_tree_signalled signalled;
};

static int signal_each(pid_t pid, int pidfd, char state, void *data)
{
    struct signaller *signaller = data;
    if (contains(signaller->except, signaller->n_except, pid))
        return 0;
    int code = signal_open(pidfd, state, signaller->number);
    if (code == 0)
        signaller->signalled.reached++;
    else if (code == -EPERM)
        signaller->signalled.refused++;
    return 0;
}

int fk_tree_signal(int number, const pid_t *except, size_t n_except, struct fk_tree_signalled *signalled)
{
    struct signaller signaller = {.number = number, .except = except, .n_except = n_except};
    int count = for_each(signal_each, &signaller);
    if (count < 0)
        return count;
    *signalled = signaller.signalled;
    return 0;
}

int fk_tree_signal_one(pid_t pid, int number)
{
    char state = 0;
    FK_CLOSE_FD int pidfd = open_descendant(pid, &state);
    return pidfd < 0 ? pidfd : signal_open(pidfd, state, number);
}

/* ---- names ---- */

static ssize_t read_text(pid_t pid, const char *file, char *text, size_t size)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    ssize_t length = fk_fd_read_text(AT_FDCWD, path, text, size);
    if (length < 0)
        *text = '\0';
    return length;
}

void fk_tree_command_of(pid_t pid, char *text, size_t size)
{
    char name[64];
    ssize_t length = read_text(pid, "cmdline", text, size);
    while (length > 0 && text[length - 1] == '\0')
        length--;
    for (ssize_t i = 0; i < length; i++)
        if (text[i] == '\0')
            text[i] = ' ';
    if (length > 0)
        return;
    if (read_text(pid, "comm", name, sizeof name) <= 0)
        strcpy(name, "?");
    name[strcspn(name, "\n")] = '\0';
    snprintf(text, size, "[%s]", name);
}
