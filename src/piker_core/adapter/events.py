"""What is written down of a feed, so that it can be played again: bodies of records.

1. All that changes a ring is one call of the engine. Each is a record, written when the
   call has succeeded, in the order of the calls: nothing else shapes rows.
2. A quote that a frame told is not written again: its push names the frame and the
   market, and which of the frame's ticks were pushed. All other quotes are written as
   they were pushed.
3. Frames are counted from 1 an engine, anew after a hole: of frames before it nothing
   is taken any more.

Kinds are those of `journal.records`. The `source` of OPENED and RECEIVED is the number
of a connection, of all else that of the engine. Bodies are JSON.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE, TICK_DTYPE


class Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of a record."""


class Began(Body):
    """SESSION: an engine was opened, whose number is `engine`, or is closed.

    `module` is where its provider's package was found. An `engine` of 0: of a writer
    that has written frames alone. `anew`: records were lost, and frames are counted
    anew from here on.
    """

    provider: str
    recorder: str = ""
    markets: list[str] = []
    engine: int = 0
    module: str = ""
    namespace: str = ""
    ended: bool = False
    anew: bool = False


class Opened(Body):
    """OPENED: a connection of an engine."""

    url: str
    engine: int = 0


class Described(Body):
    """MARKET: it was opened, or something is done to it; `number` is the market's.

    Opened: `options` of `FeedEngine.add_market`, `about` and `sessions` (pairs of
    int64) apart. `begins`: its stream begins, and knows no frame before; `details` are
    for `frames.Tapes`. `hours`: it is
    open at other `sessions` from now on. With `period`, `rows` of OHLCV_DTYPE were put
    below its first one; `found`: the ring had them when it was opened, the newest ones.
    """

    fqme: str
    number: int = -1
    options: dict[str, Any] | None = None
    about: bytes = b""
    sessions: bytes | None = None
    begins: bool = False
    details: bytes = b""
    hours: bool = False
    period: int = 0
    rows: bytes = b""
    found: bool = False


class Said(Body):
    """STATUS, see `Market.set_status`."""

    fqme: str
    status: str
    reason: str = ""
    since_ns: int | None = None


class Gap(Body):
    """GAP, see `Market.add_gap`."""

    fqme: str
    start_ns: int
    end_ns: int
    cause: str = ""
    repaired: bool = False


class Quoted(Body):
    """QUOTE: what was pushed, or taken of a frame to be pushed later.

    By itself: `symbol`, `ticks` and `last`, or a market's `records` of TICK_DTYPE. Of a
    frame: its number `frame`, the number of the `market`, and `part`, the how manieth
    (from 0) of what it tells of this market; if it is `kept`, it is not pushed yet, and
    `take` is its number from now on. What was kept: `take`, and `places` of its ticks,
    None: all. A `call` on a market's state, see `frames.Tapes`: its `arguments`, the
    `frame` if it was of one, the number `take` of the ticks if it gave any.
    """

    symbol: str = ""
    ticks: list[dict[str, Any]] = []
    last: float | None = None
    records: bytes = b""
    frame: int = 0
    market: int = 0
    part: int = 0
    kept: bool = False
    take: int = 0
    places: list[int] | None = None
    call: str = ""
    arguments: list[Any] = []


encode_body = msgspec.json.Encoder().encode
"""Of a `Body`."""


def encode_sessions(sessions: Any) -> bytes | None:
    """Sessions, see `Market.set_sessions`, as pairs of int64."""
    return None if sessions is None else np.asarray(sessions, "<i8").tobytes()


def decode_sessions(body: bytes | None) -> NDArray[np.int64] | None:
    """The sessions of such pairs. Raises ValueError for what is cut off."""
    return None if body is None else np.frombuffer(body, "<i8").reshape(-1, 2)


def decode_rows(body: bytes) -> NDArray[np.void]:
    """Rows of OHLCV_DTYPE. Raises ValueError for what is cut off."""
    return np.frombuffer(body, OHLCV_DTYPE)


def decode_ticks(body: bytes) -> NDArray[np.void]:
    """Records of TICK_DTYPE. Raises ValueError for what is cut off."""
    return np.frombuffer(body, TICK_DTYPE)
