"""The feed and its connections: first quotes, exact rows, losses and their repair."""

import time
from typing import Any

import trio

from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import NS, Stage
from piker_core.conformance.truth import difference, records

OUTAGE_S = 1.3
ENOUGH_QUOTES = 100
EDGE_S = 0.5
"""A gap on record may begin or end so much within the outage."""


async def check_first_quotes(stage: Stage) -> Passed:
    """A first quote with the last price of every market, in time."""
    try:
        await stage.feed()
    except Told as error:
        raise Failed(f"the feed does not open: {error}") from None
    tap = await stage.subject.ask("tap")
    if tap["wrong"]:
        raise Failed(tap["wrong"][0])
    started = {init["symbol"].removesuffix(f".{stage.name}") for init in tap["inits"]}
    for symbol in stage.symbols:
        quote = tap["first"].get(symbol) or tap["first"].get(f"{symbol}.{stage.name}")
        if symbol not in started:
            raise Failed(f"no FeedInit of {symbol}")
        if not quote or not quote.get("last"):
            raise Failed(f"the first quote of {symbol} has no `last`: {quote}")
        _check_last(stage, symbol, float(quote["last"]))
    took_s = stage.opening["seconds"]
    return Passed(
        f"{len(stage.symbols)} markets within {took_s:.2f} s",
        {"seconds": round(took_s, 3)},
    )


def _check_last(stage: Stage, symbol: str, last: float) -> None:
    """Whether a price is one of the last minute."""
    now_s = int(time.time())
    candles = stage.venue.candles(symbol, 60, now_s - 120, now_s + 1)
    low, high = min(c.low for c in candles), max(c.high for c in candles)
    if not float(low) <= last <= float(high):
        raise Failed(f"`last` of {symbol} is {last}; it traded at {low} to {high}")


async def check_live(stage: Stage) -> Passed:
    """`feed_is_live` is set when real-time data flow."""
    await stage.feed()
    tap = await stage.subject.ask("tap")
    if tap["live_s"] < 0:
        raise Failed("feed_is_live was never set")
    return Passed(f"live after {tap['live_s']:.2f} s", {"seconds": tap["live_s"]})


async def check_quotes(stage: Stage) -> Passed:
    """Quotes have what the contract asks for, and are of now."""
    await stage.feed()
    tap: dict[str, Any] = {}
    with trio.move_on_after(stage.patience.live_s):
        while not tap or (tap["quotes"] < ENOUGH_QUOTES and not tap["wrong"]):
            await trio.sleep(0.1)
            tap = await stage.subject.ask("tap")
    if tap["wrong"]:
        raise Failed("; ".join(tap["wrong"][:3]))
    if tap["refused"]:
        raise Failed(f"the engine refused {tap['refused']} of {tap['quotes']} quotes")
    kinds = {key.partition("/")[2] for key in tap["ticks"]}
    silent = [s for s in stage.symbols[:1] if f"{s}/trade" not in _plain(stage, tap)]
    if silent:
        raise Failed(f"no trade of {silent[0]}, which trades all the time")
    return Passed(
        f"{tap['quotes']} quotes with ticks of {', '.join(sorted(kinds))}",
        {"quotes": tap["quotes"]},
    )


def _plain(stage: Stage, tap: dict[str, dict[str, int]]) -> set[str]:
    return {key.replace(f".{stage.name}/", "/") for key in tap["ticks"]}


async def check_seconds(stage: Stage) -> Passed:
    """1 s rows are the venue's own candles, in every field."""
    await stage.feed()
    await stage.seconds(2)
    found = await stage.exact((1,))
    return Passed(
        f"{found.rows} rows with {found.trades} trades are the venue's",
        {"rows": found.rows, "trades": found.trades},
    )


async def check_minutes(stage: Stage) -> Passed:
    """60 s rows are the venue's own candles, the forming one too."""
    await stage.feed()
    found = await stage.exact((60,))
    for symbol in stage.symbols:
        problem = ""
        with trio.move_on_after(stage.patience.settle_s):
            while problem := _forming_differs(stage, symbol):  # noqa: ASYNC110
                await trio.sleep(0.01)
        if problem:
            raise Failed(f"{symbol} 60 s, the forming row: {problem}")
    rows = found.rows + len(stage.symbols)
    return Passed(f"{rows} rows are the venue's, the forming ones too", {"rows": rows})


def _forming_differs(stage: Stage, symbol: str) -> str:
    """In what the forming minute is not the venue's; trades are on their way."""
    bars = stage.rings.bars(symbol, 60)
    row = records(bars.snapshot(1))[0]
    time_s = row["time"]
    candle = stage.venue.candles(symbol, 60, time_s, time_s + 60)[-1]
    return difference(row, candle, stage.steps[symbol])


async def check_cut(stage: Stage) -> Passed:
    """A connection is cut, and the venue cannot be reached for a while."""
    await stage.feed()
    cut, refuse = stage.fault("cut"), stage.fault("refuse_connections")
    before = stage.rings.records()
    refuse()
    began_s = time.time()
    cut()
    await stage.until(
        stage.rings.down,
        "no status says that the connection is lost",
        stage.patience.notice_s,
    )
    heads = stage.rings.heads()
    await trio.sleep(OUTAGE_S)
    invented = [s for s, head in stage.rings.heads().items() if heads[s] != head]
    ended_s = time.time()
    refuse(False)
    if invented:
        raise Failed(f"rows of {invented[0]} are invented while the feed is down")
    await stage.repaired()
    _check_on_record(stage, before, began_s, ended_s)
    found = await stage.exact()
    return Passed(
        f"{OUTAGE_S:g} s lost, on record{_repaired(stage)}; {found.rows} rows exact"
    )


def _repaired(stage: Stage) -> str:
    return " and repaired" if stage.can_repair else ""


def _check_on_record(
    stage: Stage, before: dict[str, int], began_s: float, ended_s: float
) -> None:
    """Whether an outage is a gap record of every market."""
    for symbol in stage.rings.fed:
        new = stage.rings.gaps(symbol)[before[symbol] :]
        if not len(new):
            raise Failed(f"no gap of {symbol} is on record")
        start_s, end_s = new["start_ns"].min() / NS, new["end_ns"].max() / NS
        if start_s > began_s + EDGE_S or end_s < ended_s - EDGE_S:
            raise Failed(
                f"the gap of {symbol} on record begins {start_s - began_s:+.2f} s and "
                f"ends {end_s - ended_s:+.2f} s off the outage"
            )


async def check_close(stage: Stage) -> Passed:
    """The venue closes the connection."""
    return await _lose(stage, "close")


async def check_rotate(stage: Stage) -> Passed:
    """The connection ends as at the end of the life that the venue gives it."""
    return await _lose(stage, "rotate")


async def _lose(stage: Stage, fault: str) -> Passed:
    await stage.feed()
    await stage.lose(stage.fault(fault))
    await stage.repaired()
    found = await stage.exact()
    return Passed(f"connected again; {found.rows} rows exact")


async def check_shutdown(stage: Stage) -> Passed:
    """The venue announces that it will close the connection."""
    await stage.feed()
    shutdown = stage.fault("shutdown")
    before = stage.rings.recorded()
    shutdown(OUTAGE_S)
    await stage.seconds(int(OUTAGE_S) + 2)
    await stage.repaired()
    found = await stage.exact()
    gaps = stage.rings.recorded() - before
    lost = f"{gaps} gaps repaired" if gaps else "nothing lost meanwhile"
    return Passed(f"{lost}; {found.rows} rows exact", {"gaps": gaps})


async def check_half_open(stage: Stage) -> Passed:
    """A connection that says nothing any more, and does not end."""
    await stage.feed()
    half_open = stage.fault("half_open")
    before = stage.rings.records()
    began_s = time.time()
    half_open()
    await stage.until(
        stage.rings.down, "the silence is not noticed", stage.patience.notice_s
    )
    noticed_s = time.time() - began_s
    half_open(False)
    await stage.repaired()
    _check_on_record(stage, before, began_s, began_s + noticed_s)
    found = await stage.exact()
    return Passed(
        f"noticed after {noticed_s:.1f} s{_repaired(stage)}; {found.rows} rows exact",
        {"noticed_s": round(noticed_s, 2)},
    )


async def check_silent_acks(stage: Stage) -> Passed:
    """Subscriptions that are not answered are asked for again."""
    await stage.feed()
    silent, cut = stage.fault("silent_acks"), stage.fault("cut")
    connections = stage.counter("connections_ever")
    if connections is None:
        raise NotApplicable("the simulated venue does not count connections")
    silent()
    cut()
    await stage.until(
        lambda: (stage.counter("connections_ever") or 0) >= connections + 2,
        "a subscription without an answer is not tried again",
        stage.patience.notice_s,
    )
    if stage.rings.live():
        raise Failed("the markets are live though no subscription was answered")
    silent(False)
    await stage.repaired()
    found = await stage.exact()
    return Passed(f"tried again{_repaired(stage)}; {found.rows} rows exact")


async def check_restart(stage: Stage) -> Passed:
    """A feed goes on in the rings of the one before, and what was missed is fetched."""
    await stage.feed()
    await stage.close_feed()
    await trio.sleep(OUTAGE_S)
    await stage.feed()
    await stage.repaired()
    found = await stage.exact()
    gaps = stage.rings.recorded()
    if not gaps:
        raise Failed("the time without a feed is not on record")
    return Passed(f"the pause is on record{_repaired(stage)}; {found.rows} rows exact")
