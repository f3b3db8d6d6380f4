"""Brokers with one thing wrong each: a good one, with a dialog around its dialog."""

import sys
from pathlib import Path
from typing import NamedTuple

GOOD = '''
import logging
from contextlib import asynccontextmanager

import msgspec
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerLink
from piker_core.config import load_section
from piker_core.errors import ConfigError, OrderError, ProviderError
from piker_core.orders import *
from providers.{base} import *
import providers.{base} as base

log = logging.getLogger(__name__)
KEPT = []


class Dialog:
    """As good as what is in it."""

    def __init__(self, inner, keep):
        self.inner, self.keep = inner, keep
        self.account, self.accounts = inner.account, inner.accounts
        self.held, self.count = [], 0

    async def submit(self, order):
        await self.inner.submit(order)

    async def cancel(self, cancel):
        await self.inner.cancel(cancel)

    async def __aiter__(self):
        async for message in self.inner:
            for told in self.told(message):
                yield told

    def told(self, message):
        return [message]

    async def order(self, reqid, symbol):
        return await self.inner.order(reqid, symbol)

    async def orders(self):
        return await self.inner.orders()

    async def fills(self, since_ns, symbol=""):
        return await self.inner.fills(since_ns, symbol)

    async def positions(self):
        return await self.inner.positions()

    async def cancel_all(self):
        await self.inner.cancel_all()

    def statistics(self):
        return self.inner.statistics()


@asynccontextmanager
async def open_trade_dialog(account, symbols=()):
    """Raises ConfigError without keys, ProviderError for wrong ones."""
    async with base.open_trade_dialog(account, symbols) as inner:
        yield Dialog(inner, trio.lowlevel.spawn_system_task)


def norm_trade(record):
    """Of a record of the venue."""
    return base.norm_trade(record)
'''
_VENUE = """
from providers.{base}.venue import *
from providers.{base}.venue import PATIENCE, open_venue
LENIENT = {{}}
try:
    from providers.{base}.venue import LENIENT
except ImportError:
    pass
"""
_TRADING = "from providers.{base}.venue_trading import open_private\n"


class BrokenBroker(NamedTuple):
    """What is changed, the check that has to find it, and in what words."""

    what: str
    check: str
    text: str
    changes: tuple[tuple[str, str], ...]
    base: str = "kraken"


def broken(
    what: str,
    check: str,
    text: str,
    *changes: tuple[str, str],
    base: str = "kraken",
) -> BrokenBroker:
    """A broker; `text` is a pattern."""
    return BrokenBroker(what, f"broker.{check}", text, changes, base)


def instead(words: str, *lines: str, indent: int = 8) -> tuple[str, str]:
    """Lines in the place of a line with these words."""
    return (" " * indent + words, "\n".join(" " * indent + line for line in lines))


def telling(*lines: str) -> tuple[str, str]:
    """Something else is told in place of a message."""
    return instead("return [message]", *lines, "return [message]")


_SUBMIT = "await self.inner.submit(order)"
_COPY = (
    "other = msgspec.structs.replace(order, reqid=f'{order.reqid}z')",
    "await self.inner.submit(other)",
)
_OPEN = "    async with base.open_trade_dialog(account, symbols) as inner:"
_LATER = (
    "if isinstance(message, BrokerdOrderAck):",
    "    self.held.append(message)",
    "    return []",
    "if isinstance(message, BrokerdStatus) and message.status != 'pending':",
    "    held, self.held = self.held, []",
    "    return [message, *held]",
)
BROKEN = (
    broken(
        "nothing says what is raised",
        "contract",
        r"does not say when ConfigError is raised",
        ("Raises ConfigError without keys,", "Raises"),
    ),
    broken(
        "missing keys are an error of its own",
        "keys",
        r"missing keys: it raises RuntimeError.*, not ConfigError",
        (
            _OPEN,
            (
                "    if not load_section(name, base.api.Config).api_key:\n"
                f"        raise RuntimeError('no keys')\n{_OPEN}"
            ),
        ),
    ),
    broken(
        "every order is sent twice",
        "place",
        r"one order was sent, and 2 are open",
        instead(_SUBMIT, _SUBMIT, *_COPY),
    ),
    broken(
        "orders are not acknowledged",
        "place",
        r"no BrokerdOrderAck names order",
        telling("if isinstance(message, BrokerdOrderAck):", "    return []"),
    ),
    broken(
        "orders are acknowledged late",
        "fill",
        r"a Brokerd\w+ comes before the BrokerdOrderAck",
        telling(*_LATER),
    ),
    broken(
        "a fill is lost",
        "partial",
        r"fills of order \w+ do not add up to",
        telling(
            "if isinstance(message, BrokerdFill):",
            "    self.count += 1",
            "    return [message] if self.count == 1 else []",
        ),
    ),
    broken(
        "changes of the size are passed over",
        "amend",
        r"was changed to \S+ at \S+, and is \S+ at",
        instead(
            _SUBMIT,
            "self.sizes = getattr(self, 'sizes', {})",
            "size = self.sizes.setdefault(order.reqid, order.size)",
            "order = msgspec.structs.replace(order, size=size)",
            _SUBMIT,
        ),
    ),
    broken(
        "a cancel of nothing is raised",
        "cancel",
        r"a cancel of an order that has ended raises OrderError",
        instead(
            "await self.inner.cancel(cancel)",
            "if await self.inner.order(cancel.reqid, cancel.symbol) in KEPT:",
            "    raise OrderError('there is no such order')",
            "await self.inner.cancel(cancel)",
            "KEPT.append(await self.inner.order(cancel.reqid, cancel.symbol))",
        ),
    ),
    broken(
        "refusals are not told",
        "refused",
        r"an order off the tick is answered by no BrokerdError",
        telling("if isinstance(message, BrokerdError):", "    return []"),
    ),
    broken(
        "one order alone is canceled of all",
        "cancel_all",
        r"is not told to be canceled",
        instead(
            "await self.inner.cancel_all()",
            "row = (await self.orders())[0]",
            "await self.cancel(BrokerdCancel(oid='', time_ns=1, account='',",
            "    reqid=row.reqid, symbol=row.symbol))",
        ),
    ),
    broken(
        "the position is that of the beginning",
        "positions",
        r"positions\(\) says \S+, the venue has",
        instead(
            "return await self.inner.positions()",
            "self.held = self.held or await self.inner.positions()",
            "return [msgspec.structs.replace(row, size=1) for row in self.held]",
        ),
    ),
    broken(
        "what was sold is a purchase in the ledger",
        "norm_trade",
        r"norm_trade makes .* of executions",
        instead(
            "return base.norm_trade(record)",
            "line = base.norm_trade(record)",
            "return line and msgspec.structs.replace(line, size=-line.size)",
            indent=4,
        ),
    ),
    broken(
        "the key is logged",
        "secrets",
        r"a key was seen in the log of \w+, level DEBUG",
        instead(
            _SUBMIT,
            "key = load_section(name, base.api.Config).api_key",
            "log.debug('an order of %s', key.reveal())",
            _SUBMIT,
        ),
    ),
    broken(
        "the key is in an error",
        "keys",
        r"a key was seen in ProviderError",
        (
            _OPEN,
            (
                "    key = load_section(name, base.api.Config).api_key\n"
                "    if key.reveal().startswith('w1'):\n"
                "        raise ProviderError(f'the key {key.reveal()} is wrong')\n"
                f"{_OPEN}"
            ),
        ),
    ),
    broken(
        "a task is left behind",
        "shutdown",
        r"left open: tasks: .*sleep_forever",
        instead(
            _SUBMIT,
            _SUBMIT,
        ),
        (
            "        self.held, self.count = [], 0",
            "        self.held, self.count = [], 0\n        keep(trio.sleep_forever)",
        ),
    ),
    broken(
        "every report of a fill is a new one",
        "reports",
        r"fills of order '\w+' add up to|the ledger has|does not say|the gateway says",
        telling(
            "if isinstance(message, BrokerdFill):",
            "    self.count += 1",
            "    fill_id = f'{message.fill_id}.{self.count}'",
            "    return [msgspec.structs.replace(message, fill_id=fill_id)]",
        ),
    ),
    broken(
        "an order whose answer was lost is sent again",
        "lost_answer",
        r"it was sent again",
        instead(
            _SUBMIT,
            "try:",
            f"    {_SUBMIT}",
            "except OutcomeUnknown:",
            *(f"    {line}" for line in _COPY),
            "    raise",
        ),
    ),
    broken(
        "an order whose answer was lost is taken for refused",
        "lost_answer",
        r"raises no OutcomeUnknown",
        instead(
            _SUBMIT,
            "try:",
            f"    {_SUBMIT}",
            "except OutcomeUnknown as error:",
            "    self.held.append(error)",
        ),
    ),
    broken(
        "an order that was cut off is certainly not done",
        "cut_request",
        r"raises ProviderError: .*not OutcomeUnknown",
        instead(
            _SUBMIT,
            "try:",
            f"    {_SUBMIT}",
            "except OutcomeUnknown:",
            "    raise ProviderError('it was not done') from None",
        ),
        base="binance",
    ),
    broken(
        "what was filled meanwhile is not in the list of fills",
        "cut",
        r"fills of \w+ are told as \[\], the venue has",
        instead(
            "return await self.inner.fills(since_ns, symbol)",
            "return (await self.inner.fills(since_ns, symbol))[:-1]",
        ),
    ),
    broken(
        "a lost connection is not told",
        "cut",
        r"no BrokerLink says that the connection is lost",
        telling(
            "if isinstance(message, BrokerLink) and not message.up:", "    return []"
        ),
    ),
    broken(
        "the limits of the venue are passed over",
        "limits",
        r"the venue refused \d+ requests that were over its limits",
        (
            "    async with base.open_trade_dialog(account, symbols) as inner:\n",
            (
                "    async def free(*_, **__):\n        return 0.0\n\n"
                "    import providers.kraken.engine_limits as limits\n"
                "    limits.EngineLimits.spend = free\n"
                "    async with base.open_trade_dialog(account, symbols) as inner:\n"
            ),
        ),
    ),
    broken(
        "fills have another price",
        "run",
        r"fills of order '\w+' are told as",
        telling(
            "if isinstance(message, BrokerdFill):",
            "    price = message.price + 1",
            "    return [msgspec.structs.replace(message, price=price)]",
        ),
    ),
    broken(
        "a task outlives the account",
        "end",
        r"left open: tasks: .*sleep_forever",
        (
            "        self.held, self.count = [], 0",
            "        self.held, self.count = [], 0\n        keep(trio.sleep_forever)",
        ),
    ),
)


def make_broker(name: str, folder: Path, broker: BrokenBroker) -> None:
    """Write a package with this broker, so that it can be imported."""
    text = GOOD.format(base=broker.base)
    for words, other in broker.changes:
        assert words in text, f"there is no {words!r}"
        text = text.replace(words, other)
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text(text)
    (package / "venue.py").write_text(_VENUE.format(base=broker.base))
    (package / "venue_trading.py").write_text(_TRADING.format(base=broker.base))
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
