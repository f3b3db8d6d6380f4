/* A market's clock, status and gaps: which rows exist. The rules: docs/bars.md. */
#ifndef PK_MARKET_H
#define PK_MARKET_H

#include "fold.h"

/* The forming row of now's second, and what is missing before it. 0 or an errno. */
static inline int pk_step(pk_market *m, int64_t now_ns) {
    pk_bars *shortest = m->bars[0];
    int64_t second = now_ns / PK_NS;
    if (m->status != PK_LIVE) {
        return 0;
    }
    if (m->live_from_ns == INT64_MAX) {
        m->live_from_ns = now_ns;
    }
    m->newest_ns = now_ns > m->newest_ns ? now_ns : m->newest_ns;
    if (!m->fill_flat && !m->resume) {
        return 0;
    }
    int error = pk_make_room(m, now_ns, 0);
    if (error) {
        return error;
    }
    int newer = shortest->head > shortest->first && pk_bar_time(second, shortest->period) > shortest->row.time;
    for (int i = 0; i < m->periods; i++) {
        pk_bars *b = m->bars[i];
        int64_t bar = pk_bar_time(second, b->period);
        if (b->head == b->first || bar <= b->row.time) {
            continue;
        }
        pk_fill(m, b, bar);
        if (m->fill_flat) {
            pk_row row = pk_flat_row(bar, b->row.close, PK_FLAT);
            pk_side side = {0};
            pk_append_row(m, b, &row, &side);
            pk_count(m, PK_N_FLAT);
            m->fresh[i] = 0;
        }
    }
    if (newer) {
        m->resume = PK_RESUME_NOT;
    }
    return 0;
}

/* `resume`: what the seconds between the newest row and the next one will have been. */
static inline void pk_set_status(pk_market *m, int status) {
    if (status == PK_CLOSED) {
        m->resume = m->resume == PK_RESUME_LOST ? PK_RESUME_LOST : PK_RESUME_CLOSED;
    } else if (status == PK_LIVE) {
        m->resume = m->bars[0]->head == m->bars[0]->first ? PK_RESUME_NOT : m->resume;
    } else if (m->status == PK_LIVE) {
        m->resume = PK_RESUME_LOST;
    }
    m->status = status;
    for (int i = 0; i < m->periods; i++) {
        pk_store_release(&m->bars[i]->segment.header->status, (uint64_t)status);
    }
}

/* Rows of a repaired gap are exact: placeholders become what they stand for. */
static inline void pk_mark_repaired(pk_market *m, pk_bars *b, int64_t start_ns, int64_t end_ns) {
    pk_row row;
    pk_side side;
    for (uint64_t i = b->head; i-- > b->first;) {
        pk_own_row(b, i, &row, &side);
        int64_t row_end_ns = (row.time + b->period) * PK_NS;
        if (row_end_ns <= start_ns) {
            break;
        }
        if (row.time * PK_NS < end_ns && (row.flags & (PK_GAP | PK_PARTIAL | PK_REVISED)) &&
            !pk_in_open_gap(m, row.time * PK_NS, row_end_ns)) {
            row.flags = (row.flags & ~(int64_t)(PK_GAP | PK_PARTIAL)) | PK_REPAIRED;
            side.folded = m->ticks->head;
            pk_rewrite(b, i, &row, &side);
        }
    }
}

/* Nothing is missing any more: rows up to the end of a repaired gap, whose trades are all known. */
static inline int pk_complete_gap(pk_market *m, int64_t end_ns) {
    int error = pk_make_room(m, end_ns, 0);
    for (int i = 0; i < m->periods && !error; i++) {
        pk_bars *b = m->bars[i];
        if (b->head > b->first) {
            pk_fill(m, b, pk_bar_time(end_ns / PK_NS, b->period));
        }
    }
    if (m->status == PK_LIVE && !pk_in_open_gap(m, end_ns, INT64_MAX)) {
        m->resume = PK_RESUME_NOT;
    }
    return error;
}

/* Open a gap record, change it, or close it as repaired. 0, or an errno and nothing is changed. */
static inline int pk_add_gap(pk_market *m, int64_t start_ns, int64_t end_ns, const char *cause, int repaired) {
    int place = 0, known = pk_gap_on_record(&m->bars[0]->segment, start_ns, start_ns + 1);
    int error = repaired && m->resume == PK_RESUME_LOST ? pk_complete_gap(m, end_ns) : 0;
    if (error) {
        return error;
    }
    while (place < m->gaps && m->gap_start[place] != start_ns) {
        place++;
    }
    if (place < m->gaps) {
        m->gaps--;
        memmove(&m->gap_start[place], &m->gap_start[place + 1], (m->gaps - place) * 8);
        memmove(&m->gap_end[place], &m->gap_end[place + 1], (m->gaps - place) * 8);
    }
    if (!repaired) {
        if (m->gaps == PK_OPEN_GAPS) { /* the oldest stays on record, but is given up */
            m->gaps--;
            memmove(m->gap_start, m->gap_start + 1, m->gaps * 8);
            memmove(m->gap_end, m->gap_end + 1, m->gaps * 8);
        }
        m->gap_start[m->gaps] = start_ns;
        m->gap_end[m->gaps++] = end_ns;
    }
    for (int i = 0; i < m->periods; i++) {
        pk_put_gap(&m->bars[i]->segment, start_ns, end_ns, cause, repaired);
        if (repaired) {
            pk_mark_repaired(m, m->bars[i], start_ns, end_ns);
        }
    }
    if (!known) {
        pk_count(m, PK_N_GAPS);
    }
    return 0;
}

#endif
