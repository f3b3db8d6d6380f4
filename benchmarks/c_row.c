/* The C row: the least that can be done for a tick, to stand beside the engine.
 *
 * A tick becomes a 64-byte record of a ring and is folded into a 1 s and a 60 s bar with
 * compensated sums; both rows are published between stamps, in memory that other
 * processes can map. What makes an engine is left out: late, repeated and bad ticks,
 * gaps, flat rows, restarts, waiting readers, errors. Shares no code with the engine.
 * Built when a benchmark starts, as a CPython module, so that the call costs the same.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define NS 1000000000

typedef _Atomic uint64_t word;

typedef struct {
    uint64_t sequence;
    int64_t time_ns, received_ns;
    double price, size;
    int64_t id;
    uint32_t market, count;
    uint16_t type;
    int8_t side;
    uint8_t flags;
    uint32_t unused;
} tick;

typedef struct {
    int64_t index, time;
    double open, high, low, close, volume;
    int64_t count;
    double wap;
    int64_t flags;
} bar;

/* Sums are kept as a high and a low part; what is published is their sum. */
typedef struct {
    word *stamps, *rows, *stamp, *row;
    uint64_t head, writes;
    int64_t period, end_ns;
    bar newest;
    double volume_high, volume_low, worth_high, worth_low;
} bar_ring;

typedef struct {
    uint32_t id;
    bar_ring rings[2];
} market;

_Static_assert(sizeof(tick) == 64 && sizeof(bar) == 80, "as the engine's");

static word *ticks, *tick_head, *probe;
static uint64_t tick_count, tick_mask, row_capacity, probe_seen;
static market *markets;
static PyObject *by_symbol;
static int reads_clock;

/* ---- ticks into bars ----------------------------------------------------------------- */

static inline void copy_words(word *to, const void *from, int count) {
    const uint64_t *source = from;
    for (int i = 0; i < count; i++) {
        atomic_store_explicit(&to[i], source[i], memory_order_relaxed);
    }
}

static void add(double *high, double *low, double number) {
    double sum = *high + number, part = sum - *high;
    *low += (*high - (sum - part)) + (number - part);
    *high = sum;
}

static double product_error(double a, double b, double product) {
    const double split = 134217729.0;
    double a_high = a * split, b_high = b * split;
    a_high -= a_high - a;
    b_high -= b_high - b;
    double a_low = a - a_high, b_low = b - b_high;
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
}

static void store(word *to, double number) {
    uint64_t bits;
    memcpy(&bits, &number, 8);
    atomic_store_explicit(to, bits, memory_order_relaxed);
}

static void begin_bar(bar_ring *ring, const tick *t) {
    int64_t time = t->time_ns / NS / ring->period * ring->period;
    ring->end_ns = (time + ring->period) * NS;
    ring->stamp = &ring->stamps[ring->head % row_capacity];
    ring->row = &ring->rows[ring->head % row_capacity * 10];
    ring->newest = (bar){.index = (int64_t)ring->head++, .time = time, .open = t->price, .high = t->price, .low = t->price};
    ring->volume_high = ring->volume_low = ring->worth_high = ring->worth_low = 0;
}

static inline void fold(bar_ring *ring, const tick *t, double product, double error) {
    bar *row = &ring->newest;
    int begins = t->time_ns >= ring->end_ns;
    if (begins) {
        begin_bar(ring, t);
    }
    row->high = t->price > row->high ? t->price : row->high;
    row->low = t->price < row->low ? t->price : row->low;
    row->close = t->price;
    row->count += t->count;
    add(&ring->volume_high, &ring->volume_low, t->size);
    add(&ring->worth_high, &ring->worth_low, product);
    ring->worth_low += error;
    row->volume = ring->volume_high + ring->volume_low;
    row->wap = row->volume > 0 ? (ring->worth_high + ring->worth_low) / row->volume : row->close;
    uint64_t number = ++ring->writes;
    word *words = ring->row;
    atomic_store_explicit(ring->stamp, 2 * number - 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    if (begins) {
        copy_words(words, row, 10);
    } else { /* what a trade can change */
        store(&words[3], row->high);
        store(&words[4], row->low);
        store(&words[5], row->close);
        store(&words[6], row->volume);
        atomic_store_explicit(&words[7], (uint64_t)row->count, memory_order_relaxed);
        store(&words[8], row->wap);
    }
    atomic_store_explicit(ring->stamp, 2 * number, memory_order_release);
}

static inline void take(market *m, tick *t) {
    double product = t->price * t->size, error = product_error(t->price, t->size, product);
    t->market = m->id;
    t->sequence = tick_count;
    copy_words(&ticks[(tick_count & tick_mask) * 8], t, 8);
    atomic_store_explicit(tick_head, ++tick_count, memory_order_release);
    fold(&m->rings[0], t, product, error);
    fold(&m->rings[1], t, product, error);
}

static int64_t received_ns(void) {
    struct timespec now = {0, 0};
    if (reads_clock) {
        clock_gettime(CLOCK_REALTIME, &now);
    }
    return (int64_t)now.tv_sec * NS + now.tv_nsec;
}

/* ---- from Python --------------------------------------------------------------------- */

static PyObject *names[9];
enum { SYMBOL, TICKS, TYPE, PRICE, SIZE, TIME, ID, SIDE, COUNT };
static PyObject *trade_type, *buy;

static market *find_market(PyObject *symbol) {
    PyObject *number = symbol ? PyDict_GetItemWithError(by_symbol, symbol) : NULL;
    if (!number) {
        PyErr_SetString(PyExc_KeyError, "symbol");
        return NULL;
    }
    return &markets[PyLong_AsLong(number)];
}

static int fill_tick(tick *t, PyObject **values) {
    if (!values[TYPE] || !values[PRICE] || !values[SIZE] || !values[TIME]) {
        PyErr_SetString(PyExc_KeyError, "type, price, size or time_ns");
        return -1;
    }
    if (values[TYPE] != trade_type && PyUnicode_Compare(values[TYPE], trade_type)) {
        PyErr_SetString(PyExc_ValueError, "type");
        return -1;
    }
    memset(t, 0, sizeof *t);
    t->type = 1;
    t->price = PyFloat_AsDouble(values[PRICE]);
    t->size = PyFloat_AsDouble(values[SIZE]);
    t->time_ns = PyLong_AsLongLong(values[TIME]);
    t->id = values[ID] ? PyLong_AsLongLong(values[ID]) : 0;
    t->side = !values[SIDE] ? 0 : values[SIDE] == buy || !PyUnicode_Compare(values[SIDE], buy) ? 1 : -1;
    t->count = values[COUNT] ? (uint32_t)PyLong_AsUnsignedLong(values[COUNT]) : 1;
    return PyErr_Occurred() ? -1 : 0;
}

/* The values of named keys, each looked up by itself. */
static void look_up(PyObject *mapping, PyObject **values, int first, int last) {
    for (int i = first; i <= last; i++) {
        values[i] = PyDict_GetItemWithError(mapping, names[i]);
    }
}

/* The same when the keys stand in the order of `names`, which is a guess. */
static int walk(PyObject *mapping, PyObject **values, int first, int last) {
    Py_ssize_t place = 0;
    PyObject *key;
    for (int i = first; i <= last; i++) {
        if (!PyDict_Next(mapping, &place, &key, &values[i]) || key != names[i]) {
            return -1;
        }
    }
    return 0;
}

static PyObject *push_quote(PyObject *quote, int guess) {
    PyObject *values[9];
    if (!PyDict_CheckExact(quote)) {
        return PyErr_Format(PyExc_TypeError, "quote");
    }
    if (!guess || walk(quote, values, SYMBOL, TICKS)) {
        look_up(quote, values, SYMBOL, TICKS);
    }
    market *m = find_market(values[SYMBOL]);
    if (!m || !values[TICKS] || !PyList_CheckExact(values[TICKS])) {
        return m ? PyErr_Format(PyExc_TypeError, "ticks") : NULL;
    }
    PyObject *list = values[TICKS];
    int64_t now = received_ns();
    tick t;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (!PyDict_CheckExact(item)) {
            return PyErr_Format(PyExc_TypeError, "tick");
        }
        if (!guess || walk(item, values, TYPE, COUNT)) {
            look_up(item, values, TYPE, COUNT);
        }
        if (fill_tick(&t, values)) {
            return NULL;
        }
        t.received_ns = now;
        take(m, &t);
    }
    return PyLong_FromSsize_t(PyList_GET_SIZE(list));
}

static PyObject *push(PyObject *self, PyObject *quote) {
    (void)self;
    return push_quote(quote, 0);
}

static PyObject *push_guessing(PyObject *self, PyObject *quote) {
    (void)self;
    return push_quote(quote, 1);
}

/* market number, time_ns, price, size, id, side, count */
static PyObject *push_trade(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 7) {
        return PyErr_Format(PyExc_TypeError, "seven arguments");
    }
    tick t = {.type = 1, .received_ns = received_ns()};
    t.time_ns = PyLong_AsLongLong(args[1]);
    t.price = PyFloat_AsDouble(args[2]);
    t.size = PyFloat_AsDouble(args[3]);
    t.id = PyLong_AsLongLong(args[4]);
    t.side = (int8_t)PyLong_AsLong(args[5]);
    t.count = (uint32_t)PyLong_AsLong(args[6]);
    long number = PyLong_AsLong(args[0]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    take(&markets[number], &t);
    return PyLong_FromLong(1);
}

/* market number, array of the engine's tick records */
static PyObject *push_ticks(PyObject *self, PyObject *args) {
    (void)self;
    long number;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "ly*", &number, &buffer)) {
        return NULL;
    }
    const tick *from = buffer.buf;
    Py_ssize_t count = buffer.len / (Py_ssize_t)sizeof *from;
    int64_t now = received_ns();
    for (Py_ssize_t i = 0; i < count; i++) {
        tick t = from[i];
        t.received_ns = now;
        take(&markets[number], &t);
    }
    PyBuffer_Release(&buffer);
    return PyLong_FromSsize_t(count);
}

static PyObject *call_with_one(PyObject *self, PyObject *argument) {
    (void)self, (void)argument;
    return PyLong_FromLong(1);
}

static PyObject *call_with_seven(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self, (void)args, (void)count;
    return PyLong_FromLong(1);
}

/* ---- another process ----------------------------------------------------------------- */

/* One page: a record of 64 bytes, whose first word is a sequence and whose second is a
 * stamp, and on a line of its own the sequence that the reader has seen. */
static PyObject *probe_open(PyObject *self, PyObject *descriptor) {
    (void)self;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (int)PyLong_AsLong(descriptor), 0);
    if (PyErr_Occurred() || memory == MAP_FAILED) {
        return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
    }
    probe = memory;
    Py_RETURN_NONE;
}

static PyObject *probe_write(PyObject *self, PyObject *stamp) {
    (void)self;
    uint64_t record[8] = {0, (uint64_t)PyLong_AsLongLong(stamp)};
    copy_words(probe + 1, record + 1, 7);
    atomic_store_explicit(probe, atomic_load_explicit(probe, memory_order_relaxed) + 1, memory_order_release);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(1);
}

/* The stamp of a record that was not seen before, else None. */
static PyObject *probe_poll(PyObject *self, PyObject *nothing) {
    (void)self, (void)nothing;
    uint64_t sequence = atomic_load_explicit(probe, memory_order_acquire), record[8];
    if (sequence == probe_seen) {
        Py_RETURN_NONE;
    }
    for (int i = 1; i < 8; i++) {
        record[i] = atomic_load_explicit(&probe[i], memory_order_relaxed);
    }
    probe_seen = sequence;
    return PyLong_FromLongLong((int64_t)record[1]);
}

/* The reader is ready for the next record, of the engine or of the probe. */
static PyObject *acknowledge(PyObject *self, PyObject *nothing) {
    (void)self, (void)nothing;
    atomic_fetch_add_explicit(&probe[16], 1, memory_order_release);
    Py_RETURN_NONE;
}

static PyObject *acknowledged(PyObject *self, PyObject *nothing) {
    (void)self, (void)nothing;
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(&probe[16], memory_order_acquire));
}

/* ---- set-up -------------------------------------------------------------------------- */

static void *shared(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Whether each call reads the wall clock, for the time of receipt. */
static PyObject *read_clock(PyObject *self, PyObject *flag) {
    (void)self;
    reads_clock = PyObject_IsTrue(flag);
    Py_RETURN_NONE;
}

/* symbols, ticks (a power of two) and rows of a ring */
static PyObject *open_rings(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *symbols;
    unsigned long long capacity, rows;
    if (!PyArg_ParseTuple(args, "O!KK", &PyList_Type, &symbols, &capacity, &rows)) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(symbols);
    tick_mask = capacity - 1;
    row_capacity = rows;
    ticks = shared(64 * capacity);
    tick_head = shared(4096);
    uint8_t *memory = shared((size_t)count * 2 * 88 * rows);
    markets = calloc((size_t)count, sizeof *markets);
    by_symbol = PyDict_New();
    if (!ticks || !tick_head || !memory || !markets || !by_symbol) {
        return PyErr_NoMemory();
    }
    tick_count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *number = PyLong_FromSsize_t(i);
        if (!number || PyDict_SetItem(by_symbol, PyList_GET_ITEM(symbols, i), number)) {
            return NULL;
        }
        Py_DECREF(number);
        markets[i].id = (uint32_t)i;
        for (int place = 0; place < 2; place++, memory += 88 * rows) {
            bar_ring *ring = &markets[i].rings[place];
            ring->period = place ? 60 : 1;
            ring->rows = (word *)memory;
            ring->stamps = (word *)(memory + 80 * rows);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *close_rings(PyObject *self, PyObject *nothing) {
    (void)self, (void)nothing;
    munmap((void *)markets[0].rings[0].rows, (size_t)PyDict_GET_SIZE(by_symbol) * 2 * 88 * row_capacity);
    munmap((void *)ticks, 64 * (tick_mask + 1));
    munmap((void *)tick_head, 4096);
    free(markets);
    Py_CLEAR(by_symbol);
    Py_RETURN_NONE;
}

/* number of a market, 0 or 1 for its ring -> volume of the newest row, its bar_wap, rows */
static PyObject *newest(PyObject *self, PyObject *args) {
    (void)self;
    int number, place;
    if (!PyArg_ParseTuple(args, "ii", &number, &place)) {
        return NULL;
    }
    const bar_ring *ring = &markets[number].rings[place];
    return Py_BuildValue("ddK", ring->newest.volume, ring->newest.wap, (unsigned long long)ring->head);
}

static PyMethodDef methods[] = {
    {"open_rings", open_rings, METH_VARARGS, NULL},
    {"close_rings", close_rings, METH_NOARGS, NULL},
    {"read_clock", read_clock, METH_O, NULL},
    {"newest", newest, METH_VARARGS, NULL},
    {"push", push, METH_O, NULL},
    {"push_guessing", push_guessing, METH_O, NULL},
    {"push_trade", (PyCFunction)(void (*)(void))push_trade, METH_FASTCALL, NULL},
    {"push_ticks", push_ticks, METH_VARARGS, NULL},
    {"call_with_one", call_with_one, METH_O, NULL},
    {"call_with_seven", (PyCFunction)(void (*)(void))call_with_seven, METH_FASTCALL, NULL},
    {"probe_open", probe_open, METH_O, NULL},
    {"probe_write", probe_write, METH_O, NULL},
    {"probe_poll", probe_poll, METH_NOARGS, NULL},
    {"acknowledge", acknowledge, METH_NOARGS, NULL},
    {"acknowledged", acknowledged, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "c_row", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_c_row(void) {
    static const char *const texts[9] = {"symbol", "ticks", "type", "price", "size", "time_ns", "id", "side", "count"};
    for (int i = 0; i < 9; i++) {
        names[i] = PyUnicode_InternFromString(texts[i]);
    }
    trade_type = PyUnicode_InternFromString("trade");
    buy = PyUnicode_InternFromString("buy");
    return PyModule_Create(&definition);
}
