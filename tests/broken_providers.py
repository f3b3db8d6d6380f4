"""Providers with one thing wrong each: the skeleton, changed in a few words."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from piker_core.conformance.skeleton import write_provider

Change = tuple[str, str, str]
"""A file of the package, words in it, and what takes their place."""


class Broken(NamedTuple):
    """What is changed, the check that has to find it, and in what words."""

    what: str
    check: str
    text: str
    changes: tuple[Change, ...]


def broken(what: str, check: str, text: str, *changes: Change | list[Change]) -> Broken:
    """A provider; `text` is a pattern."""
    flat = [c if isinstance(c, list) else [c] for c in changes]
    return Broken(what, check, text, tuple(change for part in flat for change in part))


def before(file: str, words: str, *lines: str, indent: int = 8) -> Change:
    """Lines that are put before words."""
    return (file, words, "".join(f"{' ' * indent}{line}\n" for line in lines) + words)


def a_method(*lines: str) -> Change:
    """The feed has a method more."""
    return before("feed.py", "    async def url(self)", *lines, "", indent=4)


def a_market(*lines: str) -> list[Change]:
    """The markets of the feed have methods of their own."""
    kind = before(
        "feed.py", "class Feed(VenueFeed):", *(f"    {x}" for x in lines), "", indent=0
    )
    return [
        (*kind[:2], "class OtherFeed(MarketFeed):\n" + kind[2]),
        ("feed.py", "market = MarketFeed(", "market = OtherFeed("),
    ]


def a_fault(line: str) -> Change:
    """The venue has a fault more."""
    return before("venue_socket.py", "    def throttle(self", line, "", indent=4)


def at_start(*lines: str) -> list[Change]:
    """Something is done before the stream begins; what is in KEPT stays."""
    words = "    async with get_client() as client:\n        feed = Feed("
    kept = before("feed.py", "class Feed(VenueFeed", "KEPT = []", "", "", indent=0)
    return [before("feed.py", words, *lines, indent=4), kept]


def of_rows(*lines: str) -> Change:
    """Something is done to the rows of history."""
    return before("history.py", "        begin, last = ", *lines)


def make_provider(name: str, folder: Path, changes: Iterable[Change]) -> None:
    """Write the skeleton with these changes, so that it can be imported."""
    write_provider(name, folder)
    root = folder / name
    for file, words, other in changes:
        path = root / name / file
        text = path.read_text()
        assert words in text, f"{file} has no {words!r}"
        path.write_text(text.replace(words, other, 1))
    sys.path.append(str(root))
