"""The C core as Cython sees it: one extern block for all compiled modules."""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "recover.h" nogil:
    ctypedef uint64_t pk_word
    const int PK_OK, PK_MISSING, PK_REFUSED, PK_SYSTEM, PK_BLANK, PK_LAPPED, PK_BUSY
    const int PK_BARS, PK_TICKS, PK_VERSION, PK_PERIODS, PK_TYPES, PK_N_COUNTERS
    const uint64_t PK_START, PK_MAGIC, PK_HASH_START
    const int PK_ROW_WORDS, PK_TICK_WORDS, PK_ABOUT, PK_REASON
    const int PK_FLAT, PK_BACKFILLED
    const int PK_STARTING, PK_LIVE, PK_STOPPED, PK_CLOSED
    const int PK_RESUME_NOT, PK_RESUME_LOST
    const int PK_N_REFUSED, PK_N_UNKNOWN
    const int64_t PK_NS

    ctypedef struct pk_identity:
        uint64_t magic
        uint32_t version, kind
        uint64_t total_size
        uint32_t page_size, item_size
        uint64_t capacity, table_offset, stamp_offset, side_offset, item_offset
        uint32_t table_capacity, period
        int64_t created_ns
        uint32_t uid
        char space[64]
        char provider[32]
        char fqme[64]
        char price_tick[32]
        char size_tick[32]
        char dtype[184]

    ctypedef struct pk_reason:
        pk_word status
        pk_word text[16]

    ctypedef struct pk_header:
        pk_word generation, status, heartbeat_ns, writer_pid, last_price, table_count
        pk_word counters[16]
        pk_word head, clock, first, reason_number
        pk_reason reasons[2]

    ctypedef struct pk_segment:
        uint8_t *base
        pk_header *header
        pk_word *stamps
        pk_word *items
        uint8_t *table
        uint64_t capacity
        uint32_t kind, period, table_capacity
        size_t total
        int can_wait
        char name[64]

    ctypedef struct pk_row:
        int64_t index, time
        double open, high, low, close, volume
        int64_t count
        double wap
        int64_t flags

    ctypedef struct pk_side:
        double volume_low, worth, worth_low
        int64_t open_time, open_id, close_time, close_id
        uint64_t folded

    ctypedef struct pk_gap:
        pass

    ctypedef struct pk_tick:
        uint64_t sequence
        int64_t time_ns, recv_ns
        double price, size
        int64_t id
        uint32_t market, count
        uint16_t type
        int8_t side
        uint8_t flags

    ctypedef struct pk_bars:
        pk_segment segment
        uint64_t head, first, clock
        int64_t period
        pk_row row
        pk_side side

    ctypedef struct pk_ticks:
        pk_segment segment
        uint64_t head

    ctypedef struct pk_ids:
        pass

    ctypedef struct pk_span:
        int64_t open_ns, close_ns

    ctypedef struct pk_sessions:
        pk_span *spans
        uint64_t count

    ctypedef struct pk_market:
        uint32_t id
        int periods
        pk_bars *bars[8]
        int fresh[8]
        pk_ticks *ticks
        pk_ids ids
        int status, fill_flat, bars_from, resume
        pk_sessions sessions
        int closed
        int64_t live_from_ns, newest_ns, late_window_ns, last_id, last_time_ns
        double last_price
        int64_t gap_start[32]
        int64_t gap_end[32]
        int gaps
        uint64_t counters[16]

    ctypedef struct pk_trade:
        int64_t time_ns, id
        double price, size
        int64_t count

    ctypedef struct pk_chain:
        pass

    uint64_t pk_load(const pk_word *word) noexcept
    uint64_t pk_load_acquire(const pk_word *word) noexcept
    void pk_store(pk_word *word, uint64_t value) noexcept
    void pk_store_release(pk_word *word, uint64_t value) noexcept
    int64_t pk_wall_ns() noexcept
    int64_t pk_clock_ns(int clock) noexcept
    const int CLOCK_MONOTONIC

    uint64_t pk_hash(const void *bytes, size_t count, uint64_t hash) noexcept
    uint64_t pk_round_capacity(uint64_t capacity, uint64_t item_size) noexcept
    void pk_lay_out(pk_identity *id) noexcept
    int pk_read_header(int fd, uint32_t kind, pk_identity *id, char *why, size_t room) noexcept
    int pk_map(int fd, const pk_identity *id, int writer, int can_wait, pk_segment *out,
               char *why, size_t room) noexcept
    void pk_unmap(pk_segment *segment) noexcept
    int pk_open_file(const char *name, int flags) noexcept
    int pk_attach(const char *name, uint32_t kind, pk_segment *out, pk_identity *id,
                  char *why, size_t room) noexcept
    int pk_reserve(pk_segment *s, uint64_t low, uint64_t high) noexcept
    int pk_create_file(const char *name, uint64_t size, uint64_t fixed) noexcept
    int pk_write_header(int fd, pk_identity *id) noexcept
    int pk_is_current(int fd, const char *name) noexcept
    int pk_remove_file(const char *name) noexcept
    uint64_t pk_free_bytes() noexcept
    void pk_write_about(pk_segment *s, const char *text, size_t size) noexcept
    int pk_read_about(const pk_segment *s, char *text) noexcept
    int pk_read_reason(const pk_segment *s, uint64_t *status, char *text) noexcept

    void pk_prepend(pk_bars *b, pk_row *rows, const pk_side *sides, uint64_t count) noexcept
    void pk_prepare_side(pk_side *side, const pk_row *row, int newest) noexcept
    int pk_resume_bars(pk_bars *b) noexcept
    uint64_t pk_read_status(const pk_segment *s) noexcept
    int pk_extent(const pk_segment *s, uint64_t *first, uint64_t *head) noexcept
    int pk_read_row(const pk_segment *s, uint64_t sequence, pk_row *row) noexcept
    int pk_read_rows(const pk_segment *s, uint64_t *start, uint64_t end, pk_row *rows) noexcept
    int pk_intact(const pk_segment *s, uint64_t start, uint64_t count, uint64_t clock) noexcept
    int pk_search(const pk_segment *s, uint64_t low, uint64_t high, int64_t time,
                  uint64_t *found) noexcept
    int pk_read_gaps(const pk_segment *s, pk_gap *gaps, uint64_t *known) noexcept
    void pk_own_row(const pk_bars *b, uint64_t sequence, pk_row *row, pk_side *side) noexcept

    int pk_resume_ticks(pk_ticks *t) noexcept
    uint64_t pk_head(const pk_segment *s) noexcept
    uint64_t pk_clock(const pk_segment *s) noexcept
    uint64_t pk_generation(const pk_segment *s) noexcept
    void pk_open_generation(pk_segment *s) noexcept
    uint64_t pk_names(const pk_segment *s) noexcept
    void pk_read_name(const pk_segment *s, uint64_t place, char *name) noexcept
    int pk_find_name(const pk_segment *s, const char *name, uint64_t *place) noexcept
    uint64_t pk_add_name(pk_segment *s, const char *name) noexcept
    uint64_t pk_ticks_first(const pk_segment *s) noexcept
    void pk_read_ticks(const pk_segment *s, uint64_t start, uint64_t count, pk_tick *ticks,
                       uint64_t *whole) noexcept

    int64_t pk_bar_time(int64_t second, int64_t period) noexcept
    pk_row pk_flat_row(int64_t time, double price, int64_t flags) noexcept
    void pk_add_trade(pk_row *row, pk_side *side, const pk_trade *t, int exact) noexcept
    int pk_is_trade(int type) noexcept
    int pk_make_room(pk_market *m, int64_t newest_ns, uint64_t ticks) noexcept
    int pk_take(pk_market *m, pk_tick *tick) noexcept
    int pk_step(pk_market *m, int64_t now_ns) noexcept
    int pk_is_open(const pk_sessions *s, int64_t time_ns) noexcept
    void pk_set_closed(pk_market *m, int closed) noexcept
    int pk_shown_status(const pk_market *m) noexcept
    int64_t pk_open_bar_from(const pk_sessions *s, int64_t bar, int64_t end, int64_t period) noexcept
    void pk_set_status(pk_market *m, int status, const char *reason) noexcept
    int pk_add_gap(pk_market *m, int64_t start_ns, int64_t end_ns, const char *cause,
                   int repaired) noexcept
    void pk_count(pk_market *m, int counter) noexcept
    void pk_ids_free(pk_ids *ids) noexcept
    int pk_chain_ticks(pk_chain *chain, const pk_ticks *ticks) noexcept
    void pk_chain_free(pk_chain *chain) noexcept
    void pk_load_open_gaps(pk_market *m) noexcept
    int pk_recover(pk_market *m, const pk_chain *chain, const int *old) noexcept

cdef extern from "wake.h" nogil:
    const uint32_t PK_DOORBELL
    const int PK_DOORBELLS
    void pk_wake(pk_segment *s) noexcept
    void pk_wake_all(pk_segment *s) noexcept
    void pk_announce(pk_segment *s, uint32_t how) noexcept
    int pk_wait_head(pk_segment *s, uint64_t after, int64_t deadline_ns) noexcept
    int pk_claim_doorbell(pk_segment *s, uint64_t key) noexcept
    void pk_release_doorbell(pk_segment *s, int place, uint64_t key) noexcept

cdef extern from "lock.h" nogil:
    ctypedef struct pk_lock:
        int fd
    int pk_watch_forks() noexcept
    int pk_take_lock(pk_lock *lock, const char *name) noexcept
    void pk_drop_lock(pk_lock *lock) noexcept
    int pk_lock_held(const char *name) noexcept

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most) noexcept
