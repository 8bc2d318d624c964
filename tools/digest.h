/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SHA-256 of a list of fields. A field is a letter that says what it is, the number of its bytes, and these: no two different lists
 * are the same stream. libcrypto's functions for this one algorithm are called, and not EVP, which would bring 4 MB and
 * a start of 5 million instructions with it; of the libraries that have them this one is the fastest, with the processor's own
 * instructions and without. */
#ifndef DIGEST_H
#define DIGEST_H

#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE SHA256_DIGEST_LENGTH
#define DIGEST_TEXT_SIZE (2 * DIGEST_SIZE + 1)

struct digest {
    SHA256_CTX context;
    size_t gathered;
    unsigned char bytes[1024]; /* small ones, until there are enough: a call costs more than they do */
};

void digest_begin(struct digest *digest);
void digest_bytes(struct digest *digest, const void *bytes, size_t length); /* as they are: the content of a file */
void digest_field(struct digest *digest, char letter, const void *bytes, size_t length);
void digest_text(struct digest *digest, char letter, const char *text);
void digest_number(struct digest *digest, char letter, uint64_t number);
void digest_end(struct digest *digest, unsigned char result[DIGEST_SIZE]);

/* In lower-case hexadecimal digits, with a NUL. */
void digest_write(const unsigned char result[DIGEST_SIZE], char text[DIGEST_TEXT_SIZE]);

#endif
