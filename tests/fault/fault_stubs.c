/* SPDX-License-Identifier: LGPL-2.1-only */
/* See fault_stubs.h. */
#include "fault_stubs.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenctrl.h>

/* --- operation --- */
struct libxl__ao {
    char nothing;
};
static struct libxl__ao the_ao;
static libxl__ao_abortable *abortable;

libxl__ao *libxl__ao_create(libxl_ctx *ctx, xentoollog_logger *lg, uint32_t domid,
                            const libxl_asyncop_how *how)
{
    return &the_ao;
}
int libxl__ao_create_fail(libxl__ao *ao, int rc)
{
    stub_completed(rc);
    return rc;
}
int libxl__ao_inprogress(libxl__ao *ao)
{
    return 0;
}
void libxl__ao_complete(libxl__egc *egc, libxl__ao *ao, int rc)
{
    stub_completed(rc);
}
libxl__loop *libxl__ao_loop(libxl__ao *ao)
{
    return stub_loop();
}
libxl__gc *libxl__ao_gc(libxl__ao *ao)
{
    return libxl__loop_gc(stub_loop());
}
void libxl__ao_abortable_init(libxl__ao_abortable *a)
{
    a->registered = false;
}
int libxl__ao_abortable_register(libxl__ao *ao, libxl__ao_abortable *a,
                                 libxl__ao_abortable_callback *cb)
{
    a->callback = cb;
    abortable = a;
    return 0;
}
void libxl__ao_abortable_deregister(libxl__ao_abortable *a)
{
    abortable = NULL;
}
int libxl__ao_abort_domid(uint32_t domid)
{
    return 0;
}

/* --- hypervisor, stock libxl --- */
xc_interface *xc_interface_open(xentoollog_logger *l, xentoollog_logger *d, unsigned f)
{
    return (xc_interface *)&the_ao;
}
int xc_interface_close(xc_interface *xch)
{
    return 0;
}
int libxl_domain_info(libxl_ctx *ctx, libxl_dominfo *info, uint32_t domid)
{
    info->domain_type = LIBXL_DOMAIN_TYPE_HVM; /* of a PVH guest too, as libxl does */
    return 0;
}
static int xs_pipe[2];
static unsigned vcpus;
static struct {
    const char *below; /* what it watches */
    char token[16];    /* empty: nobody does */
    bool changed;
} watches[] = {{.below = "/cpu"}, {.below = "/device"}};
/* "kind/number" of the guest's, NULL: a free place */
static const char *devices[4];
static char devices_backend[4][40];
static unsigned interface;
struct xs_handle *xs_open(unsigned long flags)
{
    if (pipe2(xs_pipe, O_CLOEXEC | O_NONBLOCK)) return NULL;
    vcpus = 1;
    for (int i = 0; i < 2; i++) {
        watches[i].token[0] = '\0';
        watches[i].changed = false;
    }
    interface = 3;
    memset(devices, 0, sizeof(devices));
    stub_attach("vif/0", "the backend");
    stub_attach("vbd/5632", "of the CD");
    return (struct xs_handle *)&the_ao;
}
void xs_close(struct xs_handle *xs)
{
    close(xs_pipe[0]);
    close(xs_pipe[1]);
}

static int find_device(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (devices[i] && !strcmp(devices[i], name)) return i;
    return -1;
}

/* The part of a path behind /libxl/N/device, or NULL. */
static const char *below_devices(const char *path)
{
    const char *at = strncmp(path, "/libxl/", 7) ? NULL : strstr(path, "/device");

    return at ? at + strlen("/device") : NULL;
}

/* "/vif/0/backend" */
static char *read_device(const char *node)
{
    const char *end = strrchr(node, '/');
    char name[40];
    int i;

    snprintf(name, sizeof(name), "%.*s", (int)(end - node - 1), node + 1);
    i = find_device(name);
    return i >= 0 && !strcmp(end, "/backend") ? strdup(devices_backend[i]) : NULL;
}

/* What is below "", "/vif" or "/vif/0", each word once. */
static char **list_devices(const char *folder, unsigned *n)
{
    char **words = calloc(1, 4 * sizeof(*words) + 4 * 40), *text = (char *)(words + 4);
    size_t len = strlen(folder);

    *n = 0;
    for (int i = 0; i < 4; i++) {
        char full[48], *word = text + i * 40;
        bool seen = false;

        if (!devices[i]) continue;
        snprintf(full, sizeof(full), "/%s/backend", devices[i]);
        if (strncmp(full, folder, len) || full[len] != '/') continue;
        snprintf(word, 40, "%.*s", (int)strcspn(full + len + 1, "/"), full + len + 1);
        for (unsigned k = 0; k < *n; k++)
            seen |= !strcmp(words[k], word);
        if (!seen) words[(*n)++] = word;
    }
    if (*n) return words;
    free(words);
    errno = ENOENT;
    return NULL;
}

void *xs_read(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned *len)
{
    if (below_devices(path)) return read_device(below_devices(path));
    if (strstr(path, "/vifname")) return NULL;
    if (strstr(path, "/availability")) return strdup("online");
    if (strstr(path, "/memory/")) return NULL;
    return strdup(stub_guest_is_hvm() ? "hvm" : "pvh");
}
int xs_fileno(struct xs_handle *xs)
{
    return xs_pipe[0];
}

char **xs_directory(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned int *n)
{
    static char name[] = "0";
    char **names;

    if (below_devices(path)) return list_devices(below_devices(path), n);
    *n = strstr(path, "/cpu") ? vcpus : 1;
    names = calloc(*n, sizeof(*names));
    for (unsigned i = 0; i < *n; i++)
        names[i] = name;
    return names;
}
bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
    for (int i = 0; i < 2; i++)
        if (strstr(path, watches[i].below))
            snprintf(watches[i].token, sizeof(watches[i].token), "%s", token);
    return true;
}
bool xs_unwatch(struct xs_handle *xs, const char *path, const char *token)
{
    return true;
}
char **xs_check_watch(struct xs_handle *xs)
{
    static char path[] = "/somewhere/below";
    char **event, c;

    while (read(xs_pipe[0], &c, 1) == 1)
        ;
    for (int i = 0; i < 2; i++) {
        if (!watches[i].changed) continue;
        watches[i].changed = false;
        event = calloc(2, sizeof(*event));
        event[XS_WATCH_PATH] = path;
        event[XS_WATCH_TOKEN] = watches[i].token;
        return event;
    }
    errno = EAGAIN;
    return NULL;
}

static bool changed(int watch)
{
    if (!watches[watch].token[0]) return false;
    watches[watch].changed = true;
    if (write(xs_pipe[1], "x", 1) != 1) abort();
    return true;
}

void stub_set_vcpus(unsigned n)
{
    vcpus = n;
    (void)changed(0);
}

void stub_attach(const char *device, const char *backend)
{
    int i = 0;

    while (devices[i])
        if (++i == 4) abort();
    devices[i] = device;
    snprintf(devices_backend[i], sizeof(devices_backend[i]), "%s", backend);
    stub_touch_devices();
}

void stub_detach(const char *device)
{
    int i = find_device(device);

    if (i < 0) abort();
    devices[i] = NULL;
    stub_touch_devices();
}

void stub_set_interface(unsigned index)
{
    interface = index;
    stub_touch_devices();
}

/* Whatever its name is. */
unsigned if_nametoindex(const char *name)
{
    return interface;
}

void stub_touch_devices(void)
{
    changed(1);
}

void stub_abort(void)
{
    if (abortable) abortable->callback(&(libxl__egc){stub_loop()}, abortable, ERROR_ABORTED);
}
