"""The end of a feed: how soon it comes, and what is left."""

import trio

from piker_core.conformance.report import Failed, Passed
from piker_core.conformance.resources import Resources, differences, leaked
from piker_core.conformance.stage import Stage
from piker_core.segments import list_segments

GRACE_S = 3.0
SETTLED_S = 3.0
"""The far ends of connections close a little later."""
MEMORY_BYTES = 64 << 20
LAG_S = 2.0


async def check_resources(stage: Stage) -> Passed:
    """What the run has used: memory, processor, descriptors, the event loop."""
    await stage.feed()
    now = await stage.resources()
    used = differences(stage.at_first, now)
    grown = used["memory_growth"] / (1 << 20)
    text = (
        f"memory {grown:+.1f} MiB in {used['wall_s']:.0f} s, processor "
        f"{used['cpu_share']:.1%}, {used['descriptors']} descriptors, the loop held "
        f"for {used['lag_s'] * 1e3:.0f} ms at most"
    )
    if used["memory_growth"] > MEMORY_BYTES:
        raise Failed(f"{text}: more than {MEMORY_BYTES >> 20} MiB")
    if used["lag_s"] > LAG_S:
        raise Failed(f"{text}: nothing else runs for so long")
    return Passed(text, used)


async def check_cancellation(stage: Stage) -> Passed:
    """A feed that is cancelled ends soon."""
    await stage.feed()
    closed = await stage.close_feed()
    if closed["trouble"]:
        raise Failed(f"the feed had ended before: {closed['trouble']}")
    if closed["seconds"] > GRACE_S:
        raise Failed(f"it took {closed['seconds']:.1f} s, allowed are {GRACE_S:g}")
    return Passed(f"ended within {closed['seconds'] * 1e3:.0f} ms", closed)


async def check_leaks(stage: Stage) -> Passed:
    """Nothing stays open: descriptors, threads, tasks, mappings."""
    await _closed(stage)
    with trio.move_on_after(SETTLED_S):
        while leaked(stage.at_first, await stage.resources()):  # noqa: ASYNC110
            await trio.sleep(0.1)
    now: Resources = await stage.resources()
    left = leaked(stage.at_first, now)
    if left:
        text = "; ".join(f"{kind}: {', '.join(what)}" for kind, what in left.items())
        raise Failed(f"left open: {text}")
    return Passed(
        f"{len(now.descriptors)} descriptors, {len(now.threads)} threads and "
        f"{len(now.tasks)} tasks, as before"
    )


async def check_segments(stage: Stage) -> Passed:
    """The rings are closed cleanly: a next writer can go on."""
    await _closed(stage)
    rings = list_segments(stage.namespace)
    if not rings:
        raise Failed("no ring is left: there is nothing to go on with")
    for ring in rings:
        if ring.writer_alive:
            raise Failed(f"{ring.fqme or ring.provider} has a writer still")
        if ring.kind == "bars" and ring.status != "stopped":
            raise Failed(f"{ring.fqme} {ring.period} s is {ring.status}, not stopped")
    return Passed(f"{len(rings)} rings are stopped, without a writer")


async def _closed(stage: Stage) -> None:
    """The feed was open once, and is not any more."""
    if not stage.was_open:
        await stage.feed()
    if stage.opening:
        await stage.close_feed()
