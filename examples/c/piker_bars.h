/* Bars of piker-core in C, from docs/shm-format.md alone: one header, no library.
 *
 *     piker_bars bars;
 *     const char *refused = piker_attach(&bars, "piker", "xbtusd.kraken", 1);
 *     while (piker_wait(&bars, next, 1000)) ... piker_read(&bars, next, &row) ...
 *
 * Reads while the writer writes, is killed, or is taken over from. For Linux, C11.
 */
#ifndef PIKER_BARS_H
#define PIKER_BARS_H

#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef _Atomic uint64_t piker_word;

typedef struct {
    int64_t index, time;
    double open, high, low, close, volume;
    int64_t count;
    double wap;
    int64_t flags;
} piker_row;

typedef struct {
    uint8_t *base;
    uint64_t capacity, stamps, items, size;
    int writable; /* the wait page is */
} piker_bars;

enum { PIKER_ROW, PIKER_GONE, PIKER_DAMAGED };

static inline uint64_t piker_hash(const void *bytes, size_t count, uint64_t hash) {
    for (const uint8_t *byte = bytes; count--; byte++) {
        hash = (hash ^ *byte) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static inline piker_word *piker_at(const piker_bars *bars, uint64_t offset) {
    return (piker_word *)(void *)(bars->base + offset);
}

static inline uint64_t piker_get(const void *header, size_t offset, size_t size) {
    uint64_t value = 0;
    memcpy(&value, (const uint8_t *)header + offset, size);
    return value;
}

static inline uint64_t piker_pages(uint64_t size, uint64_t page) { return (size + page - 1) / page * page; }

/* Is it a ring of bars of layout version 1, true of a file of this size? A sentence if not. */
static inline const char *piker_check(const uint8_t *header, uint64_t file_size, uint64_t page, const char *fqme) {
    uint64_t capacity = piker_get(header, 32, 8), table = piker_get(header, 72, 4);
    uint64_t stamps = 2 * page + piker_pages(table * 64, page), sides = stamps + piker_pages(capacity * 8, page);
    uint64_t items = sides + piker_pages(capacity * 64, page);
    int is_ring = !memcmp(header, "PKERRNG1", 8) && piker_get(header, 8, 4) == 1;
    int is_whole = piker_hash(header, 504, UINT64_C(0xcbf29ce484222325)) == piker_get(header, 504, 8);
    int is_meant = piker_get(header, 12, 4) == 1 && !header[255] && !strcmp((const char *)header + 192, fqme);
    int is_sane = capacity && !(capacity >> 40) && table > 1 && table <= 1 << 20 && piker_get(header, 24, 4) == page &&
                  piker_get(header, 28, 4) == sizeof(piker_row) && piker_get(header, 48, 8) == stamps &&
                  piker_get(header, 64, 8) == items && items + capacity * sizeof(piker_row) == file_size;
    return !is_ring ? "no ring of layout version 1" : !is_whole ? "a damaged header" : !is_meant ? "another ring" :
           !is_sane ? "sizes that do not fit the file" : NULL;
}

/* NULL, or why not. `fqme` ends with the provider's name, as in xbtusd.kraken. */
static inline const char *piker_attach(piker_bars *bars, const char *space, const char *fqme, unsigned period) {
    char text[256], path[64];
    uint8_t header[512];
    struct stat file;
    const char *provider = strrchr(fqme, '.'), *refused = "it cannot be mapped";
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    int length = snprintf(text, sizeof text, "%u/%s", (unsigned)getuid(), space);
    uint64_t low = piker_hash(text, (size_t)length, UINT64_C(0xcbf29ce484222325));
    length = snprintf(text, sizeof text, "%s/%s/%u", provider ? provider + 1 : "", fqme, period);
    uint64_t high = piker_hash(text, (size_t)length < sizeof text ? (size_t)length : 0, low);
    snprintf(path, sizeof path, "/dev/shm/pk%08x.%016llx", (unsigned)(low ^ low >> 32), (unsigned long long)high);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), writable = fd >= 0;
    fd = fd < 0 ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : fd;
    if (fd < 0) {
        return "there is no such ring";
    }
    if (fstat(fd, &file) || file.st_uid != getuid() || !S_ISREG(file.st_mode) || pread(fd, header, 512, 0) != 512) {
        refused = "it is no file of this user's";
    } else if (!(refused = piker_check(header, (uint64_t)file.st_size, page, fqme))) {
        *bars = (piker_bars){NULL, piker_get(header, 32, 8), piker_get(header, 48, 8), piker_get(header, 64, 8),
                             (uint64_t)file.st_size, writable};
        bars->base = mmap(NULL, bars->size, PROT_READ, MAP_SHARED, fd, 0);
        if (bars->base == MAP_FAILED ||
            (writable && mmap(bars->base + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)page) == MAP_FAILED)) {
            refused = "it cannot be mapped";
        }
    }
    close(fd);
    return refused;
}

static inline uint64_t piker_head(const piker_bars *bars) { return atomic_load_explicit(piker_at(bars, 1280), memory_order_acquire); }
static inline uint64_t piker_first(const piker_bars *bars) { return atomic_load_explicit(piker_at(bars, 1344), memory_order_acquire); }

/* A whole copy of row `i`, first <= i < head; PIKER_GONE if it has fallen off. */
static inline int piker_read(const piker_bars *bars, uint64_t i, piker_row *row) {
    piker_word *stamp = piker_at(bars, bars->stamps) + i % bars->capacity;
    piker_word *slot = piker_at(bars, bars->items) + i % bars->capacity * 10, *redo = piker_at(bars, 1408);
    uint64_t words[10];
    for (int turn = 0; turn < 1 << 16; turn++) {
        uint64_t before = atomic_load_explicit(stamp, memory_order_acquire);
        uint64_t whole = before % 2 ? atomic_load_explicit(redo, memory_order_acquire) % 2 == 0 : 1;
        for (int k = 0; k < 10; k++) { /* an odd stamp: the row stands in the redo record */
            words[k] = atomic_load_explicit((before % 2 ? redo + 2 : slot) + k, memory_order_relaxed);
        }
        atomic_thread_fence(memory_order_acquire);
        if (whole && words[0] == i && atomic_load_explicit(stamp, memory_order_relaxed) == before) {
            memcpy(row, words, sizeof *row);
            return PIKER_ROW;
        }
        if (piker_first(bars) > i) {
            return PIKER_GONE;
        }
    }
    return PIKER_DAMAGED;
}

/* 1 once the head is above `after`, 0 after about so many milliseconds (at most 1000). */
static inline int piker_wait(piker_bars *bars, uint64_t after, long milliseconds) {
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    uint8_t *page = bars->base + sysconf(_SC_PAGESIZE);
    _Atomic uint32_t *waiting = (_Atomic uint32_t *)(void *)page, *turn = waiting + 1;
    uint32_t seen = atomic_load_explicit(turn, memory_order_relaxed);
    if (bars->writable) {
        atomic_fetch_or_explicit(waiting, 1, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (piker_head(bars) <= after) {
        syscall(SYS_futex, turn, FUTEX_WAIT, seen, &limit, NULL, 0);
    }
    return piker_head(bars) > after;
}

#endif
