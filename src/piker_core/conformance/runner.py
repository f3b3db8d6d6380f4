"""All checks of a provider: lanes side by side, one finding after another."""

from collections.abc import Callable, Collection, Sequence
from types import ModuleType

import trio

from piker_core.conformance.cases import LANES, STATIC, Case, Lane, chosen
from piker_core.conformance.process import Told
from piker_core.conformance.recording import Recording
from piker_core.conformance.replay import addresses
from piker_core.conformance.replays import TAKES, Outcome, Replays
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
from piker_core.conformance.stage import Patience, Stage, open_stage
from piker_core.conformance.venues import (
    exemptions,
    own_namespace,
    venue_name,
    why_no_orders,
)
from piker_core.errors import PikerError
from piker_core.tasks import single_error

CASE_S = 90.0
"""The longest that a check may take."""

LOG_LINES = 5
PATIENT = Patience()

Report = Callable[[Finding], None]


async def check_provider(
    provider: ModuleType,
    spec: str,
    report: Report,
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    patience: Patience = PATIENT,
) -> Summary:
    """Run the checks that are chosen, all by default, and report each when it is over.

    `spec` is the name by which the provider's own process finds it. Raises ValueError
    for a check that there is not. Cancellable; processes and rings do not stay.
    """
    wanted = chosen(only)
    findings = Findings(provider, spec, report)
    findings.check_static(wanted)
    blocked = _why_not(provider)
    exempt = {} if blocked else exemptions(provider)
    for name, reason in exempt.items():
        if name in wanted:
            findings.tell(name, NotApplicable(f"its venue says: {reason}"))
    wanted -= exempt.keys()
    no_orders = blocked or why_no_orders(provider)
    async with trio.open_nursery() as nursery:
        for lane in LANES:
            cases = [case for case in lane.cases if case.name in wanted]
            if reason := no_orders if lane.trades else blocked:
                for case in cases:
                    findings.tell(case.name, NotApplicable(reason))
            elif cases:
                nursery.start_soon(_run_lane, lane, cases, findings, seed, patience)
    for name in TAKES if only else ():
        if name in wanted:
            findings.tell(name, NotApplicable("it needs a recording: --frames"))
    return findings.summary()


async def check_recording(
    provider: ModuleType,
    spec: str,
    report: Report,
    recording: Recording,
    *,
    symbols: Sequence[str],
    only: Sequence[str] = (),
    seed: int = 0,
) -> Summary:
    """The same by a recording of some markets in place of a simulated venue.

    Raises PikerError for a provider to which it cannot be replayed.
    """
    wanted = chosen(only)
    findings = Findings(provider, spec, report)
    findings.check_static(wanted)
    addresses(provider, "", "")
    names = [name for name in TAKES if name in wanted]
    if names:
        replays = Replays(provider, spec, recording, symbols, seed)
        begun_s = trio.current_time()
        for name, outcome in (await replays.run(names)).items():
            findings.tell(name, outcome, trio.current_time() - begun_s)
    return findings.summary()


class Findings:
    """What is found of a provider, told as it comes."""

    def __init__(self, provider: ModuleType, spec: str, report: Report) -> None:
        self.provider, self.spec = provider, spec
        self._report = report
        self._findings: list[Finding] = []
        self._begun_s = trio.current_time()

    def tell(
        self,
        name: str,
        outcome: Outcome,
        seconds: float = 0.0,
        log: Sequence[str] = (),
    ) -> None:
        """A check is over."""
        seconds = round(seconds, 2)
        if isinstance(outcome, Passed):
            found = Finding(name, PASSED, outcome.text, seconds, outcome.figures)
        else:
            state = FAILED if isinstance(outcome, Failed) else NOT_APPLICABLE
            found = Finding(name, state, str(outcome), seconds, log=list(log))
        self._findings.append(found)
        self._report(found)

    def check_static(self, wanted: Collection[str]) -> None:
        """Make the checks that need no venue."""
        for name, check in STATIC.items():
            if name in wanted:
                try:
                    self.tell(name, check(self.provider))
                except (Failed, NotApplicable) as outcome:
                    self.tell(name, outcome)

    def summary(self) -> Summary:
        """All of it, counted."""
        name = str(getattr(self.provider, "name", self.spec))
        return summarize(name, self._findings, trio.current_time() - self._begun_s)


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


async def _run_lane(
    lane: Lane,
    cases: Collection[Case],
    findings: Findings,
    seed: int,
    patience: Patience,
) -> None:
    """Run the checks of a lane; after each that has failed on a new stage."""
    left = list(cases)
    namespace = own_namespace()
    while left:
        opened = False
        try:
            async with open_stage(
                findings.provider,
                findings.spec,
                namespace,
                patience=patience,
                seed=seed,
                lenient=lane.lenient,
                trades=lane.trades,
            ) as stage:
                opened = True
                await _run_cases(stage, left, findings)
        except Exception as error:  # noqa: BLE001 - it becomes a line of the report
            told = single_error(error) if isinstance(error, ExceptionGroup) else error
            text = str(told) if isinstance(told, PikerError) else repr(told)
            broke = f"the simulated venue broke: {text}"
            findings.tell(left.pop(0).name, Failed(broke))
            for case in left if not opened else ():
                findings.tell(case.name, NotApplicable(broke))
            left = left if opened else []


async def _run_cases(stage: Stage, left: list[Case], findings: Findings) -> None:
    """Run checks until one has failed; those that were run are taken from the list."""
    while left:
        begun_s = trio.current_time()
        outcome = await _run_case(stage, left[0])
        seconds = trio.current_time() - begun_s
        name = left.pop(0).name
        if isinstance(outcome, Failed):
            log = [line for line in stage.subject.log() if line.strip()]
            findings.tell(name, outcome, seconds, log[-LOG_LINES:])
            return
        findings.tell(name, outcome, seconds)


async def _run_case(stage: Stage, case: Case) -> Outcome:
    try:
        with trio.move_on_after(CASE_S):
            return await case.check(stage)
        return Failed(f"not over after {CASE_S:g} s")
    except (Failed, NotApplicable) as outcome:
        return outcome
    except Told as error:
        return Failed(f"the provider raises {error}")
