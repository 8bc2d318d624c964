/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helpers.h"
#include "latch.h"
#include "queue.h"
#include "shared.h"
#include "tap.h"

static struct flk_row **rows;

/* The picture of one name, until the next one. */
static const struct flk_row *look(const char *name)
{
    flk_inspect_free(rows);
    rows = NULL;
    int code = flk_inspect((const char *const[]){name, NULL}, &rows);
    if (code < 1)
        bail_out("%s: %s", name, flk_error_detail());
    return rows[0];
}

static const struct flk_slot *look_at(const char *name, unsigned slot)
{
    const struct flk_row *row = look(name);
    if (slot >= row->n_slots)
        bail_out("%s has no slot %u: %s", name, slot, row->problem ? row->problem : "");
    return row->slots[slot];
}

static void define(const char *name, unsigned slots)
{
    if (flk_row_define(name, slots) < 0)
        bail_out("%s", flk_error_detail());
}

static bool holds(const struct flk_slot *slot, pid_t pid)
{
    for (size_t i = 0; i < slot->n_holders; i++)
        if (slot->holders[i]->pid == pid)
            return true;
    return false;
}

static struct locker start_holder(const char *name, unsigned count, unsigned flags)
{
    struct locker locker = {.wants = {{.name = name, .count = count, .flags = flags}}, .timeout_ms = -1};
    if (locker_start(&locker) != 'h' || locker_wait(&locker) != 0)
        bail_out("%s can't be held", name);
    return locker;
}

static struct locker start_waiter(const char *name, unsigned count, unsigned flags)
{
    struct locker locker = {.wants = {{.name = name, .count = count, .flags = flags}}, .timeout_ms = -1};
    if (locker_start(&locker) != 'q')
        bail_out("%s isn't waited for", name);
    return locker;
}

static const char *slot_path(const char *name, unsigned slot)
{
    return test_path("root/rows/%s/slots/%u", name, slot);
}

static void overwrite(const char *path, const char *text, size_t length, off_t at)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, text, length, at) != (ssize_t)length)
        bail_out("%s: %s", path, strerror(errno));
    close(fd);
}

/* ---- children that do something else than acquire and hold ---- */

struct child {
    pid_t pid;
    int told; /* readable once the child has done it */
};

/* Runs in a child until that is killed. */
static struct child start_child(void (*run)(void *data), void *data)
{
    int fds[2];
    if (pipe(fds) < 0)
        bail_out("pipe: %s", strerror(errno));
    struct child child = {.pid = tap_fork(), .told = fds[0]};
    if (child.pid == 0) {
        run(data);
        close(fds[0]);
        if (write(fds[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(fds[1]);
    char byte;
    if (read(fds[0], &byte, 1) != 1)
        bail_out("a child has failed");
    return child;
}

static void kill_child(struct child *child)
{
    kill(child->pid, SIGKILL);
    test_reap(child->pid);
    close(child->told);
}

static void open_slot(const char *name, bool locked)
{
    int fd = open(slot_path(name, 0), O_RDWR | O_NONBLOCK);
    if (fd < 0 || (locked && flock(fd, LOCK_EX | LOCK_NB) < 0))
        _exit(1);
}

static void join_by_hand(void *data)
{
    open_slot(data, true);
}

static void *sleep_on(void *data)
{
    int fd = *(int *)data;
    if (write(fd, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

/* The main thread ends: its own /proc entries are those of a zombie. */
static void join_and_leave_a_thread(void *data)
{
    static int fds[2];
    char byte;
    pthread_t thread;
    join_by_hand(data);
    if (pipe(fds) < 0 || pthread_create(&thread, NULL, sleep_on, &fds[1]) != 0 || read(fds[0], &byte, 1) != 1)
        _exit(1);
}

static void open_without_lock(void *data)
{
    open_slot(data, false);
}

static void hide(void *data)
{
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        _exit(1);
    open_slot(data, true);
}

struct heirs {
    const char *name;
    unsigned flags;
    pid_t *pids; /* of two, in shared memory */
};

static void bequeath(void *data)
{
    struct heirs *heirs = data;
    struct flk_hold *hold;
    if (flk_acquire(heirs->name, heirs->flags, 0, &hold) < 0 || flk_hold_inherit(hold, 1) < 0)
        _exit(1);
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60); /* should the test end before it has killed us */
            pause();
            _exit(1);
        }
        heirs->pids[i] = pid;
    }
}

static void end_heirs(const struct heirs *heirs)
{
    for (int i = 0; i < 2; i++)
        kill(heirs->pids[i], SIGKILL);
}

/* ---- tests ---- */

static void nothing(void)
{
    is_int(flk_inspect(NULL, &rows), 0, "an empty lock directory has no rows");
    ok(rows && !rows[0], "and the list says so");
    const struct flk_row *row = look("unheard.of");
    ok(row->n_slots == 0 && row->n_waiters == 0 && !row->problem, "a name that nobody has used has no slots");
    is_int(access(test_path("root/rows/unheard.of"), F_OK), -1, "and isn't made by the look");
    struct flk_row **untouched = (struct flk_row **)&untouched;
    is_int(flk_inspect((const char *const[]){"a/b", NULL}, &untouched), -EINVAL, "what can't be a name is an error");
    ok(untouched == (struct flk_row **)&untouched, "which writes no result");
    flk_inspect_free(NULL);
    define("b", 1);
    define("a", 2);
    flk_inspect_free(rows);
    is_int(flk_inspect(NULL, &rows), 2, "all names");
    ok(strcmp(rows[0]->name, "a") == 0 && strcmp(rows[1]->name, "b") == 0 && !rows[2], "sorted");
    flk_inspect_free(rows);
    is_int(flk_inspect((const char *const[]){"b", "a", "b", NULL}, &rows), 2, "a name given twice is shown once");
    ok(rows[0]->n_slots == 2 && rows[0]->slots[1]->number == 1 && rows[0]->slots[1]->state == FLK_SLOT_FREE &&
           rows[0]->slots[1]->n_holders == 0,
       "with its free slots");
}

static void held_by_us(void)
{
    struct flk_hold *hold;
    struct flk_want want = {.name = "ours", .slots = 2};
    struct flk_options options = {.label = "a \033label", .command = "a \xff command"};
    if (flk_acquire_many(&want, 1, &options, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    const struct flk_slot *slot = look_at("ours", 0);
    is_int(slot->state, FLK_SLOT_HELD, "a slot that we have is held");
    is_int((int)slot->n_holders, 1, "by one process");
    is_int(slot->holders[0]->pid, getpid(), "this one");
    ok(slot->holders[0]->acquirer && !slot->holders[0]->shared && !slot->holders[0]->foreign, "which acquired it");
    is_str(slot->holders[0]->id, flk_hold_id(hold), "by the hold's id");
    is_str(slot->holders[0]->label, "a \033label", "with the label");
    is_str(slot->holders[0]->command, "a \xff command", "and command as they were given");
    ok(slot->holders[0]->since_ms > 1600000000000, "since some time");
    is_int(rows[0]->slots[1]->state, FLK_SLOT_FREE, "the other one is free");
    flk_hold_release(hold);
    is_int(look_at("ours", 0)->state, FLK_SLOT_FREE, "and so is the first after its release");
}

static void waiters(void)
{
    define("w", 3);
    struct locker holder = start_holder("w", 2, 0);
    struct locker first = start_waiter("w", 3, 0), second = start_waiter("w", 2, 0), third = start_waiter("w", 1, 0);
    const struct flk_row *row = look("w");
    ok(row->slots[0]->state == FLK_SLOT_HELD && row->slots[1]->state == FLK_SLOT_HELD &&
           row->slots[2]->state == FLK_SLOT_FREE,
       "two slots are held, and one is left free for the first in line");
    is_int((int)row->n_waiters, 3, "three wait");
    ok(row->waiters[0]->who->pid == first.pid && row->waiters[1]->who->pid == second.pid &&
           row->waiters[2]->who->pid == third.pid,
       "in their order");
    ok(row->waiters[0]->n_wants == 1 && row->waiters[0]->wants[0].count == 3 && row->waiters[1]->wants[0].count == 2 &&
           row->waiters[2]->wants[0].count == 1,
       "with what each wants");
    is_str(row->waiters[0]->wants[0].name, "w", "of which name");
    ok(row->waiters[0]->waited_ms >= 0 && row->waiters[0]->waited_ms < 60000, "and how long it waits");
    ok(!row->waiters[0]->who->stopped && !row->waiters[0]->who->acquirer, "none is stopped");
    test_stop(second.pid);
    row = look("w");
    ok(row->n_waiters >= 2 && row->waiters[1]->who->pid == second.pid && row->waiters[1]->who->stopped,
       "one that is stopped is seen to be");
    kill(second.pid, SIGCONT);
    locker_kill(&first);
    row = look("w");
    ok(row->n_waiters == 2 && row->waiters[0]->who->pid == second.pid, "one that is killed is seen no more");
    locker_kill(&second);
    locker_kill(&third);
    locker_release(&holder);
    is_int((int)look("w")->n_waiters, 0, "nor are others");
}

/* A ticket whose record is of another release, or is not yet written. */
static void waiter_without_record(void)
{
    char header[FK_RECORD_SIZE];
    struct fk_latch latch;
    struct locker holder = start_holder("nr", 0, 0), waiter = start_waiter("nr", 0, 0);
    int fd = open(test_path("root/rows/nr/latch"), O_RDWR | O_CLOEXEC);
    if (fk_latch_read(fd, &latch, header) < 0 || pwrite(fd, "x", 1, fk_latch_waiter_at(1, latch.number)) != 1)
        bail_out("the latch can't be changed");
    const struct flk_row *row = look("nr");
    ok(row->n_waiters == 1 && row->waiters[0]->who->pid == 0 && row->waiters[0]->wants[0].count == 0,
       "a waiter whose record can't be read is seen to wait");
    char *who = malloc(1 << 20);
    memset(who, 'x', 1 << 20);
    int file = open(test_path("root/rows/nr/queue/%llu.who", (unsigned long long)latch.number),
                    O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ok(write(file, who, 1 << 20) == 1 << 20, "a record of 1 MB");
    row = look("nr");
    ok(row->n_waiters == 1 && row->waiters[0]->who->pid == 0, "tells nothing, either");
    free(who);
    close(file);
    close(fd);
    locker_kill(&waiter);
    locker_release(&holder);
}

static void shared(void)
{
    struct locker a = start_holder("s", 0, FLK_SHARED), b = start_holder("s", 0, FLK_SHARED);
    struct locker c = start_holder("s", 0, FLK_SHARED), writer = start_waiter("s", 0, 0);
    struct locker reader = start_waiter("s", 0, FLK_SHARED);
    const struct flk_slot *slot = look_at("s", 0);
    is_int((int)slot->n_holders, 3, "three share it");
    ok(slot->state == FLK_SLOT_HELD && holds(slot, a.pid) && holds(slot, b.pid) && holds(slot, c.pid),
       "and are all named");
    ok(slot->holders[0]->shared && slot->holders[0]->acquirer, "as shared ones");
    ok(!(rows[0]->waiters[0]->wants[0].flags & FLK_SHARED) && (rows[0]->waiters[1]->wants[0].flags & FLK_SHARED),
       "who wants to share it is told from who doesn't");
    locker_kill(&b);
    slot = look_at("s", 0);
    ok(slot->n_holders == 2 && !holds(slot, b.pid), "one that is killed has it no more");
    locker_release(&a);
    locker_kill(&writer);
    locker_kill(&reader);
    locker_kill(&c);
    is_int(look_at("s", 0)->state, FLK_SLOT_FREE, "shared holders that died leave it free, not abandoned");
}

static void abandoned(void)
{
    struct locker holder = start_holder("ab", 0, 0);
    pid_t pid = holder.pid;
    locker_kill(&holder);
    const struct flk_slot *slot = look_at("ab", 0);
    is_int(slot->state, FLK_SLOT_ABANDONED, "the holder was killed: abandoned");
    ok(slot->n_holders == 0 && slot->last && slot->last->pid == pid, "by the one that had it");
    struct locker next = start_holder("ab", 0, 0);
    is_int(look_at("ab", 0)->state, FLK_SLOT_HELD, "the next one holds it");
    locker_release(&next);
    is_int(look_at("ab", 0)->state, FLK_SLOT_FREE, "and frees it");
    char cut[FK_RECORD_SIZE];
    memset(cut, ' ', sizeof cut);
    memcpy(cut, "+\nid=cut shor", 13);
    overwrite(test_path("root/rows/ab/latch"), cut, sizeof cut, FK_LATCH_HEADER);
    slot = look_at("ab", 0);
    ok(slot->state == FLK_SLOT_ABANDONED && !slot->last, "it says that somebody died, not who");
}

static void inherited(void)
{
    struct heirs heirs = {.name = "heir", .pids = test_shared(2 * sizeof(pid_t))};
    struct child child = start_child(bequeath, &heirs);
    const struct flk_slot *slot = look_at("heir", 0);
    ok(slot->state == FLK_SLOT_HELD && slot->n_holders == 1 && slot->holders[0]->pid == child.pid,
       "while the acquirer lives, it is the holder");
    char id[FLK_ID_SIZE];
    snprintf(id, sizeof id, "%s", slot->holders[0]->id);
    kill_child(&child);
    slot = look_at("heir", 0);
    is_int(slot->state, FLK_SLOT_INHERITED, "the acquirer is dead, its children keep it");
    ok(slot->n_holders == 2 && holds(slot, heirs.pids[0]) && holds(slot, heirs.pids[1]), "both are named");
    ok(!slot->holders[0]->acquirer && slot->holders[0]->since_ms > 0 && strcmp(slot->holders[0]->id, id) == 0 &&
           strstr(slot->holders[0]->command, "inspect"),
       "with its hold's id and time, and their own command");
    ok(slot->last && slot->last->pid == child.pid, "and it is named, too");
    end_heirs(&heirs);
    heirs.name = "shared.heir";
    heirs.flags = FLK_SHARED;
    struct locker other = start_holder("shared.heir", 0, FLK_SHARED);
    child = start_child(bequeath, &heirs);
    is_int((int)look_at("shared.heir", 0)->n_holders, 2, "two share it");
    kill_child(&child);
    slot = look_at("shared.heir", 0);
    ok(slot->state == FLK_SLOT_HELD && slot->n_holders == 3 && holds(slot, other.pid) && holds(slot, heirs.pids[0]) &&
           holds(slot, heirs.pids[1]),
       "one is killed: the other one and the heirs are named");
    locker_release(&other);
    slot = look_at("shared.heir", 0);
    ok(slot->state == FLK_SLOT_INHERITED && slot->n_holders == 2 && slot->last && slot->last->pid == child.pid &&
           slot->holders[0]->shared,
       "then the heirs alone");
    end_heirs(&heirs);
}

/* What a holder writes that leaves the slot to others. */
static void ended(void)
{
    struct heirs heirs = {.name = "end", .pids = test_shared(2 * sizeof(pid_t))};
    struct child child = start_child(bequeath, &heirs);
    char text[FK_RECORD_SIZE];
    int fd = open(test_path("root/rows/end/latch"), O_RDWR | O_CLOEXEC);
    int length = snprintf(text, sizeof text, "-\nended=1795490528387327556\nid=fabc\npid=%d\nend\n", (int)child.pid);
    ok(pwrite(fd, text, (size_t)length, FK_LATCH_HEADER) == length, "the acquirer says that it has let go");
    close(fd);
    const struct flk_slot *slot = look_at("end", 0);
    ok(slot->state == FLK_SLOT_INHERITED && holds(slot, heirs.pids[0]) && slot->last && slot->last->pid == child.pid &&
           strcmp(slot->holders[0]->id, "fabc") == 0,
       "and others have it still: inherited");
    kill_child(&child);
    for (int i = 0; i < 2; i++)
        kill(heirs.pids[i], SIGKILL);
    while (look_at("end", 0)->n_holders > 0)
        usleep(1000);
    is_int(look_at("end", 0)->state, FLK_SLOT_FREE, "when those have ended it is free, not abandoned");
}

static void outsiders(void)
{
    define("out", 1);
    struct child child = start_child(join_by_hand, (char[]){"out"});
    const struct flk_slot *slot = look_at("out", 0);
    ok(slot->state == FLK_SLOT_HELD && slot->n_holders == 1 && slot->holders[0]->pid == child.pid,
       "one that joined by hand is found");
    ok(!slot->holders[0]->acquirer && slot->holders[0]->since_ms == 0 && !*slot->holders[0]->id, "without a record");
    kill_child(&child);
    child = start_child(open_without_lock, (char[]){"out"});
    is_int(look_at("out", 0)->state, FLK_SLOT_FREE, "open and not locked is free");
    kill_child(&child);
}

static void zombie_leader(void)
{
    int fds[2];
    char byte;
    define("leader", 1);
    if (pipe(fds) < 0)
        bail_out("pipe: %s", strerror(errno));
    pid_t pid = tap_fork();
    if (pid == 0) {
        join_and_leave_a_thread((char[]){"leader"});
        if (write(fds[1], "x", 1) == 1)
            pthread_exit(NULL);
        _exit(1);
    }
    if (read(fds[0], &byte, 1) != 1)
        bail_out("a child has failed");
    char path[64], text[512];
    for (char state = 0; state != 'Z';) {
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = read(fd, text, sizeof text - 1);
        text[length > 0 ? length : 0] = '\0';
        close(fd);
        state = strrchr(text, ')')[2];
    }
    const struct flk_slot *slot = look_at("leader", 0);
    ok(slot->state == FLK_SLOT_HELD && holds(slot, pid), "a process whose main thread has ended has it still");
    kill(pid, SIGKILL);
    test_reap(pid);
    is_int(look_at("leader", 0)->state, FLK_SLOT_FREE, "until the others have");
    close(fds[0]);
    close(fds[1]);
}

static void put_byte(const char *name)
{
    int fd = open(slot_path(name, 0), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || write(fd, "", 1) != 1)
        bail_out("%s: %s", name, strerror(errno));
    close(fd);
}

/* A byte hides from tee(2) whether there is a writer. */
static void bytes(void)
{
    define("byte", 1);
    int watch = open(slot_path("byte", 0), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    put_byte("byte");
    for (int i = 0; i < 40; i++)
        look("byte");
    is_int(look_at("byte", 0)->state, FLK_SLOT_FREE, "a slot with a byte in it and no holder is free");
    struct child child = start_child(join_by_hand, (char[]){"byte"});
    const struct flk_slot *slot = look_at("byte", 0);
    ok(slot->state == FLK_SLOT_HELD && holds(slot, child.pid), "with one it is held");
    char left[4];
    is_int((int)read(watch, left, sizeof left), 1, "and no look takes the byte away");
    kill_child(&child);
    close(watch);
}

static int as_other_user(void *data)
{
    (void)data;
    if (flk_root_set(test_path("theirs/root")) < 0 || flk_row_define("hid", 1) < 0)
        return 1;
    int fds[2];
    if (pipe(fds) < 0)
        return 2;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (prctl(PR_SET_DUMPABLE, 0) < 0)
            _exit(1);
        int fd = open(test_path("theirs/root/rows/hid/slots/0"), O_RDWR | O_NONBLOCK);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || write(fds[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    char byte;
    struct flk_row **seen;
    if (read(fds[0], &byte, 1) != 1 || flk_inspect(NULL, &seen) != 1)
        return 3;
    const struct flk_slot *slot = seen[0]->slots[0];
    int status = slot->state != FLK_SLOT_HELD ? 4
                 : slot->n_holders != 1       ? 5
                 : slot->holders[0]->pid != 0 ? 6
                 : *slot->holders[0]->command ? 7
                                              : 0;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    flk_inspect_free(seen);
    if (flk_inspect(NULL, &seen) != 1 || seen[0]->slots[0]->state != FLK_SLOT_FREE)
        return 8;
    flk_inspect_free(seen);
    return status;
}

static void hidden(void)
{
    if (!test_is_root()) {
        define("hidden", 1);
        struct child child = start_child(hide, (char[]){"hidden"});
        const struct flk_slot *slot = look_at("hidden", 0);
        ok(slot->state == FLK_SLOT_HELD && slot->n_holders == 1 && slot->holders[0]->pid == 0,
           "who can't be looked at has it, whoever that is");
        kill_child(&child);
        return;
    }
    mkdir(test_path("theirs"), 0755);
    is_int(test_as_other_user(test_path("theirs"), as_other_user, NULL), 0,
           "who can't be looked at has it, whoever that is");
}

static void change_record(const char *name, const char *key, const char *value)
{
    char text[FK_RECORD_SIZE + 1];
    int fd = open(test_path("root/rows/%s/latch", name), O_RDWR | O_CLOEXEC);
    ssize_t length = pread(fd, text, FK_RECORD_SIZE, FK_LATCH_HEADER);
    text[length > 0 ? length : 0] = '\0';
    const char *at = strstr(text, key);
    if (!at || pwrite(fd, value, strlen(value), FK_LATCH_HEADER + (at - text) + (off_t)strlen(key)) < 0)
        bail_out("no %s in the record of %s", key, name);
    close(fd);
}

static void foreign(void)
{
    struct locker holder = start_holder("foreign", 0, 0);
    change_record("foreign", "\ntimens=", "1");
    const struct flk_slot *slot = look_at("foreign", 0);
    ok(slot->state == FLK_SLOT_HELD && slot->holders[0]->pid == holder.pid &&
           slot->holders[0]->foreign == FLK_FOREIGN_TIME,
       "one of another time namespace is not taken for dead");
    change_record("foreign", "\npidns=", "1");
    slot = look_at("foreign", 0);
    ok(slot->n_holders == 1 && slot->holders[0]->pid == holder.pid && slot->last &&
           (slot->last->foreign & FLK_FOREIGN_PID) && slot->last->pid_namespace != slot->holders[0]->pid_namespace,
       "one of another pid namespace that we see isn't looked up by its number there");
    locker_kill(&holder);
    define("far", 1);
    char text[FK_RECORD_SIZE];
    int fd = open(test_path("root/rows/far/latch"), O_WRONLY | O_CLOEXEC);
    const struct fk_owner *self;
    if (fk_owner_self(&self) < 0)
        bail_out("%s", flk_error_detail());
    int length = snprintf(text, sizeof text,
                          "+\nid=far\npid=7\nstart=1\nboot=%s\npidns=1\ntimens=1\nsince=1000000000\n"
                          "news=of a later release\ncommand=far away\nend\n",
                          self->boot_id);
    ok(pwrite(fd, text, (size_t)length, FK_LATCH_HEADER) == length, "a record with a key of a later release");
    close(fd);
    slot = look_at("far", 0);
    ok(slot->state == FLK_SLOT_ABANDONED && slot->last && strcmp(slot->last->command, "far away") == 0 &&
           slot->last->pid == 7,
       "is read all the same");
}

static void damaged(void)
{
    define("bad", 4);
    define("good", 1);
    unlink(slot_path("bad", 0));
    test_write_file(slot_path("bad", 0), "a file");
    unlink(slot_path("bad", 1));
    ok(symlink(slot_path("bad", 3), slot_path("bad", 1)) == 0, "a slot is a link");
    unlink(slot_path("bad", 2));
    const struct flk_row *row = look("bad");
    ok(row->n_slots == 4 && row->slots[0]->state == FLK_SLOT_BLOCKED && row->slots[1]->state == FLK_SLOT_BLOCKED &&
           row->slots[2]->state == FLK_SLOT_BLOCKED && row->slots[3]->state == FLK_SLOT_FREE,
       "what is no FIFO, or isn't there, is blocked");
    char junk[4096];
    memset(junk, '\377', sizeof junk);
    overwrite(test_path("root/rows/good/latch"), junk, FK_RECORD_SIZE, FK_LATCH_HEADER);
    is_int(look_at("good", 0)->state, FLK_SLOT_FREE, "a record of binary junk is none");
    overwrite(test_path("root/rows/bad/latch"), junk, sizeof junk, 0);
    row = look("bad");
    ok(row->n_slots == 0 && row->problem && strstr(row->problem, "damaged"), "a damaged latch is a problem of its row");
    flk_inspect_free(rows);
    int count = flk_inspect(NULL, &rows);
    bool good = false;
    for (int i = 0; i < count; i++)
        good |= strcmp(rows[i]->name, "good") == 0 && rows[i]->n_slots == 1;
    ok(good, "and of no other");
    flk_inspect_free(rows);
    rows = NULL;
    unlink(test_path("root/rows/bad/latch"));
    row = look("bad");
    ok(row->problem != NULL, "so is a missing one");
    for (unsigned i = 0; i < 4; i++)
        unlink(slot_path("bad", i));
    for (int i = 0; i < 3; i++)
        rmdir(test_path("root/rows/bad/%s", (const char *[]){"slots", "queue", "holders"}[i]));
    ok(rmdir(test_path("root/rows/bad")) == 0, "it is deleted");
}

static const char *under_path(const char *id)
{
    return test_path("root/rows/outer/under/%s", id);
}

static void nested(void)
{
    struct flk_hold *hold;
    define("outer", 2);
    if (flk_acquire("outer", 0, 0, &hold) < 0)
        bail_out("%s", flk_error_detail());
    define("inner", 1);
    const char *id = flk_hold_id(hold);
    mkdir(test_path("root/rows/outer/under"), 0700);
    ok(rename(test_path("root/rows/inner"), under_path(id)) == 0, "a row under a hold");
    const char *const names[] = {"outer", "ours", NULL};
    flk_inspect_free(rows);
    is_int(flk_inspect(names, &rows), 3, "is shown beside the others");
    ok(strcmp(rows[0]->name, "ours") == 0 && strcmp(rows[1]->name, "outer") == 0 && !rows[1]->under && rows[2]->under &&
           strcmp(rows[2]->under, id) == 0 && strcmp(rows[2]->name, "outer") == 0,
       "behind the row that it is under, by the id of the hold");
    is_int((int)rows[2]->n_slots, 1, "with its slots");
    ok(rename(under_path(id), under_path("gone0")) == 0, "one whose hold is gone");
    flk_inspect_free(rows);
    is_int(flk_inspect((const char *const[]){"outer", NULL}, &rows), 1, "isn't shown when nobody uses it");
    flk_hold_release(hold);
    ok(rename(under_path("gone0"), test_path("root/rows/inner")) == 0, "it moves away");
    flk_inspect_free(rows);
    rows = NULL;
    rmdir(test_path("root/rows/outer/under"));
}

static int with_few_descriptors(void *data)
{
    struct flk_row **seen;
    int failures = 0;
    (void)data;
    /* Each look has a few open at a time: at some limit it fails in the midst of it, at a lower one at its beginning. */
    for (unsigned limit = 40; limit > 0; limit--) {
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){limit, limit});
        int code = flk_inspect((const char *const[]){"few", NULL}, &seen);
        if (code < 0 && fcntl(STDIN_FILENO, F_GETFD) < 0)
            return 4; /* it has closed what isn't its own */
        if (code < 0 && code != -EMFILE)
            return 1;
        failures += code < 0;
        if (code < 0)
            continue;
        if (code != 1 || seen[0]->slots[0]->state != FLK_SLOT_HELD || seen[0]->slots[0]->holders[0]->pid == 0)
            return 2;
        flk_inspect_free(seen);
    }
    return failures > 1 ? 0 : 3;
}

static void descriptors(void)
{
    define("few", 1);
    struct child child = start_child(join_by_hand, (char[]){"few"});
    int before = test_descriptors();
    for (int i = 0; i < 20; i++)
        look("few");
    is_int(test_descriptors(), before, "no look leaves a descriptor open");
    is_int(test_in_child(with_few_descriptors, NULL), 0, "too few of them are an error, not a wrong picture");
    kill_child(&child);
}

/* ---- while things change ---- */

static unsigned scale(unsigned count)
{
    const char *text = getenv("STRESS_SCALE");
    unsigned factor = text ? (unsigned)atoi(text) : 1;
    return count * (factor ? factor : 1) / (test_is_slow() ? 10 : 1);
}

static void hand_off_for_ever(void *data)
{
    _Atomic unsigned *count = data;
    for (int i = 0; i < 2; i++)
        if (fork() == 0)
            break;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        struct flk_hold *hold;
        if (flk_acquire("busy", 0, FLK_FOREVER, &hold) < 0)
            _exit(1);
        atomic_fetch_add(count, 1);
        flk_hold_release(hold);
    }
}

static void changing_hands(void)
{
    _Atomic unsigned *count = test_shared(sizeof *count);
    pid_t pid = tap_fork();
    if (pid == 0)
        hand_off_for_ever((void *)count);
    while (atomic_load(count) == 0)
        usleep(1000);
    unsigned wrong = 0, looks = scale(400), before = atomic_load(count);
    for (unsigned i = 0; i < looks || atomic_load(count) == before; i++) {
        const struct flk_row *row = look("busy");
        const struct flk_slot *slot = row->slots[0];
        wrong += slot->state != FLK_SLOT_FREE && slot->state != FLK_SLOT_HELD;
        for (size_t j = 0; j < slot->n_holders; j++)
            wrong += slot->holders[j]->pid == 0;
        wrong += row->n_waiters > 3;
    }
    is_int(wrong, 0, "a lock that changes hands, and goes on doing so, is never abandoned, inherited or had by nobody");
    kill(pid, SIGKILL);
    test_reap(pid);
}

static void come_and_go(void *data)
{
    (void)data;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pid_t pid = fork();
    while (pid == 0) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
        if (getppid() == 1)
            _exit(0);
    }
}

static void vanishing(void)
{
    define("vanish", 1);
    struct child holder = start_child(join_by_hand, (char[]){"vanish"}), crowd = start_child(come_and_go, NULL);
    unsigned wrong = 0, looks = scale(100);
    for (unsigned i = 0; i < looks; i++)
        wrong += !holds(look_at("vanish", 0), holder.pid);
    is_int(wrong, 0, "processes that come and go while we look hide nobody");
    kill_child(&crowd);
    kill_child(&holder);
}

static void killed_waiters(void)
{
    struct locker holder = start_holder("kw", 0, 0);
    unsigned wrong = 0;
    for (unsigned i = 0; i < scale(60); i++) {
        pid_t pid = tap_fork();
        if (pid == 0) {
            struct flk_hold *hold;
            _exit(flk_acquire("kw", 0, FLK_FOREVER, &hold) < 0);
        }
        usleep(i % 30 * 50);
        kill(pid, SIGKILL);
        test_reap(pid);
        wrong += look("kw")->n_waiters;
    }
    is_int(wrong, 0, "a waiter that is killed, whenever it is, is not seen any more");
    locker_release(&holder);
}

int main(void)
{
    tap_deadline(100);
    test_root();
    nothing();
    held_by_us();
    waiters();
    waiter_without_record();
    shared();
    abandoned();
    inherited();
    ended();
    outsiders();
    zombie_leader();
    bytes();
    hidden();
    foreign();
    damaged();
    nested();
    descriptors();
    changing_hands();
    vanishing();
    killed_waiters();
    flk_inspect_free(rows);
    return done_testing();
}
