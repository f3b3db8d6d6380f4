"""What can be seen of a provider without running it."""

import inspect
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.dtypes import OHLCV_DTYPE
from piker_core.provider import CONTRACT, capabilities

REQUIRED = ("name", "ohlc_dtype", "stream_quotes")
"""What a provider cannot do without; all else it may leave out."""
CALLS: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "stream_quotes": (
        (4, ("task_status",)),
        (0, ("send_chan", "symbols", "shm", "feed_is_live", "loglevel", "task_status")),
    ),
    "open_history_client": ((1, ()), (0, ("symbol",))),
    "get_mkt_info": ((1, ()),),
    "open_symbol_search": ((0, ()),),
    "norm_trade": ((1, ()),),
    "get_client": ((0, ()),),
}
"""How each function must be callable: so many arguments by place, and these by name."""
COROUTINES = ("stream_quotes", "get_mkt_info")
TOLD = {
    "quotes": "stream_quotes",
    "history": "open_history_client",
    "search": "open_symbol_search",
    "orders": "open_trade_dialog",
}
"""What `capabilities` says, and the name of the contract that does it."""
_NAME = re.compile(r"[a-z0-9_-]+")
_FIELDS = (OHLCV_DTYPE.names or ())[:9]


def check_names(provider: ModuleType) -> Passed:
    """The names of the contract that are there, the name itself, the dtype of bars."""
    lacks = [name for name in REQUIRED if not hasattr(provider, name)]
    if lacks:
        raise Failed(f"it lacks {', '.join(lacks)}")
    name = provider.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Failed(f"its name {name!r} is not made of [a-z0-9_-]")
    fields = tuple(getattr(provider.ohlc_dtype, "names", None) or ())
    if fields[:9] != _FIELDS:
        raise Failed(
            f"the fields of its ohlc_dtype are {', '.join(fields) or 'none'}; they "
            f"begin with {', '.join(_FIELDS)}"
        )
    there = capabilities(provider)
    lacks = [name for name in CONTRACT if name not in there]
    without = f", without {', '.join(lacks)}" if lacks else ""
    return Passed(f"{len(there)} names{without}")


def check_signatures(provider: ModuleType) -> Passed:
    """Every function of the contract can be called as the engine calls it."""
    functions = {
        name: getattr(provider, name) for name in CALLS if hasattr(provider, name)
    }
    wrong = [
        f"{name}: {problem}"
        for name, function in functions.items()
        for problem in mismatches(function, CALLS[name])
    ]
    wrong += [
        f"{name} is no async function"
        for name in COROUTINES
        if name in functions and not inspect.iscoroutinefunction(functions[name])
    ]
    if wrong:
        raise Failed("; ".join(wrong))
    return Passed(f"{len(functions)} functions can be called as the contract says")


def mismatches(
    function: Callable[..., Any], ways: Sequence[tuple[int, tuple[str, ...]]]
) -> list[str]:
    """Why a function cannot be called in these ways."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ["it cannot be called"]
    found = []
    for places, names in ways:
        try:
            signature.bind(*range(places), **dict.fromkeys(names))
        except TypeError as error:
            found.append(f"{error}, called with {places} arguments {' '.join(names)}")
    return found


def check_capabilities(provider: ModuleType) -> Passed:
    """What `capabilities` says is there, and what is there is said."""
    told = getattr(provider, "capabilities", None)
    if not isinstance(told, dict):
        raise NotApplicable("it has no mapping `capabilities`")
    wrong = []
    for key, name in TOLD.items():
        there = hasattr(provider, name)
        if bool(told.get(key, there)) != there:
            claim = "says" if told[key] else "does not say"
            state = "is there" if there else "is missing"
            wrong.append(f"it {claim} {key!r}, but {name} {state}")
    if wrong:
        raise Failed("; ".join(wrong))
    able = [key for key, value in told.items() if value]
    return Passed(f"it is capable of {', '.join(able) or 'nothing'}")
