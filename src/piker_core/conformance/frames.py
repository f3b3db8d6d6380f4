"""Messages that are lost, repeated, disordered or broken, and what else goes on."""

import contextlib
import time
from collections.abc import Mapping

import trio

from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage

RATE = 0.25
ENOUGH = 6
"""How often a fault of messages is to happen."""
LONGEST_S = 6.0
RATES = {
    "duplicate": "frames.repeated",
    "disorder": "frames.disordered",
    "drop": "frames.lost",
    "malformed": "frames.malformed",
}
"""Faults of messages, and the checks that are about them."""
STORM_RATE = 0.1
STORM_S = 1.5
SLOW_S = 2.0
CLOSED_S = 2.5
COUNTERS = ("malformed", "unknown", "refused", "failed")
NONSENSE: tuple[bytes, ...] = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b'{"a":1}',
    b"\x00\xff\xfe",
    b"<html><body>502 Bad Gateway</body></html>",
    b"[" * 2000,
    b'{"channel":1,"type":2,"event":3,"e":4,"stream":5,"data":6}',
    b"1" * 5000,
)
"""Messages that no protocol has."""


async def check_duplicates(stage: Stage) -> Passed:
    """Messages that come twice count once."""
    times = await _disturb(stage, "duplicate")
    found = await stage.exact()
    return Passed(f"{times} messages twice; {found.rows} rows exact")


async def check_disorder(stage: Stage) -> Passed:
    """Messages that come after later ones."""
    times = await _disturb(stage, "disorder")
    await stage.repaired()
    found = await stage.exact()
    return Passed(f"{times} messages late; {found.rows} rows exact")


async def check_drop(stage: Stage) -> Passed:
    """Messages that are lost are noticed, put on record and made good."""
    await stage.feed()
    before = stage.rings.recorded()
    times = await _disturb(stage, "drop")
    await stage.until(
        lambda: stage.rings.recorded() > before,
        "lost messages are not on record",
        stage.patience.notice_s,
    )
    await stage.repaired()
    found = await stage.exact()
    gaps = stage.rings.recorded() - before
    return Passed(
        f"{times} messages lost, {gaps} gaps on record; {found.rows} rows exact",
        {"gaps": gaps},
    )


async def _disturb(stage: Stage, fault: str) -> str:
    """Have a fault of messages happen often enough; how often it did."""
    await stage.feed()
    switch = stage.fault(fault)
    before = stage.done(fault)
    switch(RATE)
    try:
        if before is None:
            await trio.sleep(LONGEST_S / 2)
            return "some"
        with trio.move_on_after(LONGEST_S):
            while (stage.done(fault) or 0) - before < ENOUGH:  # noqa: ASYNC110
                await trio.sleep(0.02)
        times = (stage.done(fault) or 0) - before
    finally:
        switch(0.0)
    if not times:
        raise NotApplicable(f"{fault!r} did not happen once: too few messages")
    return str(times)


async def check_malformed(stage: Stage) -> Passed:
    """Broken messages: nothing dies, and the rows stay exact."""
    await stage.feed()
    malformed = stage.fault("malformed")
    names = list(getattr(stage.venue.faults, "broken", ()))
    before = stage.counter("connections_ever")
    for broken in (names, list(NONSENSE)):
        malformed(broken)
        await trio.sleep(0.3)
        stopped = [
            s for s in stage.rings.fed if stage.rings.bars(s).status == "stopped"
        ]
        if stopped:
            raise Failed(f"{stopped[0]} is stopped by a broken message")
    malformed(RATE)
    await stage.seconds(1)
    malformed(0.0)
    await stage.repaired()
    found = await stage.exact()
    again = (stage.counter("connections_ever") or 0) - (before or 0)
    lost = f", {again} new connections" if before is not None and again else ""
    sent = len(names) + len(NONSENSE)
    return Passed(f"{sent} broken messages and more{lost}; {found.rows} rows exact")


async def check_counted(stage: Stage) -> Passed:
    """What is not understood is counted."""
    await stage.feed()
    malformed = stage.fault("malformed")
    before = await _counted(stage)
    names = list(getattr(stage.venue.faults, "broken", ())) or list(NONSENSE)
    malformed(names)
    counted = 0
    with trio.move_on_after(stage.patience.notice_s):
        while not (counted := await _counted(stage) - before):  # noqa: ASYNC110
            await trio.sleep(0.1)
        await trio.sleep(1.0)  # bogus ids are found missing a little later
        counted = await _counted(stage) - before
    await stage.repaired()
    if counted <= 0:
        raise Failed(f"none of {len(names)} broken messages is counted")
    return Passed(f"{counted} counted of {len(names)}", {"counted": counted})


async def _counted(stage: Stage) -> int:
    counters: Mapping[str, int] = await stage.counters()
    return sum(int(counters.get(name, 0)) for name in COUNTERS)


async def check_storm(stage: Stage) -> Passed:
    """All faults of messages at once, and connections that are cut meanwhile."""
    await stage.feed()
    rates = []
    for name, check in RATES.items():
        with contextlib.suppress(NotApplicable):
            if check not in stage.exempt:
                rates.append(stage.fault(name))
    if not rates:
        raise NotApplicable("the simulated venue has no faults of messages")
    cut = stage.fault("cut")
    try:
        for rate in rates:
            rate(STORM_RATE)
        for _ in range(2):
            await trio.sleep(STORM_S)
            cut()
        await trio.sleep(STORM_S)
    finally:
        for rate in rates:
            rate(0.0)
    await stage.repaired()
    found = await stage.exact()
    gaps = stage.rings.recorded()
    return Passed(
        f"{len(rates)} faults and 2 cuts, {gaps} gaps on record; {found.rows} rows "
        "exact",
        {"gaps": gaps},
    )


async def check_patient_repair(stage: Stage) -> Passed:
    """Live rows are not held up by a repair that takes its time."""
    await stage.feed()
    if not stage.can_repair:
        raise NotApplicable("it says that it cannot repair")
    slow, cut = stage.fault("slow_rest"), stage.fault("cut")
    before = stage.rings.recorded()
    slow(SLOW_S)
    try:
        cut()
        await stage.until(
            lambda: stage.rings.recorded() > before,
            "the loss is not on record while calls are slow",
            stage.patience.notice_s,
        )
        await stage.until(
            stage.rings.live, "the markets are not live again", stage.patience.live_s
        )
        if not stage.rings.open_gaps():
            raise Failed("the markets were not live before the repair was over")
        await stage.seconds(1)
    finally:
        slow(0.0)
    await stage.repaired()
    found = await stage.exact()
    return Passed(f"live while gaps were open; {found.rows} rows exact")


async def check_troubled_repair(stage: Stage) -> Passed:
    """A repair that is throttled and fails is tried again."""
    await stage.feed()
    if not stage.can_repair:
        raise NotApplicable("it says that it cannot repair")
    cut = stage.fault("cut")
    await stage.quiet()
    faults = []
    for name in ("throttle", "html", "unavailable"):
        with contextlib.suppress(NotApplicable):
            stage.fault(name)(1)
            faults.append(name)
    if not faults:
        raise NotApplicable("the simulated venue has no faults of calls")
    await stage.lose(cut)
    await stage.repaired()
    found = await stage.exact()
    return Passed(f"{', '.join(faults)} in its way; {found.rows} rows exact")


async def check_maintenance(stage: Stage) -> Passed:
    """While the venue does not trade the markets are closed, without rows."""
    await stage.feed()
    maintenance = stage.fault("maintenance")
    began_s = time.time()
    maintenance(CLOSED_S)
    await stage.until(
        stage.rings.down,
        "the markets stay live in maintenance",
        stage.patience.notice_s,
    )
    statuses = set(stage.rings.statuses())
    await stage.until(
        stage.rings.live,
        "the markets are not live after maintenance",
        stage.patience.live_s,
    )
    stage.closed.append((began_s, time.time()))
    await stage.seconds(1)
    await stage.repaired()
    found = await stage.exact()
    shown = ", ".join(sorted(statuses))
    return Passed(f"{shown} meanwhile; {found.rows} rows exact")


async def check_refused_market(stage: Stage) -> Passed:
    """A market that the venue refuses stops, and leaves the others alone."""
    if len(stage.symbols) < 2:
        raise NotApplicable("the simulated venue has one market only")
    await stage.feed()
    refuse, cut = stage.fault("refuse_symbol"), stage.fault("cut")
    outcast = stage.symbols[-1]
    refuse(stage.markets[outcast]["venue_symbol"])
    await stage.lose(cut)
    bars = stage.rings.bars(outcast)
    await stage.until(
        lambda: bars.status == "stopped" or not bars.gaps()["repaired"].all(),
        f"{outcast}, which is refused, is not stopped and has no gap on record",
        stage.patience.notice_s,
    )
    stage.rings.fed.remove(outcast)
    await stage.repaired()
    found = await stage.exact()
    if bars.status != "stopped" and bars.gaps()["repaired"].all():
        raise Failed(f"{outcast}, which is refused, has no gap on record any more")
    others = ", ".join(stage.rings.fed)
    return Passed(
        f"{outcast} is {bars.status} with what it lost on record, {others} go on; "
        f"{found.rows} rows exact"
    )
