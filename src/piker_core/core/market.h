/* A market's ticks, clock, status and gaps: what is folded, which rows exist. The rules:
 * docs/bars.md. */
#ifndef PK_MARKET_H
#define PK_MARKET_H

#include "fold.h"

/* ---- ticks ------------------------------------------------------------------------------------ */

static inline int pk_is_trade(int type) { return type >= PK_TRADE && type <= PK_DARK_TRADE; }

static inline int pk_may_make_bar(const pk_market *m, int type) {
    switch (m->bars_from) {
    case PK_FROM_TRADE:
        return type == PK_TRADE || type == PK_UTRADE;
    case PK_FROM_BID:
        return type == PK_BID;
    case PK_FROM_ASK:
        return type == PK_ASK;
    default:
        return type == PK_BID || type == PK_ASK;
    }
}

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
    if (m->bars_from == PK_FROM_MID) {
        t->price = m->bid + (m->ask - m->bid) / 2;
        t->size = 0;
        if (!(m->bid > 0 && m->ask > 0)) {
            return 0;
        }
    }
    return pk_may_make_bar(m, tick->type);
}

/* Ring bytes for ticks, and for rows from the bar of `oldest_ns` to that of `newest_ns` or from
 * the newest row on; all that can fail happens here. 0 or an errno. */
static inline int pk_make_room_since(pk_market *m, int64_t oldest_ns, int64_t newest_ns, uint64_t ticks) {
    pk_ticks *ring = m->ticks;
    uint64_t most = ticks < ring->segment.capacity ? ticks : ring->segment.capacity;
    int error = pk_reserve(&ring->segment, ring->head, ring->head + most);
    for (int i = 0; i < m->periods && !error; i++) {
        pk_bars *b = m->bars[i];
        int empty = b->head == b->first;
        int64_t second = newest_ns / PK_NS;
        int64_t before = empty ? pk_bar_time(oldest_ns / PK_NS, b->period) - b->period : b->row.time;
        if (second >= before + b->period) {
            int64_t bar = pk_bar_time(second, b->period);
            uint64_t rows = (uint64_t)((bar - before) / b->period);
            if (m->sessions.spans) { /* and a row for each trade out of hours */
                uint64_t open = (uint64_t)pk_open_bars(&m->sessions, before + b->period, bar, b->period) + (ticks ? ticks : 1);
                rows = open < rows ? open : rows;
            }
            int64_t filled = m->gaps ? before : pk_filled_from(m, before + b->period, b->period);
            uint64_t flat = filled <= bar ? (uint64_t)((bar - filled) / b->period) : 0;
            rows = flat + ticks + 1 < rows ? flat + ticks + 1 : rows; /* one for each, and the clock's */
            rows = rows < b->segment.capacity ? rows : b->segment.capacity;
            error = pk_reserve(&b->segment, b->head, b->head + rows);
        }
    }
    return error;
}

static inline int pk_make_room(pk_market *m, int64_t newest_ns, uint64_t ticks) {
    return pk_make_room_since(m, newest_ns, newest_ns, ticks);
}

/* The newest trade in venue order. */
static inline void pk_note_last(pk_market *m, const pk_tick *tick) {
    if (tick->time_ns > m->last_time_ns ||
        (tick->time_ns == m->last_time_ns && tick->id >= m->last_id)) {
        m->last_time_ns = tick->time_ns;
        m->last_id = tick->id;
        m->last_price = tick->price;
    }
}

/* Take one tick of a batch. 1 if taken, 0 if its id was seen before. */
static inline int pk_take_next(pk_market *m, pk_tick *tick) {
    pk_trade trade;
    if (pk_is_trade(tick->type)) {
        if (tick->id) {
            if (pk_ids_has(&m->ids, tick->id)) {
                pk_count(m, PK_N_DUPLICATES);
                return 0;
            }
            pk_ids_add(&m->ids, tick->id);
        }
        pk_note_last(m, tick);
    }
    int folds = pk_makes_bar(m, tick, &trade);
    if (folds && m->resume != PK_RESUME_NOT) { /* a writer that goes on with this tick will not know */
        for (int i = 0; i < m->periods; i++) {
            if (m->bars[i]->head > m->bars[i]->first) {
                pk_fill(m, i, pk_bar_time(trade.time_ns / PK_NS, m->bars[i]->period));
            }
        }
    }
    tick->market = m->id;
    m->folded = m->ticks->head;
    pk_publish_tick(m->ticks, tick);
    if (folds) {
        pk_fold(m, &trade);
    }
    m->folded = m->ticks->head;
    pk_count(m, PK_N_TICKS);
    return 1;
}

/* Take one tick that was found good and has room. 1 if taken, 0 if its id was seen before. */
static inline int pk_take(pk_market *m, pk_tick *tick) {
    int taken = pk_take_next(m, tick);
    pk_settle_all(m);
    return taken;
}

/* Take ticks that were found good; how many of them in *taken. 0, or an errno and nothing changes. */
static inline int pk_take_ticks(pk_market *m, pk_tick *ticks, uint64_t count, uint64_t *taken) {
    int64_t oldest_ns = INT64_MAX, newest_ns = 0; /* of those that make bars */
    for (uint64_t i = 0; i < count; i++) {
        if (pk_may_make_bar(m, ticks[i].type)) {
            oldest_ns = ticks[i].time_ns < oldest_ns ? ticks[i].time_ns : oldest_ns;
            newest_ns = ticks[i].time_ns > newest_ns ? ticks[i].time_ns : newest_ns;
        }
    }
    int error = pk_make_room_since(m, oldest_ns, newest_ns, count);
    *taken = 0;
    for (uint64_t i = 0; i < count && !error; i++) {
        *taken += (uint64_t)pk_take_next(m, &ticks[i]);
    }
    pk_settle_all(m);
    return error;
}

/* ---- clock and status ------------------------------------------------------------------------- */

/* The clock's row of a bar, once it has open time, with the rows before it that are missing. */
static inline void pk_step_ring(pk_market *m, int place, int64_t now_ns) {
    pk_bars *b = m->bars[place];
    int64_t second = now_ns / PK_NS;
    if (b->head == b->first || second - b->row.time < b->period) {
        return;
    }
    int64_t bar = pk_bar_time(second, b->period);
    pk_fill(m, place, bar);
    if (m->fill_flat && pk_first_open(&m->sessions, bar * PK_NS, now_ns + 1) <= now_ns) {
        pk_row row = pk_flat_row(bar, b->row.close, PK_FLAT | pk_partial(m, place, bar));
        pk_side side = {0};
        pk_append_row(b, &row, &side, m->folded);
        pk_count(m, PK_N_FLAT);
        m->fresh[place] = 0;
    }
}

static inline int pk_step_rows(pk_market *m, int64_t now_ns) {
    const pk_bars *shortest = m->bars[0];
    int64_t second = now_ns / PK_NS;
    if (m->live_from_ns == INT64_MAX) {
        m->live_from_ns = second * PK_NS;
    }
    m->newest_ns = now_ns > m->newest_ns ? now_ns : m->newest_ns;
    if (!m->fill_flat && !m->resume && !m->gaps) {
        return 0;
    }
    int error = pk_make_room(m, now_ns, 0);
    if (error) {
        return error;
    }
    int newer = shortest->head > shortest->first && second - shortest->row.time >= shortest->period;
    for (int i = 0; i < m->periods; i++) {
        pk_step_ring(m, i, now_ns);
    }
    if (newer && m->resume == PK_RESUME_CLOSED && !pk_is_open(&m->sessions, now_ns)) {
        m->skipped_s = second + 1; /* no row says so yet */
    }
    if (newer) {
        pk_resumed(m);
    }
    return 0;
}

/* Tell readers. The reason first: who sees the status finds its reason, or a newer one, and
 * by the fence in there what was written before. */
static inline void pk_tell_status(pk_segment *s, int status, const char *reason) {
    char old[PK_REASON];
    uint64_t of;
    if (pk_read_reason(s, &of, old) || of != (uint64_t)status || strcmp(old, reason)) {
        pk_write_reason(s, (uint64_t)status, reason, strlen(reason));
    }
    pk_store(&s->header->status, (uint64_t)status);
}

/* What readers see: without a session a market is closed, whatever its feed does meanwhile. */
static inline int pk_shown_status(const pk_market *m) {
    return m->closed && m->status != PK_STARTING && m->status != PK_STOPPED ? PK_CLOSED : m->status;
}

static inline void pk_show_status(pk_market *m) {
    int status = pk_shown_status(m);
    for (int i = 0; i < m->periods; i++) {
        pk_segment *s = &m->bars[i]->segment;
        pk_store(&s->header->feed_status, (uint64_t)m->status);
        pk_tell_status(s, status, status == m->status ? m->reason : "");
    }
}

static inline void pk_set_closed(pk_market *m, int closed) {
    if (m->closed != closed) {
        m->closed = closed;
        pk_show_status(m);
    }
}

/* The forming row of now's second, and what is missing before it; the session's state. Readers
 * take the newest row of a closed market for finished: it closes after its rows, and opens
 * before. 0 or an errno. */
static inline int pk_step(pk_market *m, int64_t now_ns) {
    int open = pk_is_open(&m->sessions, now_ns), error = 0;
    if (open) {
        pk_set_closed(m, 0);
    }
    if (m->status == PK_LIVE) {
        error = pk_step_rows(m, now_ns);
    }
    if (!open) {
        pk_set_closed(m, 1);
    }
    return error;
}

/* There is no row yet, and the market is not live any more: when it was is kept until history
 * comes. Of what was kept before, and that is forgotten now, there is a record. */
static inline void pk_keep_early(pk_market *m, int status) {
    m->told_from_ns = m->live_from_ns;
    if (status == PK_CLOSED && m->live_from_ns <= m->newest_ns) {
        int64_t period = m->bars[0]->period;
        if (m->early_until_ns) {
            pk_note_gaps(m, 0, m->periods, pk_bar_time(m->early_from_ns / PK_NS, period),
                         pk_bar_time(m->early_until_ns / PK_NS, period) + period, PK_FEED_DOWN);
        }
        m->early_from_ns = m->live_from_ns;
        m->early_until_ns = m->newest_ns;
    }
}

/* `resume`: what the seconds between the newest row and the next one will have been. A loss
 * that is no open gap yet is not over because the session is, unless it ended in that row. */
static inline void pk_set_status(pk_market *m, int status, const char *reason) {
    const pk_bars *shortest = m->bars[0];
    int empty = shortest->head == shortest->first;
    if (empty && m->status == PK_LIVE && status != PK_LIVE) {
        pk_keep_early(m, status);
    }
    if (status == PK_CLOSED) {
        int64_t end_ns = empty ? INT64_MAX : (shortest->row.time + shortest->period) * PK_NS;
        int told = !empty && m->status == PK_LIVE && m->live_from_ns <= end_ns;
        if (m->resume != PK_RESUME_LOST || told || pk_in_open_gap(m, end_ns, INT64_MAX)) {
            m->resume = PK_RESUME_CLOSED;
            m->live_from_ns = empty ? m->live_from_ns : INT64_MAX;
        }
    } else if (status == PK_LIVE) {
        m->resume = empty ? PK_RESUME_NOT : m->resume;
        m->told_until_ns = m->told_until_ns == INT64_MAX ? INT64_MIN : m->told_until_ns;
    } else if (m->status == PK_LIVE) {
        m->told_until_ns = m->resume == PK_RESUME_NOT ? INT64_MAX : m->told_until_ns;
        m->resume = PK_RESUME_LOST;
        m->live_from_ns = empty ? m->live_from_ns : INT64_MAX;
    }
    m->status = status;
    snprintf(m->reason, sizeof m->reason, "%s", reason);
    pk_show_status(m);
}

/* Rows of the time in which the market was live, before it was closed. 0 or an errno. */
static inline int pk_make_early(pk_market *m) {
    int status = m->status, resume = m->resume;
    int64_t live_from_ns = status == PK_LIVE ? m->live_from_ns : INT64_MAX;
    m->status = PK_LIVE;
    m->resume = PK_RESUME_LOST;
    m->live_from_ns = m->early_from_ns;
    int error = pk_step_rows(m, m->early_until_ns);
    if (live_from_ns < INT64_MAX) {
        m->skipped_s = live_from_ns / PK_NS;
    }
    m->status = status;
    m->resume = resume;
    m->live_from_ns = live_from_ns;
    m->early_until_ns = 0;
    return error;
}

/* History in empty rings may end before the feed began: what lies between is lost. The rows since
 * then are made at once, as far as the clock has come: a feed that is down before its next step
 * would not know any more that it was live. 0 or an errno. */
static inline int pk_begin_with_history(pk_market *m, int64_t now_ns) {
    int error = 0, early = m->early_until_ns && m->bars[0]->head > m->bars[0]->first;
    if (early) {
        error = pk_make_early(m);
    } else if (m->resume == PK_RESUME_NOT && m->fresh[0] && m->live_from_ns < INT64_MAX) {
        m->resume = PK_RESUME_LOST;
    }
    if (error) {
        return error;
    }
    return m->live_from_ns <= now_ns ? pk_step(m, now_ns) : 0;
}

/* ---- gaps ------------------------------------------------------------------------------------- */

/* Does a record of another loss, not made good, touch the row? What the engine noted by
 * itself counts as the loss that is being recorded. */
static inline int pk_other_loss(const pk_segment *s, int64_t of_ns, int64_t start_ns, int64_t end_ns) {
    uint64_t count = pk_load(&s->header->table_count);
    for (uint64_t i = 0; i < count && i < s->table_capacity - 1u; i++) {
        const pk_gap *gap = pk_gap_at(s, count - 1 - i);
        if (!pk_load(&gap->repaired) && (int64_t)pk_load(&gap->start_ns) != of_ns &&
            (int64_t)pk_load(&gap->start_ns) < end_ns && start_ns < (int64_t)pk_load(&gap->end_ns) &&
            !pk_is_provisional(gap)) {
            return 1;
        }
    }
    return 0;
}

/* The flags of a row by which a gap that is repaired touched it; REPAIRED alone for one that
 * opened or ended with the gap's trades when it was the newest. */
static inline int64_t pk_gap_marks(const pk_row *row, const pk_side *side, int64_t start_ns, int64_t end_ns) {
    int64_t whole = row->time * PK_NS >= start_ns ? PK_PARTIAL : 0;
    int opens = start_ns < side->open_time && side->open_time < end_ns;
    int closes = start_ns < side->close_time && side->close_time < end_ns;
    int64_t made = row->count > 0 && (opens || closes) ? PK_REPAIRED & ~row->flags : 0;
    return made | (row->flags & (PK_GAP | PK_REVISED | whole));
}

/* Rows of a repaired gap are exact: placeholders become what they stand for. */
static inline void pk_mark_repaired(pk_market *m, pk_bars *b, int64_t start_ns, int64_t end_ns) {
    pk_row row;
    pk_side side;
    for (uint64_t i = b->head; i-- > b->first;) {
        pk_own_row(b, i, &row, &side);
        int64_t row_ns = row.time * PK_NS, row_end_ns = (row.time + b->period) * PK_NS;
        int64_t marks = pk_gap_marks(&row, &side, start_ns, end_ns);
        if (row_end_ns <= start_ns) {
            break;
        }
        if (row_ns < end_ns && marks && !pk_other_loss(&b->segment, start_ns, row_ns, row_end_ns)) {
            row.flags = (row.flags & ~(marks & (PK_GAP | PK_PARTIAL))) | PK_REPAIRED;
            side.folded = m->folded;
            pk_rewrite(b, i, &row, &side);
        }
    }
}

/* Nothing is missing any more: rows up to the end of a repaired gap, whose trades are all known.
 * The loss before the next row is over, if this gap was it. */
static inline int pk_complete_gap(pk_market *m, int64_t start_ns, int64_t end_ns) {
    int begun = m->bars[0]->head > m->bars[0]->first;
    int of_loss = start_ns == m->told_until_ns && m->live_from_ns <= end_ns;
    if (!begun && m->status == PK_LIVE && of_loss && m->told_from_ns < INT64_MAX) {
        m->live_from_ns = m->told_from_ns; /* as if it had never been lost */
    }
    int error = pk_make_room(m, end_ns, 0);
    if (error) {
        return error;
    }
    int newest = m->bars[0]->row.time * PK_NS < end_ns && !pk_in_open_gap(m, end_ns, INT64_MAX);
    for (int i = 0; i < m->periods; i++) {
        pk_bars *b = m->bars[i];
        if (b->head > b->first) {
            pk_fill(m, i, pk_bar_time(end_ns / PK_NS, b->period));
        }
    }
    if (newest && m->resume == PK_RESUME_LOST) {
        pk_resumed(m);
        memset(m->fresh, 0, sizeof m->fresh);
    }
    return 0;
}

/* No longer, or from now on, an open gap; beyond PK_OPEN_GAPS the oldest stays on record, but
 * is given up. */
static inline void pk_list_gap(pk_market *m, int64_t start_ns, int64_t end_ns, int open) {
    int place = 0;
    while (place < m->gaps && m->gap_start[place] != start_ns) {
        place++;
    }
    if (place == m->gaps && open && m->gaps == PK_OPEN_GAPS) {
        place = 0;
    }
    if (place < m->gaps) {
        m->gaps--;
        memmove(&m->gap_start[place], &m->gap_start[place + 1], (size_t)(m->gaps - place) * 8);
        memmove(&m->gap_end[place], &m->gap_end[place + 1], (size_t)(m->gaps - place) * 8);
    }
    if (open) {
        m->gap_start[m->gaps] = start_ns;
        m->gap_end[m->gaps++] = end_ns;
    }
}

/* Open a gap record, change it, or close it as repaired. 0, or an errno and nothing is changed.
 * The shortest ring's record is what a later writer goes by: it is opened first, closed last. */
static inline int pk_add_gap(pk_market *m, int64_t start_ns, int64_t end_ns, const char *cause, int repaired) {
    const pk_word *count = &m->bars[0]->segment.header->table_count;
    int error = repaired ? pk_complete_gap(m, start_ns, end_ns) : 0;
    if (error) {
        return error;
    }
    uint64_t known = pk_load(count);
    pk_list_gap(m, start_ns, end_ns, !repaired);
    if (!repaired && m->status != PK_LIVE && m->told_until_ns > start_ns) {
        m->told_until_ns = start_ns;
    }
    for (int i = 0; i < m->periods; i++) {
        pk_bars *b = m->bars[repaired ? m->periods - 1 - i : i];
        if (repaired) {
            pk_mark_repaired(m, b, start_ns, end_ns);
        }
        pk_put_gap(&b->segment, start_ns, end_ns, cause, repaired);
        if (repaired) {
            pk_close_provisional(&b->segment, pk_bar_time(start_ns / PK_NS, b->period) * PK_NS,
                                 (pk_bar_time((end_ns - 1) / PK_NS, b->period) + b->period) * PK_NS);
        }
    }
    if (pk_load(count) != known) {
        pk_count(m, PK_N_GAPS);
    }
    return 0;
}

#endif
