# From Python objects to tick records; BadTick names the row, the field and the value.

cdef object _bad(Py_ssize_t row, str field, value, str allowed):
    return BadTick(f"tick {row}: {field} {value!r:.80} must be {allowed}")


cdef int64_t checked_count(int64_t count, Py_ssize_t row) except -1:
    if not 0 <= count < 1 << 32:
        raise _bad(row, "count", count, "a positive number below 2**32")
    return count or 1


cdef int8_t parse_side(side, Py_ssize_t row) except -2:
    if side == 0 or side is None or side == "":
        return 0
    if side == 1 or side == "buy":
        return 1
    if side == -1 or side == "sell":
        return -1
    raise _bad(row, "side", side, "buy, sell or empty")


cdef int check_tick(pk_tick *tick, Py_ssize_t row, int64_t latest_ns, bint complain=True) except -1:
    """0 for a good tick; else 1, or BadTick."""
    if isfinite(tick.price) and tick.price > 0:
        if isfinite(tick.size) and tick.size >= 0:
            if 0 <= tick.time_ns <= latest_ns:
                return 0
            if not complain:
                return 1
            if tick.time_ns < 0:
                raise _bad(row, "time_ns", tick.time_ns, "positive")
            raise _bad(row, "time_ns", tick.time_ns, f"at most {latest_ns} (the wall clock and max_skew_s)")
        if complain:
            raise _bad(row, "size", tick.size, "finite and not negative")
    elif complain:
        raise _bad(row, "price", tick.price, "finite and positive")
    return 1


cdef double _number(value, Py_ssize_t row, str field) except? -1.0:
    if type(value) is float:
        return <double>value
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _bad(row, field, value, "a finite number") from None


cdef int64_t _whole(value, Py_ssize_t row, str field) except? -1:
    try:
        return value
    except (TypeError, OverflowError):
        raise _bad(row, field, value, "a whole number of 64 bits") from None


cdef int64_t _time(time_ns, time_s, Py_ssize_t row) except? -1:
    cdef double seconds
    if time_ns is not None:
        return _whole(time_ns, row, "time_ns")
    if time_s is None:
        raise BadTick(f"tick {row}: neither time_ns nor time is given")
    seconds = _number(time_s, row, "time")
    if not 0 <= seconds < 9e9:
        raise _bad(row, "time", time_s, "seconds since 1970")
    return <int64_t>(seconds * 1e9 + 0.5)


cdef int parse_tick(tick, pk_tick *out, Py_ssize_t row, int64_t latest_ns) except -1:
    """1 for a good tick, 0 for one of unknown type."""
    if type(tick) is dict:
        kind = (<dict>tick).get("type")
        price, size = (<dict>tick).get("price"), (<dict>tick).get("size")
        time_ns, time_s = (<dict>tick).get("time_ns"), (<dict>tick).get("time")
        number, side = (<dict>tick).get("id", 0), (<dict>tick).get("side")
        count = (<dict>tick).get("count", 1)
    elif isinstance(tick, Tick):
        kind, price, size, time_ns, time_s = tick.type, tick.price, tick.size, tick.time_ns, tick.time
        number, side, count = tick.id, tick.side, tick.count
    else:
        raise BadTick(f"tick {row} is a dict or a Tick, not {tick!r:.80}")
    if type(kind) is not str:
        raise _bad(row, "type", kind, "one of " + ", ".join(TICK_TYPES))
    code = TICK_TYPES.get(kind)
    if code is None:
        return 0
    if price is None or size is None:
        raise BadTick(f"tick {row}: {'price' if price is None else 'size'} is not given")
    memset(out, 0, sizeof(pk_tick))
    out.type = code
    out.price = _number(price, row, "price")
    out.size = _number(size, row, "size")
    out.time_ns = _time(time_ns, time_s, row)
    out.id = _whole(number, row, "id")
    out.side = parse_side(side, row)
    out.count = checked_count(_whole(count, row, "count"), row)
    check_tick(out, row, latest_ns)
    return 1


cdef int _seed(Market market, last) except -1:
    """A quote's `last` is the price as long as no trade has told one."""
    cdef double price
    if market.native.last_price > 0:
        return 0
    try:
        price = float(last)
    except (TypeError, ValueError, OverflowError):
        return 0
    if isfinite(price) and price > 0:
        market.native.last_price = price
        _store_last(market)
    return 0


cdef void _stamp(pk_tick *ticks, Py_ssize_t count, int64_t now) noexcept:
    cdef Py_ssize_t i
    for i in range(count):
        if ticks[i].recv_ns == 0:
            ticks[i].recv_ns = now


cdef void _count_unknown(Market market, Py_ssize_t count) noexcept:
    while count > 0:
        pk_count(&market.native, PK_N_UNKNOWN)
        count -= 1
