"""Which trades are missing: ids rise by one, so a jump is a loss until it is made good.

1. `expected` is one above the highest id seen; ids below it are seen or in `missing`.
2. An id seen late leaves `missing`; a span may split in two.
3. What the venue itself does not list is settled: it never existed.
"""

import msgspec


class Missing(msgspec.Struct):
    """Ids first..last, not seen; they happened between two times (UTC nanoseconds).

    `noticed_s`: when, on the caller's clock.
    """

    first: int
    last: int
    after_ns: int
    before_ns: int
    noticed_s: float


class IdTracker:
    """The ids of one market's trades, as they come in."""

    def __init__(self) -> None:
        self.expected = 0
        self.newest_ns = 0
        self.missing: list[Missing] = []

    def start(self, trade_id: int, time_ns: int) -> None:
        """Count from a trade that is known already, as if all before it were."""
        self.expected = trade_id + 1
        self.newest_ns = time_ns
        self.missing.clear()

    @property
    def started(self) -> bool:
        """Whether any id is known."""
        return self.expected > 0

    def wants(self, trade_id: int) -> bool:
        """Whether this id has not been seen."""
        return trade_id >= self.expected or any(
            span.first <= trade_id <= span.last for span in self.missing
        )

    def see(self, trade_id: int, time_ns: int, now_s: float) -> None:
        """A trade came in."""
        if trade_id >= self.expected:
            if self.started and trade_id > self.expected:
                self.missing.append(
                    Missing(self.expected, trade_id - 1, self.newest_ns, time_ns, now_s)
                )
            self.expected = trade_id + 1
            self.newest_ns = max(time_ns, self.newest_ns)
        elif self.missing:
            self._fill(trade_id)

    def skip(self, trade_id: int, time_ns: int) -> None:
        """A trade from before the start: neither it nor older ones are missing."""
        if trade_id >= self.expected:
            self.expected = trade_id + 1
            self.newest_ns = max(time_ns, self.newest_ns)

    def settle(self, newest_id: int) -> None:
        """The venue has told all up to this id: what is not there never was."""
        left = []
        for span in self.missing:
            if span.last > newest_id:
                span.first = max(span.first, newest_id + 1)
                left.append(span)
        self.missing = left

    def overdue(self, noticed_before_s: float) -> list[Missing]:
        """Spans that are missing since before a time: too long to be mere disorder."""
        return [span for span in self.missing if span.noticed_s < noticed_before_s]

    def _fill(self, trade_id: int) -> None:
        for place, span in enumerate(self.missing):
            if span.first <= trade_id <= span.last:
                parts = [
                    (span.first, trade_id - 1),
                    (trade_id + 1, span.last),
                ]
                self.missing[place : place + 1] = [
                    Missing(first, last, span.after_ns, span.before_ns, span.noticed_s)
                    for first, last in parts
                    if first <= last
                ]
                return
