/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* events NAME: waits for NAME in a loop that has other things to do, here to answer each line of its input. Releases the lock,
 * or gives up waiting, at the end of its input. */
#include <errno.h>
#include <flockctl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int fail(void)
{
    fprintf(stderr, "events: %s\n", flk_error_detail());
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct flk_request *request;
    struct flk_hold *hold = NULL;
    char line[256];
    if (argc != 2) {
        fprintf(stderr, "usage: events NAME\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (flk_request_start(&(struct flk_want){.name = argv[1]}, 1, NULL, FLK_FOREVER, &request) < 0)
        return fail();
    struct pollfd events[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = flk_request_fd(request), .events = POLLIN}};
    if (events[1].fd < 0)
        return fail();

    for (;;) {
        if (poll(events, 2, -1) < 0 && errno != EINTR)
            break;
        if (events[1].revents) {
            int code = flk_request_step(request, &hold);
            if (code == 0) {
                printf("acquired %s as %s\n", argv[1], flk_hold_id(hold));
                events[1].fd = -1; /* poll passes it over */
            } else if (code != -EAGAIN) {
                return fail();
            }
        }
        if (events[0].revents) {
            if (read(STDIN_FILENO, line, sizeof line) <= 0)
                break;
            printf("%s\n", hold ? "I have it" : "still waiting");
        }
    }
    flk_request_cancel(request);
    flk_hold_release(hold);
    return 0;
}
