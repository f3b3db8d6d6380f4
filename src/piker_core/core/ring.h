/* The bar ring: stamped rows in shared memory, one writer, any number of readers.
 *
 * 1. Rows first <= i < head exist; row i lives in slot i % capacity.
 * 2. A slot's stamp is odd while it is written, and 2n after the n-th row write.
 * 3. A row that readers can see is rewritten only after the whole new row stands in the
 *    redo record; a reader that meets an odd stamp takes the row from there, and the next
 *    writer finishes what a killed one began.
 * 4. `first` moves up before the oldest row's slot is written for a new row, `head` moves
 *    up after it; `first` moves down after older rows were written below it.
 * 5. `clock` is the number of the newest finished row write.
 * 6. A gap record in the table is changed only after its new version stands whole in the
 *    header; meanwhile `table_stamp` is odd.
 */
#ifndef PK_RING_H
#define PK_RING_H

#include "segment.h"
#include <math.h>

enum { PK_FLAT = 1, PK_PARTIAL = 2, PK_BACKFILLED = 4, PK_REVISED = 8, PK_REPAIRED = 16, PK_GAP = 32 };

typedef struct {
    int64_t index;
    int64_t time;
    double open, high, low, close, volume;
    int64_t count;
    double wap;
    int64_t flags;
} pk_row;

/* What a row needs to go on exactly: error terms and the order keys of open and close. */
typedef struct {
    double volume_low;
    double worth;
    double worth_low;
    int64_t open_time, open_id;
    int64_t close_time, close_id;
    uint64_t folded; /* ticks of the tick ring below this sequence are in the rows */
} pk_side;

PK_AT(pk_row, index, 0); PK_AT(pk_row, time, 8); PK_AT(pk_row, open, 16); PK_AT(pk_row, high, 24);
PK_AT(pk_row, low, 32); PK_AT(pk_row, close, 40); PK_AT(pk_row, volume, 48);
PK_AT(pk_row, count, 56); PK_AT(pk_row, wap, 64); PK_AT(pk_row, flags, 72);

PK_AT(pk_side, volume_low, 0); PK_AT(pk_side, worth, 8); PK_AT(pk_side, worth_low, 16);
PK_AT(pk_side, open_time, 24); PK_AT(pk_side, open_id, 32); PK_AT(pk_side, close_time, 40);
PK_AT(pk_side, close_id, 48); PK_AT(pk_side, folded, 56);

_Static_assert(sizeof(pk_row) == 8 * PK_ROW_WORDS && sizeof(pk_side) == 8 * PK_SIDE_WORDS, "layout");

/* The writer's view; `row` and `side` are the newest row as it stands in the ring. */
typedef struct {
    pk_segment segment;
    uint64_t head, first, clock;
    int64_t period;
    pk_row row;
    pk_side side;
} pk_bars;

static inline pk_word *pk_row_words(const pk_segment *s, uint64_t sequence) {
    return s->items + sequence % s->capacity * PK_ROW_WORDS;
}

static inline pk_word *pk_side_words(const pk_segment *s, uint64_t sequence) {
    return s->sides + sequence % s->capacity * PK_SIDE_WORDS;
}

/* ---- writing ---------------------------------------------------------------------------------- */

static inline void pk_write_slot(pk_bars *b, uint64_t sequence, const pk_row *row, const pk_side *side) {
    pk_segment *s = &b->segment;
    pk_word *stamp = &s->stamps[sequence % s->capacity];
    uint64_t number = ++b->clock;
    pk_store(stamp, 2 * number - 1);
    atomic_thread_fence(memory_order_release);       /* SYNC slot: pairs with slot-recheck */
    pk_copy_in(pk_row_words(s, sequence), row, PK_ROW_WORDS);
    pk_copy_in(pk_side_words(s, sequence), side, PK_SIDE_WORDS);
    pk_store_release(stamp, 2 * number);             /* SYNC stamp: pairs with stamp-read */
    pk_store_release(&s->header->clock, number);     /* SYNC clock: pairs with clock-read */
}

/* A new row at the head. The caller has reserved its slot. */
static inline void pk_append(pk_bars *b, pk_row *row, const pk_side *side) {
    pk_header *header = b->segment.header;
    row->index = (int64_t)b->head;
    if (b->head - b->first == b->segment.capacity) {
        pk_store(&header->first, ++b->first); /* released with the slot's stamp */
    }
    pk_write_slot(b, b->head, row, side);
    pk_store_release(&header->head, ++b->head); /* SYNC head: pairs with head-read */
    b->row = *row;
    b->side = *side;
}

/* Another version of a row that exists. */
static inline void pk_rewrite(pk_bars *b, uint64_t sequence, const pk_row *row, const pk_side *side) {
    pk_redo *redo = &b->segment.header->redo;
    uint64_t stamp = pk_load(&redo->stamp);
    pk_store(&redo->stamp, stamp + 1);
    atomic_thread_fence(memory_order_release); /* SYNC redo: pairs with redo-recheck */
    pk_store(&redo->sequence, sequence);
    pk_copy_in(redo->row, row, PK_ROW_WORDS);
    pk_copy_in(redo->side, side, PK_SIDE_WORDS);
    pk_store_release(&redo->stamp, stamp + 2); /* SYNC redo-done: pairs with redo-read */
    pk_write_slot(b, sequence, row, side);
    if (sequence + 1 == b->head) {
        b->row = *row;
        b->side = *side;
    }
}

/* The writer's own look at a row: nobody else writes, so there is nothing to wait for. */
static inline void pk_own_row(const pk_bars *b, uint64_t sequence, pk_row *row, pk_side *side) {
    pk_copy_out(row, pk_row_words(&b->segment, sequence), PK_ROW_WORDS);
    if (side) {
        pk_copy_out(side, pk_side_words(&b->segment, sequence), PK_SIDE_WORDS);
    }
}

/* Rows below `first`, ascending; the caller has made sure that they fit and are reserved. */
static inline void pk_prepend(pk_bars *b, pk_row *rows, const pk_side *sides, uint64_t count) {
    uint64_t start = b->first - count;
    for (uint64_t i = count; i-- > 0;) {
        rows[i].index = (int64_t)(start + i);
        pk_write_slot(b, start + i, &rows[i], &sides[i]);
    }
    b->first = start;
    pk_store_release(&b->segment.header->first, start); /* SYNC prepend: pairs with first-read */
    if (count && b->head == start + count) {
        b->row = rows[count - 1];
        b->side = sides[count - 1];
    }
}

/* ---- gap records ------------------------------------------------------------------------------ */

static inline pk_gap *pk_gap_at(const pk_segment *s, uint64_t number) {
    return (pk_gap *)s->table + number % s->table_capacity;
}

static inline uint64_t pk_known_gaps(const pk_segment *s, uint64_t count) {
    return count < s->table_capacity - 1u ? count : s->table_capacity - 1u;
}

/* What the engine writes by itself; a provider's own record of the interval takes its place. */
#define PK_FEED_DOWN "feed down"

/* From the header, where it stands whole, to its place in the table. */
static inline void pk_place_gap(pk_segment *s) {
    pk_header *header = s->header;
    uint64_t words[8], number = pk_load(&header->gap_number);
    pk_copy_out(words, (pk_word *)&header->gap, 8);
    pk_copy_in((pk_word *)pk_gap_at(s, number), words, 8);
    if (number == pk_load(&header->table_count)) {
        pk_store(&header->table_count, number + 1);
    }
    pk_store_release(&header->table_stamp, pk_load(&header->table_stamp) + 1); /* SYNC gap-placed: pairs with gap-read */
}

static inline void pk_write_gap(pk_segment *s, uint64_t number, const uint64_t *words) {
    pk_header *header = s->header;
    atomic_thread_fence(memory_order_release); /* SYNC gap-over: pairs with gap-recheck */
    pk_store(&header->gap_number, number);
    pk_copy_in((pk_word *)&header->gap, words, 8);
    pk_store_release(&header->table_stamp, pk_load(&header->table_stamp) + 1); /* SYNC gap-whole: pairs with gap-read */
    atomic_thread_fence(memory_order_release); /* SYNC gap-over: pairs with gap-recheck */
    pk_place_gap(s);
}

static inline int pk_is_provisional(const pk_gap *gap) {
    const char provisional[40] = PK_FEED_DOWN;
    char cause[40];
    pk_copy_out(cause, gap->cause, 5);
    return !memcmp(cause, provisional, sizeof cause);
}

/* The newest record that starts there, else the newest provisional one that overlaps; `count`
 * if there is none. */
static inline uint64_t pk_find_gap(const pk_segment *s, uint64_t count, int64_t start_ns, int64_t end_ns) {
    uint64_t found = count;
    for (uint64_t i = count; i-- > count - pk_known_gaps(s, count);) {
        const pk_gap *gap = pk_gap_at(s, i);
        int64_t start = (int64_t)pk_load(&gap->start_ns), end = (int64_t)pk_load(&gap->end_ns);
        if (start == start_ns) {
            return i;
        }
        if (found == count && start < end_ns && start_ns < end && pk_is_provisional(gap)) {
            found = i;
        }
    }
    return found;
}

/* A new record, or another end, cause and state for the one that starts there. */
static inline void pk_put_gap(pk_segment *s, int64_t start_ns, int64_t end_ns, const char *cause, int repaired) {
    uint64_t words[8] = {(uint64_t)start_ns, (uint64_t)end_ns, 0, 0, 0, 0, 0, (uint64_t)repaired};
    size_t length = strlen(cause), most = sizeof ((pk_gap *)0)->cause - 1;
    memcpy(words + 2, cause, length < most ? length : most);
    pk_write_gap(s, pk_find_gap(s, pk_load(&s->header->table_count), start_ns, end_ns), words);
}

/* Provisional records of bars that a repaired gap covers: these were repaired too. */
static inline void pk_close_provisional(pk_segment *s, int64_t start_ns, int64_t end_ns) {
    uint64_t count = pk_load(&s->header->table_count), words[8];
    for (uint64_t i = count - pk_known_gaps(s, count); i < count; i++) {
        const pk_gap *gap = pk_gap_at(s, i);
        if (start_ns <= (int64_t)pk_load(&gap->start_ns) && (int64_t)pk_load(&gap->end_ns) <= end_ns &&
            !pk_load(&gap->repaired) && pk_is_provisional(gap)) {
            pk_copy_out(words, (const pk_word *)gap, 8);
            words[7] = 1;
            pk_write_gap(s, i, words);
        }
    }
}

/* Copy the newest records, oldest first, and say how many (gaps: room for table_capacity);
 * PK_BUSY if they do not hold still. */
static inline int pk_read_gaps(const pk_segment *s, pk_gap *gaps, uint64_t *known) {
    const pk_header *header = s->header;
    for (int tries = 0; tries < PK_TRIES; tries++) {
        uint64_t stamp = pk_load_acquire(&header->table_stamp); /* SYNC gap-read: pairs with gap-placed, gap-whole */
        uint64_t count = pk_load(&header->table_count), number = pk_load(&header->gap_number);
        *known = pk_known_gaps(s, count);
        for (uint64_t i = 0; i < *known; i++) {
            int moving = stamp % 2 && number == count - *known + i;
            const pk_gap *gap = moving ? &header->gap : pk_gap_at(s, count - *known + i);
            pk_copy_out(&gaps[i], (const pk_word *)gap, 8);
        }
        atomic_thread_fence(memory_order_acquire); /* SYNC gap-recheck: pairs with gap-over, take-over */
        if (pk_load(&header->table_stamp) == stamp) {
            return PK_OK;
        }
    }
    return PK_BUSY;
}

/* ---- taking over ------------------------------------------------------------------------------ */

/* Can this be the row of that sequence? Sums of times and periods must not overflow. */
static inline int pk_is_row(const pk_row *row, uint64_t sequence, int64_t period) {
    return row->index == (int64_t)sequence && row->time >= 0 &&
           row->time <= INT64_MAX / PK_NS - period && row->time % period == 0 && row->count >= 0 &&
           isfinite(row->open) && isfinite(row->high) && isfinite(row->low) && isfinite(row->close);
}

static inline int pk_is_extent(const pk_bars *b) {
    return b->head >= PK_START && b->head < 2 * PK_START && b->first <= b->head &&
           b->head - b->first <= b->segment.capacity && b->clock < PK_START << 20 && b->period > 0;
}

/* Finish the rewrite that a killed writer had announced. */
static inline int pk_resume_rewrite(pk_bars *b) {
    pk_redo *redo = &b->segment.header->redo;
    uint64_t sequence = pk_load(&redo->sequence), stamp = pk_load(&redo->stamp);
    pk_row row, old_row;
    pk_side side, old_side;
    if (stamp % 2) {
        pk_store(&redo->sequence, 0); /* half written: the slot itself was not yet touched */
        pk_in_order();
        pk_store(&redo->stamp, stamp + 1);
    } else if (sequence >= b->first && sequence < b->head) {
        pk_copy_out(&row, redo->row, PK_ROW_WORDS);
        pk_copy_out(&side, redo->side, PK_SIDE_WORDS);
        if (!pk_is_row(&row, sequence, b->period)) {
            return PK_REFUSED;
        }
        pk_own_row(b, sequence, &old_row, &old_side);
        if (pk_load(&b->segment.stamps[sequence % b->segment.capacity]) % 2 ||
            memcmp(&row, &old_row, sizeof row) || memcmp(&side, &old_side, sizeof side)) {
            pk_write_slot(b, sequence, &row, &side);
        }
    }
    return PK_OK;
}

/* Take over a ring that another writer left, wherever it was interrupted. PK_REFUSED: its
 * numbers cannot be; what is not checked here is never used as a place or a length. */
static inline int pk_resume_bars(pk_bars *b) {
    pk_header *header = b->segment.header;
    pk_row oldest;
    b->head = pk_load(&header->head);
    b->first = pk_load(&header->first);
    b->clock = pk_load(&header->clock) + 1;
    b->period = b->segment.period;
    memset(&b->row, 0, sizeof b->row);
    memset(&b->side, 0, sizeof b->side);
    if (!pk_is_extent(b) || pk_load(&header->table_count) >= PK_START) {
        return PK_REFUSED;
    }
    pk_resume_reserved(&b->segment, b->first, b->head);
    /* All that the one before has stored is told with each store from here on. */
    atomic_thread_fence(memory_order_release); /* SYNC take-over: pairs with gap-recheck, clock-read */
    /* One write may have got its number and no more: that number is never given again. */
    pk_store(&header->clock, b->clock);
    if (pk_resume_rewrite(b)) {
        return PK_REFUSED;
    }
    if (pk_load(&header->table_stamp) % 2) {
        if (pk_load(&header->gap_number) > pk_load(&header->table_count)) {
            return PK_REFUSED;
        }
        pk_place_gap(&b->segment);
    }
    if (b->head == b->first) {
        return PK_OK;
    }
    pk_own_row(b, b->first, &oldest, NULL);
    pk_own_row(b, b->head - 1, &b->row, &b->side);
    uint64_t newest = pk_load(&b->segment.stamps[(b->head - 1) % b->segment.capacity]);
    return pk_is_row(&oldest, b->first, b->period) && pk_is_row(&b->row, b->head - 1, b->period) &&
                   oldest.time <= b->row.time && newest % 2 == 0 && newest <= 2 * b->clock
               ? PK_OK
               : PK_REFUSED;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* Number of the newest finished row write that this reader knows of. */
static inline uint64_t pk_clock(const pk_segment *s) {
    return pk_load_acquire(&s->header->clock); /* SYNC clock-read: pairs with clock, take-over */
}

/* What the feed is doing, no older than the rows that were written in that state. */
static inline uint64_t pk_read_status(const pk_segment *s) {
    return pk_load_acquire(&s->header->status); /* SYNC status-read: pairs with reason-over */
}

/* Where the rows are: 0, or PK_REFUSED for a header that cannot be. */
static inline int pk_extent(const pk_segment *s, uint64_t *first, uint64_t *head) {
    for (int tries = 0; tries < PK_TRIES; tries++) {
        *first = pk_load_acquire(&s->header->first); /* SYNC first-read: pairs with prepend */
        *head = pk_load_acquire(&s->header->head);   /* SYNC head-read: pairs with head */
        if (*head < UINT64_C(1) << 62 && *first <= *head && *head - *first <= s->capacity) {
            return PK_OK;
        }
        if (*head >= UINT64_C(1) << 62 || *first > *head) {
            return PK_REFUSED;
        } /* else rows were appended between the two loads: look again */
    }
    return PK_REFUSED;
}

/* The row from the redo record, while its slot is being written or for ever unfinished. */
static inline int pk_read_redo(const pk_segment *s, uint64_t sequence, pk_row *row) {
    const pk_redo *redo = &s->header->redo;
    uint64_t before = pk_load_acquire(&redo->stamp); /* SYNC redo-read: pairs with redo-done */
    pk_copy_out(row, redo->row, PK_ROW_WORDS);
    atomic_thread_fence(memory_order_acquire); /* SYNC redo-recheck: pairs with redo */
    return before % 2 == 0 && row->index == (int64_t)sequence ? PK_OK : PK_BUSY;
}

/* A consistent copy of one row. PK_LAPPED: it fell off; PK_REFUSED: the segment is damaged. */
static inline int pk_read_row(const pk_segment *s, uint64_t sequence, pk_row *row) {
    const pk_word *stamp = &s->stamps[sequence % s->capacity];
    for (int tries = 0; tries < PK_TRIES; tries++) {
        uint64_t before = pk_load_acquire(stamp); /* SYNC stamp-read: pairs with stamp */
        if (before % 2 == 0) {
            pk_copy_out(row, pk_row_words(s, sequence), PK_ROW_WORDS);
            atomic_thread_fence(memory_order_acquire); /* SYNC slot-recheck: pairs with slot */
            if (pk_load(stamp) == before && row->index == (int64_t)sequence) {
                return PK_OK;
            }
        } else if (pk_read_redo(s, sequence, row) == PK_OK && pk_load(stamp) == before) {
            return PK_OK;
        }
        if (pk_load(&s->header->first) > sequence) {
            return PK_LAPPED;
        }
    }
    return PK_REFUSED;
}

/* Copies of rows [*start, end), which shrink from below where rows fall off meanwhile. */
static inline int pk_read_rows(const pk_segment *s, uint64_t *start, uint64_t end, pk_row *rows) {
    uint64_t from = *start;
    for (uint64_t i = end; i-- > from;) { /* newest first: the oldest may go while we read */
        int status = pk_read_row(s, i, &rows[i - from]);
        if (status == PK_LAPPED) {
            memmove(rows, rows + (i + 1 - from), (end - i - 1) * sizeof *rows);
            *start = i + 1;
            return PK_OK;
        }
        if (status != PK_OK) {
            return status;
        }
    }
    return PK_OK;
}

/* Were rows [start, start + count) left alone since the clock stood at `clock`? */
static inline int pk_intact(const pk_segment *s, uint64_t start, uint64_t count, uint64_t clock) {
    atomic_thread_fence(memory_order_acquire); /* SYNC slot-recheck: pairs with slot */
    for (uint64_t i = 0; i < count; i++) {
        uint64_t stamp = pk_load(&s->stamps[(start + i) % s->capacity]);
        if (stamp % 2 || stamp > 2 * clock) {
            return 0;
        }
    }
    return 1;
}

/* The first of rows [low, high) with time >= `time`; PK_LAPPED: begin again. */
static inline int pk_search(const pk_segment *s, uint64_t low, uint64_t high, int64_t time, uint64_t *found) {
    pk_row row;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int status = pk_read_row(s, middle, &row);
        if (status == PK_LAPPED) {
            low = middle + 1;
        } else if (status != PK_OK) {
            return status;
        } else if (row.time < time) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = low;
    return PK_OK;
}

#endif
