"""TWS as a client: contracts by name, search, history, over one shared connection.

Source: https://interactivebrokers.github.io/tws-api/contract_details.html
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from piker_core.errors import NotFound, PikerError, ProviderError
from piker_core.fqme import Fqme
from piker_core.symbols import MktPair
from piker_core.tasks import open_nursery

from .archive import Archive
from .config import PROVIDER, Config, load_config
from .contracts import Listing, Rule, describe, describe_market, read_rule, rule_id
from .gateway import Gateway, open_gateway
from .library import check_installed, load_library
from .names import choose, futures_query, listing_name, parse_name, queries
from .session import Session

name = PROVIDER
log = logging.getLogger("providers.ib")
SearchFunction = Callable[[str], Awaitable[dict[str, MktPair]]]
_SEARCHED = frozenset(("STK", "IND", "CASH", "CRYPTO", "CMDTY"))


class Client:
    """Calls to TWS; made by `get_client`.

    A contract is named by its market name. Usable by several tasks at once; all clients
    of a trio run share one connection, and what it has told of contracts. Calls can be
    cancelled at any time. They raise NotFound for an unknown or ambiguous name,
    ProviderError if TWS cannot be reached, refuses or does not answer.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.config = gateway.config
        self.gateway = gateway
        self.archive = Archive(gateway)

    async def session(self) -> Session:
        """The connection that is open now, or the next one."""
        return await self.gateway.session()

    async def listing(self, market_name: str, *, refresh: bool = False) -> Listing:
        """What TWS says of the contract of a name, such as `mnq.cme.20261218.ib`.

        Asked for once a connection, unless `refresh`.
        """
        wanted = parse_name(market_name)
        known = self.gateway.known
        async with self.gateway.finding.setdefault(wanted.symbol, trio.Lock()):
            if refresh or wanted.symbol not in known:
                listing = await self._find(wanted)
                known[wanted.symbol] = known[listing.symbol] = listing
            return known[wanted.symbol]

    async def listing_by_id(self, con_id: int) -> Listing:
        """What TWS says of the contract of a number, under its own name."""
        listings = await self._describe_all(await self._descriptions({"conId": con_id}))
        if not listings:
            raise NotFound(f"TWS knows no contract of the number {con_id}")
        return listings[0]

    async def _find(self, wanted: Fqme) -> Listing:
        for fields in queries(wanted):
            rows = await self._descriptions(fields)
            row = choose(wanted, rows, self.config)
            if row is not None:
                return await self._describe(
                    listing_name(row.contract, wanted.venue), row
                )
        raise NotFound(
            f"TWS knows no contract {wanted.symbol}.{PROVIDER} "
            "(piker-core search lists those with a name like it)"
        )

    async def _descriptions(self, fields: dict[str, Any]) -> list[Any]:
        """All contracts that some fields describe; none if TWS knows none."""
        session = await self.session()  # which loads the library, in a thread
        contract = load_library().Contract(**fields)
        named = " ".join(str(value) for value in fields.values())
        try:
            rows = await session.ask(
                lambda requests, number: requests.reqContractDetails(number, contract),
                lambda kind, _: kind == "contractDetailsEnd",
                what=f"details of {named}",
                timeout_s=self.config.request_timeout_s,
            )
        except NotFound:
            return []
        return [row[0] for row in rows]

    async def _describe(self, symbol: str, row: Any) -> Listing:
        session = await self.session()
        number = rule_id(row)
        rule: Rule = ()
        try:
            rule = await self._rule(number) if number is not None else ()
        except ProviderError as error:
            log.warning("%s.%s has its least price step: %s", symbol, PROVIDER, error)
        return describe(symbol, row, rule, self.config, session.version)

    async def _rule(self, number: int) -> Rule:
        """Price steps by price; answers have no number but the rule's own."""
        known = self.gateway.rules
        async with self.gateway.finding.setdefault(f"rule {number}", trio.Lock()):
            if number not in known:
                session = await self.session()
                rows = await session.ask(
                    lambda requests, _: requests.reqMarketRule(number),
                    lambda kind, _: kind == "marketRule",
                    what=f"market rule {number}",
                    timeout_s=self.config.request_timeout_s,
                    key=("marketRule", number),
                )
                known[number] = read_rule(rows[-1][0])
            return known[number]

    async def search(self, pattern: str) -> list[Listing]:
        """Contracts whose symbol or name begins with a text, as TWS finds them.

        It finds 16 at most. Of those that futures are traded on, the futures as well.
        """
        session = await self.session()
        async with self.gateway.search_turn:
            wait_s = self.gateway.search_at_s - trio.current_time()
            await trio.sleep(max(wait_s, 0))
            self.gateway.search_at_s = (
                trio.current_time() + self.config.search_interval_s
            )
        rows = await session.ask(
            lambda requests, number: requests.reqMatchingSymbols(number, pattern),
            lambda kind, _: kind == "symbolSamples",
            what=f"symbols like {pattern!r}",
            timeout_s=self.config.request_timeout_s,
        )
        samples = rows[-1][0]
        found: list[list[Listing]] = [[] for _ in samples]
        async with open_nursery() as nursery:
            for sample, listings in zip(samples, found, strict=True):
                nursery.start_soon(self._add_sample, sample, listings)
        return [listing for listings in found for listing in listings]

    async def _add_sample(self, sample: Any, listings: list[Listing]) -> None:
        """A match and its futures; what TWS cannot describe is left out."""
        contract = sample.contract
        wanted = []
        if contract.secType in _SEARCHED:
            wanted.append({"conId": contract.conId})
        if "FUT" in sample.derivativeSecTypes:
            wanted.append(futures_query(contract))
        for fields in wanted:
            try:
                listings += await self._describe_all(await self._descriptions(fields))
            except PikerError as error:
                log.debug("%s is not listed: %s", contract.symbol, error)

    async def _describe_all(self, rows: list[Any]) -> list[Listing]:
        """Each contract once, by SMART where that routes it; the next expiry first."""
        rows.sort(key=lambda row: row.contract.exchange != "SMART")
        by_id = {row.contract.conId: row for row in reversed(rows)}
        listings = [
            await self._describe(listing_name(row.contract), row)
            for row in by_id.values()
        ]
        return sorted(listings, key=lambda listing: listing.expiry)


@asynccontextmanager
async def get_client(config: Config | None = None) -> AsyncIterator[Client]:
    """Open a client with `config`, by default the `[ib]` table.

    Nothing is sent yet. Raises PikerError if ib_async is not installed, ConfigError.
    """
    check_installed()
    async with open_gateway(config or load_config()) as gateway:
        yield Client(gateway)


async def get_mkt_info(
    fqme_or_symbol: str, *, client: Client | None = None
) -> tuple[MktPair, Listing]:
    """The market of a name, such as `aapl.nasdaq.ib`, and all that TWS says of it.

    Raises NotFound for a name that no contract or more than one has; it lists them.
    """
    async with _client_or_new(client) as opened:
        listing = await opened.listing(fqme_or_symbol)
        return describe_market(listing), listing


@asynccontextmanager
async def open_symbol_search(
    *, client: Client | None = None
) -> AsyncIterator[SearchFunction]:
    """A search by TWS: `await search("aap")` -> markets by fqme.

    Stocks, indices, forex, crypto and futures; of options TWS lists the underlying.
    """
    async with _client_or_new(client) as opened:

        async def search(pattern: str) -> dict[str, MktPair]:
            text = pattern.strip()
            listings = await opened.search(text) if text else []
            return {listing.fqme: describe_market(listing) for listing in listings}

        yield search


@asynccontextmanager
async def _client_or_new(client: Client | None) -> AsyncIterator[Client]:
    if client is not None:
        yield client
        return
    async with get_client() as opened:
        yield opened
