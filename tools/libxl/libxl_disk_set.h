/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The replicated disks of one guest on this host: a connection to the control socket of each disk's instance
 * (docs/misc/disk.md), and one question asked of all of them at once.
 *
 * The socket is <run folder>/disk-<domain>-<vdev>/control.sock; a request and its answer are one packet each, answers
 * come in the order of the requests, events at any time. Neither side trusts the other to answer: nothing here waits, and
 * the callers put limits on their steps.
 */
#ifndef LIBXL_DISK_SET_H
#define LIBXL_DISK_SET_H

#include "libxl_ev.h"

#define DISK_MAX 16        /* disks of one guest */
#define DISK_VDEV_MAX 16   /* characters of a virtual device's name */
#define DISK_TEXT_MAX 1700 /* bytes of a packet */
#define DISK_ROUNDS_MAX 8  /* questions that wait for answers */

enum disk_event {
    DISK_SYNCED,   /* the initial or repair synchronisation is through */
    DISK_PROGRESS, /* a of b bytes are synchronised */
    DISK_BARRIER,  /* the backup's instance has all of epoch a */
    DISK_LOST      /* the link is lost, or was given up: text says why */
};

typedef struct libxl__disk_set libxl__disk_set;
typedef void libxl__disk_done(libxl__egc *egc, libxl__disk_set *ds, int rc);

struct disk_client {
    libxl__disk_set *set;
    int fd; /* -1: not open, or gone */
    libxl__ev_fd ev;
    uint64_t answered; /* rounds it has answered, or was not asked in */
};

struct disk_round {
    libxl__disk_done *done; /* NULL: nobody wants to know */
    unsigned left;
    int rc;
};

struct libxl__disk_set {
    /* caller fills, borrowed */
    libxl__loop *loop;
    const char *domain;
    const char *const *vdevs;
    unsigned n; /* at least 1 when it is opened */
    void *user;
    void (*event)(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, enum disk_event what,
                  uint64_t a, uint64_t b, const char *text);
    /* An instance answered ok with words, "key=value ..." for instance. May be NULL. */
    void (*words)(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, const char *text);
    /* An instance closed its connection or broke the protocol; why tells. It counts as failed from here on. */
    void (*gone)(libxl__egc *egc, libxl__disk_set *ds, unsigned disk);

    char why[DISK_TEXT_MAX + 64]; /* the newest failure: disk and reason */

    /* own */
    struct disk_client clients[DISK_MAX];
    struct disk_round rounds[DISK_ROUNDS_MAX];
    uint64_t asked; /* rounds so far */
};

void libxl__disk_set_init(libxl__disk_set *ds);
/*
 * Connects to every instance and subscribes to its events. 0, or ERROR_FAIL (logged, why set): those that could be reached can be
 * asked nevertheless, until _dispose.
 */
int libxl__disk_set_open(libxl__disk_set *ds);
static inline bool libxl__disk_set_isopen(const libxl__disk_set *ds)
{
    return ds->asked != 0;
}
/*
 * Asks every instance that is there. done (may be NULL) comes once, later, when all have answered: rc 0 when all said
 * ok, else ERROR_FAIL with why set. An error that is returned instead: nobody could be asked, done does not come.
 * fds: NULL, or one descriptor for each disk that goes along with the question; they stay the caller's.
 */
int libxl__disk_set_ask(libxl__disk_set *ds, libxl__disk_done *done, const int *fds,
                        const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* No callback comes any more. Safe twice. */
void libxl__disk_set_dispose(libxl__disk_set *ds);

/* The number of a key in "key=value key=value"; false: there is none. */
bool libxl__disk_number(const char *text, const char *key, uint64_t *out);
/* Where the instances' folders are: /run/xentwin, or XENTWIN_RUNDIR. */
const char *libxl__disk_run_dir(void);
/* Is vdev a name that xl knows: letters and digits, at most DISK_VDEV_MAX? */
bool libxl__disk_vdev_ok(const char *vdev);
/*
 * Blocking: the guest of that name goes on here, so its disks do. For whoever decides that when no protection runs any more
 * (guard, --recover). 0, or ERROR_FAIL (logged) when one of them could not be told.
 */
int libxl__disk_unprotect(libxl__gc *gc, const char *domain);
/*
 * Blocking, for a command: one question to one instance, at most limit_ms. *answer is from gc, without its "ok ".
 * ERROR_NOTFOUND: there is no such instance. ERROR_FAIL: *answer says what it said instead, or is NULL.
 */
int libxl__disk_call(libxl__gc *gc, const char *domain, const char *vdev, const char *question,
                     int limit_ms, char **answer);

#endif
