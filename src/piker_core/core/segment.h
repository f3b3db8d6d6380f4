/* A shared-memory segment: creation, mapping, attaching and reservation.
 *
 * Items are mapped a second time behind themselves, so that a window across the wrap is
 * one stretch of memory.
 */
#ifndef PK_SEGMENT_H
#define PK_SEGMENT_H

#include "layout.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define PK_SHM "/dev/shm/"
#define PK_NAME 64 /* room for the name of a file there */
#define PK_PATH (sizeof PK_SHM + PK_NAME)

/* A mapped segment, in this process. `can_wait`: the wait page may be written to. */
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
    char name[PK_NAME];
} pk_segment;

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

static inline void pk_path(char *path, const char *name) {
    snprintf(path, PK_PATH, PK_SHM "%.*s", PK_NAME - 1, name);
}

static inline int pk_open_file(const char *name, int flags) {
    char path[PK_PATH];
    pk_path(path, name);
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

/* A ring of bars holds at most so many times what it leaves free for all others, so that
 * one that grows and grows fails by itself and the rest goes on. */
#define PK_SHARE 8

static inline uint64_t pk_slots_size(const pk_segment *s, uint64_t count) {
    uint64_t width = s->item_words + (s->kind == PK_BARS ? 1 + PK_SIDE_WORDS : 0);
    return 8 * width * (count < s->capacity ? count : s->capacity);
}

static inline int pk_leaves_room(const pk_segment *s, int fd, uint64_t low, uint64_t high) {
    struct statvfs space;
    if (s->kind != PK_BARS || fstatvfs(fd, &space) || !space.f_blocks) {
        return 1; /* no blocks: a file system without a limit */
    }
    uint64_t left = (uint64_t)space.f_bavail * space.f_frsize, held = pk_slots_size(s, high - low);
    uint64_t more = held - pk_slots_size(s, s->reserved_high - s->reserved_low);
    return more <= left && held / PK_SHARE <= left - more;
}

/* Reserve [low, high) besides what is reserved; all slots where that is a whole ring. */
static inline int pk_reserve_exactly(pk_segment *s, int fd, uint64_t low, uint64_t high) {
    int error = 0;
    low = low < s->reserved_low ? low : s->reserved_low;
    high = high > s->reserved_high ? high : s->reserved_high;
    if (!pk_leaves_room(s, fd, low, high)) {
        return ENOSPC;
    }
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
        char path[PK_PATH];
        pk_path(path, name);
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
    char path[PK_PATH];
    pk_path(path, name);
    return !fstat(fd, &open_file) && !lstat(path, &named) && open_file.st_ino == named.st_ino &&
           open_file.st_dev == named.st_dev;
}

static inline int pk_remove_file(const char *name) {
    char path[PK_PATH];
    pk_path(path, name);
    return unlink(path) ? errno : 0;
}

/* Space left for shared memory; a file system without blocks has no limit. */
static inline uint64_t pk_free_bytes(void) {
    struct statvfs space;
    if (statvfs(PK_SHM, &space)) {
        return 0;
    }
    return space.f_blocks ? (uint64_t)space.f_bavail * space.f_frsize : UINT64_MAX;
}

static inline int pk_write_bytes(int fd, const void *bytes, size_t size, size_t offset) {
    ssize_t written = pwrite(fd, bytes, size, (off_t)offset);
    return written == (ssize_t)size ? 0 : written < 0 ? errno : EIO;
}

/* The last act of a creation: the state of an empty ring, then what makes it one. */
static inline int pk_write_header(int fd, pk_identity *id) {
    pk_header header;
    memset(&header, 0, sizeof header);
    if (id->kind == PK_BARS) {
        pk_store(&header.head, PK_START);
        pk_store(&header.first, PK_START);
    }
    id->checksum = pk_checksum(id);
    int error = pk_write_bytes(fd, (uint8_t *)&header + sizeof *id, sizeof header - sizeof *id, sizeof *id);
    return error ? error : pk_write_bytes(fd, id, sizeof *id, 0);
}

/* The sequence after the newest item. */
static inline uint64_t pk_head(const pk_segment *s) {
    return pk_load_acquire(&s->header->head); /* SYNC head-read: pairs with head */
}

/* How many writers have opened the segment; what they recovered is there. */
static inline uint64_t pk_generation(const pk_segment *s) {
    return pk_load_acquire(&s->header->generation); /* SYNC generation-read: pairs with generation */
}

/* ---- texts that readers may find in the making ------------------------------------------------- */

/* Say what the provider knows of the market: up to PK_ABOUT - 1 bytes. */
static inline void pk_write_about(pk_segment *s, const char *text, size_t size) {
    pk_header *header = s->header;
    uint64_t next[PK_ABOUT / 8] = {0}, now[PK_ABOUT / 8];
    memcpy(next, text, size < PK_ABOUT ? size : PK_ABOUT - 1);
    pk_copy_out(now, header->about, PK_ABOUT / 8);
    uint64_t stamp = pk_load(&header->about_stamp);
    if (stamp % 2 == 0 && !memcmp(now, next, sizeof now)) {
        return;
    }
    stamp |= 1; /* odd already: a writer was killed here */
    pk_store(&header->about_stamp, stamp);
    atomic_thread_fence(memory_order_release); /* SYNC about: pairs with about-recheck */
    pk_copy_in(header->about, next, PK_ABOUT / 8);
    pk_store_release(&header->about_stamp, stamp + 1); /* SYNC about-done: pairs with about-read */
}

/* Copy that text, ended by a zero byte. PK_BUSY: it is being written, or for ever unfinished. */
static inline int pk_read_about(const pk_segment *s, char *text) {
    const pk_header *header = s->header;
    uint64_t words[PK_ABOUT / 8];
    for (int tries = 0; tries < PK_TRIES; tries++) {
        uint64_t stamp = pk_load_acquire(&header->about_stamp); /* SYNC about-read: pairs with about-done */
        if (stamp % 2 == 0) {
            pk_copy_out(words, header->about, PK_ABOUT / 8);
            atomic_thread_fence(memory_order_acquire); /* SYNC about-recheck: pairs with about */
            if (pk_load(&header->about_stamp) == stamp) {
                memcpy(text, words, PK_ABOUT);
                text[PK_ABOUT - 1] = 0;
                return PK_OK;
            }
        }
    }
    return PK_BUSY;
}

/* Say why the status is what it is: up to PK_REASON - 1 bytes. It goes to the place that
 * nobody reads, so whoever is killed here leaves the one before whole. */
static inline void pk_write_reason(pk_segment *s, uint64_t status, const char *text, size_t size) {
    pk_header *header = s->header;
    uint64_t number = pk_load(&header->reason_number) + 1;
    uint64_t next[1 + PK_REASON / 8] = {status};
    memcpy(next + 1, text, size < PK_REASON ? size : PK_REASON - 1);
    atomic_thread_fence(memory_order_release); /* SYNC reason-over: pairs with reason-recheck, status-read */
    pk_copy_in((pk_word *)&header->reasons[number % 2], next, 1 + PK_REASON / 8);
    pk_store_release(&header->reason_number, number); /* SYNC reason: pairs with reason-read */
}

/* Copy that text, ended by a zero byte, and the status that it is of. PK_BUSY: they change
 * all the time. */
static inline int pk_read_reason(const pk_segment *s, uint64_t *status, char *text) {
    const pk_header *header = s->header;
    uint64_t words[1 + PK_REASON / 8];
    for (int tries = 0; tries < PK_TRIES; tries++) {
        uint64_t number = pk_load_acquire(&header->reason_number); /* SYNC reason-read: pairs with reason */
        pk_copy_out(words, (const pk_word *)&header->reasons[number % 2], 1 + PK_REASON / 8);
        atomic_thread_fence(memory_order_acquire); /* SYNC reason-recheck: pairs with reason-over */
        if (pk_load(&header->reason_number) == number) {
            *status = words[0];
            memcpy(text, words + 1, PK_REASON);
            text[PK_REASON - 1] = 0;
            return PK_OK;
        }
    }
    return PK_BUSY;
}

#endif
