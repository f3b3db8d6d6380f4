"""Faults of orders at a simulated Kraken: answers that lie, reports that go astray."""

import random
from collections import Counter, deque
from typing import Literal, Protocol

Lie = Literal["silent", "unavailable", "busy", "internal", "late", "limited"]
TEXTS = {
    "unavailable": "EService:Unavailable",
    "busy": "EService:Busy",
    "internal": "EGeneral:Internal error",
    "late": "EService:Deadline elapsed",
    "limited": "EOrder:Rate limit exceeded",
}


class OrderFaultSite(Protocol):
    """What the switches need of the venue."""

    def cut_private(self) -> int:
        """Reset every private connection; returns how many."""

    def freeze_private(self) -> int:
        """Make the open private connections silent and deaf; returns how many."""

    def forget_tokens(self) -> int:
        """Make every token invalid; returns how many."""


class OrderFaults:
    """Switches, each to be called at any time; rates are parts of all reports.

    `done` counts what happened by name.
    """

    def __init__(self, site: OrderFaultSite, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.reply_late_s = 0.0
        self._site, self._rng = site, random.Random(seed)
        self._rates: dict[str, float] = {}
        self._lost = 0
        self._lies: deque[tuple[Lie, bool]] = deque()

    def lie(self, kind: Lie, *, done: bool, requests: int = 1) -> None:
        """Answer the next requests about orders so, whether or not they are `done`.

        "silent": not at all.
        """
        self._lies.extend([(kind, done)] * requests)

    def reports_first(self, rate: float) -> None:
        """Send reports before the answer to the request that did it."""
        self._rates["reports_first"] = rate

    def double_reports(self, rate: float) -> None:
        """Send reports twice."""
        self._rates["double_reports"] = rate

    def swap_reports(self, rate: float) -> None:
        """Send reports after the next one."""
        self._rates["swap_reports"] = rate

    def lose_reports(self, count: int) -> None:
        """Number the next reports, and do not send them."""
        self._lost = count

    def late_replies(self, seconds: float) -> None:
        """Answer requests about orders so much later."""
        self.reply_late_s = seconds

    def cut(self) -> int:
        """Reset every private connection; returns how many."""
        self.done["cut"] += 1
        return self._site.cut_private()

    def half_open(self) -> int:
        """Make the open private connections silent and deaf; returns how many."""
        self.done["half_open"] += 1
        return self._site.freeze_private()

    def invalidate_tokens(self) -> int:
        """Make every token invalid, those in use as well; returns how many."""
        self.done["invalidate_tokens"] += 1
        return self._site.forget_tokens()

    # What the venue asks

    def take_lie(self) -> tuple[Lie, bool] | None:
        """How the next request is answered, if not truly; and whether it is done."""
        if not self._lies:
            return None
        self.done["lie"] += 1
        return self._lies.popleft()

    def take_loss(self) -> bool:
        """Whether the next report is lost."""
        if not self._lost:
            return False
        self._lost -= 1
        self.done["lose_reports"] += 1
        return True

    def hit(self, name: str) -> bool:
        """Whether a fault happens to the next report."""
        rate = self._rates.get(name, 0.0)
        if not rate or self._rng.random() >= rate:
            return False
        self.done[name] += 1
        return True
