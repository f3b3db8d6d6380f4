/* Random triggers, trails, removals and ticks, beside a look at each: triggers STEPS */
#include "reach.h"

#define MOST 600

typedef struct {
    int live, way, trails;
    uint32_t node;
    double level, best;
} waiting;

static waiting all[MOST];
static uint64_t seed = 88172645463325252u;

static uint32_t next(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 11) % below);
}

static void fail(const char *what, int64_t key) {
    fprintf(stderr, "%s %ld\n", what, (long)key);
    exit(1);
}

static void add(pk_triggers *t, int key, double price) {
    waiting *w = &all[key];
    if (pk_reserve_trigger(t)) {
        fail("no memory for", key);
    }
    *w = (waiting){.live = 1, .way = (int)next(2), .trails = (int)next(2)};
    if (w->trails) {
        w->level = 1 + next(40);
        w->best = w->way ? -price : price;
        w->node = pk_add_trail(t, key, w->way, w->level, price, 0);
    } else {
        double level = price + (w->way ? -1.0 : 1.0) * (1 + next(40));
        w->level = w->way ? -level : level;
        w->node = pk_add_level(t, key, w->way, level, 0);
    }
}

/* Does it fire at this price? Its best follows. */
static int reached(waiting *w, double price) {
    double x = w->way ? -price : price;
    if (!w->trails) {
        return x >= w->level;
    }
    w->best = x > w->best ? x : w->best;
    return x <= pk_trail_stop(w->best, w->level);
}

static int feed(pk_triggers *t, double price) {
    pk_tick tick = {.type = PK_TRADE, .price = price, .time_ns = PK_NS};
    int fired = 0;
    t->fired_count = 0;
    pk_feed_tick(t, &tick, 0, 0);
    for (int key = 0; key < MOST; key++) {
        if (all[key].live && reached(&all[key], price)) {
            all[key].live = 0;
            fired++;
        }
    }
    if (fired != (int)t->fired_count) {
        fail("not as many fired as should:", fired);
    }
    for (int i = 0; i < fired; i++) {
        if (all[t->fired[i].key].live) {
            fail("fired and should not:", t->fired[i].key);
        }
        all[t->fired[i].key].live = -1;
    }
    for (int key = 0; key < MOST; key++) {
        all[key].live &= 1 & -(all[key].live >= 0);
        if (all[key].live && all[key].trails && t->nodes[pk_group_of(t, all[key].node)].best != all[key].best) {
            fail("another best:", key);
        }
    }
    return fired;
}

int main(int count, char **arguments) {
    long steps = count > 1 ? atol(arguments[1]) : 1000, fired = 0, removed = 0;
    double price = 1000;
    pk_triggers t;
    pk_triggers_init(&t, 1u << PK_TRADE, 0);
    for (long step = 0; step < steps; step++) {
        int key = (int)next(MOST);
        if (!all[key].live) {
            add(&t, key, price);
        } else if (!next(3)) {
            pk_remove_trigger(&t, all[key].node);
            all[key].live = 0;
            removed++;
        }
        price += (double)next(7) - 3;
        price = price < 500 ? 1000 : price;
        fired += feed(&t, price);
        pk_check_range(&t, price, price);
        if (t.fired_count) {
            fail("left behind", t.fired[0].key);
        }
    }
    uint32_t live = 0;
    for (int key = 0; key < MOST; key++) {
        live += (uint32_t)all[key].live;
    }
    if (live != t.count) {
        fail("not as many rest as should:", live);
    }
    pk_triggers_free(&t);
    printf("%ld steps: %ld fired, %ld removed, %u rest\n", steps, fired, removed, live);
    return 0;
}
