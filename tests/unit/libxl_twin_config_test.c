/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the backup reads before the frames: the xl header and the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libxl_channel_frame.h"
#include "libxl_twin.h"
#include "libxl_twin_config.h"

#define UUID "12345678-1234-1234-1234-123456789abc"
#define INFO "\"c_info\":{\"name\":\"guest\",\"uuid\":\"" UUID "\"}"
#define BUILD "\"b_info\":{\"max_memkb\":98304}"

static const char *parse(const char *json, struct twin_config *c)
{
    static unsigned char data[70000];
    size_t len = strlen(json) + 1;

    assert_true(len + 4 <= sizeof(data));
    channel_put32(data, (uint32_t)len);
    memcpy(data + 4, json, len);
    return libxl__twin_config_parse(data, len + 4, c);
}

static void t_config_three_fields_are_found(void **state)
{
    struct twin_config c;

    assert_null(parse("{" INFO "," BUILD "}", &c));
    assert_string_equal(c.name, "guest");
    assert_string_equal(c.uuid, UUID);
    assert_int_equal(c.max_memkb, 98304);
}

static void t_config_target_of_memory_is_found(void **state)
{
    struct twin_config c;

    assert_null(parse("{" INFO "," BUILD ",\"target_memkb\":1}", &c));
    assert_int_equal(c.target_memkb, 0);
    assert_null(parse("{" INFO ",\"b_info\":{\"max_memkb\":98304,\"target_memkb\":65536}}", &c));
    assert_int_equal(c.target_memkb, 65536);
    assert_int_equal(c.max_memkb, 98304);
    assert_non_null(parse("{" INFO ",\"b_info\":{\"max_memkb\":98304,\"target_memkb\":-1}}", &c));
}

static void t_config_same_words_elsewhere_do_not_count(void **state)
{
    struct twin_config c;

    assert_null(parse(
        "{" INFO ",\"name\":\"x\",\"disks\":[{\"name\":\"y\",\"b_info\":{\"max_memkb\":1}},"
        "[\"uuid\"],true,null,-1.5]," BUILD ",\"on\":{\"uuid\":\"z\",\"c_info\":{\"name\":\"w\"}}}",
        &c));
    assert_string_equal(c.name, "guest");
    assert_string_equal(c.uuid, UUID);
    assert_int_equal(c.max_memkb, 98304);
}

static void t_config_tells_what_a_warm_twin_must_know(void **state)
{
    struct twin_config c;

    assert_null(parse("{" INFO "," BUILD ",\"disks\":[]}", &c));
    assert_string_equal(c.type, "");
    assert_string_equal(c.device_model, "");
    assert_false(c.disks || c.late_disk || c.stubdomain);
    assert_null(
        parse("{\"c_info\":{\"type\":\"hvm\",\"name\":\"g\",\"uuid\":\"" UUID
              "\"},\"b_info\":{\"device_model_stubdomain\":true,\"max_memkb\":1,\"type.hvm\":{},"
              "\"device_model_version\":\"qemu_xen\"},\"nics\":[{\"type\":\"vif\"}],"
              "\"disks\":[{\"type\":\"pvh\"},{\"pdev_path\":\"remus:b|/drbd:\",\"x\":[{},{}]}]}",
              &c));
    assert_string_equal(c.type, "hvm");
    assert_string_equal(c.device_model, "qemu_xen");
    assert_true(c.stubdomain);
    assert_int_equal(c.disks, 2);
    assert_false(c.late_disk);
    assert_null(parse("{" INFO "," BUILD ",\"disks\":[{\"pdev_path\":\"drbd:r0\"}]}", &c));
    assert_true(c.disks == 1 && c.late_disk);
}

static void t_config_bad_ones_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "null",
        "1",
        "[]",
        "{",
        "{}",
        "{" INFO "}",
        "{" BUILD "}",
        "{" INFO "," BUILD,
        "{" INFO "," BUILD "}}",
        "{\"c_info\":{\"name\":\"\",\"uuid\":\"" UUID "\"}," BUILD "}",
        "{\"c_info\":{\"name\":\"a\",\"uuid\":\"zz\"}," BUILD "}",
        "{\"c_info\":{\"name\":\"a\\u0000b\",\"uuid\":\"" UUID "\"}," BUILD "}",
        "{\"c_info\":{\"name\":\"0123456789012345678901234567890123456789012345678901234567890123"
        "456789\",\"uuid\":\"" UUID "\"}," BUILD "}",
        "{" INFO ",\"b_info\":{\"max_memkb\":0}}",
        "{" INFO ",\"b_info\":{\"max_memkb\":-1}}",
        "{" INFO ",\"b_info\":{\"max_memkb\":1e9}}",
        "{" INFO ",\"b_info\":{\"max_memkb\":99999999999999999999999999}}",
        "{" INFO ",\"b_info\":{\"max_memkb\":\"98304\"}}",
    };
    struct twin_config c;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (!parse(bad[i], &c)) fail_msg("accepted: %s", bad[i]);
}

static void t_config_depth_is_bounded(void **state)
{
    struct twin_config c;
    char *deep = malloc(65000);

    memset(deep, '[', 64000);
    memcpy(deep, "{\"a\":", 5);
    deep[64000] = '\0';
    assert_non_null(parse(deep, &c));
    free(deep);
}

static void t_config_lengths_must_agree(void **state)
{
    struct twin_config c;
    unsigned char data[16] = {9, 0, 0, 0, '{', '}'};

    assert_non_null(libxl__twin_config_parse(data, 7, &c));
    assert_non_null(libxl__twin_config_parse(data, 4, &c));
    assert_non_null(libxl__twin_config_parse(data, 0, &c));
    channel_put32(data, 2);
    assert_non_null(libxl__twin_config_parse(data, 6, &c)); /* no NUL */
}

static void t_header_is_checked(void **state)
{
    unsigned char h[XL_IMAGE_HEADER_LEN] = "Xen saved domain, xl format\n \0 \r";
    uint32_t len;

    channel_put32(h + 32, 0x01020304);
    channel_put32(h + 36, 3);
    channel_put32(h + 44, 1000);
    assert_null(libxl__twin_header_check(h, &len));
    assert_int_equal(len, 1000);
    for (size_t i = 0; i < 40; i++) {
        h[i] ^= 0x40;
        assert_non_null(libxl__twin_header_check(h, &len));
        h[i] ^= 0x40;
    }
    channel_put32(h + 44, 3);
    assert_non_null(libxl__twin_header_check(h, &len));
    channel_put32(h + 44, XL_IMAGE_DATA_MAX + 1);
    assert_non_null(libxl__twin_header_check(h, &len));
}

/* ---- warm or cold ---- */

static void t_config_tells_who_cannot_be_warm(void **state)
{
    static const struct {
        struct twin_config c;
        const char *reason;
        unsigned replicated;
    } all[] = {
        {{.type = "pvh"}, NULL},
        {{.type = "hvm"}, NULL},
        {{.type = "hvm", .device_model = "qemu_xen"}, NULL},
        {{.type = "pv"}, "neither PVH nor HVM"},
        {{.type = ""}, "neither PVH nor HVM"},
        {{.type = "hvm", .device_model = "qemu_xen_traditional"}, "device model"},
        {{.type = "hvm", .stubdomain = true}, "device model"},
        {{.type = "pvh", .disks = 1}, "not replicated"},
        {{.type = "hvm", .disks = 2}, "not replicated", 1},
        {{.type = "hvm", .disks = 2}, NULL, 2},
        {{.type = "pvh", .disks = 1, .late_disk = true}, "only one host", 1},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        const char *reason = libxl__twin_config_cold(&all[i].c, all[i].replicated);

        assert_int_equal(!reason, !all[i].reason);
        if (reason) assert_non_null(strstr(reason, all[i].reason));
    }
}

/* What a primary sends first, then nothing more. */
static void send_guest(int fd, const char *json)
{
    unsigned char head[52] = "Xen saved domain, xl format\n \0 \r";
    uint32_t len = (uint32_t)strlen(json) + 1;

    channel_put32(head + 32, 0x01020304);
    channel_put32(head + 36, 3);
    channel_put32(head + 44, len + 4);
    channel_put32(head + 48, len);
    assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
    assert_int_equal(write(fd, json, len), len);
    close(fd);
}

static void t_receiver_refuses_a_warm_twin_of_a_guest_with_disks(void **state)
{
    char log[] = "/tmp/twin_config_test.XXXXXX", text[4096] = "";
    struct twin_options o = {.limit_ms = 1000,
                             .choice = TWIN_WARM,
                             .domain = "guest",
                             .self = "hostB",
                             .peer = "hostA",
                             .session = UUID,
                             .stock_xl = "/bin/false",
                             .log_path = log};
    int p[2], status, fd = mkstemp(log);
    pid_t pid;

    assert_true(fd >= 0);
    assert_int_equal(pipe(p), 0);
    pid = fork();
    if (!pid) {
        close(p[1]);
        o.in_fd = p[0];
        o.out_fd = open("/dev/null", O_WRONLY);
        _exit(libxl__twin_receive(&o));
    }
    close(p[0]);
    send_guest(p[1], "{\"c_info\":{\"type\":\"pvh\",\"name\":\"guest\",\"uuid\":\"" UUID
                     "\"}," BUILD ",\"disks\":[{\"vdev\":\"xvda\"}]}");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
    if (!strstr(text, "the twin of guest cannot be warm: it has disks"))
        fail_msg("the log says: %s", text);
    close(fd);
    unlink(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_config_three_fields_are_found),
        cmocka_unit_test(t_config_target_of_memory_is_found),
        cmocka_unit_test(t_config_tells_who_cannot_be_warm),
        cmocka_unit_test(t_receiver_refuses_a_warm_twin_of_a_guest_with_disks),
        cmocka_unit_test(t_config_same_words_elsewhere_do_not_count),
        cmocka_unit_test(t_config_tells_what_a_warm_twin_must_know),
        cmocka_unit_test(t_config_bad_ones_are_refused),
        cmocka_unit_test(t_config_depth_is_bounded),
        cmocka_unit_test(t_config_lengths_must_agree),
        cmocka_unit_test(t_header_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
