"""One object for all who ask for it within a trio run."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import trio

T = TypeVar("T")

_objects: trio.lowlevel.RunVar[dict[Hashable, Any]] = trio.lowlevel.RunVar("adapter")


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
