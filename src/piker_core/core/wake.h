/* Sleeping readers and their waking: futexes for threads, doorbells for event loops.
 *
 * A sleeper notes the turn, announces itself, looks at the head once more, then sleeps on
 * the turn. The writer publishes, then looks for announcements. Between the two fences one
 * of both sees the other, so no wake-up is lost; without sleepers the writer makes no
 * system call.
 */
#ifndef PK_WAKE_H
#define PK_WAKE_H

#include "segment.h"
#include <sys/socket.h>
#include <sys/un.h>

enum { PK_SLEEPER = 1, PK_DOORBELL = 2 };

#define PK_LOOK_NS 1000000 /* between looks of a reader that may not write to the wait page */

/* The abstract address of a doorbell: a datagram socket that an event loop can wait for. */
static inline socklen_t pk_doorbell_address(uint64_t key, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1,
                          "piker-core-%016llx", (unsigned long long)key);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static inline void pk_ring_doorbells(pk_segment *s) {
    struct sockaddr_un address;
    int from = -1;
    for (int i = 0; i < PK_DOORBELLS; i++) {
        pk_word *bell = &s->waits->doorbells[i];
        uint64_t key = pk_load(bell);
        if (key && from < 0) {
            from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        }
        if (key && from >= 0) {
            socklen_t length = pk_doorbell_address(key, &address);
            if (sendto(from, "", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0 &&
                errno == ECONNREFUSED) { /* its process is dead */
                atomic_compare_exchange_strong_explicit(bell, &key, 0, memory_order_relaxed,
                                                        memory_order_relaxed);
            }
        }
    }
    if (from >= 0) {
        close(from);
    }
}

static inline void pk_wake_those(pk_segment *s, uint32_t who) {
    atomic_fetch_add_explicit(&s->waits->turn, 1, memory_order_relaxed);
    if (who & PK_SLEEPER) {
        pk_futex_wake(&s->waits->turn);
    }
    if (who & PK_DOORBELL) {
        pk_ring_doorbells(s);
    }
}

static inline void pk_wake_all(pk_segment *s) {
    uint32_t who = atomic_exchange_explicit(&s->waits->waiting, 0, memory_order_acquire); /* SYNC waiting-taken: pairs with waiting */
    pk_wake_those(s, who);
}

/* After a publish. */
static inline void pk_wake(pk_segment *s) {
    atomic_thread_fence(memory_order_seq_cst); /* SYNC wake: pairs with announce */
    if (atomic_load_explicit(&s->waits->waiting, memory_order_relaxed)) {
        pk_wake_all(s);
    }
}

/* A writer has opened the ring: all is recovered. The one before may have been killed after
 * it took note of sleepers and before it woke them, so all are woken, announced or not. */
static inline void pk_open_generation(pk_segment *s) {
    pk_header *header = s->header;
    pk_store(&header->writer_pid, (uint64_t)getpid());
    pk_store(&header->heartbeat_ns, (uint64_t)pk_wall_ns());
    pk_store_release(&header->generation, pk_load(&header->generation) + 1); /* SYNC generation: pairs with generation-read */
    pk_wake_those(s, PK_SLEEPER | PK_DOORBELL);
}

static inline uint32_t pk_turn(const pk_segment *s) {
    return atomic_load_explicit(&s->waits->turn, memory_order_relaxed);
}

/* To be followed by one more look at the head. */
static inline void pk_announce(pk_segment *s, uint32_t how) {
    atomic_fetch_or_explicit(&s->waits->waiting, how, memory_order_release); /* SYNC waiting: pairs with waiting-taken */
    atomic_thread_fence(memory_order_seq_cst); /* SYNC announce: pairs with wake */
}

/* Wait until the head is above `after`, at most until `deadline_ns` of the monotonic clock.
 * 0: look at the head; EINTR: see to signals and come back, as is due at least once a
 * second: one that arrives between a look for it and the sleep does not end the sleep. */
static inline int pk_wait_head(pk_segment *s, uint64_t after, int64_t deadline_ns) {
    const int64_t pause_ns = pk_clock_ns(CLOCK_MONOTONIC) + PK_NS;
    for (;;) {
        uint32_t turn = pk_turn(s);
        if (pk_head(s) > after) {
            return 0;
        }
        if (s->can_wait) {
            pk_announce(s, PK_SLEEPER);
            if (pk_head(s) > after) {
                return 0;
            }
        }
        int64_t now = pk_clock_ns(CLOCK_MONOTONIC);
        int64_t left = (deadline_ns < pause_ns ? deadline_ns : pause_ns) - now;
        if (left <= 0) {
            return now >= deadline_ns ? 0 : EINTR;
        }
        if (!s->can_wait && left > PK_LOOK_NS) {
            left = PK_LOOK_NS;
        }
        if (pk_futex_wait(&s->waits->turn, turn, left) == EINTR) {
            return EINTR;
        }
    }
}

/* Leave a doorbell's key with the writer; where, or -1 when all places are taken. */
static inline int pk_claim_doorbell(pk_segment *s, uint64_t key) {
    for (int i = 0; i < PK_DOORBELLS && s->can_wait; i++) {
        uint64_t free_place = 0;
        if (atomic_compare_exchange_strong_explicit(&s->waits->doorbells[i], &free_place, key,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            return i;
        }
    }
    return -1;
}

static inline void pk_release_doorbell(pk_segment *s, int place, uint64_t key) {
    atomic_compare_exchange_strong_explicit(&s->waits->doorbells[place], &key, 0,
                                            memory_order_relaxed, memory_order_relaxed);
}

#endif
