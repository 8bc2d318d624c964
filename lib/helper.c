/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "flockctl.h"

static const char magic[8] = "flk-run";

static const char *installed = FLK_TOOL;

const char *fk_helper_tool(void)
{
    const char *named = secure_getenv("FLOCKCTL_TOOL");
    return named && *named ? named : installed;
}

void fk_helper_is_this_program(void)
{
    installed = "/proc/self/exe";
}

/* The fixed part of an order; slots and strings follow in the order of its fields. */
struct fixed {
    int64_t limit_ms, kill_after_ms;
    uint64_t mask;
    int32_t signal;
    uint32_t flags, isolate;
    uint32_t n_slots, n_argv, n_envp;
    uint32_t has_envp, has_dir, has_cgroup;
};

/* Counts when there is no memory to write to. */
struct pen {
    char *at;
    size_t size;
};

static void put(struct pen *pen, const void *from, size_t size)
{
    if (pen->at && size > 0) {
        memcpy(pen->at, from, size);
        pen->at += size;
    }
    pen->size += size;
}

static void put_string(struct pen *pen, const char *string)
{
    if (string)
        put(pen, string, strlen(string) + 1);
}

static void put_strings(struct pen *pen, const char *const *strings)
{
    for (; strings && *strings; strings++)
        put_string(pen, *strings);
}

static uint32_t count(const char *const *strings)
{
    uint32_t n = 0;
    while (strings && strings[n])
        n++;
    return n;
}

static struct fk_helper_hello make_hello(size_t size)
{
    struct fk_helper_hello hello = {.protocol = FK_HELPER_PROTOCOL, .size = (uint32_t)size};
    memcpy(hello.magic, magic, sizeof magic);
    strncpy(hello.version, flk_version(), sizeof hello.version - 1);
    return hello;
}

static size_t put_order(char *memory, const struct fk_helper_order *order)
{
    const struct fk_supervise_spec *spec = &order->spec;
    struct pen pen = {.at = memory};
    struct fixed fixed;
    memset(&fixed, 0, sizeof fixed); /* its padding is sent too */
    fixed.limit_ms = spec->limit_ms;
    fixed.kill_after_ms = spec->kill_after_ms;
    fixed.mask = order->mask;
    fixed.signal = spec->signal;
    fixed.flags = spec->flags;
    fixed.isolate = spec->isolate;
    fixed.n_slots = (uint32_t)order->n_slots;
    fixed.n_argv = count(spec->argv);
    fixed.n_envp = count(spec->envp);
    fixed.has_envp = spec->envp != NULL;
    fixed.has_dir = spec->dir != NULL;
    fixed.has_cgroup = spec->cgroup != NULL;
    put(&pen, &fixed, sizeof fixed);
    put(&pen, order->slots, order->n_slots * sizeof *order->slots);
    put_strings(&pen, spec->argv);
    put_strings(&pen, spec->envp);
    put_string(&pen, spec->dir);
    put_string(&pen, spec->cgroup);
    return pen.size;
}

char *fk_helper_pack(const struct fk_helper_order *order, size_t *size)
{
    size_t length = put_order(NULL, order);
    struct fk_helper_hello hello = make_hello(length);
    char *memory = length <= UINT32_MAX ? malloc(sizeof hello + length) : NULL;
    if (!memory)
        return NULL;
    memcpy(memory, &hello, sizeof hello);
    put_order(memory + sizeof hello, order);
    *size = sizeof hello + length;
    return memory;
}

/* ---- the socket ---- */

/* The whole of it, or -ECHILD: the other side is gone. */
static int receive(int socket, void *memory, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(socket, (char *)memory + got, size - got, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 || errno == ECONNRESET ? -ECHILD : -errno;
        got += (size_t)n;
    }
    return 0;
}

static int receive_hello(int socket, struct fk_helper_hello *hello)
{
    int code = receive(socket, hello, sizeof *hello);
    if (code == 0 && memcmp(hello->magic, magic, sizeof magic) != 0)
        return -ECHILD;
    hello->version[sizeof hello->version - 1] = '\0';
    return code;
}

int fk_helper_answer(int socket, const struct fk_helper_answer *answer)
{
    struct {
        struct fk_helper_hello hello;
        struct fk_helper_answer answer;
    } message = {.hello = make_hello(sizeof *answer), .answer = *answer};
    return send(socket, &message, sizeof message, MSG_NOSIGNAL) == sizeof message ? 0 : -errno;
}

int fk_helper_hear(int socket, const char *tool, struct fk_helper_answer *answer)
{
    struct fk_helper_hello hello;
    int code = receive_hello(socket, &hello);
    if (code < 0)
        return code;
    if (hello.protocol != FK_HELPER_PROTOCOL || hello.size != sizeof *answer)
        return fk_fail(
            -EPROTONOSUPPORT,
            "the flockctl tool %s is of version %s, and can't serve this library of version %s; install both of "
            "one version, or name the right tool in FLOCKCTL_TOOL",
            tool, hello.version, flk_version());
    code = receive(socket, answer, sizeof *answer);
    answer->detail[sizeof answer->detail - 1] = '\0';
    return code;
}

/* ---- the helper's reading ---- */

struct reader {
    const char *at, *end;
    bool bad;
};

static const char *take_string(struct reader *reader)
{
    const char *string = reader->at, *nul = memchr(string, '\0', (size_t)(reader->end - string));
    if (nul)
        reader->at = nul + 1;
    else
        reader->bad = true;
    return string;
}

static const char *const *take_strings(struct reader *reader, const char **into, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        into[i] = take_string(reader);
    into[n] = NULL;
    return into;
}

static int read_order(struct reader reader, struct fk_helper_order *order)
{
    struct fixed fixed;
    memcpy(&fixed, reader.at, sizeof fixed);
    reader.at += sizeof fixed;
    if (fixed.n_slots > (size_t)(reader.end - reader.at) / sizeof *order->slots || fixed.n_argv == 0)
        return -EBADMSG;
    order->slots = (const int *)(const void *)reader.at;
    order->n_slots = fixed.n_slots;
    reader.at += fixed.n_slots * sizeof *order->slots;
    size_t n_strings = (size_t)fixed.n_argv + fixed.n_envp, left = (size_t)(reader.end - reader.at);
    order->strings = n_strings > left ? NULL : calloc(n_strings + 2, sizeof *order->strings);
    if (!order->strings)
        return n_strings > left ? -EBADMSG : -ENOMEM;
    order->mask = fixed.mask;
    order->spec.argv = take_strings(&reader, order->strings, fixed.n_argv);
    const char *const *envp = take_strings(&reader, order->strings + fixed.n_argv + 1, fixed.n_envp);
    order->spec.envp = fixed.has_envp ? envp : NULL;
    order->spec.dir = fixed.has_dir ? take_string(&reader) : NULL;
    order->spec.cgroup = fixed.has_cgroup ? take_string(&reader) : NULL;
    order->spec.limit_ms = fixed.limit_ms;
    order->spec.kill_after_ms = fixed.kill_after_ms;
    order->spec.signal = fixed.signal;
    order->spec.flags = fixed.flags;
    order->spec.isolate = fixed.isolate;
    return reader.bad || reader.at != reader.end ? -EBADMSG : 0;
}

static int receive_order(int socket, size_t size, struct fk_helper_order *order)
{
    if (size < sizeof(struct fixed))
        return -EBADMSG;
    order->memory = malloc(size);
    int code = order->memory ? receive(socket, order->memory, size) : -ENOMEM;
    if (code == 0)
        code = read_order((struct reader){.at = order->memory, .end = order->memory + size}, order);
    return code;
}

int fk_helper_receive(int socket, struct fk_helper_order *order)
{
    struct fk_helper_hello hello;
    *order = (struct fk_helper_order){.memory = NULL};
    int code = receive_hello(socket, &hello);
    if (code == 0 && hello.protocol != FK_HELPER_PROTOCOL) {
        struct fk_helper_hello ours = make_hello(0);
        code = send(socket, &ours, sizeof ours, MSG_NOSIGNAL) == sizeof ours ? -EPROTONOSUPPORT : -errno;
    } else if (code == 0) {
        code = receive_order(socket, hello.size, order);
    }
    if (code < 0)
        fk_helper_clear(order);
    return code;
}

void fk_helper_clear(struct fk_helper_order *order)
{
    free(order->strings);
    free(order->memory);
    *order = (struct fk_helper_order){.memory = NULL};
}
