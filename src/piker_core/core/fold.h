/* Trades of a market into its bars of every period. The rules: docs/bars.md. */
#ifndef PK_FOLD_H
#define PK_FOLD_H

#include "ring.h"
#include "ids.h"
#include "sessions.h"
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
    int status, fill_flat, bars_from, resume; /* status: what the feed said */
    char reason[PK_REASON];
    pk_sessions sessions;
    int closed; /* by its sessions, when the clock last looked */
    int64_t skipped_s; /* before that second the feed had said closed: no rows */
    int64_t live_from_ns;  /* from when on all trades are told, INT64_MAX: not known */
    int64_t told_until_ns; /* before the loss they were told, as its first record says; INT64_MIN: none does,
                            * INT64_MAX: none does yet */
    int64_t early_from_ns, early_until_ns; /* while there was no row yet it was live, then closed; 0: it was not */
    int64_t told_from_ns;  /* while there was no row yet: live_from_ns before the loss */
    int64_t newest_ns;     /* of trades and steps */
    int64_t late_window_ns;
    int64_t last_id, last_time_ns;
    double last_price, bid, ask;
    int64_t gap_start[PK_OPEN_GAPS], gap_end[PK_OPEN_GAPS];
    int gaps;
    uint64_t folded; /* its ticks below this sequence are in all rows that are published */
    uint64_t unsettled[PK_PERIODS]; /* a row whose flat followers may have another close; 0: none */
    int touched[PK_PERIODS];        /* they are REVISED, even if they get the close they have */
    uint64_t counters[PK_COUNTERS];
    int quiet; /* recovering: count nothing */
} pk_market;

/* What is folded: a tick's price may be a mid. `worth` + `worth_low` is price * size. */
typedef struct {
    int64_t time_ns, id;
    double price, size, worth, worth_low;
    int64_t count;
} pk_trade;

static inline void pk_set_worth(pk_trade *t) {
    t->worth = t->price * t->size;
    t->worth_low = pk_product_error(t->price, t->size, t->worth);
}

static inline void pk_count(pk_market *m, int counter) {
    if (!m->quiet) {
        m->counters[counter]++;
        for (int i = 0; i < m->periods; i++) {
            pk_store(&m->bars[i]->segment.header->counters[counter], m->counters[counter]);
        }
    }
}

/* ---- gaps ------------------------------------------------------------------------------------- */

static inline int pk_in_open_gap(const pk_market *m, int64_t start_ns, int64_t end_ns) {
    for (int i = 0; i < m->gaps; i++) {
        if (m->gap_start[i] < end_ns && start_ns < m->gap_end[i]) {
            return 1;
        }
    }
    return 0;
}

/* The first bar from `start` on that no record touches; `end` if there is none before it. */
static inline int64_t pk_off_record(const pk_segment *s, int64_t start, int64_t end, int64_t period) {
    uint64_t count = pk_load(&s->header->table_count);
    int again = 1;
    while (again && start < end) {
        again = 0;
        for (uint64_t i = 0; i < count && i < s->table_capacity - 1u; i++) {
            const pk_gap *gap = pk_gap_at(s, count - 1 - i);
            int64_t gap_start = (int64_t)pk_load(&gap->start_ns), gap_end = (int64_t)pk_load(&gap->end_ns);
            if (gap_start < (start + period) * PK_NS && start * PK_NS < gap_end) {
                start = pk_bar_time((gap_end - 1) / PK_NS, period) + period;
                again = 1;
            }
        }
    }
    return start < end ? start : end;
}

/* The first bar that a record touches after bar `start`, which none does; at most `end`. */
static inline int64_t pk_on_record(const pk_segment *s, int64_t start, int64_t end, int64_t period) {
    uint64_t count = pk_load(&s->header->table_count);
    for (uint64_t i = 0; i < count && i < s->table_capacity - 1u; i++) {
        int64_t gap_start = (int64_t)pk_load(&pk_gap_at(s, count - 1 - i)->start_ns) / PK_NS;
        if (gap_start > start && pk_bar_time(gap_start, period) < end) {
            end = pk_bar_time(gap_start, period);
        }
    }
    return end;
}

/* Bars [start, end) are missing: records of what of them no record touches, in this ring or
 * in all rings from this one on. */
static inline void pk_note_gap(pk_market *m, int place, int most, int64_t start, int64_t end, const char *cause) {
    const pk_segment *s = &m->bars[place]->segment;
    int64_t period = m->bars[place]->period;
    while ((start = pk_off_record(s, start, end, period)) < end) {
        int64_t next = pk_on_record(s, start, end, period);
        for (int i = place; i < most; i++) {
            pk_put_gap(&m->bars[i]->segment, start * PK_NS, next * PK_NS, cause, 0);
        }
        pk_count(m, PK_N_GAPS);
        start = next;
    }
}

/* The same for each run of open time in them: what was closed is not lost. */
static inline void pk_note_gaps(pk_market *m, int place, int most, int64_t start, int64_t end, const char *cause) {
    const pk_sessions *s = &m->sessions;
    int64_t period = m->bars[place]->period;
    for (start = pk_open_bar_from(s, start, end, period); start < end;) {
        int64_t next = pk_run_end(s, start, end, period);
        pk_note_gap(m, place, most, start, next, cause);
        start = pk_open_bar_from(s, next, end, period);
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
    if (!row->count && !(row->volume > 0)) { /* a venue that does not count gives volume alone */
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
    pk_sum_add(&side->worth, &side->worth_low, t->worth);
    pk_sum_add(&side->worth, &side->worth_low, t->worth_low);
    row->wap = row->volume > 0
                   ? pk_sum_ratio(side->worth, side->worth_low, row->volume, side->volume_low)
                   : row->close;
    if (!(row->wap >= row->low && row->wap <= row->high)) { /* a sum that left a double's range */
        row->wap = row->close;
    }
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

/* `folded`: the market's ticks below it are in this ring once the row is. */
static inline void pk_append_row(pk_bars *b, pk_row *row, pk_side *side, uint64_t folded) {
    side->folded = folded;
    pk_append(b, row, side);
}

/* Of the bars [next, bar) those from this one on are lost. */
static inline int64_t pk_lost_from(const pk_market *m, int64_t next, int64_t bar, int64_t period) {
    if (m->told_until_ns <= 0 || m->told_until_ns == INT64_MAX) {
        return next;
    }
    int64_t told = pk_bar_time(m->told_until_ns / PK_NS, period);
    return told < next ? next : told < bar ? told : bar;
}

/* And of those the ones before this one. */
static inline int64_t pk_lost_until(const pk_market *m, int64_t next, int64_t bar, int64_t period) {
    if (m->resume == PK_RESUME_CLOSED) {
        return next;
    }
    if (m->status != PK_LIVE) {
        return bar;
    }
    if (m->resume == PK_RESUME_NOT) {
        return next;
    }
    int64_t known = pk_bar_time(m->live_from_ns / PK_NS, period);
    if (known >= bar) {
        return bar;
    }
    if (pk_first_open(&m->sessions, known * PK_NS, (known + period) * PK_NS) < m->live_from_ns) {
        known += period;
    }
    return known < next ? next : known;
}

/* Of the bars from `next` on there is a row for every one, traded or not, from this one on; after
 * the feed's `closed` from where it says that it is live since; INT64_MAX: from none. */
static inline int64_t pk_filled_from(const pk_market *m, int64_t next, int64_t period) {
    int known = m->resume != PK_RESUME_CLOSED || (m->status == PK_LIVE && m->live_from_ns < INT64_MAX);
    if (!m->fill_flat || !known) {
        return INT64_MAX;
    }
    int64_t since = m->resume == PK_RESUME_CLOSED ? pk_bar_time(m->live_from_ns / PK_NS, period) : next;
    return since < next ? next : since;
}

/* Rows between the newest one and `bar`: flat, placeholders, or none, as the feed's state says;
 * none for bars without open time. */
static inline void pk_fill(pk_market *m, int place, int64_t bar) {
    pk_bars *b = m->bars[place];
    int64_t next = b->row.time + b->period, most = (int64_t)b->segment.capacity - 1;
    int64_t told = pk_bar_time(m->skipped_s + b->period - 1, b->period);
    next = told > next ? told : next;
    if (bar <= next) {
        return;
    }
    int64_t lost = pk_lost_from(m, next, bar, b->period), known = pk_lost_until(m, next, bar, b->period);
    int64_t filled = pk_filled_from(m, next, b->period);
    if (lost < known) { /* what the shortest ring misses is for all */
        pk_note_gaps(m, place, place ? place + 1 : m->periods, lost, known, PK_FEED_DOWN);
    }
    if (filled >= bar && !m->gaps) {
        return;
    }
    if ((bar - next) / b->period > most) {
        int64_t newest = pk_newest_open_bars(&m->sessions, next, bar, b->period, most);
        if (filled < newest) {
            pk_note_gaps(m, place, place + 1, filled, newest, "clock jump");
        }
        next = newest;
    }
    double close = b->row.close;
    for (int64_t time = next; (time = pk_open_bar_from(&m->sessions, time, bar, b->period)) < bar; time += b->period) {
        int open = pk_in_open_gap(m, time * PK_NS, (time + b->period) * PK_NS);
        int gone = open || (time >= lost && time < known);
        if (time >= filled || open) {
            pk_row row = pk_flat_row(time, close, PK_FLAT | (gone ? PK_GAP : 0));
            pk_side side = {0};
            pk_append_row(b, &row, &side, m->folded);
            pk_count(m, gone ? PK_N_GAP : PK_N_FLAT);
        }
    }
}

/* PARTIAL for a bar that begins before all its trades are told: the first after a start or a loss. */
static inline int64_t pk_partial(const pk_market *m, int place, int64_t bar) {
    int first = m->fresh[place] || (m->status == PK_LIVE && m->resume == PK_RESUME_LOST);
    int64_t start_ns = bar * PK_NS, end_ns = (bar + m->bars[place]->period) * PK_NS;
    int64_t open_ns = first ? pk_first_open(&m->sessions, start_ns, end_ns) : 0;
    return first && m->live_from_ns > (open_ns < end_ns ? open_ns : start_ns) ? PK_PARTIAL : 0;
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

/* The flat rows between a row and row `end` take over its close; all of them as soon as one
 * has another, for in a run they are alike. 1: nothing stopped it before `end`. */
static inline int pk_rebase(pk_market *m, pk_bars *b, uint64_t sequence, uint64_t end, int touched) {
    pk_row row;
    pk_side side;
    pk_own_row(b, sequence, &row, NULL);
    double close = row.close;
    while (++sequence < end) {
        pk_own_row(b, sequence, &row, &side);
        if (!(row.flags & PK_FLAT) || (row.close == close && !touched)) {
            return 0;
        }
        pk_set_prices(&row, close);
        row.flags |= sequence + 1 < b->head ? PK_REVISED : 0;
        side.folded = m->folded;
        pk_rewrite(b, sequence, &row, &side);
    }
    return 1;
}

/* Late trades mostly come in ascending order, a batch at a time. So the flat rows after one
 * are put right when the next is known, up to its row, and not each time up to the head.
 * 1: row `end` and those after it would have been changed too. */
static inline int pk_settle(pk_market *m, int place, uint64_t end) {
    pk_bars *b = m->bars[place];
    uint64_t sequence = m->unsettled[place];
    int touched = m->touched[place];
    m->unsettled[place] = 0;
    m->touched[place] = 0;
    if (!pk_rebase(m, b, sequence, end, touched) || end == b->head) {
        return 0;
    }
    pk_row from, row;
    pk_own_row(b, sequence, &from, NULL);
    pk_own_row(b, end, &row, NULL);
    return row.flags & PK_FLAT && (touched || row.close != from.close);
}

static inline void pk_settle_all(pk_market *m) {
    for (int i = 0; i < m->periods; i++) {
        if (m->unsettled[i]) {
            pk_settle(m, i, m->bars[i]->head);
        }
    }
}

/* A trade into the newest row. */
static inline void pk_update(pk_market *m, pk_bars *b, const pk_trade *t) {
    pk_row row = b->row;
    pk_side side = b->side;
    pk_add_trade(&row, &side, t, 1);
    side.folded = m->folded + 1;
    pk_rewrite(b, b->head - 1, &row, &side);
}

/* A trade into an older row. 1: its order keys were too old to be trusted. */
static inline int pk_revise(pk_market *m, int place, uint64_t sequence, const pk_trade *t) {
    pk_bars *b = m->bars[place];
    pk_row row, next;
    pk_side side;
    int touched = 0;
    if (m->unsettled[place]) {
        touched = pk_settle(m, place, sequence > m->unsettled[place] ? sequence : b->head);
    }
    pk_own_row(b, sequence, &row, &side);
    int64_t end_ns = (row.time + b->period) * PK_NS;
    int inexact = m->newest_ns - end_ns > m->late_window_ns && !pk_in_open_gap(m, row.time * PK_NS, end_ns);
    double close = row.close;
    row.flags |= PK_REVISED;
    pk_add_trade(&row, &side, t, !inexact);
    side.folded = m->folded + 1;
    pk_rewrite(b, sequence, &row, &side);
    pk_own_row(b, sequence + 1, &next, NULL);
    if (next.flags & PK_FLAT && (row.close != close || touched)) {
        m->unsettled[place] = sequence;
        m->touched[place] = touched;
        if (next.flags & PK_BACKFILLED) { /* history's flat rows need not be alike */
            pk_settle(m, place, b->head);
        }
    }
    return inexact;
}

/* ---- trades ----------------------------------------------------------------------------------- */

enum { PK_PLACED = 0, PK_PLACED_LATE, PK_PLACED_INEXACT, PK_PLACED_NOT };

/* A trade that opens a bar. */
static inline void pk_open_bar(pk_market *m, int place, const pk_trade *t) {
    pk_bars *b = m->bars[place];
    int64_t bar = pk_bar_time(t->time_ns / PK_NS, b->period);
    if (b->head > b->first) {
        pk_fill(m, place, bar);
    }
    pk_row row = {.time = bar, .flags = t->time_ns > bar * PK_NS ? pk_partial(m, place, bar) : 0};
    pk_side side = {0};
    m->fresh[place] = 0;
    pk_add_trade(&row, &side, t, 1);
    pk_append_row(b, &row, &side, m->folded + 1);
}

static inline int pk_fold_ring(pk_market *m, int place, const pk_trade *t) {
    pk_bars *b = m->bars[place];
    int64_t past = t->time_ns / PK_NS - b->row.time; /* the newest row's open */
    uint64_t sequence;
    if (b->head > b->first && past < 0) {
        if (!pk_locate(b, pk_bar_time(t->time_ns / PK_NS, b->period), &sequence)) {
            return PK_PLACED_NOT;
        }
        return pk_revise(m, place, sequence, t) ? PK_PLACED_INEXACT : PK_PLACED_LATE;
    }
    if (m->unsettled[place]) {
        pk_settle(m, place, b->head);
    }
    if (b->head > b->first && past < b->period) {
        pk_update(m, b, t);
    } else {
        pk_open_bar(m, place, t);
    }
    return PK_PLACED;
}

/* What was lost before the first row after it is known: the loss is over, or the session. */
static inline void pk_resumed(pk_market *m) {
    if (m->status == PK_LIVE) {
        m->resume = PK_RESUME_NOT;
    } else if (m->status == PK_CLOSED) {
        m->resume = PK_RESUME_CLOSED;
    }
}

static inline void pk_fold(pk_market *m, pk_trade *t) {
    const pk_bars *shortest = m->bars[0];
    int64_t past = t->time_ns / PK_NS - shortest->row.time;
    int empty = shortest->head == shortest->first;
    int late = !empty && past < 0, newer = empty || past >= shortest->period;
    int inexact = 0, unplaced = 0;
    m->newest_ns = t->time_ns > m->newest_ns ? t->time_ns : m->newest_ns;
    pk_set_worth(t);
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
    if (newer) {
        pk_resumed(m);
    }
}

#endif
