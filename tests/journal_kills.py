"""Kills writers of journals, at random moments and at every call of the system.

    python -m tests.journal_kills --kills 200 [--seed N]      at random moments
    python -m tests.journal_kills --calls [PART...]           at each call, one by one

PART is how much of what a call was to write is written: 0, half and all by default.

A writer numbers its records, flushes now and then and notes what it was promised. After
a kill the journal must have every number once, in order, from 0 to at least that one;
the next writer goes on behind what is there. Prints a JSON line; exits with 1 if a
promise was broken.
"""

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from piker_core.journal import Cut, JournalWriter, Kind, open_journal, read_journal
from tests.journal_making import frame, segments

SMALL: dict[str, Any] = {"segment_bytes": 6000, "block_bytes": 600, "fsync": "block"}
LONGEST_S = 0.025
A_FOLDER = 40
EVERY = 7
A_WRITER = 20
PARTS = (0.0, 0.5, 1.0)
CALLS = ("open", "pwrite", "ftruncate", "fdatasync", "fsync", "close")


def numbers(folder: Path) -> tuple[list[int], Cut | None]:
    """Numbers of the records that a journal has, and where it is cut."""
    found = []
    with read_journal(folder) as reader:
        for each in reader:
            if each.kind == Kind.RECEIVED:
                found.append(json.loads(each.body)["number"])
    return found, reader.cut


class Progress:
    """What a writer in another process was promised."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        """So many records are in the file, or were."""
        return int(struct.unpack("<q", self._shared[:8])[0])

    @count.setter
    def count(self, count: int) -> None:
        self._shared[:8] = struct.pack("<q", count)


def append(journal: JournalWriter, number: int, progress: Progress) -> None:
    """One record, and now and then the promise that all are in the file."""
    each = frame(number, size=20 + number * 37 % 300)
    journal.append(each.kind, each.time_ns, each.body, each.source)
    if number % EVERY == 0:
        journal.flush(wait=True)
        progress.count = number + 1


def forked(work: Callable[[], None]) -> int:
    """Do it in a child; its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(3)


def killed(child: int) -> bool:
    """Whether a child that has ended was killed; it may not have failed."""
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def check(folder: Path, promised: int, ways: Counter[str]) -> int:
    """The journal has what was promised, each once; how many records it has."""
    if not segments(folder):
        assert not promised
        return 0
    found, cut = numbers(folder)
    assert found == list(range(len(found))), "records are missing or twice"
    assert len(found) >= promised, (len(found), promised)
    ways["cut" if cut else "whole"] += 1
    return len(found)


def write_for_ever(folder: Path, progress: Progress, begin: int) -> NoReturn:
    """Records from a number on."""
    with open_journal(folder, **SMALL) as journal:
        number = begin
        while True:
            append(journal, number, progress)
            number += 1


def kill_some(kills: int, chance: random.Random, ways: Counter[str]) -> None:
    """Kill writers of one folder, one after the other, and close it in the end."""
    with TemporaryDirectory() as name:
        folder, progress, count = Path(name) / "journal", Progress(), 0
        for _ in range(kills):
            child = forked(partial(write_for_ever, folder, progress, count))
            time.sleep(chance.random() ** 2 * LONGEST_S)
            os.kill(child, signal.SIGKILL)
            assert killed(child), "the writer ended by itself"
            ways["kills"] += 1
            if folder.exists():
                count = check(folder, progress.count, ways)
        with open_journal(folder, **SMALL):
            pass
        found, cut = numbers(folder)
        assert cut is None and len(found) == count
        ways["records"] += count


def kill_at_random(kills: int, seed: int) -> dict[str, object]:
    """What was counted."""
    ways: Counter[str] = Counter()
    chance, began_s = random.Random(seed), time.monotonic()
    while ways["kills"] < kills:
        kill_some(min(A_FOLDER, kills - ways["kills"]), chance, ways)
    return {**ways, "seed": seed, "seconds": round(time.monotonic() - began_s, 1)}


def scenario(folder: Path, progress: Progress) -> None:
    """Two writers after one another, rotation, synced blocks; then the end."""
    for _ in range(2):
        found = numbers(folder)[0] if folder.exists() and segments(folder) else []
        with open_journal(folder, **SMALL | {"segment_bytes": 600}) as journal:
            for number in range(len(found), len(found) + A_WRITER):
                append(journal, number, progress)
        progress.count = len(found) + A_WRITER
    os._exit(0)


def die_at(place: int, part: float) -> None:
    """Die in the n-th call of the system that a writer makes.

    Of what a write was to write, a part is written.
    """
    left = [place]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0]:
                return call(*arguments, **options)
            if call is pwrite and part:
                file, raw, offset = arguments
                pwrite(file, raw[: max(int(len(raw) * part), 1)], offset)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return run

    pwrite = os.pwrite
    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def die_in_scenario(folder: Path, progress: Progress, place: int, part: float) -> None:
    """The scenario as far as that call."""
    die_at(place, part)
    scenario(folder, progress)


def kill_at_each_call(parts: Sequence[float]) -> dict[str, object]:
    """What was counted."""
    ways: Counter[str] = Counter()
    for part in parts:
        place = 1
        while kill_at_call(place, part, ways):
            place += 1
    return dict(ways)


def kill_at_call(place: int, part: float, ways: Counter[str]) -> bool:
    """Whether there are so many calls. What was promised is there, before and after."""
    with TemporaryDirectory() as name:
        folder, progress = Path(name) / "journal", Progress()
        died = killed(forked(partial(die_in_scenario, folder, progress, place, part)))
        if folder.exists():
            check(folder, progress.count, ways)
        assert not killed(forked(partial(scenario, folder, progress)))
        check(folder, progress.count, ways)
        assert numbers(folder)[1] is None
    ways["kills"] += died
    return died


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--calls", type=float, nargs="*", metavar="PART")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    for name in ("fsync", "fdatasync"):  # no kill needs them, and they take time
        setattr(os, name, lambda _file: None)
    if options.calls is not None:
        counted = kill_at_each_call(options.calls or PARTS)
    else:
        counted = kill_at_random(options.kills, options.seed)
    sys.stdout.write(json.dumps(counted) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
