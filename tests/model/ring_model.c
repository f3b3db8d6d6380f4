/* The ring protocol on a weak memory: every execution of small scenarios, with kills.
 *
 *     ring_model [SCENARIO]      all that are quick first; ends with 1 at a violation
 *
 * A writer runs and may be killed before any of its stores; another may take over and be
 * killed too; then a reader reads, each load choosing among all that it may see. As no
 * writer reads what a reader of rows writes, a reader beside the writer sees nothing else.
 */
#include "weak.h"
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
static int pk_futex_wait(const pk_half *word, uint32_t expected, int64_t timeout_ns);
static void pk_futex_wake(pk_half *word);
static ssize_t weak_sendto(const struct sockaddr_un *address);
#define close(fd) ((void)(fd))
#define socket(...) 3
#define sendto(from, bytes, count, flags, address, length) ((void)(length), weak_sendto((const struct sockaddr_un *)(address)))
#define PK_TRIES 1
#include "wake.h"
#include "recover.h"

enum { CAPACITY = 3, TABLE = 4, SEQUENCES = 16, LOG = 64, TOLD = 3 };
#define FLOOR_SEQUENCE (PK_START - 8)

/* ---- a segment, and what was written to it --------------------------------------------- */

typedef struct {
    pk_header header;
    pk_wait_page waits;
    pk_word stamps[CAPACITY], sides[CAPACITY * PK_SIDE_WORDS];
    pk_word items[2 * CAPACITY * PK_ROW_WORDS], table[TABLE * 8];
} memory;

static memory ram, fresh;
static pk_segment segment;

/* What is there at some moment: for each sequence the newest version that is finished. */
typedef struct {
    int version[SEQUENCES];
    uint64_t head;
} known;

typedef struct {
    uint64_t sequence, number;
    int version;
} row_write;

static const known newest_of_none;
static known newest, at_head[SEQUENCES], at_first[SEQUENCES], at_generation[8], at_status[8];
static row_write row_writes[LOG];
static int row_writes_made, last_version;
static uint64_t generations;
static int recovers;

static int place_of(uint64_t sequence) { return (int)(sequence - FLOOR_SEQUENCE); }

static pk_row row_of(uint64_t sequence, int version) {
    pk_row row = {.index = (int64_t)sequence, .flags = version};
    row.time = (int64_t)(place_of(sequence) * 100 + version);
    return row;
}

static int version_of(const pk_row *row, uint64_t sequence) {
    pk_row whole = row_of(sequence, (int)row->flags);
    CHECK(row->index == whole.index && row->time == whole.time); /* not torn */
    return (int)row->flags;
}

/* Called for each copy into shared memory: takes note of row writes with their numbers. */
static void note_copy(const pk_word *to, const void *from, size_t count) {
    const pk_row *row = from;
    if (count == PK_ROW_WORDS && to >= ram.items && to < ram.items + CAPACITY * PK_ROW_WORDS) {
        const pk_word *stamp = &ram.stamps[(uint64_t)row->index % CAPACITY];
        const history *stamps = self ? &words[find_word(stamp, 8)] : NULL;
        uint64_t number = ((stamps ? stamps->stores[stamps->count - 1].value : *stamp) + 1) / 2;
        row_writes[row_writes_made++] = (row_write){(uint64_t)row->index, number, (int)row->flags};
    }
}

static void start(uint32_t kind, uint32_t capacity) {
    on_copy = note_copy;
    mirror = (const uint8_t *)ram.items;
    mirrored = capacity * 8 * (kind == PK_BARS ? PK_ROW_WORDS : PK_TICK_WORDS);
    memset(&fresh, 0, sizeof fresh);
    segment = (pk_segment){.base = (uint8_t *)&ram, .header = &ram.header, .waits = &ram.waits,
                           .stamps = ram.stamps, .sides = ram.sides, .items = ram.items,
                           .table = (uint8_t *)ram.table, .capacity = capacity, .kind = kind, .period = 1,
                           .item_words = kind == PK_BARS ? PK_ROW_WORDS : PK_TICK_WORDS,
                           .table_capacity = TABLE, .can_wait = 1};
    if (kind == PK_BARS) {
        pk_store(&fresh.header.head, PK_START);
        pk_store(&fresh.header.first, PK_START);
    }
    memcpy(&ram, &fresh, sizeof ram);
    memset(&newest, 0, sizeof newest);
    memset(at_head, 0, sizeof at_head);
    memset(at_first, 0, sizeof at_first);
    memset(at_generation, 0, sizeof at_generation);
    memset(at_status, 0, sizeof at_status);
    row_writes_made = last_version = 0;
    generations = 0;
    recovers = 0;
}

/* ---- writers of bars -------------------------------------------------------------------- */

static void append(pk_bars *b) {
    pk_row row = row_of(b->head, ++last_version);
    newest.version[place_of(b->head)] = last_version;
    at_head[place_of(b->head + 1)] = newest;
    pk_append(b, &row, &(pk_side){0});
}

static void rewrite(pk_bars *b, uint64_t sequence) {
    pk_row row = row_of(sequence, ++last_version);
    int version = last_version;
    pk_rewrite(b, sequence, &row, &(pk_side){0});
    newest.version[place_of(sequence)] = version;
}

static void prepend(pk_bars *b, uint64_t count) {
    pk_row rows[CAPACITY];
    uint64_t room = CAPACITY - (b->head - b->first);
    count = count < room ? count : room;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t sequence = b->first - count + i;
        rows[i] = row_of(sequence, ++last_version);
        newest.version[place_of(sequence)] = last_version;
    }
    known *told = &at_first[place_of(b->first - count)];
    if (count && !told->version[place_of(b->first)]) { /* a killed append may raise it again */
        *told = newest;
    }
    pk_prepend(b, rows, (pk_side[CAPACITY]){{0}}, count);
}

static void set_status(pk_bars *b, int status) {
    pk_market market = {.bars = {b}, .periods = 1, .status = PK_STARTING};
    newest.head = b->head;
    at_status[status] = newest;
    pk_set_status(&market, status, "");
}

static void resume(pk_bars *b) {
    *b = (pk_bars){.segment = segment};
    CHECK(pk_resume_bars(b) == PK_OK);
    for (uint64_t i = b->first; i < b->head; i++) {
        pk_row row;
        pk_own_row(b, i, &row, NULL);
        newest.version[place_of(i)] = version_of(&row, i);
    }
    if (recovers) {
        append(b); /* a row of ticks that the one before had published and not folded */
    }
    newest.head = b->head;
    at_generation[++generations] = newest;
    pk_open_generation(&segment);
}

static void fill(pk_bars *b, int rows) {
    start(PK_BARS, CAPACITY);
    resume(b);
    for (int i = 0; i < rows; i++) {
        append(b);
    }
    memset(at_head, 0, sizeof at_head); /* nobody saw them come */
}

static void rewrite_newest(pk_bars *b) { rewrite(b, b->head - 1); }

static void rewrites(pk_bars *b) {
    rewrite(b, b->head - 1);
    rewrite(b, b->head - 1);
}

static void rewrites_thrice(pk_bars *b) {
    rewrites(b);
    rewrite_newest(b);
}

static void rewrites_in_turn(pk_bars *b) {
    rewrite(b, b->head - 1);
    rewrite(b, b->head - 2);
    rewrite(b, b->head - 1);
}

static void appends(pk_bars *b) {
    append(b);
    append(b);
}

static void appends_and_rewrites(pk_bars *b) {
    rewrite(b, b->head - 1);
    append(b);
    rewrite(b, b->head - 1);
}

static void prepends(pk_bars *b) {
    prepend(b, 2);
    append(b);
}

static void changes_status(pk_bars *b) {
    append(b);
    set_status(b, PK_LIVE);
    rewrite(b, b->head - 1);
    set_status(b, PK_STALE);
}

/* One writer, killed somewhere or not; then, or not, another one, which may be killed. */
static void write_as(void (*write)(pk_bars *), pk_bars *b, int after) {
    pk_bars next;
    for (int i = 0; i <= after; i++) {
        self = &threads[i];
        if (i) {
            if (!choose(2)) {
                break; /* readers find what the killed one left */
            }
            follow(self, &threads[i - 1]);
        }
        mortal = self;
        if (!setjmp(killed)) {
            if (i) {
                resume(&next);
                b = &next;
            }
            write(b);
        }
        mortal = NULL;
    }
    self = &threads[THREADS - 1];
}

/* ---- readers of bars -------------------------------------------------------------------- */

/* The newest version of a row among the finished writes up to a number. */
static int version_at(uint64_t sequence, uint64_t number) {
    const history *stamp = &words[find_word(&ram.stamps[sequence % CAPACITY], 8)];
    int version = -1;
    for (int i = 0; i < row_writes_made; i++) {
        for (int k = 0; k < stamp->count && row_writes[i].sequence == sequence; k++) {
            if (row_writes[i].number <= number && stamp->stores[k].value == 2 * row_writes[i].number) {
                version = row_writes[i].version;
            }
        }
    }
    return version;
}

/* The newest stamp that this reader has seen of a row's slot. */
static uint64_t stamp_seen(uint64_t sequence) {
    int number = find_word(&ram.stamps[sequence % CAPACITY], 8);
    return words[number].stores[self->now.place[number]].value;
}

static void read_row(uint64_t sequence, const known *then, int before, int *version) {
    pk_row row;
    uint64_t stamp = stamp_seen(sequence);
    CHECK(version_at(sequence, stamp / 2) > 0); /* a row that is told of is known to be there */
    int status = pk_read_row(&segment, sequence, &row);
    if (status == PK_REFUSED) { /* a try in vain: only because a write was seen to be under way */
        CHECK(!self->newest && (stamp_seen(sequence) % 2 || stamp_seen(sequence) != stamp));
    }
    CHECK(status != PK_LAPPED || !self->newest);
    if (status != PK_OK) {
        prune();
    }
    *version = version_of(&row, sequence);
    for (int i = 0; i < TOLD; i++) { /* no older than what told of it */
        CHECK(*version >= then[i].version[place_of(sequence)]);
    }
    CHECK(*version >= version_at(sequence, stamp_seen(sequence) / 2));
    CHECK(*version >= before); /* time does not run backwards */
}

static void read_extent(uint64_t *first, uint64_t *head, known *by_head, known *by_first) {
    int status = pk_extent(&segment, first, head);
    if (status != PK_OK && !self->newest) {
        CHECK(*first <= *head && *head < 2 * PK_START);
        prune();
    }
    CHECK(status == PK_OK);
    *by_head = at_head[place_of(*head)];
    *by_first = at_first[place_of(*first)];
    if (*first == *head) {
        prune();
    }
}

static void read_after(const known *then) {
    known told[TOLD] = {0};
    uint64_t first, head;
    int version;
    read_extent(&first, &head, &told[0], &told[1]);
    told[2] = *then;
    CHECK(head >= then->head);
    read_row(first + (uint64_t)choose((int)(head - first)), told, 0, &version);
}

static void read_rows(void) { read_after(&newest_of_none); }

static void recover_and_rewrite(pk_bars *b) { recovers ? rewrite_newest(b) : (void)(recovers = 1); }

static void read_after_generation(void) { read_after(&at_generation[pk_generation(&segment)]); }

static void read_after_status(void) { read_after(&at_status[pk_read_status(&segment)]); }

static void read_twice(void) {
    known told[TOLD] = {0};
    uint64_t first, head;
    int version, again;
    read_extent(&first, &head, &told[0], &told[1]);
    uint64_t sequence = first + (uint64_t)choose((int)(head - first));
    read_row(sequence, told, 0, &version);
    read_row(sequence, told, version, &again);
}

/* All rows, as they are at last: nothing holds the reader up, whatever became of the writers. */
static void read_at_last(void) {
    known then[TOLD] = {0};
    uint64_t first, head;
    int version;
    self->newest = 1;
    read_extent(&first, &head, &then[0], &then[1]);
    for (uint64_t i = first; i < head; i++) {
        read_row(i, then, 0, &version);
    }
}

/* Rows in place; if they are intact they are those of one moment. */
static void read_window(void) {
    known then[TOLD] = {0};
    uint64_t first, head;
    pk_row rows[CAPACITY];
    uint64_t clock = pk_clock(&segment);
    read_extent(&first, &head, &then[0], &then[1]);
    first = head - first > 2 ? head - 2 : first;
    for (uint64_t i = first; i < head; i++) {
        pk_copy_out(&rows[i - first], pk_row_words(&segment, i), PK_ROW_WORDS);
    }
    if (pk_intact(&segment, first, head - first, clock)) {
        for (uint64_t i = first; i < head; i++) {
            CHECK(version_of(&rows[i - first], i) == version_at(i, clock));
        }
    }
}

/* ---- all else that is written, and sleepers ---------------------------------------------- */

#include "records.h"
#include "sleepers.h"

/* ---- all of them ------------------------------------------------------------------------ */

#define BARS(name, rows, write, read, after)  \
    static void name(void) {                  \
        static pk_bars b;                     \
        fill(&b, rows);                       \
        write_as(write, &b, after);           \
        read();                               \
    }

BARS(rewrites_rows, 2, rewrites, read_rows, 1)
BARS(rewrites_generation, 2, recover_and_rewrite, read_after_generation, 1)
BARS(rewrites_thrice_rows, 1, rewrites_thrice, read_rows, 0)
BARS(rewrites_twice, 2, rewrites, read_twice, 0)
BARS(rewrites_window, 2, rewrites, read_window, 1)
BARS(in_turn_rows, 2, rewrites_in_turn, read_rows, 0)
BARS(in_turn_twice, 2, rewrites_in_turn, read_twice, 0)
BARS(in_turn_window, 2, rewrites_in_turn, read_window, 0)
BARS(laps_rows, 3, appends, read_rows, 1)
BARS(laps_window, 3, appends, read_window, 1)
BARS(mixed_rows, 2, appends_and_rewrites, read_rows, 0)
BARS(mixed_window, 3, appends_and_rewrites, read_window, 0)
BARS(prepends_rows, 1, prepends, read_rows, 1)
BARS(prepends_window, 1, prepends, read_window, 1)
BARS(status_rows, 1, changes_status, read_after_status, 0)
BARS(at_last_rewrites, 2, rewrites_in_turn, read_at_last, 2)
BARS(at_last_mixed, 3, appends_and_rewrites, read_at_last, 2)
BARS(at_last_prepends, 1, prepends, read_at_last, 2)

static void in_gaps(void (*write)(pk_bars *), int after) {
    static pk_bars b;
    fill_gaps(&b);
    write_as(write, &b, after);
    read_gaps();
}

static void gaps_changed(void) { in_gaps(changes_gap, 1); }
static void gaps_added(void) { in_gaps(adds_gaps, 0); }

static void description(void) {
    static pk_bars b;
    fill(&b, 1);
    write_about('a');
    write_as(describes, &b, 1);
    read_about();
}

static void reason(void) {
    static pk_bars b;
    fill(&b, 1);
    write_reason('a');
    write_as(explains, &b, 1);
    read_reason();
}

static void in_tick_ring(void (*write)(void), void (*read)(void), int after) {
    start(PK_TICKS, CAPACITY - 1);
    for (int i = 0; i <= after && (!i || choose(2)); i++) {
        self = &threads[i];
        if (i) {
            follow(self, &threads[i - 1]);
        }
        mortal = self;
        if (!setjmp(killed)) {
            write();
        }
        mortal = NULL;
    }
    self = &threads[THREADS - 1];
    read();
}

static void ticks(void) { in_tick_ring(write_ticks, read_ticks, 1); }
static void market_names(void) { in_tick_ring(write_names, read_names, 1); }

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"rows, recovered", rewrites_generation},
    {"rows, rewritten, read twice", rewrites_twice},
    {"rows, rewritten thrice", rewrites_thrice_rows},
    {"rows, rewritten in turn", in_turn_rows},
    {"rows, rewritten in turn, read twice", in_turn_twice},
    {"window, rewritten in turn", in_turn_window},
    {"rows, lapped", laps_rows},
    {"window, lapped", laps_window},
    {"rows, appended and rewritten", mixed_rows},
    {"window, appended and rewritten", mixed_window},
    {"rows, prepended", prepends_rows},
    {"window, prepended", prepends_window},
    {"rows, status", status_rows},
    {"at last, prepended", at_last_prepends},
    {"gap records, added", gaps_added},
    {"description", description},
    {"reason of a status", reason},
    {"ticks", ticks},
    {"market names", market_names},
    {"thread asleep", thread_and_writer},
    {"thread asleep, writer killed", thread_and_killed_writer},
    {"event loop asleep", loop_and_writer},
    {"event loop asleep, writer killed", loop_and_killed_writer},
    {"window, rewritten", rewrites_window},
    {"gap records, changed", gaps_changed},
    {"thread and event loop asleep", both_and_writer},
    {"at last, appended and rewritten", at_last_mixed},
    {"at last, rewritten", at_last_rewrites},
    {"rows, rewritten", rewrites_rows},
};

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (count < 2 || !strcmp(arguments[1], scenarios[i].name)) {
            explore(scenarios[i].name, scenarios[i].run);
        }
    }
    return 0;
}
