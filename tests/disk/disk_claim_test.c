/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_test.h"

#include <fcntl.h>

#include "disk_claim.h"

static struct disk_claim claim(enum disk_claim_state state, uint64_t generation)
{
    struct disk_claim c = {.state = state, .generation = generation, .size = 1 << 20, .epoch = 9};

    memset(c.uuid, 1, 16);
    memset(c.owner, 2, 16);
    memset(c.token, 3, 16);
    return c;
}

static struct disk_direct open_file(struct folder *f)
{
    struct disk_direct s;

    assert_int_equal(disk_direct_open(&s, folder_file(f, "journal"), O_RDWR | O_CREAT), 0);
    return s;
}

static void t_claim_comes_back_as_it_was_put(void **state)
{
    struct disk_claim c = claim(DISK_CLAIM_PROTECTED, 7), back;
    uint8_t block[DISK_CLAIM_SIZE];

    disk_claim_put(block, &c);
    assert_true(disk_claim_get(&back, block));
    assert_memory_equal(&back, &c, sizeof(c));
}

static void t_claim_with_any_bit_flipped_is_none(void **state)
{
    struct disk_claim c = claim(DISK_CLAIM_ALONE, 7), back;
    uint8_t block[DISK_CLAIM_SIZE];

    disk_claim_put(block, &c);
    for (unsigned bit = 0; bit < 104 * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(disk_claim_get(&back, block));
        assert_int_equal(back.generation, 0);
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void t_claims_of_a_new_file_are_none(void **state)
{
    struct disk_direct s = open_file(*state);
    struct disk_claim two[2];
    bool foreign;

    assert_int_equal(disk_claims_read(&s, two, &foreign), 0);
    assert_false(foreign);
    assert_int_equal(disk_claims_top(two)->generation, 0);
    assert_int_equal(disk_claims_newest(two), 0);
    disk_direct_close(&s);
}

static void t_claims_of_two_owners_are_in_two_blocks(void **state)
{
    struct disk_claim a = claim(DISK_CLAIM_PROTECTED, 4), b = claim(DISK_CLAIM_ALONE, 5), two[2];
    struct disk_direct s = open_file(*state);
    bool foreign;

    assert_int_equal(disk_claims_write(&s, &a), 0);
    assert_int_equal(disk_claims_write(&s, &b), 0);
    assert_int_equal(disk_claims_read(&s, two, &foreign), 0);
    assert_false(foreign);
    assert_memory_equal(&two[0], &a, sizeof(a));
    assert_memory_equal(&two[1], &b, sizeof(b));
    assert_int_equal(disk_claims_top(two)->generation, 5);
    disk_direct_close(&s);
}

static void t_claims_that_are_being_taken_own_nothing(void **state)
{
    struct disk_claim two[2] = {claim(DISK_CLAIM_PROTECTED, 4), claim(DISK_CLAIM_TAKING, 5)};

    assert_int_equal(disk_claims_top(two)->generation, 4);
    assert_int_equal(disk_claims_newest(two), 5);
    two[1].state = DISK_CLAIM_VOID;
    assert_int_equal(disk_claims_top(two)->generation, 4);
    two[1].state = DISK_CLAIM_FREE;
    assert_int_equal(disk_claims_top(two)->generation, 5);
    memset(&two[0], 0, sizeof(two[0]));
    two[1].state = DISK_CLAIM_VOID;
    assert_int_equal(disk_claims_top(two)->generation, 0);
}

static void t_claims_in_the_wrong_block_are_foreign(void **state)
{
    struct disk_claim a = claim(DISK_CLAIM_ALONE, 4), two[2];
    uint8_t block[DISK_CLAIM_SIZE];
    struct disk_direct s = open_file(*state);
    bool foreign;

    disk_claim_put(block, &a);
    assert_int_equal(disk_direct_write(&s, block, sizeof(block), DISK_CLAIM_SIZE), 0);
    assert_int_equal(disk_claims_read(&s, two, &foreign), 0);
    assert_true(foreign);
    assert_int_equal(disk_claims_top(two)->generation, 0);
    disk_direct_close(&s);
}

/* ---- the access under it ---- */

static void t_direct_any_range_is_written_and_nothing_beside_it(void **state)
{
    static uint8_t should[64 << 10], is[64 << 10], data[16384 + 8];
    struct disk_direct s = open_file(*state);
    unsigned x = 1;

    assert_int_equal(disk_direct_write(&s, should, sizeof(should), 0), 0);
    for (unsigned i = 0; i < 300; i++) {
        x = x * 1103515245 + 12345;
        size_t size = 1 + (x >> 8) % (i % 2 ? 1500 : 16384), shift = i % 8;
        size_t offset = (x >> 4) % (sizeof(should) - size);
        memset(data, (int)(i + 1), sizeof(data));
        memset(should + offset, (int)(i + 1), size);
        assert_int_equal(disk_direct_write(&s, data + shift, size, offset), 0);
        memset(data, 0, sizeof(data));
        assert_int_equal(disk_direct_read(&s, data + shift, size, offset), 0);
        assert_memory_equal(data + shift, should + offset, size);
    }
    assert_int_equal(pread(s.fd, is, 0, 0), 0);
    assert_int_equal(disk_direct_read(&s, is, sizeof(is), 0), 0);
    assert_memory_equal(is, should, sizeof(is));
    disk_direct_close(&s);
}

#define WITH_FOLDER(t) cmocka_unit_test_setup_teardown(t, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_claim_comes_back_as_it_was_put),
        cmocka_unit_test(t_claim_with_any_bit_flipped_is_none),
        WITH_FOLDER(t_claims_of_a_new_file_are_none),
        WITH_FOLDER(t_claims_of_two_owners_are_in_two_blocks),
        cmocka_unit_test(t_claims_that_are_being_taken_own_nothing),
        WITH_FOLDER(t_claims_in_the_wrong_block_are_foreign),
        WITH_FOLDER(t_direct_any_range_is_written_and_nothing_beside_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
