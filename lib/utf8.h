/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text of others, whose bytes may be anything: which of them are characters, which of those a terminal would obey. */
#ifndef FK_UTF8_H
#define FK_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes at text are one character in UTF-8; 0: they aren't. */
size_t fk_utf8_character(const unsigned char *text);
/* C0, DEL, C1, and those that change the direction of what is written. text is a character. */
bool fk_utf8_is_control(const unsigned char *text);
/* How many columns a terminal gives it. */
unsigned fk_utf8_width(const unsigned char *text);

#endif
