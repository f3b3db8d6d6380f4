"""Orders in bad weather: answers that do not come, connections cut, many at once."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from piker_core.conformance.broker_orders import check_fills, check_once, opened
from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage
from piker_core.conformance.trader import FAR, Trader
from piker_core.orders import BrokerdOrder

BURST, CANCELS = 80, 10
AGAIN_S = 0.8
"""How long to look whether something is sent again."""


async def check_lost_answer(stage: Stage) -> Passed:
    """No answer: OutcomeUnknown; order() says what was done, and it is not repeated."""
    trader = await opened(stage)
    switch = trader.private.switches.lose_answer
    if switch is None:
        raise NotApplicable("the simulated venue does not lose answers to orders")
    for done in (True, False):
        await _check_unknown(trader, switch, done)
        await _check_unknown_change(trader, switch, done)
    await trader.unseen()
    return Passed("orders and changes, done and not: unknown, and order() tells which")


async def check_cut_request(stage: Stage) -> Passed:
    """The connection is lost before the answer: the same."""
    trader = await opened(stage)
    switch = trader.private.switches.cut_request
    if switch is None:
        raise NotApplicable("the simulated venue does not cut in place of an answer")
    for done in (True, False):
        for check in (_check_unknown, _check_unknown_change):
            since = len(trader.said)
            await check(trader, switch, done)
            await trader.until_link(up=True, since=since)
    return Passed("orders and changes, done and not: unknown, and order() tells which")


async def _check_unknown(
    trader: Trader, switch: Callable[[bool], object], done: bool
) -> None:
    order = trader.make("buy", trader.price("buy", -FAR))
    reqid, before = str(order.reqid), trader.private.open_orders()
    switch(done)
    await _submit_unknown(trader, order, "an order")
    await _check_told(trader, reqid, done)
    await trio.sleep(AGAIN_S)
    taken, there = trader.private.taken(reqid), trader.private.open_orders()
    if taken != int(done) or there != before + [reqid] * done:
        raise Failed(
            f"the venue {'took' if done else 'did not take'} an order whose answer was "
            f"lost, and has {taken} of its reqid and {len(there) - len(before)} more "
            "open orders now: it was sent again"
        )
    if done:
        await trader.end(reqid)


async def _submit_unknown(trader: Trader, order: BrokerdOrder, what: str) -> None:
    try:
        await trader.submit(order)
    except Told as error:
        if error.kind != "OutcomeUnknown":
            raise Failed(
                f"{what} whose answer was lost raises {error}, not OutcomeUnknown"
            ) from None
    else:
        raise Failed(f"{what} whose answer was lost raises no OutcomeUnknown")


async def _check_unknown_change(
    trader: Trader, switch: Callable[[bool], object], done: bool
) -> None:
    """A change whose answer was lost; `order` says what the order is now."""
    reqid = await trader.rest()
    before, there = trader.truth(reqid), trader.private.open_orders()
    price = before.price - 8 * trader.mkt.price_tick
    switch(done)
    order = trader.make(before.side, price, size=before.size, reqid=reqid)
    await _submit_unknown(trader, order, "a change")
    found = await trader.told_order(reqid)
    await trio.sleep(AGAIN_S)
    truth = trader.truth(reqid)
    if truth.price != (price if done else before.price):
        raise Failed(f"a change whose answer was lost was sent again: it is {truth}")
    if found is None or (found.price, found.size) != (truth.price, truth.size):
        raise Failed(f"after a lost answer order() says {found}, the venue {truth}")
    if trader.private.open_orders() != there:
        raise Failed("a change whose answer was lost has left another order")
    await trader.end(reqid)


async def _check_told(trader: Trader, reqid: str, done: bool) -> None:
    """Whether `order` tells what was done, as soon as it can."""
    found = await trader.told_order(reqid)
    if done and (found is None or found.status not in ("open", "pending")):
        raise Failed(f"order() says {found} of an order that the venue has open")
    if not done and found is not None and found.status in ("open", "pending"):
        raise Failed(f"order() says {found.status} of an order that was never taken")


async def check_cut(stage: Stage) -> Passed:
    """The connection is cut: told, and what was missed can be asked for."""
    trader = await opened(stage)
    cut = trader.private.switches.cut
    if cut is None:
        raise NotApplicable("the simulated venue does not cut connections")
    refuse = stage.fault("refuse_connections")
    missed = await trader.rest()
    price = trader.truth(missed).price
    behind = trader.make("buy", price - 8 * trader.mkt.price_tick)
    kept = str(behind.reqid)
    await trader.submit(behind)
    await trader.until_status(kept, "open")
    since, begun_ns = len(trader.said), time.time_ns()
    refuse()
    cut()
    await trader.until_link(up=False, since=since)
    trader.private.print_trade(price, trader.terms.size)
    await _check_not_sent(trader)
    back = len(trader.said)
    refuse(False)
    await trader.until_link(up=True, since=back)
    await _check_missed(trader, missed, kept, begun_ns)
    await trader.end(kept)
    await trader.unseen()
    return Passed("down and up were told; orders(), order() and fills() have it all")


async def _check_not_sent(trader: Trader) -> None:
    order = trader.make("buy", trader.price("buy", -FAR))
    try:
        await trader.submit(order)
    except Told as error:
        if error.kind != "BrokerDown":
            raise Failed(
                f"an order without a connection raises {error}, not BrokerDown"
            ) from None
    else:
        raise Failed("an order without a connection raises no BrokerDown")


async def _check_missed(trader: Trader, missed: str, kept: str, begun_ns: int) -> None:
    there = await trader.orders()
    if missed in there or kept not in there:
        raise Failed(
            f"after the cut orders() has {sorted(there)}; {missed} was filled "
            f"meanwhile and {kept} is open"
        )
    found = await trader.told_order(missed)
    if found is None or (found.status, found.filled) != ("closed", trader.terms.size):
        raise Failed(f"after the cut order() says {found} of an order that was filled")
    rows = [row for row in await trader.fills(begun_ns - 10**9) if row.reqid == missed]
    if len({row.fill_id for row in rows}) != len(rows):
        raise Failed("fills() has an execution twice")
    check_fills(trader, missed, rows)
    check_once(trader, kept)


async def check_limits(stage: Stage) -> Passed:
    """Many orders at once: the venue refuses none for its rate."""
    trader = await opened(stage)
    begun_s = trio.current_time()
    price = trader.price("buy", -FAR)
    least = trader.part()
    orders = [trader.make("buy", price, size=least) for _ in range(BURST)]
    not_sent = await _at_once([partial(trader.submit, order) for order in orders])
    taken = [str(o.reqid) for o in orders if trader.private.taken(str(o.reqid))]
    await _at_once([partial(trader.cancel, reqid) for reqid in taken[:CANCELS]])
    refused = trader.private.refused_for_rate()
    if refused:
        raise Failed(f"the venue refused {refused} requests that were over its limits")
    if not taken:
        raise Failed(f"of {BURST} orders none was taken")
    took_s = trio.current_time() - begun_s
    return Passed(
        f"{len(taken)} of {BURST} orders taken, {not_sent} not sent, none refused for "
        f"its rate, {took_s:.1f} s",
        {"taken": len(taken), "seconds": round(took_s, 2)},
    )


async def _at_once(calls: list[Callable[[], Any]]) -> int:
    """Make calls side by side; how many were not sent. Raises Failed for all else."""
    failures: list[Told] = []

    async def run(call: Callable[[], Any]) -> None:
        try:
            await call()
        except Told as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(run, call)
    for error in failures:
        if error.kind != "BrokerDown":
            raise Failed(f"one of many orders raises {error}")
    return len(failures)
