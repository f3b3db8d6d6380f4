/* Gap records, the description, reasons, ticks and market names: their writers and readers. */
#ifndef RECORDS_H
#define RECORDS_H

static void put_gap(pk_segment *s, int number, int version) {
    pk_put_gap(s, number * 1000, number * 1000 + version, "cut", version % 2);
}

static void changes_gap(pk_bars *b) {
    put_gap(&b->segment, 2, 2);
    put_gap(&b->segment, 2, 3);
}

static void adds_gaps(pk_bars *b) {
    put_gap(&b->segment, 3, 1);
    put_gap(&b->segment, 4, 1);
}

static void fill_gaps(pk_bars *b) {
    fill(b, 1);
    for (int i = 0; i < 3; i++) {
        put_gap(&segment, i, 1);
    }
}

static void read_gaps(void) {
    pk_gap found[TABLE];
    uint64_t known_gaps, first = 0;
    self->newest = choose(2);
    if (pk_read_gaps(&segment, found, &known_gaps) != PK_OK) {
        CHECK(!self->newest);
        prune();
    }
    CHECK(known_gaps == 3);
    for (uint64_t i = 0; i < known_gaps; i++) {
        uint64_t number = (uint64_t)found[i].start_ns / 1000, version = found[i].end_ns % 1000;
        CHECK(found[i].start_ns % 1000 == 0 && found[i].end_ns / 1000 == number);
        CHECK(version >= 1 && version <= 3 && found[i].repaired == version % 2);
        CHECK(!i || number == first + i);
        first = i ? first : number;
    }
}

static void write_about(int letter) {
    char text[PK_ABOUT];
    memset(text, letter, sizeof text);
    pk_write_about(&segment, text, 16);
}

static void describes(pk_bars *b) {
    (void)b;
    write_about('b');
    write_about('c');
}

static void read_about(void) {
    char text[PK_ABOUT];
    self->newest = choose(2);
    if (pk_read_about(&segment, text) != PK_OK) {
        prune(); /* until the next writer has said it anew */
    }
    CHECK(text[0] == 'a' || text[0] == 'b' || text[0] == 'c');
    for (int i = 0; i < 16; i++) {
        CHECK(text[i] == text[0]);
    }
}

static void write_reason(int letter) {
    char text[PK_REASON];
    memset(text, letter, sizeof text);
    pk_write_reason(&segment, (uint64_t)letter, text, sizeof text);
}

static void explains(pk_bars *b) {
    (void)b;
    write_reason('b');
    write_reason('c');
    write_reason('d');
}

static void read_reason(void) {
    char text[PK_REASON];
    uint64_t status;
    self->newest = choose(2);
    if (pk_read_reason(&segment, &status, text) != PK_OK) {
        CHECK(!self->newest); /* a killed writer leaves the one before */
        prune();
    }
    CHECK(status >= 'a' && status <= 'd');
    for (int i = 0; i < 7; i++) { /* its first word, and its last but the zero */
        CHECK(text[i] == (char)status && text[PK_REASON - 8 + i] == (char)status);
    }
}

static pk_tick tick_of(uint64_t sequence) {
    return (pk_tick){.sequence = sequence, .time_ns = (int64_t)sequence + 50, .type = (uint16_t)(sequence + 90)};
}

static void publish(pk_ticks *t) {
    pk_tick tick = tick_of(t->head);
    pk_publish_tick(t, &tick);
}

static void write_ticks(void) {
    pk_ticks ticks = {.segment = segment};
    CHECK(pk_resume_ticks(&ticks) == PK_OK);
    for (int i = 0; i < 3; i++) {
        publish(&ticks);
    }
}

static void read_ticks(void) {
    pk_tick found[CAPACITY];
    uint64_t head = pk_head(&segment), first = pk_ticks_first(&segment), whole;
    first = first > head ? head : first;
    uint64_t count = head - first < 2 ? head - first : 2, from = choose(2) ? first : head - count;
    CHECK(count <= segment.capacity);
    pk_read_ticks(&segment, from, count, found, &whole);
    for (uint64_t i = 0; i < count; i++) {
        pk_tick wanted = tick_of(from + i);
        CHECK(from + i < whole || !memcmp(&found[i], &wanted, sizeof wanted));
    }
}

static const char *const names[] = {"aaaaaaaaaaaaa", "bbbbbbbbbbbb", "ccccccccccc"};

static void write_names(void) {
    uint64_t place;
    for (int i = 0; i < 3; i++) {
        if (pk_find_name(&segment, names[i], &place) == PK_MISSING) {
            place = pk_add_name(&segment, names[i]);
        }
        CHECK(place == (uint64_t)i);
    }
}

static void read_names(void) {
    char name[PK_TABLE_ITEM];
    uint64_t count = pk_names(&segment);
    CHECK(count <= 3);
    for (uint64_t i = 0; i < count; i++) {
        pk_read_name(&segment, i, name);
        CHECK(!strcmp(name, names[i]));
    }
}

#endif
