"""Feeds that a gateway opens for the markets of its clients in other processes."""

import logging
from collections.abc import Iterable

import trio

from piker_core.core.rings import attach_bars
from piker_core.ems.markets import Markets
from piker_core.errors import NotFound, PikerError
from piker_core.feed import open_feed
from piker_core.fqme import parse_fqme
from piker_core.tasks import Backoff

log = logging.getLogger("piker_core.ems")


def unfed(symbols: Iterable[str], namespace: str) -> list[str]:
    """Those of these markets that nobody feeds now."""
    missing = []
    for symbol in symbols:
        try:
            with attach_bars(symbol, period=1, namespace=namespace) as bars:
                if bars.writer_alive:
                    continue
        except NotFound:
            pass
        missing.append(symbol)
    return missing


class Feeds:
    """Has markets fed, and known to a gateway, until its nursery is cancelled."""

    def __init__(self, markets: Markets, nursery: trio.Nursery) -> None:
        self._markets, self._nursery = markets, nursery

    async def have(self, symbols: Iterable[str]) -> None:
        """Have markets fed, by this process if nobody does.

        Raises PikerError, OSError for one that cannot be.
        """
        wanted = list(dict.fromkeys(symbols))
        for symbol in wanted:
            if parse_fqme(symbol)[1] != self._markets.broker:
                raise PikerError(
                    f"market {symbol!r} is not one of {self._markets.broker}"
                )
        missing = unfed(wanted, self._markets.namespace)
        if missing:
            await self._nursery.start(self._feed, missing)
        for symbol in wanted:
            self._markets.find(symbol)

    def have_soon(self, symbols: Iterable[str]) -> None:
        """The same, tried until it is done: for a client that was let in before."""
        self._nursery.start_soon(self._have_at_last, list(symbols))

    async def _have_at_last(self, symbols: list[str]) -> None:
        backoff = Backoff()
        while True:
            try:
                await self.have(symbols)
            except (PikerError, OSError) as error:
                log.warning("markets of a client cannot be fed: %s", error)
                await trio.sleep(backoff.next_s())
            else:
                return

    async def _feed(
        self,
        symbols: list[str],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Feed markets; what ends that later is told, and ends nothing else."""
        is_open = False
        try:
            async with open_feed(symbols, namespace=self._markets.namespace):
                is_open = True
                task_status.started()
                await trio.sleep_forever()
        except (PikerError, OSError) as error:
            if not is_open:
                raise
            log.error("%s: not fed any more: %s", ", ".join(symbols), error)
