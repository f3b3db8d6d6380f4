"""The conformance kit finds what is wrong: each check against a provider that fails it.

All of the providers are run side by side, when the first test wants to know.
"""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import trio

from piker_core.conformance import cases
from piker_core.conformance.replays import TAKES
from piker_core.conformance.report import FAILED, Finding
from piker_core.conformance.runner import check_provider
from piker_core.conformance.stage import Patience
from tests.broken_calls import CALLS, CONTRACT, HISTORY
from tests.broken_feeds import ENDS, FEED, FRAMES, LOSSES
from tests.broken_providers import Broken, make_provider

AT_ONCE = 8
BROKEN = (*CONTRACT, *HISTORY, *CALLS, *FEED, *LOSSES, *FRAMES, *ENDS)
IMPATIENT = Patience(live_s=6.0, notice_s=5.0, repair_s=4.0, settle_s=3.0)
"""What a provider never does is waited for no longer than that."""
Found = dict[str, list[Finding]]


def name_of(broken: Broken) -> str:
    return f"broken{BROKEN.index(broken)}"


@pytest.fixture(scope="module")
def findings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    """What the check that is to find it says of each provider of the tests chosen."""
    chosen = [
        item.callspec.params["broken"]
        for item in request.session.items
        if "findings" in getattr(item, "fixturenames", ())
        and item.path == Path(__file__)
    ]
    folder = tmp_path_factory.mktemp("broken")
    before = list(sys.path)
    patch = pytest.MonkeyPatch()
    patch.setattr("piker_core.conformance.venues.LIVE_RATE", 80.0)
    try:
        for broken in chosen:
            make_provider(name_of(broken), folder, broken.changes)
        yield trio.run(run_all, chosen)
    finally:
        patch.undo()
        sys.path[:] = before


async def run_all(chosen: list[Broken]) -> Found:
    found: Found = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def run(broken: Broken) -> None:
        name = name_of(broken)
        found[name] = []
        async with limit:
            await check_provider(
                import_module(name),
                name,
                found[name].append,
                only=[broken.check],
                patience=IMPATIENT,
            )

    async with trio.open_nursery() as nursery:
        for broken in chosen:
            nursery.start_soon(run, broken)
    return found


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.what)
def test_a_check_finds_what_is_wrong(broken: Broken, findings: Found) -> None:
    (finding,) = findings[name_of(broken)]
    assert finding.check == broken.check
    assert finding.state == FAILED, finding.text
    assert re.search(broken.text, finding.text), finding.text


def test_every_check_is_shown_to_fail() -> None:
    """Those of orders in test_conformance_orders."""
    shown = {broken.check for broken in BROKEN}
    by_itself = {"shutdown.segments", *TAKES}  # test_conformance_parts, _replay
    of_orders = {name for name in cases.names() if name.startswith("broker.")}
    assert shown | by_itself | of_orders == set(cases.names())
