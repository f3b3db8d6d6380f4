"""Calls without a feed: markets, search, refusals, throttling, broken answers."""

from decimal import Decimal
from typing import Any

import trio

from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage

UNKNOWN = "nosuchmarket9"
PERIOD = 60
"""History of minutes is what is asked for when a call is needed."""
MARGIN_S = 0.05
"""Calls that were under way when the venue asked for patience may end within that."""


async def check_market(stage: Stage) -> Passed:
    """Markets are described: name, steps, provider."""
    if not hasattr(stage.provider, "get_mkt_info"):
        raise NotApplicable("it has no get_mkt_info")
    for symbol in stage.symbols:
        for name in (symbol, f"{symbol}.{stage.name}"):
            market = await _asked(stage, "market", name=name)
            _check_market(stage, symbol, market)
    return Passed(f"{', '.join(stage.symbols)} are described, by both names")


def _check_market(stage: Stage, symbol: str, market: dict[str, Any]) -> None:
    if market["is"] != "MktPair":
        raise Failed(f"get_mkt_info({symbol!r}) gives a {market['is']}, not a MktPair")
    fqme = f"{symbol}.{stage.name}"
    if market["fqme"] != fqme:
        raise Failed(f"{fqme} is called {market['fqme']} by get_mkt_info")
    for key in ("price_tick", "size_tick"):
        if not Decimal(market[key]) > 0:
            raise Failed(f"the {key} of {fqme} is {market[key]}")
    if not market["venue_symbol"]:
        raise Failed(f"{fqme} has no venue_symbol")


async def check_search(stage: Stage) -> Passed:
    """Search finds each market by its name, and nothing by nonsense."""
    if not hasattr(stage.provider, "open_symbol_search"):
        raise NotApplicable("it has no open_symbol_search")
    for symbol in stage.symbols:
        pattern = symbol.partition(".")[0]
        found = await _asked(stage, "search", pattern=pattern)
        if f"{symbol}.{stage.name}" not in found:
            what = ", ".join(found[:3]) or "nothing"
            raise Failed(f"a search for {pattern!r} finds {what}, not {symbol}")
    nonsense = await _asked(stage, "search", pattern="qqqqzzzzxx")
    if nonsense:
        raise Failed(f"a search for nonsense finds {nonsense[:3]}")
    return Passed(f"each of {len(stage.symbols)} markets is found")


async def check_unknown(stage: Stage) -> Passed:
    """An unknown symbol is NotFound, which names it, wherever it is asked for."""
    ways: dict[str, dict[str, Any]] = {"open": {"symbols": [stage.symbols[0], UNKNOWN]}}
    if hasattr(stage.provider, "get_mkt_info"):
        ways["market"] = {"name": UNKNOWN}
    if hasattr(stage.provider, "open_history_client"):
        ways["history"] = {"symbol": UNKNOWN, "period": PERIOD}
    for do, what in ways.items():
        try:
            await stage.subject.ask(do, **what)
        except Told as error:
            if error.kind != "NotFound":
                text = f"{do} of {UNKNOWN!r} raises {error}, not NotFound"
                raise Failed(text) from None
            if UNKNOWN not in error.text:
                text = f"NotFound of {do} does not name {UNKNOWN!r}: {error.text}"
                raise Failed(text) from None
        else:
            raise Failed(f"{do} of {UNKNOWN!r} is no error")
    return Passed(f"NotFound that names it, from {', '.join(ways)}")


async def check_throttle(stage: Stage) -> Passed:
    """Patience that a venue asks for: DataThrottle, and no call meanwhile."""
    throttle = stage.fault("throttle")
    await ask_history(stage)
    throttle(1)
    try:
        await ask_history(stage)
    except Told as error:
        if error.kind != "DataThrottle":
            raise Failed(f"a call too many raises {error}, not DataThrottle") from None
        wait_s = error.retry_after or 0.0
    else:
        raise Failed("a call too many is not told: no DataThrottle from get_ohlc")
    if not wait_s > 0:
        raise Failed(f"DataThrottle has retry_after {wait_s!r}")
    before = stage.calls()
    pause_s = min(wait_s * 0.9, stage.patience.live_s) - MARGIN_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_try_history, stage)
        await trio.sleep(pause_s)
        meanwhile = stage.calls() - before
        nursery.cancel_scope.cancel()
    if meanwhile:
        raise Failed(f"{meanwhile} calls within a pause of {wait_s:.1f} s")
    await _recovered(stage, "throttle")
    return Passed(f"DataThrottle of {wait_s:.1f} s, no call meanwhile")


async def check_html(stage: Stage) -> Passed:
    """An HTML page in place of an answer is an error, and passes."""
    return await _survive(stage, "html")


async def check_unavailable(stage: Stage) -> Passed:
    """A service that is unavailable is an error, and passes."""
    return await _survive(stage, "unavailable")


async def _survive(stage: Stage, fault: str) -> Passed:
    """A call that meets nothing but a fault raises ours; then all is well again."""
    switch = stage.fault(fault)
    switch(1000)
    try:
        await ask_history(stage)
    except Told as error:
        if not error.known:
            raise Failed(f"get_ohlc raises {error}, which is no PikerError") from None
        kind = error.kind
    else:
        raise Failed("get_ohlc gives rows, though nothing was answered")
    finally:
        switch(0)
    await _recovered(stage, fault)
    return Passed(f"{kind}, and an answer when it was over")


async def check_skew(stage: Stage) -> Passed:
    """A venue whose clock is ahead changes nothing about history."""
    skew = stage.fault("skew_clock")
    skew(2.5)
    try:
        await ask_history(stage)
    except Told as error:
        raise Failed(f"get_ohlc raises {error} when clocks are 2.5 s apart") from None
    finally:
        skew(0.0)
    return Passed("history as ever with clocks 2.5 s apart")


async def ask_history(stage: Stage) -> dict[str, Any]:
    """A frame of minutes of the busiest market."""
    if not hasattr(stage.provider, "open_history_client"):
        raise NotApplicable("it has no open_history_client")
    answer: dict[str, Any] = await stage.subject.ask(
        "history", symbol=stage.symbols[0], period=PERIOD
    )
    return answer


async def _try_history(stage: Stage) -> None:
    try:
        await ask_history(stage)
    except Told:
        return  # patience again: it may


async def _recovered(stage: Stage, fault: str) -> None:
    """Wait until a call is answered again."""
    last = ""
    within_s = stage.patience.live_s
    with trio.move_on_after(within_s):
        while True:
            try:
                await ask_history(stage)
                return
            except Told as error:
                last = str(error)
                await trio.sleep(error.retry_after or 0.2)
    raise Failed(f"still no answer {within_s:g} s after {fault!r} was over: {last}")


async def _asked(stage: Stage, do: str, **what: Any) -> Any:
    """An answer that must not be an error."""
    try:
        return await stage.subject.ask(do, **what)
    except Told as error:
        asked = ", ".join(map(repr, what.values()))
        raise Failed(f"{do} of {asked} raises {error}") from None
