"""What a provider package offers, and how one is found."""

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from types import ModuleType

from piker_core.errors import NotFound, PikerError

GROUP = "piker_core.providers"
CONTRACT = (
    "name",
    "ohlc_dtype",
    "get_client",
    "get_mkt_info",
    "open_symbol_search",
    "stream_quotes",
    "open_history_client",
    "open_trade_dialog",
    "norm_trade",
)


def provider_names() -> list[str]:
    """Names of the installed providers, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find_provider(name: str) -> ModuleType:
    """The package of a provider, by its short name or as a dotted module path.

    A name that is no entry point is tried as `providers.<name>`, then as a module.
    Raises NotFound with the names that are known; an import error inside a provider
    that exists is a PikerError naming the module.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            return _import(point.value)
    candidates = [name] if "." in name else [f"providers.{name}", name]
    for path in candidates:
        if path in sys.modules or _exists(path):
            module = _import(path)
            if hasattr(module, "stream_quotes") or hasattr(module, "get_client"):
                return module
    known = ", ".join(provider_names()) or "none"
    raise NotFound(f"no provider named {name!r}; installed: {known}")


def is_provider(name: str) -> bool:
    """Whether `find_provider` would find something to import under this name."""
    paths = [name] if "." in name else [f"providers.{name}", name]
    return name in provider_names() or (
        name not in sys.stdlib_module_names and any(_exists(path) for path in paths)
    )


def capabilities(provider: ModuleType) -> list[str]:
    """The names of the contract that a provider package has."""
    return [name for name in CONTRACT if hasattr(provider, name)]


def _exists(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


def _import(path: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise PikerError(
            f"provider module {path} cannot be imported: {error}"
        ) from error
