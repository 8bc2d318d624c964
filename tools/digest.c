/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define OPENSSL_SUPPRESS_DEPRECATED /* they stay as long as OpenSSL 3 does; EVP is what is offered instead */
#include "digest.h"

#include <stdio.h>
#include <string.h>

void digest_begin(struct digest *digest)
{
    digest->gathered = 0;
    SHA256_Init(&digest->context);
}

static void pass_on(struct digest *digest)
{
    SHA256_Update(&digest->context, digest->bytes, digest->gathered);
    digest->gathered = 0;
}

void digest_bytes(struct digest *digest, const void *bytes, size_t length)
{
    if (length > sizeof digest->bytes - digest->gathered)
        pass_on(digest);
    if (length > sizeof digest->bytes) {
        SHA256_Update(&digest->context, bytes, length);
    } else if (length > 0) {
        memcpy(digest->bytes + digest->gathered, bytes, length);
        digest->gathered += length;
    }
}

/* The lowest byte first, on every machine. */
static void put_number(unsigned char bytes[8], uint64_t number)
{
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> 8 * i);
}

void digest_field(struct digest *digest, char letter, const void *bytes, size_t length)
{
    unsigned char head[9] = {(unsigned char)letter};
    put_number(head + 1, length);
    digest_bytes(digest, head, sizeof head);
    digest_bytes(digest, bytes, length);
}

void digest_text(struct digest *digest, char letter, const char *text)
{
    digest_field(digest, letter, text, strlen(text));
}

void digest_number(struct digest *digest, char letter, uint64_t number)
{
    unsigned char bytes[8];
    put_number(bytes, number);
    digest_field(digest, letter, bytes, sizeof bytes);
}

void digest_end(struct digest *digest, unsigned char result[DIGEST_SIZE])
{
    pass_on(digest);
    SHA256_Final(result, &digest->context);
}

void digest_write(const unsigned char result[DIGEST_SIZE], char text[DIGEST_TEXT_SIZE])
{
    for (size_t i = 0; i < DIGEST_SIZE; i++)
        sprintf(text + 2 * i, "%02x", result[i]);
}
