"""Faults of a simulated Binance: every way a venue fails its clients, on a switch."""

from typing import Protocol, TypeVar

from piker_core.simulation.faults import Faults as CommonFaults
from piker_core.simulation.faults import FaultSite as CommonSite

E = TypeVar("E")


class FaultSite(CommonSite, Protocol):
    """What the faults need of the venue they are switched on in."""

    def announce_shutdown(self, seconds: float) -> int:
        """Announce the end of every WebSocket connection, and end them then."""

    def delay_frames(self, seconds: float) -> None:
        """Send every WebSocket frame from now on so much later."""

    def ban_address(self, seconds: float) -> None:
        """Answer every REST call of so long with HTTP 418."""

    def terminate_user_streams(self) -> int:
        """End the user streams; returns how many."""

    def revoke_key(self) -> int:
        """Tell users of the WebSocket API of a key that is not valid; how many."""


_TRADE = (
    '{"e":"trade","E":1790000000000,"s":"BTCUSDT","t":%s,"p":%s,"q":%s,'
    '"T":%s,"m":true,"M":true}'
)


def _trade(
    trade_id: str = "9000000000001",
    price: str = '"61842.63000000"',
    size: str = '"0.10000000"',
    time: str = "1790000000000",
) -> bytes:
    trade = _TRADE % (trade_id, price, size, time)
    return f'{{"stream":"btcusdt@trade","data":{trade}}}'.encode()


MALFORMED: dict[str, bytes] = {
    "broken_json": b'{"stream":"btcusdt@trade","data":{"e":"trade","s":',
    "not_json": b"\x7f\x00 upstream connect error",
    "empty": b"",
    "array": b"[1,2,3]",
    "scalar": b"null",
    "unknown_event": b'{"stream":"btcusdt@weather","data":{"e":"weather","rain":1}}',
    "unknown_stream": b'{"stream":"xyzabc@trade","data":{"e":"haiku"}}',
    "unknown_reply": b'{"status":200,"id":77,"payload":{}}',
    "error_without_id": b'{"error":{"code":4,"msg":"Too many subscriptions"}}',
    "event_as_list": b'{"stream":"btcusdt@trade","data":[]}',
    "null_event": b'{"stream":"btcusdt@trade","data":null}',
    "wrong_types": _trade('"x"', "[]", "{}", '"yesterday"'),
    "nan_price": _trade(price='"NaN"'),
    "bare_nan_price": _trade(price="NaN"),
    "infinite_price": _trade(price='"1e999"'),
    "negative_size": _trade(size='"-0.10000000"'),
    "missing_fields": (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":9000000000002}}'
    ),
    "unknown_symbol": (
        b'{"stream":"xyzabc@trade","data":{"e":"trade","E":1790000000000,"s":"XYZABC",'
        b'"t":5,"p":"1.0","q":"0.1","T":1790000000000,"m":true,"M":true}}'
    ),
    "time_in_the_future": _trade(time="9990000000000"),
    "time_in_microseconds": _trade(time="1790000000000000"),
    "large": b'{"stream":"weather","data":"' + b"x" * 700_000 + b'"}',
    "giant": b'{"stream":"weather","data":"' + b"x" * 4_000_000 + b'"}',
}
"""Broken frames by name. `giant` passes the 1 MiB most clients accept."""


class Faults(CommonFaults[bytes]):
    """Switches, each to be called at any time; rates are parts of all trade frames.

    Trade frames are those of `trade`, `aggTrade` and `depth` streams. A symbol that is
    refused is unknown: REST answers -1121, subscriptions are acknowledged and silent.
    `unavailable` is HTTP 503 with -1008. In maintenance nothing trades, no stream
    speaks and the status of every symbol changes.
    """

    _site: FaultSite

    def __init__(self, site: FaultSite, seed: int) -> None:
        super().__init__(site, seed, MALFORMED, too_large=["giant"])
        self.html_status = 403
        self.retry_after_s = 1
        self.clock_skew_s = 0.0
        self.late_reports_s = 0.0
        self._orders: dict[str, int] = {}

    def told_ns(self, now_ns: int) -> int:
        """The time as the venue tells it."""
        return now_ns + int(self.clock_skew_s * 10**9)

    # WebSocket connections

    def shutdown(self, seconds: float) -> int:
        """Announce `serverShutdown` to the open connections, close them after so long.

        Returns how many there are; connections made meanwhile stay.
        """
        return self._count("shutdown", self._site.announce_shutdown(seconds))

    def rotate(self) -> int:
        """Close every connection as at the end of its 24 hours; returns how many."""
        return self._count("rotate", self._site.close_connections(1001, ""))

    def lag(self, seconds: float) -> None:
        """Send every frame from now on so much later than it was made."""
        self._site.delay_frames(seconds)

    # Orders and reports of them; the next calls are those that change something

    def time_out_orders(self, calls: int, *, executed: bool) -> None:
        """Answer the next requests about orders with -1007, done or not."""
        self._orders["time_out_done" if executed else "time_out"] = calls

    def lose_answers(self, calls: int, *, executed: bool) -> None:
        """Reset the connection in place of the answer to the next such requests."""
        self._orders["lose_done" if executed else "lose"] = calls

    def refuse_replacements(self, calls: int) -> None:
        """Refuse the new order of the next replacements, when the old one is gone."""
        self._orders["refuse_replacement"] = calls

    def disorder_reports(self, rate: float) -> None:
        """Shuffle what is sent at once to an account: answers and reports."""
        self._set_rate("disorder_reports", rate)

    def duplicate_reports(self, rate: float) -> None:
        """Send reports twice."""
        self._set_rate("duplicate_reports", rate)

    def drop_reports(self, rate: float) -> None:
        """Silently lose reports."""
        self._set_rate("drop_reports", rate)

    def delay_reports(self, seconds: float) -> None:
        """Send reports so much later than what they tell of."""
        self.late_reports_s = seconds

    def terminate_user_streams(self) -> int:
        """End the user streams, as the venue says it, and leave connections open."""
        return self._count("terminate", self._site.terminate_user_streams())

    def revoke_key(self) -> int:
        """Tell every connection of the WebSocket API that its key is not valid."""
        return self._count("revoke", self._site.revoke_key())

    # What the venue asks

    def take_order(self, name: str) -> bool:
        """Whether a fault of orders is due now."""
        left = self._orders.get(name, 0)
        if left:
            self._orders[name] = left - 1
            self._count(name, 1)
        return bool(left)

    def reports(self, events: list[E]) -> list[E]:
        """What becomes of reports: lost, doubled."""
        kept = [event for event in events if not self._hit("drop_reports")]
        return [
            copy
            for event in kept
            for copy in [event] * (1 + self._hit("duplicate_reports"))
        ]

    def mixed(self, sends: list[E]) -> list[E]:
        """What is sent at once, in the order in which it is."""
        if len(sends) > 1 and self._hit("disorder_reports"):
            return self._rng.sample(sends, len(sends))
        return sends

    # REST and the whole venue

    def throttle(self, calls: int, *, retry_after_s: int = 1) -> None:
        """Answer the next calls HTTP 429 and -1003, with `Retry-After`."""
        self._rest["throttle"] = calls
        self.retry_after_s = retry_after_s

    def html(self, calls: int, *, status: int = 403) -> None:
        """Answer the next calls with an HTML page, 403 or a 5xx."""
        super().html(calls)
        self.html_status = status

    def ban(self, seconds: float) -> None:
        """Answer every REST call HTTP 418 and -1003 for so long."""
        self._count("ban", 1)
        self._site.ban_address(seconds)

    def skew_clock(self, seconds: float) -> None:
        """Tell the time, and check that of signed calls, by a clock that is ahead.

        Trades and events keep their times: `open_venue(clock_offset_s=)` moves all.
        """
        self.clock_skew_s = seconds
