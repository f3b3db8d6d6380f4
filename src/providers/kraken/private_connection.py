"""The private connection that is kept: tokens, reconnects, the dead-man's switch.

1. A lost connection is tried again at once, then with jittered back-off, each time with
   a fresh token. A key that was refused is left alone for `lockout_s`.
2. The dead-man's switch is put off four times in its time, while there is a connection,
   and taken away before an orderly end.

Source: https://docs.kraken.com/api/docs/websocket-v2/cancel_after
"""

import logging

import trio

from piker_core.adapter.limiter import Limiter
from piker_core.adapter.shared import share
from piker_core.errors import ProviderError
from piker_core.tasks import Backoff, open_nursery

from .api import Config
from .private_link import LinkHost, PrivateLink
from .private_rest import KeyRefused, PrivateClient

log = logging.getLogger("providers.kraken.broker")

_PROVEN_S = 5.0
_GOODBYE_S = 2.0


class PrivateConnection:
    """Keeps a `PrivateLink` open for its host."""

    def __init__(self, host: LinkHost, config: Config, private: PrivateClient) -> None:
        self.opened = 0
        """Connections so far."""
        self._host, self._config, self._private = host, config, private
        self._link: PrivateLink | None = None
        self._first = trio.Event()
        self._failure: ProviderError | None = None
        self._reason = "no answer"

    @property
    def link(self) -> PrivateLink | None:
        """The connection, once it is subscribed and while it lasts."""
        return self._link if self._link is not None and self._link.ready else None

    async def wait_first(self) -> None:
        """Wait until it works for the first time. Raises ProviderError if not."""
        timeout_s = self._config.connect_timeout_s
        with trio.move_on_after(timeout_s):
            await self._first.wait()
        if self._failure is not None:
            raise self._failure
        if not self._first.is_set():
            raise ProviderError(
                f"no private connection to {self._config.ws_auth_url} within "
                f"{timeout_s:g} s ({self._reason}); check the network, "
                "https://status.kraken.com and ws_auth_url in [kraken]"
            )

    async def run(self) -> None:
        """Keep it, for ever. Raises ConfigError for an unusable `ws_auth_url`."""
        backoff = Backoff()
        while True:
            await trio.sleep(backoff.next_s())
            begun = trio.current_time()
            self._reason = await self._serve()
            self._host.lost(self._reason)
            if trio.current_time() - begun > _PROVEN_S:
                backoff.reset()

    async def _serve(self) -> str:
        """One connection, from its token to its end; why it ended."""
        try:
            token = await self._private.token()
        except KeyRefused as error:
            log.error("%s", error)
            self._failure = self._failure or error
            self._first.set()
            await trio.sleep(self._config.lockout_s)
            return str(error)
        except ProviderError as error:
            log.warning("no token for a private connection: %s", error)
            return f"no token: {error}"
        await self._attempts().acquire()
        link = self._link = PrivateLink(self._host, self._config, token)
        self.opened += 1
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(self._attend, link)
                reason = await link.run()
                nursery.cancel_scope.cancel()
        finally:
            self._link = None
        log.info("private connection ended: %s", reason)
        return reason

    def _attempts(self) -> Limiter:
        """How often the address may be connected to, by all of this run."""
        rate, burst = self._config.connect_rate, self._config.connect_burst
        key = ("connect", self._config.ws_auth_url, rate, burst)
        return share(key, lambda: Limiter(rate, burst))

    # The dead-man's switch

    async def _attend(self, link: PrivateLink) -> None:
        """Once it works, put off when the venue cancels everything, again and again."""
        await link.works.wait()
        self._first.set()
        timeout_s = self._config.dead_man_s
        while timeout_s:
            await self._put_off(link, timeout_s)
            await trio.sleep(timeout_s / 4)

    async def stand_down(self) -> None:
        """Before an orderly end: have the venue cancel nothing."""
        if self._config.dead_man_s and self.link is not None:
            with trio.move_on_after(_GOODBYE_S, shield=True):
                await self._put_off(self.link, 0)

    async def _put_off(self, link: PrivateLink, timeout_s: int) -> None:
        try:
            await link.ask("cancel_all_orders_after", {"timeout": timeout_s})
        except ProviderError as error:
            log.warning("the dead-man's switch is not set: %s", error)
