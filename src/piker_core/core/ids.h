/* The last 65,536 trade ids of a market: a hash set that forgets in order of arrival. */
#ifndef PK_IDS_H
#define PK_IDS_H

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PK_IDS_MOST 65536u
#define PK_IDS_LEAST 256u
#define PK_IDS_BYTES (3 * PK_IDS_MOST * sizeof(int64_t))

typedef struct {
    int64_t *order;  /* a ring of `room` ids by arrival; the table is behind the most there can be */
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

/* Address space for the most there is to remember, apart from the heap: it takes memory as
 * its pages are touched, and a table that grew leaves no hole. 0, or -1 without memory. */
static inline int pk_ids_map(pk_ids *ids) {
    int64_t *base = mmap(NULL, PK_IDS_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return -1;
    }
    madvise(base, PK_IDS_BYTES, MADV_NOHUGEPAGE);
    *ids = (pk_ids){base, base + PK_IDS_MOST, PK_IDS_LEAST, 0, 0};
    return 0;
}

/* Double the room. The oldest is the first: none was forgotten yet. */
static inline void pk_ids_grow(pk_ids *ids) {
    memset(ids->table, 0, 2 * ids->room * sizeof *ids->table);
    ids->room *= 2;
    for (uint32_t i = 0; i < ids->count; i++) {
        pk_ids_place(ids, ids->order[i]);
    }
}

/* Remember an id that is not known yet and not 0. 0, or -1 without memory. */
static inline int pk_ids_add(pk_ids *ids, int64_t id) {
    if (!ids->room && pk_ids_map(ids)) {
        return -1;
    }
    if (ids->count == ids->room) {
        if (ids->room < PK_IDS_MOST) {
            pk_ids_grow(ids);
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
    if (ids->room) {
        munmap(ids->order, PK_IDS_BYTES);
    }
    memset(ids, 0, sizeof *ids);
}

#endif
