"""What is found: one line a check."""

from typing import Any

import msgspec

PASSED = "passed"
FAILED = "failed"
NOT_APPLICABLE = "not applicable"


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check.

    `figures` are what was measured on the way; `log` the provider's last words, where
    it has failed.
    """

    check: str
    state: str
    text: str
    seconds: float = 0.0
    figures: dict[str, Any] = {}
    log: list[str] = []


class Failed(Exception):
    """A check has failed; the text says in what."""


class NotApplicable(Exception):
    """A check cannot be made here; the text says why."""


class Passed(msgspec.Struct, frozen=True):
    """A check has passed; the text says what was seen."""

    text: str
    figures: dict[str, Any] = {}


class Summary(msgspec.Struct, frozen=True):
    """How many checks ended how."""

    provider: str
    passed: int
    failed: int
    not_applicable: int
    seconds: float


def summarize(provider: str, findings: list[Finding], seconds: float) -> Summary:
    """Count the findings."""
    states = [finding.state for finding in findings]
    return Summary(
        provider,
        states.count(PASSED),
        states.count(FAILED),
        states.count(NOT_APPLICABLE),
        round(seconds, 2),
    )
