"""The paper engine tells which orders' states have changed: no others have."""

from typing import Any

from hypothesis import given, settings

from piker_core.ems.paper.engine import PaperConfig
from tests.test_ems_paper_rules import MS, Event, Run, configs, scripts


class Keeper:
    """Keeps states as a gateway does: those that are told to have changed."""

    def __init__(self, run: Run) -> None:
        self._engine = run.engine
        self._kept: dict[str, dict[str, Any]] = {}

    def keep(self) -> int:
        changed = self._engine.take_changed()
        for reqid in changed:
            self._kept[reqid] = self._engine.state(reqid)
        for order in self._engine.orders():
            assert self._kept[order.reqid] == self._engine.state(order.reqid)
        assert self._engine.take_changed() == set()
        return len(changed)


@settings(deadline=None, max_examples=200)
@given(scripts, configs)
def test_what_is_not_told_to_have_changed_is_as_it_was(
    script: list[Event], config: PaperConfig
) -> None:
    run = Run(config)
    keeper = Keeper(run)
    for event in script:
        run.now_ns += event.wait * MS
        if event.what in ("bid", "ask", "trade"):
            run.add_tick(event)
            run.feed()
        else:
            run.do(event)
        keeper.keep()


def test_orders_that_a_tick_does_not_reach_are_not_told() -> None:
    run = Run(PaperConfig())
    keeper = Keeper(run)
    for number in range(50):
        run.do(Event("buy", 0, 0, -number - 10, 1, f"far{number}"))
    run.do(Event("buy", 0, 0, 0, 1, "near"))
    assert keeper.keep() == 51
    run.now_ns += MS
    for what, offset in (("ask", 2), ("bid", 0), ("trade", 1)):
        run.add_tick(Event(what, 0, 0, offset, 3))
    run.feed()
    assert keeper.keep() == 1
