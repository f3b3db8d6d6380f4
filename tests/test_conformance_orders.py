"""The conformance kit finds what is wrong with a broker: each check fails for one.

All of them are run side by side, when the first test wants to know.
"""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import trio

from piker_core.conformance.cases import names
from piker_core.conformance.report import FAILED, NOT_APPLICABLE, Finding
from piker_core.conformance.runner import check_provider
from piker_core.conformance.venues import why_no_orders
from tests.broken_brokers import BROKEN, BrokenBroker, make_broker

AT_ONCE = 6
Found = dict[str, list[Finding]]


def name_of(broker: BrokenBroker) -> str:
    return f"brokenbroker{BROKEN.index(broker)}"


@pytest.fixture(scope="module")
def findings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    """What the check that is to find it says of each broker of the tests chosen."""
    chosen = [
        item.callspec.params["broker"]
        for item in request.session.items
        if "findings" in getattr(item, "fixturenames", ())
        and item.path == Path(__file__)
    ]
    folder = tmp_path_factory.mktemp("brokers")
    before = list(sys.path)
    patch = pytest.MonkeyPatch()
    patch.setattr("piker_core.conformance.venues.LIVE_RATE", 80.0)
    patch.setattr("piker_core.conformance.trader.WITHIN_S", 5.0)
    try:
        for broker in chosen:
            make_broker(name_of(broker), folder, broker)
        yield trio.run(run_all, chosen)
    finally:
        patch.undo()
        sys.path[:] = before


async def run_all(chosen: list[BrokenBroker]) -> Found:
    found: Found = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def run(broker: BrokenBroker) -> None:
        name = name_of(broker)
        found[name] = []
        async with limit:
            module = import_module(name)
            await check_provider(module, name, found[name].append, only=[broker.check])

    async with trio.open_nursery() as nursery:
        for broker in chosen:
            nursery.start_soon(run, broker)
    return found


@pytest.mark.parametrize("broker", BROKEN, ids=lambda broker: broker.what)
def test_a_check_finds_what_is_wrong(broker: BrokenBroker, findings: Found) -> None:
    (finding,) = findings[name_of(broker)]
    assert finding.check == broker.check
    assert finding.state == FAILED, finding.text
    assert re.search(broker.text, finding.text), finding.text


def test_every_check_of_orders_is_shown_to_fail() -> None:
    checks = {name for name in names() if name.startswith("broker.")}
    assert {broker.check for broker in BROKEN} == checks


def test_a_provider_without_orders_passes_none_of_them_and_says_why() -> None:
    found: list[Finding] = []
    quiet = ModuleType("quiet")
    quiet.name = "quiet"  # type: ignore[attr-defined]
    quiet.stream_quotes = None  # type: ignore[attr-defined]
    trio.run(lambda: check_provider(quiet, "quiet", found.append, only=["broker"]))
    assert {finding.state for finding in found} == {NOT_APPLICABLE}
    assert "it takes no orders" in why_no_orders(quiet)
