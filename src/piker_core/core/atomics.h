/* Atomic words, clocks and futexes. Floor 0: no Python here.
 *
 * Everything that two processes share is read and written through `pk_word`, so that
 * no access is a data race in the sense of C11. Ordering comes from release and acquire
 * operations and fences; each carries a SYNC label that names its partner.
 */
#ifndef PK_ATOMICS_H
#define PK_ATOMICS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PK_NS INT64_C(1000000000)

typedef _Atomic uint64_t pk_word;
typedef _Atomic uint32_t pk_half;
typedef uint64_t __attribute__((may_alias)) pk_bits; /* eight bytes of any struct */

_Static_assert(sizeof(pk_word) == 8 && sizeof(pk_half) == 4, "atomics are plain words");
_Static_assert(sizeof(double) == 8, "a double fills a word");

static inline uint64_t pk_load(const pk_word *word) {
    return atomic_load_explicit((pk_word *)word, memory_order_relaxed);
}

static inline uint64_t pk_load_acquire(const pk_word *word) {
    return atomic_load_explicit((pk_word *)word, memory_order_acquire);
}

static inline void pk_store(pk_word *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline void pk_store_release(pk_word *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_release);
}

/* Stores before it are made before those after it, for whoever looks when this process has
 * been killed in between. */
static inline void pk_in_order(void) { atomic_signal_fence(memory_order_seq_cst); }

/* Relaxed word by word: a copy that may be torn, but is no data race. */
static inline void pk_copy_in(pk_word *to, const void *from, size_t words) {
    const pk_bits *source = from;
    for (size_t i = 0; i < words; i++) {
        pk_store(&to[i], source[i]);
    }
}

static inline void pk_copy_out(void *to, const pk_word *from, size_t words) {
    pk_bits *target = to;
    for (size_t i = 0; i < words; i++) {
        target[i] = pk_load(&from[i]);
    }
}

static inline int64_t pk_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * PK_NS + now.tv_nsec;
}

static inline int64_t pk_wall_ns(void) { return pk_clock_ns(CLOCK_REALTIME); }

/* Sleep while *word == expected, at most timeout_ns. 0, or an errno. */
static inline int pk_futex_wait(const pk_half *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec limit = {timeout_ns / PK_NS, timeout_ns % PK_NS};
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, NULL, 0) ? errno : 0;
}

static inline void pk_futex_wake(pk_half *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif
