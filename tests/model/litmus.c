/* What the weak memory allows and forbids, by the classic tests of C11's memory model.
 *
 * Prints a line for each: its name and all outcomes that were found.
 */
#include "weak.h"

enum { OUTCOMES = 16, STACK = 1 << 14, MOST = 4 };

static pk_word x, y;
static uint64_t seen[MOST];
static ucontext_t scheduler, contexts[MOST];
static char stacks[MOST][STACK];
static int running, finished[MOST], threads_run;
static void (*parts[MOST])(void);
static char outcomes[OUTCOMES][16];
static int found;

static void run_others(void) { swapcontext(&contexts[running], &scheduler); }
static int is_met(const void *address) { return address != NULL; }

static void run_part(void) {
    parts[running]();
    finished[running] = 1;
}

static void run_all(void) {
    for (int i = 0; i < threads_run; i++) {
        getcontext(&contexts[i]);
        contexts[i].uc_stack = (stack_t){.ss_sp = stacks[i], .ss_size = STACK};
        contexts[i].uc_link = &scheduler;
        makecontext(&contexts[i], run_part, 0);
        finished[i] = 0;
        seen[i] = 0;
    }
    is_watched = is_met;
    for (;;) {
        int ready[MOST], count = 0;
        for (int i = 0; i < threads_run; i++) {
            if (!finished[i]) {
                ready[count++] = i;
            }
        }
        if (!count) {
            break;
        }
        running = ready[choose(count)];
        self = &threads[running];
        turn_over = run_others;
        swapcontext(&scheduler, &contexts[running]);
        turn_over = NULL;
    }
    char outcome[16];
    snprintf(outcome, sizeof outcome, "%d%d%d%d", (int)seen[0], (int)seen[1], (int)seen[2], (int)seen[3]);
    for (int i = 0; i < found; i++) {
        if (!strcmp(outcomes[i], outcome)) {
            return;
        }
    }
    if (found == OUTCOMES) {
        violate("too many outcomes");
    }
    strcpy(outcomes[found++], outcome);
}

static void report(const char *name, int count, void (*first)(void), void (*second)(void), void (*third)(void), void (*fourth)(void)) {
    parts[0] = first;
    parts[1] = second;
    parts[2] = third;
    parts[3] = fourth;
    threads_run = count;
    found = 0;
    explore(name, run_all);
    printf("%s =", name);
    for (int i = 0; i < found; i++) {
        printf(" %s", outcomes[i]);
    }
    printf("\n");
}

static void full_fence(void) { atomic_thread_fence(memory_order_seq_cst); }

/* Store buffering: with full fences one of both sees the other. */
static void store_x_load_y(void) { pk_store(&x, 1); seen[0] = pk_load(&y); }
static void store_y_load_x(void) { pk_store(&y, 1); seen[1] = pk_load(&x); }
static void store_x_fence_load_y(void) { pk_store(&x, 1); full_fence(); seen[0] = pk_load(&y); }
static void store_y_fence_load_x(void) { pk_store(&y, 1); full_fence(); seen[1] = pk_load(&x); }

/* Message passing: by release and acquire, by fences, by neither. */
static void pass_relaxed(void) { pk_store(&x, 1); pk_store(&y, 1); }
static void pass_release(void) { pk_store(&x, 1); pk_store_release(&y, 1); }
static void pass_fence(void) { pk_store(&x, 1); atomic_thread_fence(memory_order_release); pk_store(&y, 1); }
static void take_relaxed(void) { seen[0] = pk_load(&y); seen[1] = pk_load(&x); }
static void take_acquire(void) { seen[0] = pk_load_acquire(&y); seen[1] = pk_load(&x); }
static void take_fence(void) { seen[0] = pk_load(&y); atomic_thread_fence(memory_order_acquire); seen[1] = pk_load(&x); }

/* Coherence: two loads of one word never go back. */
static void store_twice(void) { pk_store(&x, 1); pk_store(&x, 2); }
static void load_twice(void) { seen[0] = pk_load(&x); seen[1] = pk_load(&x); }

/* Independent reads of independent writes: with full fences in one order for all. */
static void store_x(void) { pk_store(&x, 1); }
static void store_y(void) { pk_store(&y, 1); }
static void load_x_y(void) { seen[0] = pk_load_acquire(&x); seen[1] = pk_load_acquire(&y); }
static void load_y_x(void) { seen[2] = pk_load_acquire(&y); seen[3] = pk_load_acquire(&x); }
static void load_x_fence_y(void) { seen[0] = pk_load_acquire(&x); full_fence(); seen[1] = pk_load_acquire(&y); }
static void load_y_fence_x(void) { seen[2] = pk_load_acquire(&y); full_fence(); seen[3] = pk_load_acquire(&x); }

/* Two updates of one word: both are in it. */
static void add_first(void) { seen[0] = atomic_fetch_add_explicit(&x, 1, memory_order_relaxed); }
static void add_second(void) { seen[1] = atomic_fetch_add_explicit(&x, 1, memory_order_relaxed); }

int main(void) {
    report("store buffering", 2, store_x_load_y, store_y_load_x, NULL, NULL);
    report("store buffering, fences", 2, store_x_fence_load_y, store_y_fence_load_x, NULL, NULL);
    report("store buffering, one fence", 2, store_x_fence_load_y, store_y_load_x, NULL, NULL);
    report("message, relaxed", 2, pass_relaxed, take_acquire, NULL, NULL);
    report("message, not acquired", 2, pass_release, take_relaxed, NULL, NULL);
    report("message, release and acquire", 2, pass_release, take_acquire, NULL, NULL);
    report("message, fences", 2, pass_fence, take_fence, NULL, NULL);
    report("message, fence and acquire", 2, pass_fence, take_acquire, NULL, NULL);
    report("message, release and fence", 2, pass_release, take_fence, NULL, NULL);
    report("coherence", 2, store_twice, load_twice, NULL, NULL);
    report("independent reads", 4, store_x, store_y, load_x_y, load_y_x);
    report("independent reads, fences", 4, store_x, store_y, load_x_fence_y, load_y_fence_x);
    report("updates", 2, add_first, add_second, NULL, NULL);
    return 0;
}
