/* SPDX-License-Identifier: LGPL-2.1-only */
/* One host as the judge sees it: an instance, its control socket, its disk; and the link between two,
 * through a relay that can harm it. */
#ifndef JUDGE_SIDE_H
#define JUDGE_SIDE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REPLY_SIZE 1800

enum harm { HARM_NONE, HARM_CUT, HARM_FLIP, HARM_LOSE, HARM_SWAP, HARM_STALL };

struct relay {
    int ends[2]; /* towards the primary, towards the backup */
    int stop[2]; /* a pipe: closed to end it */
    enum harm harm;
    uint64_t at; /* octets from primary to backup before the harm */
    int stall_ms;
    bool harmed;
    pthread_t threads[2]; /* one for each direction: none waits for the other */
    bool runs;
};

struct side {
    char name[4], dir[200], disk[256];
    int control;  /* -1 */
    int fd;       /* the disk file, for looking at */
    pid_t attach; /* 0: none */
    const char *plugin;
    char fault[64]; /* of the plugin with faults; empty: none */
    /* from events */
    uint64_t barrier;
    bool synced, lost;
    char reason[200];
};

void side_init(struct side *s, const char *base, const char *name);
/* Starts it; returns the command's exit code. */
int side_start(struct side *s, const char *const *options);
void side_stop(struct side *s);
void side_kill(struct side *s);
/* 0: there is none. */
pid_t side_pid(const struct side *s);
/* Both see the disk of the first. */
void side_share(struct side *first, struct side *second);
bool side_running(const struct side *s);
/* 0: "ok ...". The reply stays in side_reply. */
int side_request(struct side *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern char side_reply[REPLY_SIZE];
/* Reads what events are there, waits for the first at most ms. False: the instance has gone. */
bool side_events(struct side *s, int ms);
uint64_t side_number(struct side *s, const char *key);
void side_uri(const struct side *s, char *out, size_t size);

/* Gives the primary one end of a link. */
int side_link(struct side *primary, int fd);
/* Runs "attach" on `backup` and gives the other end to `primary`; r NULL: nothing in between. */
int sides_link(struct side *primary, struct side *backup, struct relay *r,
               const char *const *options);
void relay_end(struct relay *r);
/* Ends attach, however. */
void side_unattach(struct side *s);

/* main() of a judge, which is said FIRST and COUNT: each workload returns how many failures it had. */
int judge_main(int argc, char **argv, unsigned (*workload)(uint64_t seed));

#endif
