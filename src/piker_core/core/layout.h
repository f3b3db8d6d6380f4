/* What a segment's file looks like, and whether a header is true of its file.
 *
 * Every part begins on a page boundary (docs/shm-format.md):
 *     header | wait page | table | stamps | sides | items
 * A ring of ticks has no stamps and sides.
 */
#ifndef PK_LAYOUT_H
#define PK_LAYOUT_H

#include "atomics.h"
#include <stddef.h>
#include <stdio.h>

#define PK_MAGIC UINT64_C(0x31474e5252454b50) /* "PKERRNG1" */
#define PK_VERSION 1
#define PK_BARS 1
#define PK_TICKS 2
#define PK_COUNTERS 16
#define PK_DOORBELLS 56
#define PK_ROW_WORDS 10
#define PK_SIDE_WORDS 8
#define PK_TICK_WORDS 8
#define PK_TABLE_ITEM 64 /* a gap record, or a market name */
#define PK_ABOUT 512
#define PK_REASON 128 /* room for the reason of a status */
#define PK_START (UINT64_C(1) << 40) /* the first live row: history goes below it */

/* Written once, before the segment can be attached; covered by the checksum. */
typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t total_size;
    uint32_t page_size;
    uint32_t item_size;
    uint64_t capacity;
    uint64_t table_offset;
    uint64_t stamp_offset;
    uint64_t side_offset;
    uint64_t item_offset;
    uint32_t table_capacity;
    uint32_t period;
    int64_t created_ns;
    uint32_t uid;
    uint32_t reserved;
    char space[64];
    char provider[32];
    char fqme[64];
    char price_tick[32];
    char size_tick[32];
    char dtype[184];
    uint64_t checksum;
} pk_identity;

/* A gap record in the table of a ring of bars. */
typedef struct {
    pk_word start_ns;
    pk_word end_ns;
    pk_word cause[5];
    pk_word repaired;
} pk_gap;

/* Redo record: the row that is being rewritten, whole, before its slot is touched. */
typedef struct {
    pk_word stamp;
    pk_word sequence;
    pk_word row[PK_ROW_WORDS];
    pk_word side[PK_SIDE_WORDS];
} pk_redo;

/* A status and why it is that: a text, ended by a zero byte. */
typedef struct {
    pk_word status;
    pk_word text[PK_REASON / 8];
} pk_reason;

typedef struct {
    pk_identity identity;
    pk_word about[PK_ABOUT / 8]; /* what the provider says of the market, JSON text */
    pk_word generation;
    pk_word status;
    pk_word heartbeat_ns;
    pk_word writer_pid;
    pk_word last_price;
    pk_word table_count;
    pk_word about_stamp; /* odd while `about` is written */
    pk_word table_stamp; /* bars: odd while `gap` goes to its place */
    pk_word counters[PK_COUNTERS];
    pk_gap gap; /* bars: the gap record that is written, whole */
    pk_word head;
    pk_word clock;  /* bars: number of the newest row write; ticks: the intent */
    char unused_1[48];
    pk_word first;
    pk_word gap_number; /* bars: which gap record that is */
    char unused_2[48];
    pk_redo redo;
    pk_word reason_number; /* bars: the newest reason is in `reasons[reason_number % 2]` */
    pk_reason reasons[2];
    pk_word feed_status; /* bars: what the feed says, whatever the session */
} pk_header;

/* The one page that readers may write to. */
typedef struct {
    pk_half waiting;
    pk_half turn;
    char unused[56];
    pk_word doorbells[PK_DOORBELLS];
} pk_wait_page;

/* Pinned: docs/shm-format.md gives these offsets to the rest of the world. */
#define PK_AT(type, field, offset) \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " stays at " #offset)

PK_AT(pk_identity, magic, 0); PK_AT(pk_identity, version, 8); PK_AT(pk_identity, kind, 12);
PK_AT(pk_identity, total_size, 16); PK_AT(pk_identity, page_size, 24);
PK_AT(pk_identity, item_size, 28); PK_AT(pk_identity, capacity, 32);
PK_AT(pk_identity, table_offset, 40); PK_AT(pk_identity, stamp_offset, 48);
PK_AT(pk_identity, side_offset, 56); PK_AT(pk_identity, item_offset, 64);
PK_AT(pk_identity, table_capacity, 72); PK_AT(pk_identity, period, 76);
PK_AT(pk_identity, created_ns, 80); PK_AT(pk_identity, uid, 88); PK_AT(pk_identity, reserved, 92);
PK_AT(pk_identity, space, 96); PK_AT(pk_identity, provider, 160); PK_AT(pk_identity, fqme, 192);
PK_AT(pk_identity, price_tick, 256); PK_AT(pk_identity, size_tick, 288);
PK_AT(pk_identity, dtype, 320); PK_AT(pk_identity, checksum, 504);

PK_AT(pk_header, identity, 0); PK_AT(pk_header, about, 512); PK_AT(pk_header, generation, 1024);
PK_AT(pk_header, status, 1032); PK_AT(pk_header, heartbeat_ns, 1040);
PK_AT(pk_header, writer_pid, 1048); PK_AT(pk_header, last_price, 1056);
PK_AT(pk_header, table_count, 1064); PK_AT(pk_header, about_stamp, 1072);
PK_AT(pk_header, table_stamp, 1080); PK_AT(pk_header, counters, 1088);
PK_AT(pk_header, gap, 1216); PK_AT(pk_header, head, 1280); PK_AT(pk_header, clock, 1288);
PK_AT(pk_header, unused_1, 1296); PK_AT(pk_header, first, 1344);
PK_AT(pk_header, gap_number, 1352); PK_AT(pk_header, unused_2, 1360);
PK_AT(pk_header, redo, 1408); PK_AT(pk_header, reason_number, 1568);
PK_AT(pk_header, reasons, 1576); PK_AT(pk_header, feed_status, 1848);

PK_AT(pk_gap, start_ns, 0); PK_AT(pk_gap, end_ns, 8); PK_AT(pk_gap, cause, 16);
PK_AT(pk_gap, repaired, 56);

PK_AT(pk_redo, stamp, 0); PK_AT(pk_redo, sequence, 8); PK_AT(pk_redo, row, 16);
PK_AT(pk_redo, side, 96);

PK_AT(pk_reason, status, 0); PK_AT(pk_reason, text, 8);

PK_AT(pk_wait_page, waiting, 0); PK_AT(pk_wait_page, turn, 4); PK_AT(pk_wait_page, unused, 8);
PK_AT(pk_wait_page, doorbells, 64);

_Static_assert(sizeof(pk_identity) == 512 && sizeof(pk_redo) == 160, "layout");
_Static_assert(sizeof(pk_gap) == PK_TABLE_ITEM, "layout");
_Static_assert(sizeof(pk_reason) == 136, "layout");
_Static_assert(sizeof(pk_header) == 1856 && sizeof(pk_wait_page) == 512, "layout");
_Static_assert(offsetof(pk_header, head) % 64 == 0, "head has its own cache line");
_Static_assert(offsetof(pk_header, first) % 64 == 0, "first has its own cache line");

#ifndef PK_TRIES
#define PK_TRIES (1 << 16) /* of a reader, before it declares the segment damaged */
#endif

enum { PK_OK = 0, PK_MISSING, PK_REFUSED, PK_SYSTEM, PK_BLANK, PK_LAPPED, PK_BUSY };

static inline uint64_t pk_hash(const void *bytes, size_t count, uint64_t hash) {
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < count; i++) { /* FNV-1a */
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

#define PK_HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t pk_round_up(uint64_t size, uint64_t unit) {
    return (size + unit - 1) / unit * unit;
}

static inline uint64_t pk_page_size(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

/* The capacity rounded up, so that the items fill whole pages. */
static inline uint64_t pk_round_capacity(uint64_t capacity, uint64_t item_size) {
    uint64_t a = pk_page_size(), b = item_size;
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return pk_round_up(capacity ? capacity : 1, pk_page_size() / a);
}

/* Fill in sizes and offsets, which follow from kind, capacity, item size and table. */
static inline void pk_lay_out(pk_identity *id) {
    uint64_t page = pk_page_size(), bars = id->kind == PK_BARS;
    id->page_size = (uint32_t)page;
    id->table_offset = 2 * page;
    id->stamp_offset = id->table_offset + pk_round_up(id->table_capacity * PK_TABLE_ITEM, page);
    id->side_offset = id->stamp_offset + pk_round_up(bars * id->capacity * 8, page);
    id->item_offset =
        id->side_offset + pk_round_up(bars * id->capacity * 8 * PK_SIDE_WORDS, page);
    id->total_size = id->item_offset + id->capacity * id->item_size;
}

static inline uint64_t pk_checksum(const pk_identity *id) {
    return pk_hash(id, offsetof(pk_identity, checksum), PK_HASH_START);
}

static inline int pk_ends(const char *text, size_t room) { return memchr(text, 0, room) != NULL; }

/* Is this header ours, whole and true of a file of this size? A sentence if not. */
static inline int pk_check(const pk_identity *id, uint64_t size, uint32_t kind, char *why,
                           size_t room) {
    if (id->magic != PK_MAGIC) {
        snprintf(why, room, "is no piker-core ring of layout version %d", PK_VERSION);
    } else if (id->version != PK_VERSION) {
        snprintf(why, room, "has layout version %u, this piker-core reads version %d",
                 id->version, PK_VERSION);
    } else if (id->checksum != pk_checksum(id)) {
        snprintf(why, room, "has a damaged header (layout version %d)", PK_VERSION);
    } else if (id->kind != kind) {
        snprintf(why, room, "is of another kind of ring (layout version %d)", PK_VERSION);
    } else {
        pk_identity wanted = *id;
        uint64_t item = 8 * (kind == PK_BARS ? PK_ROW_WORDS : PK_TICK_WORDS);
        int sane = id->item_size == item && id->capacity && id->capacity < UINT64_C(1) << 40 &&
                   id->table_capacity > 1 && id->table_capacity <= 1 << 20 && pk_ends(id->space, sizeof id->space) &&
                   pk_ends(id->provider, sizeof id->provider) &&
                   pk_ends(id->fqme, sizeof id->fqme) &&
                   pk_ends(id->price_tick, sizeof id->price_tick) &&
                   pk_ends(id->size_tick, sizeof id->size_tick) &&
                   pk_ends(id->dtype, sizeof id->dtype) && (kind != PK_BARS || id->period);
        pk_lay_out(&wanted);
        if (sane && !memcmp(&wanted, id, sizeof wanted) && id->total_size == size &&
            id->capacity == pk_round_capacity(id->capacity, item)) {
            return PK_OK;
        }
        snprintf(why, room, "has sizes that do not fit its file of %llu bytes (layout version %d)",
                 (unsigned long long)size, PK_VERSION);
    }
    return PK_REFUSED;
}

#endif
