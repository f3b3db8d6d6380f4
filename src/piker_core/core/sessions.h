/* Sessions of a market: spans of time in which it is open. A bar that has no time in any of
 * them has a row only if something traded in it. The rules: docs/bars.md. */
#ifndef PK_SESSIONS_H
#define PK_SESSIONS_H

#include "atomics.h"

/* From its opening to its close, exclusive. */
typedef struct {
    int64_t open_ns, close_ns;
} pk_span;

/* Ascending, not overlapping; outside of them the market is closed. Without spans (NULL, which
 * is not the same as none) it is open always. */
typedef struct {
    pk_span *spans;
    uint64_t count;
} pk_sessions;

/* The first span that ends after a time; `count` if there is none. */
static inline uint64_t pk_span_after(const pk_sessions *s, int64_t time_ns) {
    uint64_t low = 0, high = s->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (s->spans[middle].close_ns <= time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The first moment of [start_ns, end_ns) at which the market is open; end_ns if there is none. */
static inline int64_t pk_first_open(const pk_sessions *s, int64_t start_ns, int64_t end_ns) {
    if (!s->spans || start_ns >= end_ns) {
        return start_ns < end_ns ? start_ns : end_ns;
    }
    uint64_t i = pk_span_after(s, start_ns);
    int64_t open_ns = i < s->count ? s->spans[i].open_ns : end_ns;
    return open_ns <= start_ns ? start_ns : open_ns < end_ns ? open_ns : end_ns;
}

static inline int pk_is_open(const pk_sessions *s, int64_t time_ns) {
    return pk_first_open(s, time_ns, time_ns + 1) == time_ns;
}

static inline int64_t pk_bar_time(int64_t second, int64_t period) { return second - second % period; }

/* The first of the bars [bar, end) that has open time; `end` if none has. */
static inline int64_t pk_open_bar_from(const pk_sessions *s, int64_t bar, int64_t end, int64_t period) {
    if (!s->spans || bar >= end) {
        return bar < end ? bar : end;
    }
    int64_t open_ns = pk_first_open(s, bar * PK_NS, end * PK_NS);
    return open_ns < end * PK_NS ? pk_bar_time(open_ns / PK_NS, period) : end;
}

/* The end of the run of bars with open time that begins with `bar`, at most `end`. */
static inline int64_t pk_run_end(const pk_sessions *s, int64_t bar, int64_t end, int64_t period) {
    int64_t next = s->spans ? bar : end;
    while (next < end && pk_open_bar_from(s, next, end, period) == next) {
        int64_t open_ns = pk_first_open(s, next * PK_NS, (next + period) * PK_NS);
        int64_t close_ns = s->spans[pk_span_after(s, open_ns)].close_ns;
        next = close_ns < end * PK_NS ? pk_bar_time((close_ns - 1) / PK_NS, period) + period : end;
    }
    return next;
}

/* How many of the bars [bar, end) have open time. */
static inline int64_t pk_open_bars(const pk_sessions *s, int64_t bar, int64_t end, int64_t period) {
    int64_t bars = 0;
    for (bar = pk_open_bar_from(s, bar, end, period); bar < end;) {
        int64_t next = pk_run_end(s, bar, end, period);
        bars += (next - bar) / period;
        bar = pk_open_bar_from(s, next, end, period);
    }
    return bars;
}

/* Where the newest `most` of the bars [bar, end) with open time begin. */
static inline int64_t pk_newest_open_bars(const pk_sessions *s, int64_t bar, int64_t end, int64_t period, int64_t most) {
    int64_t past = pk_open_bars(s, bar, end, period) - most;
    for (bar = pk_open_bar_from(s, bar, end, period); past > 0;) {
        int64_t next = pk_run_end(s, bar, end, period), bars = (next - bar) / period;
        bar = past < bars ? bar + past * period : pk_open_bar_from(s, next, end, period);
        past -= bars;
    }
    return bar;
}

#endif
