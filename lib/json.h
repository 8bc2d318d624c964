/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Values of JSON. Bytes that aren't UTF-8 are U+FFFD, controls are escaped. */
#ifndef FK_JSON_H
#define FK_JSON_H

#include <stdint.h>
#include <stdio.h>

void fk_json_string(FILE *out, const char *string);
/* RFC 3339, UTC, with milliseconds; null for 0 and for what is no time. */
void fk_json_time(FILE *out, int64_t ms);
/* Members that stand behind others: ,"KEY":VALUE. null for NULL and for "". */
void fk_json_put_text(FILE *out, const char *key, const char *text);
void fk_json_put_time(FILE *out, const char *key, int64_t ms);

#endif
