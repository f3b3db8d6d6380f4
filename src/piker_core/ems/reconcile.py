"""What a gateway and a venue know of each other's orders and fills, made the same.

1. An order of which something is in doubt is asked for, by its client order id, until
   the venue says; one that the venue does not know is believed to be none after
   `grace_s`, and not at the first time.
2. Whenever the connection is (back) there, and every `reconcile_s`, orders, fills and
   positions are compared with the venue's. What was asked for before the last request
   or answer about an order says nothing of it.
3. An order that lives at the venue and has ended here is canceled there. Those of
   others are let alone.
4. What the account held before its first gateway is a transfer in the ledger, and no
   fill of others from before then is. Later differences of a position are told.
"""

import logging
import time
from collections.abc import Callable, Sequence
from decimal import Decimal

import trio

from piker_core.broker import BrokerOrder, TradeDialog
from piker_core.config import EmsConfig
from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger, differences
from piker_core.errors import PikerError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdPosition,
    BrokerdStatus,
    Transaction,
)
from piker_core.tasks import Backoff

ASK_S = 0.5
"""How long to wait before a venue is asked for an order the first time again."""
TRIES = 4
"""How often positions are asked for, before an account cannot be opened."""
LEAST_S = 10.0
"""How long comparing everything may take, at least."""
OVERLAP_NS = 60_000_000_000
"""How far before the newest fill known fills are asked for."""
_OPENED, _FETCHED = "opened_ns", "fetched_ns"
"""Notes: since when there is a ledger; the newest fill when all were asked for."""
_NOT_DONE = "the broker does not know this order: it was not done"

log = logging.getLogger("piker_core.ems")
Change = Callable[[Gateway], None]
Spawn = Callable[..., None]


class Reconciler:
    """Compares, and finds out. What it finds goes into a desk's turns."""

    def __init__(self, account: str, config: EmsConfig) -> None:
        self.account, self.config = account, config
        self._put: Callable[[Change], None]
        self._gateway: Callable[[], Gateway]
        self._is_ours: Callable[[str], bool]
        self._resolving: set[str] = set()
        self.sending: set[str] = set()
        """Requests that are on their way: what is not known of them says nothing."""
        self._opened_ns = self._fetched_ns = 0
        self._is_empty = False
        self._told: dict[str, str] = {}

    def join(
        self,
        put: Callable[[Change], None],
        gateway: Callable[[], Gateway],
        is_ours: Callable[[str], bool],
    ) -> None:
        """Tie it to a desk."""
        self._put, self._gateway, self._is_ours = put, gateway, is_ours

    def begin(self, ledger: Ledger, note: Callable[[str], str]) -> None:
        """What is stored."""
        self._is_empty = ledger.is_empty
        self._opened_ns = int(note(_OPENED) or self._opened_ns)
        self._fetched_ns = int(note(_FETCHED) or self._opened_ns or time.time_ns())

    # What is in doubt

    async def resolve(self, dialog: TradeDialog, reqid: str, symbol: str) -> None:
        """Ask the venue for an order until it is known what has become of it."""
        if reqid in self._resolving:
            return
        self._resolving.add(reqid)
        try:
            await self._resolve(dialog, reqid, symbol)
        finally:
            self._resolving.discard(reqid)

    async def _resolve(self, dialog: TradeDialog, reqid: str, symbol: str) -> None:
        backoff, missing = Backoff(ASK_S, 5.0), 0
        since = trio.current_time()
        while True:
            await trio.sleep(max(backoff.next_s(), ASK_S))
            if reqid in self.sending:
                return  # its answer is to come, or its doubt
            began_ns = time.time_ns()
            try:
                order = await dialog.order(reqid, symbol)
                if order is not None:
                    if self._lacks(order):
                        await self._fetch_fills(dialog, order.time_ns, symbol)
                    self._found(order, began_ns)
                    return
            except (PikerError, OSError) as error:
                log.info("order %s cannot be looked at: %s", reqid, error)
                continue
            missing += 1
            if missing > 1 and trio.current_time() - since > self.config.grace_s:
                self._missed(reqid, began_ns)
                return

    def _lacks(self, order: BrokerOrder) -> bool:
        """Whether there are fills of an order that have not come here."""
        known = self._gateway().by_reqid.get(order.reqid)
        return known is not None and known.filled < order.filled

    def _missed(self, reqid: str, since_ns: int) -> None:
        """The venue, asked after that time, does not know an order."""

        def change(gateway: Gateway) -> None:
            if reqid not in self.sending:
                gateway.not_known(reqid, _NOT_DONE, since_ns)

        self._put(change)

    def _found(self, order: BrokerOrder, since_ns: int) -> None:
        """What the venue, asked after that time, says of an order."""

        def change(gateway: Gateway) -> None:
            gateway.found(order.reqid, order.price, order.size, since_ns)
            gateway.heard(status_of(order))

        self._put(change)

    async def _fetch_fills(
        self, dialog: TradeDialog, since_ns: int, symbol: str = ""
    ) -> list[BrokerdFill]:
        """Fills since some time, and a while before, into the gateway."""
        began_ns = max(since_ns - OVERLAP_NS, 0)
        fills = await dialog.fills(began_ns, symbol)
        for fill in fills:
            self._put(lambda gateway, one=fill: self._take_fill(gateway, one))  # type: ignore[misc]
        return fills

    def _take_fill(self, gateway: Gateway, fill: BrokerdFill) -> None:
        """What others did before there was a ledger is in what it began with."""
        if fill.broker_time > self._opened_ns or str(fill.reqid) in gateway.by_reqid:
            gateway.heard(fill)

    # Reconciling

    async def reconcile(self, dialog: TradeDialog, spawn: Spawn) -> None:
        """Compare orders, fills and positions with the venue's, as they are now."""
        try:
            with trio.fail_after(max(self.config.reconcile_s, LEAST_S)):
                await self._compare_orders(dialog, spawn)
                self.compare(await dialog.positions())
        except (PikerError, OSError, trio.TooSlowError) as error:
            log.warning("%s: not reconciled: %s", self.account, error)

    async def _compare_orders(self, dialog: TradeDialog, spawn: Spawn) -> None:
        began_ns = time.time_ns()
        living = [d for d in self._gateway().living.values() if not d.kept_here]
        oldest_ns = min((d.began_ns for d in living), default=self._fetched_ns)
        since_ns = min(self._fetched_ns, oldest_ns)
        fills = await self._fetch_fills(dialog, since_ns)
        newest_ns = max((fill.broker_time for fill in fills), default=0)
        there = {order.reqid: order for order in await dialog.orders()}
        for one in living:
            order = there.pop(one.reqid, None)
            if order is not None:
                self._found(order, began_ns)
            elif one.asked_ns < began_ns and one.reqid not in self.sending:
                spawn(self.resolve, dialog, one.reqid, one.order.symbol)
        for order in there.values():
            self._put(lambda gw, one=order: self._stray(gw, one, dialog, spawn))  # type: ignore[misc]
        if newest_ns > self._fetched_ns:
            self._fetched_ns = newest_ns
            note = {_FETCHED: str(newest_ns)}
            self._put(lambda gateway: gateway.turn.notes.update(note))

    def _stray(
        self, gateway: Gateway, order: BrokerOrder, dialog: TradeDialog, spawn: Spawn
    ) -> None:
        """Cancel an order at the venue if it is one of ours that has ended."""
        reqid = order.reqid
        if reqid and reqid not in gateway.by_reqid and self._is_ours(reqid):
            log.warning("order %s lives at the broker and has ended here", reqid)
            cancel = BrokerdCancel(
                oid="",
                time_ns=time.time_ns(),
                account=self.account,
                reqid=reqid,
                symbol=order.symbol,
            )
            spawn(self._cancel_stray, dialog, cancel)

    async def _cancel_stray(self, dialog: TradeDialog, cancel: BrokerdCancel) -> None:
        try:
            await dialog.cancel(cancel)
        except (PikerError, OSError) as error:
            log.warning("order %s: %s", cancel.reqid, error)  # and again the next time

    # Positions

    @property
    def is_opened(self) -> bool:
        """Whether what the account held before its first gateway is in the ledger."""
        return self._opened_ns > 0

    async def adopt(self, dialog: TradeDialog) -> None:
        """The first time: what the account holds is a transfer into the ledger.

        Raises ProviderError if that cannot be told.
        """
        now_ns = time.time_ns()
        positions = await _asked_again(dialog) if self._is_empty else []
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

        def change(gateway: Gateway) -> None:
            gateway.book_transactions(lines)
            gateway.turn.notes[_OPENED] = str(now_ns)

        self._put(change)
        self._opened_ns = self._fetched_ns = now_ns

    def compare(self, positions: Sequence[BrokerdPosition]) -> None:
        """Say what differs, once as long as it does."""

        def change(gateway: Gateway) -> None:
            if not self.is_opened:
                return  # what it begins with is still to come
            found = differences(_of(gateway.ledger, positions), positions)
            told = {difference.symbol: difference.text for difference in found}
            for symbol, text in told.items():
                if self._told.get(symbol) != text:
                    log.warning("%s", text)
            for position in positions:
                self._told.pop(position.symbol, None)
            self._told |= told

        self._put(change)


async def _asked_again(dialog: TradeDialog) -> list[BrokerdPosition]:
    """What the venue says the account holds; a query may fail now and then."""
    backoff = Backoff(ASK_S)
    for _ in range(TRIES - 1):
        try:
            return await dialog.positions()
        except (PikerError, OSError) as error:
            log.info("positions cannot be looked at: %s", error)
            await trio.sleep(backoff.next_s())
    return await dialog.positions()


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
