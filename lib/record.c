/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LABEL_ROOM 200 /* of the text, escapes counted */
#define COMMAND_ROOM 440
#define END "end\n"

/* A place in a text that must not overflow; what doesn't fit is left out. */
struct cursor {
    char *at, *end;
};

static void put_text(struct cursor *cursor, const char *text)
{
    size_t length = strlen(text), room = (size_t)(cursor->end - cursor->at);
    length = length < room ? length : room;
    memcpy(cursor->at, text, length);
    cursor->at += length;
}

static void put_number(struct cursor *cursor, const char *key, uint64_t value)
{
    char digits[24], *at = digits + sizeof digits - 1;
    *at = '\0';
    *--at = '\n';
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    put_text(cursor, key);
    put_text(cursor, at);
}

static bool plain(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '\\';
}

static void put_escaped(struct cursor *cursor, const char *key, const char *value, size_t room)
{
    put_text(cursor, key);
    char *stop = cursor->at + room < cursor->end - 1 ? cursor->at + room : cursor->end - 1;
    for (; *value && cursor->at + 4 <= stop; value++) {
        unsigned char byte = (unsigned char)*value;
        if (plain(byte)) {
            *cursor->at++ = (char)byte;
            continue;
        }
        memcpy(cursor->at, (char[]){'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]}, 4);
        cursor->at += 4;
    }
    put_text(cursor, "\n");
}

static const char never_ended[] = "ended=00000000000000000000\n";
static const char never_used[] = "used=00000000000000000000\n";

size_t fk_record_end(char text[FK_END_SIZE], char mark, bool left, bool spreads)
{
    struct timespec now;
    char line[FK_END_SIZE + 1];
    size_t length = spreads ? FK_END_SIZE : left ? FK_ENDED_SIZE : 1;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    snprintf(line, sizeof line, "%c\nended=%020" PRIu64 "\nused=%020" PRIu64 "\n", mark, left ? ns : 0, ns);
    memcpy(text, line, length);
    return length;
}

int64_t fk_record_used(const char *text, size_t length)
{
    char digits[21];
    if (length < FK_END_SIZE || memcmp(text + 2, never_ended, 6) != 0 || memcmp(text + FK_ENDED_SIZE, never_used, 5) != 0)
        return -1;
    memcpy(digits, text + FK_USED_AT, 20);
    digits[20] = '\0';
    return (int64_t)strtoull(digits, NULL, 10);
}

bool fk_record_has_ended(const char *text, size_t length)
{
    return length >= FK_ENDED_SIZE && memcmp(text + 2, never_ended, 6) == 0 &&
           memcmp(text + 2, never_ended, sizeof never_ended - 1) != 0;
}

int fk_record_write(char *text, size_t size, const struct fk_record_spec *spec)
{
    const struct fk_owner *self;
    int code = fk_owner_self(&self);
    if (code < 0)
        return code;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct cursor cursor = {text, text + size - sizeof END};
    put_text(&cursor, (char[]){FK_LIVE, '\n', '\0'});
    if (!spec->wants && !spec->shared)
        put_text(&cursor, never_ended);
    if (spec->spreads)
        put_text(&cursor, never_used);
    put_text(&cursor, "id=");
    put_text(&cursor, spec->id);
    put_number(&cursor, "\npid=", (uint64_t)self->pid);
    put_number(&cursor, "start=", self->start_time);
    put_text(&cursor, "boot=");
    put_text(&cursor, self->boot_id);
    put_number(&cursor, "\npidns=", self->pid_ns);
    put_number(&cursor, "timens=", self->time_ns);
    put_number(&cursor, "pidfd=", self->pidfd_inode);
    put_number(&cursor, "since=", (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    if (spec->wants)
        put_number(&cursor, "wants=", spec->wants);
    if (spec->shared)
        put_text(&cursor, "shared=1\n");
    if (spec->nests)
        put_text(&cursor, "nests=1\n");
    if (spec->label)
        put_escaped(&cursor, "label=", spec->label, LABEL_ROOM * size / FK_RECORD_SIZE);
    put_escaped(&cursor, "command=", spec->command ? spec->command : fk_owner_command(), COMMAND_ROOM);
    cursor.end = text + size;
    put_text(&cursor, END);
    return (int)(cursor.at - text);
}

static int digit_of(char byte)
{
    const char *digits = "0123456789abcdef", *at = byte ? strchr(digits, byte) : NULL;
    return at ? (int)(at - digits) : -1;
}

void fk_record_unescape(char *out, size_t size, const char *value, size_t length)
{
    char *end = out + size - 1;
    for (size_t i = 0; i < length && out < end; i++) {
        int high = i + 3 < length && value[i] == '\\' ? digit_of(value[i + 2]) : -1;
        int low = high < 0 ? -1 : digit_of(value[i + 3]);
        *out++ = low < 0 ? value[i] : (char)(high << 4 | low);
        i += low < 0 ? 0 : 3;
    }
    *out = '\0';
}

static void get_plain(char *out, size_t size, const char *value, size_t length)
{
    length = length < size ? length : size - 1;
    memcpy(out, value, length);
    out[length] = '\0';
}

static void read_line(struct fk_record *record, const char *key, size_t key_length, const char *value, size_t length)
{
    if (fk_owner_read_line(&record->owner, key, key_length + 1 + length))
        return;
#define IS(name) (key_length == sizeof(name) - 1 && memcmp(key, name, key_length) == 0)
    char number[24];
    get_plain(number, sizeof number, value, length);
    uint64_t n = strtoull(number, NULL, 10);
    if (IS("id"))
        get_plain(record->id, sizeof record->id, value, length);
    else if (IS("since"))
        record->since_ns = (int64_t)n;
    else if (IS("ended"))
        record->ended_ns = (int64_t)n;
    else if (IS("wants"))
        record->wants = (unsigned)n;
    else if (IS("shared"))
        record->shared = n == 1;
    else if (IS("nests"))
        record->nests = n == 1;
    else if (IS("label"))
        fk_record_unescape(record->label, sizeof record->label, value, length);
    else if (IS("command"))
        fk_record_unescape(record->command, sizeof record->command, value, length);
#undef IS
}

static bool is_mark(char byte)
{
    return byte == FK_LIVE || byte == FK_ENDED || byte == FK_LEAVING;
}

int fk_record_read(const char *text, size_t length, struct fk_record *record)
{
    struct fk_record out = {0};
    if (length < 2 || !is_mark(text[0]) || text[1] != '\n')
        return -EBADMSG;
    out.live = text[0] == FK_LIVE;
    const char *end = text + length;
    for (const char *line = text + 2, *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            return -EBADMSG;
        if (stop - line == 3 && memcmp(line, "end", 3) == 0) {
            if (out.live && out.owner.pid == 0)
                return -EBADMSG;
            *record = out;
            return 0;
        }
        const char *equals = memchr(line, '=', (size_t)(stop - line));
        if (equals)
            read_line(&out, line, (size_t)(equals - line), equals + 1, (size_t)(stop - equals - 1));
    }
    return -EBADMSG;
}

void fk_record_show(const struct fk_record *record, struct flk_holder *holder)
{
    const struct fk_owner *self;
    unsigned foreign = 0;
    if (fk_owner_self(&self) == 0 && record->owner.pid_ns && record->owner.pid_ns != self->pid_ns)
        foreign |= FLK_FOREIGN_PID;
    if (fk_owner_self(&self) == 0 && record->owner.time_ns && record->owner.time_ns != self->time_ns)
        foreign |= FLK_FOREIGN_TIME;
    *holder = (struct flk_holder){
        .pid = record->owner.pid,
        .acquirer = 1,
        .shared = record->shared,
        .start_time = record->owner.start_time,
        .since_ms = record->since_ns / 1000000,
        .command = record->command,
        .label = record->label,
        .id = record->id,
        .foreign = foreign,
        .pid_namespace = record->owner.pid_ns,
    };
}
