"""Which simulated venue a provider has, and how a provider is pointed at one."""

import importlib
import importlib.util
import inspect
import itertools
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from piker_core.errors import PikerError
from piker_core.simulation.private import PrivateSide
from piker_core.simulation.venue import SimulatedVenue

LIVE_RATE = 120.0
"""Trades a second over all markets of the venue."""
HISTORY_S = 1500.0
PATIENCE: dict[str, float] = {
    "liveness_s": 2.0,
    "ack_timeout_s": 2.0,
    "rest_rate": 40.0,
    "rest_burst": 60,
    "rest_attempts": 2,
    "throttle_pause_s": 1.0,
    "disorder_s": 0.5,
    "overlap_s": 0.5,
    "repair_settle_s": 0.5,
}
"""Keys of a provider's configuration that are set for checks, where it has them."""
_numbers = itertools.count()
SURFACE = ("config", "symbols", "faults", "trades", "candles", "statistics")
ORDERS = {"PIKER_EMS__RECONCILE_S": "2", "PIKER_EMS__GRACE_S": "1"}
"""The patience of the gateway of orders in checks."""
BACK = {"PIKER_FEED__SECONDS_BACK": "20", "PIKER_FEED__MINUTES_BACK": "6"}


def own_namespace() -> str:
    """A namespace that nobody else has."""
    return f"check{os.getpid()}x{next(_numbers)}"


def venue_name(provider: ModuleType) -> str:
    """Dotted name of the module with a provider's simulated venue; empty if none."""
    return _name_below(provider, "venue")


def _name_below(provider: ModuleType, name: str) -> str:
    name = f"{provider.__name__}.{name}"
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a plain module has nothing below it
        found = None
    return name if found is not None else ""


def _module_below(provider: ModuleType, name: str) -> ModuleType | None:
    name = _name_below(provider, name)
    return importlib.import_module(name) if name else None


def _venue_module(provider: ModuleType) -> ModuleType | None:
    return _module_below(provider, "venue")


@asynccontextmanager
async def open_venue(
    provider: ModuleType, *, seed: int, lenient: bool = True
) -> AsyncIterator[SimulatedVenue]:
    """Open a provider's simulated venue; with `lenient` without limits in the way."""
    module = _venue_module(provider)
    assert module is not None
    wishes: dict[str, Any] = {
        "seed": seed,
        "live_rate": LIVE_RATE,
        "history_rate": 3.0,
        "history_s": HISTORY_S,
    }
    known = inspect.signature(module.open_venue).parameters
    options = {key: value for key, value in wishes.items() if key in known}
    if lenient:
        options |= getattr(module, "LENIENT", {})
    async with module.open_venue(**options) as venue:
        yield venue


def why_no_orders(provider: ModuleType) -> str:
    """Why checks of orders cannot be made, empty if they can."""
    if not hasattr(provider, "open_trade_dialog"):
        return "it takes no orders: it has no open_trade_dialog"
    if _module_below(provider, "venue_trading") is None:
        return (
            f"its venue has no private side: a module {provider.__name__}."
            "venue_trading with open_private (piker_core.simulation.private)"
        )
    return ""


def open_private(provider: ModuleType, venue: SimulatedVenue) -> PrivateSide:
    """The private side of a provider's venue, which `why_no_orders` has found."""
    module = _module_below(provider, "venue_trading")
    assert module is not None
    private: PrivateSide = module.open_private(venue)
    return private


def as_settings(provider: ModuleType, keys: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a provider's configuration as variables of the environment."""
    prefix = f"PIKER_{provider.name.upper()}__"
    return {f"{prefix}{key.upper()}": str(value) for key, value in keys.items()}


def for_orders(
    provider: ModuleType, private: PrivateSide, folder: str
) -> dict[str, str]:
    """What the environment needs so that real orders leave, for the simulated venue."""
    return (
        as_settings(provider, private.keys)
        | ORDERS
        | {
            f"PIKER_ACCOUNT__{private.account.upper()}__LIVE": "true",
            "PIKER_STATE": folder,
        }
    )


def exemptions(provider: ModuleType) -> dict[str, str]:
    """Checks that a venue's protocol makes pointless, and why."""
    return dict(getattr(_venue_module(provider), "EXEMPT", {}))


def check_surface(venue: object) -> None:
    """Raises PikerError for a venue that lacks what checks need of it."""
    lacks = [name for name in SURFACE if not hasattr(venue, name)]
    if lacks:
        raise PikerError(
            f"the simulated venue has no {', '.join(lacks)}: "
            "piker_core.simulation.venue says what they are"
        )


def pointed(
    provider: ModuleType,
    config: Mapping[str, Any],
    namespace: str,
    *,
    hasty: bool = True,
) -> dict[str, str]:
    """The environment of a process whose provider is to use a venue.

    Nothing of the user's configuration is left in it; with `hasty` the provider is as
    impatient as `PATIENCE` here and of its venue's module say.
    """
    settings: dict[str, Any] = {}
    if hasty:
        shape = getattr(provider, "Config", None)
        keys = getattr(shape, "__struct_fields__", ())
        own = getattr(_venue_module(provider), "PATIENCE", {})
        settings = {key: value for key, value in PATIENCE.items() if key in keys} | own
    settings |= {key: value for key, value in config.items() if value is not None}
    environ = {
        key: value
        for key, value in os.environ.items()
        if not (key.startswith("PIKER_") and "__" in key)
    }
    environ |= as_settings(provider, settings)
    environ |= BACK
    environ["PIKER_CONFIG"] = os.devnull
    environ["PIKER_NAMESPACE"] = namespace
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environ
