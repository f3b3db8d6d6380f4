"""`positions`, `orders`, `ledger`, `ems kill` and `ems resume`: what is stored.

All of it is read from the accounts' files, whether or not a gateway runs. The trouble
of one account is told and keeps no other from being shown.
"""

import heapq
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

import msgspec

from piker_core.cli.failures import OK, OutputClosed, report, write_stdout
from piker_core.cli.output import Output, utc_text
from piker_core.cli.store_views import bounds, counted
from piker_core.config import state_folder
from piker_core.ems.database import Database, database_path, open_reader
from piker_core.ems.holding import EXACT
from piker_core.ems.kill_switch import kill, killed, resume
from piker_core.ems.ledger_rows import (
    export_csv,
    holdings,
    stored_terms,
    transactions,
)
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.risk import plain
from piker_core.errors import NotFound, PikerError

NS = 1_000_000_000
Show = Callable[[Database, str, str], None]


def stored_accounts(
    account: str | None = None, broker: str | None = None
) -> list[tuple[str, str]]:
    """Brokers and accounts that have a file. NotFound if there are none as named."""
    folder = state_folder()
    names = (path.stem.partition(".") for path in sorted(folder.glob("*.*.db")))
    known = [(name, rest) for name, _, rest in names]
    chosen = [
        one for one in known if broker in (None, one[0]) and account in (None, one[1])
    ]
    if not chosen and (account or broker):
        wanted = " at ".join(
            [f"account {account!r}" if account else "account"]
            + ([broker] if broker else [])
        )
        names_known = ", ".join(f"{name} at {where}" for where, name in known)
        raise NotFound(
            f"{folder} has no orders of an {wanted}; it has {names_known or 'none'}"
        )
    return chosen


def for_each(account: str | None, broker: str | None, show: Show) -> int:
    """Show something of each account. The first exit code that is not 0."""
    codes = []
    for at, name in stored_accounts(account, broker):
        try:
            _read(at, name, show)
        except OutputClosed:
            raise
        except PikerError as error:
            codes.append(report(error))
    return next(filter(None, codes), OK)


def show_positions(
    out: Output, *, account: str | None, broker: str | None, flat: bool
) -> int:
    """Print a table of positions."""
    table = []

    def show(database: Database, at: str, name: str) -> None:
        terms = stored_terms(database.connection)
        for symbol, held in sorted(holdings(database.connection).items()):
            if not symbol or not (held.size or flat):
                continue
            of = terms.get(symbol)
            multiplier = of.multiplier if of else Decimal(1)
            realised = EXACT.multiply(held.realised, multiplier)
            average = held.told_price()
            currency = of.currency if of else ""
            if out.json:
                out.record(
                    "position",
                    broker=at,
                    account=name,
                    symbol=symbol,
                    size=plain(held.size),
                    avg_price=plain(average),
                    currency=currency,
                    realised=plain(_short(realised)),
                    fees={key: plain(fee) for key, fee in held.fees.items()},
                    transactions=held.count,
                )
            table.append(
                (
                    *(f"{name} ({at})", symbol, plain(held.size)),
                    *(plain(_short(average)), plain(_short(realised)), currency),
                    _fees(held.fees),
                )
            )

    code = for_each(account, broker, show)
    if table and not out.json:
        names = ("account", "market", "size", "average", "realised", "currency", "fees")
        out.table(names, table)
    out.note(f"{counted(len(table), 'position')} in {state_folder()}")
    return code


def show_orders(
    out: Output, *, account: str | None, broker: str | None, ended: bool, count: int
) -> int:
    """Print a table of orders, oldest first; the newest `count` of each account."""
    table = []

    def show(database: Database, at: str, name: str) -> None:
        found = _dialogs(database.connection, ended=ended)
        newest = heapq.nlargest(count, found, key=lambda dialog: dialog.began_ns)
        for dialog in reversed(newest):
            if out.json:
                out.record("order", broker=at, **_order_fields(dialog))
            table.append((f"{name} ({at})", *_order_cells(dialog)))

    code = for_each(account, broker, show)
    if table and not out.json:
        names = ("account", "order", "market", "action", "state", "price", "size")
        out.table((*names, "filled", "began (UTC)"), table)
    out.note(f"{counted(len(table), 'order')} in {state_folder()}")
    return code


def show_ledger(
    out: Output,
    fqme: str | None,
    *,
    account: str | None,
    broker: str | None,
    start: str | None,
    end: str | None,
) -> int:
    """Print a table of transactions."""
    table = []
    start_ns, end_ns = _span(start, end)

    def show(database: Database, at: str, name: str) -> None:
        lines = transactions(database.connection, start_ns, end_ns, fqme or "")
        for line in lines:
            if out.json:
                fields = msgspec.to_builtins(line) | {
                    what: plain(getattr(line, what))
                    for what in ("size", "price", "fee")
                }
                del fields["msg"], fields["version"]
                fields["what"] = fields.pop("kind")
                out.record("transaction", broker=at, account=name, **fields)
                continue
            table.append(
                (
                    *(f"{name} ({at})", utc_text(line.time_ns / NS, 3), line.symbol),
                    *(line.kind, plain(line.size), plain(line.price)),
                    *(f"{plain(line.fee)} {line.fee_currency}".rstrip(), line.oid),
                )
            )

    code = for_each(account, broker, show)
    if table:
        names = ("account", "time (UTC)", "market", "kind", "size", "price", "fee")
        out.table((*names, "order"), table)
    out.note(f"{counted(len(table), 'transaction')} in {state_folder()}")
    return code


def export_ledger(
    out: Output,
    fqme: str | None,
    *,
    account: str | None,
    broker: str | None,
    start: str | None,
    end: str | None,
) -> int:
    """Write the transactions of one account as CSV."""
    chosen = stored_accounts(account, broker)
    if len(chosen) != 1:
        names = ", ".join(f"--broker {at} --account {name}" for at, name in chosen)
        raise NotFound(
            f"CSV is of one account, {state_folder()} has {len(chosen)}: "
            f"{names or 'none'}"
        )
    start_ns, end_ns = _span(start, end)

    def show(database: Database, _at: str, _name: str) -> None:
        count = export_csv(
            database.connection,
            _Stdout(),
            start_ns=start_ns,
            end_ns=end_ns,
            symbol=fqme or "",
        )
        out.note(counted(count, "transaction"))

    _read(*chosen[0], show)
    return OK


def kill_all(out: Output, reason: str) -> None:
    """Throw the kill switch."""
    kill(state_folder(), reason)
    text = killed(state_folder())
    if out.json:
        out.record("kill", folder=str(state_folder()), reason=reason, text=text)
    else:
        out.line(text)


def resume_all(out: Output) -> None:
    """Take the kill switch back."""
    was_killed = resume(state_folder())
    if out.json:
        out.record("resume", folder=str(state_folder()), was_killed=was_killed)
    elif was_killed:
        out.line(f"gateways of {state_folder()} send orders again")
    else:
        out.line(f"gateways of {state_folder()} were not stopped")


class _Stdout:
    """Standard output of a command as something to write to."""

    def write(self, text: str) -> None:
        write_stdout(text)


def _read(broker: str, account: str, show: Show) -> None:
    folder = state_folder()
    try:
        with open_reader(folder, broker, account) as database:
            show(database, broker, account)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        path = database_path(folder, broker, account)
        raise PikerError(f"{path} cannot be read: {error}") from None


def _dialogs(connection: sqlite3.Connection, *, ended: bool) -> Iterator[Dialog]:
    decode = msgspec.msgpack.Decoder(Dialog).decode
    where = "" if ended else " WHERE living OR untold"
    for (blob,) in connection.execute("SELECT dialog FROM orders" + where):
        dialog = decode(blob)
        if ended or not dialog.ended:
            yield dialog


def _order_fields(dialog: Dialog) -> dict[str, object]:
    order = dialog.order
    numbers = ("price", "size", "stop", "trail")
    shown = {name: getattr(order, name) for name in numbers}
    return {
        "account": order.account,
        "oid": order.oid,
        "reqid": dialog.reqid,
        "broker_id": dialog.broker_id,
        "symbol": order.symbol,
        "action": order.action,
        "exec_mode": order.exec_mode,
        "state": dialog.state,
        **{name: None if n is None else plain(n) for name, n in shown.items()},
        "filled": plain(dialog.filled),
        "tif": order.tif,
        "oco": order.oco,
        "began_ns": dialog.began_ns,
        "reason": dialog.reason,
    }


def _order_cells(dialog: Dialog) -> tuple[str, ...]:
    order = dialog.order
    extra: list[str] = ["dark"] if order.exec_mode == "dark" else []
    extra += [f"stop {plain(order.stop)}"] if order.stop is not None else []
    extra += [f"trail {plain(order.trail)}"] if order.trail is not None else []
    return (
        *(order.oid, order.symbol, " ".join((order.action, *extra)), dialog.state),
        *(plain(order.price), plain(order.size), plain(dialog.filled)),
        utc_text(dialog.began_ns / NS, 3),
    )


def _span(start: str | None, end: str | None) -> tuple[int, int | None]:
    start_s, end_s = bounds(start, end)
    return (start_s or 0) * NS, None if end_s is None else end_s * NS


def _short(number: Decimal) -> Decimal:
    """For people: to 8 decimals."""
    return EXACT.quantize(number, Decimal("1e-8"))


def _fees(fees: Mapping[str, Decimal]) -> str:
    texts = [
        f"{plain(fee)} {currency}".rstrip() for currency, fee in fees.items() if fee
    ]
    return ", ".join(texts)
