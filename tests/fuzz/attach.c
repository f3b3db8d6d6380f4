/* A segment whose bytes are changed at random, attached, read, taken over and written to.
 *
 *     clang -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined -Isrc/piker_core/core attach.c
 *
 * Input: a byte of options, then changes of 10 bytes: where (a word of the file) and what.
 * Without changes the ring is a good one, so that every check is come upon; with option 2
 * the checksum is made right again, so that what lies behind it is tried too. Whatever the
 * bytes are, calls end with one of their statuses: no crash, no endless loop.
 */
#define PK_TRIES 64
#include "wake.h"
#include "recover.h"

enum { BARS = 0, TICKS = 1, RIGHT_CHECKSUM = 2, SHORT_FILE = 4 };

static char names[2][PK_NAME];
static uint8_t *good[2];
static pk_identity identities[2];

static void make_good(int ticks) {
    pk_identity *id = &identities[ticks];
    pk_segment s = {0};
    char why[256];
    *id = (pk_identity){.magic = PK_MAGIC, .version = PK_VERSION, .kind = ticks ? PK_TICKS : PK_BARS, .period = !ticks};
    id->item_size = 8 * (ticks ? PK_TICK_WORDS : PK_ROW_WORDS);
    id->capacity = pk_round_capacity(1, id->item_size);
    id->table_capacity = 8;
    pk_lay_out(id);
    snprintf(names[ticks], PK_NAME, "pkfuzz.%d.%d", (int)getpid(), ticks);
    int fd = pk_create_file(names[ticks], id->total_size, id->total_size);
    if (fd < 0 || pk_write_header(fd, id) || pk_map(fd, id, 1, 1, &s, why, sizeof why)) {
        abort();
    }
    close(fd);
    if (ticks) {
        pk_ticks t = {.segment = s};
        for (uint64_t i = 0; i < id->capacity + 5; i++) {
            pk_tick tick = {.time_ns = (int64_t)i * PK_NS, .price = 1, .size = 1, .type = PK_TRADE, .count = 1};
            pk_publish_tick(&t, &tick);
        }
        pk_add_name(&t.segment, "a.b");
    } else {
        pk_bars b = {.segment = s};
        if (pk_resume_bars(&b)) {
            abort();
        }
        for (uint64_t i = 0; i < id->capacity + 5; i++) {
            pk_row row = {.time = (int64_t)i, .open = 1, .high = 1, .low = 1, .close = 1, .count = 1};
            pk_append(&b, &row, &(pk_side){0});
        }
        pk_put_gap(&b.segment, 1, 2, "cut", 0);
        pk_write_about(&b.segment, "{}", 2);
        pk_write_reason(&b.segment, PK_STALE, "cut", 3);
    }
    good[ticks] = malloc(id->total_size);
    memcpy(good[ticks], s.base, id->total_size);
    pk_unmap(&s);
}

static void remove_files(void) {
    pk_remove_file(names[BARS]);
    pk_remove_file(names[TICKS]);
}

static void read_bars(const pk_segment *s) {
    pk_row rows[64];
    pk_gap *gaps = calloc(s->table_capacity, sizeof *gaps); /* exactly what it may fill */
    char about[PK_ABOUT], reason[PK_REASON];
    uint64_t first, head, known, found, status;
    if (pk_extent(s, &first, &head) == PK_OK) {
        uint64_t start = head - first > 64 ? head - 64 : first;
        pk_read_rows(s, &start, head, rows);
        pk_search(s, first, head, 5, &found);
        pk_intact(s, first, head - first, pk_clock(s));
    }
    pk_read_gaps(s, gaps, &known);
    free(gaps);
    pk_read_about(s, about);
    pk_read_reason(s, &status, reason);
}

static void read_ticks(const pk_segment *s) {
    pk_tick ticks[64];
    char name[PK_TABLE_ITEM];
    uint64_t head = pk_head(s), first = pk_ticks_first(s), whole;
    first = first > head ? head : first;
    pk_read_ticks(s, first, head - first < 64 ? head - first : 64, ticks, &whole);
    for (uint64_t i = 0; i < pk_names(s); i++) {
        pk_read_name(s, i, name);
    }
}

/* As an engine does that finds these bars beside an empty tick ring. */
static void write_bars(pk_segment *s) {
    static pk_market market;
    pk_bars b = {.segment = *s};
    pk_ticks none = {.segment = *s};
    int old[1] = {1};
    pk_chain chain = {0};
    if (pk_resume_bars(&b)) {
        return;
    }
    memset(&market, 0, sizeof market);
    none.segment.capacity = 1;
    none.head = 0;
    market = (pk_market){.periods = 1, .bars = {&b}, .ticks = &none, .fill_flat = 1, .resume = PK_RESUME_LOST};
    pk_load_open_gaps(&market);
    if (pk_recover(&market, &chain, old) == 0) {
        pk_row row = b.row;
        if (b.head > b.first) {
            pk_rewrite(&b, b.head - 1, &row, &b.side);
        }
        pk_append(&b, &row, &(pk_side){0});
        pk_put_gap(&b.segment, 3, 4, "fuzz", 1);
        pk_set_status(&market, PK_LIVE, "fuzz");
    }
    pk_ids_free(&market.ids);
}

static void write_ticks(pk_segment *s) {
    pk_ticks t = {.segment = *s};
    pk_chain chain;
    uint64_t sequences[64];
    if (pk_resume_ticks(&t) || pk_chain_ticks(&chain, &t)) {
        return;
    }
    pk_chain_walk(&chain, 0, sequences, 64);
    pk_chain_free(&chain);
    pk_tick tick = {.type = PK_TRADE};
    pk_publish_tick(&t, &tick);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    if (!good[BARS]) {
        make_good(BARS);
        make_good(TICKS);
        atexit(remove_files);
    }
    int options = count ? bytes[0] : 0, ticks = options & TICKS;
    uint64_t size = identities[ticks].total_size;
    int fd = pk_open_file(names[ticks], O_RDWR);
    uint8_t *copy = malloc(size);
    memcpy(copy, good[ticks], size);
    for (size_t at = 1; at + 10 <= count; at += 10) {
        uint64_t word = (uint64_t)bytes[at] | (uint64_t)bytes[at + 1] << 8;
        memcpy(copy + word % (size / 8) * 8, bytes + at + 2, 8);
    }
    if (options & RIGHT_CHECKSUM) {
        ((pk_identity *)(void *)copy)->checksum = pk_checksum((pk_identity *)(void *)copy);
    }
    uint64_t length = options & SHORT_FILE ? size - 4096 : size;
    if (fd < 0 || ftruncate(fd, (off_t)length) || pk_write_bytes(fd, copy, length, 0)) {
        abort();
    }
    pk_segment s = {0};
    pk_identity id;
    char why[256] = "";
    uint32_t kind = ticks ? PK_TICKS : PK_BARS;
    int status = pk_attach(names[ticks], kind, &s, &id, why, sizeof why);
    if (status == PK_OK) {
        ticks ? read_ticks(&s) : read_bars(&s);
        pk_unmap(&s);
        if (pk_map(fd, &id, 1, 1, &s, why, sizeof why) == PK_OK) {
            ticks ? write_ticks(&s) : write_bars(&s);
            pk_unmap(&s);
        }
    } else if (!why[0]) {
        abort(); /* a refusal says why */
    }
    close(fd);
    free(copy);
    return 0;
}
