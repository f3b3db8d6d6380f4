"""A venue as the broker of a desk: its dialog, and who finds out what is not known.

1. A request goes to the venue once. Where it is not known whether it was done, the
   venue is asked for the order, by its client order id, until it says; a venue that
   does not know it is believed after `grace_s`, and not at the first time.
2. Whenever the connection is (back) there, and every `reconcile_s`, orders, fills and
   positions are compared with the venue's. What differs in a position is told, not
   changed: the ledger has what was filled.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerLink, BrokerOrder, OpenTradeDialog, TradeDialog
from piker_core.config import EmsConfig
from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger, differences
from piker_core.ems.lifecycle import Dialog
from piker_core.errors import ConfigError, PikerError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
    BrokerdStatus,
    Transaction,
)
from piker_core.tasks import Backoff, open_nursery

ASK_S = 0.5
"""How long to wait before a venue is asked for an order the first time again."""
OVERLAP_NS = 60_000_000_000
"""How far before the newest fill known fills are asked for."""

_NOT_DONE = "the broker does not know this order: it was not done"

log = logging.getLogger("piker_core.ems")
Change = Callable[[Gateway], None]


class LiveBroker:
    """Orders to a venue, for a desk. `put`: how a change gets into the desk's turns."""

    at_once = False
    due_ns = None

    def __init__(
        self, open_dialog: OpenTradeDialog, *, account: str, config: EmsConfig
    ) -> None:
        self.account, self.config = account, config
        self._open_dialog = open_dialog
        self._dialog: TradeDialog | None = None
        self._nursery: trio.Nursery | None = None
        self._resolving: set[str] = set()
        self._since_ns = time.time_ns()
        self._told: dict[str, str] = {}
        self.up = False
        self.put: Callable[[Change], None]
        self.gateway: Callable[[], Gateway]

    # What the desk asks for

    def begin(self, dialogs: Sequence[Dialog], ledger: Ledger) -> None:
        """Orders that live: what was on its way when they were stored is in doubt."""
        for dialog in dialogs:
            dialog.unknown = dialog.unknown or bool(dialog.asked)

    def take(self, message: BrokerdOrder | BrokerdCancel) -> Iterable[BrokerdMessage]:
        """Send it, in a task of its own."""
        if self._nursery is None:
            reason = "the broker's dialog is not open"
            self.put(lambda gateway: gateway.not_sent(str(message.reqid), reason))
        else:
            self._nursery.start_soon(self._send, message)
        return ()

    def feed(self, ticks: Any) -> Iterable[BrokerdMessage]:
        """Ticks are the venue's own business."""
        return ()

    def advance(self, now_ns: int) -> Iterable[BrokerdMessage]:
        """Nothing of it goes by the gateway's clock."""
        return ()

    def keep(self, dialogs: Iterable[Dialog]) -> Iterable[Dialog]:
        """Nothing is kept beside what the gateway keeps."""
        return ()

    # The dialog

    async def run(
        self,
        symbols: Sequence[str],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep a dialog open until cancelled. Raises what keeps the first closed."""
        backoff, started = Backoff(0.5, 30.0), False
        while True:
            try:
                async with self._open_dialog(self.account, symbols) as dialog:
                    backoff.reset()
                    self._dialog = dialog
                    async with open_nursery() as self._nursery:
                        self._nursery.start_soon(self._every, self.config.reconcile_s)
                        if not started:
                            task_status.started()
                            started = True
                        await self._listen(dialog)
                        self._nursery.cancel_scope.cancel()
                log.warning("%s: the broker's dialog ended", self.account)
            except (PikerError, OSError) as error:
                if not started or isinstance(error, ConfigError):
                    raise
                log.warning("%s: no dialog with the broker: %s", self.account, error)
            finally:
                self._dialog, self._nursery, self.up = None, None, False
            await trio.sleep(backoff.next_s())

    async def _listen(self, dialog: TradeDialog) -> None:
        async for message in dialog:
            if isinstance(message, BrokerLink):
                self._linked(message)
            elif isinstance(message, BrokerdPosition):
                self._compare([message])
            else:
                self.put(lambda gateway, one=message: gateway.heard(one))  # type: ignore[misc]

    def _linked(self, link: BrokerLink) -> None:
        assert self._nursery is not None
        self.up = link.up
        if link.up:
            self._nursery.start_soon(self._reconcile)
        else:
            log.warning(
                "%s: the broker is not connected: %s", self.account, link.reason
            )

    async def _every(self, every_s: float) -> None:
        while True:
            await trio.sleep(every_s)
            if self.up:
                await self._reconcile()

    # Requests

    async def _send(self, message: BrokerdOrder | BrokerdCancel) -> None:
        reqid = str(message.reqid)
        assert self._dialog is not None
        try:
            if isinstance(message, BrokerdOrder):
                await self._dialog.submit(message)
            else:
                await self._dialog.cancel(message)
        except OutcomeUnknown as error:
            log.warning("order %s: %s", reqid, error)
            self.put(lambda gateway: gateway.in_doubt(reqid))
            await self._resolve(reqid, message.symbol)
        except (PikerError, OSError) as error:
            reason = str(error)
            self.put(lambda gateway: gateway.not_sent(reqid, reason))

    # What is not known

    async def _resolve(self, reqid: str, symbol: str) -> None:
        """Ask the venue for an order until it is known what has become of it."""
        if reqid in self._resolving:
            return
        self._resolving.add(reqid)
        try:
            backoff, missing = Backoff(ASK_S, 5.0), 0
            since = trio.current_time()
            while True:
                await trio.sleep(max(backoff.next_s(), ASK_S))
                try:
                    found = await self._asked(reqid, symbol)
                except (PikerError, OSError) as error:
                    log.info("order %s cannot be looked at: %s", reqid, error)
                    continue
                if found:
                    return
                missing += 1
                if missing > 1 and trio.current_time() - since > self.config.grace_s:
                    self.put(lambda gateway: gateway.not_known(reqid, _NOT_DONE))
                    return
        finally:
            self._resolving.discard(reqid)

    async def _asked(self, reqid: str, symbol: str) -> bool:
        """What the venue says of an order, with its fills, into the gateway."""
        assert self._dialog is not None
        order = await self._dialog.order(reqid, symbol)
        if order is None:
            return False
        if order.filled:
            began_ns = min(order.time_ns or self._since_ns, self._since_ns) - OVERLAP_NS
            await self._fetch_fills(began_ns, symbol)
        self._found(order)
        return True

    def _found(self, order: BrokerOrder) -> None:
        def change(gateway: Gateway) -> None:
            gateway.found(order.reqid, order.price, order.size)
            gateway.heard(status_of(order))

        self.put(change)

    async def _fetch_fills(self, since_ns: int, symbol: str = "") -> None:
        assert self._dialog is not None
        for fill in await self._dialog.fills(since_ns, symbol):
            self._since_ns = max(self._since_ns, fill.broker_time)
            self.put(lambda gateway, one=fill: gateway.heard(one))  # type: ignore[misc]

    # Reconciling

    async def _reconcile(self) -> None:
        """Compare orders, fills and positions with the venue's, as they are now."""
        try:
            with trio.fail_after(max(self.config.reconcile_s, 10.0)):
                await self._compare_orders()
                await self._compare_positions()
        except (PikerError, OSError, trio.TooSlowError) as error:
            log.warning("%s: not reconciled: %s", self.account, error)

    async def _compare_orders(self) -> None:
        assert self._dialog is not None and self._nursery is not None
        began_ns = time.time_ns()
        living = [
            dialog
            for dialog in self.gateway().living.values()
            if not dialog.kept_here and dialog.asked_ns < began_ns
        ]
        oldest_ns = min((dialog.began_ns for dialog in living), default=self._since_ns)
        await self._fetch_fills(min(self._since_ns, oldest_ns) - OVERLAP_NS)
        there = {order.reqid: order for order in await self._dialog.orders()}
        for dialog in living:
            order = there.get(dialog.reqid)
            if order is not None:
                self._found(order)
            elif dialog.acked or dialog.unknown:
                symbol = dialog.order.symbol
                self._nursery.start_soon(self._resolve, dialog.reqid, symbol)

    async def _compare_positions(self) -> None:
        assert self._dialog is not None
        positions = await self._dialog.positions()
        ledger = self.gateway().ledger
        if ledger.is_empty:
            self._adopt(positions)
        else:
            self._compare(positions)

    def _adopt(self, positions: Sequence[BrokerdPosition]) -> None:
        """The first time: what the account holds is a transfer into the ledger."""
        now_ns = time.time_ns()
        lines = [
            Transaction(
                kind="transfer",
                tid=f"opening.{position.symbol}",
                time_ns=now_ns,
                symbol=position.symbol,
                size=position.size,
                price=position.avg_price,
            )
            for position in positions
            if position.size
        ]
        self.put(lambda gateway: gateway.book_transactions(lines))

    def _compare(self, positions: Sequence[BrokerdPosition]) -> None:
        """Say what differs, once as long as it does."""

        def change(gateway: Gateway) -> None:
            if gateway.ledger.is_empty:
                return  # the first positions are still to come
            found = differences(_of(gateway.ledger, positions), positions)
            told = {difference.symbol: difference.text for difference in found}
            for symbol, text in told.items():
                if self._told.get(symbol) != text:
                    log.warning("%s", text)
            for position in positions:
                self._told.pop(position.symbol, None)
            self._told |= told

        self.put(change)


def _of(ledger: Ledger, like: Sequence[BrokerdPosition]) -> list[BrokerdPosition]:
    return [ledger.position(position.symbol) for position in like]


def status_of(order: BrokerOrder) -> BrokerdStatus:
    """What a venue says of an order, as if it had told it by itself."""
    return BrokerdStatus(
        time_ns=time.time_ns(),
        reqid=order.reqid,
        status=order.status,
        filled=order.filled,
        remaining=max(order.size - order.filled, Decimal(0)),
        reason=order.reason,
        broker_id=order.broker_id,
    )
