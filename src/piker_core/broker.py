"""What a provider's `open_trade_dialog` gives: one account at a venue.

    async with provider.open_trade_dialog("kraken") as dialog:
        await dialog.submit(order)
        async for message in dialog: ...

The dialog keeps its own connection, with what the venue needs to keep it (tokens,
dead-man's switches, pings), and says with `BrokerLink` when it is lost and when it is
back. It remembers nothing over a restart and sends nothing twice: whether an order that
nobody knows the fate of exists is found out with `order`, by its `reqid`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
    Side,
    State,
)


class BrokerLink(msgspec.Struct, frozen=True, tag="broker_link", tag_field="msg"):
    """The private connection is there (`up`), or is not, and why.

    After each `up`, what was missed is asked for by the gateway with `orders`, `fills`
    and `positions`; the first one is said as soon as the dialog works.
    """

    up: bool
    reason: str = ""


class BrokerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue has it. `reqid` is "" if it has no client order id."""

    reqid: str
    broker_id: str
    symbol: str
    status: State
    action: Side
    price: Decimal
    size: Decimal
    filled: Decimal
    avg_price: Decimal = Decimal(0)
    time_ns: int = 0
    reason: str = ""
    broker_details: dict[str, Any] = {}


class TradeDialog(Protocol):
    """One account at a venue. Methods may be called by several tasks at once.

    What the venue says of an order arrives by iteration, in the order in which it was
    received, doubled or early where the venue doubles or hurries: the gateway sorts it
    out. A message of which nothing can be made is counted and never raises.
    """

    account: str
    accounts: Sequence[str]
    """All accounts that these credentials may trade for."""

    async def submit(self, order: BrokerdOrder) -> None:
        """Send a new order, or the change of one that was submitted here or is open.

        One that `is_change` and is not open any more is refused: it is never sent as
        a new one, whatever is remembered of it.

        Returns when the venue took or refused it, or was sent it and has not answered:
        a `BrokerdOrderAck` follows, or a `BrokerdError`. Raises `BrokerDown` if it was
        certainly not sent, `OutcomeUnknown` if it is unknown whether it was done.
        """

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """Send a cancel. As `submit`; a `BrokerdStatus` "canceled" follows, or more."""

    def __aiter__(self) -> AsyncIterator[BrokerdMessage | BrokerLink]:
        """All that the venue says. Ends only with the dialog."""

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """The order of this client order id, ended ones too; None: there is none.

        Raises ProviderError if it cannot be told now.
        """

    async def orders(self) -> list[BrokerOrder]:
        """All open orders of the account, those that others made too."""

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """Executions since then, oldest first, each with the `reqid` of its order."""

    async def positions(self) -> list[BrokerdPosition]:
        """What the venue says the account holds; of spot: the base's balance."""

    async def cancel_all(self) -> None:
        """Cancel every open order of the account at once."""

    def statistics(self) -> dict[str, int]:
        """Counters: requests, acks, refusals, fills, unknown, reconnects, ..."""


class OpenTradeDialog(Protocol):
    """`open_trade_dialog` of a provider package."""

    def __call__(
        self, account: str, symbols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[TradeDialog]:
        """Connect and authenticate. `symbols`: markets (fqme) that will be traded.

        Raises ConfigError for secrets that are missing, ProviderError for those that
        the venue refuses, and when it is not reached in `connect_timeout_s`.
        """
