"""Orders at Kraken spot: one account's dialog with the venue.

1. Orders, changes and cancels go over the private WebSocket, each once; what became of
   one that was not answered is asked over REST, by its client order id.
2. `reqid` is the order's `cl_ord_id`. A change is `amend_order`: the order keeps its
   ids, and its place as far as the venue lets it.
3. Nothing is sent that would pass the engine's limits: it waits a little, or is
   refused here.
4. The connection comes back by itself, each time with a fresh token. After each loss
   `BrokerLink` says so, and after each return the snapshots have been told.

Source: https://docs.kraken.com/api/docs/websocket-v2/add_order and its neighbours
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.adapter.shared import share
from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.config import load_section
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)
from piker_core.tasks import open_nursery

from .account_facts import AccountFacts
from .api import Config, get_client
from .engine_limits import EngineLimits, add_cost, amend_cost, cancel_cost
from .markets import PROVIDER, Pair
from .order_messages import OrderMessages
from .order_requests import (
    Note,
    add_params,
    amend_params,
    check_order,
    order_params,
    sent_terms,
)
from .order_states import OrderStates
from .private_connection import PrivateConnection
from .private_link import PrivateLink
from .private_rest import PrivateClient, open_private
from .private_wire import stamp_ms
from .signing import Credentials
from .wire import NS

BATCH_ORDERS = 15
"""New orders that one request takes."""
BATCH_CANCELS = 50
"""Cancels that one request takes."""
_MARGIN_S = 0.5
"""By how much an order may be younger for the venue than for us."""


class KrakenDialog:
    """A `TradeDialog`; made by `open_trade_dialog`."""

    def __init__(
        self,
        account: str,
        *,
        private: PrivateClient,
        facts: AccountFacts,
        limits: EngineLimits,
    ) -> None:
        self.account = account
        self.accounts: Sequence[str] = (account,)
        self._config, self._private = private.config, private
        self._facts, self._limits = facts, limits
        self._states = OrderStates(facts.fqme_of, time.time_ns)
        self._messages = OrderMessages(
            account, facts=facts, states=self._states, limits=limits
        )
        self._connection = PrivateConnection(self._messages, self._config, private)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["KrakenDialog"]:
        """Keep the connection; begins when it works. Raises as `open_trade_dialog`."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._connection.run)
            nursery.start_soon(self._messages.resolve_doubts)
            await self._connection.wait_first()
            try:
                yield self
            finally:
                await self._connection.stand_down()
                nursery.cancel_scope.cancel()

    # Requests

    async def submit(self, order: BrokerdOrder) -> None:
        """See `TradeDialog`: a known `reqid` is changed, any other one is new."""
        pair = await self._checked(order)
        if pair is None:
            return
        reqid, symbol = str(order.reqid), pair.v2_symbol
        self._linked()
        changed = order.is_change or self._states.knows(reqid)
        cost = amend_cost(self._age_s(reqid)) if changed else add_cost()
        if not await self._has_room([order], symbol, cost):
            return
        link = self._linked()
        deadline = self._deadline()
        if changed:
            params, method = amend_params(order, deadline), "amend_order"
        else:
            params, method = add_params(order, symbol, deadline), "add_order"
            self._states.submitted(reqid, sent_terms(order, symbol))
        self._states.changed(reqid)
        await self._request(
            link, method, params, [Note.of(order, symbol, changed=changed)]
        )

    async def submit_many(self, orders: Sequence[BrokerdOrder]) -> None:
        """Send new orders, those of a market together, at half the cost of each.

        Raises as `submit`; those of markets before the one that failed were sent.
        """
        by_symbol: dict[str, list[BrokerdOrder]] = {}
        for order in orders:
            pair = await self._checked(order)
            known = order.is_change or self._states.knows(str(order.reqid))
            if pair is not None and not known:
                by_symbol.setdefault(pair.v2_symbol, []).append(order)
            elif pair is not None:
                await self.submit(order)
        for symbol, wanted in by_symbol.items():
            for first in range(0, len(wanted), BATCH_ORDERS):
                await self._submit_batch(symbol, wanted[first : first + BATCH_ORDERS])

    async def _submit_batch(self, symbol: str, orders: list[BrokerdOrder]) -> None:
        if len(orders) == 1:
            await self.submit(orders[0])
            return
        self._linked()
        if not await self._has_room(orders, symbol, add_cost(len(orders))):
            return
        link = self._linked()
        for order in orders:
            self._states.submitted(str(order.reqid), sent_terms(order, symbol))
            self._states.changed(str(order.reqid))
        params = {
            "symbol": symbol,
            "orders": [order_params(order) for order in orders],
            "deadline": self._deadline(),
        }
        notes = [Note.of(order, symbol, changed=False) for order in orders]
        await self._request(link, "batch_add", params, notes)

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """See `TradeDialog`."""
        await self.cancel_many([cancel])

    async def cancel_many(self, cancels: Sequence[BrokerdCancel]) -> None:
        """Send cancels, several in a request. Raises as `cancel`."""
        by_symbol: dict[str, list[BrokerdCancel]] = {}
        for cancel in cancels:
            if not cancel.reqid:
                self._messages.refuse(cancel, "a cancel without the order's reqid")
                continue
            symbol = self._states.symbol_of(str(cancel.reqid))
            if not symbol and cancel.symbol:
                pair = await self._facts.find(cancel.symbol)
                symbol = pair.v2_symbol if pair else ""
            by_symbol.setdefault(symbol, []).append(cancel)
        for symbol, wanted in by_symbol.items():
            for first in range(0, len(wanted), BATCH_CANCELS):
                await self._cancel_batch(symbol, wanted[first : first + BATCH_CANCELS])

    async def _cancel_batch(self, symbol: str, cancels: list[BrokerdCancel]) -> None:
        self._linked()
        costs = [cancel_cost(self._age_s(str(cancel.reqid))) for cancel in cancels]
        patience_s = self._config.cancel_wait_s
        delay_s = await self._limits.spend(symbol, sum(costs), patience_s=patience_s)
        if delay_s:
            self._refuse_all(cancels, symbol, delay_s, "cancel_wait_s")
            return
        ids = [str(cancel.reqid) for cancel in cancels]
        method = "cancel_order" if len(ids) == 1 else "batch_cancel"
        params: dict[str, Any] = {"cl_ord_id": ids}
        if len(ids) > 1:
            params["orders"] = []
        notes = [Note.of_cancel(cancel, symbol) for cancel in cancels]
        await self._request(self._linked(), method, params, notes)

    async def cancel_all(self) -> None:
        """See `TradeDialog`; over REST while there is no connection.

        Raises OutcomeUnknown, or another ProviderError if nothing was canceled.
        """
        self._messages.counts["requests"] += 1
        link = self._connection.link
        if link is None:
            await self._private.cancel_all()
            return
        asked = link.post("cancel_all", {})
        with trio.move_on_after(self._config.reply_timeout_s):
            await asked.done.wait()
        if asked.answer is None:
            if not asked.sent:
                raise BrokerDown("cancel_all was not sent: the connection is lost")
            raise self._unknown("cancel_all", "no answer")
        if not asked.answer.success:
            raise ProviderError(f"Kraken refuses cancel_all: {asked.answer.error}")

    async def _checked(self, order: BrokerdOrder) -> Pair | None:
        """The pair of an order; None, and refused, for one that cannot be."""
        problem = check_order(order)
        pair = None if problem else await self._facts.find(order.symbol)
        if pair is None or not pair.v2_symbol:
            self._messages.refuse(
                order, problem or f"Kraken does not trade {order.symbol!r}"
            )
            return None
        self._facts.trades(pair)
        return pair

    async def _has_room(
        self, orders: Sequence[BrokerdOrder], symbol: str, cost: float
    ) -> bool:
        """Wait for room for orders, or changes; they are refused if there is none."""
        config = self._config
        keep = min(config.cancel_room, self._limits.threshold / 2)
        delay_s = await self._limits.spend(
            symbol, cost, patience_s=config.order_wait_s, keep=keep
        )
        if delay_s:
            self._refuse_all(orders, symbol, delay_s, "order_wait_s")
        return not delay_s

    def _refuse_all(
        self,
        requests: Sequence[BrokerdOrder | BrokerdCancel],
        symbol: str,
        delay_s: float,
        key: str,
    ) -> None:
        """There is no room for them in the engine's limits."""
        limits = self._limits
        reason = (
            f"the engine's limit of {symbol}: its counter is "
            f"{limits.count(symbol):.1f} of {limits.threshold}, which has room in "
            f"{delay_s:.1f} s; send less, or raise {key} in [kraken]"
        )
        for request in requests:
            self._messages.counts["no_room"] += 1
            self._messages.refuse(request, reason)

    def _age_s(self, reqid: str) -> float:
        return self._states.age_s(reqid) - _MARGIN_S

    def _deadline(self) -> str:
        now_ns = self._private.clock.now_ns()
        return stamp_ms(now_ns + int(self._config.order_deadline_s * NS))

    def _linked(self) -> PrivateLink:
        link = self._connection.link
        if link is None:
            raise BrokerDown(
                "not sent: there is no private connection to Kraken now; it is tried "
                "again, and BrokerLink says when it is back"
            )
        return link

    async def _request(
        self, link: PrivateLink, method: str, params: dict[str, Any], notes: list[Note]
    ) -> None:
        """Send a request and wait for its answer, which `answered` has told of."""
        self._messages.counts["requests"] += 1
        asked = link.post(method, params, notes)
        try:
            with trio.move_on_after(self._config.reply_timeout_s):
                await asked.done.wait()
        finally:
            asked.withdrawn = not asked.sent
            if asked.withdrawn:
                self._messages.forget(notes)
        if asked.withdrawn:
            raise BrokerDown(f"{method} was not sent: the connection was lost")
        what = f"{method} of {', '.join(note.reqid for note in notes)}"
        if asked.answer is None:
            raise self._unknown(what, "no answer")
        for note in notes:
            if note.outcome == "unknown":
                raise self._unknown(what, asked.answer.error or "no clear answer")
            if note.outcome == "session":
                raise BrokerDown(
                    f"{what} was not taken: the session is over; it is renewed"
                )

    def _unknown(self, what: str, reason: str) -> OutcomeUnknown:
        self._messages.counts["unknown"] += 1
        return OutcomeUnknown(
            f"{what}: {reason}; it may have been done: ask for the order, do not send "
            "it again"
        )

    # Facts

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """See `TradeDialog`; the client order id alone says which."""
        link = self._connection.link
        notes = [] if link is None else link.notes()
        pending = any(note.reqid == reqid for each in notes for note in each)
        return await self._messages.find(reqid, pending=pending)

    async def orders(self) -> list[BrokerOrder]:
        """See `TradeDialog`."""
        return await self._facts.orders()

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """See `TradeDialog`."""
        return await self._facts.fills(since_ns, symbol, self._states.reqid_of)

    async def positions(self) -> list[BrokerdPosition]:
        """See `TradeDialog`: of the markets that are traded here."""
        return await self._facts.positions()

    def statistics(self) -> dict[str, int]:
        """See `TradeDialog`."""
        rest = self._private.statistics()
        return dict(self._messages.counts) | {
            "connections": self._connection.opened,
            "held": self._states.held,
            "rest_requests": rest.requests,
            "rest_throttled": rest.throttled,
        }

    def __aiter__(self) -> AsyncIterator[BrokerdMessage | BrokerLink]:
        return self._messages.received.__aiter__()


@asynccontextmanager
async def open_trade_dialog(
    account: str, symbols: Sequence[str] = (), *, config: Config | None = None
) -> AsyncIterator[KrakenDialog]:
    """Connect to Kraken and authenticate; see `OpenTradeDialog`.

    `symbols`: markets whose positions are told from the start. Raises ConfigError,
    NotFound for a market that there is not, ProviderError where the venue refuses or
    is not reached in `connect_timeout_s`.
    """
    config = load_section(PROVIDER, Config) if config is None else config
    credentials = Credentials.of(config)
    async with (
        get_client(config) as client,
        open_private(config, credentials) as private,
    ):
        table = await client.pair_table()
        dialog = KrakenDialog(
            account,
            private=private,
            facts=AccountFacts(account, symbols, client, private, table),
            limits=_shared_limits(config, credentials),
        )
        async with dialog.serve():
            yield dialog


def _shared_limits(config: Config, credentials: Credentials) -> EngineLimits:
    threshold = config.order_threshold
    key = ("engine", config.ws_auth_url, credentials.name, threshold)
    return share(key, lambda: EngineLimits(threshold))
