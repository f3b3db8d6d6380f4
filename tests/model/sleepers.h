/* Sleeping and waking on a weak memory: threads of a scenario in every order of their steps.
 *
 * The kernel's part is modelled as it is documented: a futex wait compares and falls asleep
 * in one step, a wake reaches all that sleep by then, a datagram waits in its socket.
 */
#ifndef SLEEPERS_H
#define SLEEPERS_H

enum { READY, ASLEEP, FINISHED, STACK = 1 << 16, SEEN = 1 << 23 };

static ucontext_t scheduler, contexts[THREADS];
static char stacks[THREADS][STACK];
static int states[THREADS], running, sleepers;
static int datagrams[THREADS];
static uint64_t *states_seen;

static int is_met(const void *address) {
    const pk_wait_page *page = &ram.waits;
    return address == &ram.header.head || address == &page->waiting || address == &page->turn ||
           address == &page->doorbells[0];
}

static void run_others(void) { swapcontext(&contexts[running], &scheduler); }

static void sleep_until_woken(void) {
    states[running] = ASLEEP;
    run_others();
}

static int pk_futex_wait(const pk_half *word, uint32_t expected, int64_t timeout_ns) {
    (void)timeout_ns; /* none comes to the rescue */
    run_others();
    int number = find_word(word, sizeof *word);
    const history *turn = &words[number];
    self->now.place[number] = (uint8_t)(turn->count - 1);
    self->past = (uint64_t)running; /* here a loop begins again, that remembers nothing */
    if (turn->stores[turn->count - 1].value != expected) {
        return EAGAIN;
    }
    sleep_until_woken();
    return 0;
}

static void pk_futex_wake(pk_half *word) {
    if (!turn_over) {
        return; /* there are no threads here */
    }
    run_others();
    may_die(word);
    for (int i = 1; i < sleepers; i++) {
        if (states[i] == ASLEEP && !datagrams[i]) {
            states[i] = READY;
        }
    }
}

/* To the event loop whose number is its key; it sleeps with -1 datagrams. */
static ssize_t weak_sendto(const struct sockaddr_un *address) {
    unsigned long long key = 0;
    CHECK(sscanf(address->sun_path + 1, "piker-core-%llx", &key) == 1 && key > 0 && key < THREADS);
    run_others();
    may_die(&ram.waits.doorbells[0]);
    if (states[key] == ASLEEP) {
        states[key] = READY;
    }
    datagrams[key] = 1;
    return 1;
}

static void wait_readable(void) {
    run_others();
    if (datagrams[running] != 1) {
        datagrams[running] = -1;
        sleep_until_woken();
    }
    datagrams[running] = 0;
    self->past = (uint64_t)running;
}

/* Was all of this so before, in another order of steps? */
static int seen_before(void) {
    uint64_t hash = 1;
    for (int i = 0; i < sleepers; i++) {
        hash = mix(hash, threads[i].past);
        hash = mix(hash, (uint64_t)(states[i] * 4 + datagrams[i] + 1));
        hash = mix_view(mix_view(mix_view(hash, &threads[i].now), &threads[i].acquired), &threads[i].released);
    }
    uint64_t sum = (uint64_t)(mortal != NULL);
    for (int k = 0; k < words_known; k++) {
        sum += words[k].count > 1 ? mix((uintptr_t)words[k].address, words[k].order) : 0;
    }
    hash = mix(mix_view(hash, &fenced), sum);
    hash |= 1;
    for (uint64_t bucket = hash >> 16;; bucket++) {
        uint64_t *entry = &states_seen[bucket % SEEN];
        if (*entry == hash) {
            return 1;
        }
        if (!*entry) {
            *entry = hash;
            return 0;
        }
    }
}

static void start_thread(int number, void (*run)(void)) {
    getcontext(&contexts[number]);
    contexts[number].uc_stack = (stack_t){.ss_sp = stacks[number], .ss_size = STACK};
    contexts[number].uc_link = &scheduler;
    makecontext(&contexts[number], run, 0);
    states[number] = READY;
    datagrams[number] = 0;
}

static void run_threads(void) {
    for (;;) {
        int ready[THREADS], count = 0;
        for (int i = 0; i < sleepers; i++) {
            if (states[i] == READY) {
                ready[count++] = i;
            }
        }
        if (!count) {
            break;
        }
        if (search.made == search.known && seen_before()) {
            prune();
        }
        running = ready[choose(count)];
        self = &threads[running];
        self->past = mix(self->past, 1);
        turn_over = run_others;
        swapcontext(&scheduler, &contexts[running]);
        self = NULL;
        turn_over = NULL;
    }
    for (int i = 0; i < sleepers; i++) {
        CHECK(states[i] == FINISHED); /* else a wake-up was lost */
    }
}

/* ---- who sleeps, and who wakes them ----------------------------------------------------- */

static pk_bars waker;
static uint64_t last_head;
static int deadly;

/* Publishes; may be killed in between, and then another writer opens the ring. */
static void publisher(void) {
    mortal = deadly ? self : NULL;
    if (setjmp(killed)) {
        self->past = mix(self->past, 3);
        join(&self->now, &self->acquired);
        join(&fenced, &self->now); /* the end of a process is a barrier */
        waker = (pk_bars){.segment = segment};
        CHECK(pk_resume_bars(&waker) == PK_OK);
        pk_open_generation(&segment);
    }
    while (waker.head < last_head) {
        pk_row row = row_of(waker.head, 1);
        pk_append(&waker, &row, &(pk_side){0});
        pk_wake(&segment);
        self->past = waker.head;
    }
    mortal = NULL;
    states[running] = FINISHED;
}

static void thread_sleeper(void) {
    for (uint64_t after = PK_START + 1; after < last_head; after = pk_head(&segment)) {
        CHECK(pk_wait_head(&segment, after, INT64_MAX) == 0);
    }
    states[running] = FINISHED;
}

static void loop_sleeper(void) {
    uint64_t key = (uint64_t)running;
    int place = pk_claim_doorbell(&segment, key);
    CHECK(place >= 0);
    pk_announce(&segment, PK_DOORBELL);
    while (pk_head(&segment) < last_head) {
        wait_readable();
        pk_announce(&segment, PK_DOORBELL);
    }
    pk_release_doorbell(&segment, place, key);
    states[running] = FINISHED;
}

static void sleep_and_wake(int count, int may_die, void (*first)(void), void (*second)(void)) {
    fill(&waker, 1);
    waker.segment = segment;
    is_watched = is_met;
    deadly = may_die;
    last_head = waker.head + (uint64_t)count;
    sleepers = second ? 3 : 2;
    if (search.runs == 1) {
        states_seen = states_seen ? states_seen : malloc(SEEN * sizeof *states_seen);
        memset(states_seen, 0, SEEN * sizeof *states_seen);
    }
    start_thread(0, publisher);
    start_thread(1, first);
    if (second) {
        start_thread(2, second);
    }
    run_threads();
}

static void thread_and_writer(void) { sleep_and_wake(2, 0, thread_sleeper, NULL); }
static void thread_and_killed_writer(void) { sleep_and_wake(1, 1, thread_sleeper, NULL); }
static void loop_and_writer(void) { sleep_and_wake(2, 0, loop_sleeper, NULL); }
static void loop_and_killed_writer(void) { sleep_and_wake(1, 1, loop_sleeper, NULL); }
static void both_and_writer(void) { sleep_and_wake(1, 0, thread_sleeper, loop_sleeper); }

#endif
