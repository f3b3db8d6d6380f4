"""What a desk knows of its markets: their steps, their prices, their triggers."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.core.rings import BarReader, attach_bars
from piker_core.ems.ledger import Ledger, Terms
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.turn import Prices
from piker_core.ems.watch import LOOK_S, Armed, Fired, Watch
from piker_core.errors import NotFound, PikerError, SegmentError
from piker_core.fqme import parse_fqme
from piker_core.orders import Order
from piker_core.symbols import Asset, MktPair

log = logging.getLogger("piker_core.ems")
Ticks = NDArray[np.void]


class Markets:
    """The markets of one provider that orders may be for, read from its rings."""

    def __init__(self, broker: str, namespace: str) -> None:
        self.broker, self.namespace = broker, namespace
        self.known: dict[str, MktPair] = {}
        self.armed = 0
        """How many triggers wait for ticks."""
        self._watch: Watch | None = None
        self._unfed: dict[str, dict[str, Dialog]] = {}
        """Of markets without a ring: what is to be armed as soon as there is one."""
        self._looked_s = 0.0
        self._trailing: set[str] = set()
        self._ledger: Ledger | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watch is not None:
            self._watch.close()

    @property
    def watch(self) -> Watch:
        """The ticks, from where they were looked at last. Raises PikerError."""
        if self._watch is None:
            self._watch = Watch(self.broker, self.namespace)
        return self._watch

    # Markets

    def add(self, fqme: str) -> MktPair:
        """Take in a market by its ring. Raises NotFound if it has none."""
        with attach_bars(fqme, period=1, namespace=self.namespace) as bars:
            mkt = self.known[fqme] = read_mkt(bars, fqme)
        self._tell_terms(fqme, mkt)
        return mkt

    def find(self, fqme: str) -> MktPair:
        """A market that an order is for. Raises PikerError if it cannot be had here."""
        mkt = self.known.get(fqme)
        if mkt is not None:
            return mkt
        if parse_fqme(fqme)[1] != self.broker:
            raise PikerError(f"market {fqme!r} is not one of {self.broker}, the broker")
        if not self._try(fqme):
            raise NotFound(
                f"market {fqme!r} is not fed: open_ems() or open_feed() it first"
            )
        return self.known[fqme]

    def describe(self, ledger: Ledger) -> None:
        """Tell a ledger what the markets are of, those to come too."""
        self._ledger = ledger
        for fqme, mkt in self.known.items():
            self._tell_terms(fqme, mkt)

    def _tell_terms(self, fqme: str, mkt: MktPair) -> None:
        if self._ledger is not None and mkt.quote.name:
            terms = Terms(mkt.quote.name, mkt.base.name, mkt.multiplier)
            self._ledger.describe(fqme, terms)

    def prices(self, fqme: str) -> Prices:
        """What is known of a market's price."""
        if self._watch is None or fqme not in self.known:
            return Prices()
        bid, _, ask, _ = self._watch.quote(fqme)
        last = self._watch.last(fqme)
        return Prices(bid, ask, last[0] if last else 0.0)

    # Triggers

    def resume(self, position: str, living: Iterable[Dialog]) -> None:
        """Begin where ticks were looked at last, with the triggers that are stored."""
        if self._watch is not None:
            self._watch.close()
        place = (
            msgspec.json.decode(position, type=tuple[int, int]) if position else None
        )
        self._watch = Watch(self.broker, self.namespace, position=place)
        self.armed = 0
        self._trailing.clear()
        self._unfed = {fqme: {} for fqme in self.known}
        for dialog in living:
            waiting = self._unfed.setdefault(dialog.order.symbol, {})
            if dialog.kept_here:
                waiting[dialog.oid] = dialog
        for fqme in list(self._unfed):
            if not self._try(fqme):
                log.warning("%s is not fed: its orders wait until it is", fqme)

    def _try(self, fqme: str) -> bool:
        """Watch a market that has orders, and arm them; False: it is not fed."""
        try:
            if fqme not in self.known:
                self.add(fqme)
            self.watch.add_market(fqme)
        except (NotFound, SegmentError):
            self.known.pop(fqme, None)
            return False
        self._arm_waiting(fqme)
        return True

    def _arm_waiting(self, fqme: str) -> None:
        for dialog in self._unfed.pop(fqme, {}).values():
            self._arm(dialog.order, msgspec.convert(dialog.armed, Armed))

    def _look_again(self) -> None:
        """Try, now and then, the markets that were not fed."""
        if self._unfed and time.monotonic() - self._looked_s > LOOK_S:
            self._looked_s = time.monotonic()
            for fqme in list(self._unfed):
                if self._try(fqme):
                    log.warning("%s is fed now: its orders are watched", fqme)

    def arm(self, order: Order) -> dict[str, Any]:
        """Watch for an order's trigger; what must be stored of it.

        One that is watched for already has it anew; a trail goes on from its best.

        Raises PikerError while no price of the market is known.
        """
        before = self.watch.armed(order.oid)
        self.disarm(order.oid)
        best = before.best if before is not None and order.trail is not None else None
        armed: dict[str, Any] = msgspec.to_builtins(self._arm(order, None, best))
        return armed

    def _arm(
        self, order: Order, stored: Armed | None, best: float | None = None
    ) -> Armed:
        side = 1 if order.action == "buy" else -1
        if order.trail is not None:
            armed = self.watch.arm_trail(
                order.oid, order.symbol, order.trail, side, best=best, stored=stored
            )
        elif order.stop is not None:
            armed = self.watch.arm(
                order.oid, order.symbol, order.stop, side, stored=stored
            )
        else:
            armed = self.watch.arm(order.oid, order.symbol, order.price, stored=stored)
        if order.trail is not None:
            self._trailing.add(order.oid)
        self.armed += 1
        return armed

    def keep(self, dialogs: Mapping[str, Dialog]) -> Iterator[Dialog]:
        """Those whose trigger has moved since it was stored: trailing ones.

        `dialogs`: those that live, by oid.
        """
        for oid in self._trailing:
            dialog = dialogs.get(oid)
            armed = msgspec.to_builtins(self.watch.armed(oid))
            if dialog is not None and armed is not None and armed != dialog.armed:
                dialog.armed = armed
                yield dialog

    def disarm(self, oid: str) -> None:
        """Watch for it no more."""
        for waiting in self._unfed.values():
            waiting.pop(oid, None)
        self._trailing.discard(oid)
        if self._watch is not None and self._watch.disarm(oid):
            self.armed -= 1

    # Ticks

    @property
    def position(self) -> str:
        """Up to where all ticks are tested, as text to be stored."""
        return msgspec.json.encode(self.watch.position).decode()

    async def ready(self, most_s: float) -> None:
        """Return when there is a tick to look at, or after so many seconds."""
        with trio.move_on_after(most_s):
            await self.watch.ready()

    def poll(self) -> Iterator[tuple[Ticks, Fired | None]]:
        """All ticks up to now, in order, each part followed by what it fired."""
        if self._watch is None:
            return
        polled = self._watch.poll()
        before = None
        while polled.position != before:
            place = 0
            for fired in polled.fired:
                self.armed -= 1
                end = max(place, fired.place + 1)
                yield polled.ticks[place:end], fired
                place = end
            yield polled.ticks[place:], None
            before = polled.position
            polled = self._watch.poll()
        self._look_again()


def read_mkt(bars: BarReader, fqme: str) -> MktPair:
    """What a market's writer says of it; at the least its steps."""
    try:
        mkt = msgspec.json.decode(bars.about, type=MktPair)
        if mkt.fqme == fqme:
            return mkt
    except msgspec.MsgspecError:
        log.debug("the writer of %s says nothing of it", fqme)
    symbol, provider = parse_fqme(fqme)
    return MktPair(
        base=Asset(name=""),
        quote=Asset(name=""),
        symbol=symbol,
        venue_symbol=symbol,
        provider=provider,
        price_tick=Decimal(bars.price_tick),
        size_tick=Decimal(bars.size_tick),
    )
