"""`search` and `providers`: what is installed, and which markets it has."""

import importlib.util
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points
from typing import Any

import msgspec
import trio

from piker_core.cli.failures import MISSING, OK, VENUE, explain
from piker_core.cli.output import Output
from piker_core.conformance.venues import venue_name
from piker_core.errors import PikerError
from piker_core.provider import GROUP, capabilities, find_provider, provider_names

SEARCH_S = 30.0
"""How long one provider may take to answer a search."""


class ProviderInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An installed provider.

    `venue`: the module of its simulated venue, by which `check` runs it, if it has one.
    `error` is why it cannot be imported, if it cannot.
    """

    name: str
    module: str
    path: str
    version: str
    capabilities: list[str] = []
    venue: str = ""
    error: str = ""


def describe_providers() -> list[ProviderInfo]:
    """Every provider of the entry-point group, by name; broken ones too."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    return [_describe(points[name]) for name in sorted(points)]


def _describe(point: EntryPoint) -> ProviderInfo:
    found: list[str] = []
    error = path = venue = ""
    try:
        provider = find_provider(point.name)
        found, path = capabilities(provider), getattr(provider, "__file__", "") or ""
        venue = venue_name(provider)
    except Exception as problem:  # noqa: BLE001 - a broken package is what is shown
        error = explain(problem)[1]
        path = _path_of(point.value)
    return ProviderInfo(
        name=point.name,
        module=point.value,
        path=path,
        version=point.dist.version if point.dist else "",
        capabilities=found,
        venue=venue,
        error=error,
    )


def _path_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, PackageNotFoundError):
        return ""
    return (spec.origin or "") if spec else ""


def show_providers(out: Output) -> None:
    """Print the installed providers."""
    providers = describe_providers()
    if out.json:
        for provider in providers:
            out.record("provider", **msgspec.to_builtins(provider))
        return
    rows = [
        (
            p.name,
            p.version,
            p.path or p.module,
            "simulated" if p.venue else "",
            p.error or " ".join(p.capabilities),
        )
        for p in providers
    ]
    out.table(("provider", "version", "module", "venue", "capabilities"), rows)


def search_markets(out: Output, pattern: str, *, provider: str | None) -> int:
    """Print the markets that match; the exit code.

    All providers are asked at once; one that fails is told of on stderr and does not
    keep the others from answering.
    """
    names = [provider] if provider else provider_names()
    found, failed = trio.run(_search_all, names, pattern)
    if provider and failed:
        raise failed[0][1]
    for name, error in failed:
        out.note(f"piker-core: {name}: {explain(error)[1]}")
        if out.json:
            out.record("error", provider=name, message=explain(error)[1])
    _print_markets(out, found)
    if failed:
        return max(explain(error)[0] for _, error in failed) or VENUE
    if not found:
        out.note(
            f"no market of {', '.join(names) or 'any provider'} matches {pattern!r}"
        )
    return OK if found else MISSING


def _print_markets(out: Output, found: list[dict[str, Any]]) -> None:
    if out.json:
        for market in found:
            out.record("market", **market)
    elif found:
        columns = ("fqme", "venue_symbol", "price_tick", "size_tick", "min_size")
        rows = [[str(market.get(name, "")) for name in columns] for market in found]
        out.table(("market", "at the venue", *columns[2:]), rows)


async def _search_all(
    names: list[str], pattern: str
) -> tuple[list[dict[str, Any]], list[tuple[str, Exception]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: list[tuple[str, Exception]] = []

    async def ask(name: str) -> None:
        try:
            with trio.fail_after(SEARCH_S):
                found[name] = await _search_one(name, pattern)
        except trio.TooSlowError:
            text = f"{name} did not answer within {SEARCH_S:g} s"
            failed.append((name, TimeoutError(text)))
        except Exception as error:  # noqa: BLE001 - the others may well answer
            failed.append((name, error))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(ask, name)
    return [market for name in names for market in found[name]], failed


async def _search_one(name: str, pattern: str) -> list[dict[str, Any]]:
    provider = find_provider(name)
    if not hasattr(provider, "open_symbol_search"):
        raise PikerError(f"{name} cannot search: it has no open_symbol_search")
    async with provider.open_symbol_search() as search:
        markets = await search(pattern)
    return [_market(name, fqme, market) for fqme, market in markets.items()]


def _market(provider: str, fqme: str, market: Any) -> dict[str, Any]:
    described = msgspec.to_builtins(market)
    fields = described if isinstance(described, dict) else {"description": described}
    if "kind" in fields:  # a record's own is what the record is of
        fields["market_kind"] = fields.pop("kind")
    return fields | {"fqme": fqme, "provider": provider}
