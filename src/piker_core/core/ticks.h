/* The tick ring: 64-byte records, one writer, cursors that know what they lost.
 *
 * `clock` of the header is the intent: it passes a sequence before that record's slot is
 * touched, `head` passes it after. So what a cursor copied is whole where it lies above
 * intent - capacity when the copy is done, and lost where it lies below.
 */
#ifndef PK_TICKS_H
#define PK_TICKS_H

#include "segment.h"

#define PK_TICK_WORDS 8

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

_Static_assert(sizeof(pk_tick) == 64 && offsetof(pk_tick, market) == 48, "one cache line");
_Static_assert(offsetof(pk_tick, type) == 56 && offsetof(pk_tick, flags) == 59, "layout");

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
    pk_store_release(&header->head, ++t->head); /* SYNC tick-head: pairs with tick-head-read */
}

/* Take over a ring that another writer left; the record it was killed in is not there. */
static inline int pk_resume_ticks(pk_ticks *t) {
    pk_segment *s = &t->segment;
    uint64_t intent = pk_load(&s->header->clock);
    t->head = pk_load(&s->header->head);
    if (t->head >= UINT64_C(1) << 62 || intent - t->head > 1) {
        return PK_REFUSED;
    }
    pk_resume_reserved(s, t->head > s->capacity ? t->head - s->capacity : 0, t->head);
    return PK_OK;
}

static inline uint64_t pk_ticks_head(const pk_segment *s) {
    return pk_load_acquire(&s->header->head); /* SYNC tick-head-read: pairs with tick-head */
}

/* The oldest record that is still whole. */
static inline uint64_t pk_ticks_first(const pk_segment *s) {
    uint64_t intent = pk_load(&s->header->clock);
    return intent > s->capacity ? intent - s->capacity : 0;
}

/* Copy records [from, from + count), of which those below *whole were overwritten meanwhile. */
static inline void pk_read_ticks(const pk_segment *s, uint64_t from, uint64_t count, pk_tick *ticks, uint64_t *whole) {
    pk_copy_out(ticks, s->items + from % s->capacity * PK_TICK_WORDS, count * PK_TICK_WORDS);
    atomic_thread_fence(memory_order_acquire); /* SYNC intent-recheck: pairs with intent */
    *whole = pk_ticks_first(s);
}

#endif
