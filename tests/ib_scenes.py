"""Scenes of feeds, played side by side: most of their time is waiting for a clock.

Each has a venue, a configuration and a namespace of its own.
"""

import itertools
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
import trio

import piker_core as pk
from providers.ib.config import Config
from providers.ib.venue import Venue
from tests.ib_gateway import QUICK, open_quick

_AT_ONCE = 6
_config: ContextVar[Config] = ContextVar("ib_config")
_namespace: ContextVar[str] = ContextVar("ib_namespace")
_numbers = itertools.count()

Scene = Callable[[], Awaitable[None]]


@asynccontextmanager
async def point(**options: Any) -> AsyncIterator[Venue]:
    """A venue that the feeds of this scene are pointed at."""
    settings = options.pop("settings", {})
    async with open_quick(**options) as venue:
        keys = {key.lower(): value for key, value in QUICK.items()} | settings
        keys["port"] = venue.port
        _config.set(msgspec.convert(keys, Config, strict=False))
        yield venue


def open_feed(fqmes: list[str]) -> AbstractAsyncContextManager[pk.Feed]:
    """A feed of this scene."""
    return pk.open_feed(fqmes, namespace=_namespace.get())


class Scenes:
    """The scenes of a file by name; `add` is a decorator."""

    def __init__(self, patches: Mapping[str, object] | None = None) -> None:
        """`patches`: attributes by dotted name, while scenes are played."""
        self._patches = {"providers.ib.api.load_config": _config.get} | dict(
            patches or {}
        )
        self._scenes: dict[str, Scene] = {}
        self._outcomes: dict[str, Exception | None] = {}

    @property
    def names(self) -> list[str]:
        return list(self._scenes)

    def add(self, scene: Scene, name: str = "") -> Scene:
        self._scenes[name or scene.__name__.replace("_", " ")] = scene  # type: ignore[attr-defined]
        return scene

    def check(self, name: str) -> None:
        """Raise what went wrong in a scene, which is played with its neighbours."""
        if name not in self._outcomes:
            place = self.names.index(name) // _AT_ONCE * _AT_ONCE
            with self._surroundings():
                trio.run(self._play, self.names[place : place + _AT_ONCE])
        outcome = self._outcomes[name]
        if outcome is not None:
            raise outcome

    async def _play(self, names: Sequence[str]) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._play_one, name)

    async def _play_one(self, name: str) -> None:
        namespace = f"test{os.getpid()}scene{next(_numbers)}"
        _namespace.set(namespace)
        try:
            await self._scenes[name]()
            self._outcomes[name] = None
        except Exception as error:  # noqa: BLE001 - raised by `check`
            self._outcomes[name] = error
        finally:
            pk.remove_segments(namespace)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIKER_CONFIG", os.devnull)
            patch.setenv("PIKER_FEED__SECONDS_BACK", "0")
            for name, value in self._patches.items():
                patch.setattr(name, value)
            yield
