/* SPDX-License-Identifier: LGPL-2.1-only */
/* xensimctl: passes its words to the xensimd at XENSIM_SOCKET and prints what comes back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/sim_link.h"

#define LINE_MAX_BYTES 4096
#define ANSWER_MAX_BYTES 65536

static const char usage[] =
    "usage: xensimctl COMMAND...        XENSIM_SOCKET names the host's socket\n"
    "  create mem=MIB [type=pvh|hvm] [present=MIB] [guest=SPEC]   prints the domid; it is paused\n"
    "      SPEC: rate=N,pages=N,choice=uniform|zipf|sequential,fill=full|sparse|zero|same,\n"
    "            words=N,kv=SLOTS,ram=random|zero,seed=N\n"
    "  list | info D | destroy D | pause D | unpause D | resume D | log-off D\n"
    "  shutdown D CODE     at once, as by the hypervisor (2 = suspend)\n"
    "  ask D CODE          the guest does it at its next turn\n"
    "  manual D 0|1 | step D TICKS | write D PAGES | rate D PAGES_PER_S | poke D GFN WORD\n"
    "  balloon-out D GFN N | balloon-in D GFN N | max D MIB\n"
    "  hash D | pages D FILE | verify D | hash-suspends D 0|1\n"
    "  kv D SET KEY VALUE | kv D GET KEY\n"
    "  fault NAME n=N [comm=PROGRAM] fail=ERRNO|delay=MS|corrupt|kill [always]\n"
    "  faults | counts | clear | ping\n";

static int join(int argc, char **argv, char *line)
{
    size_t at = 0;
    int i;

    for (i = 1; i < argc; i++) {
        int n = snprintf(line + at, LINE_MAX_BYTES - at, "%s%s", at ? " " : "", argv[i]);

        at += (size_t)n;
        if (at >= LINE_MAX_BYTES) return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static char line[LINE_MAX_BYTES], answer[ANSWER_MAX_BYTES];
    struct sim_link link;
    struct sim_request req = {SIM_CONTROL, 0, {0}};
    int64_t r;

    if (argc < 2 || !strcmp(argv[1], "--help")) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (join(argc, argv, line)) {
        fprintf(stderr, "xensimctl: too many words\n");
        return 2;
    }
    if (sim_link_open(&link)) {
        fprintf(stderr, "xensimctl: no host at %s='%s': %s\n", SIM_ENV_SOCKET,
                getenv(SIM_ENV_SOCKET) ? getenv(SIM_ENV_SOCKET) : "", strerror(errno));
        return 1;
    }
    req.args[0] = (uintptr_t)line;
    req.args[1] = strlen(line);
    req.args[2] = (uintptr_t)answer;
    req.args[3] = ANSWER_MAX_BYTES;
    r = sim_link_request(&link, &req, NULL, NULL);
    if (r < 0)
        fprintf(stderr, "xensimctl: %s\n", *answer ? answer : strerror(errno));
    else
        fputs(answer, stdout);
    sim_link_close(&link);
    return r < 0 ? 1 : 0;
}
