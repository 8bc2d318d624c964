/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A writer of TAP, the Test Anything Protocol, for test programs that fork.
 *
 *     int main(void)
 *     {
 *         tap_deadline(30);
 *         ok(flk_thing() == 0, "a thing is there");
 *         is_int(flk_thing_count(), 3, "it counts to three");
 *         return done_testing();
 *     }
 *
 * Either plan() comes first or done_testing() last; done_testing() is good after plan() too, for its result. NAMEs are
 * format strings. ok(), is_int() and is_str() return whether the test passed.
 *
 * Only the process that the program started as may test. In a child each of these calls, diag() apart, says so on
 * stderr and aborts: let it report by its exit status, a pipe or shared memory. Any thread may call anything.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <sys/types.h>

#define TAP_PRINTF(format_, first_) __attribute__((format(printf, format_, first_)))

#define ok(condition, ...) tap_ok(__FILE__, __LINE__, (condition), __VA_ARGS__)
#define is_int(got, wanted, ...) tap_is_int(__FILE__, __LINE__, (got), (wanted), __VA_ARGS__)
#define is_str(got, wanted, ...) tap_is_str(__FILE__, __LINE__, (got), (wanted), __VA_ARGS__)

void plan(unsigned tests);
/* Prints the plan if plan() didn't. The exit status: 0, or 1 when a test failed or is missing. */
int done_testing(void);
void skip(const char *reason, ...) TAP_PRINTF(1, 2); /* in the place of one test */
void skip_all(const char *reason, ...) TAP_PRINTF(1, 2) __attribute__((noreturn)); /* before any test */
void bail_out(const char *reason, ...) TAP_PRINTF(1, 2) __attribute__((noreturn));
void diag(const char *text, ...) TAP_PRINTF(1, 2); /* to stderr, from any process */

/* Forks. The child's stdout is its stderr, since a harness waits for everybody who has the pipe that it reads open. A
 * child that is still there when the test program ends is killed, with its own children. -1 never comes back: that
 * bails out. */
pid_t tap_fork(void);

/* Bails out, and kills the children, when the program still runs in SECONDS: a broken build fails and doesn't hang.
 * Uses SIGALRM. 0 takes it back. */
void tap_deadline(unsigned seconds);

/* A private directory, removed with all that is in it when the program ends. The same one at each call. */
const char *tap_directory(void);

bool tap_ok(const char *file, int line, bool passed, const char *name, ...) TAP_PRINTF(4, 5);
bool tap_is_int(const char *file, int line, long long got, long long wanted, const char *name, ...) TAP_PRINTF(5, 6);
bool tap_is_str(const char *file, int line, const char *got, const char *wanted, const char *name, ...)
    TAP_PRINTF(5, 6);

#endif
