"""One object for all who ask for it within a trio run, and tables fetched once."""

import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import trio

from piker_core.errors import DataThrottle, ProviderError

T = TypeVar("T")

_objects: trio.lowlevel.RunVar[dict[Hashable, Any]] = trio.lowlevel.RunVar("adapter")

log = logging.getLogger("piker_core.adapter")


def share(key: Hashable, make: Callable[[], T]) -> T:
    """The one object of this key in this trio run; made when first asked for.

    `key` names everything that tells it apart, such as ("limiter", host, credential,
    kind, rate, burst).
    """
    try:
        objects = _objects.get()
    except LookupError:
        objects = {}
        _objects.set(objects)
    if key not in objects:
        objects[key] = make()
    shared: T = objects[key]
    return shared


class Table(Generic[T]):
    """What a venue lists, kept for `ttl_s` and fetched once however many ask at a time.

    An old one is used on when the venue does not give a new one.
    """

    def __init__(self, name: str, *, ttl_s: float) -> None:
        self._name, self._ttl_s = name, ttl_s
        self._lock = trio.Lock()
        self._kept: T | None = None
        self._fetched_s = -math.inf

    async def get(self, fetch: Callable[[], Awaitable[T]], *, refresh: bool) -> T:
        """The table; fetched if there is none, if it is old, or to `refresh` it.

        Raises what `fetch` raises if there is nothing else to give, or on `refresh`.
        """
        asked_s = trio.current_time()
        async with self._lock:
            oldest_s = trio.current_time() - self._ttl_s
            if refresh:
                oldest_s = max(oldest_s, asked_s)
            if self._kept is not None and self._fetched_s >= oldest_s:
                return self._kept
            try:
                self._kept = await fetch()
                self._fetched_s = trio.current_time()
            except (ProviderError, DataThrottle) as error:
                if refresh or self._kept is None:
                    raise
                log.warning("using an old table of %s: %s", self._name, error)
            return self._kept
