"""A venue as the broker of a desk: its dialog, and requests over it.

A request goes to the venue once. Where it is not known whether it was done, because no
answer came or the dialog ended meanwhile, that is found out (`reconcile`).
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerLink, OpenTradeDialog, TradeDialog
from piker_core.config import EmsConfig
from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.reconcile import Change, Reconciler
from piker_core.errors import BrokerDown, ConfigError, PikerError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)
from piker_core.tasks import Backoff, open_nursery

AGAIN_S = 1.0
"""How often what waits for a link, or must be canceled, is tried."""

log = logging.getLogger("piker_core.ems")


class _Started:
    """Says once that it works."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.done = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self._task_status.started()


class LiveBroker:
    """Orders to a venue, for a desk, to which `join` ties it."""

    at_once = False
    due_ns = None

    def __init__(
        self, open_dialog: OpenTradeDialog, *, account: str, config: EmsConfig
    ) -> None:
        self.account, self.config = account, config
        self._open_dialog = open_dialog
        self._dialog: TradeDialog | None = None
        self._nursery: trio.Nursery | None = None
        self._put: Callable[[Change], None]
        self._reconciler = Reconciler(account, config)
        self._up = trio.Event()
        self.up = False

    def join(
        self,
        put: Callable[[Change], None],
        gateway: Callable[[], Gateway],
        is_ours: Callable[[str], bool],
    ) -> None:
        """Tie it to a desk. `is_ours`: whether there was ever such a reqid."""
        self._put = put
        self._reconciler.join(put, gateway, is_ours)

    # What the desk asks for

    def begin(
        self, dialogs: Sequence[Dialog], ledger: Ledger, note: Callable[[str], str]
    ) -> None:
        """Orders that live: what was on its way when they were stored is in doubt."""
        for dialog in dialogs:
            dialog.unknown = dialog.unknown or bool(dialog.asked)
        self._reconciler.begin(ledger, note)

    def take(self, message: BrokerdOrder | BrokerdCancel) -> Iterable[BrokerdMessage]:
        """Send it, in a task of its own."""
        if self._nursery is None:
            reqid, reason = str(message.reqid), "the broker's dialog is not open"
            self._put(lambda gateway: gateway.not_sent(reqid, reason, down=True))
        else:
            self._reconciler.sending.add(str(message.reqid))
            assert self._dialog is not None
            self._nursery.start_soon(self._send, message, self._dialog)
        return ()

    def feed(self, ticks: Any) -> Iterable[BrokerdMessage]:
        """Ticks are the venue's own business."""
        return ()

    def advance(self, now_ns: int) -> Iterable[BrokerdMessage]:
        """Nothing of it goes by the gateway's clock."""
        return ()

    def keep(self, dialogs: Mapping[str, Dialog]) -> Iterable[Dialog]:
        """Nothing is kept beside what the gateway keeps."""
        return ()

    # The dialog

    async def run(
        self,
        symbols: Sequence[str],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep a dialog open until cancelled. Raises what keeps the first closed."""
        backoff, started = Backoff(0.5, 30.0), _Started(task_status)
        while True:
            try:
                async with self._open_dialog(self.account, symbols) as dialog:
                    backoff.reset()
                    await self._use(dialog, started)
                log.warning("%s: the broker's dialog ended", self.account)
            except (PikerError, OSError) as error:
                if not started.done or isinstance(error, ConfigError):
                    raise
                log.warning("%s: no dialog with the broker: %s", self.account, error)
            await trio.sleep(backoff.next_s())

    async def _use(self, dialog: TradeDialog, started: "_Started") -> None:
        """Send and hear over a dialog until it ends."""
        async with open_nursery() as nursery:
            self._dialog, self._nursery = dialog, nursery
            try:
                self._up = trio.Event()
                nursery.start_soon(self._start, dialog, started)
                nursery.start_soon(self._every, dialog)
                nursery.start_soon(self._try_again)
                async for message in dialog:
                    self._hear(message, dialog)
                nursery.cancel_scope.cancel()
            finally:
                self._nursery, self.up = None, False

    def _hear(self, message: BrokerdMessage | BrokerLink, dialog: TradeDialog) -> None:
        if isinstance(message, BrokerdPosition):
            self._reconciler.compare([message])
        elif not isinstance(message, BrokerLink):
            self._put(lambda gateway: gateway.heard(message))
        elif message.up:
            self.up = True
            self._up.set()
            self._spawn(self._reconciler.reconcile, dialog, self._spawn)
        else:
            self.up = False
            reason = message.reason
            log.warning("%s: the broker is not connected: %s", self.account, reason)

    def _spawn(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Have it done beside all else, as long as there is a dialog."""
        if self._nursery is not None:
            self._nursery.start_soon(work, *arguments)

    async def _start(self, dialog: TradeDialog, started: "_Started") -> None:
        """Orders may come, once it is known what the account held before any."""
        if not self._reconciler.is_opened:
            await self._up.wait()
            await self._reconciler.adopt(dialog)
        started()

    async def _try_again(self) -> None:
        """Now and then, while there is a link: what waits for it is sent."""
        while True:
            await self._up.wait()
            if self.up:
                self._put(Gateway.try_again)
            await trio.sleep(AGAIN_S)

    async def _every(self, dialog: TradeDialog) -> None:
        while True:
            await trio.sleep(self.config.reconcile_s)
            if self.up:
                await self._reconciler.reconcile(dialog, self._spawn)

    async def _send(
        self, message: BrokerdOrder | BrokerdCancel, dialog: TradeDialog
    ) -> None:
        reqid = str(message.reqid)
        try:
            try:
                if isinstance(message, BrokerdOrder):
                    await dialog.submit(message)
                else:
                    await dialog.cancel(message)
            finally:
                self._reconciler.sending.discard(reqid)
        except trio.Cancelled:
            self._put(lambda gateway: gateway.in_doubt(reqid))
            raise
        except OutcomeUnknown as error:
            log.warning("order %s: %s", reqid, error)
            self._put(lambda gateway: gateway.in_doubt(reqid))
            await self._reconciler.resolve(dialog, reqid, message.symbol)
        except (PikerError, OSError) as error:
            reason, down = str(error), isinstance(error, BrokerDown)
            self._put(lambda gateway: gateway.not_sent(reqid, reason, down=down))
