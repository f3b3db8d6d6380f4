"""History as TWS gives it out: bars, ticks of a stretch of time, the first date.

Rules this file owns:

1. Every request is in the ledger before it is sent, and has a deadline; what is no
   longer waited for is cancelled at TWS.
2. Times are asked for and told in UTC. Rows ascend; volumes are in units, not in lots.
3. Ticks have whole seconds and no ids: a page is cut where a second may be incomplete.

Source: https://interactivebrokers.github.io/tws-api/historical_data.html
"""

import math
from calendar import timegm
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from time import strptime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

import piker_core as pk
from piker_core.calendars import NS
from piker_core.errors import DataThrottle, ProviderError

from .codes import PacingViolation
from .config import Config
from .contracts import Listing, contract_fields
from .gateway import Gateway
from .ledger import shared_ledger
from .library import load_library
from .session import Session
from .tape import is_price, trade_type
from .volume import decimal_size

PAGE_TICKS = 1000
Rows = NDArray[np.void]


class BarSize(NamedTuple):
    """A period as TWS writes it, and how much of it one request may ask for."""

    text: str
    most_s: int


BAR_SIZES = {
    1: BarSize("1 secs", 2000),
    5: BarSize("5 secs", 3600),
    10: BarSize("10 secs", 14400),
    15: BarSize("15 secs", 14400),
    30: BarSize("30 secs", 28800),
    60: BarSize("1 min", 86400),
    120: BarSize("2 mins", 2 * 86400),
    180: BarSize("3 mins", 7 * 86400),
    300: BarSize("5 mins", 7 * 86400),
    600: BarSize("10 mins", 7 * 86400),
    900: BarSize("15 mins", 7 * 86400),
    1200: BarSize("20 mins", 7 * 86400),
    1800: BarSize("30 mins", 30 * 86400),
    3600: BarSize("1 hour", 30 * 86400),
    7200: BarSize("2 hours", 30 * 86400),
    10800: BarSize("3 hours", 30 * 86400),
    14400: BarSize("4 hours", 30 * 86400),
    28800: BarSize("8 hours", 30 * 86400),
    86400: BarSize("1 day", 360 * 86400),
}
"""By period in seconds."""


class PastTick(msgspec.Struct, frozen=True):
    """One past trade: its exchange's second, and its type as in the tick ring."""

    second: int
    type: str
    price: float
    size: Decimal


class Page(msgspec.Struct, frozen=True):
    """Past trades, oldest first, and up to which second (exclusive) they are all."""

    ticks: Sequence[PastTick]
    until_s: int
    last: bool


class Archive:
    """History of any contract. Usable by several tasks at once."""

    def __init__(self, gateway: Gateway) -> None:
        self.config: Config = gateway.config
        self.ledger = shared_ledger(gateway.config)
        self._gateway = gateway
        self._slots = trio.CapacityLimiter(gateway.config.open_requests)

    async def bars(
        self,
        listing: Listing,
        period: int,
        end_s: int,
        span_s: int,
        *,
        urgent: bool = False,
    ) -> Rows:
        """Bars of `period` seconds with end - span <= time < end, of OHLCV_DTYPE.

        `period` is a key of BAR_SIZES, `span_s` at most what it says. In closed hours
        TWS reaches further back. Raises NoData, DataThrottle, ProviderError.
        """
        size = BAR_SIZES[period]
        duration = _duration(min(span_s, size.most_s))
        fields = contract_fields(listing)
        contract = load_library().Contract(**fields)
        end = utc_text(end_s * NS)
        asked = (listing.con_id, listing.exchange, listing.what)
        rows = await self._ask(
            lambda requests, number: requests.reqHistoricalData(
                number,
                contract,
                end,
                duration,
                size.text,
                listing.what,
                0,
                2,
                False,
                [],
            ),
            lambda name, _: name == "historicalDataEnd",
            what=f"{size.text} bars of {listing.fqme}",
            cancel=lambda requests, number: requests.cancelHistoricalData(number),
            request=(*asked, end, duration, size.text),
            line=asked,
            urgent=urgent,
        )
        bars = [row[0] for row in rows if len(row) == 1]
        return _bar_rows(listing, period, bars)

    async def trades(
        self, listing: Listing, start_s: int, *, urgent: bool = True
    ) -> Page:
        """Trades from a second on: a page of about 1,000."""
        contract = load_library().Contract(**contract_fields(listing))
        start = utc_text(start_s * NS)
        asked = (listing.con_id, listing.exchange, "TRADES")
        rows = await self._ask(
            lambda requests, number: requests.reqHistoricalTicks(
                number, contract, start, "", PAGE_TICKS, "TRADES", 0, False, []
            ),
            lambda _, arguments: bool(arguments and arguments[-1]),
            what=f"trades of {listing.fqme}",
            request=(*asked, "ticks", start),
            line=asked,
            urgent=urgent,
        )
        ticks = [_past_tick(listing, row) for page, _ in rows for row in page]
        return _page([tick for tick in ticks if tick.second >= start_s], len(ticks))

    async def first_s(self, listing: Listing) -> int:
        """When its history begins, in seconds UTC."""
        contract = load_library().Contract(**contract_fields(listing))
        asked = (listing.con_id, listing.exchange, listing.what)
        rows = await self._ask(
            lambda requests, number: requests.reqHeadTimeStamp(
                number, contract, listing.what, 0, 2
            ),
            lambda name, _: name == "headTimestamp",
            what=f"the first date of {listing.fqme}",
            cancel=lambda requests, number: requests.cancelHeadTimeStamp(number),
            request=(*asked, "head"),
            line=asked,
        )
        text = str(rows[-1][0])
        if not text.isdecimal():
            raise ProviderError(f"{text!r} is no first date of {listing.fqme}")
        return int(text)

    async def _ask(
        self,
        send: Any,
        ends: Any,
        *,
        what: str,
        request: Hashable,
        line: Hashable,
        urgent: bool = False,
        cancel: Any = None,
    ) -> list[tuple[Any, ...]]:
        async with self._slots:
            await self.ledger.take(request, line, urgent=urgent)
            session = await self._session(what)
            try:
                return await session.ask(
                    send,
                    ends,
                    what=what,
                    timeout_s=self.config.history_timeout_s,
                    cancel=cancel,
                )
            except DataThrottle as error:
                wait_s = error.retry_after
                if isinstance(error, PacingViolation):
                    wait_s = self.config.pacing_pause_s
                self.ledger.rest(wait_s)
                raise DataThrottle(str(error), retry_after=wait_s) from None

    async def _session(self, what: str) -> Session:
        """The session; one that was lost is waited for, within reason."""
        patient = self._gateway.was_connected
        with trio.move_on_after(self.config.history_timeout_s):
            return await self._gateway.session(patient=patient)
        raise ProviderError(
            f"not connected to TWS at {self.config.address} for "
            f"{self.config.history_timeout_s:g} s: {what}"
        )


def _duration(span_s: int) -> str:
    """A length of time as TWS writes it: in seconds up to a day."""
    if span_s < 86400:
        return f"{max(span_s, 1)} S"
    days = -(-span_s // 86400)
    return f"{days} D" if days <= 365 else f"{-(-days // 365)} Y"


def _bar_rows(listing: Listing, period: int, bars: Sequence[Any]) -> Rows:
    """Bars as rows, ascending; what is off the period is left out."""
    rows = np.zeros(len(bars), pk.OHLCV_DTYPE)
    for row, bar in zip(rows, bars, strict=True):
        volume = max(bar.volume, 0.0)
        prices = (bar.open, bar.high, bar.low, bar.close)
        if not all(is_price(price) for price in prices) or not math.isfinite(volume):
            raise ProviderError(f"{bar} is no bar of {listing.fqme}", frame=repr(bar))
        row["time"] = _bar_time(str(bar.date), listing)
        row["open"], row["high"], row["low"], row["close"] = prices
        row["volume"] = volume * listing.lot
        row["count"] = max(bar.barCount, 0)
        row["bar_wap"] = bar.average if volume and is_price(bar.average) else bar.close
    _, kept = np.unique(rows["time"], return_index=True)
    final: Rows = rows[kept[rows["time"][kept] % period == 0]]
    _count_moves(final)
    return final


def _count_moves(rows: Rows) -> None:
    """Bars that tell neither volume nor count, as those of quotes: 1 where it moved."""
    before = np.concatenate([rows["open"][:1], rows["close"][:-1]])
    untold = (rows["count"] == 0) & (rows["volume"] == 0)
    moved = (rows["low"] != rows["high"]) | (rows["close"] != before)
    rows["count"][untold & moved] = 1


def _bar_time(text: str, listing: Listing) -> int:
    """Seconds UTC; a day is its midnight there."""
    if text.isdecimal() and len(text) > 8:
        return int(text)
    if text.isdecimal() and len(text) == 8:
        return timegm(strptime(text, "%Y%m%d"))
    raise ProviderError(f"{text!r} is no time of a bar of {listing.fqme}", frame=text)


def _past_tick(listing: Listing, row: Any) -> PastTick:
    size = decimal_size(row.size)
    if not is_price(row.price) or size is None:
        raise ProviderError(f"{row} is no trade of {listing.fqme}", frame=repr(row))
    return PastTick(
        int(row.time.timestamp()),
        trade_type(row.tickAttribLast),
        row.price,
        size * listing.lot,
    )


def _page(ticks: list[PastTick], told: int) -> Page:
    """Where more may follow, the last second is left to the next page.

    Unless it is the only one: TWS gives out all ticks of a page's last second.
    """
    if told < PAGE_TICKS:
        return Page(ticks, 0, last=True)
    last_s = ticks[-1].second
    whole = [tick for tick in ticks if tick.second < last_s]
    if whole:
        return Page(whole, last_s, last=False)
    return Page(ticks, last_s + 1, last=False)


def utc_text(time_ns: int) -> str:
    """A time in whole seconds as requests write it: `20261123-14:30:00`, UTC."""
    return f"{datetime.fromtimestamp(time_ns // NS, UTC):%Y%m%d-%H:%M:%S}"
