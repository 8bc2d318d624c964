/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a command on a terminal of its own, as a user would who sits there: usage: pty COMMAND [ARG]... <STEPS
 *
 *   expect TEXT   waits until TEXT is printed, after what the last expect found
 *   send KEYS     types them; \n, \\ and \ooo (octal: \003 is Ctrl-C, \032 Ctrl-Z) stand for what they do in C
 *   hang up       the terminal goes away
 *   run COMMANDS  runs them with sh -c, not on the terminal; they must succeed
 *
 * The command is the leader of a session, and the terminal, which doesn't echo, its controlling one. After the last step the
 * command must end by itself. All that it printed is on stdout. Exit status: the command's, 128+n for a signal; 99: a step
 * has failed, or has taken more than 20 s, and stderr says which. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define EXIT_FAILED 99

static int terminal; /* our end */
static pid_t command;
static char *printed;
static size_t size, searched;

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vwarnx(format, arguments);
    va_end(arguments);
    fprintf(stderr, "since the last step: \"%.*s\"\n", (int)(size - searched), printed ? printed + searched : "");
    fflush(stdout);
    kill(command, SIGKILL);
    exit(EXIT_FAILED);
}

/* False: nobody has the terminal open any more, or nothing came in time. */
static bool take_output(long deadline)
{
    struct pollfd event = {.fd = terminal, .events = POLLIN};
    long left = deadline - now_ms();
    if (left <= 0 || poll(&event, 1, (int)left) <= 0)
        return false;
    printed = realloc(printed, size + 4096 + 1);
    ssize_t got = read(terminal, printed + size, 4096);
    if (got <= 0)
        return false;
    fwrite(printed + size, 1, (size_t)got, stdout);
    size += (size_t)got;
    printed[size] = '\0';
    return true;
}

static void expect(const char *text, unsigned line)
{
    long deadline = now_ms() + PATIENCE_MS;
    const char *found;
    while (!printed || !(found = strstr(printed + searched, text)))
        if (!take_output(deadline))
            fail("line %u: \"%s\" didn't come", line, text);
    searched = (size_t)(found - printed) + strlen(text);
}

static size_t unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned value;
        int length;
        if (*from != '\\') {
            *to = *from++;
        } else if (sscanf(from + 1, "%3o%n", &value, &length) == 1) {
            *to = (char)value;
            from += 1 + length;
        } else {
            *to = from[1] == 'n' ? '\n' : from[1];
            from += from[1] ? 2 : 1;
        }
    }
    return (size_t)(to - text);
}

static void type(char *keys, unsigned line)
{
    size_t length = unescape(keys);
    if (write(terminal, keys, length) != (ssize_t)length)
        fail("line %u: can't type: %s", line, strerror(errno));
}

static void run_beside(const char *commands, unsigned line)
{
    fflush(stdout);
    int status = system(commands);
    if (status != 0)
        fail("line %u: \"%s\": wait status %#x", line, commands, (unsigned)status);
}

static void hang_up(void)
{
    close(terminal);
    terminal = -1;
}

static void do_step(char *text, unsigned line)
{
    char *argument = text + strcspn(text, " ");
    argument += *argument == ' ';
    if (strncmp(text, "expect ", 7) == 0)
        expect(argument, line);
    else if (strncmp(text, "send ", 5) == 0)
        type(argument, line);
    else if (strncmp(text, "run ", 4) == 0)
        run_beside(argument, line);
    else if (strcmp(text, "hang up") == 0)
        hang_up();
    else if (*text && *text != '#')
        fail("line %u: there is no step \"%s\"", line, text);
}

static void become(char **argv, int theirs)
{
    setsid();
    if (ioctl(theirs, TIOCSCTTY, 0) < 0)
        err(EXIT_FAILED, "no controlling terminal");
    for (int fd = 0; fd < 3; fd++)
        dup2(theirs, fd);
    execvp(argv[0], argv);
    err(EXIT_FAILED, "%s", argv[0]);
}

static void start(char **argv)
{
    struct termios settings;
    terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || grantpt(terminal) < 0 || unlockpt(terminal) < 0)
        err(EXIT_FAILED, "no terminal");
    int theirs = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs < 0 || tcgetattr(theirs, &settings) < 0)
        err(EXIT_FAILED, "%s", ptsname(terminal));
    settings.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(theirs, TCSANOW, &settings);
    command = fork();
    if (command < 0)
        err(EXIT_FAILED, "fork");
    if (command == 0)
        become(argv, theirs);
    close(theirs);
}

static int end(void)
{
    int status = 0;
    long deadline = now_ms() + PATIENCE_MS;
    while (waitpid(command, &status, WNOHANG) == 0) {
        if (now_ms() > deadline)
            fail("the command doesn't end");
        take_output(now_ms() + 10);
    }
    while (take_output(now_ms() + 10))
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    if (argc < 2)
        errx(EXIT_FAILED, "usage: pty COMMAND [ARG]... <STEPS");
    start(argv + 1);
    for (unsigned number = 1; getline(&line, &room, stdin) > 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        do_step(line, number);
    }
    free(line);
    return end();
}
