"""Faults of a simulated gateway's orders, each on a switch, most for the next ones."""

from collections import Counter, deque

from .venue_directory import Refused


class OrderFaults:
    """Switches; what was done is counted in `done`.

    `late_commission_s` is how long commissions are late, `doubled` whether every status
    is told twice, `disordered` whether executions come before the order is told and
    statuses after newer ones, `read_only` whether orders are taken at all, `pending`
    whether orders stay between TWS and IB.
    """

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.late_commission_s = 0.0
        self.doubled = False
        self.disordered = False
        self.read_only = False
        self.pending = False
        self._refusals: deque[tuple[int, str]] = deque()
        self._next: deque[str] = deque()

    def refuse(self, code: int, text: str, *, orders: int = 1) -> None:
        """Answer the next orders with an error."""
        self._refusals.extend([(code, text)] * orders)

    def warn(self, *, orders: int = 1) -> None:
        """Send 399 with the next orders, which live."""
        self._next.extend(["warn"] * orders)

    def lose_answer(self, *, orders: int = 1) -> None:
        """Take the next orders, and do not say that they were."""
        self._next.extend(["lose_answer"] * orders)

    def swallow(self, *, orders: int = 1) -> None:
        """Neither take nor answer the next orders."""
        self._next.extend(["swallow"] * orders)

    def cut_before(self, *, orders: int = 1) -> None:
        """Reset the connection in place of taking the next orders."""
        self._next.extend(["cut_before"] * orders)

    def cut_after(self, *, orders: int = 1) -> None:
        """Take the next orders, and reset the connection before it is answered."""
        self._next.extend(["cut_after"] * orders)

    # What the venue asks

    def take(self) -> str:
        """What happens to an order that has come; "" for nothing. Raises `Refused`."""
        if self._refusals:
            code, text = self._refusals.popleft()
            self.done["refuse"] += 1
            raise Refused(code, text)
        if not self._next:
            return ""
        name = self._next.popleft()
        self.done[name] += 1
        return name
