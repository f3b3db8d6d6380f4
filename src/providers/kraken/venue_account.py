"""The account at a simulated Kraken: its key, its tier, what its engine counts."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec
import trio

BALANCES = {
    "BTC": Decimal(10),
    "ETH": Decimal(100),
    "DOGE": Decimal(100_000),
    "USD": Decimal(1_000_000),
    "EUR": Decimal(100_000),
    "USDT": Decimal(100_000),
}
_AMEND = {5: 3, 10: 2, 15: 1}
_CANCEL = {5: 8, 10: 6, 15: 5, 45: 4, 90: 2, 300: 1}


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who trades at the venue, and what it lets them do; the defaults are its lowest.

    `balances` by names of WebSocket v2. The engine's counter of a pair may come to
    `threshold` and falls by `decay` a second; `open_orders` may stand a pair. Calls
    over REST count up to `calls`, which fall by `calls_decay` a second. A token has to
    be used within `token_s`. `lockout` refused signatures lock the key out.
    """

    api_key: str = "q7Jx0simulated/key/of/nobody0000000000000000000000000000"
    api_secret: str = (
        "c2ltdWxhdGVkIHNlY3JldCBvZiBub2JvZHksIHNpeHR5LWZvdXIgYnl0ZXMgbG9uZyBhcyB0"
        "aGUgdmVudWUncyBhcmUuLi4="
    )
    balances: Mapping[str, Decimal] = msgspec.field(default_factory=lambda: BALANCES)
    threshold: int = 60
    decay: float = 1.0
    open_orders: int = 60
    calls: float = 15.0
    calls_decay: float = 0.33
    token_s: float = 900.0
    lockout: int = 5


class EngineCounter:
    """What the engine counts a pair; times are trio's. `refused`: actions too many."""

    def __init__(self, account: Account) -> None:
        self.refused = 0
        self.most = 0.0
        self._account = account
        self._counts: dict[str, tuple[float, float]] = {}

    def count(self, pair: str) -> float:
        """The counter of a pair now."""
        now = trio.current_time()
        count, at = self._counts.get(pair, (0.0, now))
        return max(count - (now - at) * self._account.decay, 0.0)

    def add(self, pair: str, cost: float) -> bool:
        """Count an action; False, and not counted, if it is one too many."""
        count = self.count(pair) + cost
        if count > self._account.threshold:
            self.refused += 1
            return False
        self.most = max(self.most, count)
        self._counts[pair] = (count, trio.current_time())
        return True


def amend_cost(age_s: float) -> int:
    """Of a change of an order that was made or changed so long ago."""
    return 1 + next((cost for limit, cost in _AMEND.items() if age_s < limit), 0)


def cancel_cost(age_s: float) -> int:
    """Of a cancel."""
    return next((cost for limit, cost in _CANCEL.items() if age_s < limit), 0)
