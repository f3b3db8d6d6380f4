/* Prices that orders wait for, and what a market last did: one thread, memory of its own.
 * What ticks and rows do to them is in reach.h.
 *
 * 1. A tick that reaches nothing costs two compares: with `up` and `down`, between which
 *    no trigger fires and no trail moves.
 * 2. All is kept twice, for prices that rise (way 0) and, negated, for those that fall
 *    (way 1): a level fires when x = sign * price comes up to it; a trail's best is the
 *    highest x since, and it fires when x has fallen back from there by its distance.
 * 3. Trails that have the same best since a price that moved them make one group: a
 *    pairing heap by distance, whose root stands for it in `bests` and `stops`. A new best
 *    melds the groups below it, so each costs once what it moves, not on every tick.
 * 4. Memory is reserved when a trigger is added: a tick cannot fail.
 * 5. A trade that the venue timed before `since_ns` of a trigger came before its order: it
 *    does not fire it. For trails, whose path is that of arrival, the newest counts.
 */
#ifndef PK_TRIGGERS_H
#define PK_TRIGGERS_H

#include "ring.h"
#include <stdlib.h>

#define PK_NONE UINT32_MAX
#define PK_MOST_TRIGGERS (UINT32_MAX / 2)

typedef struct {
    int64_t key, since_ns;
    uint64_t order;
    double level; /* of x; a trail's distance */
    double best;  /* of x; in a group the root's holds */
    uint32_t child, next, prev; /* prev: the one before among its parent's children, or the parent */
    uint32_t place[2];          /* in the heaps; a free one: the next free in place[0] */
    int8_t way, trails, used;
} pk_trigger;

typedef struct {
    double rank;
    uint32_t node;
} pk_ranked;

/* A binary heap, lowest rank first; which of its places a node keeps. */
typedef struct {
    pk_ranked *items;
    uint32_t count;
    int which;
} pk_heap;

typedef struct {
    pk_heap levels; /* by level */
    pk_heap bests;  /* groups of trails by best */
    pk_heap stops;  /* groups by the x at which the nearest of them fires, highest first */
} pk_way;

typedef struct {
    int64_t key, place;
    uint64_t order;
} pk_fired;

typedef struct {
    double up, down;
    uint32_t counted; /* bits of the tick types that count */
    int mid;          /* as the middle of bid and ask */
    int64_t newest_ns, second; /* of those that counted; INT64_MIN: none did */
    int64_t heard_ns;          /* when the newest was fed; 0: not told */
    double last, high, low;    /* the newest, and the range of its second */
    double bid, bid_size, ask, ask_size;
    pk_way ways[2];
    pk_trigger *nodes;
    pk_fired *fired; /* room for every trigger */
    uint32_t *aside; /* room for every trigger */
    uint32_t room, free, count, fired_count;
    uint64_t orders;
    int64_t trails_since_ns;
} pk_triggers;

/* ---- heaps ------------------------------------------------------------------------------------ */

static inline void pk_heap_put(const pk_triggers *t, pk_heap *h, uint32_t place, pk_ranked item) {
    h->items[place] = item;
    t->nodes[item.node].place[h->which] = place;
}

static inline void pk_heap_up(const pk_triggers *t, pk_heap *h, uint32_t place, pk_ranked item) {
    while (place && h->items[(place - 1) / 2].rank > item.rank) {
        pk_heap_put(t, h, place, h->items[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    pk_heap_put(t, h, place, item);
}

static inline void pk_heap_add(const pk_triggers *t, pk_heap *h, double rank, uint32_t node) {
    pk_heap_up(t, h, h->count++, (pk_ranked){rank, node});
}

static inline void pk_heap_remove(const pk_triggers *t, pk_heap *h, uint32_t node) {
    uint32_t place = t->nodes[node].place[h->which], child;
    pk_ranked item = h->items[--h->count];
    if (item.node == node) {
        return;
    }
    while ((child = 2 * place + 1) < h->count) {
        child += child + 1 < h->count && h->items[child + 1].rank < h->items[child].rank;
        if (h->items[child].rank >= item.rank) {
            break;
        }
        pk_heap_put(t, h, place, h->items[child]);
        place = child;
    }
    pk_heap_up(t, h, place, item);
}

/* ---- groups of trails ------------------------------------------------------------------------- */

/* One group of two: the root with the smaller distance, of equal ones the older. */
static inline uint32_t pk_meld(pk_triggers *t, uint32_t one, uint32_t other) {
    pk_trigger *n = t->nodes;
    if (one == PK_NONE || other == PK_NONE) {
        return one == PK_NONE ? other : one;
    }
    if (n[other].level < n[one].level || (n[other].level == n[one].level && n[other].order < n[one].order)) {
        uint32_t swap = one;
        one = other;
        other = swap;
    }
    n[other].prev = one;
    n[other].next = n[one].child;
    if (n[one].child != PK_NONE) {
        n[n[one].child].prev = other;
    }
    n[one].child = other;
    n[one].prev = n[one].next = PK_NONE;
    return one;
}

/* One group of all children of a node: in pairs from the first on, then from the last back. */
static inline uint32_t pk_meld_children(pk_triggers *t, uint32_t node) {
    pk_trigger *n = t->nodes;
    uint32_t pairs = PK_NONE, root = PK_NONE, child = n[node].child;
    while (child != PK_NONE) {
        uint32_t second = n[child].next, rest = second == PK_NONE ? PK_NONE : n[second].next;
        uint32_t pair = pk_meld(t, child, second);
        n[pair].next = pairs;
        pairs = pair;
        child = rest;
    }
    while (pairs != PK_NONE) {
        uint32_t rest = n[pairs].next;
        root = pk_meld(t, root, pairs);
        pairs = rest;
    }
    n[node].child = PK_NONE;
    if (root != PK_NONE) {
        n[root].prev = n[root].next = PK_NONE;
    }
    return root;
}

static inline uint32_t pk_group_of(const pk_triggers *t, uint32_t node) {
    while (t->nodes[node].prev != PK_NONE) {
        node = t->nodes[node].prev;
    }
    return node;
}

/* Where a trail fires: the difference is rounded, and a price that is decimal must touch it. */
static inline double pk_trail_stop(double best, double distance) {
    return best - distance + fabs(best) * 0x1p-50;
}

static inline void pk_list_group(pk_triggers *t, pk_way *way, uint32_t root, double best) {
    t->nodes[root].best = best;
    pk_heap_add(t, &way->bests, best, root);
    pk_heap_add(t, &way->stops, -pk_trail_stop(best, t->nodes[root].level), root);
}

static inline void pk_unlist_group(pk_triggers *t, pk_way *way, uint32_t root) {
    pk_heap_remove(t, &way->bests, root);
    pk_heap_remove(t, &way->stops, root);
}

static inline void pk_take_from_group(pk_triggers *t, uint32_t node) {
    pk_trigger *n = t->nodes;
    pk_way *way = &t->ways[n[node].way];
    uint32_t prev = n[node].prev, rest;
    if (prev == PK_NONE) {
        pk_unlist_group(t, way, node);
        rest = pk_meld_children(t, node);
        if (rest != PK_NONE) {
            pk_list_group(t, way, rest, n[node].best);
        }
        return;
    }
    rest = pk_meld_children(t, node); /* all below it may stand in its place */
    uint32_t next = n[node].next, then = rest == PK_NONE ? next : rest;
    if (rest != PK_NONE) {
        n[rest].prev = prev;
        n[rest].next = next;
    }
    if (next != PK_NONE) {
        n[next].prev = rest == PK_NONE ? prev : rest;
    }
    if (n[prev].child == node) {
        n[prev].child = then;
    } else {
        n[prev].next = then;
    }
}

/* ---- adding and removing ---------------------------------------------------------------------- */

/* Before any other use. `counted`: bits of tick types; `mid`: bids and asks make middles. */
static inline void pk_triggers_init(pk_triggers *t, uint32_t counted, int mid) {
    memset(t, 0, sizeof *t);
    t->counted = counted;
    t->mid = mid;
    t->up = INFINITY;
    t->down = -INFINITY;
    t->newest_ns = t->second = t->trails_since_ns = INT64_MIN;
    t->free = PK_NONE;
    for (int i = 0; i < 2; i++) {
        t->ways[i].stops.which = 1;
    }
}

static inline void pk_triggers_free(pk_triggers *t) {
    for (int i = 0; i < 2; i++) {
        free(t->ways[i].levels.items);
        free(t->ways[i].bests.items);
        free(t->ways[i].stops.items);
    }
    free(t->nodes);
    free(t->fired);
    free(t->aside);
}

static inline int pk_grow_array(void *array, size_t size) {
    void *grown = realloc(*(void **)array, size);
    if (!grown) {
        return -1;
    }
    *(void **)array = grown;
    return 0;
}

/* Room for one more. 0, or -1 without memory: then nothing has changed. */
static inline int pk_reserve_trigger(pk_triggers *t) {
    uint32_t room = t->room ? 2 * t->room : 16;
    if (t->free != PK_NONE) {
        return 0;
    }
    if (t->room >= PK_MOST_TRIGGERS || pk_grow_array(&t->nodes, room * sizeof *t->nodes) ||
        pk_grow_array(&t->fired, room * sizeof *t->fired) || pk_grow_array(&t->aside, room * sizeof *t->aside)) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        pk_way *way = &t->ways[i];
        if (pk_grow_array(&way->levels.items, room * sizeof(pk_ranked)) ||
            pk_grow_array(&way->bests.items, room * sizeof(pk_ranked)) ||
            pk_grow_array(&way->stops.items, room * sizeof(pk_ranked))) {
            return -1;
        }
    }
    for (uint32_t node = room; node-- > t->room;) {
        t->nodes[node].used = 0;
        t->nodes[node].place[0] = t->free;
        t->free = node;
    }
    t->room = room;
    return 0;
}

/* What prices neither fire anything nor move a trail. */
static inline void pk_set_bounds(pk_triggers *t) {
    double nearest[2] = {INFINITY, INFINITY}; /* x of each way */
    for (int i = 0; i < 2; i++) {
        const pk_way *way = &t->ways[i];
        if (way->levels.count) {
            nearest[i] = fmin(nearest[i], way->levels.items[0].rank);
        }
        if (way->bests.count) { /* both have as many */
            nearest[i] = fmin(nearest[i], nextafter(way->bests.items[0].rank, INFINITY));
            nearest[!i] = fmin(nearest[!i], way->stops.items[0].rank);
        }
    }
    t->up = nearest[0];
    t->down = -nearest[1];
}

static inline uint32_t pk_new_trigger(pk_triggers *t, int64_t key, int way, int64_t since_ns) {
    uint32_t node = t->free;
    t->free = t->nodes[node].place[0];
    t->nodes[node] = (pk_trigger){.key = key, .since_ns = since_ns, .order = t->orders++, .child = PK_NONE,
                                  .next = PK_NONE, .prev = PK_NONE, .way = (int8_t)way, .used = 1};
    t->count++;
    return node;
}

/* Fires at `price` and beyond: above for way 0, below for way 1. There is room for it. */
static inline uint32_t pk_add_level(pk_triggers *t, int64_t key, int way, double price, int64_t since_ns) {
    uint32_t node = pk_new_trigger(t, key, way, since_ns);
    t->nodes[node].level = way ? -price : price;
    pk_heap_add(t, &t->ways[way].levels, t->nodes[node].level, node);
    pk_set_bounds(t);
    return node;
}

/* Fires when the price has come back from its best by `distance`: way 0 from above. */
static inline uint32_t pk_add_trail(pk_triggers *t, int64_t key, int way, double distance, double best,
                                    int64_t since_ns) {
    uint32_t node = pk_new_trigger(t, key, way, since_ns);
    t->nodes[node].level = distance;
    t->nodes[node].trails = 1;
    t->trails_since_ns = since_ns > t->trails_since_ns ? since_ns : t->trails_since_ns;
    pk_list_group(t, &t->ways[way], node, way ? -best : best);
    pk_set_bounds(t);
    return node;
}

static inline void pk_free_trigger(pk_triggers *t, uint32_t node) {
    t->nodes[node].used = 0;
    t->nodes[node].place[0] = t->free;
    t->free = node;
    t->count--;
}

static inline void pk_remove_trigger(pk_triggers *t, uint32_t node) {
    if (t->nodes[node].trails) {
        pk_take_from_group(t, node);
    } else {
        pk_heap_remove(t, &t->ways[t->nodes[node].way].levels, node);
    }
    pk_free_trigger(t, node);
    pk_set_bounds(t);
}

#endif
