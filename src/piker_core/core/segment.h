/* A shared-memory segment: its header, creation, checking, mapping and reservation.
 *
 * File layout, every part on a page boundary (docs/shm-format.md):
 *     header | wait page | table | stamps | sides | items
 * A ring of ticks has no stamps and sides. Items are mapped a second time behind
 * themselves, so that a window across the wrap is one stretch of memory.
 */
#ifndef PK_SEGMENT_H
#define PK_SEGMENT_H

#include "atomics.h"
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define PK_MAGIC UINT64_C(0x31474e5252454b50) /* "PKERRNG1" */
#define PK_VERSION 1
#define PK_BARS 1
#define PK_TICKS 2
#define PK_COUNTERS 16
#define PK_DOORBELLS 56
#define PK_ROW_WORDS 10
#define PK_SIDE_WORDS 8
#define PK_ABOUT 512
#define PK_SHM "/dev/shm/"

/* Written once, before the segment can be attached; covered by the checksum. */
typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t total_size;
    uint32_t page_size;
    uint32_t item_size;
    uint64_t capacity;
    uint64_t table_offset;
    uint64_t stamp_offset;
    uint64_t side_offset;
    uint64_t item_offset;
    uint32_t table_capacity;
    uint32_t period;
    int64_t created_ns;
    uint32_t uid;
    uint32_t reserved;
    char space[64];
    char provider[32];
    char fqme[64];
    char price_tick[32];
    char size_tick[32];
    char dtype[184];
    uint64_t checksum;
} pk_identity;

/* Redo record: the row that is being rewritten, whole, before its slot is touched. */
typedef struct {
    pk_word stamp;
    pk_word sequence;
    pk_word row[PK_ROW_WORDS];
    pk_word side[PK_SIDE_WORDS];
} pk_redo;

typedef struct {
    pk_identity identity;
    char about[PK_ABOUT]; /* what the provider says of the market, JSON text */
    pk_word generation;
    pk_word status;
    pk_word heartbeat_ns;
    pk_word writer_pid;
    pk_word last_price;
    pk_word table_count;
    char unused_1[16];
    pk_word counters[PK_COUNTERS];
    char unused_2[64];
    pk_word head;
    pk_word clock;  /* bars: number of the newest row write; ticks: the intent */
    char unused_3[48];
    pk_word first;
    char unused_4[56];
    pk_redo redo;
} pk_header;

/* The one page that readers may write to. */
typedef struct {
    pk_half waiting;
    pk_half turn;
    char unused_0[56];
    pk_word doorbells[PK_DOORBELLS];
} pk_wait_page;

_Static_assert(sizeof(pk_identity) == 512, "identity fills 512 bytes");
_Static_assert(offsetof(pk_identity, total_size) == 16, "layout");
_Static_assert(offsetof(pk_identity, capacity) == 32, "layout");
_Static_assert(offsetof(pk_identity, item_offset) == 64, "layout");
_Static_assert(offsetof(pk_identity, table_capacity) == 72, "layout");
_Static_assert(offsetof(pk_identity, created_ns) == 80, "layout");
_Static_assert(offsetof(pk_identity, space) == 96, "layout");
_Static_assert(offsetof(pk_identity, provider) == 160, "layout");
_Static_assert(offsetof(pk_identity, fqme) == 192, "layout");
_Static_assert(offsetof(pk_identity, price_tick) == 256, "layout");
_Static_assert(offsetof(pk_identity, size_tick) == 288, "layout");
_Static_assert(offsetof(pk_identity, dtype) == 320, "layout");
_Static_assert(offsetof(pk_identity, checksum) == 504, "layout");
_Static_assert(offsetof(pk_header, about) == 512, "layout");
_Static_assert(offsetof(pk_header, generation) == 1024, "layout");
_Static_assert(offsetof(pk_header, status) == 1032, "layout");
_Static_assert(offsetof(pk_header, heartbeat_ns) == 1040, "layout");
_Static_assert(offsetof(pk_header, writer_pid) == 1048, "layout");
_Static_assert(offsetof(pk_header, last_price) == 1056, "layout");
_Static_assert(offsetof(pk_header, table_count) == 1064, "layout");
_Static_assert(offsetof(pk_header, counters) == 1088, "layout");
_Static_assert(offsetof(pk_header, head) == 1280, "head has its own cache line");
_Static_assert(offsetof(pk_header, clock) == 1288, "layout");
_Static_assert(offsetof(pk_header, first) == 1344, "first has its own cache line");
_Static_assert(offsetof(pk_header, redo) == 1408, "layout");
_Static_assert(sizeof(pk_redo) == 160 && sizeof(pk_header) == 1568, "layout");
_Static_assert(sizeof(pk_wait_page) == 512, "layout");

/* A mapped segment, in this process. `owner`: this process may write. */
typedef struct pk_segment {
    uint8_t *base;
    size_t mapped;
    pk_header *header;
    pk_wait_page *waits;
    pk_word *stamps;
    pk_word *sides;
    pk_word *items;
    uint64_t capacity;
    uint32_t kind;
    uint32_t period;
    uint32_t item_words;
    uint32_t table_capacity;
    uint8_t *table;
    size_t total;
    dev_t device;
    ino_t inode;
    uint64_t reserved_low, reserved_high; /* sequences whose slots have pages */
    int can_wait;
    char name[64];
} pk_segment;

enum { PK_OK = 0, PK_MISSING, PK_REFUSED, PK_SYSTEM, PK_BLANK, PK_LAPPED, PK_BUSY };

static inline uint64_t pk_hash(const void *bytes, size_t count, uint64_t hash) {
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < count; i++) { /* FNV-1a */
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

#define PK_HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t pk_round_up(uint64_t size, uint64_t unit) {
    return (size + unit - 1) / unit * unit;
}

static inline uint64_t pk_page_size(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

/* The capacity rounded up, so that the items fill whole pages. */
static inline uint64_t pk_round_capacity(uint64_t capacity, uint64_t item_size) {
    uint64_t a = pk_page_size(), b = item_size;
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return pk_round_up(capacity ? capacity : 1, pk_page_size() / a);
}

/* Fill in sizes and offsets, which follow from kind, capacity, item size and table. */
static inline void pk_lay_out(pk_identity *id, uint64_t table_item) {
    uint64_t page = pk_page_size(), bars = id->kind == PK_BARS;
    id->page_size = (uint32_t)page;
    id->table_offset = 2 * page;
    id->stamp_offset = id->table_offset + pk_round_up(id->table_capacity * table_item, page);
    id->side_offset = id->stamp_offset + pk_round_up(bars * id->capacity * 8, page);
    id->item_offset =
        id->side_offset + pk_round_up(bars * id->capacity * 8 * PK_SIDE_WORDS, page);
    id->total_size = id->item_offset + id->capacity * id->item_size;
}

static inline uint64_t pk_checksum(const pk_identity *id) {
    return pk_hash(id, offsetof(pk_identity, checksum), PK_HASH_START);
}

static inline int pk_ends(const char *text, size_t room) { return memchr(text, 0, room) != NULL; }

/* Is this header ours, whole and true of a file of this size? A sentence if not. */
static inline int pk_check(const pk_identity *id, uint64_t size, uint32_t kind, char *why,
                           size_t room) {
    if (id->magic != PK_MAGIC) {
        snprintf(why, room, "is no piker-core ring of layout version %d", PK_VERSION);
    } else if (id->version != PK_VERSION) {
        snprintf(why, room, "has layout version %u, this piker-core reads version %d",
                 id->version, PK_VERSION);
    } else if (id->checksum != pk_checksum(id)) {
        snprintf(why, room, "has a damaged header (layout version %d)", PK_VERSION);
    } else if (id->kind != kind) {
        snprintf(why, room, "is of another kind of ring (layout version %d)", PK_VERSION);
    } else {
        pk_identity wanted = *id;
        uint64_t item = kind == PK_BARS ? 8 * PK_ROW_WORDS : 64;
        int sane = id->item_size == item && id->capacity && id->capacity < UINT64_C(1) << 40 &&
                   id->table_capacity <= 1 << 20 && pk_ends(id->space, sizeof id->space) &&
                   pk_ends(id->provider, sizeof id->provider) &&
                   pk_ends(id->fqme, sizeof id->fqme) &&
                   pk_ends(id->price_tick, sizeof id->price_tick) &&
                   pk_ends(id->size_tick, sizeof id->size_tick) &&
                   pk_ends(id->dtype, sizeof id->dtype) && (kind != PK_BARS || id->period);
        pk_lay_out(&wanted, 64);
        if (sane && !memcmp(&wanted, id, sizeof wanted) && id->total_size == size &&
            id->capacity == pk_round_capacity(id->capacity, item)) {
            return PK_OK;
        }
        snprintf(why, room, "has sizes that do not fit its file of %llu bytes (layout version %d)",
                 (unsigned long long)size, PK_VERSION);
    }
    return PK_REFUSED;
}

static inline int pk_refuse_errno(char *why, size_t room, const char *what) {
    int error = errno;
    snprintf(why, room, "%s: %s", what, strerror(error));
    errno = error;
    return PK_SYSTEM;
}

/* Read and check the header of an open file. PK_BLANK: a creation that died. */
static inline int pk_read_header(int fd, uint32_t kind, pk_identity *id, char *why, size_t room) {
    struct stat status;
    uint64_t words[128] = {0};
    if (fstat(fd, &status)) {
        return pk_refuse_errno(why, room, "cannot be examined");
    }
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid()) {
        snprintf(why, room, "is not a file of this user's (layout version %d)", PK_VERSION);
        return PK_REFUSED;
    }
    ssize_t got = pread(fd, words, sizeof words, 0);
    if (got < 0) {
        return pk_refuse_errno(why, room, "cannot be read");
    }
    uint64_t any = 0;
    for (size_t i = 0; i < 128; i++) {
        any |= words[i];
    }
    memcpy(id, words, sizeof *id);
    if (!any || (got < (ssize_t)sizeof words && (got < 8 || id->magic == PK_MAGIC))) {
        snprintf(why, room, "is blank: its creation has not ended");
        return PK_BLANK;
    }
    return pk_check(id, (uint64_t)status.st_size, kind, why, room);
}

/* Map an open, checked file. Readers get everything read-only but the wait page. */
static inline int pk_map(int fd, const pk_identity *id, int writer, int can_wait,
                         pk_segment *out, char *why, size_t room) {
    struct stat status;
    uint64_t page = id->page_size, size = id->total_size;
    uint64_t items = id->capacity * id->item_size;
    int rights = writer ? PROT_READ | PROT_WRITE : PROT_READ;
    if (fstat(fd, &status)) {
        return pk_refuse_errno(why, room, "cannot be examined");
    }
    uint8_t *base = mmap(NULL, size + items, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        return pk_refuse_errno(why, room, "cannot be mapped");
    }
    if (mmap(base, size, rights, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
        mmap(base + size, items, rights, MAP_SHARED | MAP_FIXED, fd, (off_t)id->item_offset) ==
            MAP_FAILED ||
        (can_wait && !writer &&
         mmap(base + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)page) ==
             MAP_FAILED)) {
        pk_refuse_errno(why, room, "cannot be mapped");
        int error = errno;
        munmap(base, size + items);
        errno = error;
        return PK_SYSTEM;
    }
    out->base = base;
    out->mapped = size + items;
    out->header = (pk_header *)base;
    out->waits = (pk_wait_page *)(base + page);
    out->table = base + id->table_offset;
    out->stamps = (pk_word *)(base + id->stamp_offset);
    out->sides = (pk_word *)(base + id->side_offset);
    out->items = (pk_word *)(base + id->item_offset);
    out->capacity = id->capacity;
    out->kind = id->kind;
    out->period = id->period;
    out->item_words = id->item_size / 8;
    out->table_capacity = id->table_capacity;
    out->total = size;
    out->device = status.st_dev;
    out->inode = status.st_ino;
    out->can_wait = can_wait;
    return PK_OK;
}

static inline void pk_unmap(pk_segment *segment) {
    if (segment->base) {
        munmap(segment->base, segment->mapped);
        segment->base = NULL;
    }
}

static inline int pk_open_file(const char *name, int flags) {
    char path[96];
    snprintf(path, sizeof path, PK_SHM "%s", name);
    return open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
}

/* Attach for reading. */
static inline int pk_attach(const char *name, uint32_t kind, pk_segment *out, pk_identity *id,
                            char *why, size_t room) {
    int can_wait = 1, fd = pk_open_file(name, O_RDWR);
    if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        can_wait = 0;
        fd = pk_open_file(name, O_RDONLY);
    }
    if (fd < 0) {
        if (errno == ENOENT) {
            return PK_MISSING;
        }
        pk_refuse_errno(why, room, "cannot be opened as a ring of this layout version");
        return errno == ELOOP || errno == EISDIR || errno == ENXIO || errno == EACCES ? PK_REFUSED
                                                                                   : PK_SYSTEM;
    }
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    int status = pk_read_header(fd, kind, id, why, room);
    if (status == PK_OK) {
        status = pk_map(fd, id, 0, can_wait, out, why, room);
    }
    int error = errno;
    close(fd);
    errno = error;
    return status;
}

/* Make sure a stretch of the file has pages; a full file system is ENOSPC, never SIGBUS. */
static inline int pk_reserve_bytes(int fd, uint64_t offset, uint64_t size) {
    while (fallocate(fd, 0, (off_t)offset, (off_t)size)) {
        if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Reserve the slots of `count` sequences from `low`, which fit before the wrap or go round it. */
static inline int pk_reserve_slots(const pk_segment *s, int fd, uint64_t low, uint64_t count) {
    uint64_t base[3] = {(uint64_t)((uint8_t *)s->items - s->base),
                        (uint64_t)((uint8_t *)s->stamps - s->base),
                        (uint64_t)((uint8_t *)s->sides - s->base)};
    uint64_t width[3] = {8 * s->item_words, 8, 8 * PK_SIDE_WORDS};
    int parts = s->kind == PK_BARS ? 3 : 1;
    uint64_t slot = low % s->capacity;
    uint64_t run = count < s->capacity - slot ? count : s->capacity - slot;
    for (int part = 0; part < parts; part++) {
        int error = pk_reserve_bytes(fd, base[part] + slot * width[part], run * width[part]);
        if (!error && run < count) {
            error = pk_reserve_bytes(fd, base[part], (count - run) * width[part]);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

/* Open the file again to reserve in it: a ring keeps no descriptor of its own. */
static inline int pk_reopen(const pk_segment *s) {
    struct stat status;
    int fd = pk_open_file(s->name, O_RDWR);
    if (fd >= 0 && (fstat(fd, &status) || status.st_ino != s->inode || status.st_dev != s->device)) {
        close(fd);
        errno = ESTALE;
        return -1;
    }
    return fd;
}

/* Reserve [low, high) besides what is reserved; all slots where that is a whole ring. */
static inline int pk_reserve_exactly(pk_segment *s, int fd, uint64_t low, uint64_t high) {
    int error = 0;
    low = low < s->reserved_low ? low : s->reserved_low;
    high = high > s->reserved_high ? high : s->reserved_high;
    if (high - low >= s->capacity) {
        error = pk_reserve_slots(s, fd, 0, s->capacity);
        high = low + s->capacity;
    } else {
        if (low < s->reserved_low) {
            error = pk_reserve_slots(s, fd, low, s->reserved_low - low);
        }
        if (!error && high > s->reserved_high) {
            error = pk_reserve_slots(s, fd, s->reserved_high, high - s->reserved_high);
        }
    }
    if (!error) {
        s->reserved_low = low;
        s->reserved_high = high;
    }
    return error;
}

static inline int pk_is_reserved(const pk_segment *s, uint64_t low, uint64_t high) {
    return s->reserved_high - s->reserved_low >= s->capacity ||
           (low >= s->reserved_low && high <= s->reserved_high);
}

/* Grow the reserved sequences to cover [low, high), by whole extents while there is space. */
static inline int pk_reserve(pk_segment *s, uint64_t low, uint64_t high) {
    const uint64_t extent = s->kind == PK_BARS ? 256 : 1024;
    if (pk_is_reserved(s, low, high)) {
        return 0;
    }
    int fd = pk_reopen(s);
    if (fd < 0) {
        return errno;
    }
    int error = pk_reserve_exactly(s, fd, low < s->reserved_low && low > extent ? low - extent : low,
                                   high > s->reserved_high ? high + extent : high);
    if (error == ENOSPC) {
        error = pk_reserve_exactly(s, fd, low, high);
    }
    close(fd);
    return error;
}

/* What a ring already holds has pages: take note of it when a writer opens it again. */
static inline void pk_resume_reserved(pk_segment *s, uint64_t first, uint64_t head) {
    s->reserved_low = first;
    s->reserved_high = head;
}

/* Create a blank file of full length; its fixed pages are reserved. -1 and errno if not. */
static inline int pk_create_file(const char *name, uint64_t size, uint64_t fixed) {
    int fd = pk_open_file(name, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0) {
        return -1;
    }
    int error = 0;
    if (fchmod(fd, 0600) || ftruncate(fd, (off_t)size)) {
        error = errno;
    }
    if (!error) {
        error = pk_reserve_bytes(fd, 0, fixed);
    }
    if (error) {
        char path[96];
        snprintf(path, sizeof path, PK_SHM "%s", name);
        unlink(path);
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* Is the open file still the one of that name? */
static inline int pk_is_current(int fd, const char *name) {
    struct stat open_file, named;
    char path[96];
    snprintf(path, sizeof path, PK_SHM "%s", name);
    return !fstat(fd, &open_file) && !lstat(path, &named) && open_file.st_ino == named.st_ino &&
           open_file.st_dev == named.st_dev;
}

static inline int pk_remove_file(const char *name) {
    char path[96];
    snprintf(path, sizeof path, PK_SHM "%s", name);
    return unlink(path) ? errno : 0;
}

/* Space left for shared memory. */
static inline uint64_t pk_free_bytes(void) {
    struct statvfs space;
    return statvfs(PK_SHM, &space) ? 0 : (uint64_t)space.f_bavail * space.f_frsize;
}

/* The last act of a creation: the header, in one write. */
static inline int pk_write_header(int fd, pk_identity *id) {
    id->checksum = pk_checksum(id);
    return pwrite(fd, id, sizeof *id, 0) == sizeof *id ? 0 : errno;
}

#endif
