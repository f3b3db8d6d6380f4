"""The conformance kit finds what is wrong with a broker: each check fails for one.

All of them are run side by side, when the first test wants to know.
"""

import logging
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from piker_core.conformance.cases import names
from piker_core.conformance.report import FAILED, NOT_APPLICABLE, Finding
from piker_core.conformance.runner import check_provider
from piker_core.conformance.secrets import SecretWatch
from piker_core.conformance.trading import Heard
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


# The pieces


def test_a_secret_is_seen_in_a_log_and_its_arguments_and_not_told() -> None:
    watch = SecretWatch()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    watch.begin(["hush", ""])
    try:
        log = logging.getLogger("some.room")
        log.debug("all is well")
        assert (watch.lines, watch.seen) == (1, [])
        log.debug("the key is %s", "hush")
        log.debug("the request is %.3s", "xxx hush")
        watch.look("hush-hush", "a repr")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    where = "the log of some.room, level DEBUG"
    assert watch.seen == [where, where, "a repr"]


async def test_what_was_said_is_waited_for_and_can_be_read_again() -> None:
    heard = Heard()
    assert await heard.after(0, 0.0) == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heard.after, 0, 10.0)
        await trio.testing.wait_all_tasks_blocked()
        heard.add("one")
    heard.add("two")
    assert await heard.after(0, 10.0) == ["one", "two"]
    assert await heard.after(1, 10.0) == ["two"]


def test_a_venue_without_a_private_side_is_said_to_have_none() -> None:
    some = ModuleType("nowhere.some")
    some.open_trade_dialog = None  # type: ignore[attr-defined]
    assert "nowhere.some.venue_trading with open_private" in why_no_orders(some)
    assert why_no_orders(import_module("providers.kraken")) == ""


def test_a_provider_without_orders_passes_none_of_them_and_says_why() -> None:
    found: list[Finding] = []
    quiet = ModuleType("quiet")
    quiet.name = "quiet"  # type: ignore[attr-defined]
    quiet.stream_quotes = None  # type: ignore[attr-defined]
    trio.run(lambda: check_provider(quiet, "quiet", found.append, only=["broker"]))
    assert {finding.state for finding in found} == {NOT_APPLICABLE}
    assert "it takes no orders" in why_no_orders(quiet)
