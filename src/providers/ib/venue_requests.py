"""Requests of a simulated gateway's clients: who answers which, and the small ones."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from .venue_directory import UNKNOWN as UNKNOWN_CONTRACT
from .venue_directory import Directory, Found, Refused, check
from .venue_frames import (
    SYSTEM,
    Fields,
    details_frame,
    frame,
    rule_frame,
    samples_frame,
)
from .venue_history import History
from .venue_link import Link
from .venue_live import Live
from .venue_market import ContractExchange
from .venue_orders import Orders
from .venue_status import Status
from .venue_tape import Tape

Handler = Callable[[Link, Fields], None]
IN_USE = (
    "Unable to connect as the client id is already in use. "
    "Retry with a unique client id."
)
_SUBSCRIPTIONS = frozenset(("reqMktData", "reqTickByTickData", "reqRealTimeBars"))
_CASH = "100000.00"


class Registry(Protocol):
    """What the desk needs of the server it belongs to."""

    def claim(self, link: Link, client_id: int) -> bool:
        """Give a client its id; whether it was free."""


class Desk:
    """Answers the requests of all clients; `requests` counts them by name."""

    def __init__(
        self,
        registry: Registry,
        directory: Directory,
        exchange: ContractExchange,
        status: Status,
        *,
        live: Live,
        history: History,
        orders: Orders,
        tape: Tape,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self._registry = registry
        self._directory = directory
        self._exchange = exchange
        self._status = status
        self._live = live
        self._history = history
        self._tape = tape
        self._orders = orders
        self._codes = orders.accounts.codes
        self._handlers = self._table()

    def _table(self) -> dict[int, tuple[str, Handler]]:
        live, history, orders = self._live, self._history, self._orders
        return {
            1: ("reqMktData", live.market_data),
            2: ("cancelMktData", live.cancel_market_data),
            3: ("placeOrder", orders.place),
            4: ("cancelOrder", orders.cancel),
            5: ("reqOpenOrders", orders.open_orders),
            6: ("reqAccountUpdates", orders.accounts.updates),
            7: ("reqExecutions", orders.executions),
            8: ("reqIds", self._next_id),
            9: ("reqContractDetails", self._details),
            14: ("setServerLogLevel", self._accept),
            15: ("reqAutoOpenOrders", orders.auto_open_orders),
            16: ("reqAllOpenOrders", orders.all_open_orders),
            17: ("reqManagedAccts", self._accounts),
            20: ("reqHistoricalData", history.bars),
            25: ("cancelHistoricalData", history.cancel),
            49: ("reqCurrentTime", self._current_time),
            50: ("reqRealTimeBars", live.real_time_bars),
            51: ("cancelRealTimeBars", live.cancel_real_time_bars),
            58: ("reqGlobalCancel", orders.cancel_all),
            59: ("reqMarketDataType", live.set_type),
            61: ("reqPositions", orders.accounts.positions),
            62: ("reqAccountSummary", self._account_summary),
            63: ("cancelAccountSummary", self._accept),
            64: ("cancelPositions", orders.accounts.cancel_positions),
            71: ("startApi", self._start),
            76: ("reqAccountUpdatesMulti", self._account_multi),
            77: ("cancelAccountUpdatesMulti", self._accept),
            78: ("reqSecDefOptParams", self._option_chain),
            81: ("reqMatchingSymbols", self._samples),
            87: ("reqHeadTimeStamp", history.head),
            90: ("cancelHeadTimeStamp", history.cancel_head),
            91: ("reqMarketRule", self._rule),
            96: ("reqHistoricalTicks", history.ticks),
            97: ("reqTickByTickData", live.tick_by_tick),
            98: ("cancelTickByTickData", live.cancel_tick_by_tick),
            99: ("reqCompletedOrders", orders.completed),
        }

    def answer(self, link: Link, message_id: int, payload: bytes) -> None:
        """Answer one request."""
        name, handler = self._handlers.get(message_id, ("unknown", self._refuse))
        self.requests[name] += 1
        if name in _SUBSCRIPTIONS and self._live.deaf:
            return
        fields = Fields(payload)
        fields.text()
        try:
            handler(link, fields)
        except Refused as refused:
            link.error(fields.request_id, refused.code, refused.text)

    def forget(self, link: Link) -> None:
        """End all that a client had asked for."""
        self._live.forget(link)
        self._history.forget(link)
        self._orders.forget(link)

    # The session

    def _start(self, link: Link, fields: Fields) -> None:
        fields.integer()  # version
        client_id = fields.integer()
        if client_id < 0 or not self._registry.claim(link, client_id):
            link.error(SYSTEM, 326, IN_USE)
            link.end()
            return
        self._accounts(link, fields)
        self._next_id(link, fields)
        link.send(*self._status.greeting(link.version))

    def _accounts(self, link: Link, _: Fields) -> None:
        link.send(frame(15, 1, ",".join(self._codes)))

    def _next_id(self, link: Link, _: Fields) -> None:
        link.send(frame(9, 1, self._orders.next_id(link.client_id or 0)))

    def _current_time(self, link: Link, _: Fields) -> None:
        link.send(frame(49, 1, int(time.time())))

    def _accept(self, link: Link, _: Fields) -> None:
        """Nothing is to be said."""

    def _refuse(self, link: Link, fields: Fields) -> None:
        raise Refused(321, "Error validating request.-'b0' : cause - Unknown message")

    # Accounts

    def _account_multi(self, link: Link, fields: Fields) -> None:
        fields.integer()  # version
        request_id, account = fields.read_id(), fields.text() or self._codes[0]
        link.send(
            frame(73, 1, request_id, account, "", "NetLiquidation", _CASH, "USD"),
            frame(74, 1, request_id),
        )

    def _account_summary(self, link: Link, fields: Fields) -> None:
        fields.integer()  # version
        request_id = fields.read_id()
        fields.text()  # group
        known = {"NetLiquidation": _CASH, "TotalCashValue": _CASH}
        for tag in fields.text().split(","):
            if tag in known:
                row = (self._codes[0], tag, known[tag], "USD")
                link.send(frame(63, 1, request_id, *row))
        link.send(frame(64, 1, request_id))

    # Contracts

    def _details(self, link: Link, fields: Fields) -> None:
        fields.integer()  # version
        request_id, wanted = fields.read_id(), fields.contract()
        check(wanted)
        if not self._status.has("definitions"):
            return
        self._exchange.advance()
        rows = self._directory.find(wanted)
        if not rows:
            raise Refused(200, UNKNOWN_CONTRACT)
        for found in rows:
            link.send(self._details_of(link, request_id, found))
        link.send(frame(52, 1, request_id))

    def _details_of(self, link: Link, request_id: int, found: Found) -> bytes:
        lot = self._tape.lot_of(found.contract, link.version)
        return details_frame(request_id, found, version=link.version, lot=lot)

    def _samples(self, link: Link, fields: Fields) -> None:
        request_id = fields.read_id()
        found = self._directory.search(fields.text())
        rows = [(row, self._directory.derivatives(row)) for row in found]
        link.send(samples_frame(request_id, rows, link.version))

    def _option_chain(self, link: Link, fields: Fields) -> None:
        request_id = fields.read_id()
        for _ in range(3):
            fields.text()
        con_id = fields.integer()
        rows = self._directory.options(con_id)
        exchanges = rows[0].exchanges if rows else ()
        days = sorted({f"{row.expiry:%Y%m%d}" for row in rows})
        strikes = sorted({row.strike for row in rows})
        for place in exchanges:
            head = (place, con_id, rows[0].trading_class, rows[0].multiplier)
            tail = (len(days), *days, len(strikes), *strikes)
            link.send(frame(75, request_id, *head, *tail))
        link.send(frame(76, request_id))

    def _rule(self, link: Link, fields: Fields) -> None:
        number = fields.integer()
        if not 0 < number < 100_000:
            raise Refused(321, "Error validating request.-'bv' : cause - Invalid rule")
        link.send(rule_frame(number))
