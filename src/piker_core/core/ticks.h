/* The tick ring: 64-byte records, one writer, cursors that know what they lost.
 *
 * `clock` of the header is the intent: it passes a sequence before that record's slot is
 * touched, `head` passes it after. So what a cursor copied is whole where it lies above
 * intent - capacity when the copy is done, and lost where it lies below.
 */
#ifndef PK_TICKS_H
#define PK_TICKS_H

#include "segment.h"

typedef struct {
    uint64_t sequence;
    int64_t time_ns;
    int64_t recv_ns;
    double price;
    double size;
    int64_t id;
    uint32_t market;
    uint32_t count;
    uint16_t type;
    int8_t side;
    uint8_t flags;
    uint32_t unused;
} pk_tick;

PK_AT(pk_tick, sequence, 0); PK_AT(pk_tick, time_ns, 8); PK_AT(pk_tick, recv_ns, 16);
PK_AT(pk_tick, price, 24); PK_AT(pk_tick, size, 32); PK_AT(pk_tick, id, 40);
PK_AT(pk_tick, market, 48); PK_AT(pk_tick, count, 52); PK_AT(pk_tick, type, 56);
PK_AT(pk_tick, side, 58); PK_AT(pk_tick, flags, 59); PK_AT(pk_tick, unused, 60);
_Static_assert(sizeof(pk_tick) == 8 * PK_TICK_WORDS, "one cache line");

enum { PK_TRADE = 1, PK_UTRADE, PK_DARK_TRADE, PK_BID, PK_ASK, PK_BSIZE, PK_ASIZE, PK_LAST, PK_VOLUME, PK_TYPES };

typedef struct {
    pk_segment segment;
    uint64_t head;
} pk_ticks;

/* Publish one record; the caller has reserved its slot. */
static inline void pk_publish_tick(pk_ticks *t, pk_tick *tick) {
    pk_header *header = t->segment.header;
    tick->sequence = t->head;
    pk_store(&header->clock, t->head + 1);
    atomic_thread_fence(memory_order_release); /* SYNC intent: pairs with intent-recheck */
    pk_copy_in(t->segment.items + t->head % t->segment.capacity * PK_TICK_WORDS, tick, PK_TICK_WORDS);
    pk_store_release(&header->head, ++t->head); /* SYNC head: pairs with head-read */
}

/* The oldest record that is still whole. */
static inline uint64_t pk_ticks_first(const pk_segment *s) {
    uint64_t intent = pk_load(&s->header->clock);
    return intent > s->capacity ? intent - s->capacity : 0;
}

/* Is the record of that sequence where it belongs? For the writer, who alone changes it. */
static inline int pk_has_tick(const pk_segment *s, uint64_t sequence) {
    return pk_load(s->items + sequence % s->capacity * PK_TICK_WORDS) == sequence;
}

/* Take over a ring that another writer left; the record it was killed in is not there.
 * PK_REFUSED: its numbers cannot be. */
static inline int pk_resume_ticks(pk_ticks *t) {
    pk_segment *s = &t->segment;
    uint64_t intent = pk_load(&s->header->clock), first = pk_ticks_first(s);
    t->head = pk_load(&s->header->head);
    if (t->head >= UINT64_C(1) << 62 || intent - t->head > 1 ||
        pk_load(&s->header->table_count) > s->table_capacity ||
        (first < t->head && !(pk_has_tick(s, first) && pk_has_tick(s, t->head - 1)))) {
        return PK_REFUSED;
    }
    pk_resume_reserved(s, t->head > s->capacity ? t->head - s->capacity : 0, t->head);
    return PK_OK;
}

/* ---- names of markets ------------------------------------------------------------------------- */

static inline pk_word *pk_name_words(const pk_segment *s, uint64_t place) {
    return (pk_word *)s->table + place * (PK_TABLE_ITEM / 8);
}

/* Names below this place are whole, for ever. */
static inline uint64_t pk_names(const pk_segment *s) {
    uint64_t count = pk_load_acquire(&s->header->table_count); /* SYNC names-read: pairs with names */
    return count < s->table_capacity ? count : s->table_capacity;
}

static inline void pk_read_name(const pk_segment *s, uint64_t place, char name[PK_TABLE_ITEM]) {
    pk_copy_out(name, pk_name_words(s, place), PK_TABLE_ITEM / 8);
    name[PK_TABLE_ITEM - 1] = 0;
}

/* The place of a name; PK_MISSING if it has none. */
static inline int pk_find_name(const pk_segment *s, const char *name, uint64_t *place) {
    char found[PK_TABLE_ITEM];
    for (uint64_t i = 0, count = pk_names(s); i < count; i++) {
        pk_read_name(s, i, found);
        if (!strcmp(found, name)) {
            *place = i;
            return PK_OK;
        }
    }
    return PK_MISSING;
}

/* Give a name its place. The caller has seen that there is room for it. */
static inline uint64_t pk_add_name(pk_segment *s, const char *name) {
    char item[PK_TABLE_ITEM] = {0};
    uint64_t place = pk_load(&s->header->table_count);
    memcpy(item, name, strnlen(name, sizeof item - 1));
    pk_copy_in(pk_name_words(s, place), item, PK_TABLE_ITEM / 8);
    pk_store_release(&s->header->table_count, place + 1); /* SYNC names: pairs with names-read */
    return place;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* Copy records [from, from + count), of which those below *whole were overwritten meanwhile. */
static inline void pk_read_ticks(const pk_segment *s, uint64_t from, uint64_t count, pk_tick *ticks, uint64_t *whole) {
    pk_copy_out(ticks, s->items + from % s->capacity * PK_TICK_WORDS, count * PK_TICK_WORDS);
    atomic_thread_fence(memory_order_acquire); /* SYNC intent-recheck: pairs with intent */
    *whole = pk_ticks_first(s);
}

#endif
