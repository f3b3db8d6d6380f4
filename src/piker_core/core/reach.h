/* Ticks and rows of a market reach its triggers (triggers.h). */
#ifndef PK_REACH_H
#define PK_REACH_H

#include "ticks.h"
#include "triggers.h"

static inline void pk_note_fired(pk_triggers *t, uint32_t node, int64_t place) {
    t->fired[t->fired_count++] = (pk_fired){t->nodes[node].key, place, t->nodes[node].order};
}

static inline void pk_fire_levels(pk_triggers *t, pk_way *way, double x, int64_t time_ns, int64_t place) {
    uint32_t aside = 0;
    while (way->levels.count && way->levels.items[0].rank <= x) {
        uint32_t node = way->levels.items[0].node;
        pk_heap_remove(t, &way->levels, node);
        if (time_ns < t->nodes[node].since_ns) {
            t->aside[aside++] = node;
        } else {
            pk_note_fired(t, node, place);
            pk_free_trigger(t, node);
        }
    }
    while (aside) {
        uint32_t node = t->aside[--aside];
        pk_heap_add(t, &way->levels, t->nodes[node].level, node);
    }
}

/* Groups whose best is below x become one, whose best it is. */
static inline void pk_move_trails(pk_triggers *t, pk_way *way, double x) {
    uint32_t root = PK_NONE;
    while (way->bests.count && way->bests.items[0].rank < x) {
        uint32_t group = way->bests.items[0].node;
        pk_unlist_group(t, way, group);
        root = pk_meld(t, root, group);
    }
    if (root != PK_NONE) {
        pk_list_group(t, way, root, x);
    }
}

static inline void pk_fire_trails(pk_triggers *t, pk_way *way, double x, int64_t place) {
    while (way->stops.count && -way->stops.items[0].rank >= x) {
        uint32_t node = way->stops.items[0].node;
        pk_take_from_group(t, node);
        pk_note_fired(t, node, place);
        pk_free_trigger(t, node);
    }
}

static inline int pk_by_order(const void *one, const void *other) {
    uint64_t a = ((const pk_fired *)one)->order, b = ((const pk_fired *)other)->order;
    return (a > b) - (a < b);
}

/* Those that fired since there were `before`, as they were added. */
static inline void pk_sort_fired(pk_triggers *t, uint32_t before) {
    if (t->fired_count > before + 1) {
        qsort(t->fired + before, t->fired_count - before, sizeof *t->fired, pk_by_order);
    }
}

/* A price that may reach something. */
static inline void pk_reach(pk_triggers *t, double price, int64_t time_ns, int64_t place) {
    uint32_t before = t->fired_count;
    for (int i = 0; i < 2; i++) {
        double x = i ? -price : price;
        pk_fire_levels(t, &t->ways[i], x, time_ns, place);
        if (time_ns >= t->trails_since_ns) {
            pk_move_trails(t, &t->ways[i], x);
            pk_fire_trails(t, &t->ways[i], x, place);
        }
    }
    pk_sort_fired(t, before);
    pk_set_bounds(t);
}

/* A row whose ticks were lost; what of it is not known is NAN. Its trades went from open to close,
 * in between nobody knows how: trails fire where they did in any case. */
static inline void pk_reach_row(pk_triggers *t, const pk_row *row, int64_t place) {
    uint32_t before = t->fired_count;
    for (int i = 0; i < 2; i++) {
        pk_way *way = &t->ways[i];
        double sign = i ? -1 : 1, high = i ? -row->low : row->high, low = i ? -row->high : row->low;
        pk_fire_levels(t, way, high, INT64_MAX, place);
        pk_move_trails(t, way, sign * row->open);
        pk_fire_trails(t, way, sign * row->open, place);
        pk_fire_trails(t, way, low, place);
        pk_move_trails(t, way, high);
        pk_move_trails(t, way, sign * row->close); /* the high may not be known */
        pk_fire_trails(t, way, sign * row->close, place);
    }
    pk_sort_fired(t, before);
    pk_set_bounds(t);
}

/* Which price of the market does a tick tell? NAN: none. */
static inline double pk_counted_price(pk_triggers *t, const pk_tick *tick) {
    switch (tick->type) {
    case PK_BID:
        t->bid = tick->price;
        t->bid_size = tick->size;
        break;
    case PK_ASK:
        t->ask = tick->price;
        t->ask_size = tick->size;
        break;
    case PK_BSIZE:
        t->bid_size = tick->size;
        break;
    case PK_ASIZE:
        t->ask_size = tick->size;
        break;
    }
    if (tick->type >= 32 || !(t->counted >> tick->type & 1)) {
        return NAN;
    }
    if (t->mid) {
        return t->bid > 0 && t->ask > 0 ? t->bid + (t->ask - t->bid) / 2 : NAN;
    }
    return tick->price;
}

/* The newest price, and the range of its second; a late one that is older than it is neither. */
static inline void pk_note_price(pk_triggers *t, double price, int64_t time_ns, int64_t heard_ns) {
    int64_t second = time_ns / PK_NS;
    if (second > t->second) {
        t->second = second;
        t->high = t->low = price;
    } else if (second == t->second) {
        t->high = price > t->high ? price : t->high;
        t->low = price < t->low ? price : t->low;
    }
    if (time_ns >= t->newest_ns) {
        t->newest_ns = time_ns;
        t->heard_ns = heard_ns;
        t->last = price;
    }
}

/* One tick of the market; what it fires is added to `fired`. */
static inline void pk_feed_tick(pk_triggers *t, const pk_tick *tick, int64_t place, int64_t heard_ns) {
    double price = pk_counted_price(t, tick);
    if (price == price) {
        pk_note_price(t, price, tick->time_ns, heard_ns);
        if (!(price < t->up && price > t->down)) {
            pk_reach(t, price, tick->time_ns, place);
        }
    }
}

/* One row of the market; what it fires is added to `fired`. */
static inline void pk_feed_row(pk_triggers *t, const pk_row *row, int64_t place) {
    const double prices[4] = {row->open, row->low, row->high, row->close};
    for (int i = 0; i < 4; i++) {
        if (prices[i] == prices[i]) {
            pk_note_price(t, prices[i], row->time * PK_NS, 0);
        }
    }
    pk_reach_row(t, row, place);
}

/* Levels, not trails, that a range of prices reaches: noted as fired, but left where they are. */
static inline void pk_check_range(pk_triggers *t, double high, double low) {
    t->fired_count = 0;
    for (int i = 0; i < 2; i++) {
        const pk_heap *levels = &t->ways[i].levels;
        double x = i ? -low : high;
        uint32_t waiting = 0;
        if (levels->count && levels->items[0].rank <= x) {
            t->aside[waiting++] = 0;
        }
        while (waiting) {
            uint32_t place = t->aside[--waiting];
            pk_note_fired(t, levels->items[place].node, -1);
            for (uint32_t child = 2 * place + 1; child <= 2 * place + 2 && child < levels->count; child++) {
                if (levels->items[child].rank <= x) {
                    t->aside[waiting++] = child;
                }
            }
        }
    }
    pk_sort_fired(t, 0);
}

#endif
