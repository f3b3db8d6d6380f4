# From Python objects to tick records and rows; BadTick names the row, the field and the value.

cdef str shown(value):
    """The beginning of its repr; its type where that fails, as for an int of 10,000 digits."""
    try:
        return f"{value!r:.80}"
    except Exception:
        return f"a {type(value).__name__:.80}"


cdef object _bad(Py_ssize_t row, str field, value, str allowed):
    return BadTick(f"tick {row}: {field} {shown(value)} must be {allowed}")


cdef inline int64_t checked_count(int64_t count, Py_ssize_t row) except -1:
    if not 0 <= count < 1 << 32:
        raise _bad(row, "count", count, "a positive number below 2**32")
    return count or 1


cdef inline int8_t parse_side(side, Py_ssize_t row) except -2:
    if side is None:
        return 0
    if type(side) is str:
        if side == "buy":
            return 1
        if side == "sell":
            return -1
        if not side:
            return 0
    elif type(side) is int:
        if side == 0:
            return 0
        if side == 1:
            return 1
        if side == -1:
            return -1
    elif isinstance(side, (str, np.integer)):
        return parse_side(str(side) if isinstance(side, str) else int(side), row)
    raise _bad(row, "side", side, "buy, sell or empty (or 1, -1, 0)")


cdef inline int check_tick(pk_tick *tick, Py_ssize_t row, int64_t latest_ns, bint complain=True) except -1:
    """0 for a good tick; else 1, or BadTick."""
    if (isfinite(tick.price) and tick.price > 0 and isfinite(tick.size) and tick.size >= 0
            and 0 <= tick.time_ns <= latest_ns and -1 <= tick.side <= 1):
        return 0
    if complain:
        if not (isfinite(tick.price) and tick.price > 0):
            raise _bad(row, "price", tick.price, "finite and positive")
        if not (isfinite(tick.size) and tick.size >= 0):
            raise _bad(row, "size", tick.size, "finite and not negative")
        if tick.time_ns < 0:
            raise _bad(row, "time_ns", tick.time_ns, "positive")
        if tick.time_ns > latest_ns:
            raise _bad(row, "time_ns", tick.time_ns, f"at most {latest_ns} (the wall clock and max_skew_s)")
        raise _bad(row, "side", tick.side, "1 (buy), -1 (sell) or 0")
    return 1


cdef inline double number(value, Py_ssize_t row, str field) except? -1.0:
    """A float of what is a number; text, arrays and truth values are none."""
    if type(value) is float:
        return <double>value
    if isinstance(value, (Real, Decimal)) and type(value) is not bool:
        try:
            return float(value)
        except (ValueError, ArithmeticError):
            pass
    raise _bad(row, field, value, "a finite number")


cdef inline int64_t whole(value, Py_ssize_t row, str field) except? -1:
    """What is a whole number already; a float is none, not even 1.0."""
    cdef int overflow = 0
    cdef int64_t result = -1
    if type(value) is int:
        result = PyLong_AsLongLongAndOverflow(value, &overflow)
    elif type(value) is bool or not hasattr(type(value), "__index__"):
        overflow = 1
    else:
        try:
            result = PyLong_AsLongLongAndOverflow(PyNumber_Index(value), &overflow)
        except TypeError:
            overflow = 1
    if overflow:
        raise _bad(row, field, value, "a whole number of 64 bits")
    return result


cdef int64_t _time(time_ns, time_s, Py_ssize_t row) except? -1:
    cdef double seconds
    if time_ns is not None:
        return whole(time_ns, row, "time_ns")
    if time_s is None:
        raise BadTick(f"tick {row}: neither time_ns nor time is given")
    seconds = number(time_s, row, "time")
    if not 0 <= seconds < 9e9:
        raise _bad(row, "time", time_s, "seconds since 1970")
    return <int64_t>(seconds * 1e9 + 0.5)


cdef int parse_tick(tick, pk_tick *out, Py_ssize_t row, int64_t latest_ns) except -1:
    """1 for a good tick, 0 for one of unknown type."""
    if type(tick) is dict:
        kind = (<dict>tick).get("type")
        price, size = (<dict>tick).get("price"), (<dict>tick).get("size")
        time_ns, time_s = (<dict>tick).get("time_ns"), (<dict>tick).get("time")
        id, side = (<dict>tick).get("id", 0), (<dict>tick).get("side")
        count = (<dict>tick).get("count", 1)
    elif isinstance(tick, Tick):
        kind, price, size, time_ns, time_s = tick.type, tick.price, tick.size, tick.time_ns, tick.time
        id, side, count = tick.id, tick.side, tick.count
    else:
        raise BadTick(f"tick {row} is a dict or a Tick, not {shown(tick)}")
    if not isinstance(kind, str):
        raise _bad(row, "type", kind, "one of " + ", ".join(TICK_TYPES))
    code = TICK_TYPES.get(kind)
    if code is None:
        return 0
    if price is None or size is None:
        raise BadTick(f"tick {row}: {'price' if price is None else 'size'} is not given")
    memset(out, 0, sizeof(pk_tick))
    out.type = code
    out.price = number(price, row, "price")
    out.size = number(size, row, "size")
    out.time_ns = _time(time_ns, time_s, row)
    out.id = whole(id, row, "id")
    out.side = parse_side(side, row)
    out.count = checked_count(whole(count, row, "count"), row)
    check_tick(out, row, latest_ns)
    return 1


cdef double seed_price(last) except? -1.0:
    """A quote's `last` as a price; 0 if it is none."""
    cdef double price
    try:
        price = number(last, 0, "last")
    except BadTick:
        return 0.0
    return price if isfinite(price) and price > 0 else 0.0


cdef int64_t nanoseconds(value, str what) except -1:
    """A point in time that is an argument: UTC nanoseconds from 1970 to 2116."""
    cdef int overflow = 0
    cdef int64_t result = PyLong_AsLongLongAndOverflow(PyNumber_Index(value), &overflow)
    if overflow or not 0 <= result <= MOST_NS:
        raise ValueError(f"{what} {shown(value)} must be UTC nanoseconds, from 0 to 2**62")
    return result


cdef int64_t seconds_to_ns(value, str what, double most_s) except -1:
    """A duration that is an argument; beyond `most_s` there is no difference."""
    cdef double seconds = value
    if not seconds >= 0:
        raise ValueError(f"{what} {shown(value)} must be seconds, not negative")
    return <int64_t>(min(seconds, most_s) * 1e9)


cdef cnp.ndarray tick_records(array, str what):
    """An array of TICK_DTYPE, in one piece."""
    if isinstance(array, np.ndarray) and array.ndim == 1:
        if array.dtype == TICK_DTYPE or np.can_cast(array.dtype, TICK_DTYPE, "equiv"):
            return np.ascontiguousarray(array, TICK_DTYPE)
    raise TypeError(f"{what} takes a one-dimensional array of TICK_DTYPE, not {type(array).__name__}")


cdef cnp.ndarray _history(rows, int64_t period):
    """A copy as `OHLCV_DTYPE`, checked and flagged."""
    if not isinstance(rows, np.ndarray) or rows.dtype.names is None or rows.ndim != 1:
        raise ValueError("history must be a one-dimensional structured array of OHLCV_DTYPE")
    if not set(_REQUIRED) <= set(rows.dtype.names):
        raise ValueError(f"history must have the fields {', '.join(_REQUIRED)}")
    own = np.zeros(len(rows), OHLCV_DTYPE)
    for name in _REQUIRED[1:] + (("flags",) if "flags" in rows.dtype.names else ()):
        own[name] = rows[name]
        if own[name].dtype.kind == "i" and not (own[name] == rows[name]).all():
            raise ValueError(f"{name} of history must be whole numbers of 64 bits")
    for name in ("open", "high", "low", "close", "volume", "bar_wap"):
        if not np.isfinite(own[name]).all():
            raise ValueError(f"{name} of history must be finite")
    times = own["time"]
    if len(own):
        if (np.diff(times) <= 0).any() or (times % period).any() or times.min() < 0:
            raise ValueError(f"times of history must ascend in multiples of {period} s")
        if times.max() > MOST_NS // PK_NS:
            raise ValueError(f"history ends at {times.max()} s, which no clock shows")
        if own["count"].min() < 0 or own["volume"].min() < 0:
            raise ValueError("count and volume of history must not be negative")
    flat = (own["count"] == 0) & (own["volume"] == 0)
    own["flags"] = (own["flags"] & ~PK_FLAT) | np.where(flat, PK_FLAT, 0) | PK_BACKFILLED
    return own


cdef void _stamp(pk_tick *ticks, Py_ssize_t count, int64_t now) noexcept:
    cdef Py_ssize_t i
    for i in range(count):
        if ticks[i].recv_ns == 0:
            ticks[i].recv_ns = now


cdef void _count_unknown(Market market, Py_ssize_t count) noexcept:
    while count > 0:
        pk_count(&market.native, PK_N_UNKNOWN)
        count -= 1
