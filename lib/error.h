/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Failure as the library reports it: a negative errno for the program, a sentence for the person.
 *
 * Whoever finds a failure says it once, here, with thing, reason and remedy; everybody above hands the code on untouched.
 * The sentence belongs to the calling thread and stays until that thread's next failure. */
#ifndef FK_ERROR_H
#define FK_ERROR_H

#include <stddef.h>

/* Keeps the sentence and returns code, which is a negative errno. */
int fk_fail(int code, const char *format, ...) __attribute__((cold, format(printf, 2, 3)));

/* The same for a system call that failed: the sentence ends with the reason and, where we know one, the remedy. */
int fk_fail_errno(int code, const char *format, ...) __attribute__((cold, format(printf, 2, 3)));

/* A byte of a text of others as a sentence may show it: those that a terminal may obey as \xNN. As snprintf(). */
int fk_show_byte(char *text, size_t size, unsigned char byte);

/* For what may fail without anybody being told. */
#define FK_DETAIL_SIZE 3500 /* a deadlock has many in it */
struct fk_detail {
    char text[FK_DETAIL_SIZE];
};
void fk_error_save(struct fk_detail *saved);
void fk_error_restore(const struct fk_detail *saved);
/* The same for where the stack may be small. NULL: there is none, or no memory for it. */
char *fk_error_take(void);
void fk_error_give_back(char *taken); /* frees it */

#endif
