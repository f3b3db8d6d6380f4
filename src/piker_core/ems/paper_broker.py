"""The paper engine as the broker of a desk: it answers at once."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from piker_core.broker import BrokerOrder
from piker_core.config import load_section
from piker_core.ems.ledger import DAY_NS, Ledger
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.markets import Markets
from piker_core.ems.paper.engine import PaperConfig, PaperEngine
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdStatus,
    Side,
)

_BACK = 1 << 16
"""How many ticks back the last quote of a market is looked for."""


class PaperBroker:
    """Orders to a paper engine that sees the ticks of the rings."""

    at_once = True

    def __init__(self, broker: str, account: str, markets: Markets) -> None:
        self.broker, self.account = broker, account
        self._markets = markets
        self._config = load_section("paper", PaperConfig)
        self._engine = PaperEngine(broker, account, self._config)
        self._added: set[str] = set()
        self._unfed: dict[str, Dialog] = {}
        """Orders of markets without a ring, by reqid: the engine gets them later."""
        self._said: list[BrokerdMessage] = []
        """What is still to be told: that day orders of an earlier day have ended."""
        self._day = time.time_ns() // DAY_NS
        self._ledger = Ledger(broker, account)

    def begin(
        self, dialogs: Sequence[Dialog], ledger: Ledger, note: Callable[[str], str]
    ) -> None:
        """Take over the orders that live, as they are stored."""
        self._ledger = ledger
        self._engine = PaperEngine(self.broker, self.account, self._config)
        self._added.clear()
        self._said.clear()
        self._unfed = {d.reqid: d for d in dialogs if d.asked != "new"}
        for fqme in self._markets.known:
            self._add(fqme)
        self._restore()

    def _restore(self) -> None:
        """Take over orders of markets that are fed, those that were not included."""
        here = [d for d in self._unfed.values() if self._knows(d.order.symbol)]
        for dialog in here:
            del self._unfed[dialog.reqid]
        if here:
            states = {dialog.reqid: dialog.paper for dialog in here if dialog.paper}
            self._engine.restore([_restored(d) for d in here], states=states)
            self._said += self._engine.expire(self._day * DAY_NS)

    def _knows(self, fqme: str) -> bool:
        """Whether the engine knows a market, or can from now on."""
        if fqme not in self._added and fqme in self._markets.known:
            self._add(fqme)
        return fqme in self._added

    def _add(self, fqme: str) -> None:
        """Let the engine know a market, and what was last shown of it."""
        mkt = self._markets.known[fqme]
        self._engine.add_market(
            fqme,
            price_tick=mkt.price_tick,
            size_tick=mkt.size_tick,
            currency=mkt.quote.name,
        )
        self._engine.prime(fqme, self._markets.watch.past(fqme, _BACK))
        self._engine.set_position(fqme, self._ledger.size(fqme))
        self._added.add(fqme)

    def take(self, message: BrokerdOrder | BrokerdCancel) -> Iterable[BrokerdMessage]:
        """Send it; what the engine says of it."""
        if not self._knows(message.symbol):
            return [self._without_market(message)]
        self._restore()
        if isinstance(message, BrokerdCancel):
            return self._engine.cancel(message, message.time_ns)
        return self._engine.submit(message, message.time_ns)

    def _without_market(
        self, message: BrokerdOrder | BrokerdCancel
    ) -> BrokerdStatus | BrokerdError:
        """The answer while a market is not fed: its orders can be canceled."""
        reqid = str(message.reqid)
        dialog = self._unfed.get(reqid)
        if dialog is None or isinstance(message, BrokerdOrder):
            reason = f"market {message.symbol!r} is not fed: open_feed() it first"
            return BrokerdError(reason=reason, oid=message.oid, reqid=reqid)
        del self._unfed[reqid]
        return BrokerdStatus(
            time_ns=message.time_ns,
            reqid=reqid,
            status="canceled",
            filled=dialog.filled,
            remaining=dialog.remaining,
            reason="canceled while its market was not fed",
            broker_id=dialog.broker_id,
        )

    def feed(self, ticks: Any) -> Iterable[BrokerdMessage]:
        """What ticks make of the orders."""
        return self._engine.feed(ticks, self._markets.watch.names)

    def advance(self, now_ns: int) -> Iterable[BrokerdMessage]:
        """Requests that arrive by now; at midnight UTC, the end of orders of a day."""
        self._restore()
        said, self._said = self._said, []
        messages: list[BrokerdMessage] = [*said, *self._engine.advance(now_ns)]
        day = now_ns // DAY_NS
        if day > self._day:
            messages += self._engine.expire(day * DAY_NS)
            self._day = day
        return messages

    @property
    def due_ns(self) -> int | None:
        """When the next request arrives."""
        return self._engine.next_due_ns

    def keep(self, dialogs: Mapping[str, Dialog]) -> Iterator[Dialog]:
        """Orders whose place in a queue has changed since it was stored."""
        for reqid in self._engine.take_changed():
            dialog = dialogs.get(reqid)
            if dialog is not None:
                dialog.paper = self._engine.state(reqid)
                yield dialog


def _restored(dialog: Dialog) -> BrokerOrder:
    order = dialog.order
    assert order.action in get_args(Side)
    return BrokerOrder(
        reqid=dialog.reqid,
        broker_id=dialog.broker_id,
        symbol=order.symbol,
        status="open",
        action=order.action,  # type: ignore[arg-type]
        price=order.price,
        size=order.size,
        filled=dialog.filled,
        time_ns=dialog.began_ns,
    )
