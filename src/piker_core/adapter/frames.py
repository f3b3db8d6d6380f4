"""What a provider says of its frames, so that they can be decoded once more.

A package with `frames`, a `Frames` or `Tapes`, has its frames written into journals,
and quotes made of them by reference. Of one without, the quotes are written as they are
pushed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from piker_core.adapter.trades import Quote


class Part(msgspec.Struct, frozen=True, gc=False):
    """What a frame tells of one market, by the venue's name of it.

    `rows` is what `normalize` takes, or `normalize_best` if it is `best`.
    """

    venue_symbol: str
    rows: Any
    best: bool = False


class Frames(msgspec.Struct, frozen=True):
    """The functions that a feed uses, too; none of them remembers anything.

    `split(raw)`: the parts of a frame, in the order in which the feed takes them.
    `normalize`, `normalize_best`: see `MarketFeed`.
    """

    split: Callable[[bytes], Sequence[Part]]
    normalize: Callable[[str, Any], Quote]
    normalize_best: Callable[[str, Any, Any, int], Quote]


class Tapes(msgspec.Struct, frozen=True):
    """For frames that mean something only together, such as a volume that grows.

    `open(details)`: one market's state, by what `Tap.begin` was given. `call(state,
    name, arguments, raw)`: what the feed has done with it, done again, `raw` the frame
    of which it was done; returns ticks, if any.
    """

    open: Callable[[bytes], Any]
    call: Callable[[Any, str, list[Any], bytes], list[dict[str, Any]]]
