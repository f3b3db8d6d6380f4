/* One writer and several readers on one mapped segment, bounded by counts, no Python.
 *
 *     stress NAME SEGMENT-ROWS WRITES READERS
 *
 * Makes a ring of bars and a ring of ticks under /dev/shm, attaches readers, and lets a writer thread append, rewrite, prepend and publish while reader threads
 * check everything they copy. Every field of a row or tick follows from two numbers in it,
 * so a torn copy shows. Meant for sanitizers.
 */
#include "recover.h"
#include "wake.h"
#include "lock.h"
#include <pthread.h>

#define CHECK(truth)                                                              \
    do {                                                                          \
        if (!(truth)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #truth);           \
            abort();                                                              \
        }                                                                         \
    } while (0)

enum { HISTORY = 64, READERS_MOST = 16 };

typedef struct {
    pk_segment bars, ticks;
    uint64_t rows, windows, polled, lost, gaps, reasons, waits;
} reader;

static pk_bars bars;
static pk_ticks ticks;
static uint64_t writes;
static atomic_int running;

/* ---- what a row and a tick say -------------------------------------------------------- */

static pk_row row_of(uint64_t sequence, uint64_t version) {
    double price = (double)(sequence % 100003) + 1;
    return (pk_row){
        .index = (int64_t)sequence, .time = (int64_t)(sequence % (PK_START / 2)),
        .open = price, .high = price + (double)version, .low = price - (double)version,
        .close = price * (double)version, .volume = (double)(sequence + version),
        .count = (int64_t)version, .wap = price, .flags = (int64_t)(version % 64),
    };
}

static void check_row(const pk_row *row, uint64_t sequence) {
    pk_row expected = row_of(sequence, (uint64_t)row->count);
    CHECK(!memcmp(row, &expected, sizeof expected));
}

static pk_tick tick_of(uint64_t number) {
    return (pk_tick){
        .sequence = number, .time_ns = (int64_t)(number * 3), .recv_ns = (int64_t)(number * 5),
        .price = (double)number, .size = (double)number / 2, .id = (int64_t)(number * 7),
        .market = (uint32_t)(number % 3), .count = 1, .type = PK_TRADE,
        .side = (int8_t)(number % 2 ? 1 : -1),
    };
}

/* ---- the segments --------------------------------------------------------------------- */

static void create(const char *name, uint32_t kind, uint64_t capacity, pk_segment *out) {
    pk_identity id = {.magic = PK_MAGIC, .version = PK_VERSION, .kind = kind, .period = 1};
    char why[256];
    id.item_size = 8 * (kind == PK_BARS ? PK_ROW_WORDS : PK_TICK_WORDS);
    id.capacity = pk_round_capacity(capacity, id.item_size);
    id.table_capacity = 8;
    pk_lay_out(&id);
    int fd = pk_create_file(name, id.total_size, id.stamp_offset);
    CHECK(fd >= 0);
    CHECK(pk_write_header(fd, &id) == 0);
    snprintf(out->name, sizeof out->name, "%s", name);
    CHECK(pk_map(fd, &id, 1, 1, out, why, sizeof why) == PK_OK);
    close(fd);
}

static void attach(const char *name, uint32_t kind, pk_segment *out) {
    pk_identity id;
    char why[256];
    CHECK(pk_attach(name, kind, out, &id, why, sizeof why) == PK_OK);
    CHECK(pk_attach(name, PK_BARS + PK_TICKS - kind, &(pk_segment){0}, &id, why, sizeof why) ==
          PK_REFUSED);
}

/* ---- the writer ----------------------------------------------------------------------- */

static void write_once(uint64_t n, uint64_t *version) {
    pk_side side = {.folded = n};
    if (n % 4 == 0) {
        pk_row row = row_of(bars.head, 1);
        CHECK(pk_reserve(&bars.segment, bars.head, bars.head + 1) == 0);
        pk_append(&bars, &row, &side);
        *version = 1;
    } else {
        uint64_t sequence = n % 4 == 3 && bars.head - bars.first > 2 ? bars.head - 2 : bars.head - 1;
        uint64_t next = sequence == bars.head - 1 ? ++*version : n;
        pk_row row = row_of(sequence, next);
        pk_rewrite(&bars, sequence, &row, &side);
    }
    char cause[40];
    snprintf(cause, sizeof cause, "cause %llu", (unsigned long long)n);
    pk_put_gap(&bars.segment, (int64_t)(n / 16), (int64_t)(n / 16 + n), cause, (int)(n % 2));
    pk_write_reason(&bars.segment, n, cause, strlen(cause));
    pk_tick tick = tick_of(ticks.head);
    CHECK(pk_reserve(&ticks.segment, ticks.head, ticks.head + 1) == 0);
    pk_publish_tick(&ticks, &tick);
    pk_wake(&bars.segment);
    pk_wake(&ticks.segment);
}

static void *write_all(void *unused) {
    pk_row history[HISTORY];
    pk_side sides[HISTORY] = {{0}};
    uint64_t version = 1;
    for (int i = 0; i < HISTORY; i++) {
        history[i] = row_of(bars.first - HISTORY + (uint64_t)i, 1);
    }
    CHECK(pk_reserve(&bars.segment, bars.first - HISTORY, bars.head) == 0);
    pk_prepend(&bars, history, sides, HISTORY);
    for (uint64_t n = 0; n < writes; n++) {
        write_once(n, &version);
    }
    atomic_store(&running, 0);
    pk_wake_all(&bars.segment);
    pk_wake_all(&ticks.segment);
    return unused;
}

/* ---- the readers ---------------------------------------------------------------------- */

static void read_rows(reader *r, uint64_t *newest) {
    uint64_t first, head, found;
    pk_row rows[64];
    CHECK(pk_extent(&r->bars, &first, &head) == PK_OK);
    CHECK(head >= *newest);
    *newest = head;
    if (head == first) {
        return;
    }
    uint64_t from = head - first > 64 ? head - 64 : first, start = from;
    CHECK(pk_read_rows(&r->bars, &start, head, rows) == PK_OK);
    for (uint64_t i = start; i < head; i++) {
        check_row(&rows[i - start], i);
        r->rows++;
    }
    uint64_t clock = pk_clock(&r->bars);
    r->windows += (uint64_t)pk_intact(&r->bars, head - 1, 1, clock);
    if (from > PK_START) {
        CHECK(pk_search(&r->bars, first, head, (int64_t)(from % (PK_START / 2)), &found) == PK_OK);
        CHECK(found >= from);
    }
}

static void read_ticks(reader *r, uint64_t *place) {
    pk_tick copied[256];
    uint64_t head = pk_head(&r->ticks), first = pk_ticks_first(&r->ticks), whole;
    if (first > head) {
        first = head;
    }
    if (first > *place) {
        r->lost += first - *place;
        *place = first;
    }
    uint64_t count = head - *place < 256 ? head - *place : 256;
    pk_read_ticks(&r->ticks, *place, count, copied, &whole);
    for (uint64_t i = 0; i < count; i++) {
        if (*place + i < whole) {
            r->lost++;
        } else {
            pk_tick expected = tick_of(*place + i);
            CHECK(!memcmp(&copied[i], &expected, sizeof expected));
            r->polled++;
        }
    }
    *place += count;
}

static void read_gaps(reader *r) {
    pk_gap gaps[8];
    uint64_t known;
    CHECK(pk_read_gaps(&r->bars, gaps, &known) == PK_OK && known < 8);
    for (uint64_t i = 0; i < known; i++) {
        char cause[40], told[40];
        uint64_t start = pk_load(&gaps[i].start_ns), n = pk_load(&gaps[i].end_ns) - start;
        snprintf(cause, sizeof cause, "cause %llu", (unsigned long long)n);
        pk_copy_out(told, gaps[i].cause, 5);
        CHECK(start == n / 16 && !strcmp(told, cause));
        CHECK(pk_load(&gaps[i].repaired) == n % 2);
        r->gaps++;
    }
}

static void read_reason(reader *r) {
    char cause[40], told[PK_REASON];
    uint64_t n;
    if (pk_read_reason(&r->bars, &n, told) == PK_OK) {
        snprintf(cause, sizeof cause, "cause %llu", (unsigned long long)n);
        CHECK(!strcmp(told, cause) || (!n && !told[0]));
        r->reasons++;
    }
}

static void *read_all(void *argument) {
    reader *r = argument;
    uint64_t newest = 0, place = 0;
    for (uint64_t turn = 0; atomic_load(&running); turn++) {
        read_rows(r, &newest);
        read_ticks(r, &place);
        for (int again = 0; again < 8; again++) {
            read_gaps(r);
            read_reason(r);
        }
        if (turn % 64 == 0) {
            int64_t limit = pk_clock_ns(CLOCK_MONOTONIC) + PK_NS / 50;
            CHECK(pk_wait_head(&r->ticks, place, limit) == 0);
            r->waits++;
        }
    }
    while (place < pk_head(&r->ticks)) {
        read_ticks(r, &place);
    }
    CHECK(r->lost + r->polled == writes);
    return NULL;
}

/* ---- all together --------------------------------------------------------------------- */

static void check_resumed(void) {
    pk_bars next = {.segment = bars.segment};
    pk_ticks after = {.segment = ticks.segment};
    CHECK(pk_resume_bars(&next) == PK_OK && pk_resume_ticks(&after) == PK_OK);
    CHECK(next.head == bars.head && next.first == bars.first && after.head == ticks.head);
    check_row(&next.row, next.head - 1);
}

int main(int count, char **arguments) {
    CHECK(count == 5);
    int readers = atoi(arguments[4]);
    char tick_name[64];
    reader every[READERS_MOST] = {0};
    pthread_t threads[READERS_MOST + 1];
    CHECK(readers > 0 && readers <= READERS_MOST);
    CHECK(snprintf(tick_name, sizeof tick_name, "%s.t", arguments[1]) < (int)sizeof tick_name);
    writes = strtoull(arguments[3], NULL, 10);
    create(arguments[1], PK_BARS, strtoull(arguments[2], NULL, 10), &bars.segment);
    create(tick_name, PK_TICKS, strtoull(arguments[2], NULL, 10), &ticks.segment);
    CHECK(pk_resume_bars(&bars) == PK_OK && pk_resume_ticks(&ticks) == PK_OK);
    pk_lock lock = {.fd = -1}, second = {.fd = -1};
    CHECK(pk_watch_forks() == 0);
    CHECK(pk_take_lock(&lock, tick_name) == 0 && pk_take_lock(&second, tick_name) == EAGAIN);
    CHECK(pk_lock_held(tick_name));
    for (int i = 0; i < readers; i++) {
        if (i % 2) { /* the thread sanitizer sees races at one address only */
            attach(arguments[1], PK_BARS, &every[i].bars);
            attach(tick_name, PK_TICKS, &every[i].ticks);
        } else {
            every[i].bars = bars.segment;
            every[i].ticks = ticks.segment;
        }
    }
    atomic_store(&running, 1);
    for (int i = 0; i < readers; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_all, &every[i]) == 0);
    }
    CHECK(pthread_create(&threads[readers], NULL, write_all, NULL) == 0);
    for (int i = 0; i <= readers; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    check_resumed();
    pk_drop_lock(&lock);
    CHECK(!pk_lock_held(tick_name));
    CHECK(pk_remove_file(arguments[1]) == 0 && pk_remove_file(tick_name) == 0);
    for (int i = 0; i < readers; i++) {
        CHECK(every[i].rows && every[i].polled && every[i].reasons);
        printf("rows %llu windows %llu polled %llu lost %llu gaps %llu reasons %llu waits %llu\n",
               (unsigned long long)every[i].rows, (unsigned long long)every[i].windows,
               (unsigned long long)every[i].polled, (unsigned long long)every[i].lost,
               (unsigned long long)every[i].gaps, (unsigned long long)every[i].reasons,
               (unsigned long long)every[i].waits);
        if (i % 2) {
            pk_unmap(&every[i].bars);
            pk_unmap(&every[i].ticks);
        }
    }
    pk_unmap(&bars.segment);
    pk_unmap(&ticks.segment);
    return 0;
}
