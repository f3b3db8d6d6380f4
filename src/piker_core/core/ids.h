/* The last 65,536 trade ids of a market: a hash set that forgets in order of arrival. */
#ifndef PK_IDS_H
#define PK_IDS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PK_IDS_MOST 65536u

typedef struct {
    int64_t *order;  /* a ring of `room` ids by arrival */
    int64_t *table;  /* 2 * room slots, 0 is empty; linear probing */
    uint32_t room, count, oldest;
} pk_ids;

/* Eight ids that follow each other share a cache line; the lines are scattered, so that runs
 * of full slots, which a removal has to walk to their end, stay short. */
static inline uint32_t pk_ids_home(const pk_ids *ids, int64_t id) {
    uint64_t line = ((uint64_t)id >> 3) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    return (uint32_t)(line << 3 | ((uint64_t)id & 7)) & (2 * ids->room - 1);
}

static inline int pk_ids_has(const pk_ids *ids, int64_t id) {
    if (!ids->room) {
        return 0;
    }
    for (uint32_t slot = pk_ids_home(ids, id); ids->table[slot]; slot = (slot + 1) & (2 * ids->room - 1)) {
        if (ids->table[slot] == id) {
            return 1;
        }
    }
    return 0;
}

static inline void pk_ids_place(pk_ids *ids, int64_t id) {
    uint32_t slot = pk_ids_home(ids, id);
    while (ids->table[slot]) {
        slot = (slot + 1) & (2 * ids->room - 1);
    }
    ids->table[slot] = id;
}

static inline void pk_ids_remove(pk_ids *ids, int64_t id) {
    uint32_t mask = 2 * ids->room - 1, hole = pk_ids_home(ids, id);
    while (ids->table[hole] != id) {
        hole = (hole + 1) & mask;
    }
    for (uint32_t slot = (hole + 1) & mask; ids->table[slot]; slot = (slot + 1) & mask) {
        uint32_t home = pk_ids_home(ids, ids->table[slot]);
        if (((slot - home) & mask) >= ((slot - hole) & mask)) { /* may move back into the hole */
            ids->table[hole] = ids->table[slot];
            hole = slot;
        }
    }
    ids->table[hole] = 0;
}

/* Double the room, up to the most there is to remember. 0, or -1 without memory. */
static inline int pk_ids_grow(pk_ids *ids) {
    uint32_t room = ids->room ? 2 * ids->room : 256;
    int64_t *order = malloc(room * sizeof *order);
    int64_t *table = calloc(2 * (size_t)room, sizeof *table);
    if (!order || !table) {
        free(order);
        free(table);
        return -1;
    }
    pk_ids grown = {order, table, room, 0, 0};
    for (uint32_t i = 0; i < ids->count; i++) {
        int64_t id = ids->order[(ids->oldest + i) % ids->room];
        grown.order[grown.count++] = id;
        pk_ids_place(&grown, id);
    }
    free(ids->order);
    free(ids->table);
    *ids = grown;
    return 0;
}

/* Remember an id that is not known yet and not 0. 0, or -1 without memory. */
static inline int pk_ids_add(pk_ids *ids, int64_t id) {
    if (ids->count == ids->room) {
        if (ids->room < PK_IDS_MOST) {
            if (pk_ids_grow(ids)) {
                return -1;
            }
        } else {
            pk_ids_remove(ids, ids->order[ids->oldest]);
            ids->oldest = (ids->oldest + 1) % ids->room;
            ids->count--;
        }
    }
    ids->order[(ids->oldest + ids->count++) % ids->room] = id;
    pk_ids_place(ids, id);
    return 0;
}

static inline void pk_ids_free(pk_ids *ids) {
    free(ids->order);
    free(ids->table);
    memset(ids, 0, sizeof *ids);
}

#endif
