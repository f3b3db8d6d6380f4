/* Ticks of a market into its bars of every period. The rules: docs/bars.md. */
#ifndef PK_FOLD_H
#define PK_FOLD_H

#include "ring.h"
#include "ids.h"
#include "sums.h"
#include "ticks.h"

#define PK_PERIODS 8
#define PK_OPEN_GAPS 32
#define PK_DAY_NS (86400 * PK_NS)

enum { PK_STARTING, PK_LIVE, PK_STALE, PK_RECONNECTING, PK_BACKFILLING, PK_CLOSED, PK_STOPPED };
enum { PK_FROM_TRADE, PK_FROM_BID, PK_FROM_ASK, PK_FROM_MID };
enum { PK_RESUME_NOT, PK_RESUME_LOST, PK_RESUME_CLOSED };
enum {
    PK_N_TICKS, PK_N_LATE, PK_N_INEXACT, PK_N_DUPLICATES, PK_N_REFUSED, PK_N_UNKNOWN,
    PK_N_UNPLACED, PK_N_REVISIONS, PK_N_FLAT, PK_N_GAP, PK_N_GAPS, PK_N_COUNTERS
};

_Static_assert(PK_N_COUNTERS <= PK_COUNTERS, "the header has room for every counter");

typedef struct {
    uint32_t id;
    int periods;
    pk_bars *bars[PK_PERIODS]; /* shortest period first */
    int fresh[PK_PERIODS];     /* nothing was appended to it yet by this writer */
    pk_ticks *ticks;
    pk_ids ids;
    int status, fill_flat, bars_from, resume;
    int64_t live_from_ns;  /* the first step while live */
    int64_t newest_ns;     /* of trades and steps */
    int64_t late_window_ns;
    int64_t last_id, last_time_ns;
    double last_price, bid, ask;
    int64_t gap_start[PK_OPEN_GAPS], gap_end[PK_OPEN_GAPS];
    int gaps;
    uint64_t counters[PK_COUNTERS];
    int quiet; /* recovering: count nothing */
} pk_market;

/* What is folded: a tick's price may be a mid. */
typedef struct {
    int64_t time_ns, id;
    double price, size;
    int64_t count;
} pk_trade;

static inline void pk_count(pk_market *m, int counter) {
    if (!m->quiet) {
        m->counters[counter]++;
        for (int i = 0; i < m->periods; i++) {
            pk_store(&m->bars[i]->segment.header->counters[counter], m->counters[counter]);
        }
    }
}

static inline int64_t pk_bar_time(int64_t second, int64_t period) { return second - second % period; }

/* ---- gaps ------------------------------------------------------------------------------------- */

static inline int pk_in_open_gap(const pk_market *m, int64_t start_ns, int64_t end_ns) {
    for (int i = 0; i < m->gaps; i++) {
        if (m->gap_start[i] < end_ns && start_ns < m->gap_end[i]) {
            return 1;
        }
    }
    return 0;
}

static inline int pk_gap_on_record(const pk_segment *s, int64_t start_ns, int64_t end_ns) {
    uint64_t count = pk_load(&s->header->table_count);
    for (uint64_t i = 0; i < count && i < s->table_capacity - 1u; i++) {
        const pk_gap *gap = pk_gap_at(s, count - 1 - i);
        if ((int64_t)pk_load(&gap->start_ns) < end_ns && start_ns < (int64_t)pk_load(&gap->end_ns)) {
            return 1;
        }
    }
    return 0;
}

/* A gap that nobody has recorded: seconds [start, end) have no rows, or placeholders. */
static inline void pk_note_gap(pk_market *m, pk_bars *b, int64_t start, int64_t end, const char *cause) {
    if (!m->quiet && !pk_gap_on_record(&b->segment, start * PK_NS, end * PK_NS)) {
        pk_put_gap(&b->segment, start * PK_NS, end * PK_NS, cause, 0);
        pk_count(m, PK_N_GAPS);
    }
}

/* ---- one row ---------------------------------------------------------------------------------- */

static inline void pk_set_prices(pk_row *row, double price) {
    row->open = row->high = row->low = row->close = row->wap = price;
}

static inline pk_row pk_flat_row(int64_t time, double price, int64_t flags) {
    pk_row row = {.time = time, .flags = flags};
    pk_set_prices(&row, price);
    return row;
}

/* Add a trade to a row; `exact`: its place among the row's trades is known. */
static inline void pk_add_trade(pk_row *row, pk_side *side, const pk_trade *t, int exact) {
    if (!row->count) {
        memset(side, 0, sizeof *side);
        pk_set_prices(row, t->price);
        row->volume = 0;
        row->flags &= ~(int64_t)PK_FLAT;
        side->open_time = side->close_time = t->time_ns;
        side->open_id = side->close_id = t->id;
    } else {
        row->high = t->price > row->high ? t->price : row->high;
        row->low = t->price < row->low ? t->price : row->low;
        if (exact && (t->time_ns < side->open_time ||
                      (t->time_ns == side->open_time && t->id < side->open_id))) {
            row->open = t->price;
            side->open_time = t->time_ns;
            side->open_id = t->id;
        }
        if (exact && (t->time_ns > side->close_time ||
                      (t->time_ns == side->close_time && t->id >= side->close_id))) {
            row->close = t->price;
            side->close_time = t->time_ns;
            side->close_id = t->id;
        }
    }
    row->count += t->count;
    pk_sum_add(&row->volume, &side->volume_low, t->size);
    pk_sum_add_product(&side->worth, &side->worth_low, t->price, t->size);
    row->wap = row->volume > 0
                   ? pk_sum_ratio(side->worth, side->worth_low, row->volume, side->volume_low)
                   : row->close;
}

/* What a row from history is to go on from: its newest trade counts as older than any to come. */
static inline void pk_prepare_side(pk_side *side, const pk_row *row, int newest) {
    memset(side, 0, sizeof *side);
    side->worth = row->wap * row->volume;
    side->worth_low = pk_product_error(row->wap, row->volume, side->worth);
    side->open_time = INT64_MIN;
    side->close_time = newest ? INT64_MIN : INT64_MAX;
}

/* ---- rows forward ----------------------------------------------------------------------------- */

static inline void pk_append_row(pk_market *m, pk_bars *b, pk_row *row, pk_side *side) {
    side->folded = m->ticks->head;
    pk_append(b, row, side);
}

/* Rows between the newest one and `bar`: flat, placeholders, or none, as the feed's state says. */
static inline void pk_fill(pk_market *m, pk_bars *b, int64_t bar) {
    int64_t next = b->row.time + b->period;
    int64_t missing = (bar - next) / b->period;
    int lost = m->status != PK_LIVE || m->resume;
    int64_t flags = PK_FLAT | (lost ? PK_GAP : 0);
    if (missing <= 0 || m->resume == PK_RESUME_CLOSED || m->status == PK_CLOSED) {
        return;
    }
    if (lost) {
        pk_note_gap(m, b, next, bar, PK_FEED_DOWN);
    }
    if (!m->fill_flat && !(lost && pk_in_open_gap(m, next * PK_NS, bar * PK_NS))) {
        return;
    }
    int64_t most = (int64_t)b->segment.capacity - 1;
    if (missing > most) {
        pk_note_gap(m, b, next, bar - most * b->period, "clock jump");
        missing = most;
    }
    double close = b->row.close;
    for (int64_t time = bar - missing * b->period; time < bar; time += b->period) {
        pk_row row = pk_flat_row(time, close, flags);
        pk_side side = {0};
        pk_append_row(m, b, &row, &side);
        pk_count(m, lost ? PK_N_GAP : PK_N_FLAT);
    }
}

/* ---- rows behind ------------------------------------------------------------------------------ */

/* Find the row of a bar older than the newest. */
static inline int pk_locate(const pk_bars *b, int64_t bar, uint64_t *sequence) {
    pk_row row;
    uint64_t back = (uint64_t)(b->row.time - bar) / (uint64_t)b->period;
    if (back < b->head - b->first) {
        *sequence = b->head - 1 - back;
        pk_own_row(b, *sequence, &row, NULL);
        if (row.time == bar) {
            return 1;
        }
    }
    uint64_t low = b->first, high = b->head;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        pk_own_row(b, middle, &row, NULL);
        if (row.time < bar) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == b->head) {
        return 0;
    }
    pk_own_row(b, low, &row, NULL);
    *sequence = low;
    return row.time == bar;
}

/* The flat rows that follow a row take over its close. */
static inline void pk_rebase(pk_market *m, pk_bars *b, uint64_t sequence, double close) {
    pk_row row;
    pk_side side;
    while (++sequence < b->head) {
        pk_own_row(b, sequence, &row, &side);
        if (row.count || row.close == close) {
            break;
        }
        pk_set_prices(&row, close);
        row.flags |= sequence + 1 < b->head ? PK_REVISED : 0;
        side.folded = m->ticks->head;
        pk_rewrite(b, sequence, &row, &side);
    }
}

/* A trade into a row that exists. 1: its order keys were too old to be trusted. */
static inline int pk_revise(pk_market *m, pk_bars *b, uint64_t sequence, const pk_trade *t) {
    pk_row row = b->row;
    pk_side side = b->side;
    int ended = sequence + 1 < b->head, inexact = 0;
    if (ended) {
        pk_own_row(b, sequence, &row, &side);
        int64_t start_ns = row.time * PK_NS, end_ns = (row.time + b->period) * PK_NS;
        int repair = m->gaps && pk_in_open_gap(m, start_ns, end_ns);
        inexact = !repair && m->newest_ns - end_ns > m->late_window_ns;
        row.flags |= PK_REVISED;
        if (repair) {
            row.flags = (row.flags | PK_REPAIRED) & ~(int64_t)PK_GAP;
        }
    }
    double close = row.close;
    pk_add_trade(&row, &side, t, !inexact);
    side.folded = m->ticks->head;
    pk_rewrite(b, sequence, &row, &side);
    if (ended && row.close != close) {
        pk_rebase(m, b, sequence, row.close);
    }
    return inexact;
}

/* ---- ticks ------------------------------------------------------------------------------------ */

enum { PK_PLACED = 0, PK_PLACED_LATE, PK_PLACED_INEXACT, PK_PLACED_NOT };

static inline int pk_fold_ring(pk_market *m, int place, const pk_trade *t) {
    pk_bars *b = m->bars[place];
    int64_t bar = pk_bar_time(t->time_ns / PK_NS, b->period);
    int empty = b->head == b->first;
    if (empty || bar > b->row.time) {
        pk_row row = {.time = bar};
        pk_side side = {0};
        if (!empty) {
            pk_fill(m, b, bar);
        }
        if (m->fresh[place] && t->time_ns > bar * PK_NS && m->live_from_ns > bar * PK_NS) {
            row.flags = PK_PARTIAL;
        }
        m->fresh[place] = 0;
        pk_add_trade(&row, &side, t, 1);
        pk_append_row(m, b, &row, &side);
        return PK_PLACED;
    }
    if (bar == b->row.time) {
        pk_revise(m, b, b->head - 1, t);
        return PK_PLACED;
    }
    uint64_t sequence;
    if (!pk_locate(b, bar, &sequence)) {
        return PK_PLACED_NOT;
    }
    return pk_revise(m, b, sequence, t) ? PK_PLACED_INEXACT : PK_PLACED_LATE;
}

static inline void pk_fold(pk_market *m, const pk_trade *t) {
    pk_bars *shortest = m->bars[0];
    int64_t bar = pk_bar_time(t->time_ns / PK_NS, shortest->period);
    int late = shortest->head > shortest->first && bar < shortest->row.time;
    int newer = shortest->head == shortest->first || bar > shortest->row.time;
    int inexact = 0, unplaced = 0;
    m->newest_ns = t->time_ns > m->newest_ns ? t->time_ns : m->newest_ns;
    for (int i = 0; i < m->periods; i++) {
        int how = pk_fold_ring(m, i, t);
        inexact |= how == PK_PLACED_INEXACT;
        unplaced |= how == PK_PLACED_NOT;
        if (!i && (how == PK_PLACED_LATE || how == PK_PLACED_INEXACT)) {
            pk_count(m, PK_N_REVISIONS);
        }
    }
    if (late) {
        pk_count(m, PK_N_LATE);
    }
    if (inexact) {
        pk_count(m, PK_N_INEXACT);
    }
    if (unplaced) {
        pk_count(m, PK_N_UNPLACED);
    }
    if (newer && m->status == PK_LIVE) {
        m->resume = PK_RESUME_NOT;
    }
}

static inline int pk_is_trade(int type) { return type >= PK_TRADE && type <= PK_DARK_TRADE; }

/* Does this tick make bars of the market, and with which price? */
static inline int pk_makes_bar(pk_market *m, const pk_tick *tick, pk_trade *t) {
    t->time_ns = tick->time_ns;
    t->id = tick->id;
    t->price = tick->price;
    t->size = tick->size;
    t->count = tick->count;
    if (tick->type == PK_BID) {
        m->bid = tick->price;
    } else if (tick->type == PK_ASK) {
        m->ask = tick->price;
    }
    switch (m->bars_from) {
    case PK_FROM_TRADE:
        return tick->type == PK_TRADE || tick->type == PK_UTRADE;
    case PK_FROM_BID:
        return tick->type == PK_BID;
    case PK_FROM_ASK:
        return tick->type == PK_ASK;
    default:
        t->price = m->bid + (m->ask - m->bid) / 2;
        t->size = 0;
        return (tick->type == PK_BID || tick->type == PK_ASK) && m->bid > 0 && m->ask > 0;
    }
}

/* Ring bytes for what a tick may append; all that can fail happens here. 0 or an errno. */
static inline int pk_make_room(pk_market *m, int64_t newest_ns, uint64_t ticks) {
    pk_ticks *ring = m->ticks;
    uint64_t count = ticks < ring->segment.capacity ? ticks : ring->segment.capacity;
    int error = pk_reserve(&ring->segment, ring->head, ring->head + count);
    for (int i = 0; i < m->periods && !error; i++) {
        pk_bars *b = m->bars[i];
        int64_t bar = pk_bar_time(newest_ns / PK_NS, b->period);
        uint64_t rows = 1;
        if (b->head > b->first) {
            rows = bar > b->row.time ? (uint64_t)((bar - b->row.time) / b->period) : 0;
            if (!m->fill_flat && !m->gaps && rows > ticks) {
                rows = ticks;
            }
        }
        rows = rows < b->segment.capacity ? rows : b->segment.capacity;
        error = rows ? pk_reserve(&b->segment, b->head, b->head + rows) : 0;
    }
    return error;
}

/* Take one tick that was found good and has room. 1 if taken, 0 if its id was seen before. */
static inline int pk_take(pk_market *m, pk_tick *tick) {
    pk_trade trade;
    if (pk_is_trade(tick->type)) {
        if (tick->id) {
            if (pk_ids_has(&m->ids, tick->id)) {
                pk_count(m, PK_N_DUPLICATES);
                return 0;
            }
            pk_ids_add(&m->ids, tick->id);
        }
        if (tick->time_ns >= m->last_time_ns) {
            m->last_time_ns = tick->time_ns;
            m->last_id = tick->id;
            m->last_price = tick->price;
        }
    }
    tick->market = m->id;
    pk_publish_tick(m->ticks, tick);
    if (pk_makes_bar(m, tick, &trade)) {
        pk_fold(m, &trade);
    }
    pk_count(m, PK_N_TICKS);
    return 1;
}

#endif
