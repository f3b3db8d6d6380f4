"""What commands write: JSON lines; tables, ruled on a terminal and plain in a pipe."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from piker_core.cli.failures import check_stdout, write_stdout

_NUMBER = re.compile(r"-?[0-9][0-9.]*(/[0-9]+)?( [A-Za-z]{1,3})?")


class Output:
    """Standard output of one command: records with `--json`, else text.

    Raises OutputClosed when the reader has gone away.
    """

    def __init__(self, json: bool) -> None:
        self.json = json

    def record(self, kind: str, **fields: Any) -> None:
        """Write one JSON object as a line, at once."""
        import msgspec

        self.line(msgspec.json.encode({"kind": kind, **fields}).decode())

    def line(self, text: str) -> None:
        """Write one line, at once."""
        write_stdout(text + "\n")

    def check(self) -> None:
        """Look whether the reader is still there, while there is nothing to write."""
        check_stdout()

    def note(self, text: str) -> None:
        """Say something beside the output, on stderr; nothing with `--json`."""
        if not self.json:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table: with rules and colours on a terminal, else aligned columns."""
        if sys.stdout.isatty():
            from rich.console import Console

            Console().print(rich_table(columns, rows))
            return
        cells = list(zip(columns, *rows, strict=True))
        widths = [max(map(len, column)) for column in cells]
        right = [numeric(column[1:]) for column in cells]
        for row in (columns, *rows):
            self.line(aligned(row, widths, right))


def rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    caption: str = "",
) -> Any:
    """A rich Table of texts; columns of numbers are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", title_justify="left", caption_justify="left")
    table.title = Text(title) if title else None
    table.caption = Text(caption) if caption else None
    for place, name in enumerate(columns):
        right = numeric([row[place] for row in rows])
        table.add_column(name, justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """One line of a plain table; `right` says which columns are numbers."""
    padded = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, perhaps with a unit; dates are none."""
    texts = [cell for cell in cells if cell]
    return bool(texts) and all(_NUMBER.fullmatch(text) for text in texts)


def decimal_text(number: float) -> str:
    """A price or size without noise digits and without an exponent."""
    text = f"{number:.12g}"
    return f"{number:.12f}".rstrip("0").rstrip(".") if "e" in text else text


def utc_text(seconds: float, digits: int = 0) -> str:
    """A time in UTC: `2026-01-31 09:30:00`, with some digits of the second."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"  # rings hold any number
    fraction = f".{moment:%f}"[: digits + 1] if digits else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}" + fraction


def reasoned(status: str, reason: str) -> str:
    """A status and, where there is one, its reason: `stale (no trade for 5 s)`."""
    return f"{status} ({reason})" if reason else status


def span_text(seconds: float) -> str:
    """A duration in the largest unit that leaves it readable: `12 s`, `3.4 h`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def bytes_text(size: float) -> str:
    """A size in memory: `340 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return (
                f"{size:.0f} {unit}"
                if size >= 10 or unit == "B"
                else f"{size:.1f} {unit}"
            )
        size /= 1000
    return ""
