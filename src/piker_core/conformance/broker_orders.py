"""Orders in calm weather: placed, filled, changed, canceled, refused."""

import time
from collections import Counter
from decimal import Decimal

from piker_core.broker import BrokerOrder
from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, Passed
from piker_core.conformance.stage import NS, Stage
from piker_core.conformance.trader import FAR, THROUGH, Side, Trader, filled_of
from piker_core.orders import BrokerdError, BrokerdFill, BrokerdOrderAck, BrokerdStatus

ENDED = ("canceled", "closed")
ZERO = Decimal(0)
_CLOCKS_NS = 60 * NS


async def opened(stage: Stage) -> Trader:
    """The trader of a stage with its dialog open."""
    trader = stage.trader
    await trader.open()
    return trader


async def check_place(stage: Stage) -> Passed:
    """An order away from the market is acknowledged, and rests as it was sent."""
    trader = await opened(stage)
    before = trader.private.open_orders()
    order = await trader.place("buy", -FAR)
    reqid = str(order.reqid)
    status = await trader.until_status(reqid, "open")
    acks = trader.of(BrokerdOrderAck, reqid)
    if not acks or acks[0].oid != order.oid:
        raise Failed(f"no BrokerdOrderAck names order {order.oid}")
    if (status.filled, status.remaining) != (ZERO, order.size):
        raise Failed(
            f"an order of {order.size} that rests is told to have filled "
            f"{status.filled} and {status.remaining} remaining"
        )
    truth = trader.truth(reqid)
    if (truth.price, truth.size, truth.is_open) != (order.price, order.size, True):
        raise Failed(f"the venue has {truth}, sent was {order.size} at {order.price}")
    check_once(trader, reqid)
    if (there := trader.private.open_orders()) != [*before, reqid]:
        raise Failed(f"one order was sent, and {len(there) - len(before)} are open")
    await _check_described(trader, reqid)
    if reqid not in await trader.orders():
        raise Failed("orders() does not have an order that is open")
    await trader.end(reqid)
    return Passed(f"{order.size} at {order.price} rests, once, as {reqid}")


def check_once(trader: Trader, reqid: str) -> None:
    """Raises Failed for an order that the venue took more than once."""
    taken = trader.private.taken(reqid)
    if taken > 1:
        raise Failed(f"the venue took {taken} orders of the one reqid {reqid}")


async def _check_described(trader: Trader, reqid: str) -> BrokerOrder:
    """What `order` says is the venue's truth."""
    found, truth = await trader.order(reqid), trader.truth(reqid)
    if found is None:
        raise Failed(f"order({reqid!r}) is None, and the venue has it")
    told = (found.reqid, found.action, found.price, found.size, found.filled)
    true = (reqid, truth.side, truth.price, truth.size, truth.filled)
    if told != true or (found.status == "open") is not truth.is_open:
        raise Failed(f"order() says {told}, {found.status}; the venue has {truth}")
    return found


async def check_fill(stage: Stage) -> Passed:
    """An order through the market is filled, no worse than its limit."""
    trader = await opened(stage)
    order = await trader.place("buy", THROUGH)
    reqid = str(order.reqid)
    closed = await trader.until_status(reqid, "closed")
    fills = await trader.until_filled(reqid, order.size)
    _check_sequence(trader, reqid)
    if (closed.filled, closed.remaining) != (order.size, ZERO):
        raise Failed(
            f"a closed order of {order.size} is told to have filled {closed.filled} "
            f"and {closed.remaining} remaining"
        )
    worse = [fill.price for fill in fills if fill.price > order.price]
    if worse:
        raise Failed(f"bought at {worse[0]} with a limit of {order.price}")
    check_fills(trader, reqid, fills)
    await trader.until(
        lambda: all(fill.fee is not None for fill in trader.fills_of(reqid)),
        "a fill has no fee",
    )
    for fill in trader.fills_of(reqid):
        _check_fill(fill)
    return Passed(f"{len(fills)} fills of {order.size}, limit {order.price}")


def _check_sequence(trader: Trader, reqid: str) -> None:
    """Raises Failed if anything was told of an order before it was acknowledged."""
    kinds = (BrokerdOrderAck, BrokerdStatus, BrokerdFill)
    first = next(
        message
        for message in trader.said
        if isinstance(message, kinds)
        and message.reqid == reqid
        and getattr(message, "status", "") != "pending"
    )
    if not isinstance(first, BrokerdOrderAck):
        raise Failed(f"a {type(first).__name__} comes before the BrokerdOrderAck")


def check_fills(trader: Trader, reqid: str, fills: list[BrokerdFill]) -> None:
    """Raises Failed unless these are the venue's executions of an order."""
    told = Counter((fill.action, fill.size, fill.price) for fill in fills)
    true = Counter(
        (each.side, each.size, each.price)
        for each in trader.private.fills()
        if each.reqid == reqid
    )
    if told != true:
        raise Failed(
            f"fills of {reqid} are told as {sorted(told.elements())}, the venue has "
            f"{sorted(true.elements())}"
        )


def _check_fill(fill: BrokerdFill) -> None:
    if not fill.fill_id:
        raise Failed("a fill has no fill_id, by which a repeat is known")
    if abs(fill.broker_time - time.time_ns()) > _CLOCKS_NS:
        raise Failed(f"broker_time {fill.broker_time} of a fill is not now")
    if not fill.fee_currency:
        raise Failed(f"the fee {fill.fee} of a fill is of no currency")


async def check_partial(stage: Stage) -> Passed:
    """An order is filled in parts; each is told, and what remains."""
    trader = await opened(stage)
    reqid, part = await trader.rest(), trader.part()
    whole, price = trader.terms.size, trader.truth(reqid).price
    _print(trader, price, part)
    await trader.until_filled(reqid, part)
    await trader.until(
        lambda: any(
            (row.filled, row.remaining) == (part, whole - part)
            for row in trader.of(BrokerdStatus, reqid)
        ),
        f"no status says that {part} of {whole} is filled",
    )
    if trader.truth(reqid).is_open:
        await _check_described(trader, reqid)
    _print(trader, price, whole - part)
    await trader.until_status(reqid, "closed")
    fills = await trader.until_filled(reqid, whole)
    check_fills(trader, reqid, fills)
    return Passed(f"{len(fills)} fills of {whole}, first {part}")


def _print(trader: Trader, price: Decimal, size: Decimal) -> None:
    took = trader.private.print_trade(price, size)
    if took != size:
        raise Failed(f"of a trade of {size} the resting orders took {took}")


async def check_amend(stage: Stage) -> Passed:
    """Price and size are changed, before and after a fill, under one reqid."""
    trader = await opened(stage)
    begun = len(trader.said)
    reqid, part, size = await trader.rest(), trader.part(), trader.terms.size
    price = trader.truth(reqid).price
    tick = trader.mkt.price_tick
    steps = [(price - 8 * tick, size), (price, size + part), (price, size)]
    for wanted in steps:
        await trader.change(reqid, *wanted)
    _print(trader, price, part)
    await trader.until_filled(reqid, part)
    later = [(price - 4 * tick, size), (price - 4 * tick, size - part)]
    for wanted in later:
        await trader.change(reqid, *wanted)
    await _check_described(trader, reqid)
    _print(trader, price - 4 * tick, size - 2 * part)
    await trader.until_status(reqid, "closed")
    check_fills(trader, reqid, await trader.until_filled(reqid, size - part))
    check_once(trader, reqid)
    named = {getattr(message, "reqid", reqid) for message in trader.said[begun:]}
    if named != {reqid}:
        raise Failed(f"messages name {sorted(named)} in place of {reqid} alone")
    return Passed(f"{len(steps) + len(later)} changes, one reqid throughout")


async def check_cancel(stage: Stage) -> Passed:
    """A cancel ends an order; one of an order that is not open is refused."""
    trader = await opened(stage)
    reqid = await trader.rest()
    await trader.cancel(reqid)
    status = await trader.until_status(reqid, "canceled")
    if trader.truth(reqid).is_open:
        raise Failed("it is told to be canceled, and is open at the venue")
    if status.filled:
        raise Failed(f"of an order canceled unfilled {status.filled} is told as filled")
    await _check_needless(trader, reqid, "of an order that has ended")
    await _check_needless(trader, trader.new_id(), "of an unknown order")
    return Passed("canceled; cancels of what has ended, or never was, are refused")


async def _check_needless(trader: Trader, reqid: str, what: str) -> None:
    """A cancel that finds nothing to end is refused, or told what there is."""
    since = len(trader.said)
    try:
        await trader.cancel(reqid)
    except Told as error:
        raise Failed(
            f"a cancel {what} raises {error}, and is to be told as BrokerdError"
        ) from None

    def answered() -> bool:
        return any(
            isinstance(message, BrokerdError)
            or (isinstance(message, BrokerdStatus) and message.status in ENDED)
            for message in trader.said[since:]
            if getattr(message, "reqid", "") == reqid
        )

    await trader.until(answered, f"a cancel {what} is not answered")


async def check_refused(stage: Stage) -> Passed:
    """What the venue does not take is a BrokerdError, and no order."""
    trader = await opened(stage)
    terms, price = trader.terms, trader.price("buy", -FAR)
    wrong = [
        ("off the tick", price + trader.mkt.price_tick / 2, terms.size),
        ("more than can be paid", price, terms.too_much),
    ]
    if terms.too_small is not None:
        wrong.append(("below the minimum", price, terms.too_small))
    for what, at, size in wrong:
        await _check_refused(trader, what, at, size)
    return Passed(", ".join(what for what, *_ in wrong) + ": each a BrokerdError")


async def _check_refused(
    trader: Trader, what: str, price: Decimal, size: Decimal
) -> None:
    order = trader.make("buy", price, size=size)
    reqid = str(order.reqid)
    try:
        await trader.submit(order)
    except Told as error:
        raise Failed(
            f"an order {what} raises {error}, and is to be told as BrokerdError"
        ) from None
    await trader.until(
        lambda: trader.of(BrokerdError, reqid),
        f"an order {what} is answered by no BrokerdError",
    )
    told = trader.of(BrokerdError, reqid)[0]
    if not told.reason.strip() or told.oid != order.oid:
        raise Failed(f"the BrokerdError of an order {what} names no reason or oid")
    truth = trader.private.order(reqid)
    found = await trader.order(reqid)
    living = truth is not None and truth.is_open
    if living or (found is not None and found.status in ("open", "pending")):
        raise Failed(f"an order {what} was refused, and lives")


async def check_cancel_all(stage: Stage) -> Passed:
    """Every open order of the account is canceled, and each is told."""
    trader = await opened(stage)
    reqids = [await trader.rest(side) for side in ("buy", "sell", "buy")]
    await trader.call("cancel_all")
    for reqid in reqids:
        await trader.until_status(reqid, "canceled")
    if left := trader.private.open_orders():
        raise Failed(f"{len(left)} orders are open after cancel_all()")
    if left_told := await trader.orders():
        raise Failed(f"orders() has {sorted(left_told)} after cancel_all()")
    return Passed(f"{len(reqids)} orders canceled")


async def check_positions(stage: Stage) -> Passed:
    """What is held is the venue's truth, before and after trades."""
    trader = await opened(stage)
    held = []
    trades: dict[Side, Decimal] = {"buy": trader.terms.size, "sell": trader.part()}
    for side, size in trades.items():
        order = await trader.place(side, THROUGH, size)
        await trader.until_status(str(order.reqid), "closed")
        told, true = await trader.position(), trader.private.position()
        if told != true:
            raise Failed(f"positions() says {told}, the venue has {true}")
        held.append(told)
    filled = filled_of(await trader.fills())
    if filled != filled_of(trader.private.fills()):
        raise Failed(f"fills() adds up to {filled}, which is not the venue's")
    return Passed(f"{held[0]} bought, {held[1]} after a sale")
