"""What the broker and its dialogs say to each other: a line of JSON each."""

from typing import Any, Literal

import msgspec

from piker_core.broker import BrokerOrder
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)

Do = Literal[
    *("submit", "cancel", "order", "orders", "fills", "positions", "cancel_all"),
    *("truth", "calm", "cut", "trade"),
]


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request, and what it needs. `manner`: of "calm", how the broker is to be."""

    id: int
    do: Do
    order: BrokerdOrder | None = None
    cancel: BrokerdCancel | None = None
    reqid: str = ""
    since_ns: int = 0
    manner: dict[str, float] = {}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """To the request of this id; 0: no answer, a report. `refused`: why."""

    id: int
    refused: str = ""
    report: BrokerdMessage | None = None
    order: BrokerOrder | None = None
    orders: list[BrokerOrder] = []
    fills: list[BrokerdFill] = []
    positions: list[BrokerdPosition] = []
    truth: "Truth | None" = None


class Held(msgspec.Struct):
    """An order as the broker has it, and how often it was asked for."""

    order: BrokerOrder
    taken: int = 0
    """How often it was taken as a new one."""
    doubled: int = 0
    """How often the same was asked for that it was already."""
    seen: list[tuple[str, str]] = []
    """Prices and sizes that were asked for."""


class Truth(msgspec.Struct):
    """All that the broker knows."""

    held: list[Held]
    fills: list[BrokerdFill]
    position: str
    counts: dict[str, int]


encode = msgspec.json.Encoder().encode
decode_ask = msgspec.json.Decoder(Ask).decode
decode_answer = msgspec.json.Decoder(Answer).decode
Fields = dict[str, Any]
