/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uv NAME: events.c in the loop of libuv. Waits for NAME, and answers each line of its input meanwhile. Releases the lock, or gives up
 * waiting, at the end of its input.
 *
 *   cc uv.c $(pkg-config --cflags --libs flockctl libuv) -o uv */
#include <errno.h>
#include <flockctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

struct state {
    struct flk_request *request;
    struct flk_hold *hold;
    uv_poll_t on_request, on_input;
    int status;
};

static void stop(struct state *state, int status)
{
    state->status = status;
    uv_stop(state->on_input.loop);
}

/* The descriptor stays the same for the whole wait, so one uv_poll_t does. */
static void step(uv_poll_t *handle, int status, int events)
{
    struct state *state = handle->data;
    (void)status, (void)events;
    int code = flk_request_step(state->request, &state->hold);
    if (code == -EAGAIN)
        return;
    uv_poll_stop(handle);
    if (code < 0) {
        fprintf(stderr, "uv: %s\n", flk_error_detail());
        stop(state, EXIT_FAILURE);
    } else {
        printf("acquired %s as %s\n", flk_hold_name(state->hold, 0), flk_hold_id(state->hold));
    }
}

static void answer(uv_poll_t *handle, int status, int events)
{
    struct state *state = handle->data;
    char line[256];
    (void)status, (void)events;
    if (read(STDIN_FILENO, line, sizeof line) <= 0)
        stop(state, EXIT_SUCCESS);
    else
        printf("%s\n", state->hold ? "I have it" : "still waiting");
}

static void run(struct state *state, int fd)
{
    uv_loop_t *loop = uv_default_loop();
    state->on_request.data = state->on_input.data = state;
    uv_poll_init(loop, &state->on_request, fd);
    uv_poll_init(loop, &state->on_input, STDIN_FILENO);
    uv_poll_start(&state->on_request, UV_READABLE, step);
    uv_poll_start(&state->on_input, UV_READABLE, answer);
    uv_run(loop, UV_RUN_DEFAULT);
    /* Closed before flk_request_cancel() closes the descriptor. */
    uv_close((uv_handle_t *)&state->on_request, NULL);
    uv_close((uv_handle_t *)&state->on_input, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
}

int main(int argc, char **argv)
{
    struct state state = {.status = EXIT_FAILURE};
    if (argc != 2) {
        fprintf(stderr, "usage: uv NAME\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct flk_want want = {.name = argv[1]};
    int fd = flk_request_start(&want, 1, NULL, FLK_FOREVER, &state.request);
    if (fd == 0)
        fd = flk_request_fd(state.request);
    if (fd < 0)
        fprintf(stderr, "uv: %s\n", flk_error_detail());
    else
        run(&state, fd);
    flk_request_cancel(state.request);
    flk_hold_release(state.hold);
    return state.status;
}
