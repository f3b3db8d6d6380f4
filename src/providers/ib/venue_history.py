"""Answers to requests for history at a simulated gateway: bars, ticks, head times."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import trio

from piker_core.simulation.market import NS
from piker_core.simulation.totals import Rows

from .venue_asked import (
    NO_ZONE,
    SERVICE,
    Asked,
    BarsAsked,
    HeadAsked,
    TicksAsked,
    check_bars,
    check_shown,
    check_ticks,
    no_data,
    no_permission,
    parse_time,
    read_bars,
    read_head,
    read_ticks,
)
from .venue_bars import TRADED, BarUpdates, Series, span_bars, window
from .venue_directory import Directory, Found, Refused
from .venue_faults import Faults
from .venue_frames import ZONED_TIMES, Fields, frame, time_text
from .venue_link import Link
from .venue_market import ContractExchange, ContractMarket
from .venue_pacing import HistoryLimits, Pacing
from .venue_status import Status
from .venue_tape import (
    Tape,
    check_sizes,
    midpoint_fields,
    quote_fields,
    trade_fields,
)

PACED_S = 30
Key = tuple[Link, int]
_TICKS_A_FRAME = 1000
_TICK_MESSAGES = {"TRADES": 98, "BID_ASK": 97, "MIDPOINT": 96}


class History:
    """Answers requests for history, and keeps the limits on them.

    `open` holds the requests that are not finished, and the bars that go on.
    """

    def __init__(
        self,
        directory: Directory,
        exchange: ContractExchange,
        faults: Faults,
        status: Status,
        *,
        limits: HistoryLimits,
        tape: Tape,
    ) -> None:
        self.pacing = Pacing(limits)
        self.open: dict[Key, BarUpdates | None] = {}
        self.nursery: trio.Nursery
        self._directory = directory
        self._exchange = exchange
        self._faults = faults
        self._status = status
        self._limits = limits
        self._tape = tape

    # Requests

    def bars(self, link: Link, fields: Fields) -> None:
        """reqHistoricalData."""
        fields.read_id()
        asked = read_bars(fields, self._directory.resolve(fields.contract()))
        check_bars(asked, self._limits)
        self._allow(link, asked.found, SERVICE, 162)
        end_s = self._time_s(link, fields.request_id, asked.end)
        answer = partial(self._send_bars, link, fields.request_id, asked, end_s)
        paced = asked.period_s <= PACED_S
        self._begin(link, fields, answer, asked if paced else None)

    def ticks(self, link: Link, fields: Fields) -> None:
        """reqHistoricalTicks."""
        fields.read_id()
        asked = read_ticks(fields, self._directory.resolve(fields.contract()))
        check_ticks(asked, self._limits)
        self._allow(link, asked.found, "Failed to request historical ticks:", 10187)
        time_s = self._time_s(link, fields.request_id, asked.start or asked.end)
        answer = partial(self._send_ticks, link, fields.request_id, asked, time_s)
        self._begin(link, fields, answer, asked)

    def head(self, link: Link, fields: Fields) -> None:
        """reqHeadTimeStamp."""
        fields.read_id()
        asked = read_head(fields, self._directory.resolve(fields.contract()))
        check_shown(asked.found, asked.what)
        self._allow(link, asked.found, SERVICE, 162)
        answer = partial(self._send_head, link, fields.request_id, asked)
        self._begin(link, fields, answer, asked)

    def cancel(self, link: Link, fields: Fields) -> None:
        """cancelHistoricalData: of bars that go on, or of an answer to come."""
        fields.integer()  # version
        request_id = fields.read_id()
        if (link, request_id) not in self.open:
            text = f"No historical data query found for ticker id:{request_id}"
            raise Refused(366, text)
        del self.open[link, request_id]
        text = f"{SERVICE}API historical data query cancelled: {request_id}"
        raise Refused(162, text)

    def cancel_head(self, link: Link, fields: Fields) -> None:
        """cancelHeadTimestamp: nothing is said."""
        self.open.pop((link, fields.read_id()), None)

    def forget(self, link: Link) -> None:
        """End the requests of a client that is gone."""
        for key in [key for key in self.open if key[0] is link]:
            del self.open[key]

    def end_updates(self) -> None:
        """End all bars that go on, with error 10182."""
        for key in [key for key, bars in self.open.items() if bars is not None]:
            link, request_id = key
            del self.open[key]
            text = "Failed to request live updates (disconnected)."
            link.error(request_id, 10182, text)

    def update(self, now_ns: int) -> None:
        """Send the bars that changed to those who asked to be kept up to date."""
        for (link, _), bars in tuple(self.open.items()):
            if bars is not None and not self._faults.muted(bars.market.pair.symbol):
                link.send(*bars.update(now_ns))

    # Admission

    def _allow(self, link: Link, found: Found, prefix: str, code: int) -> None:
        check_sizes(link.version, found.contract)
        if self._faults.competing:
            text = "Trading TWS session is connected from a different IP address"
            raise Refused(code, prefix + text)
        if found.contract.symbol in self._faults.refused_symbols:
            raise Refused(code, prefix + no_permission(found))

    def _begin(
        self,
        link: Link,
        fields: Fields,
        answer: Callable[[], bool],
        paced: Asked | None,
    ) -> None:
        """Answer a request, unless a limit, a fault or a farm is against it."""
        key = (link, fields.request_id)
        if key in self.open:
            text = "Error processing request.-'bU' : cause - Duplicate ticker ID"
            raise Refused(322, f"{text} for API historical data query")
        if len(self.open) >= self._limits.open_requests:
            most = self._limits.open_requests
            text = f"Only {most} simultaneous API historical data requests allowed."
            raise Refused(322, f"Error processing request.-'cn' : cause - {text}")
        fault = self._faults.take_rest()
        kept = paced is None or self._take(paced)
        if not kept or fault == "throttle":
            raise Refused(162, f"{SERVICE}Historical data request pacing violation")
        gone = self._status.linked and not self._status.has("history")
        if gone or fault == "unavailable":
            text = "HMDS server disconnect occurred.  Attempting reconnection..."
            raise Refused(165, f"Historical Market Data Service query message:{text}")
        self.open[key] = None
        if self._status.linked and fault != "history_never_answers":
            if self._faults.slow_rest_s:
                self.nursery.start_soon(self._finish_later, key, answer)
            else:
                self._finish(key, answer)

    def _take(self, asked: Asked) -> bool:
        """Count a request that is paced; whether it keeps the limits."""
        kind = (asked.found.contract.con_id, asked.found.exchange, asked.what)
        cost = 2 if asked.what == "BID_ASK" else 1
        return self.pacing.take(trio.current_time(), kind, asked, cost)

    async def _finish_later(self, key: Key, answer: Callable[[], bool]) -> None:
        await trio.sleep(self._faults.slow_rest_s)
        if key in self.open:
            self._finish(key, answer)

    def _finish(self, key: Key, answer: Callable[[], bool]) -> None:
        """Send the answer; it tells whether the request goes on."""
        try:
            if answer():
                return
        except Refused as refused:
            key[0].error(key[1], refused.code, refused.text)
        del self.open[key]

    def _time_s(self, link: Link, request_id: int, text: str) -> int:
        """A time of a request, now if it is empty; warns if it has no zone."""
        now_s = self._exchange.advance() // NS
        if not text:
            return now_s + 1
        time_s, zoned = parse_time(text)
        if not zoned and link.version >= ZONED_TIMES:
            link.error(request_id, 2174, NO_ZONE)
        return min(time_s, now_s + 1)

    # Answers

    def _send_bars(
        self, link: Link, request_id: int, asked: BarsAsked, end_s: int
    ) -> bool:
        series = Series(
            asked.found, asked.what, asked.period_s, asked.rth, self._tape,
            link.version, asked.format == 2,
        )  # fmt: skip
        number, unit = asked.span
        sessions = window(series, end_s, number, unit)
        end_ns = min(end_s * NS, self._exchange.advance() + 1)
        bars = span_bars(series, sessions, end_ns)
        if not bars:
            raise no_data(asked.found, asked.what)
        zone = series.market.hours.zone
        edges = (sessions[0].begin_s, sessions[-1].end_s)
        stamps = [time_text(edge, zone, link.version) for edge in edges]
        rows = [field for bar in bars for field in series.row(bar)]
        link.send(frame(17, request_id, *stamps, len(bars), *rows))
        if asked.live:
            self.open[link, request_id] = BarUpdates(request_id, series, bars)
        return asked.live

    def _send_ticks(
        self, link: Link, request_id: int, asked: TicksAsked, time_s: int
    ) -> bool:
        market = asked.found.market
        rows = market.rows() if asked.what == "TRADES" else market.quotes()
        if asked.rth and not market.hours.always:
            rows = _within(rows, market)
        rows = _part(rows, time_s * NS, asked)
        shown = [self._tick(link, asked, row) for row in rows.tolist()]
        message = _TICK_MESSAGES[asked.what]
        for first in range(0, max(len(shown), 1), _TICKS_A_FRAME):
            part = shown[first : first + _TICKS_A_FRAME]
            done = first + _TICKS_A_FRAME >= len(shown)
            flat = [field for row in part for field in row]
            link.send(frame(message, request_id, len(part), *flat, done))
        return False

    def _tick(
        self, link: Link, asked: TicksAsked, row: tuple[object, ...]
    ) -> tuple[object, ...]:
        contract = asked.found.contract
        if asked.what == "TRADES":
            return trade_fields(contract, row, link.version, self._tape)
        if asked.what == "BID_ASK":
            return quote_fields(contract, row, link.version, self._tape)
        time_s, price = midpoint_fields(contract, row)
        return (time_s, 0, price, 0)

    def _send_head(self, link: Link, request_id: int, asked: HeadAsked) -> bool:
        first_s = asked.found.market.first_s(asked.what in TRADED)
        if not first_s:
            raise no_data(asked.found, asked.what)
        stamp = time.strftime("%Y%m%d-%H:%M:%S", time.gmtime(first_s))
        link.send(frame(88, request_id, first_s if asked.format == 2 else stamp))
        return False


def _within(rows: Rows, market: ContractMarket) -> Rows:
    """Rows of liquid hours."""
    times = rows["time_ns"]
    if not len(rows):
        return rows
    kept = np.zeros(len(rows), bool)
    first_s, last_s = int(times[0]) // NS, int(times[-1]) // NS
    for row in market.hours.sessions(first_s, last_s + 1, rth=True):
        kept |= (times >= row.begin_s * NS) & (times < row.end_s * NS)
    return rows[kept]


def _part(rows: Rows, time_ns: int, asked: TicksAsked) -> Rows:
    """So many rows from a time on or before it, with all of the last second."""
    times = rows["time_ns"]
    index = int(np.searchsorted(times, time_ns))
    if asked.start:
        last = min(index + asked.number, len(rows)) - 1
        if last < index:
            return rows[:0]
        second_ns = (int(times[last]) // NS + 1) * NS
        return rows[index : int(np.searchsorted(times, second_ns))]
    first = max(index - asked.number, 0)
    if first >= index:
        return rows[:0]
    second_ns = int(times[first]) // NS * NS
    return rows[int(np.searchsorted(times, second_ns)) : index]
