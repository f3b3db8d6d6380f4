"""`check`: is a provider what the contract says; `new-provider`: one to begin with."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import msgspec
import trio

from piker_core.cli.failures import OK, VENUE
from piker_core.cli.output import Output
from piker_core.conformance.recording import read_recording
from piker_core.conformance.report import FAILED, Finding, Summary
from piker_core.conformance.runner import check_provider, check_recording
from piker_core.conformance.skeleton import write_provider
from piker_core.errors import PikerError
from piker_core.provider import find_provider


def run_check(
    out: Output,
    name: str,
    *,
    only: Sequence[str],
    seed: int,
    frames: Sequence[Path],
    markets: Sequence[str],
) -> int:
    """Print each finding as it comes, then the summary; the exit code.

    With `frames`, files of a recorded session, by them in place of a simulated venue.
    """
    report = partial(print_finding, out)
    provider = import_provider(name)
    check = partial(check_provider, provider, name, report, only=only, seed=seed)
    if frames:
        check = partial(
            check_recording,
            provider,
            name,
            report,
            read_recording(frames),
            symbols=markets,
            only=only,
            seed=seed,
        )
    summary = trio.run(check)
    print_summary(out, summary)
    return VENUE if summary.failed else OK


def import_provider(name: str) -> ModuleType:
    """The provider's package, found in the folder of the caller, too.

    Raises NotFound, and PikerError for one that cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return find_provider(name)
    except PikerError:
        raise
    except Exception as error:
        text = f"provider {name} cannot be imported: {error!r}"
        raise PikerError(text) from error


def print_finding(out: Output, finding: Finding) -> None:
    """One line, or one object."""
    if out.json:
        out.record("check", **msgspec.to_builtins(finding))
        return
    out.line(f"{finding.state:14}  {finding.check:22}  {finding.text}")
    for line in finding.log:
        out.line(f"{'':40}| {line}")


def print_summary(out: Output, summary: Summary) -> None:
    """The last line, or object."""
    if out.json:
        out.record("summary", **msgspec.to_builtins(summary))
        return
    out.line(
        f"{summary.provider}: {summary.passed} passed, {summary.failed} {FAILED}, "
        f"{summary.not_applicable} not applicable, in {summary.seconds:.1f} s"
    )


def make_provider(out: Output, name: str, *, folder: Path) -> None:
    """Write a provider to begin with, and say what to do next."""
    written = write_provider(name, folder)
    if out.json:
        for path in written:
            out.record("file", path=str(path))
        return
    for path in written:
        out.line(str(path))
    out.note(f"next: cd {folder / name} && piker-core check {name}")
