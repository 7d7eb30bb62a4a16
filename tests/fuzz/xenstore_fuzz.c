/* SPDX-License-Identifier: LGPL-2.1-only */
/* Names and values that a guest or a toolstack could leave in xenstore for its NICs: strings that end in NUL, taken in turn. */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "libxl_netbuffer.h"

static const char *next, *end;

static char *take(void)
{
    const char *p = next;
    size_t n = strnlen(p, (size_t)(end - p));

    if (p == end) {
        errno = ENOENT;
        return NULL;
    }
    next = p + n < end ? p + n + 1 : end;
    return strndup(p, n);
}

void *xs_read(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned int *len)
{
    char *value = take();

    if (value &&
        !strcmp(value, "@backend")) { /* the one that is expected, or nothing gets further */
        free(value);
        value = strdup("/local/domain/0/backend/vif/7/0");
    }
    if (value) *len = (unsigned int)strlen(value);
    return value;
}

/* One block of memory, as libxenstore gives it. */
char **xs_directory(struct xs_handle *xs, xs_transaction_t t, const char *path, unsigned int *nr)
{
    unsigned char n = next < end ? (unsigned char)*next++ : 0;
    char **list = calloc((size_t)n + 1, sizeof(*list) + 64), *name, *room;

    *nr = n;
    room = (char *)(list + n + 1);
    for (unsigned i = 0; i < n; i++, room += 64) {
        name = i ? take() : strdup("0");
        list[i] = strncpy(room, name ? name : "", 63);
        free(name);
    }
    return list;
}

int libxl__netbuffer_setup_ifs(libxl__gc *gc, const char *ifb, const char *const *ifnames, int nr,
                               uint64_t limit_bytes, libxl__netbuffer **nb)
{
    if (nr < 0 || nr > NETBUFFER_MAX_IFS) abort();
    for (int i = 0; i < nr; i++)
        if (strlen(ifnames[i]) >= IF_NAMESIZE) abort();
    return 0;
}

void libxl__netbuffer_ifname(uint32_t domid, char name[16])
{
    strcpy(name, "remus7");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    libxl__netbuffer *nb;
    libxl__gc gc;

    next = (const char *)data;
    end = next + size;
    libxl__gc_init(&gc, fuzz_logger());
    libxl__netbuffer_setup(&gc, NULL, 7, true, 1 << 20, &nb);
    libxl__gc_dispose(&gc);
    return 0;
}
