/* The writer's lock: an open-file-description lock on the provider's tick segment.
 *
 * It dies with the process. Its descriptor is opened for it alone: a mapping made from it
 * would keep the lock, also in a forked child that outlives the writer. Such a child closes
 * its copy of the descriptor at once and is no writer, so that it neither keeps nor drops
 * its parent's lock.
 */
#ifndef PK_LOCK_H
#define PK_LOCK_H

#include "segment.h"
#include <pthread.h>

typedef struct pk_lock {
    int fd;     /* -1: not held by this process */
    struct pk_lock *next;
} pk_lock;

static pk_lock *pk_locks; /* of this process */
static pthread_mutex_t pk_locks_guard = PTHREAD_MUTEX_INITIALIZER;

static void pk_before_fork(void) { pthread_mutex_lock(&pk_locks_guard); }

static void pk_after_fork(void) { pthread_mutex_unlock(&pk_locks_guard); }

static void pk_forget_locks(void) {
    for (pk_lock *lock = pk_locks; lock; lock = lock->next) {
        if (lock->fd >= 0) {
            close(lock->fd);
            lock->fd = -1;
        }
    }
    pk_locks = NULL;
    pthread_mutex_unlock(&pk_locks_guard);
}

static inline int pk_watch_forks(void) {
    return pthread_atfork(pk_before_fork, pk_after_fork, pk_forget_locks);
}

/* Take the lock of a segment. 0, or an errno: EAGAIN if somebody has it. */
static inline int pk_take_lock(pk_lock *lock, const char *name) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int error = 0;
    pthread_mutex_lock(&pk_locks_guard); /* no fork between the opening and the noting */
    int fd = pk_open_file(name, O_RDWR);
    if (fd < 0) {
        error = errno;
    } else if (fcntl(fd, F_OFD_SETLK, &whole)) {
        error = errno == EACCES ? EAGAIN : errno;
        close(fd);
    } else {
        lock->fd = fd;
        lock->next = pk_locks;
        pk_locks = lock;
    }
    pthread_mutex_unlock(&pk_locks_guard);
    return error;
}

/* Give the lock back; its descriptor is closed. */
static inline void pk_drop_lock(pk_lock *lock) {
    pthread_mutex_lock(&pk_locks_guard);
    for (pk_lock **link = &pk_locks; *link; link = &(*link)->next) {
        if (*link == lock) {
            *link = lock->next;
            break;
        }
    }
    if (lock->fd >= 0) {
        struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        fcntl(lock->fd, F_OFD_SETLK, &whole); /* whoever else may have got a copy of it */
        close(lock->fd);
        lock->fd = -1;
    }
    pthread_mutex_unlock(&pk_locks_guard);
}

/* Does anybody hold the lock of this segment? Asks, and never takes it. */
static inline int pk_lock_held(const char *name) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = pk_open_file(name, O_RDWR);
    if (fd < 0) {
        fd = pk_open_file(name, O_RDONLY);
        whole.l_type = F_RDLCK;
    }
    if (fd < 0) {
        return 0;
    }
    int held = fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
    close(fd);
    return held;
}

#endif
