/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "error.h"
#include "fd.h"
#include "flockctl.h"

/* ---- ports ---- */

struct endpoint {
    bool any; /* on all addresses */
    struct in_addr v4;
    struct in6_addr v6;
    int family; /* of the address, where it is one */
    in_port_t port;
};

static bool read_port(const char *text, in_port_t *port)
{
    size_t length = strlen(text);
    if (length < 1 || length > 5 || strspn(text, "0123456789") < length || text[0] == '0')
        return false;
    unsigned long number = strtoul(text, NULL, 10);
    *port = htons((in_port_t)number);
    return number <= 65535;
}

static bool read_address(const char *text, size_t length, struct endpoint *endpoint)
{
    char address[INET6_ADDRSTRLEN + 2];
    bool bracket = length > 2 && text[0] == '[' && text[length - 1] == ']';
    if (bracket) {
        text++;
        length -= 2;
    }
    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    endpoint->family = bracket ? AF_INET6 : AF_INET;
    return inet_pton(endpoint->family, address, bracket ? (void *)&endpoint->v6 : (void *)&endpoint->v4) == 1;
}

/* PORT, ADDRESS:PORT or [ADDRESS]:PORT. */
static bool read_endpoint(const char *value, struct endpoint *endpoint)
{
    const char *colon = strrchr(value, ':');
    *endpoint = (struct endpoint){.any = !colon, .v4.s_addr = htonl(INADDR_ANY), .v6 = in6addr_any};
    return read_port(colon ? colon + 1 : value, &endpoint->port) &&
           (!colon || read_address(value, (size_t)(colon - value), endpoint));
}

static int bind_to(int fd, int family, const struct endpoint *endpoint)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = endpoint->port, .sin_addr = endpoint->v4};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = endpoint->port, .sin6_addr = endpoint->v6};
    int code =
        family == AF_INET ? bind(fd, (struct sockaddr *)&v4, sizeof v4) : bind(fd, (struct sockaddr *)&v6, sizeof v6);
    return code < 0 ? -errno : 0;
}

/* 1: in use. A machine may be without IPv6. */
static int try_family(int family, int type, const struct endpoint *endpoint)
{
    const int on = 1;
    fk_fd_enter();
    FK_CLOSE_FD int fd = fk_fd_keep(socket(family, type | SOCK_CLOEXEC, 0));
    if (fd == -EAFNOSUPPORT && family == AF_INET6 && endpoint->any)
        return 0;
    if (fd < 0)
        return fd;
    if (type == SOCK_STREAM)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    int code = bind_to(fd, family, endpoint);
    if (code == -EADDRNOTAVAIL && family == AF_INET6 && endpoint->any)
        return 0;
    if (code == 0 && type == SOCK_STREAM && listen(fd, 1) < 0)
        code = -errno;
    return code == -EADDRINUSE ? 1 : code;
}

static int try_port(int type, const char *name, const char *value)
{
    struct endpoint endpoint;
    if (!read_endpoint(value, &endpoint))
        return fk_fail(-EINVAL, "the value %s of %s is no port", value, name);
    int code = try_family(endpoint.any ? AF_INET : endpoint.family, type, &endpoint);
    if (code == 0 && endpoint.any)
        code = try_family(AF_INET6, type, &endpoint);
    return code < 0 ? fk_fail_errno(code, "can't check the %s port %s of %s", type == SOCK_STREAM ? "TCP" : "UDP",
                                    value, name)
                    : code;
}

/* As /proc/net has addresses. */
static void show_address(int family, const struct endpoint *endpoint, char text[33])
{
    uint32_t words[4];
    if (family == AF_INET) {
        snprintf(text, 33, "%08X", endpoint->v4.s_addr);
        return;
    }
    memcpy(words, &endpoint->v6, sizeof words);
    snprintf(text, 33, "%08X%08X%08X%08X", words[0], words[1], words[2], words[3]);
}

#define LISTENS 10 /* TCP_LISTEN */

/* Is there a line of a socket that has it? */
static bool is_listed(const char *path, bool listens, int family, const struct endpoint *endpoint)
{
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY, 0);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    char line[512], wanted[33], address[33];
    unsigned port, state;
    bool found = false;
    if (!file)
        return false;
    fk_fd_take(&fd);
    show_address(family, endpoint, wanted);
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, " %*u: %32[0-9A-F]:%x %*32[0-9A-F]:%*x %x", address, &port, &state) == 3 &&
                port == ntohs(endpoint->port) && (!listens || state == LISTENS) &&
                (endpoint->any || strspn(address, "0") == strlen(address) || strcmp(address, wanted) == 0);
    fk_fd_close_file(file);
    return found;
}

static int look_for_port(bool tcp, const char *value)
{
    struct endpoint endpoint;
    if (!read_endpoint(value, &endpoint))
        return 0;
    bool v4 = endpoint.any || endpoint.family == AF_INET, v6 = endpoint.any || endpoint.family == AF_INET6;
    return (v4 && is_listed(tcp ? "/proc/net/tcp" : "/proc/net/udp", tcp, AF_INET, &endpoint)) ||
           (v6 && is_listed(tcp ? "/proc/net/tcp6" : "/proc/net/udp6", tcp, AF_INET6, &endpoint));
}

/* ---- paths ---- */

/* Device nodes of one device are one. */
static bool is_same_file(const struct stat *a, const struct stat *b)
{
    if (S_ISBLK(a->st_mode) || S_ISCHR(a->st_mode))
        return (a->st_mode & S_IFMT) == (b->st_mode & S_IFMT) && a->st_rdev == b->st_rdev;
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool has_it_open(int proc, const char *number, const struct stat *file)
{
    char path[32];
    DIR *fds;
    struct stat status;
    bool found = false;
    snprintf(path, sizeof path, "%.12s/fd", number);
    if (fk_fd_open_directory(proc, path, &fds) < 0)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(fds));)
        found = entry->d_name[0] != '.' && fstatat(dirfd(fds), entry->d_name, &status, AT_NO_AUTOMOUNT) == 0 &&
                is_same_file(file, &status);
    fk_fd_close_directory(fds);
    return found;
}

static int is_open(const struct stat *file)
{
    DIR *proc;
    bool found = false;
    int code = fk_fd_open_directory(AT_FDCWD, "/proc", &proc);
    if (code < 0)
        return code;
    for (struct dirent *entry; !found && (entry = readdir(proc));)
        found = entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && has_it_open(dirfd(proc), entry->d_name, file);
    fk_fd_close_directory(proc);
    return found;
}

static bool is_kernels(const char *path, const struct stat *status)
{
    char pid[64];
    snprintf(pid, sizeof pid, "/sys/dev/block/%u:%u/pid", major(status->st_rdev), minor(status->st_rdev));
    if (access(pid, F_OK) == 0) /* a connected nbd */
        return true;
    FK_CLOSE_FD int fd = fk_fd_open(AT_FDCWD, path, O_RDONLY | O_EXCL | O_NONBLOCK, 0);
    return fd == -EBUSY;
}

/* Through /proc, since a path may be longer than what fits into an address. */
static int answers(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    FK_CLOSE_FD int file = fk_fd_open(AT_FDCWD, path, O_PATH, 0);
    if (file < 0)
        return file;
    fk_fd_enter();
    FK_CLOSE_FD int fd = fk_fd_keep(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return fd;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", file);
    return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
}

static int is_served(const char *path)
{
    int code = answers(path, SOCK_STREAM);
    if (code == -EPROTOTYPE)
        code = answers(path, SOCK_DGRAM);
    if (code == -EPROTOTYPE)
        return 1;
    if (code == -ECONNREFUSED || code == -ENOENT)
        return 0;
    return code == 0 || code == -EAGAIN ? 1 : code;
}

static int try_path(const char *name, const char *path)
{
    struct stat status;
    int code = stat(path, &status) < 0 ? -errno : 0;
    if (code == -ENOENT || code == -ENOTDIR)
        return 0;
    if (code == 0 && S_ISSOCK(status.st_mode))
        code = is_served(path);
    else if (code == 0)
        code = S_ISBLK(status.st_mode) && is_kernels(path, &status) ? 1 : is_open(&status);
    return code < 0 ? fk_fail_errno(code, "can't check the path %s of %s", path, name) : code;
}

/* ---- which check ---- */

enum kind { TCP, UDP, PATH, COMMAND };

static enum kind kind_of(const char *check)
{
    static const char *const words[] = {"tcp-port", "udp-port", "path-free"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(check, words[i]) == 0)
            return (enum kind)i;
    return COMMAND;
}

bool fk_check_is_command(const char *check)
{
    return kind_of(check) == COMMAND;
}

int fk_check_fits(const char *check, const char *name, const char *value)
{
    struct endpoint endpoint;
    enum kind kind = kind_of(check);
    if ((kind == TCP || kind == UDP) && !read_endpoint(value, &endpoint))
        return fk_fail(-EINVAL,
                       "the value %s of %s can't be checked as a port; give PORT (1 to 65535), ADDRESS:PORT or "
                       "[ADDRESS]:PORT",
                       value, name);
    if (kind == PATH && value[0] != '/')
        return fk_fail(-EINVAL, "the value %s of %s can't be checked as a path; give an absolute one", value, name);
    return 0;
}

int fk_check_now(const char *check, const char *name, const char *value)
{
    switch (kind_of(check)) {
    case TCP:
        return try_port(SOCK_STREAM, name, value);
    case UDP:
        return try_port(SOCK_DGRAM, name, value);
    case PATH:
        return try_path(name, value);
    case COMMAND:
        break;
    }
    return -EINVAL;
}

int fk_check_look(const char *check, const char *name, const char *value)
{
    enum kind kind = kind_of(check);
    return kind == TCP || kind == UDP ? look_for_port(kind == TCP, value) : fk_check_now(check, name, value);
}

/* ---- a command ---- */

int64_t fk_check_limit_ms = FK_CHECK_LIMIT_MS;

struct fk_check {
    struct flk_run *run;
    char *what; /* for sentences */
};

/* Of ours, none that an outer hold has set. */
static bool is_set_here(const char *assignment)
{
    static const char *const ours[] = {"NAME=", "SLOT=", "SLOTS", "VALUE"};
    bool found = false;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        found |= strncmp(assignment, "FLOCKCTL_", 9) == 0 && strncmp(assignment + 9, ours[i], strlen(ours[i])) == 0;
    return found;
}

static const char **make_environment(char texts[3][FLK_NAME_MAX + FLK_VALUE_MAX])
{
    size_t n = 0;
    while (environ && environ[n])
        n++;
    const char **envp = malloc((n + 4) * sizeof *envp), **next = envp;
    if (!envp)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!is_set_here(environ[i]))
            *next++ = environ[i];
    for (size_t i = 0; i < 3; i++)
        *next++ = texts[i];
    *next = NULL;
    return envp;
}

static int start_run(const char *command, char texts[3][FLK_NAME_MAX + FLK_VALUE_MAX], struct flk_run **run)
{
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    FK_CLOSE_FD int null = fk_fd_open(AT_FDCWD, "/dev/null", O_RDWR, 0);
    const char **envp = make_environment(texts);
    const int fds[] = {null, null, null};
    const struct flk_run_spec spec = {
        .argv = argv,
        .envp = envp,
        .fds = fds,
        .limit_ms = fk_check_limit_ms,
        .kill_after_ms = 1000,
    };
    int code = null < 0 ? fk_fail_errno(null, "can't open /dev/null") : envp ? 0 : fk_fail(-ENOMEM, "out of memory");
    if (code == 0)
        code = flk_run_start(&spec, run);
    free(envp);
    return code;
}

int fk_check_start(const char *command, const char *name, unsigned slot, const char *value, struct fk_check **check)
{
    char texts[3][FLK_NAME_MAX + FLK_VALUE_MAX];
    snprintf(texts[0], sizeof texts[0], "FLOCKCTL_NAME=%s", name);
    snprintf(texts[1], sizeof texts[1], "FLOCKCTL_SLOT=%u", slot);
    snprintf(texts[2], sizeof texts[2], "FLOCKCTL_VALUE=%s", value);
    struct fk_check *made = calloc(1, sizeof *made);
    if (!made || asprintf(&made->what, "the check of %s, \"%.200s\",", name, command) < 0) {
        free(made);
        return fk_fail(-ENOMEM, "out of memory");
    }
    int code = start_run(command, texts, &made->run);
    if (code < 0)
        fk_check_free(made);
    else
        *check = made;
    return code;
}

int fk_check_fd(const struct fk_check *check)
{
    return flk_run_fd(check->run);
}

int fk_check_result(struct fk_check *check)
{
    struct flk_run_result result;
    int code = flk_run_wait(check->run, 0, &result);
    if (code < 0)
        return code;
    if (!result.timed_out && (result.exit_code == 126 || result.exit_code == 127))
        return fk_fail(-ENOEXEC, "%s can't be run: sh says %d; correct it, or: flockctl remove", check->what,
                       result.exit_code);
    return result.timed_out || result.exit_code != 0;
}

void fk_check_free(struct fk_check *check)
{
    if (!check)
        return;
    flk_run_free(check->run);
    free(check->what);
    free(check);
}
