# Creating, opening and identifying the segments that an engine writes.

cdef int _check_errno(int error, str what) except -1:
    if error == ENOSPC:
        raise OSError(
            error,
            f"no space left in /dev/shm for the rings of {what}: "
            "free some (piker-core segments --gc) or enlarge it",
        )
    if error:
        raise OSError(error, f"the rings of {what}: {os.strerror(error)}")
    return 0


cdef str _checked_part(text, str what, int most):
    if not isinstance(text, str) or not 0 < len(text.encode("utf-8", "replace")) <= most or not text.isprintable():
        raise PikerError(f"{what} {text!r:.80} must be 1 to {most} printable characters")
    return text


cdef list _checked_periods(periods):
    ordered = sorted(set(periods))
    if not ordered or len(ordered) > PK_PERIODS or len(ordered) != len(list(periods)):
        raise ValueError(f"periods {periods!r:.80} must be 1 to {PK_PERIODS} different numbers of seconds")
    for period in ordered:
        if not isinstance(period, int) or not 0 < period < 1 << 31:
            raise ValueError(f"period {period!r:.80} must be a whole number of seconds")
    return ordered


cdef int _put_text(char *room, Py_ssize_t size, text) except -1:
    cdef bytes encoded = str(text).encode()
    if len(encoded) >= size:
        raise ValueError(f"{text!r:.80} is longer than {size - 1} bytes")
    memcpy(room, <char *>encoded, len(encoded))
    return 0


cdef str _dtype_text(dtype):
    return ",".join(f"{name} {dtype[name].str.lstrip('<|')}" for name in dtype.names)


cdef int _identify(pk_identity *identity, FeedEngine engine, str fqme, dtype) except -1:
    """The parts of a header that do not depend on sizes."""
    memset(identity, 0, sizeof(pk_identity))
    identity.magic = PK_MAGIC
    identity.version = PK_VERSION
    identity.item_size = dtype.itemsize
    identity.created_ns = pk_wall_ns()
    identity.uid = getuid()
    _put_text(identity.space, 64, engine.namespace)
    _put_text(identity.provider, 32, engine.provider)
    _put_text(identity.fqme, 64, fqme)
    _put_text(identity.dtype, 184, _dtype_text(dtype))
    return 0


cdef object _segment_error(bytes name, const char *why):
    path = "/dev/shm/" + name.decode()
    return SegmentError(f"{path} {why.decode('utf-8', 'replace')}; remove it if it is not in use")


cdef int _lock(pk_lock *lock, int fd, bytes name, str what) except -1:
    """Take the writer's lock: 1 if it is held and `fd` is still the file of that name, else 0."""
    cdef int error = pk_take_lock(lock, name)
    if error == ENOENT:
        return 0
    if error == EAGAIN:
        raise WriterBusy(
            f"another process or engine writes {what}: close it, or read its rings with attach_bars()"
        )
    _check_errno(error, what)
    return pk_is_current(lock.fd, name) and pk_is_current(fd, name)


cdef int _open_file(bytes name, pk_identity *wanted, int *created, str what) except -1:
    """A descriptor of the file of a ring, which is created where there is none."""
    cdef int fd, error
    while True:
        created[0] = 0
        fd = pk_open_file(name, O_RDWR)
        if fd < 0 and errno == ENOENT:
            fd = pk_create_file(name, wanted.total_size, wanted.stamp_offset)
            created[0] = fd >= 0
            if fd < 0 and errno == EEXIST:
                continue
            _check_errno(errno if fd < 0 else 0, what)
        if fd >= 0:
            return fd
        error = errno
        raise SegmentError(
            f"/dev/shm/{name.decode()} cannot be opened ({os.strerror(error)}) "
            "as a ring of this layout version; remove it"
        )


cdef int _open_or_create(bytes name, pk_identity *wanted, pk_lock *lock, str what,
                         int *created) except -1:
    """A descriptor of the segment, whose header is then valid in *wanted.

    With `lock`, the lock is taken before anything is believed, and stays held.
    """
    cdef int fd = -1
    try:
        while True:
            fd = _open_file(name, wanted, created, what)
            if (lock == NULL or _lock(lock, fd, name, what)) and _settle(fd, name, wanted, what, created[0]):
                return fd
            close(fd)
            fd = -1
            if lock != NULL:
                pk_drop_lock(lock)
    except BaseException:
        if fd >= 0:
            close(fd)
        if lock != NULL:
            pk_drop_lock(lock)
        raise


cdef int _settle(int fd, bytes name, pk_identity *wanted, str what, bint created) except -1:
    """Write the header of a new file, or check that of an old one; 0 if the file had to go."""
    cdef pk_identity found
    cdef char why[256]
    cdef int status, error
    if created:
        error = pk_write_header(fd, wanted)
        if error:
            pk_remove_file(name)
            _check_errno(error, what)
        return 1
    status = pk_read_header(fd, wanted.kind, &found, why, sizeof(why))
    if status == PK_BLANK:
        pk_remove_file(name)
        return 0
    if status != PK_OK:
        raise _segment_error(name, why)
    _check_same(name, wanted, &found, what)
    wanted[0] = found
    return 1


cdef int _check_same(bytes name, pk_identity *wanted, pk_identity *found, str what) except -1:
    if (strncmp(wanted.space, found.space, 64) or strncmp(wanted.provider, found.provider, 32)
            or strncmp(wanted.fqme, found.fqme, 64) or wanted.period != found.period):
        raise SegmentError(
            f"/dev/shm/{name.decode()} belongs to {found.fqme.decode('utf-8', 'replace')} "
            f"(layout version {PK_VERSION}), not to {what}; remove it"
        )
    return 0


cdef int _open_ticks(FeedEngine engine, tick_capacity) except -1:
    cdef pk_identity identity
    cdef char why[256]
    cdef int fd, created = 0, status
    cdef bytes name = segment_name(engine.namespace, engine.provider, "", 0)
    what = f"{engine.provider}'s ticks"
    if not isinstance(tick_capacity, int) or not 0 < tick_capacity <= 1 << 32:
        raise ValueError(f"tick_capacity {tick_capacity!r:.80} must be a positive number of ticks")
    _identify(&identity, engine, "", TICK_DTYPE)
    identity.kind = PK_TICKS
    identity.capacity = pk_round_capacity(tick_capacity, 64)
    identity.table_capacity = 4096
    pk_lay_out(&identity)
    if not os.path.exists(b"/dev/shm/" + name) and pk_free_bytes() < identity.total_size:
        _check_errno(ENOSPC, f"{what}, {identity.total_size >> 20} MB")
    fd = _open_or_create(name, &identity, &engine.lock, what, &created)
    memcpy(engine.ticks.segment.name, <char *>name, len(name) + 1)
    status = pk_map(fd, &identity, 1, 1, &engine.ticks.segment, why, sizeof(why))
    close(fd)
    if status:
        pk_drop_lock(&engine.lock)
        raise _segment_error(name, why)
    if pk_resume_ticks(&engine.ticks):
        pk_drop_lock(&engine.lock)
        raise SegmentError(f"/dev/shm/{name.decode()} has an impossible head (layout version {PK_VERSION}); remove it")
    if pk_chain_ticks(&engine.chain, &engine.ticks):
        pk_drop_lock(&engine.lock)
        raise MemoryError
    pk_open_generation(&engine.ticks.segment)
    return 0


cdef void _remove_new(Market market) noexcept:
    """Remove the files of a market's rings that no writer has finished opening."""
    cdef pk_segment *segment
    for ring in market.rings:
        segment = &(<BarWriter>ring).native.segment
        if pk_load(&segment.header.generation) == 0:
            pk_remove_file(segment.name)


cdef BarWriter _open_bars(Market market, int period, rows, price_tick, size_tick, bytes about, int *old):
    """Open one ring of a market; where that fails, the new ones before it are removed."""
    try:
        return _open_ring(market, period, rows, price_tick, size_tick, about, old)
    except BaseException:
        _remove_new(market)
        raise


cdef BarWriter _open_ring(Market market, int period, rows, price_tick, size_tick, bytes about, int *old):
    cdef BarWriter ring = BarWriter.__new__(BarWriter)
    cdef FeedEngine engine = market.engine
    cdef pk_identity identity
    cdef char why[256]
    cdef int fd, created = 0, status
    cdef bytes name = segment_name(engine.namespace, engine.provider, market.fqme, period)
    what = f"{market.fqme}, {period} s"
    if not isinstance(rows, int) or not 0 < rows < 1 << 38:
        raise ValueError(f"capacity {rows!r:.80} of {what} must be a positive number of rows")
    ring.market, ring.fqme = market, market.fqme
    _identify(&identity, engine, market.fqme, OHLCV_DTYPE)
    _put_text(identity.price_tick, 32, price_tick)
    _put_text(identity.size_tick, 32, size_tick)
    identity.kind = PK_BARS
    identity.period = period
    identity.capacity = pk_round_capacity(rows, OHLCV_DTYPE.itemsize)
    identity.table_capacity = 256
    pk_lay_out(&identity)
    fd = _open_or_create(name, &identity, NULL, what, &created)
    memcpy(ring.native.segment.name, <char *>name, len(name) + 1)
    status = pk_map(fd, &identity, 1, 1, &ring.native.segment, why, sizeof(why))
    close(fd)
    if status:
        if created:
            pk_remove_file(name)
        raise _segment_error(name, why)
    if pk_resume_bars(&ring.native):
        raise SegmentError(
            f"/dev/shm/{name.decode()} has an impossible head, first or row (layout version {PK_VERSION}); remove it"
        )
    pk_write_about(&ring.native.segment, <char *>about, len(about))
    old[0] = not created
    return ring


cdef Market _new_market(FeedEngine engine, str fqme, fill, bars_from):
    cdef Market market = Market.__new__(Market)
    if fill not in ("flat", "none"):
        raise ValueError(f"fill {fill!r:.80} must be 'flat' or 'none'")
    if bars_from not in _BARS_FROM:
        raise ValueError(f"bars_from {bars_from!r:.80} must be one of {', '.join(_BARS_FROM)}")
    market.engine = engine
    market.fqme = fqme
    market.symbol = fqme[: -len(engine.provider) - 1]
    market.bars, market.rings = {}, []
    market.native.ticks = &engine.ticks
    market.native.fill_flat = fill == "flat"
    market.native.bars_from = _BARS_FROM[bars_from]
    market.native.resume = PK_RESUME_LOST
    market.native.live_from_ns = INT64_MAX
    market.native.late_window_ns = engine.late_window_ns
    for place in range(PK_PERIODS):
        market.native.fresh[place] = 1
    return market


cdef void _adopt_counters(Market market) noexcept:
    cdef int i
    cdef pk_header *header = market.native.bars[0].segment.header
    for i in range(PK_N_COUNTERS):
        market.native.counters[i] = pk_load(&header.counters[i])


cdef uint32_t _market_id(FeedEngine engine, str fqme) except? 0:
    """The market's place in the tick ring's table of names, made if there is none."""
    cdef pk_segment *segment = &engine.ticks.segment
    cdef uint64_t place = 0
    cdef bytes name = fqme.encode()
    if pk_find_name(segment, name, &place) == PK_OK:
        return place
    if pk_names(segment) == segment.table_capacity:
        raise PikerError(f"{engine.provider} has {segment.table_capacity} markets, there is no room for {fqme}")
    return pk_add_name(segment, name)


cdef void _begin_status(Market market) noexcept:
    """`starting`; why the feed was in its last state stays there until it has a new one."""
    cdef char[128] reason
    cdef uint64_t status
    reason[0] = 0
    for place in range(market.native.periods):
        if reason[0] == 0 and pk_read_reason(&market.native.bars[place].segment, &status, reason):
            reason[0] = 0
    pk_set_status(&market.native, PK_STARTING, reason)


cdef void _open_generation(FeedEngine engine, Market market) noexcept:
    for ring in market.rings:
        (<BarWriter>ring).woken = (<BarWriter>ring).native.head
        pk_open_generation(&(<BarWriter>ring).native.segment)
    _store_last(market)


cdef void _store_last(Market market) noexcept:
    cdef double price = market.native.last_price
    cdef int i
    for i in range(market.native.periods):
        pk_store(&market.native.bars[i].segment.header.last_price, (<uint64_t *>&price)[0])


cdef void _wake_rings(Market market) noexcept:
    cdef BarWriter ring
    for item in market.rings:
        ring = item
        if ring.woken != ring.native.head:
            ring.woken = ring.native.head
            pk_wake(&ring.native.segment)
