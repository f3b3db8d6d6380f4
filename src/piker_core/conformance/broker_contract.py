"""What a provider that takes orders promises: names, words, keys, lines of a ledger."""

import inspect
from collections import Counter
from decimal import Decimal
from types import ModuleType
from typing import Any

import trio

from piker_core.conformance.contract import mismatches
from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.resources import leaked
from piker_core.conformance.stage import Stage
from piker_core.conformance.trader import Trader
from piker_core.conformance.venues import as_settings
from piker_core.errors import PikerError
from piker_core.orders import Transaction

RAISED = ("ConfigError", "ProviderError")
_WAYS = ((1, ()), (2, ()), (1, ("symbols",)))
_NONSENSE: tuple[Any, ...] = ({}, {"rain": 1}, [], "nonsense", None)
GRACE_S = 3.0
SETTLE_S = (0.0, 0.1, 0.2, 0.5, 1.0, 1.5)
"""The far ends of connections close a little later."""


def check_contract(provider: ModuleType) -> Passed:
    """The names and the signatures of orders, and what the docstring says is raised."""
    open_dialog = getattr(provider, "open_trade_dialog", None)
    if open_dialog is None:
        raise NotApplicable("it takes no orders: it has no open_trade_dialog")
    if not hasattr(provider, "norm_trade"):
        raise Failed("it has open_trade_dialog, and no norm_trade")
    wrong = mismatches(open_dialog, _WAYS)
    if wrong:
        raise Failed(f"open_trade_dialog: {'; '.join(wrong)}")
    told = inspect.getdoc(open_dialog) or ""
    lacks = [name for name in RAISED if name not in told]
    if lacks:
        raise Failed(
            "the docstring of open_trade_dialog does not say when "
            f"{' and '.join(lacks)} is raised"
        )
    if not inspect.getdoc(provider.norm_trade):
        raise Failed("norm_trade has no docstring that says what it takes")
    return Passed("open_trade_dialog and norm_trade, and what they raise")


async def check_keys(stage: Stage) -> Passed:
    """Without keys a ConfigError, with wrong ones a ProviderError, in a sentence."""
    trader = stage.trader
    private = trader.private
    if not private.keys:
        raise NotApplicable("its venue has no keys")
    await trader.know()
    missing = dict.fromkeys(private.keys, "")
    said = await _refused(stage, missing, "missing keys", "ConfigError")
    if not all(key in said for key in private.keys):
        raise Failed(f"the error of missing keys does not name them: {said}")
    await _refused(stage, dict(private.wrong_keys), "wrong keys", "ProviderError")
    await trader.unseen()
    return Passed(f"missing: {said}")


async def _refused(stage: Stage, keys: dict[str, Any], what: str, kind: str) -> str:
    """The text of the error that opening a dialog with such keys is."""
    trader = stage.trader
    try:
        await trader.dial(as_settings(stage.provider, keys))
    except Told as error:
        bases = {base.__name__ for base in _class_of(error.kind).__mro__}
        if kind not in bases:
            raise Failed(f"{what}: it raises {error}, not {kind}") from None
        if len(error.text.splitlines()) != 1:
            raise Failed(f"{what}: the error is not one sentence: {error}") from None
        return error.text
    await trader.close()
    raise Failed(f"{what}: the dialog opens")


def _class_of(name: str) -> type:
    """An error of ours by its name; its own kinds count as ProviderError's."""
    waiting = [PikerError]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == name:
            return kind
        waiting += kind.__subclasses__()
    return Exception


async def check_secrets(stage: Stage) -> Passed:
    """No key was in a log, an error or a repr, of what was run before, too."""
    trader = stage.trader
    if not trader.private.secrets:
        raise NotApplicable("its venue has no keys")
    await trader.open()
    order = await trader.rest()
    await trader.end(order)
    lines = await trader.unseen()
    return Passed(f"in none of {lines} lines of logs, in no error")


async def check_norm_trade(stage: Stage) -> Passed:
    """Executions as the venue tells them are lines of a ledger; nonsense is none."""
    trader = stage.trader
    await trader.open()
    order = await trader.place("buy", Decimal("0.01"))
    await trader.until_status(str(order.reqid), "closed")
    records = trader.private.records()
    if not records:
        raise NotApplicable("the private side of its venue gives no records")
    lines = [_line(stage.provider, record) for record in records]
    told = Counter((line.size, line.price) for line in lines)
    true = Counter(
        (each.size if each.side == "buy" else -each.size, each.price)
        for each in trader.private.fills()
    )
    if told != true:
        raise Failed(f"norm_trade makes {sorted(told)} of executions {sorted(true)}")
    if len({line.tid for line in lines}) != len(lines):
        raise Failed("norm_trade gives two executions one tid")
    ids = {fill.fill_id for fill in await trader.fills()}
    if not ids <= {line.tid for line in lines}:
        raise Failed("the tid of norm_trade is not the fill_id of fills()")
    _check_nonsense(stage.provider)
    return Passed(f"{len(lines)} lines, as many as executions; nonsense is refused")


def _line(provider: ModuleType, record: Any) -> Transaction:
    line = provider.norm_trade(record)
    if not isinstance(line, Transaction) or line.kind != "fill":
        raise Failed(f"norm_trade makes {line!r:.80} of an execution")
    return line


def _check_nonsense(provider: ModuleType) -> None:
    for record in _NONSENSE:
        try:
            line = provider.norm_trade(record)
        except PikerError:
            continue
        except Exception as error:  # noqa: BLE001 - it becomes a line of the report
            raise Failed(f"norm_trade({record!r}) raises {error!r}") from None
        if line is not None:
            raise Failed(f"norm_trade({record!r}) is {line!r:.80}")


async def check_shutdown(stage: Stage) -> Passed:
    """A dialog that is cancelled ends soon, and leaves nothing open."""
    trader = stage.trader
    await trader.open()
    took_s = await trader.close()
    if took_s > GRACE_S:
        raise Failed(f"it took {took_s:.1f} s to close, allowed are {GRACE_S:g}")
    return await nothing_left(trader, f"closed within {took_s * 1e3:.0f} ms")


async def nothing_left(trader: Trader, done: str) -> Passed:
    """Raises Failed if the process holds more than before the first dialog."""
    left: dict[str, list[str]] = {}
    for wait_s in SETTLE_S:
        await trio.sleep(wait_s)
        left = leaked(trader.at_first, await trader.look())
        if not left:
            break
    if left:
        text = "; ".join(f"{kind}: {', '.join(what)}" for kind, what in left.items())
        raise Failed(f"{done}; left open: {text}")
    return Passed(f"{done}; descriptors, threads and tasks as before")
