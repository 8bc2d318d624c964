/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "helpers.h"
#include "tap.h"

#define ID "fabcdefghijklmnopqrstuvw"

static int write_text(char *text, bool shared, const char *label, const char *command)
{
    return fk_record_write(text, FK_RECORD_SIZE, &(struct fk_record_spec){.id = ID, .shared = shared, .label = label, .command = command});
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void round_trip(void)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    const struct fk_owner *self;
    if (fk_owner_self(&self) < 0)
        bail_out("%s", flk_error_detail());
    int64_t before = now_ns();
    int length = write_text(text, true, "a label", "a command");
    ok(length > 0 && length <= FK_RECORD_SIZE, "a record is written");
    is_int(fk_record_read(text, (size_t)length, &record), 0, "and read");
    is_str(record.id, ID, "id");
    is_str(record.label, "a label", "label");
    is_str(record.command, "a command", "command");
    ok(record.live && record.shared, "it lives and is shared");
    ok(record.since_ns >= before && record.since_ns <= now_ns(), "since now");
    ok(record.owner.pid == getpid() && record.owner.start_time == self->start_time &&
           record.owner.pid_ns == self->pid_ns && record.owner.time_ns == self->time_ns &&
           record.owner.pidfd_inode == self->pidfd_inode,
       "by this process");
    is_str(record.owner.boot_id, self->boot_id, "since this boot");
    text[0] = FK_ENDED;
    is_int(fk_record_read(text, (size_t)length, &record), 0, "one byte ends it");
    ok(!record.live, "then it doesn't live");
    is_str(record.id, ID, "but can still be read");
}

static void without_texts(void)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    int length = write_text(text, false, NULL, NULL);
    is_int(fk_record_read(text, (size_t)length, &record), 0, "a record without label and command");
    is_str(record.label, "", "has no label");
    ok(strstr(record.command, "record") != NULL, "and this process's command: %s", record.command);
    ok(!record.shared, "and isn't shared");
}

static void left_to_others(void)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    struct timespec now;
    int length = write_text(text, false, "a label", "a command");
    ok(!fk_record_has_ended(text, (size_t)length), "a record of one that holds has not ended");
    fk_record_end(text, FK_ENDED, true, false);
    clock_gettime(CLOCK_REALTIME, &now);
    ok(fk_record_has_ended(text, (size_t)length), "one that left its slot to others has");
    is_int(fk_record_read(text, (size_t)length, &record), 0, "and is as long as before");
    int64_t ago_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - record.ended_ns;
    ok(ago_ns >= 0 && ago_ns < 10000000000, "it says when");
    ok(!record.live, "and isn't live");
    is_str(record.command, "a command", "the rest stays");
    length = fk_record_write(text, sizeof text, &(struct fk_record_spec){.id = ID, .wants = 2});
    ok(length > 0 && !memmem(text, (size_t)length, "ended=", 6), "one that waits has nothing to leave");
    ok(!fk_record_has_ended("-\n", 2), "a record of two bytes says nothing");
    length = fk_record_write(text, sizeof text, &(struct fk_record_spec){.id = ID, .nests = true});
    ok(fk_record_read(text, (size_t)length, &record) == 0 && record.nests, "a command's hold says so");
}

static void spreads(void)
{
    char text[FK_RECORD_SIZE], end[FK_END_SIZE];
    struct fk_record record;
    int length = write_text(text, false, NULL, NULL);
    is_int((int)fk_record_used(text, (size_t)length), -1, "a record doesn't say when the slot was used");
    length = fk_record_write(text, sizeof text, &(struct fk_record_spec){.id = ID, .spreads = true});
    is_int((int)fk_record_used(text, (size_t)length), 0, "in a pool that spreads it does; not while it is in use");
    int64_t before = now_ns();
    size_t size = fk_record_end(end, FK_ENDED, false, true);
    memcpy(text, end, size);
    int64_t used = fk_record_used(text, (size_t)length);
    ok(used >= before && used <= now_ns(), "but when that ends");
    ok(!fk_record_has_ended(text, (size_t)length), "which isn't to leave it to others");
    fk_record_end(text, FK_ENDED, true, true);
    ok(fk_record_used(text, (size_t)length) >= used && fk_record_has_ended(text, (size_t)length), "unless it does so");
    is_int(fk_record_read(text, (size_t)length, &record), 0, "and it is whole still");
    is_int((int)fk_record_used("-\nend\n", 6), -1, "a place never used says nothing");
}

static void show(void)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    struct flk_holder holder;
    int length = write_text(text, true, "a label", "a command");
    if (fk_record_read(text, (size_t)length, &record) < 0)
        bail_out("no record");
    fk_record_show(&record, &holder);
    is_int(holder.pid, getpid(), "shown: pid");
    is_str(holder.label, "a label", "label");
    is_str(holder.command, "a command", "command");
    is_str(holder.id, ID, "id");
    ok(holder.shared && holder.acquirer && holder.since_ms == record.since_ns / 1000000,
       "the acquirer, shared, since when");
}

static void check_escapes(const char *value, const char *name)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record;
    int unsafe = 0, length = write_text(text, false, value, value);
    for (int i = 0; i < length; i++)
        unsafe += text[i] != '\n' && (text[i] < 0x20 || text[i] > 0x7e);
    is_int(unsafe, 0, "%s: no byte that a terminal could take amiss", name);
    is_int(fk_record_read(text, (size_t)length, &record), 0, "%s: it can be read", name);
    is_str(record.label, value, "%s: the label comes back", name);
    is_str(record.command, value, "%s: and so does the command", name);
}

static void escapes(void)
{
    char all[64];
    for (int first = 1; first < 256; first += 32) {
        size_t n = 0;
        for (int byte = first; byte < first + 32 && byte < 256; byte++)
            all[n++] = (char)byte;
        all[n] = '\0';
        char name[32];
        snprintf(name, sizeof name, "bytes from %d", first);
        check_escapes(all, name);
    }
    check_escapes("line\nend\nid=other\n", "what looks like lines of a record");
    check_escapes("\\x41 \\ \\\\x", "backslashes");
    check_escapes("gr\xc3\xbc\xc3\x9f \xe2\x82\xac", "UTF-8");
    check_escapes("a=b=c", "equals signs");
    check_escapes("", "nothing");
}

static void too_long(void)
{
    char text[FK_RECORD_SIZE + 1], value[4000];
    struct fk_record record;
    for (int byte = 0; byte < 2; byte++) {
        memset(value, byte ? '\x1b' : 'v', sizeof value - 1);
        value[sizeof value - 1] = '\0';
        text[FK_RECORD_SIZE] = 'K';
        int length = write_text(text, true, value, value);
        ok(length > 0 && length <= FK_RECORD_SIZE && text[FK_RECORD_SIZE] == 'K', "what is too long is cut to fit");
        is_int(fk_record_read(text, (size_t)length, &record), 0, "and the record is whole");
        ok(record.label[0] == value[0] && strncmp(record.label, value, strlen(record.label)) == 0,
           "with the label's beginning");
        ok(record.command[0] == value[0] && strncmp(record.command, value, strlen(record.command)) == 0,
           "and the command's");
    }
}

/* ---- what isn't a record ---- */

static int read_text(const char *text)
{
    struct fk_record record;
    return fk_record_read(text, strlen(text), &record);
}

static void damaged(void)
{
    char text[FK_RECORD_SIZE];
    struct fk_record record = {.id = "untouched"};
    int length = write_text(text, true, "a label", "a command"), accepted = 0;
    for (int cut = 0; cut < length; cut++)
        accepted += fk_record_read(text, (size_t)cut, &record) == 0;
    is_int(accepted, 0, "a record cut short anywhere is refused");
    is_str(record.id, "untouched", "and nothing is filled in");
    is_int(read_text(""), -EBADMSG, "nothing is no record");
    is_int(read_text("+\nend\n"), -EBADMSG, "a live one of nobody is refused");
    is_int(read_text("-\nend\n"), 0, "an ended one of nobody is a place never used");
    is_int(read_text("*\npid=1\nend\n"), -EBADMSG, "an unknown mark is refused");
    is_int(read_text("+pid=1\nend\n"), -EBADMSG, "and so is a mark with something behind it");
    is_int(read_text("+\npid=-1\nend\n"), -EBADMSG, "a pid that can't be is refused");
    is_int(read_text("+\npid=99999999999999999999\nend\n"), -EBADMSG, "and one that is too large");
}

static void unknown_keys(void)
{
    static const char text[] =
        "+\nid=x\nlater=something\n\nno equals sign\npid=7\n=value\nlabel=l\nend\nid=older\nend\n";
    struct fk_record record;
    is_int(fk_record_read(text, sizeof text - 1, &record), 0, "keys of a later release are passed over");
    is_int(record.owner.pid, 7, "what is known is read");
    is_str(record.id, "x", "and what an older record left behind the end isn't");
}

static void bad_escapes(void)
{
    static const char text[] = "-\nlabel=\\x4 \\xzz \\q \\x41\\\nend\n";
    struct fk_record record;
    is_int(fk_record_read(text, sizeof text - 1, &record), 0, "broken escapes are read");
    is_str(record.label, "\\x4 \\xzz \\q A\\", "as they stand");
}

static void junk(void)
{
    size_t size = 1 << 20;
    char *text = malloc(size);
    struct fk_record record;
    unsigned seed = 1;
    int accepted = 0;
    for (size_t i = 0; i < size; i++)
        text[i] = (char)rand_r(&seed);
    is_int(fk_record_read(text, size, &record), -EBADMSG, "1 MB of junk is refused");
    memset(text, 'x', size);
    memcpy(text, "+\nlabel=", 8);
    is_int(fk_record_read(text, size, &record), -EBADMSG, "and a line of 1 MB without an end");
    memcpy(text + size - 11, "\npid=1\nend\n", 11);
    is_int(fk_record_read(text, size, &record), 0, "one with an end can be read");
    is_int((int)strlen(record.label), (int)sizeof record.label - 1, "cut to what fits");
    memset(text, 0, size);
    is_int(fk_record_read(text, size, &record), -EBADMSG, "zeros are refused");
    for (int round = 0; round < 2000; round++) {
        int length = write_text(text, true, "label", "command");
        for (int i = 0; i < 1 + round % 4; i++)
            text[rand_r(&seed) % (unsigned)length] = (char)rand_r(&seed);
        accepted +=
            fk_record_read(text, (size_t)length, &record) == 0 && memchr(record.label, 0, sizeof record.label) == NULL;
    }
    is_int(accepted, 0, "whatever bytes are changed, no text comes out without its end");
    free(text);
}

int main(void)
{
    tap_deadline(30);
    round_trip();
    without_texts();
    left_to_others();
    spreads();
    show();
    escapes();
    too_long();
    damaged();
    unknown_keys();
    bad_escapes();
    junk();
    return done_testing();
}
