"""Who hears what a simulated Binance has to say.

Rules this file owns:

1. An event that goes to several clients is made once for each form it is sent in.
2. Every trade is an event of its own, and so is every aggregate; each stream keeps its
   order, unless a fault says otherwise.
3. Nobody hears of a symbol that is not trading, nor of anything while the venue is in
   maintenance.
"""

from collections.abc import Callable
from functools import partial

from piker_core.simulation.link import text_frame
from piker_core.simulation.totals import Rows

from .venue_cadence import Cadence, Changes, Event, Klines, Tickers, Top
from .venue_depth import Books
from .venue_faults import Faults
from .venue_frames import aggregate_event, book_event, envelope, trade_event
from .venue_link import Link
from .venue_streams import ALL, Stream, parse_stream
from .venue_symbols import MS, TRADING, SymbolExchange, SymbolMarket
from .venue_trades import aggregate

_SHAPED = frozenset({"trade", "aggTrade", "depth"})


class Audience:
    """The clients of a stream."""

    def __init__(self, name: str, stream: Stream, cadence: Cadence | None) -> None:
        self.name = name
        self.links: set[Link] = set()
        self.cadence = cadence
        self.period_ns = stream.period_ms * MS
        self.next_ns = 0
        self.shaped = stream.kind in _SHAPED


class Publisher:
    """Tells clients of trades and quotes when they happen, of all else by the clock."""

    def __init__(
        self, exchange: SymbolExchange, faults: Faults, books: Books, *, usdm: bool
    ) -> None:
        self._exchange = exchange
        self._faults = faults
        self._books = books
        self._usdm = usdm
        self._audiences: dict[str, Audience] = {}
        self._listed = {
            row.pair.symbol.lower(): row
            for row in exchange.markets
            if row.pair.status == TRADING
        }
        self._names = {
            row.pair.symbol: [
                f"{row.pair.symbol.lower()}@{kind}"
                for kind in ("trade", "aggTrade", "bookTicker")
            ]
            for row in exchange.markets
        }

    # Subscriptions

    def join(self, link: Link, name: str) -> None:
        """Have a stream sent to a client, if there is such a stream on its path."""
        audience = self._audiences.get(name)
        stream = parse_stream(name, usdm=self._usdm)
        if stream is None or (self._usdm and stream.route != link.route):
            return
        if stream.symbol.upper() in self._faults.refused_symbols:
            return
        if stream.symbol != ALL and stream.symbol not in self._listed:
            return
        if audience is None:
            audience = self._open(name, stream)
        audience.links.add(link)

    def leave(self, link: Link, name: str) -> None:
        """End that; an event that a fault put off is sent first."""
        audience = self._audiences.get(name)
        if audience is None or link not in audience.links:
            return
        for frame in link.held.pop(name, ()):
            link.put(frame)
        audience.links.discard(link)
        if not audience.links:
            del self._audiences[name]
            if audience.cadence is not None:
                audience.cadence.close()

    def _open(self, name: str, stream: Stream) -> Audience:
        now_ns = self._exchange.advance()
        cadence = self._cadence(stream, now_ns) if stream.period_ms else None
        audience = self._audiences[name] = Audience(name, stream, cadence)
        if cadence is not None:
            audience.next_ns = _next(now_ns, audience.period_ns)
        return audience

    def _cadence(self, stream: Stream, now_ns: int) -> Cadence:
        mini = stream.kind == "miniTicker"
        if stream.symbol == ALL:
            return Tickers(list(self._listed.values()), mini=mini, together=True)
        market = self._listed[stream.symbol]
        if stream.kind == "kline":
            return Klines(market, stream.option, now_ns)
        if stream.kind == "depth":
            return Changes(market, self._books.open(market))
        if stream.kind == "partial":
            return Top(market, self._books.open(market), int(stream.option))
        return Tickers([market], mini=mini, together=False)

    # What the exchange tells

    def on_trades(self, market: SymbolMarket, bursts: list[Rows]) -> None:
        """Send trades, aggregates and the best quote."""
        pair = market.pair
        trades, aggregates, _ = (
            self._audiences.get(name) for name in self._names[pair.symbol]
        )
        now_ns = self._exchange.now_ns
        if trades is not None or aggregates is not None:
            for burst in bursts:
                rows = burst.tolist()
                for row in rows if trades is not None else ():
                    self._send(trades, partial(trade_event, pair, row, now_ns))
                for group in aggregate(rows) if aggregates is not None else ():
                    self._send(
                        aggregates, partial(aggregate_event, pair, group, now_ns)
                    )
        self.on_quote(market)

    def on_quote(self, market: SymbolMarket) -> None:
        """Send the best quote."""
        self._books.update(market)
        audience = self._audiences.get(self._names[market.pair.symbol][2])
        if audience is not None:
            self._send(audience, partial(book_event, market, self._exchange.now_ns))

    def on_system(self, system: str) -> None:
        """The venue says nothing about its state on streams."""

    def beat(self) -> None:
        """Send what is due by the clock."""
        now_ns = self._exchange.advance()
        if self._exchange.system != "online":
            return
        for audience in list(self._audiences.values()):
            if audience.cadence is None or audience.next_ns > now_ns:
                continue
            audience.next_ns = _next(now_ns, audience.period_ns)
            for event in audience.cadence.due(now_ns):
                self._send(audience, event)

    # Sending

    def _send(self, audience: Audience | None, event: Event) -> None:
        if audience is None:
            return
        made: dict[tuple[bool, int], bytes] = {}
        for link in audience.links:
            if link.line.frozen:
                continue
            form = link.form
            frame = made.get(form)
            if frame is None:
                frame = made[form] = _frame(audience.name, event, *form)
            if self._faults.calm or not audience.shaped:
                link.put(frame)
            else:
                self._send_shaped(link, audience.name, frame)

    def _send_shaped(self, link: Link, name: str, frame: bytes) -> None:
        broken = self._faults.broken_frame()
        if broken is not None:
            link.reply(broken)
        for shaped in self._faults.shape(link.held[name], frame):
            link.put(shaped)


def _frame(
    name: str, event: Callable[[int], bytes], combined: bool, unit: int
) -> bytes:
    text = event(unit)
    return text_frame(envelope(name, text) if combined else text)


def _next(now_ns: int, period_ns: int) -> int:
    return now_ns // period_ns * period_ns + period_ns
