/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_overlay.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* One put adds a piece and may cut one in three. */
#define PUT_MAX 3

struct disk_node {
    uint64_t start, end, at, data;
    uint32_t weight;
    struct disk_node *left, *right;  /* the treap: by start; weights fall from the root */
    struct disk_node *older, *newer; /* the list: by `at` */
};

void disk_overlay_init(struct disk_overlay *o)
{
    *o = (struct disk_overlay){.random = 2463534242u};
}

void disk_overlay_dispose(struct disk_overlay *o)
{
    (void)disk_overlay_drop(o, UINT64_MAX, SIZE_MAX);
    while (o->spare) {
        struct disk_node *n = o->spare;
        o->spare = n->left;
        free(n);
    }
    disk_overlay_init(o);
}

/* ---- nodes ---- */

int disk_overlay_reserve(struct disk_overlay *o)
{
    if (o->count + PUT_MAX > DISK_OVERLAY_MAX) return -ENOSPC;
    while (o->spares < PUT_MAX) {
        struct disk_node *n = malloc(sizeof(*n));
        if (!n) return -ENOMEM;
        n->left = o->spare;
        o->spare = n;
        o->spares++;
    }
    return 0;
}

/* Behind `older` in the list. */
static struct disk_node *node_new(struct disk_overlay *o, struct disk_node *older)
{
    struct disk_node *n = o->spare;

    assert(n);
    o->spare = n->left;
    o->spares--;
    o->random ^= o->random << 13;
    o->random ^= o->random >> 17;
    o->random ^= o->random << 5;
    *n = (struct disk_node){.weight = o->random, .older = older};
    n->newer = older ? older->newer : o->oldest;
    *(older ? &older->newer : &o->oldest) = n;
    *(n->newer ? &n->newer->older : &o->newest) = n;
    o->count++;
    return n;
}

static void node_free(struct disk_overlay *o, struct disk_node *n)
{
    *(n->older ? &n->older->newer : &o->oldest) = n->newer;
    *(n->newer ? &n->newer->older : &o->newest) = n->older;
    o->count--;
    if (o->spares >= 2 * PUT_MAX) {
        free(n);
        return;
    }
    n->left = o->spare;
    o->spare = n;
    o->spares++;
}

/* ---- the treap ---- */

/* Left: what starts before `key`. */
static void split(struct disk_node *t, uint64_t key, struct disk_node **left,
                  struct disk_node **right)
{
    if (!t) {
        *left = *right = NULL;
    } else if (t->start < key) {
        split(t->right, key, &t->right, right);
        *left = t;
    } else {
        split(t->left, key, left, &t->left);
        *right = t;
    }
}

static struct disk_node *merge(struct disk_node *left, struct disk_node *right)
{
    if (!left || !right) return left ? left : right;
    if (left->weight > right->weight) {
        left->right = merge(left->right, right);
        return left;
    }
    right->left = merge(left, right->left);
    return right;
}

static void insert(struct disk_overlay *o, struct disk_node *n)
{
    struct disk_node *left, *right;

    split(o->root, n->start, &left, &right);
    o->root = merge(merge(left, n), right);
}

static void free_all(struct disk_overlay *o, struct disk_node *t)
{
    if (!t) return;
    free_all(o, t->left);
    free_all(o, t->right);
    node_free(o, t);
}

/* The last that starts at `offset` or before. */
static struct disk_node *last_from(const struct disk_overlay *o, uint64_t offset)
{
    struct disk_node *found = NULL;

    for (struct disk_node *t = o->root; t;) {
        if (t->start <= offset) {
            found = t;
            t = t->right;
        } else {
            t = t->left;
        }
    }
    return found;
}

/* The first that starts behind `offset`. */
static struct disk_node *first_behind(const struct disk_overlay *o, uint64_t offset)
{
    struct disk_node *found = NULL;

    for (struct disk_node *t = o->root; t;) {
        if (t->start > offset) {
            found = t;
            t = t->left;
        } else {
            t = t->right;
        }
    }
    return found;
}

/* No piece reaches over `offset` afterwards. */
static void cut(struct disk_overlay *o, uint64_t offset)
{
    struct disk_node *n = last_from(o, offset), *rest;

    if (!n || n->start == offset || n->end <= offset) return;
    rest = node_new(o, n);
    rest->start = offset;
    rest->end = n->end;
    rest->at = n->at;
    rest->data = n->data == DISK_OVERLAY_ZERO ? n->data : n->data + (offset - n->start);
    n->end = offset;
    insert(o, rest);
}

void disk_overlay_put(struct disk_overlay *o, uint64_t start, uint64_t end, uint64_t at,
                      uint64_t data)
{
    struct disk_node *left, *hidden, *right, *n;

    assert(start < end && (!o->newest || o->newest->at <= at));
    cut(o, start);
    cut(o, end);
    split(o->root, start, &left, &right);
    split(right, end, &hidden, &right);
    free_all(o, hidden);
    n = node_new(o, o->newest);
    n->start = start;
    n->end = end;
    n->at = at;
    n->data = data;
    o->root = merge(merge(left, n), right);
}

bool disk_overlay_find(const struct disk_overlay *o, uint64_t start, uint64_t end,
                       struct disk_piece *piece)
{
    const struct disk_node *n = last_from(o, start);

    if (!n || n->end <= start) n = first_behind(o, start);
    if (!n || n->start >= end) return false;
    piece->start = n->start > start ? n->start : start;
    piece->end = n->end < end ? n->end : end;
    piece->data = n->data == DISK_OVERLAY_ZERO ? n->data : n->data + (piece->start - n->start);
    return true;
}

static void remove_node(struct disk_overlay *o, struct disk_node *n)
{
    struct disk_node *left, *mid, *right;

    split(o->root, n->start, &left, &mid);
    split(mid, n->start + 1, &mid, &right);
    assert(mid == n);
    o->root = merge(left, right);
    node_free(o, n);
}

bool disk_overlay_drop(struct disk_overlay *o, uint64_t before, size_t max)
{
    while (max-- && o->oldest && o->oldest->at < before) {
        assert(!o->oldest->older);
        remove_node(o, o->oldest);
    }
    return !o->oldest || o->oldest->at >= before;
}
