"""Market data subscriptions at a simulated gateway, and who is told what when."""

from typing import TypeVar

from piker_core.simulation.market import Market
from piker_core.simulation.totals import Rows

from .venue_asked import check_shown, no_permission
from .venue_bars import REAL_TIME_S, RealTimeBars, Series
from .venue_contracts import VenueContract
from .venue_directory import Directory, Found, Refused
from .venue_faults import Faults, Group
from .venue_frames import Fields, frame
from .venue_link import Link
from .venue_market import ContractExchange, ContractMarket
from .venue_status import Status
from .venue_tape import Tape, check_sizes
from .venue_ticks import TICK_KINDS, EachTick, Sampled

Key = tuple[Link, int]
T = TypeVar("T")
AnyMarket = Market[VenueContract]
COMPETING = "No market data during competing live session"
LIVE, FROZEN, DELAYED_DATA = 1, 2, 3
_GENERIC = frozenset(
    {"100", "101", "104", "105", "106", "162", "165", "221", "225", "232", "233", "236"}
    | {"258", "292", "293", "294", "295", "318", "375", "411", "456", "460", "499"}
    | {"506", "511", "512", "513", "514", "515", "516", "517", "545", "576", "577"}
    | {"578", "585", "586", "587", "588", "595", "614", "619", "623", "mdoff"}
)
_BBO_EXCHANGE = "9c0001"
_CANNOT = "Error processing request.-'bW' : cause - "


class Live:
    """All subscriptions to market data; nothing here waits for a client."""

    def __init__(
        self,
        directory: Directory,
        exchange: ContractExchange,
        faults: Faults,
        status: Status,
        *,
        tape: Tape,
        lines: int,
    ) -> None:
        self.sampled: dict[Key, Sampled] = {}
        self.each: dict[Key, EachTick] = {}
        self.five: dict[Key, RealTimeBars] = {}
        self._held: dict[Key, list[Group]] = {}
        self._directory = directory
        self._exchange = exchange
        self._faults = faults
        self._status = status
        self._tape = tape
        self._lines = lines

    @property
    def deaf(self) -> bool:
        """Whether requests for market data are swallowed."""
        return self._faults.acks_silent

    @property
    def lines(self) -> int:
        """Lines of market data that are in use."""
        return len(self.sampled) + len(self.each) + len(self.five)

    # Requests

    def market_data(self, link: Link, fields: Fields) -> None:
        """reqMktData."""
        fields.integer()  # version
        key = self._new(link, fields.read_id())
        found = self._directory.resolve(fields.contract())
        if fields.flag():  # a delta-neutral contract
            for _ in range(3):
                fields.text()
        generic = {text for text in fields.text().split(",") if text}
        snapshot = fields.flag()
        self._check_generic(generic, snapshot)
        delayed = self._delayed(link, key[1], found)
        stream = Sampled(
            link, key[1], found, self._tape, generic=generic, delayed=delayed
        )
        now_ns = self._exchange.advance()
        kind = self._data_type(link, found.market, now_ns, delayed)
        link.send(frame(81, key[1], found.contract.tick, _BBO_EXCHANGE, 3))
        link.send(frame(58, 1, key[1], kind))
        if not snapshot:
            self.sampled[key] = stream
        if self._flows(found.market):
            link.send(*stream.first(now_ns))
        if snapshot:
            link.send(frame(57, 1, key[1]))

    def cancel_market_data(self, link: Link, fields: Fields) -> None:
        """cancelMktData."""
        fields.integer()  # version
        self._drop(link, fields.read_id(), self.sampled)

    def tick_by_tick(self, link: Link, fields: Fields) -> None:
        """reqTickByTickData."""
        key = self._new(link, fields.read_id())
        found = self._directory.resolve(fields.contract())
        kind = fields.text()
        if kind not in TICK_KINDS:
            raise Refused(321, f"{_CANNOT}Invalid tick type: {kind}")
        failed = "Failed to request tick-by-tick data."
        untold = TICK_KINDS[kind] <= 2 and not found.contract.prints
        if untold or not found.contract.sized:
            name = found.contract.local_symbol
            text = f"{kind} tick-by-tick requests are not supported for {name}"
            raise Refused(10189, failed + text)
        check_sizes(link.version, found.contract)
        if found.contract.symbol in self._faults.refused_symbols:
            raise Refused(10189, failed + no_permission(found))
        if len(self.each) >= self._faults.tick_slots:
            text = "Max number of tick-by-tick requests has been reached."
            raise Refused(10190, text)
        self._exchange.advance()
        self.each[key] = EachTick(link, key[1], found, self._tape, kind)

    def cancel_tick_by_tick(self, link: Link, fields: Fields) -> None:
        """cancelTickByTickData."""
        self._drop(link, fields.read_id(), self.each)

    def real_time_bars(self, link: Link, fields: Fields) -> None:
        """reqRealTimeBars: of 5 s, whatever size was asked for."""
        fields.integer()  # version
        key = self._new(link, fields.read_id())
        found = self._directory.resolve(fields.contract())
        fields.integer()
        what, rth = fields.text().upper(), fields.flag()
        if what not in ("TRADES", "AGGTRADES", "BID", "ASK", "MIDPOINT"):
            raise Refused(420, f"Invalid Real-time Query:what to show {what}")
        check_shown(found, what)
        check_sizes(link.version, found.contract)
        if found.contract.symbol in self._faults.refused_symbols:
            raise Refused(420, f"Invalid Real-time Query:{no_permission(found)}")
        series = Series(found, what, REAL_TIME_S, rth, self._tape, link.version)
        self.five[key] = RealTimeBars(key[1], series)

    def cancel_real_time_bars(self, link: Link, fields: Fields) -> None:
        """cancelRealTimeBars."""
        fields.integer()  # version
        self._drop(link, fields.read_id(), self.five)

    def set_type(self, link: Link, fields: Fields) -> None:
        """reqMarketDataType: for the subscriptions to come."""
        fields.integer()  # version
        wanted = fields.integer()
        if not 1 <= wanted <= 4:
            raise Refused(321, f"{_CANNOT}Invalid market data type: {wanted}")
        link.data_type = wanted

    # Admission

    def _new(self, link: Link, request_id: int) -> Key:
        """The key of a new subscription, if there may be one more."""
        key = (link, request_id)
        if key in self.sampled or key in self.each or key in self.five:
            raise Refused(322, f"{_CANNOT}Duplicate ticker id")
        if self._faults.competing:
            raise Refused(10197, COMPETING)
        if self.lines >= self._lines:
            raise Refused(101, "Max number of tickers has been reached")
        return key

    def _check_generic(self, generic: set[str], snapshot: bool) -> None:
        if snapshot and generic:
            text = (
                "Snapshot market data subscription is not applicable to generic ticks"
            )
            raise Refused(321, f"{_CANNOT}{text}")
        unknown = sorted(generic - _GENERIC)
        if unknown:
            text = f"Incorrect generic tick list of {','.join(unknown)}."
            raise Refused(321, f"{_CANNOT}{text}")

    def _delayed(self, link: Link, request_id: int, found: Found) -> bool:
        """Whether only delayed data may be had; raises if live data were asked for."""
        check_sizes(link.version, found.contract)
        if found.contract.symbol not in self._faults.refused_symbols:
            return False
        missing = "Requested market data is not subscribed."
        if link.data_type <= FROZEN:
            place = f"{found.contract.local_symbol} {found.contract.exchange}/TOP/ALL"
            raise Refused(354, f"{missing}Delayed market data is available.{place}")
        link.error(request_id, 10167, f"{missing} Displaying delayed market data.")
        return True

    def _data_type(
        self, link: Link, market: ContractMarket, now_ns: int, delayed: bool
    ) -> int:
        frozen = link.data_type in (2, 4) and not market.is_open(now_ns)
        return (DELAYED_DATA if delayed else LIVE) + frozen

    # The end

    def _drop(self, link: Link, request_id: int, streams: dict[Key, T]) -> None:
        if streams.pop((link, request_id), None) is None:
            raise Refused(300, f"Can't find EId with tickerId:{request_id}")
        for group in self._held.pop((link, request_id), ()):
            link.send(*group)

    def forget(self, link: Link) -> None:
        """End the subscriptions of a client that is gone."""
        for streams in (self.sampled, self.each, self.five, self._held):
            for key in [key for key in streams if key[0] is link]:
                del streams[key]

    def lose_all(self, code: int = 0, text: str = "") -> None:
        """End all subscriptions, with an error if a code is given."""
        for streams in (self.sampled, self.each, self.five):
            for link, request_id in streams:
                if code:
                    link.error(request_id, code, text)
            streams.clear()
        self._held.clear()

    # What clients are told

    def on_trades(self, market: AnyMarket, bursts: list[Rows]) -> None:
        """Send each tick, and market data if they are not sampled."""
        self._send_each(market)
        if self._tape.sample_s:
            return
        upto = market.head - sum(map(len, bursts))
        for burst in bursts:
            upto += len(burst)
            self._sample(market, int(burst["time_ns"][-1]), upto)

    def on_quote(self, market: AnyMarket) -> None:
        """Send each quote, and market data if they are not sampled."""
        self._send_each(market)
        if not self._tape.sample_s:
            self._sample(market, market.quote.time_ns, market.head)

    def on_system(self, system: str) -> None:
        """The exchange itself never halts here."""

    def sample(self, now_ns: int) -> None:
        """Bring every subscription to market data up to date."""
        for market in {stream.market for stream in self.sampled.values()}:
            self._sample(market, now_ns, market.head)

    def send_five(self, end_s: int) -> None:
        """Send the bars that end at a multiple of five seconds."""
        for (link, _), stream in tuple(self.five.items()):
            if self._flows(stream.market):
                link.send(*stream.bar(end_s))

    def _flows(self, market: AnyMarket) -> bool:
        muted = self._faults.muted(market.pair.symbol)
        return self._status.has("market") and not muted

    def _sample(self, market: AnyMarket, now_ns: int, upto: int) -> None:
        if self._flows(market):
            for key, stream in tuple(self.sampled.items()):
                if stream.market is market:
                    self._tell(key, stream.update(now_ns, upto))

    def _send_each(self, market: AnyMarket) -> None:
        flows = self._flows(market)
        for key, stream in tuple(self.each.items()):
            if stream.market is market:
                groups = stream.updates()
                for group in groups if flows else ():
                    self._tell(key, group)

    def _tell(self, key: Key, group: Group) -> None:
        link, request_id = key
        if group and not link.line.frozen:
            held = self._held.setdefault(key, [])
            for shaped in self._faults.shape_for(held, group, request_id):
                link.send(*shaped)
