/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json.h"

#include <time.h>

#include "utf8.h"

/* Those that a terminal would obey are all in the basic plane. */
static void put_escape(FILE *out, const unsigned char *at, size_t length)
{
    unsigned code = length == 1   ? *at
                    : length == 2 ? (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu)
                                  : (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu);
    fprintf(out, "\\u%04x", code);
}

void fk_json_string(FILE *out, const char *string)
{
    const unsigned char *at = (const unsigned char *)string;
    fputc('"', out);
    while (*at) {
        size_t length = fk_utf8_character(at);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (fk_utf8_is_control(at))
            put_escape(out, at, length);
        else
            fwrite(at, 1, length, out);
        at += length ? length : 1;
    }
    fputc('"', out);
}

void fk_json_time(FILE *out, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    if (ms > 0 && gmtime_r(&seconds, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) > 0)
        fprintf(out, "\"%s.%03dZ\"", text, (int)(ms % 1000));
    else
        fputs("null", out);
}

void fk_json_put_text(FILE *out, const char *key, const char *text)
{
    fprintf(out, ",\"%s\":", key);
    if (text && *text)
        fk_json_string(out, text);
    else
        fputs("null", out);
}

void fk_json_put_time(FILE *out, const char *key, int64_t ms)
{
    fprintf(out, ",\"%s\":", key);
    fk_json_time(out, ms);
}
