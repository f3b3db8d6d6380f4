"""What TWS is connected to itself, by its notices: its servers and their data farms.

Source: https://interactivebrokers.github.io/tws-api/message_codes.html
"""

from typing import Literal

from . import codes

Event = Literal["", "lost", "back", "back empty", "farm lost", "farm back"]


class Links:
    """The state of one TWS; `take` is told every notice."""

    def __init__(self) -> None:
        self.up = True
        self.broken_farms: set[str] = set()
        self.broken_history: set[str] = set()

    @property
    def lists(self) -> bool:
        """Whether history can be had, as far as is known."""
        return self.up and not self.broken_history

    def take(self, code: int, text: str) -> Event:
        """A notice; what it changes for market data."""
        if code in codes.LINK_LOST:
            changed, self.up = self.up, False
            return "lost" if changed else ""
        if code in (codes.LINK_BACK, codes.LINK_BACK_EMPTY):
            self.up = True
            return "back empty" if code == codes.LINK_BACK_EMPTY else "back"
        if code == codes.FARM_BROKEN:
            self.broken_farms.add(codes.farm_name(text))
            return "farm lost"
        if code == codes.FARM_OK and self.broken_farms:
            self.broken_farms.discard(codes.farm_name(text))
            return "" if self.broken_farms else "farm back"
        if code == codes.HISTORY_BROKEN:
            self.broken_history.add(codes.farm_name(text))
        elif code in codes.HISTORY_OK:
            self.broken_history.discard(codes.farm_name(text))
        return ""
