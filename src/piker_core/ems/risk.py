"""What may be sent: the limits of an account. Nothing is limited that has no limit.

Sans-IO: the gateway tells what it knows with a `View` and is answered with a `Refusal`,
whose text names the rule and its numbers, or with None.
"""

from collections import deque
from decimal import Context, Decimal

import msgspec

from piker_core.errors import OrderError
from piker_core.orders import Order, exact
from piker_core.symbols import MktPair

SECOND_NS = 1_000_000_000
_WIDE = Context(prec=200)
"""Room for products of any two numbers of orders."""
_set = msgspec.structs.force_setattr


class RiskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[risk.ACCOUNT]`: its limits. None: not limited.

    `max_order_size`: units of one order; `max_notional`: its worth in the quote
    currency; `max_position`: units held, long or short, were all working orders of a
    side filled; `max_open_orders`: orders that are alive, dark ones too;
    `max_orders_per_s`: new and changed orders within any one second; `price_collar`:
    how far from the last quote a price may be, as a fraction of it; `daily_loss`: loss
    of a UTC day in the quote currency from which on positions may only be reduced.
    """

    max_order_size: Decimal | None = None
    max_notional: Decimal | None = None
    max_position: Decimal | None = None
    max_open_orders: Decimal | None = None
    max_orders_per_s: Decimal | None = None
    price_collar: Decimal | None = None
    daily_loss: Decimal | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                _set(self, name, _limit(value, name))


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows when an order is asked for.

    Of the order's market: `position` (negative: short); `buying` and `selling`, what
    may still be filled of its living orders; `bid`, `ask` and `last` of the last quote;
    `multiplier`, units in a contract. Of the account: `open_orders`, those alive;
    `day_profit` in the market's quote currency, of this UTC day, fees paid, positions
    at their last price; `killed`, the kill switch's text. The order that is asked for
    is not in any of these; `filled` is what is done of it, `is_update`: it is alive
    already, and is changed, or was triggered (`is_triggered`). `now_ns`: of any clock.
    """

    now_ns: int
    position: Decimal = Decimal(0)
    buying: Decimal = Decimal(0)
    selling: Decimal = Decimal(0)
    filled: Decimal = Decimal(0)
    multiplier: Decimal = Decimal(1)
    is_update: bool = False
    is_triggered: bool = False
    is_sent: bool = False
    open_orders: int = 0
    bid: Decimal | None = None
    ask: Decimal | None = None
    last: Decimal | None = None
    day_profit: Decimal = Decimal(0)
    killed: str = ""

    def __post_init__(self) -> None:
        for name in ("bid", "ask", "last"):
            value = getattr(self, name)
            if value is not None:
                _set(self, name, exact(value, name))

    @property
    def reference(self) -> Decimal | None:
        """The price that others are held against: the middle, or what there is."""
        if self.bid is not None and self.ask is not None:
            return _WIDE.divide(_WIDE.add(self.bid, self.ask), Decimal(2))
        return next((p for p in (self.bid, self.ask, self.last) if p is not None), None)

    def remaining(self, order: Order) -> Decimal:
        """What would still be to be filled of the order that is asked for."""
        return max(_WIDE.subtract(order.size, self.filled), Decimal(0))


class Refusal(msgspec.Struct, frozen=True):
    """Why an order is not taken: the rule, and a sentence that begins with it."""

    rule: str
    text: str

    def __str__(self) -> str:
        return self.text


class Risk:
    """The limits of one account. Holds the times of the orders it let pass."""

    def __init__(self, config: RiskConfig) -> None:
        self.config = config
        self._passed: deque[int] = deque()
        self._rules = (
            (config.max_order_size, self._order_size),
            (config.max_notional, self._notional),
            (config.price_collar, self._collar),
            (config.daily_loss, self._daily_loss),
            (config.max_position, self._position),
        )

    def check(self, order: Order, view: View) -> Refusal | None:
        """Why an order as it is wanted may not be; None: it may, and is counted.

        Alerts, which are never sent, are held against the kill switch and the number
        of open orders alone.
        """
        if view.killed:
            return _refusal("kill", view.killed)
        if refusal := self._open_orders(order, view):
            return refusal
        if order.action == "alert":
            return None
        for limit, rule in self._rules:
            if limit is not None and (refusal := rule(order, view, limit)):
                return refusal
        return self._rate(view)

    def _order_size(self, order: Order, _: View, limit: Decimal) -> Refusal | None:
        if order.size <= limit:
            return None
        return _refusal(
            "max_order_size", f"{_units(order.size, order)} is more than {plain(limit)}"
        )

    def _notional(self, order: Order, view: View, limit: Decimal) -> Refusal | None:
        worth = _worth(order.price, order.size, view.multiplier)
        if worth <= limit:
            return None
        return _refusal(
            "max_notional",
            f"{_units(order.size, order)} at {plain(order.price)} is worth "
            f"{plain(worth)}, more than {plain(limit)}",
        )

    def _collar(self, order: Order, view: View, limit: Decimal) -> Refusal | None:
        """What is kept here is sent when the price has come to its trigger."""
        kept = _is_kept(order) and not (view.is_sent or view.is_triggered)
        if kept and order.stop is None:
            return None
        if view.is_triggered and _is_stop(order):
            return None  # its limit was held against the stop when it was sent
        middle = order.stop if kept else view.reference
        if middle is None:
            return _refusal(
                "price_collar",
                f"no quote of {order.symbol} is known to hold {plain(order.price)} "
                f"against (within {plain(limit)} of it)",
            )
        room = _WIDE.multiply(middle.copy_abs(), limit)
        low, high = _WIDE.subtract(middle, room), _WIDE.add(middle, room)
        if low <= order.price <= high:
            return None
        beside = "the stop at" if kept else "the last quote,"
        return _refusal(
            "price_collar",
            f"{plain(order.price)} for {order.symbol} is not within {plain(limit)} of "
            f"{beside} {plain(middle)}: from {plain(low)} to {plain(high)}",
        )

    def _position(self, order: Order, view: View, limit: Decimal) -> Refusal | None:
        """Held against what would be, were all orders of its side filled as well."""
        remaining = view.remaining(order)
        if order.action == "buy":
            working = view.buying
            would = _WIDE.add(_WIDE.add(view.position, working), remaining)
            fits = would <= limit
        else:
            working = view.selling
            would = _WIDE.subtract(_WIDE.subtract(view.position, working), remaining)
            fits = would >= limit.copy_negate()
        if fits:
            return None
        return _refusal(
            "max_position",
            f"a {order.action} of {_units(remaining, order)} could make the position "
            f"of {plain(view.position)} one of {plain(would)} (other {order.action}s: "
            f"{plain(working)}), more than {plain(limit)}",
        )

    def _open_orders(self, order: Order, view: View) -> Refusal | None:
        limit = self.config.max_open_orders
        if limit is None or view.is_update or view.open_orders + 1 <= limit:
            return None
        return _refusal(
            "max_open_orders",
            f"{view.open_orders} orders are open, {plain(limit)} may be",
        )

    def _daily_loss(self, order: Order, view: View, limit: Decimal) -> Refusal | None:
        """From the limit on, orders together may close what is held, and no more."""
        if view.day_profit > limit.copy_negate():
            return None
        closing = "sell" if view.position > 0 else "buy"
        working = view.selling if closing == "sell" else view.buying
        would = _WIDE.add(working, view.remaining(order))
        if order.action == closing and would <= view.position.copy_abs():
            return None
        return _refusal(
            "daily_loss",
            f"{plain(view.day_profit.copy_negate())} was lost today, {plain(limit)} "
            f"may be: a {order.action} of {_units(view.remaining(order), order)} "
            f"(other {closing}s: {plain(working)}) does more than reduce the position "
            f"of {plain(view.position)}",
        )

    def _rate(self, view: View) -> Refusal | None:
        """Counts what it lets pass. A time far ahead of now is of a clock set back.

        What was triggered is counted, and never held up.
        """
        limit = self.config.max_orders_per_s
        if limit is None:
            return None
        times, now_ns = self._passed, view.now_ns
        while times and not now_ns - SECOND_NS < times[0] <= now_ns + SECOND_NS:
            times.popleft()
        if view.is_triggered or len(times) + 1 <= limit:
            times.append(now_ns)
            return None
        return _refusal(
            "max_orders_per_s",
            f"{len(times)} orders were sent or changed within a second, "
            f"{plain(limit)} may be",
        )


def quantized(order: Order, mkt: MktPair) -> Order | Refusal:
    """An order as its market can have it, or why it cannot.

    Its price is rounded to a tick that is never worse for the sender, its size down.
    An alert stays as it is, as do `stop` and `trail`: nothing of them is sent, and
    trades reach them as they are.
    """
    if order.action == "alert":
        return order
    price = mkt.quantize_order_price(order.price, order.action)
    size = mkt.quantize_size(order.size)
    worth = _worth(price, size, mkt.multiplier)
    most = size if mkt.max_size is None else mkt.max_size
    checks = (
        (price > 0, "price_tick", "price", order.price, "less", mkt.price_tick),
        (size > 0, "size_tick", "size", order.size, "less", mkt.size_tick),
        (size >= mkt.min_size, "min_size", "size", size, "less", mkt.min_size),
        (size <= most, "max_size", "size", size, "more", most),
        (
            *(worth >= mkt.min_notional, "min_notional", "worth"),
            *(worth, "less", mkt.min_notional),
        ),
    )
    for fits, rule, what, number, how, bound in checks:
        if not fits:
            return _refusal(
                rule,
                f"a {what} of {plain(number)} is {how} than an order for "
                f"{order.symbol} can have, {plain(bound)}",
            )
    return msgspec.structs.replace(order, price=price, size=size)


def plain(number: Decimal) -> str:
    """A number without exponent and without zeros that say nothing."""
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _is_kept(order: Order) -> bool:
    return order.exec_mode == "dark" or _is_stop(order)


def _is_stop(order: Order) -> bool:
    return order.stop is not None or order.trail is not None


def _worth(price: Decimal, size: Decimal, multiplier: Decimal) -> Decimal:
    return _WIDE.multiply(_WIDE.multiply(price, size), multiplier)


def _units(size: Decimal, order: Order) -> str:
    return f"{plain(size)} {order.symbol}"


def _refusal(rule: str, text: str) -> Refusal:
    return Refusal(rule, f"{rule}: {text}")


def _limit(value: Decimal, name: str) -> Decimal:
    try:
        number = exact(value, name)
    except OrderError as error:
        raise ValueError(f"{error}; leave {name} out for no limit") from None
    if number < 0:
        raise ValueError(
            f"{name} {number} must be 0 or more; leave it out for no limit"
        )
    return number
