"""A provider for tests that takes orders: a broker over TCP that outlives its gateway.

Found as `plain_broker` once `register` was called. `$PLAIN_BROKER_PORT` says where it
listens. Quotes it has none: the test writes the market's ring.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.plain_broker.dialog import PlainDialog, run_dialog

__all__ = ["FQME", "NAME", "PORT", "open_trade_dialog", "register", "stream_quotes"]

NAME = "plain_broker"
FQME = f"xbtusd.{NAME}"
PORT = "PLAIN_BROKER_PORT"
capabilities = {"quotes": False, "history": False, "search": False, "orders": True}


def register() -> None:
    """Have it found by its name, in this process and in forks of it."""
    sys.modules[NAME] = sys.modules[__name__]


@asynccontextmanager
async def open_trade_dialog(
    account: str, symbols: Sequence[str] = ()
) -> AsyncIterator[PlainDialog]:
    """An account at the broker, as `piker_core.broker` has it."""
    async with run_dialog(account, int(os.environ[PORT])) as dialog:
        yield dialog


async def stream_quotes(*_: object, **__: object) -> None:
    """There are none."""
    raise NotImplementedError
