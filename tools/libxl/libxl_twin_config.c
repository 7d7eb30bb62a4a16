/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The configuration is one JSON object; yajl calls back for its parts. c_info and b_info are objects at depth 1, what we want
 * are values at depth 2. Nothing else is kept, and the depth is bounded.
 */
#include "libxl_twin_config.h"

#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>
#include <yajl/yajl_parse.h>

#include "libxl_channel_frame.h"

#define DEPTH_MAX 32u
#define LATE_DISK "drbd:" /* a DRBD device has no second opener */
#define BYTE_ORDER_MARK 0x01020304u
#define FLAGS_WANTED 3u /* JSON configuration, libxl stream v2 */
#define MAX_MEMKB_MAX (16ull << 30)

enum key {
    KEY_OTHER,
    KEY_C_INFO,
    KEY_B_INFO,
    KEY_DISKS,
    KEY_DISK_PATH,
    KEY_NAME,
    KEY_UUID,
    KEY_TYPE,
    KEY_DEVICE_MODEL,
    KEY_STUBDOMAIN,
    KEY_MAX_MEMKB,
    KEY_TARGET_MEMKB
};

struct walk {
    unsigned depth;
    enum key outer; /* the object at depth 1 that we are in */
    enum key key;   /* whose value comes next */
    struct twin_config *config;
};

const char *libxl__twin_header_check(const unsigned char header[XL_IMAGE_HEADER_LEN],
                                     uint32_t *data_len)
{
    static const char magic[32] = "Xen saved domain, xl format\n \0 \r";

    if (memcmp(header, magic, sizeof(magic))) return "xl header: wrong magic";
    if (channel_get32(header + 32) != BYTE_ORDER_MARK) return "xl header: wrong byte order";
    if (channel_get32(header + 36) != FLAGS_WANTED) return "xl header: unexpected flags";
    *data_len = channel_get32(header + 44);
    if (*data_len < 4 || *data_len > XL_IMAGE_DATA_MAX)
        return "xl header: configuration length out of bounds";
    return NULL;
}

static int value(struct walk *w)
{
    w->key = KEY_OTHER;
    return w->depth > 0;
}

static int take_null(void *ctx)
{
    return value(ctx);
}

static int take_boolean(void *ctx, int val)
{
    struct walk *w = ctx;

    if (w->key == KEY_STUBDOMAIN) w->config->stubdomain = val;
    return value(w);
}

static int take_number(void *ctx, const char *text, size_t len)
{
    struct walk *w = ctx;
    bool wanted = w->key == KEY_MAX_MEMKB || w->key == KEY_TARGET_MEMKB;
    uint64_t n = 0;

    for (size_t i = 0; wanted && i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || n > MAX_MEMKB_MAX) return 0;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    if (w->key == KEY_MAX_MEMKB) w->config->max_memkb = n;
    if (w->key == KEY_TARGET_MEMKB) w->config->target_memkb = n;
    return value(w);
}

static int copy(char *to, size_t room, const unsigned char *text, size_t len)
{
    if (len >= room || memchr(text, 0, len)) return 0;
    memcpy(to, text, len);
    to[len] = '\0';
    return 1;
}

static int take_string(void *ctx, const unsigned char *text, size_t len)
{
    struct walk *w = ctx;
    struct twin_config *c = w->config;

    if (w->key == KEY_NAME && !copy(c->name, sizeof(c->name), text, len)) return 0;
    if (w->key == KEY_UUID && !copy(c->uuid, sizeof(c->uuid), text, len)) return 0;
    if (w->key == KEY_TYPE && !copy(c->type, sizeof(c->type), text, len)) return 0;
    if (w->key == KEY_DISK_PATH && len >= strlen(LATE_DISK) &&
        !memcmp(text, LATE_DISK, strlen(LATE_DISK)))
        c->late_disk = true;
    if (w->key == KEY_DEVICE_MODEL && !copy(c->device_model, sizeof(c->device_model), text, len))
        return 0;
    return value(w);
}

static int take_key(void *ctx, const unsigned char *text, size_t len)
{
    static const struct {
        const char *name;
        unsigned depth;
        enum key outer, key;
    } known[] = {
        {"c_info", 1, KEY_OTHER, KEY_C_INFO},
        {"b_info", 1, KEY_OTHER, KEY_B_INFO},
        {"name", 2, KEY_C_INFO, KEY_NAME},
        {"uuid", 2, KEY_C_INFO, KEY_UUID},
        {"max_memkb", 2, KEY_B_INFO, KEY_MAX_MEMKB},
        {"target_memkb", 2, KEY_B_INFO, KEY_TARGET_MEMKB},
        {"type", 2, KEY_C_INFO, KEY_TYPE},
        {"device_model_version", 2, KEY_B_INFO, KEY_DEVICE_MODEL},
        {"device_model_stubdomain", 2, KEY_B_INFO, KEY_STUBDOMAIN},
        {"disks", 1, KEY_OTHER, KEY_DISKS},
        {"pdev_path", 3, KEY_DISKS, KEY_DISK_PATH},
    };
    struct walk *w = ctx;

    w->key = KEY_OTHER;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (w->depth == known[i].depth && (w->depth == 1 || w->outer == known[i].outer) &&
            len == strlen(known[i].name) && !memcmp(text, known[i].name, len))
            w->key = known[i].key;
    }
    return 1;
}

static int open_map(void *ctx)
{
    struct walk *w = ctx;

    if (w->depth == 1) w->outer = w->key;
    if (w->depth == 2 && w->outer == KEY_DISKS && w->config->disks <= TWIN_DISKS_MAX)
        w->config->disks++;
    w->key = KEY_OTHER;
    return ++w->depth <= DEPTH_MAX;
}

static int open_array(void *ctx)
{
    struct walk *w = ctx;

    if (w->depth == 1 && w->key != KEY_DISKS) w->key = KEY_OTHER;
    return w->depth > 0 ? open_map(ctx) : 0;
}

static int close_any(void *ctx)
{
    struct walk *w = ctx;

    w->key = KEY_OTHER;
    if (--w->depth == 1) w->outer = KEY_OTHER;
    return 1;
}

static bool parse_json(const unsigned char *json, size_t len, struct walk *w)
{
    static const yajl_callbacks callbacks = {
        .yajl_null = take_null,
        .yajl_boolean = take_boolean,
        .yajl_number = take_number,
        .yajl_string = take_string,
        .yajl_start_map = open_map,
        .yajl_map_key = take_key,
        .yajl_end_map = close_any,
        .yajl_start_array = open_array,
        .yajl_end_array = close_any,
    };
    yajl_handle y = yajl_alloc(&callbacks, NULL, w);
    bool ok =
        y && yajl_parse(y, json, len) == yajl_status_ok && yajl_complete_parse(y) == yajl_status_ok;

    if (y) yajl_free(y);
    return ok;
}

const char *libxl__twin_config_parse(const unsigned char *data, size_t len,
                                     struct twin_config *config)
{
    struct walk w = {.config = config};
    uuid_t uuid;

    memset(config, 0, sizeof(*config));
    if (len < 5 || channel_get32(data) != len - 4) return "configuration: its two lengths differ";
    data += 4;
    len -= 4;
    if (data[len - 1]) return "configuration: does not end in NUL";
    if (!parse_json(data, len - 1, &w)) return "configuration: not the JSON of a guest";
    if (!config->name[0]) return "configuration: no name";
    if (uuid_parse(config->uuid, uuid)) return "configuration: no uuid";
    if (!config->max_memkb || config->max_memkb > MAX_MEMKB_MAX)
        return "configuration: max_memkb is missing or out of bounds";
    return NULL;
}

const char *libxl__twin_config_cold(const struct twin_config *c, unsigned replicated)
{
    bool hvm = !strcmp(c->type, "hvm");

    if (!hvm && strcmp(c->type, "pvh")) return "it is neither PVH nor HVM";
    if (hvm && (c->stubdomain || (c->device_model[0] && strcmp(c->device_model, "qemu_xen"))))
        return "its device model is not a qemu_xen of this host";
    if (c->disks != replicated)
        return "it has disks that are not replicated, and a complete twin would have them open";
    if (c->late_disk) return "it has a disk that only one host can have open";
    return NULL;
}
