"""`order`, `cancel` and `ems run`: a client of a gateway, and a gateway alone."""

import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

from piker_core.cli.failures import OK, VENUE
from piker_core.cli.output import Output, utc_text
from piker_core.ems.client import Message, OrderClient
from piker_core.ems.opening import Place, find_place, run_gateway, seated
from piker_core.ems.risk import plain
from piker_core.errors import FeedError, WriterBusy
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdPosition,
    BrokerdStatus,
    Order,
    Status,
)
from piker_core.tasks import open_nursery

Where = tuple[str, bool, str | None, str | None]
"""A market, whether live, an account, a namespace."""
QUIET_S = 0.1
"""What follows at once is shown too: an order that rests may be filled already."""
_RESTS = ("open", "dark_open")


def _client(place: Place) -> OrderClient:
    """A client that takes no orders over."""
    return OrderClient(
        f"cli{uuid.uuid4().hex}",
        adopts=False,
        symbols=place.symbols,
        mode=place.mode,
    )


def _place(where: Where) -> Place:
    fqme, live, account, namespace = where
    return find_place(fqme, "live" if live else "paper", account, namespace)


def run_order(
    out: Output,
    fields: dict[str, Any],
    *,
    oid: str | None,
    place: Where,
    wait_s: float,
) -> int:
    """Send an order; the exit code says whether it was taken."""
    found = _place(place)
    order = Order(oid=oid or uuid.uuid4().hex[:16], account=found.account, **fields)

    async def work(client: OrderClient) -> int:
        await client.send(order)
        heard = await _watch(out, client, {order.oid}, _rests_or_ended, wait_s)
        return OK if _is_taken(heard[order.oid]) else VENUE

    return trio.run(_work, found, work)


def run_cancel(out: Output, oids: Sequence[str], *, place: Where, wait_s: float) -> int:
    """Cancel orders, all of the account if none is named."""
    found = _place(place)

    async def work(client: OrderClient) -> int:
        if not oids:
            await client.cancel_all()
            out.note("cancels are sent for every order of the account")
            return OK
        for oid in oids:
            await client.cancel(oid)
        heard = await _watch(out, client, set(oids), _ended, wait_s)
        failed = [oid for oid in oids if heard[oid][-1].resp != "canceled"]
        return VENUE if failed else OK

    return trio.run(_work, found, work)


async def _work(place: Place, work: Callable[[OrderClient], Any]) -> int:
    client = _client(place)
    async with seated(place, client):
        return int(await work(client))


def _is_taken(heard: list[Status]) -> bool:
    """Whether an order rests, or was filled, if only in part."""
    filled = any(one.resp == "fill" for one in heard)
    return filled or heard[-1].resp not in ("error", "canceled")


def _rests_or_ended(status: Status) -> bool:
    return status.resp in _RESTS or _ended(status)


def _ended(status: Status) -> bool:
    alert = isinstance(status.req, Order) and status.req.action == "alert"
    ends = ("closed", "canceled", "error", *(("triggered",) if alert else ()))
    return status.resp in ends


async def _watch(
    out: Output,
    client: OrderClient,
    oids: set[str],
    enough: Callable[[Status], bool],
    wait_s: float,
) -> dict[str, list[Status]]:
    """Print what becomes of orders until that is enough; what was said of each.

    Raises FeedError if nothing was heard of one in time.
    """
    heard: dict[str, list[Status]] = {}
    until = trio.current_time() + (wait_s or math.inf)
    with trio.move_on_at(until) as limit:
        async for message in client.stream:
            show_message(out, message)
            if isinstance(message, Status) and message.oid in oids:
                heard.setdefault(message.oid, []).append(message)
            newest = [statuses[-1] for statuses in heard.values()]
            done = len(newest) == len(oids) and all(map(enough, newest))
            limit.deadline = trio.current_time() + QUIET_S if done else until
    missing = sorted(oids - heard.keys())
    if missing:
        raise FeedError(f"nothing was heard of {', '.join(missing)} in {wait_s:g} s")
    return heard


def show_message(out: Output, message: Message) -> None:
    """One status or position, as a line or an object."""
    if out.json:
        kind = "position" if isinstance(message, BrokerdPosition) else "status"
        fields = msgspec.to_builtins(message)
        out.record(kind, **{name: fields[name] for name in fields if name != "msg"})
    elif isinstance(message, BrokerdPosition):
        average = f" at {plain(message.avg_price)}" if message.size else ""
        out.line(f"position {message.symbol} {plain(message.size)}{average}")
    else:
        out.line(_status_line(message))


def _status_line(status: Status) -> str:
    about = status.brokerd_msg
    details = ""
    if isinstance(about, BrokerdFill):
        details = f"{plain(about.size)} at {plain(about.price)}"
    elif isinstance(about, BrokerdError):
        details = about.reason
    elif isinstance(about, BrokerdStatus):
        details = f"filled {plain(about.filled)}, remaining {plain(about.remaining)}"
        details += f" ({about.reason})" if about.reason else ""
    moment = utc_text(status.time_ns / 1e9, 3)
    return f"{moment} {status.oid} {status.resp} {details}".rstrip()


def run_gateway_daemon(
    out: Output,
    fqmes: list[str],
    *,
    live: bool,
    account: str | None,
    seconds: float | None,
    namespace: str | None,
) -> None:
    """Run the gateway of an account for so many seconds, or until it is stopped."""
    place = find_place(fqmes, "live" if live else "paper", account, namespace)
    trio.run(_gateway, out, place, math.inf if seconds is None else seconds)


async def _gateway(out: Output, place: Place, limit_s: float) -> None:
    with trio.move_on_after(limit_s):
        async with open_nursery() as nursery:
            try:
                await nursery.start(run_gateway, place)
            except WriterBusy:
                raise WriterBusy(
                    f"another process runs the gateway of account {place.account!r} "
                    f"at {place.broker}: it serves all"
                ) from None
            told = f"{place.account} at {place.broker}, {place.mode}"
            out.note(f"the gateway of account {told}, is open; Ctrl-C ends it")
