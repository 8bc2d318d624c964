/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a host program (run.c) and its helper, `flockctl supervise`, say to each other over a socket of their own.
 *
 *   host -> helper   hello, order: what to run. Then, at any time, one byte a request: a signal for the whole tree, 0 to end it
 *                    as the limit does (supervise.h, `control`)
 *   helper -> host   hello, answer: once, when all is over, or when the order can't be carried out
 *
 * The end of file is news too: to the helper, that the host is gone; to the host, without an answer, that the helper was killed.
 * hello is the same in all releases, so that the two of different ones can tell each other: the library and the tool are
 * installed together, but a host may have started before an update. The numbers are the machine's own: nothing leaves it. */
#ifndef FK_HELPER_H
#define FK_HELPER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "supervise.h"

#define FK_HELPER_PROTOCOL 1u
#define FK_HELPER_VERB "supervise"

struct fk_helper_hello {
    char magic[8];
    uint32_t protocol;
    uint32_t size; /* bytes that follow */
    char version[16];
};

/* What is to be run, for the host to send and for the helper to have. */
struct fk_helper_order {
    struct fk_supervise_spec spec; /* without mask, stdio, control, notice and data; envp NULL: the helper's own */
    uint64_t mask; /* the command's signal mask, one bit a signal, as the kernel has it */
    const int *slots; /* descriptors of the hold */
    size_t n_slots;
    char *memory; /* of what was received */
    const char **strings;
};

struct fk_helper_answer {
    int32_t code; /* of fk_supervise() */
    int32_t status;
    uint32_t timed_out, stragglers, left;
    int64_t ran_ms;
    struct rusage rusage;
    char detail[1024]; /* the sentence for a code that isn't 0 */
};

/* What to execute: $FLOCKCTL_TOOL, else where it is installed. */
const char *fk_helper_tool(void);
void fk_helper_is_this_program(void); /* the tool itself, wherever it is */

/* One block to be sent, hello included; the caller frees it. NULL: out of memory. */
char *fk_helper_pack(const struct fk_helper_order *order, size_t *size);
/* In the helper. *order is to be freed with fk_helper_clear(). -EPROTONOSUPPORT: the host speaks another protocol; it has been
 * told. */
int fk_helper_receive(int socket, struct fk_helper_order *order);
void fk_helper_clear(struct fk_helper_order *order);
int fk_helper_answer(int socket, const struct fk_helper_answer *answer);
/* In the host: blocks until the answer is there. -ECHILD: the helper has ended without one. -EPROTONOSUPPORT: of another release;
 * tool is its path, for the sentence. */
int fk_helper_hear(int socket, const char *tool, struct fk_helper_answer *answer);

#endif
