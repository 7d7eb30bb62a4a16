/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xensim-relay to|from N close|flip|delay=MS CMD...
 *
 * Runs CMD with its standard input and output led through here, and does something at the N-th octet of one direction: "to" the
 * command or "from" it. 0: nothing, all passes.
 *
 *   close     both directions end, before it; the command is not told otherwise, as a program on the other host is not
 *   flip      one bit of that octet is another one
 *   delay=MS  it and all behind it come later
 *
 * XENSIM_RELAY_LOG names a file for the last word: "to=OCTETS from=OCTETS done=0|1".
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum action { CLOSE, FLIP, DELAY };

static struct way {
    const char *name;
    int in, out;
    uint64_t passed;
} ways[2] = {{"to", STDIN_FILENO, -1, 0}, {"from", -1, STDOUT_FILENO, 0}};

static struct way *chosen;
static uint64_t at_octet;
static enum action action;
static long delay_ms;
static bool done;
static pid_t child;

static void __attribute__((noreturn)) leave(int status)
{
    const char *path = getenv("XENSIM_RELAY_LOG");
    FILE *f = path ? fopen(path, "w") : NULL;

    if (f) {
        fprintf(f, "to=%llu from=%llu done=%d\n", (unsigned long long)ways[0].passed,
                (unsigned long long)ways[1].passed, done);
        fclose(f);
    }
    exit(status);
}

static void act(unsigned char *octet)
{
    done = true;
    if (action == FLIP) *octet ^= 1;
    if (action == DELAY) usleep((useconds_t)delay_ms * 1000);
    if (action == CLOSE) leave(255); /* as ssh does */
}

static bool write_all(int fd, const unsigned char *p, size_t n)
{
    while (n) {
        ssize_t r = write(fd, p, n);

        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return false;
        p += r;
        n -= (size_t)r;
    }
    return true;
}

/* What is before the octet has passed when something happens at it. */
static bool pass(struct way *w, unsigned char *p, size_t n)
{
    size_t before = n;

    if (w == chosen && !done && at_octet > w->passed && at_octet <= w->passed + n)
        before = (size_t)(at_octet - w->passed - 1);
    if (!write_all(w->out, p, before)) return false;
    w->passed += before;
    if (before == n) return true;
    act(p + before);
    if (!write_all(w->out, p + before, n - before)) return false;
    w->passed += n - before;
    return true;
}

/* False: this direction is over. */
static bool move(struct way *w)
{
    unsigned char buf[16384];
    ssize_t r = read(w->in, buf, sizeof(buf));

    if (r < 0 && errno == EINTR) return true;
    if (r > 0 && pass(w, buf, (size_t)r)) return true;
    close(w->in);
    close(w->out);
    w->in = -1;
    return false;
}

static void relay(void)
{
    while (ways[1].in >= 0) {
        struct pollfd p[2] = {{.fd = ways[0].in, .events = POLLIN},
                              {.fd = ways[1].in, .events = POLLIN}};

        if (poll(p, 2, -1) < 0 && errno != EINTR) return;
        for (int i = 0; i < 2; i++)
            if (ways[i].in >= 0 && p[i].revents) move(&ways[i]);
    }
}

static int start(char **argv)
{
    int to[2], from[2];

    if (pipe(to) || pipe(from)) return -1;
    child = fork();
    if (!child) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    ways[0].out = to[1];
    ways[1].in = from[0];
    return child < 0 ? -1 : 0;
}

static bool understood(char **argv)
{
    char *end;

    chosen = !strcmp(argv[1], "to") ? &ways[0] : !strcmp(argv[1], "from") ? &ways[1] : NULL;
    at_octet = strtoull(argv[2], &end, 10);
    if (!chosen || *end || end == argv[2]) return false;
    if (!strncmp(argv[3], "delay=", 6)) {
        action = DELAY;
        delay_ms = strtol(argv[3] + 6, &end, 10);
        return !*end && delay_ms > 0 && delay_ms <= 60000;
    }
    action = !strcmp(argv[3], "close") ? CLOSE : FLIP;
    return action != FLIP || !strcmp(argv[3], "flip");
}

int main(int argc, char **argv)
{
    int status;

    if (argc < 5 || !understood(argv)) {
        fprintf(stderr, "xensim-relay: usage: xensim-relay to|from N close|flip|delay=MS "
                        "CMD...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (start(argv + 4)) {
        perror("xensim-relay");
        return 1;
    }
    relay();
    if (waitpid(child, &status, 0) != child) leave(255);
    leave(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
}
