/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The one-shot commands of xl remus: they talk to the running operation through its control socket,
 * or, for --recover, put a guest right that nobody looks after any more.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libxl_control.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"
#include "xl.h"
#include "xl_disk.h"
#include "xl_guest.h"
#include "xl_monitor.h"
#include "xl_opts.h"
#include "xl_remus.h"

#define STATUS_LIMIT_MS 5000
/* The twin may have to be destroyed first, or an arbiter to be asked. */
#define ACTION_LIMIT_MS 120000
#define DOMAINS_MAX 256
#define INCOMING_SUFFIX "--incoming"

/* Prints what one side says of a domain; true when it lives. */
static bool print_status(libxl__gc *gc, const char *side, const char *domain)
{
    char *answer = NULL;
    int rc = libxl__control_call(gc, side, domain, "status", STATUS_LIMIT_MS, &answer);
    const char *text;

    if (rc == ERROR_NOTFOUND) return false;
    if (rc || !answer || strncmp(answer, "ok", 2)) {
        printf("%s: %s, does not answer\n", domain, side);
        return true;
    }
    text = answer + 2;
    text += strspn(text, " \n");
    printf("%s:\n", domain);
    while (*text) {
        size_t len = strcspn(text, "\n");

        printf("  %.*s\n", (int)len, text);
        text += len + strspn(text + len, "\n");
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The domain of "primary-NAME.sock" or "backup-NAME.sock", or NULL. The side's name ends at
 * *domain. */
static char *socket_domain(char *file, const char **side)
{
    static const char *const sides[] = {"primary", "backup"};
    char *end = strrchr(file, '.');
    size_t i, len;

    if (!end || strcmp(end, ".sock")) return NULL;
    *end = '\0';
    for (i = 0; i < 2; i++) {
        len = strlen(sides[i]);
        if (!strncmp(file, sides[i], len) && file[len] == '-' && xl_name_valid(file + len + 1)) {
            *side = sides[i];
            return file + len + 1;
        }
    }
    return NULL;
}

/* Domains of this host that no operation looks after. */
struct unattended {
    libxl__gc *gc;
    const char *domain; /* NULL: any */
    int shown;
};

static bool attended(libxl__gc *gc, const char *side, const char *name)
{
    char *answer = NULL;

    /* Other names cannot have an operation. */
    return xl_name_valid(name) && libxl__control_call(gc, side, name, "status", STATUS_LIMIT_MS,
                                                      &answer) != ERROR_NOTFOUND;
}

/* Whoever was building it was killed, or it is a migration that comes here: that cannot be told apart. */
static void print_left_over(struct unattended *u, const char *incoming, uint32_t domid)
{
    char *name = libxl__strdup(u->gc, incoming);

    name[strlen(name) - strlen(INCOMING_SUFFIX)] = '\0';
    if ((u->domain && strcmp(u->domain, name)) || attended(u->gc, "backup", name)) return;
    printf("%s:\n  domain %u, %s, is here, and no twin looks after it; unless a migration "
           "builds it: xl destroy %u\n",
           name, domid, incoming, domid);
    u->shown++;
}

static void print_stopped(struct unattended *u, const char *name, uint32_t domid)
{
    if (u->domain && strcmp(u->domain, name)) return;
    if (!libxl__recover_is_stopped(u->gc, domid) || attended(u->gc, "primary", name)) return;
    printf("%s: stopped by a lost link, output held; if it runs at the other host: "
           "xl remus --discard %s; if it certainly does not: xl remus --recover %s\n",
           name, name, name);
    u->shown++;
}

static void print_domain(void *user, const char *name, uint32_t domid)
{
    size_t len = strlen(name), end = strlen(INCOMING_SUFFIX);

    if (len > end && !strcmp(name + len - end, INCOMING_SUFFIX)) print_left_over(user, name, domid);
    print_stopped(user, name, domid);
}

static int print_unattended(libxl__gc *gc, const char *domain)
{
    struct unattended u = {.gc = gc, .domain = domain};

    xl_guest_each(print_domain, &u);
    return u.shown;
}

static int status_of_all(libxl__gc *gc)
{
    const char *dir = getenv("XENTWIN_RUN_DIR");
    char *files[DOMAINS_MAX];
    int n = 0, i, shown = 0;
    bool left_out = false;
    struct dirent *entry;
    const char *side;
    DIR *d;

    d = opendir(dir && *dir ? dir : "/run/xentwin");
    if (!d && errno != ENOENT)
        return xl_fail("remus", "cannot read %s: %s", dir ? dir : "/run/xentwin", strerror(errno));
    while (d && (entry = readdir(d))) {
        if (!socket_domain(libxl__strdup(gc, entry->d_name), &side)) continue;
        if (n < DOMAINS_MAX)
            files[n++] = libxl__strdup(gc, entry->d_name);
        else
            left_out = true;
    }
    if (d) closedir(d);
    qsort(files, (size_t)n, sizeof(files[0]), compare_names);
    for (i = 0; i < n; i++) {
        const char *domain = socket_domain(files[i], &side);

        if (!domain) continue;
        if (print_status(gc, side, domain))
            shown++;
        else
            libxl__control_sweep(gc, side, domain);
    }
    shown += print_unattended(gc, NULL);
    shown += (int)xl_disk_print_status(gc, NULL);
    if (!shown) printf("no domain is protected or received on this host\n");
    if (left_out) xl_say("remus", "more than %d are here: name the one to be shown", DOMAINS_MAX);
    return XL_DONE;
}

static int status(libxl__gc *gc, const char *domain)
{
    bool shown;

    if (!domain) return status_of_all(gc);
    shown = print_status(gc, "primary", domain);
    shown |= print_status(gc, "backup", domain);
    shown |= print_unattended(gc, domain) > 0;
    shown |= xl_disk_print_status(gc, domain);
    if (shown) return XL_DONE;
    return xl_fail("remus", "'%s' is neither protected nor received on this host", domain);
}

/* Sends one word to the operation and says how it went. */
static int ask(libxl__gc *gc, const char *side, const char *domain, const char *word,
               const char *done)
{
    char *answer = NULL;
    int rc = libxl__control_call(gc, side, domain, word, ACTION_LIMIT_MS, &answer);

    if (rc == ERROR_NOTFOUND)
        return xl_fail("remus",
                       "'%s' is not being %s on this host; 'xl remus --status' shows what is",
                       domain, strcmp(side, "primary") ? "received" : "protected");
    if (rc == ERROR_TIMEDOUT)
        return xl_fail("remus", "'%s' did not answer within %d s", domain, ACTION_LIMIT_MS / 1000);
    if (rc || !answer)
        return xl_fail("remus", "cannot talk to the process that looks after '%s'", domain);
    if (!strncmp(answer, "error", 5))
        return xl_fail("remus", "%s of '%s' refused:%s", word, domain,
                       answer[5] ? answer + 5 : " no reason given");
    printf("%s: %s\n", domain, done);
    return XL_DONE;
}

/* The guest that nobody looks after, and the name of its net buffer. g is the caller's to dispose, whatever comes. */
static int open_unattended(libxl__gc *gc, const char *domain, struct xl_guest *g, char ifb[16])
{
    int rc;

    xl_guest_init(g);
    rc = xl_guest_open(g, "remus", domain, gc->lg);
    if (!rc) rc = xl_guest_refuse_protected(g, "remus");
    if (!rc) libxl__netbuffer_ifname(g->domid, ifb);
    return rc;
}

static bool is_paused(const struct xl_guest *g)
{
    libxl_dominfo info;
    bool paused;

    libxl_dominfo_init(&info);
    paused = !libxl_domain_info(g->ctx, &info, g->domid) && info.paused;
    libxl_dominfo_dispose(&info);
    return paused;
}

static int recover(libxl__gc *gc, const char *domain)
{
    struct xl_guest g;
    char ifb[16];
    int rc;

    rc = open_unattended(gc, domain, &g, ifb);
    if (rc) goto out;
    if (libxl__recover_by_hand(gc, g.domid, ifb))
        rc = xl_fail("remus", "'%s' could not be put right completely, see above", g.name);
    else if (!xl_monitor_attend(g.domid, g.name))
        rc = XL_FAILED;
    else if (is_paused(&g)) /* somebody else's, so not ours to undo */
        printf("%s: its output is open, but somebody paused it: xl unpause %s\n", g.name, g.name);
    else
        printf("%s: runs here, its output is open\n", g.name);
out:
    xl_guest_dispose(&g);
    return rc;
}

static int attend(libxl__gc *gc, const char *domain)
{
    struct xl_guest g;
    char ifb[16];
    int rc;

    rc = open_unattended(gc, domain, &g, ifb);
    if (!rc && !xl_monitor_attend(g.domid, g.name)) rc = XL_FAILED;
    xl_guest_dispose(&g);
    return rc;
}

/* The stopped or held copy of a guest that runs elsewhere now: what it still wanted to send must never leave. */
static int discard_stopped(libxl__gc *gc, const char *domain)
{
    struct xl_guest g;
    bool held = false;
    char ifb[16];
    int rc;

    rc = open_unattended(gc, domain, &g, ifb);
    if (rc) goto out;
    /* Where the guard was killed, too, it still runs, unheard. */
    if (!libxl__recover_is_stopped(gc, g.domid) &&
        (libxl__netbuffer_held(gc, ifb, &held) || !held)) {
        rc = xl_fail("remus",
                     "'%s' is neither a twin nor a copy that a lost link stopped: nothing is "
                     "touched; to end a guest use xl destroy",
                     domain);
        goto out;
    }
    if (libxl__netbuffer_discard(gc, ifb) || libxl_domain_destroy(g.ctx, g.domid, NULL) ||
        libxl__netbuffer_remove(gc, ifb))
        rc = xl_fail("remus", "the stopped copy of '%s' could not be removed completely, see above",
                     g.name);
    else
        printf("%s: the stopped copy is removed, what it held was not sent\n", g.name);
out:
    xl_guest_dispose(&g);
    return rc;
}

/* The twin is known by its name, the stopped copy as the person called it. */
static int discard(libxl__gc *gc, const char *name, const char *domain)
{
    char *answer = NULL;

    if (libxl__control_call(gc, "backup", name, "status", ACTION_LIMIT_MS, &answer) ==
        ERROR_NOTFOUND)
        return discard_stopped(gc, domain);
    return ask(gc, "backup", name, "discard", "the twin is dropped");
}

struct numbered {
    libxl__gc *gc;
    unsigned long domid;
    const char *name; /* NULL: not found */
};

static void take_numbered(void *user, const char *name, uint32_t domid)
{
    struct numbered *n = user;

    if (domid == n->domid) n->name = libxl__strdup(n->gc, name);
}

/* What is asked for by number is known by name; one whose name is that number comes first. */
static const char *name_of(libxl__gc *gc, const char *domain)
{
    struct numbered n = {.gc = gc};

    if (!*domain || domain[strspn(domain, "0123456789")]) return domain;
    if (attended(gc, "primary", domain) || attended(gc, "backup", domain)) return domain;
    n.domid = strtoul(domain, NULL, 10);
    xl_guest_each(take_numbered, &n);
    return n.name ? n.name : domain;
}

static int run(libxl__gc *gc, const struct remus_opts *o)
{
    const char *name = o->domain;

    if (o->action == REMUS_RECOVER) return recover(gc, o->domain);
    if (o->action == REMUS_ATTEND) return attend(gc, o->domain);
    if (name) name = name_of(gc, name);
    if (name && !xl_name_valid(name))
        return xl_fail("remus", "'%s' is not the name of a protected domain", name);
    switch (o->action) {
    case REMUS_STOP:
        return ask(gc, "primary", name, "stop", "protection ended, runs on here");
    case REMUS_PROMOTE:
        return ask(gc, "backup", name, "promote", "the twin runs here");
    case REMUS_DISCARD:
        return discard(gc, name, o->domain);
    default:
        return status(gc, name);
    }
}

int xl_remus_control(const struct remus_opts *o)
{
    xentoollog_logger_stdiostream *lg;
    libxl__gc gc;
    int rc;

    if (geteuid() != 0) return xl_fail("remus", "only root may do this: run it with sudo");
    lg = xtl_createlogger_stdiostream(stderr, xl_globals.verbosity ? XTL_DEBUG : XTL_WARN, 0);
    if (!lg) return xl_fail("remus", "out of memory");
    libxl__gc_init(&gc, (xentoollog_logger *)lg);
    rc = run(&gc, o);
    libxl__gc_dispose(&gc);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return rc;
}
