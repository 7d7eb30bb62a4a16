/* SPDX-License-Identifier: LGPL-2.1-only */
/* What DRBD and the device mapper say: taken as it is on Debian 12, refused when it is anything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "drbd_dm.h"
#include "drbd_res.h"
#include "drbd_text.h"

static const char proc[] =
    "version: 8.4.11 (api:1/proto:86-101)\n"
    "srcversion: F73C670A7EC572DB9CF3E5B \n"
    " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n"
    "    ns:32728 nr:0 dw:0 dr:65456 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    " 1: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----\n"
    "    ns:0 nr:30784 dw:30784 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:1944\n"
    "\t[===================>] sync'ed:100.0% (1944/32728)K\n"
    "\tfinish: 0:00:00 speed: 2,368 (2,368) want: 5,000 K/sec\n"
    " 2: cs:StandAlone ro:Secondary/Unknown ds:UpToDate/DUnknown   r-----\n"
    "    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    "\n"
    " 4: cs:Unconfigured\n"
    " 5: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate A r-----\n"
    "    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:4\n";

static void t_status_of_each_minor_is_its_own(void **state)
{
    struct drbd_status s;

    assert_true(drbd_status_parse(&s, proc, 0));
    assert_string_equal(s.connection, "Connected");
    assert_string_equal(s.role, "Primary");
    assert_string_equal(s.peer_role, "Secondary");
    assert_int_equal(s.protocol, 'C');
    assert_int_equal(s.out_of_sync, 0);
    assert_true(drbd_status_mirrored(&s));
    assert_true(drbd_status_parse(&s, proc, 1));
    assert_string_equal(s.disk, "Inconsistent");
    assert_int_equal(s.out_of_sync, 1944);
    assert_false(drbd_status_mirrored(&s));
    assert_true(drbd_status_parse(&s, proc, 2));
    assert_string_equal(s.peer_disk, "DUnknown");
    assert_int_equal(s.protocol, 0);
    assert_true(drbd_status_parse(&s, proc, 4));
    assert_string_equal(s.connection, "Unconfigured");
    assert_string_equal(s.role, "");
    assert_true(drbd_status_parse(&s, proc, 5));
    assert_int_equal(s.protocol, 'A');
    assert_int_equal(s.out_of_sync, 4);
    assert_false(drbd_status_parse(&s, proc, 3));
    assert_false(drbd_status_parse(&s, "", 0));
}

static void t_status_that_differs_in_one_thing_is_not_mirrored(void **state)
{
    static const char *const lines[] = {
        " 0: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:Diskless/UpToDate C r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate B r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n    ns:0 oos:8\n"};
    struct drbd_status s;

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        assert_true(drbd_status_parse(&s, lines[i], 0));
        assert_false(drbd_status_mirrored(&s));
    }
}

static void t_status_that_is_none_is_refused(void **state)
{
    static const char *const lines[] = {
        " 0: cs:\n",
        " 0: Connected\n",
        " 0: cs:ConnectedConnectedConnectedConnected ro:Primary/Secondary ds:a/b C r\n",
        " 0: cs:Connected ro:Primary ds:UpToDate/UpToDate C r-----\n",
        " 0: cs:Connected ds:UpToDate/UpToDate C r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/ C r-----\n",
        " 0: cs:Connected ro:Primary/Sec;ondary ds:UpToDate/UpToDate C r-----\n",
        " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r\n oos:x\n",
        " 99999999999999999999: cs:Connected\n"};
    struct drbd_status s;

    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
        assert_false(drbd_status_parse(&s, lines[i], 0));
}

static const char show[] = "resource r0 {\n"
                           "    net {\n"
                           "        protocol        \tC; # default\n"
                           "        allow-two-primaries\tno; # default\n"
                           "    }\n"
                           "    _this_host {\n"
                           "        address\t\t\tipv4 198.51.100.11:7789;\n"
                           "        volume 0 {\n"
                           "            device\t\t\tminor 7;\n"
                           "            disk\t\t\t\"/dev/vgx/r0\";\n"
                           "            meta-disk\t\t\tinternal;\n"
                           "            disk {\n"
                           "                fencing         \tdont-care; # default\n"
                           "                disk-barrier    \tno; # default\n"
                           "            }\n"
                           "        }\n"
                           "    }\n"
                           "}\n";

static void t_config_is_what_counts(void **state)
{
    struct drbd_config c;

    assert_true(drbd_config_parse(&c, show));
    assert_int_equal(c.minor, 7);
    assert_int_equal(c.volumes, 1);
    assert_string_equal(c.backing, "/dev/vgx/r0");
    assert_int_equal(c.protocol, 'C');
    assert_false(c.two_primaries);
    assert_false(c.fencing);
    assert_true(drbd_config_parse(&c, "volume 0 {\ndevice minor 1;\n}\nfencing resource-only;\n"
                                      "allow-two-primaries yes;\n"));
    assert_true(c.fencing);
    assert_true(c.two_primaries);
    assert_int_equal(c.protocol, 0);
    assert_string_equal(c.backing, "");
}

static void t_config_that_is_none_is_refused(void **state)
{
    struct drbd_config c;

    assert_false(drbd_config_parse(&c, ""));
    assert_false(drbd_config_parse(&c, "volume 0 {\n}\n"));
    assert_false(drbd_config_parse(&c, "device minor 0;\n"));
    assert_false(drbd_config_parse(&c, "volume 0 {\ndevice minor -1;\n"));
    assert_false(drbd_config_parse(&c, "volume 0 {\ndevice minor 99999999;\n"));
    assert_false(drbd_config_parse(&c, "volume 0 {\ndevice minor 0;\nprotocol CC;\n"));
}

static void t_resources_that_do_not_suit_are_told_why(void **state)
{
    struct drbd_res r = {.name = "r0", .config = {.volumes = 1, .protocol = 'C'}};
    char why[DRBD_WHY_MAX];

    assert_int_equal(drbd_res_suits(&r, why), 0);
    r.config.protocol = 'A';
    assert_int_equal(drbd_res_suits(&r, why), -1);
    assert_non_null(strstr(why, "protocol A"));
    r.config = (struct drbd_config){.volumes = 2, .protocol = 'C'};
    assert_int_equal(drbd_res_suits(&r, why), -1);
    assert_non_null(strstr(why, "2 volumes"));
    r.config = (struct drbd_config){.volumes = 1, .protocol = 'C', .two_primaries = true};
    assert_int_equal(drbd_res_suits(&r, why), -1);
    assert_non_null(strstr(why, "two primaries"));
}

static void t_generation_is_without_the_primarys_bit(void **state)
{
    uint64_t a, b;

    assert_true(drbd_generation_parse(&a, "8ED546A50903E1FF:FB61AD7E4EB72DC5:04:0:1:1:1\n"));
    assert_true(drbd_generation_parse(&b, "8ED546A50903E1FE:0000000000000000:04:0:1:1:0\n"));
    assert_int_equal(a, b);
    assert_false(drbd_generation_parse(&a, "0000000000000001:0\n"));
    assert_false(drbd_generation_parse(&a, "8ED546A50903E1F:0\n"));
    assert_false(drbd_generation_parse(&a, ""));
}

static void t_history_is_four_generations(void **state)
{
    static const char gi[] =
        "8ED546A50903E1FF:FB61AD7E4EB72DC5:0000000000000004:0000000000000000:1:1:1";
    char out[DRBD_HISTORY_SIZE];

    assert_true(drbd_history_parse(out, gi));
    assert_int_equal(strlen(out), DRBD_HISTORY_SIZE - 1);
    assert_memory_equal(out, gi, DRBD_HISTORY_SIZE - 1);
    assert_false(drbd_history_parse(out, "8ED546A50903E1FF:FB61AD7E4EB72DC5:0000000000000004"));
    assert_false(drbd_history_parse(out, "8ED546A50903E1FF:FB61AD7E4EB72DC5:0:0:1:1:1"));
    assert_false(drbd_history_parse(out, ""));
}

static void t_names_of_resources(void **state)
{
    char name[70];

    memset(name, 'a', sizeof(name));
    name[65] = 0;
    assert_true(drbd_name_fine("r0"));
    assert_true(drbd_name_fine("web.data_1-x"));
    assert_false(drbd_name_fine(""));
    assert_false(drbd_name_fine("-all"));
    assert_false(drbd_name_fine("../x"));
    assert_false(drbd_name_fine("a b"));
    assert_false(drbd_name_fine(name));
}

static void t_thin_tables(void **state)
{
    uint32_t id;
    dev_t pool;

    assert_true(drbd_dm_parse_thin("253:2 1", &pool, &id));
    assert_int_equal(pool, makedev(253, 2));
    assert_int_equal(id, 1);
    assert_false(drbd_dm_parse_thin("253:2 1 253:9", &pool, &id));
    assert_false(drbd_dm_parse_thin("253:2 16777216", &pool, &id));
    assert_false(drbd_dm_parse_thin("253 1", &pool, &id));
    assert_false(drbd_dm_parse_thin("", &pool, &id));
}

static void t_pools_that_cannot_take_snapshots(void **state)
{
    char why[DRBD_WHY_MAX];

    assert_true(drbd_dm_parse_pool(
        "1 112/1024 0/3200 - rw discard_passdown queue_if_no_space - 256 ", why));
    assert_false(drbd_dm_parse_pool("1 112/1024 3100/3200 - rw a b - 256 ", why));
    assert_non_null(strstr(why, "nearly full"));
    assert_false(drbd_dm_parse_pool("1 1000/1024 0/3200 - rw a b - 256 ", why));
    assert_false(drbd_dm_parse_pool("1 112/1024 0/3200 - out_of_data_space a b - 256 ", why));
    assert_false(drbd_dm_parse_pool("1 112/1024 0/3200 - ro a b needs_check 256 ", why));
    assert_non_null(strstr(why, "repair"));
    assert_false(drbd_dm_parse_pool("Fail", why));
    assert_false(drbd_dm_parse_pool("1 1/0 0/0 - rw ", why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_status_of_each_minor_is_its_own),
        cmocka_unit_test(t_status_that_differs_in_one_thing_is_not_mirrored),
        cmocka_unit_test(t_status_that_is_none_is_refused),
        cmocka_unit_test(t_config_is_what_counts),
        cmocka_unit_test(t_config_that_is_none_is_refused),
        cmocka_unit_test(t_resources_that_do_not_suit_are_told_why),
        cmocka_unit_test(t_generation_is_without_the_primarys_bit),
        cmocka_unit_test(t_history_is_four_generations),
        cmocka_unit_test(t_names_of_resources),
        cmocka_unit_test(t_thin_tables),
        cmocka_unit_test(t_pools_that_cannot_take_snapshots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
