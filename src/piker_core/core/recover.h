/* A market goes on where another writer of its rings stopped or was killed.
 *
 * The tick ring is the log: a tick is published there before it is folded, and every row
 * carries the sequence up to which ticks are folded. So what was published but not folded
 * in a ring is folded now, and all periods agree again.
 */
#ifndef PK_RECOVER_H
#define PK_RECOVER_H

#include "market.h"
#include <stdlib.h>

/* For each market id the newest tick, and for each tick the one before of its market. */
typedef struct {
    uint64_t first, head;
    uint64_t *before; /* by sequence - first: 1 + the sequence before, 0 if none */
    uint64_t *newest; /* by market: 1 + the sequence, 0 if none */
    uint32_t markets;
} pk_chain;

static inline int pk_read_own_tick(const pk_ticks *ticks, uint64_t sequence, pk_tick *tick) {
    const pk_segment *s = &ticks->segment;
    pk_copy_out(tick, s->items + sequence % s->capacity * PK_TICK_WORDS, PK_TICK_WORDS);
    return tick->sequence == sequence && tick->type > 0 && tick->type < PK_TYPES;
}

static inline void pk_chain_free(pk_chain *chain) {
    free(chain->before);
    free(chain->newest);
    memset(chain, 0, sizeof *chain);
}

/* Thread the ticks that are in the ring by market. 0, or ENOMEM. */
static inline int pk_chain_ticks(pk_chain *chain, const pk_ticks *ticks) {
    pk_tick tick;
    memset(chain, 0, sizeof *chain);
    chain->first = pk_ticks_first(&ticks->segment);
    chain->head = ticks->head;
    chain->markets = ticks->segment.table_capacity;
    if (chain->head <= chain->first) {
        return 0;
    }
    chain->before = calloc(chain->head - chain->first, 8);
    chain->newest = calloc(chain->markets, 8);
    if (!chain->before || !chain->newest) {
        pk_chain_free(chain);
        return ENOMEM;
    }
    for (uint64_t i = chain->first; i < chain->head; i++) {
        if (pk_read_own_tick(ticks, i, &tick) && tick.market < chain->markets) {
            chain->before[i - chain->first] = chain->newest[tick.market];
            chain->newest[tick.market] = i + 1;
        }
    }
    return 0;
}

/* Sequences of a market's ticks, ascending, at most `most` of the newest; how many. */
static inline uint64_t pk_chain_walk(const pk_chain *chain, uint32_t market, uint64_t *out, uint64_t most) {
    uint64_t count = 0;
    uint64_t link = chain->newest && market < chain->markets ? chain->newest[market] : 0;
    while (link && count < most) {
        out[most - ++count] = link - 1;
        link = chain->before[link - 1 - chain->first];
    }
    memmove(out, out + (most - count), count * 8);
    return count;
}

/* The newest open gaps on record. */
static inline void pk_load_open_gaps(pk_market *m) {
    const pk_segment *s = &m->bars[0]->segment;
    uint64_t count = pk_load(&s->header->table_count), known = pk_known_gaps(s, count);
    uint64_t open[PK_OPEN_GAPS];
    for (uint64_t i = count; i-- > count - known && m->gaps < PK_OPEN_GAPS;) {
        if (!pk_load(&pk_gap_at(s, i)->repaired)) {
            open[m->gaps++] = i;
        }
    }
    for (int i = 0; i < m->gaps; i++) {
        const pk_gap *gap = pk_gap_at(s, open[m->gaps - 1 - i]);
        m->gap_start[i] = (int64_t)pk_load(&gap->start_ns);
        m->gap_end[i] = (int64_t)pk_load(&gap->end_ns);
    }
}

/* The newest trade as its row knows it: other markets' ticks have pushed it out of the ring. */
static inline void pk_last_of_rows(pk_market *m) {
    const pk_bars *b = m->bars[0];
    pk_row row;
    pk_side side;
    for (uint64_t i = b->head; i-- > b->first;) {
        pk_own_row(b, i, &row, &side);
        if (row.count) {
            m->last_price = row.close;
            if (m->bars_from == PK_FROM_TRADE && side.close_time > 0 && side.close_time < INT64_MAX) {
                m->last_time_ns = side.close_time;
                m->last_id = side.close_id;
            }
            return;
        }
    }
}

/* What the rows of one ring hold of the ticks. Every row says up to which tick all of them
 * were folded when it was last written; a tick was folded if its row says so. */
typedef struct {
    uint64_t from;   /* ticks below it are folded, and what they changed is settled */
    uint64_t settle; /* the row of the newest tick that was folded late, 0: none */
} pk_progress;

/* The row of a trade, if it is there and has the trade. */
static inline int pk_is_folded(const pk_bars *b, const pk_trade *t, uint64_t tick, uint64_t *sequence) {
    int64_t second = t->time_ns / PK_NS;
    pk_row row;
    pk_side side;
    if (b->head == b->first || second >= b->row.time + b->period) {
        return 0;
    }
    *sequence = b->head - 1;
    if (second < b->row.time && !pk_locate(b, pk_bar_time(second, b->period), sequence)) {
        return 0;
    }
    pk_own_row(b, *sequence, &row, &side);
    return side.folded > tick;
}

/* Flat rows that a killed writer left at an older close: it may have stopped at any of them. */
static inline void pk_mend(pk_market *m, pk_bars *b, uint64_t sequence) {
    pk_row row;
    pk_own_row(b, sequence, &row, NULL);
    double close = row.close;
    while (++sequence < b->head) {
        pk_own_row(b, sequence, &row, NULL);
        if (!(row.flags & PK_FLAT)) {
            return;
        }
        if (row.close != close) {
            pk_rebase(m, b, sequence - 1, b->head, 0);
            return;
        }
    }
}

/* Fold a tick into one ring, if it is not in it. 0 or an errno. */
static inline int pk_refold(pk_market *m, int place, pk_progress *done, const pk_trade *t) {
    pk_bars *b = m->bars[place];
    uint64_t tick = m->folded, sequence;
    if (tick < done->from) {
        return 0;
    }
    if (pk_is_folded(b, t, tick, &sequence)) {
        done->settle = sequence;
        return 0;
    }
    if (done->settle) {
        pk_mend(m, b, done->settle);
        done->settle = 0;
    }
    int error = pk_make_room(m, t->time_ns, 1);
    if (!error) {
        pk_fold_ring(m, place, t);
    }
    return error;
}

/* Fold what is missing of a market's ticks, oldest first. 0 or an errno. */
static inline int pk_refold_ticks(pk_market *m, const uint64_t *sequences, uint64_t count, pk_progress *done) {
    for (uint64_t n = 0; n < count; n++) {
        pk_tick tick;
        pk_trade trade;
        if (!pk_read_own_tick(m->ticks, sequences[n], &tick)) {
            continue;
        }
        if (pk_is_trade(tick.type)) {
            if (tick.id && !pk_ids_has(&m->ids, tick.id) && pk_ids_add(&m->ids, tick.id)) {
                return ENOMEM;
            }
            pk_note_last(m, &tick);
        }
        if (!pk_makes_bar(m, &tick, &trade)) {
            continue;
        }
        m->newest_ns = trade.time_ns > m->newest_ns ? trade.time_ns : m->newest_ns;
        m->folded = sequences[n];
        pk_set_worth(&trade);
        for (int i = 0; i < m->periods; i++) {
            int error = pk_refold(m, i, &done[i], &trade);
            if (error) {
                return error;
            }
        }
    }
    return 0;
}

/* What the feed said last; files made before that was kept have the status alone. */
static inline int pk_last_status(const pk_segment *s) {
    uint64_t told = pk_load(&s->header->feed_status);
    return (int)(told ? told : pk_load(&s->header->status));
}

/* Remember ids, fold what is missing, mend flat rows. `old[i]`: ring i existed before. */
static inline int pk_recover(pk_market *m, const pk_chain *chain, const int *old) {
    uint64_t room = chain->head - chain->first;
    uint64_t *sequences = malloc((room ? room : 1) * sizeof *sequences);
    pk_progress done[PK_PERIODS] = {{0, 0}};
    int resume = m->resume, status = m->status;
    if (!sequences) {
        return ENOMEM;
    }
    m->quiet = 1;
    m->status = pk_last_status(&m->bars[0]->segment);
    m->resume = m->status == PK_CLOSED ? PK_RESUME_CLOSED : PK_RESUME_NOT; /* as for the writer before */
    for (int i = 0; i < m->periods; i++) {
        const pk_bars *b = m->bars[i];
        int any = b->head > b->first;
        done[i].from = !old[i] ? m->ticks->head : any ? b->side.folded : 0;
        m->fresh[i] = !any;
        if (any && b->row.time * PK_NS > m->newest_ns) {
            m->newest_ns = b->row.time * PK_NS;
        }
    }
    int error = pk_refold_ticks(m, sequences, pk_chain_walk(chain, m->id, sequences, room), done);
    m->folded = m->ticks->head;
    for (int i = 0; i < m->periods && !error; i++) {
        if (done[i].settle) {
            pk_mend(m, m->bars[i], done[i].settle);
        }
        m->fresh[i] = 1;
    }
    pk_settle_all(m);
    if (!m->last_time_ns) {
        pk_last_of_rows(m);
    }
    m->quiet = 0;
    m->resume = resume;
    m->status = status;
    free(sequences);
    return error;
}

#endif
