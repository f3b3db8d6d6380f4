"""What a simulated gateway says of its own connections, and what that means."""

from .venue_frames import SYSTEM, error_frame

LOST, RESTORED_LOST, RESTORED = 1100, 1101, 1102
MARKET_BROKEN, MARKET_OK = 2103, 2104
HISTORY_BROKEN, HISTORY_OK = 2105, 2106
DEFINITIONS_BROKEN, DEFINITIONS_OK = 2157, 2158
_BETWEEN = "Connectivity between IBKR and Trader Workstation has been"
TEXTS = {
    LOST: f"{_BETWEEN} lost.",
    RESTORED_LOST: f"{_BETWEEN} restored - data lost.",
    RESTORED: (
        f"{_BETWEEN} restored - data maintained. All data farms are connected: "
        "usfarm; ushmds; secdefil."
    ),
    MARKET_BROKEN: "Market data farm connection is broken:usfarm",
    MARKET_OK: "Market data farm connection is OK:usfarm",
    HISTORY_BROKEN: "HMDS data farm connection is broken:ushmds",
    HISTORY_OK: "HMDS data farm connection is OK:ushmds",
    2107: (
        "HMDS data farm connection is inactive but should be available upon demand."
        "ushmds"
    ),
    2108: (
        "Market data farm connection is inactive but should be available upon demand."
        "usfarm"
    ),
    2110: (
        "Connectivity between Trader Workstation and server is broken. It will be "
        "restored automatically."
    ),
    2119: "Market data farm is connecting:usfarm",
    DEFINITIONS_BROKEN: "Sec-def data farm connection is broken:secdefil",
    DEFINITIONS_OK: "Sec-def data farm connection is OK:secdefil",
}
_CHANGES: dict[int, dict[str, bool]] = {
    LOST: {"linked": False},
    RESTORED_LOST: {"linked": True},
    RESTORED: {"linked": True},
    MARKET_BROKEN: {"market": False},
    MARKET_OK: {"market": True},
    HISTORY_BROKEN: {"history": False},
    HISTORY_OK: {"history": True},
    DEFINITIONS_BROKEN: {"definitions": False},
    DEFINITIONS_OK: {"definitions": True},
}


class Status:
    """Which connections of the gateway stand: to IB, and to its three farms."""

    def __init__(self) -> None:
        self._up = dict.fromkeys(("linked", "market", "history", "definitions"), True)

    def change(self, code: int) -> None:
        """Let a code come true; raises `ValueError` for one that there is not."""
        if code not in TEXTS:
            known = ", ".join(str(each) for each in TEXTS)
            raise ValueError(f"no system code {code!r}: there are {known}")
        self._up.update(_CHANGES.get(code, {}))

    def has(self, farm: str) -> bool:
        """Whether a farm can be reached: market, history or definitions."""
        return self._up["linked"] and self._up[farm]

    @property
    def linked(self) -> bool:
        """Whether the gateway is connected to IB."""
        return self._up["linked"]

    def greeting(self, version: int) -> list[bytes]:
        """The notices a new client gets."""
        pairs = (
            ("market", MARKET_OK, MARKET_BROKEN),
            ("history", HISTORY_OK, HISTORY_BROKEN),
            ("definitions", DEFINITIONS_OK, DEFINITIONS_BROKEN),
        )
        codes = [] if self.linked else [LOST]
        codes += [good if self.has(farm) else bad for farm, good, bad in pairs]
        return [notice_frame(version, code) for code in codes]


def notice_frame(version: int, code: int) -> bytes:
    """A system notice."""
    return error_frame(version, SYSTEM, code, TEXTS[code])
