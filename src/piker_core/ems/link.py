"""What a client and the gateway of an account say to each other over its socket.

Framed as docs/control.md has it: four bytes of length, big-endian, and a msgpack map.
A client says `Hello` first and hears `Welcome`; then it says `Ask`s, numbered from 1
without a hole, and hears a `Done` for each, when it is on disk, and, as they happen,
`Status` and `BrokerdPosition`; with `Heard` it says which of those it has done with.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from piker_core.orders import BrokerdPosition, Cancel, Order, Status, Update

VERSION = 1
MOST_NUMBER = 1 << 62
MOST = 1 << 24
"""Bytes of a message."""
Number = Annotated[int, msgspec.Meta(ge=1, le=MOST_NUMBER)]
Seq = Annotated[int, msgspec.Meta(ge=-1, le=MOST_NUMBER)]


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="msg"):
    """Who a client is. `seq`: the last status it has heard of, -1 for a new one.

    `cancels`: its orders are canceled when it is gone. `adopts`: it takes over orders
    whose client is gone, unless that one has a name. `symbols`: what it trades.
    `life`: of a client object, the same over all of its lines.
    `mode`: what it takes the account for; a gateway of another mode refuses it.
    """

    session: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    seq: Seq = -1
    cancels: bool = False
    adopts: bool = True
    symbols: list[str] = []
    mode: Literal["paper", "live"] = "paper"
    life: Annotated[str, msgspec.Meta(max_length=128)] = ""
    version: int = VERSION


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="msg"):
    """How things stand. `number`: of the client's asks, the last that was done."""

    number: int
    seq: int
    accounts: list[str]
    positions: list[BrokerdPosition]
    dialogs: list[Status]
    version: int = VERSION


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="msg"):
    """A client is not let in, or let go."""

    reason: str


class Ask(msgspec.Struct, frozen=True, tag="ask", tag_field="msg"):
    """A request of a client."""

    number: Number
    request: Order | Update | Cancel


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="msg"):
    """Cancel every order of the account."""

    number: Number


class Heard(msgspec.Struct, frozen=True, tag="heard", tag_field="msg"):
    """Up to which status a client has taken care of what it was told."""

    seq: Seq


class Bye(msgspec.Struct, frozen=True, tag="bye", tag_field="msg"):
    """A client leaves, and does not come back over another line."""


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="msg"):
    """A request is on disk, or, with an error, is not and never will be."""

    number: int
    error: str = ""


Told = Status | BrokerdPosition | Done
FromGateway = Welcome | Refused | Done | Status | BrokerdPosition
FromClient = Hello | Ask | Kill | Heard | Bye

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no message."""
decode_told = msgspec.msgpack.Decoder(FromGateway).decode
decode_asked = msgspec.msgpack.Decoder(FromClient).decode


def socket_name(folder: Path, broker: str, account: str) -> str:
    """The file name of the socket of an account's gateway."""
    place = f"{folder.resolve()}|{broker}|{account}".encode()
    return f"ems{hashlib.blake2b(place, digest_size=12).hexdigest()}"
