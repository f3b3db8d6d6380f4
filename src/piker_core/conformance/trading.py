"""Orders of the provider under check, in its process: what `subject` is asked of them.

Two things can be open: a dialog of the provider's own (`dialog_...`), and an account of
`open_ems` on top of it (`ems_...`). What they say is kept and can be read again.
"""

import inspect
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import ModuleType
from typing import Any, Literal

import msgspec
import trio

import piker_core.ems.opening
from piker_core.broker import TradeDialog
from piker_core.conformance.secrets import SecretWatch
from piker_core.ems.client import OrderClient
from piker_core.ems.opening import Opened, open_ems
from piker_core.orders import BrokerdCancel, BrokerdOrder, Order

METHODS = (
    *("submit", "cancel", "order", "orders", "fills", "positions", "cancel_all"),
    "statistics",
)
"""What a dialog has to have."""
_ARGUMENTS = {"submit": 1, "cancel": 1, "order": 2, "fills": 1}


class Heard:
    """What was said so far, for those who wait for more."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._more = trio.Event()

    def add(self, message: Any) -> None:
        """Something was said."""
        self.messages.append(message)
        self._more.set()
        self._more = trio.Event()

    async def after(self, count: int, within_s: float) -> list[Any]:
        """All but the first `count` messages; waits for one, so long at most."""
        with trio.move_on_after(within_s):
            while len(self.messages) <= count:
                await self._more.wait()
        return self.messages[count:]


class Opening:
    """Something that is open in a task of its own until it is closed."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._over.set()

    async def run(
        self,
        hold: Callable[[AsyncExitStack, trio.TaskStatus[None]], Awaitable[None]],
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Open it and hold it."""
        self._over = trio.Event()
        try:
            with self._scope:
                async with AsyncExitStack() as stack:
                    await hold(stack, task_status)
        finally:
            self._over.set()

    async def close(self) -> float:
        """Cancel it, as the end of a program does; the seconds that took."""
        begun_s = time.monotonic()
        self._scope.cancel()
        await self._over.wait()
        return time.monotonic() - begun_s


class Trading:
    """At most one dialog and one account of a provider."""

    nursery: trio.Nursery

    def __init__(self, provider: ModuleType) -> None:
        self.provider = provider
        self.secrets = SecretWatch()
        self._said, self._told = Heard(), Heard()
        self._dialog: TradeDialog | None = None
        self._client: OrderClient | None = None
        self._opened: Opened | None = None
        self._dialog_opening, self._ems_opening = Opening(), Opening()
        setattr(  # noqa: B010 - a provider in no entry point is found by its name, too
            piker_core.ems.opening, "find_provider", lambda _: provider
        )

    # The dialog

    async def do_dialog_open(
        self, account: str, symbols: list[str], settings: dict[str, str]
    ) -> dict[str, Any]:
        """Open the dialog, with settings that differ from those of the environment."""
        begun_s = time.monotonic()
        self._dialog_opening, self._said = Opening(), Heard()
        with _environment(settings):
            await self._guarded(
                self.nursery.start,
                self._dialog_opening.run,
                lambda stack, status: self._hold(stack, status, account, symbols),
            )
        return {"seconds": time.monotonic() - begun_s, "lacks": self._lacks()}

    async def _hold(
        self,
        stack: AsyncExitStack,
        task_status: trio.TaskStatus[None],
        account: str,
        symbols: list[str],
    ) -> None:
        dialog = await stack.enter_async_context(
            self.provider.open_trade_dialog(account, symbols)
        )
        self.secrets.look(repr(dialog), "the dialog's repr")
        self._dialog = dialog
        task_status.started()
        try:
            async for message in dialog:
                self._said.add(message)
        finally:
            self._dialog = None

    def _lacks(self) -> list[str]:
        """What the dialog has not, or not so that it can be called."""
        dialog = self._dialog
        lacks = [name for name in ("account", "accounts") if not hasattr(dialog, name)]
        for name in METHODS:
            method = getattr(dialog, name, None)
            if method is None:
                lacks.append(name)
                continue
            if name != "statistics" and not inspect.iscoroutinefunction(method):
                lacks.append(f"{name} (it is no async function)")
            try:
                inspect.signature(method).bind(*[None] * _ARGUMENTS.get(name, 0))
            except TypeError as error:
                lacks.append(f"{name} ({error})")
        return lacks

    async def do_dialog_close(self) -> float:
        """Close it."""
        return await self._dialog_opening.close()

    async def do_dialog_said(self, after: int, patience_s: float) -> list[Any]:
        """What it has said since so many messages."""
        return await self._said.after(after, patience_s)

    async def do_dialog_call(self, method: str, arguments: list[Any]) -> Any:
        """Call a method that asks the venue for something."""
        return await self._guarded(getattr(self._open_dialog(), method), *arguments)

    async def do_dialog_submit(self, order: dict[str, Any]) -> None:
        """Submit an order."""
        dialog = self._open_dialog()
        await self._guarded(dialog.submit, msgspec.convert(order, BrokerdOrder))

    async def do_dialog_cancel(self, cancel: dict[str, Any]) -> None:
        """Cancel one."""
        dialog = self._open_dialog()
        await self._guarded(dialog.cancel, msgspec.convert(cancel, BrokerdCancel))

    async def do_dialog_counts(self) -> dict[str, int]:
        """Its counters."""
        return dict(self._open_dialog().statistics())

    def _open_dialog(self) -> TradeDialog:
        if self._dialog is None:
            raise RuntimeError("the dialog has ended by itself")
        return self._dialog

    # What must not be seen

    async def do_secrets_watch(self, secrets: list[str]) -> None:
        """Look for these in all that is logged, at every level, and raised from now."""
        self.secrets.begin(secrets)

    async def do_secrets_seen(self) -> dict[str, Any]:
        """Where they were seen, and how many lines of the log were looked at."""
        return {"seen": list(self.secrets.seen), "lines": self.secrets.lines}

    async def _guarded(
        self, call: Callable[..., Awaitable[Any]], *arguments: Any
    ) -> Any:
        try:
            return await call(*arguments)
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            frame = getattr(error, "frame", None)
            self.secrets.look(f"{text}{error!r}{frame!r}", type(error).__name__)
            raise

    # An account

    async def do_ems_open(
        self, symbols: list[str], mode: Literal["paper", "live"]
    ) -> dict[str, Any]:
        """Open an account, as a strategy does."""
        begun_s = time.monotonic()
        self._ems_opening, self._told = Opening(), Heard()
        await self._guarded(
            self.nursery.start,
            self._ems_opening.run,
            lambda stack, status: self._trade(stack, status, symbols, mode),
        )
        return {"seconds": time.monotonic() - begun_s}

    async def _trade(
        self,
        stack: AsyncExitStack,
        task_status: trio.TaskStatus[None],
        symbols: list[str],
        mode: str,
    ) -> None:
        self._opened = await stack.enter_async_context(
            open_ems(symbols, mode=mode, client="check")
        )
        self._client = self._opened[0]
        task_status.started()
        async for message in self._opened[1]:
            self._told.add(message)

    async def do_ems_close(self) -> float:
        """Close it."""
        return await self._ems_opening.close()

    async def do_ems_said(self, after: int, patience_s: float) -> list[Any]:
        """What it has told since so many messages."""
        return await self._told.after(after, patience_s)

    async def do_ems_send(self, order: dict[str, Any]) -> None:
        """Send an order."""
        assert self._client is not None
        await self._client.send(msgspec.convert(order, Order))

    async def do_ems_update(self, oid: str, price: str) -> None:
        """Give an order another price."""
        assert self._client is not None
        await self._client.update(oid, price=price)

    async def do_ems_cancel(self, oid: str) -> None:
        """Cancel an order."""
        assert self._client is not None
        await self._client.cancel(oid)

    async def do_ems_positions(self) -> list[Any]:
        """The positions of its ledger."""
        assert self._opened is not None
        rows = self._opened[2].values()
        return [position for row in rows for position in row.values()]


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
