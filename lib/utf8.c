/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "utf8.h"

#include <stdint.h>

size_t fk_utf8_character(const unsigned char *text)
{
    static const struct {
        unsigned char mask, lead, least,
            most; /* of the second byte: no overlong form, no surrogate, none above U+10FFFF */
        size_t length;
    } forms[] = {{0x80, 0, 0, 0, 1},          {0xff, 0xe0, 0xa0, 0xbf, 3}, {0xff, 0xed, 0x80, 0x9f, 3},
                 {0xff, 0xf0, 0x90, 0xbf, 4}, {0xff, 0xf4, 0x80, 0x8f, 4}, {0xe0, 0xc0, 0x80, 0xbf, 2},
                 {0xf0, 0xe0, 0x80, 0xbf, 3}, {0xf8, 0xf0, 0x80, 0xbf, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if ((*text & forms[i].mask) != forms[i].lead)
            continue;
        if (forms[i].length == 1)
            return 1;
        if (*text < 0xc2 || *text > 0xf4 || text[1] < forms[i].least || text[1] > forms[i].most)
            return 0;
        for (size_t at = 2; at < forms[i].length; at++)
            if ((text[at] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

static uint32_t code_point(const unsigned char *text)
{
    size_t length = fk_utf8_character(text);
    uint32_t code = length < 2 ? *text : *text & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++)
        code = code << 6 | (text[i] & 0x3f);
    return code;
}

struct range {
    uint32_t first, last;
};

static bool is_in(uint32_t code, const struct range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

#define IS_IN(code, ranges) is_in((code), (ranges), sizeof(ranges) / sizeof *(ranges))

bool fk_utf8_is_control(const unsigned char *text)
{
    static const struct range controls[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},
                                            {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}};
    return IS_IN(code_point(text), controls);
}

/* By the large blocks: a column too many or too few does no harm. */
unsigned fk_utf8_width(const unsigned char *text)
{
    static const struct range none[] = {{0x300, 0x36f}, {0x200b, 0x200d}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};
    static const struct range wide[] = {{0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3}, {0xf900, 0xfaff},
                                        {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6}, {0x1f300, 0x1f64f},
                                        {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    uint32_t code = code_point(text);
    return IS_IN(code, none) ? 0 : IS_IN(code, wide) ? 2 : 1;
}
