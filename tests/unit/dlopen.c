/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A host that knows nothing of the library: loaded by dlopen() in a plugin's way, used, closed. Nothing is linked in
 * but the writer of TAP, so what goes wrong in the host goes wrong here. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flockctl.h"
#include "tap.h"

struct library {
    void *handle;
    int (*acquire)(const char *name, unsigned flags, int64_t timeout_ms, struct flk_hold **hold);
    void (*release)(struct flk_hold *hold);
    int (*held)(const char *name);
    int (*root_set)(const char *dir);
    const char *(*error_detail)(void);
};

static const char *path_of_library(void)
{
    static char path[4096];
    const char *build = getenv("top_builddir");
    snprintf(path, sizeof path, "%.4000s/lib/.libs/libflockctl.so.0", build ? build : ".");
    return access(path, R_OK) == 0 ? path : NULL;
}

/* A data pointer where a function's is wanted, which POSIX allows and C doesn't know. */
static void find(const struct library *library, const char *name, void *function)
{
    void *found = dlsym(library->handle, name);
    if (!found)
        bail_out("%s", dlerror());
    memcpy(function, &found, sizeof found);
}

static struct library load(void)
{
    struct library library = {.handle = dlopen(path_of_library(), RTLD_NOW | RTLD_LOCAL)};
    if (!library.handle)
        bail_out("%s", dlerror());
    find(&library, "flk_acquire", &library.acquire);
    find(&library, "flk_hold_release", &library.release);
    find(&library, "flk_held", &library.held);
    find(&library, "flk_root_set", &library.root_set);
    find(&library, "flk_error_detail", &library.error_detail);
    return library;
}

static int count(const char *path)
{
    int n = 0;
    DIR *directory = opendir(path);
    if (!directory)
        bail_out("%s: %s", path, strerror(errno));
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

static void use(const struct library *library)
{
    struct flk_hold *hold;
    if (library->acquire("plugin", 0, 0, &hold) < 0)
        bail_out("%s", library->error_detail());
    if (library->held("plugin") != 2)
        bail_out("it isn't held");
    library->release(hold);
}

static int end_of(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            bail_out("waitpid: %s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- a thread that used it ends after the dlclose ---- */

static struct library library;
static pthread_barrier_t used, closed;

static void *use_and_outlive(void *data)
{
    use(&library);
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&closed);
    return data;
}

static void outlived(void)
{
    pthread_t thread;
    void *result;
    pthread_barrier_init(&used, NULL, 2);
    pthread_barrier_init(&closed, NULL, 2);
    library = load();
    if (pthread_create(&thread, NULL, use_and_outlive, &library) != 0)
        bail_out("no thread");
    pthread_barrier_wait(&used);
    is_int(dlclose(library.handle), 0, "a plugin that used the library in another thread is closed");
    pthread_barrier_wait(&closed);
    ok(pthread_join(thread, &result) == 0 && result == &library, "and that thread ends in peace");
}

static void forked(void)
{
    pid_t pid = tap_fork();
    if (pid == 0)
        _exit(7);
    is_int(end_of(pid), 7, "fork() finds its handlers");
    library = load();
    use(&library);
    ok(true, "loaded once more, the library goes on");
    pid = tap_fork();
    if (pid == 0) {
        use(&library);
        _exit(8);
    }
    is_int(end_of(pid), 8, "in a child as well");
    ok(dlclose(library.handle) == 0 && library.held("plugin") == 0, "closed, it is still there");
}

int main(void)
{
    char root[4096];
    if (!path_of_library())
        skip_all("there is no shared library");
    tap_deadline(60);
    snprintf(root, sizeof root, "%s/locks", tap_directory());
    setenv("FLOCKCTL_DIR", root, 1);
    setenv("FLOCKCTL_CONFIG", "/dev/null", 1);
    int descriptors = count("/proc/self/fd");
#ifndef __SANITIZE_THREAD__
    int threads = count("/proc/self/task");
#endif
    outlived();
    forked();
#ifndef __SANITIZE_THREAD__ /* which starts one of its own */
    is_int(count("/proc/self/task"), threads, "no thread is left");
#endif
    if (library.root_set(NULL) < 0)
        bail_out("%s", library.error_detail());
    is_int(count("/proc/self/fd"), descriptors, "no descriptor is, once flk_root_set() has closed the idle ones");
    return done_testing();
}
