/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Has something until it is killed: what somebody does who knows nothing of a pool.
 *
 * Usage: occupy tcp ADDRESS PORT READY   listens; PORT 0: any
 *        occupy udp ADDRESS PORT READY
 *        occupy unix PATH READY          listens
 *        occupy open PATH READY          has it open for reading
 * Once it has it, the file READY is there, with the port in it. */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static unsigned occupy_port(int type, const char *address, const char *port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((in_port_t)atoi(port))};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port))};
    bool is_v6 = strchr(address, ':') != NULL;
    struct sockaddr *any = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t size = is_v6 ? sizeof v6 : sizeof v4;
    inet_pton(any->sa_family, address, is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr);
    int fd = socket(any->sa_family, type, 0);
    if (fd < 0 || bind(fd, any, size) < 0 || (type == SOCK_STREAM && listen(fd, 1) < 0) ||
        getsockname(fd, any, &size) < 0)
        err(1, "%s %s", address, port);
    return ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
}

static void occupy_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)
        err(1, "%s", path);
}

static void say(const char *ready, unsigned port)
{
    char made[4096];
    snprintf(made, sizeof made, "%s.made", ready);
    FILE *file = fopen(made, "w");
    if (!file || fprintf(file, "%u\n", port) < 0 || fclose(file) != 0 || rename(made, ready) < 0)
        err(1, "%s", ready);
}

int main(int argc, char **argv)
{
    unsigned port = 0;
    if (argc == 5)
        port = occupy_port(strcmp(argv[1], "tcp") == 0 ? SOCK_STREAM : SOCK_DGRAM, argv[2], argv[3]);
    else if (argc == 4 && strcmp(argv[1], "unix") == 0)
        occupy_socket(argv[2]);
    else if (argc != 4 || open(argv[2], O_RDONLY) < 0)
        err(1, "%s", argc > 2 ? argv[2] : "usage");
    say(argv[argc - 1], port);
    for (;;)
        pause();
}
