/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "deadlock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deadline.h"
#include "fd.h"
#include "helpers.h"
#include "tap.h"
#include "waiting.h"

static const char *words(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *words(const char *format, ...)
{
    static char texts[8][128];
    static unsigned next;
    char *text = texts[next++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof texts[0], format, arguments);
    va_end(arguments);
    return text;
}

/* ---- actors: children that acquire, with blocking calls, what they are told to ---- */

#define HOLDS 8

struct actor {
    pid_t pid;
    int socket;
};

struct order {
    char what; /* a acquire, r release the oldest, e end */
    size_t n_wants;
    struct {
        char name[32];
        unsigned count, flags;
    } wants[4];
};

struct answer {
    int code;
    char detail[3000];
};

static void carry_out(const struct order *order, struct flk_hold **holds, struct answer *answer)
{
    struct flk_want wants[4];
    size_t n = 0;
    memset(answer, 0, sizeof *answer);
    while (n < HOLDS && holds[n])
        n++;
    memset(wants, 0, sizeof wants);
    for (size_t i = 0; i < order->n_wants; i++)
        wants[i] = (struct flk_want){
            .name = order->wants[i].name, .count = order->wants[i].count, .flags = order->wants[i].flags};
    if (order->what == 'a') {
        answer->code = flk_acquire_many(wants, order->n_wants, NULL, FLK_FOREVER, &holds[n]);
        if (answer->code < 0)
            snprintf(answer->detail, sizeof answer->detail, "%s", flk_error_detail());
    } else if (order->what == 'r' && n > 0) {
        flk_hold_release(holds[0]);
        memmove(holds, holds + 1, (HOLDS - 1) * sizeof *holds);
    }
}

static void act(int socket)
{
    struct order order;
    struct answer answer;
    struct flk_hold *holds[HOLDS] = {NULL};
    while (read(socket, &order, sizeof order) == sizeof order && order.what != 'e') {
        carry_out(&order, holds, &answer);
        if (write(socket, &answer, sizeof answer) != sizeof answer)
            break;
    }
    _exit(0);
}

static struct actor actor_start(void)
{
    struct actor actor;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        bail_out("no pair of sockets");
    actor.pid = tap_fork();
    if (actor.pid == 0) {
        close(pair[0]);
        act(pair[1]);
    }
    close(pair[1]);
    actor.socket = pair[0];
    return actor;
}

static void tell(const struct actor *actor, char what, size_t n, const struct flk_want *wants)
{
    struct order order = {.what = what, .n_wants = n};
    for (size_t i = 0; i < n; i++) {
        snprintf(order.wants[i].name, sizeof order.wants[i].name, "%s", wants[i].name);
        order.wants[i].count = wants[i].count;
        order.wants[i].flags = wants[i].flags;
    }
    if (write(actor->socket, &order, sizeof order) != sizeof order)
        bail_out("an actor has gone");
}

static struct answer heard; /* the last one */

static int hear(const struct actor *actor)
{
    if (read(actor->socket, &heard, sizeof heard) != sizeof heard)
        bail_out("an actor has gone");
    return heard.code;
}

#define WANT(...)             \
    (const struct flk_want[]) \
    {                         \
        {                     \
            __VA_ARGS__       \
        }                     \
    }

static int take(const struct actor *actor, const char *name, unsigned count)
{
    tell(actor, 'a', 1, WANT(.name = name, .count = count));
    return hear(actor);
}

static void want(const struct actor *actor, const char *name, unsigned count)
{
    tell(actor, 'a', 1, WANT(.name = name, .count = count));
}

static int let_go(const struct actor *actor)
{
    tell(actor, 'r', 0, NULL);
    return hear(actor);
}

static void end(struct actor *actor)
{
    tell(actor, 'e', 0, NULL);
    close(actor->socket);
    test_reap(actor->pid);
}

static void kill_actor(struct actor *actor)
{
    kill(actor->pid, SIGKILL);
    close(actor->socket);
    test_reap(actor->pid);
}

/* ---- the file ---- */

static int count_published(void)
{
    struct fk_waiting waiting;
    struct fk_waiting_span span;
    size_t at = 0;
    int count = 0;
    if (fk_waiting_lock(fk_now() + 10 * FK_SECOND, &waiting) < 0)
        bail_out("%s", flk_error_detail());
    while (fk_waiting_next(&waiting, &at, &span))
        count += span.published;
    fk_waiting_unlock(&waiting);
    fk_fd_close(&waiting.fd);
    return count;
}

static void wait_published(int count)
{
    while (count_published() != count)
        usleep(1000);
}

static const char *file(void)
{
    return test_path("root/waiting");
}

/* Stops it while it waits for name. Its ticket is there before it leaves the latch: who comes through the latch after that doesn't stop
 * it in there, where it would keep everybody. */
static void stop_waiter(const struct actor *actor, const char *name)
{
    int latch = open(test_path("root/rows/%s/latch", name), O_RDONLY | O_CLOEXEC);
    if (latch < 0 || flock(latch, LOCK_EX) < 0)
        bail_out("can't lock the latch of %s", name);
    close(latch);
    test_stop(actor->pid);
}

static bool waits(const struct actor *actor)
{
    return !test_readable(actor->socket, 0);
}

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

/* ---- no deadlock, no cost ---- */

static void plain_wait(void)
{
    struct actor a = actor_start(), b = actor_start();
    take(&a, "plain", 1);
    want(&b, "plain", 1);
    test_wait_queued("plain", 1);
    let_go(&a);
    is_int(hear(&b), 0, "who holds nothing waits");
    ok(access(file(), F_OK) < 0, "and doesn't even look for deadlocks");
    end(&a);
    end(&b);
}

/* ---- deadlocks ---- */

static void two(void)
{
    struct actor a = actor_start(), b = actor_start();
    take(&a, "one", 1);
    take(&b, "two", 1);
    want(&a, "two", 1);
    wait_published(1);
    is_int(take(&b, "one", 1), -EDEADLK, "the second of two closes a deadlock and is told");
    ok(strstr(heard.detail, words("pid %d (", b.pid)) && strstr(heard.detail, words("pid %d (", a.pid)),
       "of both processes");
    ok(strstr(heard.detail, "holds two and waits for one; pid"), "what it holds and waits for, itself first");
    ok(strstr(heard.detail, "holds one and waits for two"), "and the other one");
    ok(waits(&a), "the other one waits");
    is_int(count_published(), 1, "and nothing else stands in the file");
    let_go(&b);
    is_int(hear(&a), 0, "and goes on once the victim lets go");
    is_int(count_published(), 0, "then nothing stands there");
    end(&a);
    end(&b);
}

static void many(int n)
{
    struct actor actors[16];
    int victims = 0;
    for (int i = 0; i < n; i++) {
        actors[i] = actor_start();
        take(&actors[i], words("m%d", i), 1);
    }
    for (int i = 0; i < n; i++)
        want(&actors[i], words("m%d", (i + 1) % n), 1);
    /* All at once: the one that comes last is the victim; it lets go, and so does each one that got on. */
    for (int done = 0; done < n;)
        for (int i = 0; i < n; i++) {
            if (actors[i].pid == 0 || waits(&actors[i]))
                continue;
            victims += hear(&actors[i]) == -EDEADLK;
            end(&actors[i]);
            actors[i].pid = 0;
            done++;
        }
    is_int(victims, 1, "of %d at the same time one is the victim, and the rest go on", n);
    is_int(count_published(), 0, "  and none of it is left");
}

static void one_request(void)
{
    struct actor a = actor_start(), b = actor_start();
    take(&b, "r2", 1);
    tell(&a, 'a', 2, (const struct flk_want[]){{.name = "r2", .count = 1}, {.name = "r1", .count = 1}});
    wait_published(1);
    is_int(take(&b, "r1", 1), -EDEADLK, "what a request has got already counts");
    let_go(&b);
    is_int(hear(&a), 0, "  and it goes on");
    end(&a);
    end(&b);
}

static void stopped_member(void)
{
    struct actor a = actor_start(), b = actor_start();
    take(&a, "s1", 1);
    take(&b, "s2", 1);
    want(&a, "s2", 1);
    wait_published(1);
    test_stop(a.pid);
    is_int(take(&b, "s1", 1), -EDEADLK, "one that was stopped while it waits holds on to what it has");
    let_go(&b);
    kill(a.pid, SIGCONT);
    is_int(hear(&a), 0, "  and goes on");
    end(&a);
    end(&b);
}

static void behind_another(void)
{
    struct actor a = actor_start(), b = actor_start(), w = actor_start();
    define("pair", 2);
    take(&a, "pair", 1);
    take(&b, "lone", 1);
    want(&a, "lone", 1);
    want(&w, "pair", 2);
    test_wait_queued("pair", 1);
    wait_published(1);
    is_int(take(&b, "pair", 1), -EDEADLK, "one that holds nothing, before us in the queue, is part of a deadlock");
    ok(strstr(heard.detail, words("waits for pair behind pid %d (", w.pid)), "  and named");
    let_go(&b);
    is_int(hear(&a), 0, "  the others go on");
    let_go(&a);
    let_go(&a);
    is_int(hear(&w), 0, "  all of them");
    end(&a);
    end(&b);
    end(&w);
}

static void shared_behind_exclusive(void)
{
    struct actor a = actor_start(), b = actor_start(), w = actor_start();
    tell(&a, 'a', 1, WANT(.name = "sh", .flags = FLK_SHARED));
    hear(&a);
    take(&b, "shl", 1);
    want(&a, "shl", 1);
    wait_published(1);
    tell(&b, 'a', 1, WANT(.name = "sh", .flags = FLK_SHARED));
    is_int(hear(&b), 0, "a second shared holder is no deadlock");
    tell(&b, 'r', 0, NULL); /* shl */
    hear(&b);
    is_int(hear(&a), 0, "  and lets the first one go on");
    let_go(&b);
    let_go(&a);
    let_go(&a);

    tell(&a, 'a', 1, WANT(.name = "sh", .flags = FLK_SHARED));
    hear(&a);
    take(&b, "shl", 1);
    want(&a, "shl", 1);
    wait_published(1);
    want(&w, "sh", 1);
    test_wait_queued("sh", 1);
    tell(&b, 'a', 1, WANT(.name = "sh", .flags = FLK_SHARED));
    is_int(hear(&b), -EDEADLK, "one behind an exclusive waiter is, when a shared holder waits for us");
    end(&b);
    is_int(hear(&a), 0, "  the others go on");
    end(&a);
    is_int(hear(&w), 0, "  all of them");
    end(&w);
}

static void exclusive_for_shared(void)
{
    struct actor a = actor_start(), b = actor_start();
    tell(&a, 'a', 1, WANT(.name = "up", .flags = FLK_SHARED));
    hear(&a);
    take(&b, "upl", 1);
    want(&a, "upl", 1);
    wait_published(1);
    is_int(take(&b, "up", 1), -EDEADLK, "an exclusive waiter for a shared holder that waits for it is a deadlock");
    end(&b);
    is_int(hear(&a), 0, "  and the holder goes on");
    end(&a);
}

/* ---- no deadlocks ---- */

static void row_of_two(void)
{
    struct actor a = actor_start(), b = actor_start(), c = actor_start();
    define("two-slots", 2);
    take(&a, "two-slots", 1);
    take(&c, "two-slots", 1);
    take(&b, "other", 1);
    want(&a, "other", 1);
    wait_published(1);
    want(&b, "two-slots", 1);
    wait_published(2);
    ok(waits(&b), "a row of two with a holder that runs is no deadlock");
    end(&c);
    is_int(hear(&b), 0, "  since that one lets go");
    let_go(&b);
    is_int(hear(&a), 0, "  and then the other one");
    end(&a);
    end(&b);

    a = actor_start();
    b = actor_start();
    c = actor_start();
    take(&a, "two-slots", 1);
    take(&c, "two-slots", 1);
    take(&b, "other", 1);
    want(&a, "other", 1);
    wait_published(1);
    want(&b, "two-slots", 1);
    wait_published(2);
    is_int(take(&c, "other", 1), -EDEADLK, "the runner that waits for the same closes it");
    end(&c);
    is_int(hear(&b), 0, "  alone");
    end(&b);
    is_int(hear(&a), 0, "  the rest goes on");
    end(&a);
}

static void several_slots(void)
{
    struct actor a = actor_start(), b = actor_start(), c = actor_start();
    define("four", 4);
    take(&a, "four", 2);
    take(&c, "four", 1);
    take(&b, "bee", 1);
    want(&a, "bee", 1);
    wait_published(1);
    want(&b, "four", 2);
    wait_published(2);
    ok(waits(&b), "two of four, one held by one that runs: no deadlock");
    let_go(&c);
    is_int(hear(&b), 0, "  it gets them");
    let_go(&b);
    is_int(hear(&a), 0, "  and so on");
    let_go(&a);
    let_go(&a);
    let_go(&b);
    take(&a, "four", 2);
    take(&b, "bee", 1);
    want(&a, "bee", 1);
    wait_published(1);
    is_int(take(&b, "four", 3), -EDEADLK, "three of four, two held by one that waits for us: a deadlock");
    end(&b);
    is_int(hear(&a), 0, "  that the other one survives");
    end(&a);
    end(&c);
}

static void killed_member(void)
{
    struct actor a = actor_start(), b = actor_start();
    take(&a, "k1", 1);
    take(&b, "k2", 1);
    want(&a, "k2", 1);
    wait_published(1);
    kill_actor(&a);
    is_int(count_published(), 1, "one that was killed leaves what it has published");
    is_int(take(&b, "k1", 1), 0, "which keeps nobody from what it held");
    struct actor c = actor_start(), d = actor_start();
    take(&c, "k3", 1);
    take(&d, "k4", 1);
    want(&c, "k4", 1);
    wait_published(1);
    ok(waits(&c), "and whose place is used again");
    let_go(&d);
    hear(&c);
    end(&b);
    end(&c);
    end(&d);
}

static void killed_in_between(void)
{
    struct actor a = actor_start(), b = actor_start(), w = actor_start();
    define("kpair", 2);
    take(&a, "kpair", 1);
    take(&b, "klone", 1);
    want(&a, "klone", 1);
    want(&w, "kpair", 2);
    test_wait_queued("kpair", 1);
    wait_published(1);
    kill_actor(&w);
    is_int(take(&b, "kpair", 1), 0, "a dead waiter before us in the queue is in nobody's way");
    end(&b);
    hear(&a);
    end(&a);
}

static void stopped_in_between(void)
{
    struct actor a = actor_start(), b = actor_start(), w = actor_start();
    define("spair", 2);
    take(&a, "spair", 1);
    take(&b, "slone", 1);
    want(&a, "slone", 1);
    want(&w, "spair", 2);
    test_wait_queued("spair", 1);
    wait_published(1);
    stop_waiter(&w, "spair");
    is_int(take(&b, "spair", 1), 0, "nor is one that was stopped: we go past it after a while");
    kill_actor(&w);
    end(&b);
    hear(&a);
    end(&a);
}

static void continued_in_between(void)
{
    struct actor a = actor_start(), b = actor_start(), w = actor_start();
    define("cpair", 2);
    take(&a, "cpair", 1);
    take(&b, "clone", 1);
    want(&a, "clone", 1);
    want(&w, "cpair", 2);
    test_wait_queued("cpair", 1);
    wait_published(1);
    stop_waiter(&w, "cpair");
    want(&b, "cpair", 1);
    wait_published(2);
    kill(w.pid, SIGCONT);
    is_int(hear(&b), -EDEADLK, "one that goes on before it was passed is found at the next look");
    end(&b);
    hear(&a);
    end(&a);
    hear(&w);
    end(&w);
}

static void next_name(void)
{
    struct actor a = actor_start(), b = actor_start(), c = actor_start();
    take(&b, "next2", 1);
    take(&c, "next3", 1);
    tell(&a, 'a', 3,
         (const struct flk_want[]){
             {.name = "next1", .count = 1}, {.name = "next2", .count = 1}, {.name = "next3", .count = 1}});
    wait_published(1);
    let_go(&b);
    test_wait_queued("next3", 1);
    wait_published(1);
    want(&b, "next2", 1);
    test_wait_queued("next2", 1);
    ok(waits(&b), "a request that has moved on to the next name isn't where it was");
    is_int(take(&c, "next1", 1), -EDEADLK, "  but where it is");
    end(&c);
    hear(&a);
    end(&a);
    is_int(hear(&b), 0, "  and everybody gets on");
    end(&b);
}

static void removed_row(void)
{
    struct actor a = actor_start(), x = actor_start();
    take(&a, "keep", 1);
    take(&x, "gone", 1);
    pid_t remover = tap_fork();
    if (remover == 0)
        _exit(flk_row_remove("gone", FLK_FOREVER) == 0 ? 0 : 1);
    test_wait_queued("gone", 1);
    want(&a, "gone", 1);
    wait_published(1);
    let_go(&x);
    is_int(test_reap(remover), 0, "a row that somebody waits for with something else in hand is removed");
    is_int(hear(&a), 0, "  and the one that waits goes on with a new one");
    is_int(count_published(), 0, "  nothing is left");
    end(&a);
    end(&x);
}

static void resized_row(void)
{
    struct actor a = actor_start(), b = actor_start(), x = actor_start();
    take(&a, "rz1", 1);
    take(&x, "rz2", 1);
    pid_t resizer = tap_fork();
    if (resizer == 0)
        _exit(flk_row_resize("rz2", 2, FLK_FOREVER) == 0 ? 0 : 1);
    test_wait_queued("rz2", 1);
    want(&a, "rz2", 1);
    wait_published(1);
    let_go(&x);
    is_int(test_reap(resizer), 0, "a row is made larger below one that waits");
    is_int(hear(&a), 0, "  who goes on");
    take(&b, "rz2", 1);
    want(&b, "rz1", 1);
    wait_published(1);
    ok(waits(&b), "  what stood of the old row makes no deadlock of the new one");
    end(&a);
    is_int(hear(&b), 0, "  really not");
    end(&b);
    end(&x);
}

/* ---- in one process ---- */

static int step_while_holding(void *data)
{
    const struct actor *other = data;
    struct flk_hold *hold, *second;
    struct flk_request *request;
    if (flk_acquire("async1", 0, 0, &hold) < 0 ||
        flk_request_start(WANT(.name = "async2"), 1, NULL, FLK_FOREVER, &request) < 0 ||
        flk_request_step(request, &second) != -EAGAIN)
        return 1;
    want(other, "async1", 1);
    test_wait_queued("async1", 1);
    flk_hold_release(hold);
    int code = hear(other);
    flk_request_cancel(request);
    return code == 0 ? 0 : 2;
}

static void stepping(void)
{
    struct actor other = actor_start();
    take(&other, "async2", 1);
    is_int(test_in_child(step_while_holding, &other), 0, "a program that steps a request may release meanwhile");
    end(&other);
}

static void *acquire_in_thread(void *data)
{
    struct flk_hold *hold = NULL;
    int code = flk_acquire(data, 0, FLK_FOREVER, &hold);
    if (code == 0)
        flk_hold_release(hold);
    return (void *)(intptr_t)code;
}

static int thread_runs(const struct actor *other)
{
    struct flk_hold *hold;
    pthread_t thread;
    void *code;
    if (flk_acquire("t1", 0, 0, &hold) < 0 || pthread_create(&thread, NULL, acquire_in_thread, (void *)"t2") != 0)
        return 1;
    test_wait_queued("t2", 1);
    want(other, "t1", 1);
    wait_published(1);
    flk_hold_release(hold); /* by a thread that doesn't wait */
    if (hear(other) != 0 || let_go(other) != 0)
        return 2;
    pthread_join(thread, &code);
    return (intptr_t)code == 0 ? 0 : 3;
}

static void *hold_and_want(void *data)
{
    char *const *names = data;
    struct flk_hold *hold, *second = NULL;
    if (flk_acquire(names[0], 0, FLK_FOREVER, &hold) < 0)
        return (void *)1;
    int code = flk_acquire(names[1], 0, FLK_FOREVER, &second);
    if (code == 0)
        flk_hold_release(second);
    flk_hold_release(hold);
    return (void *)(intptr_t)code;
}

static int threads_in_deadlock(void)
{
    char *first[] = {(char *)"u1", (char *)"u2"}, *second[] = {(char *)"u2", (char *)"u1"};
    pthread_t thread;
    void *code;
    struct flk_hold *hold, *other;
    if (flk_acquire(second[0], 0, 0, &hold) < 0 || pthread_create(&thread, NULL, hold_and_want, first) != 0)
        return 1;
    wait_published(1);
    if (flk_acquire(second[1], 0, FLK_FOREVER, &other) != -EDEADLK)
        return 2;
    flk_hold_release(hold);
    pthread_join(thread, &code);
    return (intptr_t)code == 0 ? 0 : 3;
}

static void threads(void)
{
    struct actor other = actor_start();
    take(&other, "t2", 1);
    is_int(thread_runs(&other), 0, "what one thread holds doesn't count for another one that waits");
    end(&other);
    is_int(threads_in_deadlock(), 0, "two threads of a process in a deadlock are told, too");
}

static int heir_waits(void *data)
{
    struct flk_hold *hold;
    (void)data;
    return flk_acquire("i2", 0, FLK_FOREVER, &hold) == -EDEADLK ? 0 : 1;
}

static int parent_of_heir(void *data)
{
    const struct actor *other = data;
    struct flk_hold *hold;
    if (flk_acquire("i1", 0, 0, &hold) < 0 || flk_hold_inherit(hold, 1) < 0)
        return 1;
    want(other, "i1", 1);
    wait_published(1);
    pid_t child = fork();
    if (child == 0)
        _exit(heir_waits(NULL));
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static void inherited(void)
{
    struct actor other = actor_start();
    take(&other, "i2", 1);
    is_int(test_in_child(parent_of_heir, &other), 0, "a child that has inherited a slot and waits keeps that slot");
    is_int(hear(&other), 0, "  and is the only victim");
    end(&other);
}

/* ---- what may stand in the file ---- */

static void damaged(const char *what, const char *text, size_t length)
{
    struct actor a = actor_start(), b = actor_start();
    int fd = open(file(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        bail_out("can't write %s", file());
    close(fd);
    int before = count_published();
    take(&a, "d1", 1);
    take(&b, "d2", 1);
    want(&a, "d2", 1);
    wait_published(before + 1);
    is_int(take(&b, "d1", 1), -EDEADLK, "%s in it hides no deadlock", what);
    end(&b);
    hear(&a);
    end(&a);
}

static void damaged_files(void)
{
    static char large[1000000];
    memset(large, '+', sizeof large);
    damaged("a megabyte of marks", large, sizeof large);
    memset(large, 0, sizeof large);
    damaged("a megabyte of zeros", large, sizeof large);
    memset(large, ' ', 1024);
    memcpy(large, "+0002\nwaits=1 1 1 1 x d1\nholds=1 1 x d2 0:", 42);
    damaged("a record cut short", large, 1024);
    memset(large, ' ', 512);
    memcpy(large, "+9999\nwaits=", 12);
    damaged("one longer than the file", large, 512);
    unlink(file());
    struct stat status;
    define("x", 1);
    two();
    ok(stat(file(), &status) == 0 && (status.st_mode & 07777) == 01600, "it is made again, with mode 01600");
}

int main(void)
{
    tap_deadline(60);
    test_root();
    plain_wait();
    two();
    many(2);
    many(3);
    many(10);
    one_request();
    stopped_member();
    behind_another();
    exclusive_for_shared();
    shared_behind_exclusive();
    row_of_two();
    several_slots();
    killed_member();
    killed_in_between();
    stopped_in_between();
    continued_in_between();
    next_name();
    removed_row();
    resized_row();
    stepping();
    threads();
    inherited();
    damaged_files();
    return done_testing();
}
