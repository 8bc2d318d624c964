/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What people see on stderr: lines that begin with "flockctl: ", each written in one piece. Text of others (command lines,
 * labels) is shown with its control characters escaped. */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <flockctl.h>
#include <stdbool.h>
#include <stdint.h>

extern bool message_quiet, message_verbose;

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));   /* not with --quiet */
void chat(const char *format, ...) __attribute__((format(printf, 1, 2)));  /* with --verbose only */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2))); /* always */
/* As say() and complain(), but lost when stderr takes no more just now: who hangs there can't end what is to be ended. */
void say_now(const char *format, ...) __attribute__((format(printf, 1, 2)));
void complain_now(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The library's last failure; quietly, if it only says that somebody else has it and --quiet was given. Its exit status. */
int complain_of(int code, int conflict_status);

/* A time as people write it: "2 s", "1500 ms". */
#define TIME_TEXT_SIZE 32
const char *time_text(int64_t ms, char text[TIME_TEXT_SIZE]);

/* A size as people write it: "512", "4.0K", "12M". */
#define SIZE_TEXT_SIZE 32
const char *size_text(uint64_t size, char text[SIZE_TEXT_SIZE]);

/* The time of day, of another day with its date: since. False: it is none. */
#define SINCE_TEXT_SIZE 64
bool since_text(int64_t since_ms, char text[SINCE_TEXT_SIZE]);

/* For struct flk_options: one line that says what is waited for, who has it, who is first in line. Never blocks: a waiter
 * that hangs in a full pipe would keep everybody behind it waiting. */
void message_waiting(const struct flk_waiting *waiting, void *data);

#endif
