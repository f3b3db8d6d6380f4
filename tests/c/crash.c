/* A writer killed before each of its stores to shared memory, one after the other.
 *
 *     crash NAME KIND-OF-WRITE
 *
 * All stores to rings go through pk_store, pk_store_release and pk_copy_in. Here they count
 * down and jump out at zero, which leaves the memory as a kill between two stores would.
 * For each kind of write and each of its stores: readers must find every row, tick and gap
 * record whole, old or new; the next writer must take over, with nothing lost that was
 * published, and go on. The same where that next writer is killed while it takes over.
 */
#include "atomics.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf killed;
static long stores_left; /* negative: no kill */
static long stores_made;

static void before_store(void) {
    if (stores_left == 0) {
        longjmp(killed, 1);
    }
    stores_left -= stores_left > 0;
    stores_made++;
}

static void copy_in_steps(pk_word *to, const void *from, size_t words) {
    for (size_t i = 0; i < words; i++) {
        before_store();
        pk_store(&to[i], ((const uint64_t *)from)[i]);
    }
}

#define pk_store(word, value) (before_store(), pk_store((word), (value)))
#define pk_store_release(word, value) (before_store(), pk_store_release((word), (value)))
#define pk_copy_in copy_in_steps
#include "recover.h"

#define CHECK(truth)                                                                         \
    do {                                                                                     \
        if (!(truth)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (%s, store %ld)\n", __FILE__, __LINE__, #truth,       \
                    scenario, kill_at);                                                      \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

#ifndef DEPTHS
#define DEPTHS 3 /* how full the rings are, one after the other */
#endif

enum { RINGS = 3, SHORT = 0, LONG = 1, TICKS = 2, SECOND0 = 1600000020, STRIDE = 13 };

typedef struct {
    pk_row *rows; /* first to head */
    uint64_t first, head, ticks, gaps;
    pk_gap *gap;
    uint64_t status;
    char reason[PK_REASON];
} view;

static const char *scenario = "setup";
static long kill_at = -1;
static pk_segment mapped[RINGS]; /* one mapping each, for writers and readers alike */
static char names[RINGS][64];

typedef struct {
    uint8_t *bytes[RINGS];
} memory;

static memory saved, wounded; /* before a write; after the writer was killed */

/* The writer of the moment: lost when it is killed. */
static pk_bars bars[2];
static pk_ticks ticks;
static pk_market market;
static pk_chain chain;

/* ---- segments ------------------------------------------------------------------------- */

static void create(int place, uint32_t kind, uint32_t period) {
    pk_identity id = {.magic = PK_MAGIC, .version = PK_VERSION, .kind = kind, .period = period};
    char why[256];
    id.item_size = 8 * (kind == PK_BARS ? PK_ROW_WORDS : PK_TICK_WORDS);
    id.capacity = pk_round_capacity(1, id.item_size);
    id.table_capacity = 8;
    pk_lay_out(&id);
    int fd = pk_create_file(names[place], id.total_size, id.total_size);
    CHECK(fd >= 0 && pk_write_header(fd, &id) == 0);
    CHECK(pk_map(fd, &id, 1, 1, &mapped[place], why, sizeof why) == PK_OK);
    snprintf(mapped[place].name, sizeof mapped[place].name, "%s", names[place]);
    close(fd);
    saved.bytes[place] = malloc(mapped[place].total);
    wounded.bytes[place] = malloc(mapped[place].total);
    CHECK(saved.bytes[place] && wounded.bytes[place]);
}

static void save(memory *to) {
    for (int i = 0; i < RINGS; i++) {
        memcpy(to->bytes[i], mapped[i].base, mapped[i].total);
    }
}

static void restore(const memory *from) {
    for (int i = 0; i < RINGS; i++) {
        memcpy(mapped[i].base, from->bytes[i], mapped[i].total);
    }
}

/* What add_market and open_engine do, in their order. */
static void take_over(void) {
    int old[2] = {1, 1};
    pk_ids_free(&market.ids);
    pk_chain_free(&chain);
    memset(&market, 0, sizeof market);
    ticks = (pk_ticks){.segment = mapped[TICKS]};
    CHECK(pk_resume_ticks(&ticks) == PK_OK);
    CHECK(pk_chain_ticks(&chain, &ticks) == 0);
    for (int i = 0; i < 2; i++) {
        bars[i] = (pk_bars){.segment = mapped[i]};
        CHECK(pk_resume_bars(&bars[i]) == PK_OK);
        market.bars[i] = &bars[i];
    }
    market.periods = 2;
    market.ticks = &ticks;
    market.fill_flat = 1;
    market.resume = PK_RESUME_LOST;
    market.late_window_ns = PK_DAY_NS;
    market.live_from_ns = 0;
    pk_load_open_gaps(&market);
    CHECK(pk_recover(&market, &chain, old) == 0);
    pk_set_status(&market, PK_LIVE, "");
    market.resume = PK_RESUME_NOT;
}

/* ---- what readers see ----------------------------------------------------------------- */

static void look(int place, view *seen) {
    const pk_segment *s = &mapped[place];
    CHECK(pk_extent(s, &seen->first, &seen->head) == PK_OK);
    uint64_t start = seen->first;
    seen->rows = calloc(seen->head - start + 1, sizeof(pk_row));
    CHECK(pk_read_rows(s, &start, seen->head, seen->rows) == PK_OK && start == seen->first);
    for (uint64_t i = start; i < seen->head; i++) {
        const pk_row *row = &seen->rows[i - start];
        CHECK(row->index == (int64_t)i && row->low <= row->close && row->close <= row->high);
        CHECK(i == start || row->time > row[-1].time);
    }
    seen->gap = calloc(s->table_capacity, sizeof(pk_gap));
    CHECK(pk_read_gaps(s, seen->gap, &seen->gaps) == PK_OK);
    CHECK(pk_read_reason(s, &seen->status, seen->reason) == PK_OK);
    pk_tick tick;
    uint64_t whole;
    seen->ticks = pk_head(&mapped[TICKS]);
    for (uint64_t i = pk_ticks_first(&mapped[TICKS]); i < seen->ticks; i++) {
        pk_read_ticks(&mapped[TICKS], i, 1, &tick, &whole);
        CHECK(whole <= i && tick.sequence == i && tick.id == (int64_t)i + 1);
    }
}

static void forget(view *seen) {
    free(seen->rows);
    free(seen->gap);
}

static int same_rows(const view *a, const view *b) {
    return a->first == b->first && a->head == b->head &&
           !memcmp(a->rows, b->rows, (a->head - a->first) * sizeof(pk_row));
}

static int same_reason(const view *a, const view *b) {
    return a->status == b->status && !memcmp(a->reason, b->reason, sizeof a->reason);
}

static int same_gaps(const view *a, const view *b) {
    return a->gaps == b->gaps && !memcmp(a->gap, b->gap, a->gaps * sizeof(pk_gap));
}

static const pk_row *row_at(const view *seen, uint64_t sequence) {
    return sequence >= seen->first && sequence < seen->head ? &seen->rows[sequence - seen->first]
                                                            : NULL;
}

/* Each row that is there is one that was ever published between the two states: with one
 * rewrite a write is atomic; a write of several rows may be half done. */
static void check_between(const view *now, const view *before, const view *after) {
    CHECK(now->first >= before->first || now->first >= after->first);
    CHECK(now->head >= before->head && now->head <= after->head);
    for (uint64_t i = now->first; i < now->head; i++) {
        const pk_row *row = row_at(now, i), *old = row_at(before, i), *new = row_at(after, i);
        CHECK((old && !memcmp(row, old, sizeof *row)) || (new && !memcmp(row, new, sizeof *row)));
    }
}

/* ---- the writes ----------------------------------------------------------------------- */

static int64_t next_ns(int64_t after_ns) { return market.newest_ns + after_ns; }

static void trade(int64_t time_ns, double price) {
    pk_tick tick = {.type = PK_TRADE, .time_ns = time_ns, .price = price, .size = 0.25, .count = 1};
    tick.id = (int64_t)ticks.head + 1;
    CHECK(pk_make_room(&market, time_ns, 1) == 0);
    CHECK(pk_take(&market, &tick) == 1);
}

static void same_second(void) { trade(next_ns(1), 109); }
static void next_second(void) { trade(next_ns(PK_NS), 90); }
static void next_minute(void) { trade(next_ns(9 * PK_NS), 90); }
static void late(void) { trade(next_ns(-3 * PK_NS), 120); }
static void flat_seconds(void) { pk_step(&market, next_ns(3 * PK_NS)); }
static void new_gap(void) { pk_add_gap(&market, next_ns(-9 * PK_NS), next_ns(-8 * PK_NS), "new", 0); }
static void repair_gap(void) { pk_add_gap(&market, 5 * PK_NS, 7 * PK_NS, "repaired now", 1); }

/* A late step: over the end of a session, which is near, and another one. */
static void night(void) {
    static pk_span hours[2];
    int64_t second_ns = market.newest_ns / PK_NS * PK_NS;
    hours[0] = (pk_span){0, second_ns + 3 * PK_NS};
    hours[1] = (pk_span){second_ns + 200 * PK_NS, second_ns + 203 * PK_NS + PK_NS / 2};
    market.sessions = (pk_sessions){hours, 2};
    pk_step(&market, second_ns + 300 * PK_NS);
}

static void status(void) { pk_set_status(&market, PK_STALE, "no trade for longer than a word is long"); }

static void prepend(void) {
    pk_row rows[5];
    pk_side sides[5];
    pk_own_row(&bars[SHORT], bars[SHORT].first, &rows[0], NULL);
    int64_t oldest = rows[0].time;
    uint64_t room = mapped[SHORT].capacity - (bars[SHORT].head - bars[SHORT].first);
    uint64_t count = room < 5 ? room : 5;
    for (uint64_t i = 0; i < count; i++) {
        rows[i] = pk_flat_row(oldest - (int64_t)(count - i), 100, PK_BACKFILLED | PK_FLAT);
        pk_prepare_side(&sides[i], &rows[i], 0);
    }
    pk_prepend(&bars[SHORT], rows, sides, count);
}

typedef struct {
    const char *name;
    void (*write)(void);
} kind_of_write;

static const kind_of_write kinds[] = {
    {"same second", same_second}, {"next second", next_second}, {"next minute", next_minute},
    {"late trade", late},         {"flat seconds", flat_seconds}, {"new gap", new_gap},
    {"repaired gap", repair_gap}, {"history", prepend}, {"status", status},
    {"night", night},
};

/* ---- one kill ------------------------------------------------------------------------- */

/* Do something, killed before store `number` of it; 1 if it was killed. */
static int do_until(void (*act)(void), long number) {
    stores_made = 0;
    stores_left = number;
    int was_killed = setjmp(killed);
    if (!was_killed) {
        act();
    }
    stores_left = -1;
    return was_killed;
}

/* The same from the state that was saved, by a writer that has just taken over. */
static int write_until(const kind_of_write *kind, long number) {
    restore(&saved);
    take_over();
    return do_until(kind->write, number);
}

static void check_taken_over(const view before[2], const view after[2], uint64_t published) {
    for (int i = 0; i < 2; i++) {
        view now;
        look(i, &now);
        if (after[i].ticks > before[i].ticks) { /* a trade: all or nothing, in all periods */
            CHECK(now.ticks == published);
            CHECK(same_rows(&now, published == after[i].ticks ? &after[i] : &before[i]));
        } else {
            check_between(&now, &before[i], &after[i]);
        }
        CHECK(same_gaps(&now, &before[i]) || same_gaps(&now, &after[i]));
        forget(&now);
    }
}

static uint64_t check_killed(const view before[2], const view after[2]) {
    uint64_t published = 0;
    for (int i = 0; i < 2; i++) {
        view now;
        look(i, &now);
        check_between(&now, &before[i], &after[i]);
        CHECK(same_gaps(&now, &before[i]) || same_gaps(&now, &after[i]));
        CHECK(same_reason(&now, &before[i]) || same_reason(&now, &after[i]));
        published = now.ticks;
        forget(&now);
    }
    return published;
}

/* The writer after the killed one is killed too, at some of its stores. */
static long kill_next_writer(const view before[2], const view after[2], uint64_t published) {
    long kills = 0;
    for (long number = kill_at % STRIDE; restore(&wounded), do_until(take_over, number); number += STRIDE) {
        take_over();
        check_taken_over(before, after, published);
        kills++;
    }
    return kills;
}

static long kill_everywhere(const kind_of_write *kind) {
    view before[2], after[2];
    long kills = 0;
    scenario = kind->name;
    kill_at = -1;
    restore(&saved);
    take_over();
    for (int i = 0; i < 2; i++) {
        look(i, &before[i]);
    }
    CHECK(!write_until(kind, -1));
    for (int i = 0; i < 2; i++) {
        look(i, &after[i]);
    }
    for (kill_at = 0; write_until(kind, kill_at); kill_at++) {
        save(&wounded);
        uint64_t published = check_killed(before, after);
        take_over();
        check_taken_over(before, after, published);
        next_second();
        CHECK(pk_head(&mapped[TICKS]) == published + 1);
        kills += 1 + kill_next_writer(before, after, published);
    }
    for (int i = 0; i < 2; i++) {
        forget(&before[i]);
        forget(&after[i]);
    }
    return kills;
}

/* ---- all of them ---------------------------------------------------------------------- */

static void fill(int seconds) {
    take_over();
    market.newest_ns = market.newest_ns ? market.newest_ns : SECOND0 * PK_NS;
    for (int i = 0; i < seconds || market.newest_ns / PK_NS % 60 < 52; i++) { /* a minute is about to end */
        if (i % 4 == 3) {
            flat_seconds();
        } else {
            trade(next_ns(PK_NS), 100 + i % 7);
        }
    }
    for (int64_t i = 1; i < 5; i++) {
        pk_add_gap(&market, i * 5 * PK_NS, i * 5 * PK_NS + 2 * PK_NS, "a gap", 0);
    }
    take_over();
    save(&saved);
}

int main(int count, char **arguments) {
    const kind_of_write *kind = kinds, *end = kinds + sizeof kinds / sizeof *kinds;
    CHECK(count == 3);
    while (kind < end && strcmp(kind->name, arguments[2])) {
        kind++;
    }
    CHECK(kind < end);
    for (int i = 0; i < RINGS; i++) {
        CHECK(snprintf(names[i], sizeof names[i], "%s.%d", arguments[1], i) < (int)sizeof names[i]);
    }
    stores_left = -1;
    create(SHORT, PK_BARS, 1);
    create(LONG, PK_BARS, 60);
    create(TICKS, PK_TICKS, 0);
    const int depths[] = {20, 200, 2000}; /* rings part full, bars just full, all round and round */
    for (size_t depth = 0; depth < DEPTHS; depth++) {
        fill(depths[depth]);
        printf("%s: killed %ld times\n", kind->name, kill_everywhere(kind));
        restore(&saved);
    }
    for (int i = 0; i < RINGS; i++) {
        CHECK(pk_remove_file(names[i]) == 0);
        pk_unmap(&mapped[i]);
        free(saved.bytes[i]);
        free(wounded.bytes[i]);
    }
    pk_ids_free(&market.ids);
    pk_chain_free(&chain);
    return 0;
}
