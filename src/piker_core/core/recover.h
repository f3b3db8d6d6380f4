/* A market goes on where another writer of its rings stopped or was killed.
 *
 * The tick ring is the log: a tick is published there before it is folded, and every row
 * carries the sequence up to which ticks are folded. So what was published but not folded
 * in a ring is folded now, and all periods agree again.
 */
#ifndef PK_RECOVER_H
#define PK_RECOVER_H

#include "market.h"

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

/* Up to which tick a ring's rows are folded. */
static inline uint64_t pk_folded(const pk_bars *b) {
    const pk_redo *redo = &b->segment.header->redo;
    uint64_t sequence = pk_load(&redo->sequence), folded = b->side.folded;
    if (sequence >= b->first && sequence < b->head) {
        pk_side side;
        pk_copy_out(&side, redo->side, PK_SIDE_WORDS);
        folded = side.folded > folded ? side.folded : folded;
    }
    return folded;
}

/* Flat rows follow the close before them; a killed revision may have left some behind. */
static inline void pk_mend_flat_rows(pk_market *m, pk_bars *b) {
    const uint64_t most = 4096;
    pk_row row, previous = {0};
    uint64_t i = b->head - b->first > most ? b->head - most : b->first;
    for (; i < b->head; i++) {
        pk_own_row(b, i, &row, NULL);
        if (i > b->first && !row.count && row.close != previous.close &&
            !(row.flags & PK_BACKFILLED)) {
            pk_rebase(m, b, i - 1, previous.close);
            pk_own_row(b, i, &row, NULL);
        }
        previous = row;
    }
}

static inline void pk_load_open_gaps(pk_market *m) {
    const pk_segment *s = &m->bars[0]->segment;
    uint64_t count = pk_load(&s->header->table_count);
    uint64_t known = count < s->table_capacity - 1u ? count : s->table_capacity - 1u;
    for (uint64_t i = count - known; i < count; i++) {
        const pk_gap *gap = pk_gap_at(s, i);
        if (!pk_load(&gap->repaired) && m->gaps < PK_OPEN_GAPS) {
            m->gap_start[m->gaps] = (int64_t)pk_load(&gap->start_ns);
            m->gap_end[m->gaps++] = (int64_t)pk_load(&gap->end_ns);
        }
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
            if (!(row.flags & PK_BACKFILLED)) {
                m->last_time_ns = side.close_time;
                m->last_id = side.close_id;
            }
            return;
        }
    }
}

/* Remember ids, fold what is missing, mend flat rows. `old[i]`: ring i existed before. */
static inline int pk_recover(pk_market *m, const pk_chain *chain, const int *old) {
    uint64_t room = chain->head - chain->first, folded[PK_PERIODS];
    uint64_t *sequences = malloc((room ? room : 1) * sizeof *sequences);
    if (!sequences) {
        return ENOMEM;
    }
    int64_t newest_ns = 0;
    int error = 0;
    int resume = m->resume, status = m->status;
    m->quiet = 1;
    m->resume = PK_RESUME_NOT; /* rows between are what they were for the writer before */
    m->status = (int)pk_load(&m->bars[0]->segment.header->status);
    for (int i = 0; i < m->periods; i++) {
        pk_bars *b = m->bars[i];
        folded[i] = old[i] ? pk_folded(b) : m->ticks->head;
        if (b->head > b->first && b->row.time > newest_ns / PK_NS) {
            newest_ns = b->row.time * PK_NS;
        }
    }
    m->newest_ns = newest_ns;
    uint64_t count = pk_chain_walk(chain, m->id, sequences, room);
    for (uint64_t n = 0; n < count && !error; n++) {
        pk_tick tick;
        pk_trade trade;
        if (!pk_read_own_tick(m->ticks, sequences[n], &tick)) {
            continue;
        }
        if (pk_is_trade(tick.type)) {
            if (tick.id && !pk_ids_has(&m->ids, tick.id) && pk_ids_add(&m->ids, tick.id)) {
                error = ENOMEM;
            }
            if (tick.time_ns >= m->last_time_ns) {
                m->last_time_ns = tick.time_ns;
                m->last_id = tick.id;
                m->last_price = tick.price;
            }
        }
        if (!pk_makes_bar(m, &tick, &trade)) {
            continue;
        }
        for (int i = 0; i < m->periods && !error; i++) {
            if (sequences[n] >= folded[i] && !(error = pk_make_room(m, tick.time_ns, 1))) {
                pk_fold_ring(m, i, &trade);
            }
        }
    }
    if (!m->last_time_ns) {
        pk_last_of_rows(m);
    }
    for (int i = 0; i < m->periods && !error; i++) {
        if (m->bars[i]->head > m->bars[i]->first) {
            pk_mend_flat_rows(m, m->bars[i]);
        }
    }
    m->quiet = 0;
    m->resume = resume;
    m->status = status;
    free(sequences);
    return error;
}

#endif
