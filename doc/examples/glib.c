/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* glib NAME: events.c in the main loop of GLib. Waits for NAME, and answers each line of its input meanwhile. Releases the lock, or
 * gives up waiting, at the end of its input.
 *
 *   cc glib.c $(pkg-config --cflags --libs flockctl glib-2.0) -o glib */
#include <errno.h>
#include <flockctl.h>
#include <glib-unix.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct state {
    GMainLoop *loop;
    struct flk_request *request;
    struct flk_hold *hold;
    int status;
};

static gboolean stop(struct state *state, int status)
{
    state->status = status;
    g_main_loop_quit(state->loop);
    return G_SOURCE_REMOVE;
}

/* The descriptor stays the same for the whole wait, so one source does. */
static gboolean step(gint fd, GIOCondition condition, gpointer data)
{
    struct state *state = data;
    (void)fd, (void)condition;
    int code = flk_request_step(state->request, &state->hold);
    if (code == -EAGAIN)
        return G_SOURCE_CONTINUE;
    if (code < 0) {
        fprintf(stderr, "glib: %s\n", flk_error_detail());
        return stop(state, EXIT_FAILURE);
    }
    printf("acquired %s as %s\n", flk_hold_name(state->hold, 0), flk_hold_id(state->hold));
    return G_SOURCE_REMOVE;
}

static gboolean answer(gint fd, GIOCondition condition, gpointer data)
{
    struct state *state = data;
    char line[256];
    (void)condition;
    if (read(fd, line, sizeof line) <= 0)
        return stop(state, EXIT_SUCCESS);
    printf("%s\n", state->hold ? "I have it" : "still waiting");
    return G_SOURCE_CONTINUE;
}

static void run(struct state *state, int fd)
{
    state->loop = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(fd, G_IO_IN, step, state);
    g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP, answer, state);
    g_main_loop_run(state->loop);
    g_main_loop_unref(state->loop);
}

int main(int argc, char **argv)
{
    struct state state = {.status = EXIT_FAILURE};
    if (argc != 2) {
        fprintf(stderr, "usage: glib NAME\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct flk_want want = {.name = argv[1]};
    int fd = flk_request_start(&want, 1, NULL, FLK_FOREVER, &state.request);
    if (fd == 0)
        fd = flk_request_fd(state.request);
    if (fd < 0)
        fprintf(stderr, "glib: %s\n", flk_error_detail());
    else
        run(&state, fd);
    flk_request_cancel(state.request);
    flk_hold_release(state.hold);
    return state.status;
}
