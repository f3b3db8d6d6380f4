/* A weak memory to run the core's headers on, and a search of all that it allows.
 *
 * Takes the place of core/atomics.h (gcc -include): the same names, but each load chooses
 * among the stores that the C11 memory model lets it see, and explore() runs a scenario
 * once for every sequence of choices. The model is the usual operational form of C11 with
 * release, acquire and sequentially consistent fences and without load buffering: a word
 * has a history of stores, each of them with the view that its reader acquires; a thread
 * has a view, a place in each history below which it reads no more.
 *
 * Of an item that is copied the first, second and last word are modelled: which words are
 * torn apart makes no difference to the protocol. Other words read as zero.
 */
#ifndef PK_ATOMICS_H
#define PK_ATOMICS_H

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PK_NS INT64_C(1000000000)

typedef uint64_t pk_word;
typedef uint32_t pk_half;
typedef uint64_t __attribute__((may_alias)) pk_bits;

enum { memory_order_relaxed = 0, memory_order_acquire = 1, memory_order_release = 2, memory_order_seq_cst = 7 };

/* ---- the search ----------------------------------------------------------------------- */

enum { CHOICES = 4096 };

static struct {
    uint8_t taken[CHOICES], among[CHOICES];
    int made, known;
    uint64_t runs;
    jmp_buf end; /* of a run */
} search;

static inline int choose(int among) {
    if (among < 2) {
        return 0;
    }
    if (search.made == search.known) {
        if (search.known == CHOICES) {
            fprintf(stderr, "a run makes more than %d choices\n", CHOICES);
            exit(2);
        }
        search.among[search.known] = (uint8_t)among;
        search.taken[search.known++] = 0;
    }
    return search.taken[search.made++];
}

/* What does not follow from here is of no interest, or was looked at before. */
static inline _Noreturn void prune(void) { longjmp(search.end, 1); }

static const char *scenario;

static inline _Noreturn void violate(const char *what) {
    printf("%s: VIOLATED after %llu runs: %s\n", scenario, (unsigned long long)search.runs, what);
    exit(1);
}

#define CHECK(truth) ((truth) ? (void)0 : violate(#truth))

/* ---- the memory ----------------------------------------------------------------------- */

enum { WORDS = 128, STORES = 48, THREADS = 4, BUCKETS = 512 };

typedef struct {
    uint8_t place[WORDS];
} view;

typedef struct {
    uint64_t value;
    view seen; /* by a thread that acquires it */
} store;

typedef struct {
    const void *address;
    size_t size;
    int count;
    uint64_t order; /* hash of what was stored, one after the other */
    store stores[STORES];
} history;

typedef struct {
    view now, acquired, released;
    uint64_t past; /* hash of all that it read and did: its local state follows from that */
    int newest;    /* reads the newest store always, as time brings about */
} weak_thread;

static history words[WORDS];
static int words_known;
static int16_t buckets[BUCKETS];
static weak_thread threads[THREADS];
static view fenced; /* by sequentially consistent fences */
static weak_thread *self; /* NULL: memory is memory, for what comes before */
static weak_thread *mortal; /* may be killed before each of its stores, once */
static void (*turn_over)(void); /* lets other threads run */
static int (*is_watched)(const void *address); /* threads meet there; elsewhere their order is all one */
static void (*on_copy)(const pk_word *to, const void *from, size_t count);

static inline uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static inline uint64_t mix_view(uint64_t hash, const view *seen) {
    uint64_t sum = 0; /* words are numbered as they are come upon */
    for (int i = 0; i < words_known; i++) {
        sum += seen->place[i] ? mix((uintptr_t)words[i].address, seen->place[i]) : 0;
    }
    return mix(hash, sum);
}

static inline void join(view *to, const view *from) {
    for (int i = 0; i < words_known; i++) {
        to->place[i] = to->place[i] > from->place[i] ? to->place[i] : from->place[i];
    }
}

static inline void forget_memory(void) {
    memset(buckets, -1, sizeof buckets);
    memset(threads, 0, sizeof threads);
    memset(&fenced, 0, sizeof fenced);
    words_known = 0;
    self = NULL;
    mortal = NULL;
    turn_over = NULL;
}

static const uint8_t *mirror; /* memory that is mapped a second time right behind itself */
static size_t mirrored;

static inline int find_word(const void *address, size_t size) {
    if (mirror && (const uint8_t *)address >= mirror + mirrored && (const uint8_t *)address < mirror + 2 * mirrored) {
        address = (const uint8_t *)address - mirrored;
    }
    unsigned bucket = (unsigned)(mix(0, (uintptr_t)address) >> 20) % BUCKETS;
    while (buckets[bucket] >= 0) {
        if (words[buckets[bucket]].address == address) {
            return buckets[bucket];
        }
        bucket = (bucket + 1) % BUCKETS;
    }
    if (words_known == WORDS) {
        fprintf(stderr, "%s uses more than %d words\n", scenario, WORDS);
        exit(2);
    }
    history *word = &words[words_known];
    word->address = address;
    word->size = size;
    word->count = 1;
    word->order = 0;
    memset(&word->stores[0], 0, sizeof word->stores[0]);
    memcpy(&word->stores[0].value, address, size);
    buckets[bucket] = (int16_t)words_known;
    return words_known++;
}

static inline void interleave(const void *address) {
    if (turn_over && (!address || is_watched(address))) {
        turn_over();
    }
}

static inline uint64_t weak_load(const void *address, size_t size, int order) {
    uint64_t value = 0;
    if (!self) {
        memcpy(&value, address, size);
        return value;
    }
    interleave(address);
    int number = find_word(address, size);
    history *word = &words[number];
    int oldest = self->newest ? word->count - 1 : self->now.place[number];
    int place = word->count - 1 - choose(word->count - oldest);
    self->now.place[number] = (uint8_t)place;
    join(&self->acquired, &self->now);
    join(&self->acquired, &word->stores[place].seen);
    if (order & memory_order_acquire) {
        join(&self->now, &word->stores[place].seen);
    }
    self->past = mix(self->past, (uint64_t)(number << 8 | place));
    return word->stores[place].value;
}

static inline void append_store(int number, uint64_t value, int order, const view *carried) {
    history *word = &words[number];
    if (word->count == STORES) {
        fprintf(stderr, "%s stores more than %d times to a word\n", scenario, STORES);
        exit(2);
    }
    store *next = &word->stores[word->count];
    self->now.place[number] = (uint8_t)word->count;
    next->value = value;
    next->seen = order & memory_order_release ? self->now : self->released;
    next->seen.place[number] = (uint8_t)word->count;
    if (carried) {
        join(&next->seen, carried);
    }
    join(&self->acquired, &self->now);
    self->past = mix(self->past, value);
    word->order = mix(word->order, value);
    if (turn_over) {
        word->order = mix_view(word->order, &next->seen);
    }
    word->count++;
}

static jmp_buf killed;

/* The thread may be killed before what it is about to do. */
static inline void may_die(const void *address) {
    if (self == mortal && (!turn_over || is_watched(address)) && choose(2)) {
        mortal = NULL;
        longjmp(killed, 1);
    }
}

static inline void weak_store(void *address, size_t size, uint64_t value, int order) {
    if (!self) {
        memcpy(address, &value, size);
        return;
    }
    interleave(address);
    may_die(address);
    append_store(find_word(address, size), value, order, NULL);
}

enum { SET, ADD, OR, SWAP_IF };

static inline uint64_t updated(uint64_t value, int how, uint64_t operand, uint64_t expected) {
    return how == ADD ? value + operand : how == OR ? value | operand : how == SWAP_IF && value != expected ? value : operand;
}

/* Reads the newest store and adds the next one, with nothing in between. */
static inline uint64_t weak_update(void *address, size_t size, int how, uint64_t operand, uint64_t expected, int order) {
    if (!self) {
        uint64_t was = 0, made = 0;
        memcpy(&was, address, size);
        made = updated(was, how, operand, expected);
        memcpy(address, &made, size);
        return was;
    }
    interleave(address);
    may_die(address);
    int number = find_word(address, size), newest = words[number].count - 1;
    uint64_t value = words[number].stores[newest].value;
    view seen = words[number].stores[newest].seen;
    self->now.place[number] = (uint8_t)newest;
    join(&self->acquired, &seen);
    if (order & memory_order_acquire) {
        join(&self->now, &seen);
    }
    self->past = mix(self->past, (uint64_t)(number << 8 | newest));
    if (how != SWAP_IF || value == expected) {
        append_store(number, updated(value, how, operand, expected), order, &seen);
    }
    return value;
}

static inline void atomic_thread_fence(int order) {
    if (!self) {
        return;
    }
    if (order == memory_order_seq_cst) {
        interleave(NULL);
    }
    if (order & memory_order_acquire) {
        self->now = self->acquired;
    }
    if (order == memory_order_seq_cst) {
        join(&self->now, &fenced);
        fenced = self->now;
        join(&self->acquired, &self->now);
        self->past = mix(self->past, UINT64_C(7));
    }
    if (order & memory_order_release) {
        self->released = self->now;
    }
}

/* All that was done by another is known: its death and a lock lie between. */
static inline void follow(weak_thread *next, const weak_thread *before) {
    next->now = before->now;
    join(&next->now, &before->acquired);
    next->acquired = next->now;
}

/* ---- the names of atomics.h ------------------------------------------------------------- */

#define atomic_load_explicit(word, order) weak_load((word), sizeof *(word), (order))
#define atomic_exchange_explicit(word, value, order) \
    (uint32_t)weak_update((word), sizeof *(word), SET, (value), 0, (order))
#define atomic_fetch_add_explicit(word, value, order) weak_update((word), sizeof *(word), ADD, (value), 0, (order))
#define atomic_fetch_or_explicit(word, value, order) weak_update((word), sizeof *(word), OR, (value), 0, (order))
#define atomic_compare_exchange_strong_explicit(word, expected, value, order, otherwise) \
    weak_swap((word), sizeof *(word), (expected), (value), (order))

static inline int weak_swap(void *word, size_t size, uint64_t *expected, uint64_t value, int order) {
    uint64_t was = weak_update(word, size, SWAP_IF, value, *expected, order);
    int done = was == *expected;
    *expected = was;
    return done;
}

static inline uint64_t pk_load(const pk_word *word) { return weak_load(word, 8, memory_order_relaxed); }
static inline uint64_t pk_load_acquire(const pk_word *word) { return weak_load(word, 8, memory_order_acquire); }
static inline void pk_store(pk_word *word, uint64_t value) { weak_store(word, 8, value, memory_order_relaxed); }
static inline void pk_store_release(pk_word *word, uint64_t value) { weak_store(word, 8, value, memory_order_release); }

static inline int is_modelled(size_t i, size_t count) {
    size_t item = count % 10 == 0 ? 10 : count % 8 == 0 && count < 64 ? 8 : count; /* rows; ticks, records */
    return i % item < 2 || i % item == item - 1;
}

static inline void pk_copy_in(pk_word *to, const void *from, size_t count) {
    if (on_copy) {
        on_copy(to, from, count);
    }
    for (size_t i = 0; i < count; i++) {
        if (is_modelled(i, count)) {
            pk_store(&to[i], ((const pk_bits *)from)[i]);
        }
    }
}

static inline void pk_copy_out(void *to, const pk_word *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ((pk_bits *)to)[i] = is_modelled(i, count) ? pk_load(&from[i]) : 0;
    }
}

static inline void pk_in_order(void) {} /* kills come in the order of the program here */

static inline int64_t pk_clock_ns(clockid_t clock) { return clock == CLOCK_REALTIME ? PK_NS : 0; }
static inline int64_t pk_wall_ns(void) { return PK_NS; }

/* Run a scenario for all choices. */
static inline void explore(const char *name, void (*run)(void)) {
    scenario = name;
    memset(&search, 0, sizeof search);
    do {
        search.made = 0;
        search.runs++;
        forget_memory();
        if (!setjmp(search.end)) {
            run();
        }
        search.known = search.made;
        while (search.known && search.taken[search.known - 1] + 1 == search.among[search.known - 1]) {
            search.known--;
        }
        if (search.known) {
            search.taken[search.known - 1]++;
        }
    } while (search.known);
    printf("%s: %llu runs\n", name, (unsigned long long)search.runs);
    fflush(stdout);
}

#endif
