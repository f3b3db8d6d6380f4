"""Which checks there are, and in which lane.

A lane is a venue and a provider of its own; lanes run side by side, the checks of one
after another. A lane whose check has failed begins anew, with another venue. Losses of
connections are spread over lanes: providers wait the longer the more of them there are.
"""

from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType

import msgspec

from piker_core.conformance import (
    broker_contract,
    broker_ems,
    broker_faults,
    broker_orders,
    broker_reports,
    calls,
    contract,
    frames,
    history,
    links,
    shutdown,
)
from piker_core.conformance.replays import TAKES
from piker_core.conformance.report import Passed
from piker_core.conformance.stage import Stage

Check = Callable[[Stage], Awaitable[Passed]]


class Case(msgspec.Struct, frozen=True):
    """A check by its name."""

    name: str
    check: Check


class Lane(msgspec.Struct, frozen=True):
    """Checks that share a venue.

    Without `lenient` the venue keeps its own limits; with `trades` there are keys to
    its private side.
    """

    cases: tuple[Case, ...]
    lenient: bool = True
    trades: bool = False


STATIC: dict[str, Callable[[ModuleType], Passed]] = {
    "contract.names": contract.check_names,
    "contract.signatures": contract.check_signatures,
    "contract.capabilities": contract.check_capabilities,
    "broker.contract": broker_contract.check_contract,
}
"""Checks that need no venue."""

LANES = (
    Lane(
        (
            Case("contract.markets", calls.check_market),
            Case("contract.search", calls.check_search),
            Case("refusal.unknown", calls.check_unknown),
            Case("history.minutes", history.check_minutes),
            Case("history.seconds", history.check_seconds),
            Case("history.span", history.check_span),
            Case("history.empty", history.check_empty),
            Case("calls.throttled", calls.check_throttle),
            Case("calls.html", calls.check_html),
            Case("calls.unavailable", calls.check_unavailable),
            Case("calls.skewed_clock", calls.check_skew),
            Case("reconnect.silent_acks", links.check_silent_acks),
            Case("reconnect.half_open", links.check_half_open),
        ),
    ),
    Lane((Case("history.limits", history.check_limits),), lenient=False),
    Lane(
        (
            Case("feed.first_quotes", links.check_first_quotes),
            Case("feed.live", links.check_live),
            Case("feed.quotes", links.check_quotes),
            Case("exact.seconds", links.check_seconds),
            Case("exact.minutes", links.check_minutes),
            Case("reconnect.cut", links.check_cut),
            Case("reconnect.closed", links.check_close),
            Case("reconnect.rotation", links.check_rotate),
            Case("reconnect.shutdown", links.check_shutdown),
            Case("reconnect.restart", links.check_restart),
            Case("storm.all", frames.check_storm),
        ),
    ),
    Lane(
        (
            Case("frames.repeated", frames.check_duplicates),
            Case("frames.disordered", frames.check_disorder),
            Case("frames.lost", frames.check_drop),
            Case("frames.malformed", frames.check_malformed),
            Case("frames.counted", frames.check_counted),
            Case("repair.patient", frames.check_patient_repair),
            Case("repair.troubled", frames.check_troubled_repair),
            Case("venue.maintenance", frames.check_maintenance),
            Case("shutdown.resources", shutdown.check_resources),
            Case("shutdown.cancellation", shutdown.check_cancellation),
            Case("shutdown.leaks", shutdown.check_leaks),
            Case("shutdown.segments", shutdown.check_segments),
            Case("refusal.market", frames.check_refused_market),
        ),
    ),
    Lane(
        (
            Case("broker.keys", broker_contract.check_keys),
            Case("broker.place", broker_orders.check_place),
            Case("broker.fill", broker_orders.check_fill),
            Case("broker.partial", broker_orders.check_partial),
            Case("broker.amend", broker_orders.check_amend),
            Case("broker.cancel", broker_orders.check_cancel),
            Case("broker.refused", broker_orders.check_refused),
            Case("broker.cancel_all", broker_orders.check_cancel_all),
            Case("broker.positions", broker_orders.check_positions),
            Case("broker.norm_trade", broker_contract.check_norm_trade),
            Case("broker.secrets", broker_contract.check_secrets),
            Case("broker.shutdown", broker_contract.check_shutdown),
        ),
        trades=True,
    ),
    Lane(
        (
            Case("broker.reports", broker_reports.check_reports),
            Case("broker.lost_answer", broker_faults.check_lost_answer),
        ),
        trades=True,
    ),
    Lane(
        (
            Case("broker.cut_request", broker_faults.check_cut_request),
            Case("broker.cut", broker_faults.check_cut),
        ),
        trades=True,
    ),
    Lane(
        (Case("broker.limits", broker_faults.check_limits),),
        lenient=False,
        trades=True,
    ),
    Lane(
        (
            Case("broker.run", broker_ems.check_run),
            Case("broker.end", broker_ems.check_end),
        ),
        trades=True,
    ),
)


def names() -> list[str]:
    """The names of all checks, in the order of the report."""
    by_venue = (case.name for lane in LANES for case in lane.cases)
    return [*STATIC, *by_venue, *TAKES]


def chosen(only: Sequence[str]) -> set[str]:
    """The checks that are named, by their names or the words before the dot.

    All without any. Raises ValueError for a name that there is not.
    """
    known = names()
    if not only:
        return set(known)
    found: set[str] = set()
    for word in only:
        those = {name for name in known if word in (name, name.partition(".")[0])}
        if not those:
            raise ValueError(f"no check {word!r}; there are {', '.join(known)}")
        found |= those
    return found
