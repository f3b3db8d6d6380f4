"""A provider's markets by all their names: look-up and search."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from piker_core.errors import NotFound
from piker_core.symbol_search import SearchIndex
from piker_core.symbols import MktPair

NEAR = 5
"""How many names that come near an unknown one are told."""
_IGNORED = str.maketrans("", "", "/-_: ")


class Listing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A market of a table.

    `aliases` are all names by which it is to be found, however written, `title` is what
    it is called in words, `details` what else the venue says (what JSON can hold).
    """

    market: MktPair
    aliases: tuple[str, ...] = ()
    title: str = ""
    details: dict[str, Any] = {}


class SymbolTable:
    """The markets of a provider, by full name in `markets`, by any name with `find`.

    Usable from any thread; never changed once it is made.
    """

    def __init__(self, provider: str, listings: Iterable[Listing]) -> None:
        self.provider = provider
        self.listings = {listing.market.fqme: listing for listing in listings}
        self._by_name = {
            self._plain(fqme): listing for fqme, listing in self.listings.items()
        }
        for listing in self.listings.values():
            for name in (listing.market.venue_symbol, *listing.aliases):
                self._by_name.setdefault(self._plain(name), listing)

    @property
    def markets(self) -> dict[str, MktPair]:
        """All markets by full name, in the venue's order."""
        return {fqme: listing.market for fqme, listing in self.listings.items()}

    def __len__(self) -> int:
        return len(self.listings)

    def __iter__(self) -> Iterator[MktPair]:
        return (listing.market for listing in self.listings.values())

    def find(self, name: str) -> Listing:
        """The market of this name, whichever of its names it is.

        Case, blanks, dashes, slashes and the provider's suffix make no difference.
        Raises NotFound with the name and what comes near it.
        """
        found = self._by_name.get(self._plain(name))
        if found is not None:
            return found
        near = [market.fqme for market in self.search(name, limit=NEAR)]
        hint = f"near it: {', '.join(near)}" if near else "nothing comes near it"
        raise NotFound(
            f"{self.provider} has no market {name!r:.80}; {hint} "
            "(piker-core search lists them)"
        )

    def search(self, pattern: str, *, limit: int = 50) -> list[MktPair]:
        """At most `limit` markets that a pattern means, best first.

        See `piker_core.symbol_search`. Some milliseconds of work, more the first time:
        call it from a thread.
        """
        listings = list(self.listings.values())
        found = self._index.search(self._without_provider(pattern), limit)
        return [listings[each.place].market for each in found]

    @cached_property
    def _index(self) -> SearchIndex:
        return SearchIndex(
            [(each.market, each.aliases, each.title) for each in self.listings.values()]
        )

    def _without_provider(self, name: str) -> str:
        return name.strip().lower().removesuffix(f".{self.provider}")

    def _plain(self, name: str) -> str:
        return self._without_provider(name).translate(_IGNORED)
