/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flockctl.h"

/* Made at a thread's first failure: variables of threads are taken from their stacks, which may be small. */
static _Thread_local char *detail;
static char no_memory[] = "out of memory";
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_end; /* of a thread: frees it */

static void make_key(void)
{
    pthread_key_create(&at_end, free);
}

/* NULL: out of memory. */
static char *room(void)
{
    if (detail && detail != no_memory)
        return detail;
    pthread_once(&once, make_key);
    char *fresh = calloc(1, FK_DETAIL_SIZE);
    if (fresh && pthread_setspecific(at_end, fresh) != 0) {
        free(fresh);
        fresh = NULL;
    }
    detail = fresh ? fresh : no_memory;
    return fresh;
}

static const char *remedy(int code)
{
    switch (-code) {
    case ENOSPC:
    case EDQUOT:
        return "; free some space there, or choose another directory with FLOCKCTL_DIR or --dir";
    case EROFS:
        return "; choose a writable directory with FLOCKCTL_DIR or --dir";
    case EMFILE:
        return "; raise this process's limit of open files (ulimit -n)";
    case ENFILE:
        return "; raise the system's limit of open files (sysctl fs.file-max)";
    case EACCES:
    case EPERM:
        return "; give this user access to it, or choose another directory with FLOCKCTL_DIR or --dir";
    default:
        return "";
    }
}

int fk_fail(int code, const char *format, ...)
{
    va_list arguments;
    if (!room())
        return code;
    va_start(arguments, format);
    vsnprintf(detail, FK_DETAIL_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

int fk_fail_errno(int code, const char *format, ...)
{
    va_list arguments;
    if (!room())
        return code;
    va_start(arguments, format);
    int used = vsnprintf(detail, FK_DETAIL_SIZE, format, arguments);
    va_end(arguments);
    if (used >= 0 && used < FK_DETAIL_SIZE)
        snprintf(detail + used, FK_DETAIL_SIZE - (size_t)used, ": %s%s", strerrordesc_np(-code), remedy(code));
    return code;
}

int fk_show_byte(char *text, size_t size, unsigned char byte)
{
    return snprintf(text, size, byte >= 0x20 && byte < 0x7f ? "%c" : "\\x%02x", byte);
}

void fk_error_save(struct fk_detail *saved)
{
    strcpy(saved->text, flk_error_detail());
}

void fk_error_restore(const struct fk_detail *saved)
{
    if (room())
        strcpy(detail, saved->text);
}

char *fk_error_take(void)
{
    return detail ? strdup(detail) : NULL;
}

void fk_error_give_back(char *taken)
{
    if (taken && room())
        strcpy(detail, taken);
    free(taken);
}

const char *flk_error_detail(void)
{
    return detail ? detail : "";
}

const char *flk_error_string(int code)
{
    switch (-code) {
    case 0:
        return "success";
    case EBUSY:
        return "taken by somebody else, and asked not to wait";
    case ETIMEDOUT:
        return "not acquired before the deadline";
    case ECANCELED:
        return "the wait was cancelled";
    case EDEADLK:
        return "waiting for it would never end";
    case EUSERS:
        return "the name has another number of slots";
    case ENOENT:
        return "the name isn't defined, or the command isn't there";
    case EAGAIN:
        return "not yet";
    case EBADMSG:
        return "a file of the lock directory is damaged";
    case EPROTONOSUPPORT:
        return "the lock directory or the tool belongs to another release of flockctl";
    case ENOPKG:
        return "the flockctl tool can't be executed";
    case ECHILD:
        return "the flockctl tool that looked after the command was killed";
    case ESRCH:
        return "the command and all that it has started have ended";
    default:;
        const char *text = strerrordesc_np(-code);
        return text ? text : "unknown error";
    }
}
