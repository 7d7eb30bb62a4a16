/* SPDX-License-Identifier: LGPL-2.1-only */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xen/xen.h>
#include <xen/sched.h>
#include <xenstore.h>

#include "sim_guest.h"
#include "sim_xenstore.h"

static const struct timespec between_tries = {0, 100000000};

static int code_of(const char *word)
{
    static const struct {
        const char *word;
        int code;
    } words[] = {{"suspend", SHUTDOWN_suspend},
                 {"poweroff", SHUTDOWN_poweroff},
                 {"halt", SHUTDOWN_poweroff},
                 {"reboot", SHUTDOWN_reboot},
                 {"crash", SHUTDOWN_crash}};
    size_t i;

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(words[i].word, word)) return words[i].code;
    return -1;
}

static void ask_guest(uint32_t domid, int code)
{
    struct sim_domain *d = sim_domain_get(domid);

    if (!d) return;
    pthread_mutex_lock(&d->lock);
    if (!d->dying) sim_guest_ask(d, (uint8_t)code);
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
}

/* Only a guest that runs sees its store: the word stays there until then, and is found by another look. */
static bool can_look(uint32_t domid)
{
    struct sim_domain *d = sim_domain_get(domid);
    bool can;

    if (!d) return false;
    pthread_mutex_lock(&d->lock);
    can = sim_domain_runnable(d) && sim_guest_state(d);
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
    return can;
}

/* The word is emptied if it is still the one that was read, as a guest's driver does it. */
static void look(struct xs_handle *xs, uint32_t domid)
{
    unsigned int len = 0;
    xs_transaction_t t;
    char path[64], *word;
    int code;

    if (!can_look(domid)) return;
    snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", domid);
    t = xs_transaction_start(xs);
    if (!t) return;
    word = xs_read(xs, t, path, &len);
    code = word && len ? code_of(word) : -1;
    free(word);
    if (code >= 0) xs_write(xs, t, path, "", 0);
    if (!xs_transaction_end(xs, t, code < 0) || code < 0) return;
    ask_guest(domid, code);
}

static void serve(struct xs_handle *xs)
{
    unsigned int num, domid;
    char **event;
    int end;

    while ((event = xs_read_watch(xs, &num))) {
        end = 0;
        if (sscanf(event[XS_WATCH_PATH], "/local/domain/%u/control/shutdown%n", &domid, &end) ==
                1 &&
            end && !event[XS_WATCH_PATH][end])
            look(xs, domid);
        free(event);
    }
}

static void *xenstore_main(void *arg)
{
    (void)arg;
    for (;;) {
        struct xs_handle *xs = xs_open(0);

        if (xs && xs_watch(xs, "/local/domain", "xensimd")) serve(xs);
        if (xs) xs_close(xs);
        nanosleep(&between_tries, NULL);
    }
    return NULL;
}

int sim_xenstore_start(void)
{
    pthread_t thread;
    int rc;

    setenv("XENSTORED_RUNDIR", sim_host.rundir, 1);
    unsetenv("XENSTORED_PATH");
    rc = pthread_create(&thread, NULL, xenstore_main, NULL);
    if (!rc) pthread_detach(thread);
    return rc;
}
