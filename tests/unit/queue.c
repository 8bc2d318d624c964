/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "queue.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deadline.h"
#include "helpers.h"
#include "registry.h"
#include "tap.h"

static struct fk_row *row;
static struct fk_section section;

static void enter(void)
{
    if (fk_row_enter(row, FK_NEVER, &section) < 0)
        bail_out("%s", flk_error_detail());
}

static void leave(void)
{
    fk_row_leave(&section);
}

static struct fk_ticket queue_up(void)
{
    struct fk_ticket ticket = {.fd = -1};
    enter();
    char text[FK_WAITER_RECORD];
    int length = fk_record_write(text, sizeof text, &(struct fk_record_spec){.id = "aid", .wants = 1});
    if (fk_queue_enter(&section, text, (size_t)length, &ticket) < 0)
        bail_out("%s", flk_error_detail());
    leave();
    return ticket;
}

static struct fk_watch last(void)
{
    struct fk_watch watch;
    enter();
    if (fk_queue_last(&section, &watch) < 0)
        bail_out("%s", flk_error_detail());
    leave();
    return watch;
}

static struct fk_watch before(uint64_t number)
{
    struct fk_watch watch;
    enter();
    if (fk_queue_before(&section, number, &watch) < 0)
        bail_out("%s", flk_error_detail());
    leave();
    return watch;
}

static bool wakes(const struct fk_watch *watch)
{
    return test_readable(watch->fd, 0);
}

static void order(void)
{
    struct fk_watch watch = last();
    ok(watch.fd < 0, "an empty queue has no last one");
    struct fk_ticket a = queue_up(), b = queue_up(), c = queue_up();
    ok(a.number < b.number && b.number < c.number, "numbers rise");
    watch = last();
    is_int((long long)watch.number, (long long)c.number, "the last one is who came last");
    fk_queue_unwatch(&watch);
    watch = before(c.number);
    is_int((long long)watch.number, (long long)b.number, "before it is who came before");
    is_int(fk_queue_told(&watch), FK_TOLD_NOTHING, "who waits tells nothing");
    ok(!wakes(&watch), "and wakes nobody");
    fk_queue_leave(row, &b);
    ok(wakes(&watch), "who gives up wakes its watcher");
    is_int(fk_queue_told(&watch), FK_TOLD_LEFT, "and tells so");
    is_int(fk_queue_told(&watch), FK_TOLD_LEFT, "as often as it is asked");
    fk_queue_unwatch(&watch);
    watch = before(c.number);
    is_int((long long)watch.number, (long long)a.number, "then the one before that is the nearest");
    enter();
    fk_queue_admit(&section, &a);
    leave();
    ok(!wakes(&watch), "who is admitted wakes nobody yet");
    fk_queue_tell(&a);
    ok(wakes(&watch), "but when it tells so");
    is_int(fk_queue_told(&watch), FK_TOLD_ADMITTED, "and tells that nobody is before it");
    fk_queue_leave(row, &a);
    is_int(fk_queue_told(&watch), FK_TOLD_ADMITTED, "still when it has gone");
    fk_queue_unwatch(&watch);
    watch = before(c.number);
    ok(watch.fd < 0, "then there is nobody");
    fk_queue_leave(row, &c);
    watch = last();
    ok(watch.fd < 0, "and in the end the queue is empty");
    is_int(test_tickets("queue"), 0, "on disk too");
    struct fk_ticket d = queue_up();
    ok(d.number > c.number, "no number is used twice");
    fk_queue_leave(row, &d);
}

static void list(void)
{
    uint64_t *numbers;
    struct fk_ticket tickets[12];
    int rising = 1;
    for (int i = 0; i < 12; i++)
        tickets[i] = queue_up();
    int count = fk_queue_list(row, tickets[10].number, &numbers);
    is_int(count, 10, "the list has those below");
    for (int i = 0; i < count; i++)
        rising &= numbers[i] == tickets[i].number;
    ok(rising, "rising by number, not by letters");
    free(numbers);
    struct fk_record record;
    is_int(fk_queue_who(row, tickets[0].number, &record), 0, "it is known who waits");
    is_int(record.owner.pid, getpid(), "we do");
    for (int i = 0; i < 12; i++)
        fk_queue_leave(row, &tickets[i]);
    is_int(fk_queue_list(row, UINT64_MAX, &numbers), 0, "an empty queue has an empty list");
    free(numbers);
}

/* ---- waiters of other processes ---- */

static struct locker start_waiter(void)
{
    struct locker waiter = {.timeout_ms = FLK_FOREVER, .wants = {{.name = "queue"}}};
    if (locker_start(&waiter) != 'q')
        bail_out("it doesn't queue");
    return waiter;
}

static void dead(void)
{
    struct locker waiter = start_waiter();
    struct fk_watch watch = last();
    ok(watch.fd >= 0 && fk_queue_told(&watch) == FK_TOLD_NOTHING, "another process waits");
    locker_kill(&waiter);
    ok(test_readable(watch.fd, 10000), "killed, it wakes its watcher");
    is_int(fk_queue_told(&watch), FK_TOLD_LEFT, "and tells that it is gone");
    fk_queue_unwatch(&watch);
    is_int(test_tickets("queue"), 1, "the name stays");
    watch = last();
    ok(watch.fd < 0, "until somebody looks for the last one, and finds none");
    is_int(test_tickets("queue"), 0, "then it is unlinked");
    is_int(test_entries(test_path("root/rows/queue/queue")), 0, "with all that belongs to it");
}

static void two_dead_in_the_middle(void)
{
    struct fk_ticket first = queue_up();
    struct locker a = start_waiter(), b = start_waiter();
    struct fk_ticket ours = queue_up();
    locker_kill(&a);
    locker_kill(&b);
    struct fk_watch watch = before(ours.number);
    is_int((long long)watch.number, (long long)first.number, "the nearest living one is found behind dead ones");
    fk_queue_unwatch(&watch);
    is_int(test_tickets("queue"), 2, "which are unlinked");
    fk_queue_leave(row, &first);
    fk_queue_leave(row, &ours);
}

static void stopped(void)
{
    struct locker waiter = start_waiter();
    struct fk_watch watch = last();
    enter();
    is_int(fk_queue_is_stopped(&section, UINT64_MAX), 0, "who waits isn't stopped");
    leave();
    ok(!fk_queue_look(row, &watch) && !fk_queue_look(row, &watch),
       "a waiter that goes on is in the way, look after look");
    test_stop(waiter.pid);
    enter();
    is_int(fk_queue_is_stopped(&section, UINT64_MAX), 1, "all that wait are stopped");
    leave();
    ok(!fk_queue_look(row, &watch), "stopped at one look, it still is in the way");
    ok(fk_queue_look(row, &watch), "at two in a row it isn't");
    enter();
    fk_queue_pass(row, &watch);
    leave();
    is_int(test_tickets("queue"), 0, "it is passed: it has no name");
    ok(fk_queue_look(row, &watch), "nor is it in anybody's way");
    fk_queue_unwatch(&watch);
    locker_kill(&waiter);
    struct fk_ticket ours = queue_up();
    ok(!fk_queue_is_passed(&ours), "a ticket knows that it has a name");
    watch = last();
    fk_queue_pass(row, &watch);
    ok(fk_queue_is_passed(&ours), "and when it has lost it");
    fk_queue_unwatch(&watch);
    fk_queue_leave(row, &ours);
}

static void foreign_names(void)
{
    uint64_t *numbers;
    test_write_file(test_path("root/rows/queue/queue/notes.txt"), "");
    test_write_file(test_path("root/rows/queue/queue/7up"), "");
    is_int(fk_queue_list(row, UINT64_MAX, &numbers), 0, "what isn't a number is no ticket");
    free(numbers);
    unlink(test_path("root/rows/queue/queue/notes.txt"));
    unlink(test_path("root/rows/queue/queue/7up"));
}

int main(void)
{
    struct flk_hold *hold;
    tap_deadline(test_is_slow() ? 60 : 20);
    test_root();
    fk_registry_enter();
    if (flk_acquire("queue", 0, 0, &hold) < 0 || fk_row_open("queue", 0, FK_ROW_LOOK, &row) < 0)
        bail_out("%s", flk_error_detail());
    order();
    list();
    dead();
    two_dead_in_the_middle();
    stopped();
    foreign_names();
    fk_registry_unref(row);
    flk_hold_release(hold);
    return done_testing();
}
