/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "flockctl.h"
#include "helpers.h"
#include "tap.h"

static void *fail_elsewhere(void *seen)
{
    *(bool *)seen = *flk_error_detail() != '\0';
    fk_fail(-EINVAL, "another thread's");
    return NULL;
}

int main(void)
{
    bool seen;
    char longest[2 * FK_DETAIL_SIZE];
    pthread_t thread;
    tap_deadline(30);
    is_str(flk_error_detail(), "", "before any failure there is no sentence");
    is_int(fk_fail(-EINVAL, "%s is %d", "it", 7), -EINVAL, "a failure gives its code back");
    is_str(flk_error_detail(), "it is 7", "and keeps the sentence");
    is_int(fk_fail_errno(-EMFILE, "can't open %s", "it"), -EMFILE, "so does that of a system call");
    is_str(flk_error_detail(),
           "can't open it: Too many open files; raise this process's limit of open files (ulimit -n)",
           "with the reason and the remedy");
    static const int with_remedy[] = {ENOSPC, EDQUOT, EROFS, EMFILE, ENFILE, EACCES, EPERM};
    for (size_t i = 0; i < sizeof with_remedy / sizeof *with_remedy; i++) {
        fk_fail_errno(-with_remedy[i], "x");
        ok(strchr(flk_error_detail(), ';') != NULL, "%s", flk_error_detail());
    }
    fk_fail(-EINVAL, "this thread's");
    pthread_create(&thread, NULL, fail_elsewhere, &seen);
    pthread_join(thread, NULL);
    is_str(flk_error_detail(), "this thread's", "the sentence is this thread's");
    ok(!seen, "and no other one sees it");
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    fk_fail_errno(-EIO, "%s", longest);
    ok(strlen(flk_error_detail()) > 500 && strlen(flk_error_detail()) < sizeof longest, "a long one is cut");
    static const int codes[] = {0,      EBUSY,   ETIMEDOUT,       ECANCELED, EUSERS, ENOENT,
                                EAGAIN, EBADMSG, EPROTONOSUPPORT, EINVAL,    ENOSPC, 99999};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        ok(*flk_error_string(-codes[i]) != '\0', "%d has a phrase: %s", -codes[i], flk_error_string(-codes[i]));
    return done_testing();
}
