/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine of the examples: a thing that one at a time may use. It is a directory, which only one can make; who finds it
 * there was let in beside somebody else. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int engine_start(void)
{
    if (mkdir("engine.in-use", 0700) == 0)
        return 0;
    perror("engine.in-use");
    return -1;
}

static inline int engine_works(void)
{
    struct stat status;
    return stat("engine.in-use", &status) == 0;
}

static inline int engine_stop(void)
{
    return rmdir("engine.in-use");
}

#endif
