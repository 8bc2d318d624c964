/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

static int now(const char *check, const char *value)
{
    return fk_check_now(check, "pool", value);
}

static int look(const char *check, const char *value)
{
    return fk_check_look(check, "pool", value);
}

/* ---- which values ---- */

static void fits(void)
{
    const char *ports[] = {"1", "80", "65535", "127.0.0.1:80", "[::1]:80", "0.0.0.0:1", "[::]:65535"};
    const char *none[] = {"0",
                          "65536",
                          "080",
                          "",
                          "x",
                          "80x",
                          "-1",
                          "127.0.0.1",
                          "127.0.0.1:",
                          ":80",
                          "localhost:80",
                          "::1:80",
                          "[::1]",
                          "[127.0.0.1]:80",
                          "127.0.0.1:0",
                          "[]:80",
                          "[::1:80",
                          "99999999999"};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        is_int(fk_check_fits("tcp-port", "pool", ports[i]), 0, "%s is a port", ports[i]);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        is_int(fk_check_fits("udp-port", "pool", none[i]), -EINVAL, "\"%s\" is none", none[i]);
    is_int(fk_check_fits("path-free", "pool", "/dev/nbd0"), 0, "an absolute path");
    is_int(fk_check_fits("path-free", "pool", "dev"), -EINVAL, "a relative one: %s", flk_error_detail());
    is_int(fk_check_fits("true", "pool", "anything"), 0, "a command gets anything");
    ok(fk_check_is_command("true") && fk_check_is_command("tcp-port ") && !fk_check_is_command("tcp-port"),
       "what isn't the name of a check is a command");
}

/* ---- ports ---- */

/* Any port. A machine without IPv6: -1. */
static int open_port(int family, int type, const char *address, unsigned *port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr *any = family == AF_INET6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t size = family == AF_INET6 ? sizeof v6 : sizeof v4;
    inet_pton(family, address, family == AF_INET6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr);
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    if (type == SOCK_STREAM) /* as servers do */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (fd < 0 || bind(fd, any, size) < 0 || (type == SOCK_STREAM && listen(fd, 4) < 0) ||
        getsockname(fd, any, &size) < 0)
        return -1;
    *port = ntohs(family == AF_INET6 ? v6.sin6_port : v4.sin_port);
    return fd;
}

/* check both ways */
static void port_is(const char *check, const char *address, unsigned port, int in_use, const char *what)
{
    char value[64];
    snprintf(value, sizeof value, "%s%u", address, port);
    is_int(now(check, value), in_use, "%s of %sPORT: %s", check, address, what);
    is_int(look(check, value), in_use, "  and so it looks");
}

static void ports(const char *check, int type)
{
    unsigned port;
    int fd = open_port(AF_INET, type, "127.0.0.1", &port);
    if (fd < 0)
        bail_out("no port");
    port_is(check, "", port, 1, "in use on one address");
    port_is(check, "127.0.0.1:", port, 1, "on that address");
    port_is(check, "127.0.0.2:", port, 0, "not on another");
    close(fd);
    port_is(check, "", port, 0, "closed");
    port_is(check, "127.0.0.1:", port, 0, "there too");
    fd = open_port(AF_INET, type, "0.0.0.0", &port);
    port_is(check, "127.0.0.1:", port, 1, "in use on all addresses");
    close(fd);
    fd = open_port(AF_INET6, type, "::1", &port);
    if (fd < 0) {
        skip("there is no IPv6");
        return;
    }
    port_is(check, "", port, 1, "in use on an address of IPv6");
    port_is(check, "[::1]:", port, 1, "on that address");
    port_is(check, "127.0.0.1:", port, 0, "not on one of IPv4");
    close(fd);
    port_is(check, "", port, 0, "closed");
}

static void connect_to(unsigned port, int listener)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char byte;
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&address, sizeof address) < 0)
        bail_out("connect: %s", strerror(errno));
    int server = accept(listener, NULL, NULL);
    close(server); /* the first to close is left in TIME_WAIT */
    if (read(client, &byte, 1) != 0)
        bail_out("read");
    close(client);
}

static void time_wait(void)
{
    unsigned port;
    int fd = open_port(AF_INET, SOCK_STREAM, "127.0.0.1", &port);
    if (fd < 0)
        bail_out("no port");
    connect_to(port, fd);
    close(fd);
    port_is("tcp-port", "", port, 0, "in TIME_WAIT, which a server can bind over");
}

static void no_address(void)
{
    ok(now("tcp-port", "192.0.2.1:80") < 0, "an address that isn't ours is an error: %s", flk_error_detail());
    ok(strstr(flk_error_detail(), "192.0.2.1:80") != NULL, "which names it");
}

/* ---- paths ---- */

static void serve(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        (type != SOCK_DGRAM && listen(fd, 1) < 0))
        bail_out("%s: %s", path, strerror(errno));
    is_int(now("path-free", path), 1, "a socket of type %d that is served", type);
    close(fd);
    is_int(now("path-free", path), 0, "one that was left behind");
    unlink(path);
}

static void paths(void)
{
    const char *file = test_path("file");
    is_int(now("path-free", file), 0, "a path that isn't there is free");
    is_int(now("path-free", test_path("none/file")), 0, "even its directory");
    test_write_file(file, "");
    is_int(now("path-free", file), 0, "a file that nobody has open");
    is_int(now("path-free", test_path("file/below")), 0, "below a file there is nothing");
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    is_int(now("path-free", file), 1, "one that somebody has open");
    if (symlink(file, test_path("link")) < 0)
        bail_out("symlink");
    is_int(now("path-free", test_path("link")), 1, "by another name");
    close(fd);
    is_int(now("path-free", file), 0, "closed");
    serve(test_path("stream"), SOCK_STREAM);
    serve(test_path("seqpacket"), SOCK_SEQPACKET);
    serve(test_path("datagram"), SOCK_DGRAM);
    if (mkfifo(test_path("fifo"), 0600) < 0)
        bail_out("mkfifo");
    is_int(now("path-free", test_path("fifo")), 0, "a FIFO doesn't make it wait");
}

/* ---- block devices ---- */

#define NBD_MAJOR 43
#define LOOP_MAJOR 7

/* What the kernel shows of a connected nbd, in a mount namespace of its own. */
static int nbd(void *data)
{
    const char *device = test_path("nbd");
    (void)data;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/sys/dev/block", "tmpfs", 0, NULL) < 0 || mknod(device, S_IFBLK | 0600, makedev(NBD_MAJOR, 0)) < 0)
        return 77;
    if (mkdir("/sys/dev/block/43:0", 0700) < 0 || now("path-free", device) != 0)
        return 1;
    test_write_file("/sys/dev/block/43:0/pid", "1\n");
    if (now("path-free", device) != 1 || look("path-free", device) != 1)
        return 2;
    return unlink("/sys/dev/block/43:0/pid") < 0 || now("path-free", device) != 0 ? 3 : 0;
}

/* A loop device that nobody uses, by a name of our own. False: none is to be had. */
static bool find_device(const char *path, int *fd)
{
    for (unsigned minor = 0; minor < 64; minor++) {
        char shown[64];
        snprintf(shown, sizeof shown, "/sys/dev/block/%d:%u", LOOP_MAJOR, minor);
        if (access(shown, F_OK) < 0 || mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, minor)) < 0)
            continue;
        if ((*fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC)) >= 0)
            return true;
        unlink(path);
    }
    return false;
}

/* On its way to somebody a descriptor is nobody's. */
static void send_away(int sockets[2], int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {.header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS}};
    char byte = 0;
    struct msghdr message = {.msg_iov = &(struct iovec){&byte, 1}, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0 || sendmsg(sockets[0], &message, 0) != 1)
        bail_out("sendmsg: %s", strerror(errno));
    close(fd);
}

/* Claimed as by a mount, which no process has open. */
static void claimed(void)
{
    const char *device = test_path("loop");
    int fd, sockets[2];
    if (!find_device(device, &fd)) {
        skip("there is no block device for us"), skip("there is no block device for us");
        return;
    }
    send_away(sockets, fd);
    is_int(now("path-free", device), 1, "a block device that somebody has claimed is in use, though no process has it open");
    close(sockets[0]);
    close(sockets[1]);
    is_int(now("path-free", device), 0, "until it is let go");
}

static void devices(void)
{
    int status = test_in_child(nbd, NULL);
    if (status == 77)
        skip("only root can make a block device");
    else
        is_int(status, 0, "an nbd is in use while it is connected");
    claimed();
}

/* ---- commands ---- */

static int answer_of(const char *command, const char *value)
{
    struct fk_check *check;
    int code = fk_check_start(command, "pool", 7, value, &check);
    if (code < 0)
        return code;
    struct pollfd event = {.fd = fk_check_fd(check), .events = POLLIN};
    poll(&event, 1, 30000);
    code = fk_check_result(check);
    fk_check_free(check);
    return code;
}

static void commands(void)
{
    is_int(answer_of("true", "v"), 0, "status 0: usable");
    is_int(answer_of("exit 1", "v"), 1, "1: in use");
    is_int(answer_of("exit 255", "v"), 1, "so is any other");
    is_int(answer_of("kill -9 $$", "v"), 1, "or a signal");
    is_int(answer_of("flockctl-has-no-such-command", "v"), -ENOEXEC, "one that isn't there: %s", flk_error_detail());
    is_int(answer_of("/dev/null", "v"), -ENOEXEC, "one that can't be run: %s", flk_error_detail());
    setenv("FLOCKCTL_VALUES", "old", 1);
    setenv("FLOCKCTL_VALUE", "old", 1);
    is_int(
        answer_of("test \"$FLOCKCTL_NAME $FLOCKCTL_SLOT $FLOCKCTL_VALUE ${FLOCKCTL_VALUES-none}\" = 'pool 7 a$b none'",
                  "a$b"),
        0, "it is told of the value, and of no other");
    is_int(answer_of("test -z \"$(cat)\"", "v"), 0, "it has no input");
}

static void too_slow(void)
{
    fk_check_limit_ms = 100;
    is_int(answer_of("trap 'exit 0' TERM; while :; do sleep 0.01; done", "v"), 1,
           "one that isn't done in time: in use, whatever it says when it is ended");
    fk_check_limit_ms = FK_CHECK_LIMIT_MS;
}

static void unfinished(void)
{
    struct fk_check *check;
    if (fk_check_start("exec sleep 1000", "pool", 0, "v", &check) < 0)
        bail_out("%s", flk_error_detail());
    is_int(fk_check_result(check), -EAGAIN, "one that runs has no result");
    ok(!test_readable(fk_check_fd(check), 0), "and its descriptor isn't readable");
    int descriptors = test_descriptors();
    fk_check_free(check);
    is_int(test_descriptors(), descriptors - 1, "it can be ended, and leaves nothing");
}

int main(void)
{
    const char *tool = getenv("FLOCKCTL");
    tap_deadline(120);
    test_root();
    setenv("FLOCKCTL_TOOL", tool && *tool ? tool : "tools/flockctl", 1);
    fits();
    ports("tcp-port", SOCK_STREAM);
    ports("udp-port", SOCK_DGRAM);
    time_wait();
    no_address();
    paths();
    devices();
    commands();
    too_slow();
    unfinished();
    return done_testing();
}
