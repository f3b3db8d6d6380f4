"""All checks of a provider: lanes side by side, one finding after another."""

import itertools
import os
from collections.abc import Callable, Collection, Sequence
from types import ModuleType

import msgspec
import trio

from piker_core.conformance.cases import LANES, STATIC, Case, Lane, chosen
from piker_core.conformance.process import Told
from piker_core.conformance.report import (
    FAILED,
    NOT_APPLICABLE,
    PASSED,
    Failed,
    Finding,
    NotApplicable,
    Passed,
    Summary,
    summarize,
)
from piker_core.conformance.stage import Stage, open_stage
from piker_core.conformance.venues import venue_name
from piker_core.tasks import single_error

CASE_S = 90.0
"""The longest that a check may take."""

LOG_LINES = 5
_numbers = itertools.count()

Report = Callable[[Finding], None]
Outcome = Passed | Failed | NotApplicable


async def check_provider(
    provider: ModuleType,
    spec: str,
    report: Report,
    *,
    only: Sequence[str] = (),
    seed: int = 0,
) -> Summary:
    """Run the checks that are chosen, all by default, and report each when it is over.

    `spec` is the name by which the provider's own process finds it. Raises ValueError
    for a check that there is not. Cancellable; processes and rings do not stay.
    """
    wanted = chosen(only)
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        report(finding)

    begun_s = trio.current_time()
    for name, check in STATIC.items():
        if name in wanted:
            tell(_static(name, check, provider))
    blocked = _why_not(provider)
    async with trio.open_nursery() as nursery:
        for lane in LANES:
            cases = [case for case in lane.cases if case.name in wanted]
            if blocked:
                for case in cases:
                    tell(_finding(case.name, NotApplicable(blocked), 0.0))
            elif cases:
                nursery.start_soon(_run_lane, lane, cases, provider, spec, seed, tell)
    name = str(getattr(provider, "name", spec))
    return summarize(name, findings, trio.current_time() - begun_s)


def _why_not(provider: ModuleType) -> str:
    """Why a provider cannot be run, empty if it can."""
    if not hasattr(provider, "stream_quotes") or not hasattr(provider, "name"):
        return "it has no name or no stream_quotes"
    if not venue_name(provider):
        return (
            f"it has no simulated venue: a module {provider.__name__}.venue with "
            "open_venue (piker_core.simulation.venue), or a recording for --frames"
        )
    return ""


def _static(
    name: str, check: Callable[[ModuleType], Passed], provider: ModuleType
) -> Finding:
    outcome: Outcome
    try:
        outcome = check(provider)
    except (Failed, NotApplicable) as problem:
        outcome = problem
    return _finding(name, outcome, 0.0)


def _finding(name: str, outcome: Outcome, seconds: float) -> Finding:
    if isinstance(outcome, Passed):
        return Finding(name, PASSED, outcome.text, seconds, outcome.figures)
    state = FAILED if isinstance(outcome, Failed) else NOT_APPLICABLE
    return Finding(name, state, str(outcome), seconds)


async def _run_lane(
    lane: Lane,
    cases: Collection[Case],
    provider: ModuleType,
    spec: str,
    seed: int,
    tell: Report,
) -> None:
    """Run the checks of a lane; after each that has failed on a new stage."""
    left = list(cases)
    namespace = f"check{os.getpid()}x{next(_numbers)}"
    while left:
        try:
            async with open_stage(
                provider, spec, namespace, seed=seed, lenient=lane.lenient
            ) as stage:
                await _run_cases(stage, left, tell)
        except Exception as error:  # noqa: BLE001 - it becomes a line of the report
            told = single_error(error) if isinstance(error, ExceptionGroup) else error
            text = f"the simulated venue or its provider broke: {told!r}"
            tell(_finding(left.pop(0).name, Failed(text), 0.0))


async def _run_cases(stage: Stage, left: list[Case], tell: Report) -> None:
    """Run checks until one has failed; those that were run are taken from the list."""
    while left:
        begun_s = trio.current_time()
        outcome = await _run_case(stage, left[0])
        seconds = round(trio.current_time() - begun_s, 2)
        finding = _finding(left.pop(0).name, outcome, seconds)
        if isinstance(outcome, Failed):
            log = [line for line in stage.subject.log() if line.strip()]
            tell(msgspec.structs.replace(finding, log=log[-LOG_LINES:]))
            return
        tell(finding)


async def _run_case(stage: Stage, case: Case) -> Outcome:
    try:
        with trio.move_on_after(CASE_S):
            return await case.check(stage)
        return Failed(f"not over after {CASE_S:g} s")
    except (Failed, NotApplicable) as outcome:
        return outcome
    except Told as error:
        return Failed(f"the provider raises {error}")
