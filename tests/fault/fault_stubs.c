/* SPDX-License-Identifier: LGPL-2.1-only */
/* See fault_stubs.h. */
#include "fault_stubs.h"

#include <errno.h>
#include <fcntl.h>
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
static char vcpus_token[16]; /* of the watch on them; empty: none */
static bool vcpus_changed;
struct xs_handle *xs_open(unsigned long flags)
{
    if (pipe2(xs_pipe, O_CLOEXEC | O_NONBLOCK)) return NULL;
    vcpus = 1;
    vcpus_token[0] = '\0';
    vcpus_changed = false;
    return (struct xs_handle *)&the_ao;
}
void xs_close(struct xs_handle *xs)
{
    close(xs_pipe[0]);
    close(xs_pipe[1]);
}
void *xs_read(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned *len)
{
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

    *n = strstr(path, "/cpu") ? vcpus : 1;
    names = calloc(*n, sizeof(*names));
    for (unsigned i = 0; i < *n; i++)
        names[i] = name;
    return names;
}
bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
    if (strstr(path, "/cpu")) snprintf(vcpus_token, sizeof(vcpus_token), "%s", token);
    return true;
}
bool xs_unwatch(struct xs_handle *xs, const char *path, const char *token)
{
    return true;
}
char **xs_check_watch(struct xs_handle *xs)
{
    static char path[] = "/local/domain/7/cpu";
    char **event = vcpus_changed ? calloc(2, sizeof(*event)) : NULL, c;

    while (read(xs_pipe[0], &c, 1) == 1)
        ;
    vcpus_changed = false;
    errno = EAGAIN;
    if (!event) return NULL;
    event[XS_WATCH_PATH] = path;
    event[XS_WATCH_TOKEN] = vcpus_token;
    return event;
}

void stub_set_vcpus(unsigned n)
{
    if (!vcpus_token[0]) return;
    vcpus = n;
    vcpus_changed = true;
    if (write(xs_pipe[1], "x", 1) != 1) abort();
}

void stub_abort(void)
{
    if (abortable) abortable->callback(&(libxl__egc){stub_loop()}, abortable, ERROR_ABORTED);
}
