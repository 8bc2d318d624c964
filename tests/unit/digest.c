/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../../tools/digest.h"

#include <string.h>

#include "tap.h"

#define MILLION "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" /* a's */

static const char *text_of(struct digest *digest)
{
    static char text[DIGEST_TEXT_SIZE];
    unsigned char result[DIGEST_SIZE];
    digest_end(digest, result);
    digest_write(result, text);
    return text;
}

static const char *digest_of(const char *bytes)
{
    struct digest digest;
    digest_begin(&digest);
    digest_bytes(&digest, bytes, strlen(bytes));
    return text_of(&digest);
}

/* Of FIPS 180-4 and of NIST's examples for it. */
static void known_answers(void)
{
    struct digest digest;
    char block[2000];
    is_str(digest_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "of nothing");
    is_str(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "of one block");
    is_str(digest_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", "of two blocks");
    memset(block, 'a', sizeof block);
    digest_begin(&digest);
    for (int i = 0; i < 1000; i++)
        digest_bytes(&digest, block, 1000);
    is_str(text_of(&digest), MILLION, "of a million bytes");
    digest_begin(&digest);
    for (size_t length = 0; length < 1414; length++)
        digest_bytes(&digest, block, length);
    digest_bytes(&digest, block, 1009);
    is_str(text_of(&digest), MILLION, "of as many in pieces of each length");
}

static void fields(void)
{
    static const char bytes[] = "a\3\0\0\0\0\0\0\0xyzb\0\0\0\0\0\0\0\0c\10\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0";
    struct digest plain, made;
    digest_begin(&plain);
    digest_bytes(&plain, bytes, sizeof bytes - 1);
    digest_begin(&made);
    digest_text(&made, 'a', "xyz");
    digest_field(&made, 'b', NULL, 0);
    digest_number(&made, 'c', 0x102);
    char wanted[DIGEST_TEXT_SIZE];
    strcpy(wanted, text_of(&plain));
    is_str(text_of(&made), wanted, "a field is its letter, eight bytes of length, the lowest first, and its bytes");
}

int main(void)
{
    tap_deadline(30);
    known_answers();
    fields();
    return done_testing();
}
