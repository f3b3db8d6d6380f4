"""`open_ems`: orders of one account, for as many strategies and processes as want it.

1. Whoever first opens an account holds its lock and runs its gateway; others are
   clients of it over its socket.
2. When that process ends or dies, one of the others takes over: it reads what is
   stored, asks the broker what has become of it, and goes on. Requests that were not
   done then are said again by the clients, by themselves.
"""

import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec
import trio

from piker_core.config import (
    AccountConfig,
    EmsConfig,
    config_path,
    load_named,
    load_section,
    state_folder,
)
from piker_core.control import Link, LinkError
from piker_core.control_socket import close_in_children, connect_to
from piker_core.core.rings import checked_namespace
from piker_core.ems.client import Messages, OrderClient, Positions
from piker_core.ems.database import Database, open_database
from piker_core.ems.desk import Desk
from piker_core.ems.feeds import Feeds, unfed
from piker_core.ems.link import MOST, UNREADABLE, Welcome, socket_name
from piker_core.ems.live import LiveBroker
from piker_core.ems.markets import Markets
from piker_core.ems.paper_broker import PaperBroker
from piker_core.ems.risk import Risk, RiskConfig
from piker_core.ems.seats import NAMED, Asked, Entering, Seat
from piker_core.ems.server import Server, follow, listening
from piker_core.errors import ConfigError, PikerError, WriterBusy
from piker_core.feed import open_feed
from piker_core.fqme import parse_fqme
from piker_core.orders import Cancel, Order, Status, Update
from piker_core.provider import find_provider
from piker_core.tasks import Backoff, open_nursery

PAPER = "paper"
"""The account of paper orders."""
FLUSH_S = 10.0
"""How long requests that are not done or not sent yet are waited for at the end."""
Mode = Literal["paper", "live"]
Opened = tuple[
    OrderClient,
    Messages,
    Positions,
    list[str],
    dict[str, Status],
]

log = logging.getLogger("piker_core.ems")


class Place(msgspec.Struct, frozen=True):
    """Which orders: of an account at a broker, kept in a folder, on rings."""

    broker: str
    account: str
    mode: Mode
    namespace: str
    folder: Path
    symbols: list[str]

    @property
    def socket(self) -> str:
        """The file name of the gateway's socket."""
        return socket_name(self.folder, self.broker, self.account)


def find_place(
    fqmes: str | Sequence[str], mode: str, account: str | None, namespace: str | None
) -> Place:
    """Where the orders of these markets are kept. Raises PikerError, ConfigError."""
    symbols = [fqmes] if isinstance(fqmes, str) else list(fqmes)
    brokers = {parse_fqme(symbol)[1] for symbol in symbols}
    if len(brokers) != 1:
        raise PikerError(
            f"open_ems() takes markets of one provider, not {sorted(brokers)}: "
            "open one for each"
        )
    if mode not in ("paper", "live"):
        raise PikerError(f"mode {mode!r:.40} must be paper or live")
    broker = brokers.pop()
    name = account or (PAPER if mode == "paper" else broker)
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise PikerError(f"account {name!r:.40} must be of letters, digits, - and _")
    if mode == "live":
        _check_live(name, broker)
    return Place(
        broker=broker,
        account=name,
        mode="live" if mode == "live" else "paper",
        namespace=checked_namespace(namespace),
        folder=state_folder(),
        symbols=symbols,
    )


def _check_live(account: str, broker: str) -> None:
    """Real orders need to be allowed. Raises ConfigError."""
    config = load_named("account", account, AccountConfig)
    if account == PAPER:
        raise ConfigError(f"account {PAPER!r} is the paper engine's: name another")
    if not config.live:
        raise ConfigError(
            f"real orders of account {account!r} are not allowed: set live = true "
            f"under [account.{account}] in {config_path()}"
        )
    if config.broker not in ("", broker):
        raise ConfigError(
            f"account {account!r} is one of {config.broker}, not of {broker}: see "
            f"[account.{account}] in {config_path()}"
        )


@asynccontextmanager
async def open_ems(
    fqmes: str | Sequence[str],
    *,
    mode: str = "paper",
    account: str | None = None,
    namespace: str | None = None,
    client: str | None = None,
    cancel_on_disconnect: bool = False,
) -> AsyncIterator[Opened]:
    """Open the orders of an account: `(client, stream, positions, accounts, dialogs)`.

    `fqmes`: markets of one provider that will be traded; their rings are attached to,
    and fed by this process if nobody does. `mode`: "paper" fills on the real quotes;
    "live" sends to the provider, and needs `live = true` under `[account.NAME]`.
    `account`: "paper", or by default named as the provider. `client`: a name under
    which a strategy that was restarted gets its own orders back; without one it gets
    those whose client is gone. `cancel_on_disconnect`: its orders are canceled when it
    is gone, however it went.

    `stream` yields `Status` and `BrokerdPosition`, in order, none lost; `positions` is
    `{(broker, account): {fqme: BrokerdPosition}}` and `dialogs` `{oid: Status}`, kept
    up to date. Raises NotFound for an unknown provider or market, ConfigError, what the
    provider's dialog raises, PikerError for a database that cannot be used.
    """
    place = find_place(fqmes, mode, account, namespace)
    if client is not None and not (client.isprintable() and 0 < len(client) <= 64):
        raise PikerError(f"client {client!r:.80} must be 1 to 64 printable characters")
    own = OrderClient(
        f"{NAMED}{client}" if client else uuid.uuid4().hex,
        cancels=cancel_on_disconnect,
        adopts=client is None,
        symbols=place.symbols,
        mode=place.mode,
    )
    own.positions[(place.broker, place.account)] = {}
    async with seated(place, own):
        yield own, own.stream, own.positions, own.accounts, own.dialogs


@asynccontextmanager
async def seated(place: Place, client: OrderClient) -> AsyncIterator[None]:
    """Have a client at the gateway of an account, which is run here if nowhere else."""
    scope = trio.CancelScope(shield=True)

    async def run() -> None:
        """Until the client has left, whatever else is cancelled."""
        try:
            with scope:
                await run_gateway(place, client)
        finally:
            client.close()

    async with open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await client.opened.wait()
        except BaseException:
            scope.cancel()
            raise
        if client.refused:
            scope.cancel()
            raise PikerError(client.refused)
        settled = False
        try:
            yield
            settled = True
        finally:
            with trio.move_on_after(FLUSH_S, shield=True):
                sent = settled and place.mode == "live"
                await client.leave(settled=settled, sent=sent)
            scope.cancel()


async def run_gateway(
    place: Place,
    client: OrderClient | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the gateway of an account, or be a client of who does; until cancelled.

    Raises what keeps it from opening; later that is tried again. Without a client,
    WriterBusy if another process runs it.
    """
    backoff = Backoff(0.02, 1.0)
    while True:
        try:
            await _serve(place, client, task_status)
        except WriterBusy:
            if client is None:
                raise
        except (PikerError, OSError) as error:
            if client is None or not client.opened.is_set():
                raise
            log.warning("orders of %s: %s", place.account, error)
        if client is not None and await _follow(place, client):
            backoff.reset()
        await trio.sleep(backoff.next_s())


async def _follow(place: Place, client: OrderClient) -> bool:
    """Be a client for as long as there is a gateway; False if there is none."""
    try:
        sock = connect_to(place.socket)
        if sock is None:
            return False
        await follow(client, Link(close_in_children(sock), MOST))
    except (OSError, LinkError, *UNREADABLE) as error:
        log.info("the gateway of %s: %s", place.account, error)
        return False
    return True


async def _serve(
    place: Place, client: OrderClient | None, task_status: trio.TaskStatus[None]
) -> None:
    """Hold the lock of an account and run its gateway. Raises WriterBusy."""
    config = load_section("ems", EmsConfig)
    risk = Risk(load_named("risk", place.account, RiskConfig))
    provider = find_provider(place.broker)
    async with AsyncExitStack() as stack:
        database = stack.enter_context(
            open_database(
                place.folder,
                place.broker,
                place.account,
                mode=place.mode,
                sync=config.sync,
            )
        )
        await _feed(place, stack)
        markets = stack.enter_context(Markets(place.broker, place.namespace))
        for symbol in place.symbols:
            markets.add(symbol)
        sock = stack.enter_context(listening(place.socket))
        async with open_nursery() as nursery:
            desk = await _open_desk(
                place, provider, database, markets, risk, config, nursery
            )
            feeds = Feeds(markets, nursery)
            nursery.start_soon(Server(desk, feeds, config.queue).run, sock)
            task_status.started()
            if client is None:
                await trio.sleep_forever()
            _enter(desk, client)
            try:
                await trio.sleep_forever()
            finally:
                client.line_lost()


async def _feed(place: Place, stack: AsyncExitStack) -> None:
    """Have the markets fed by this process where nobody feeds them."""
    missing = unfed(place.symbols, place.namespace)
    if missing:
        await stack.enter_async_context(open_feed(missing, namespace=place.namespace))


async def _open_desk(
    place: Place,
    provider: ModuleType,
    database: Database,
    markets: Markets,
    risk: Risk,
    config: EmsConfig,
    nursery: trio.Nursery,
) -> Desk:
    """The desk at work, with its broker."""

    def make(broker: PaperBroker | LiveBroker) -> Desk:
        return Desk(
            database,
            markets,
            broker,
            place=(place.broker, place.account),
            mode=place.mode,
            risk=risk,
            config=config,
        )

    if place.mode == "paper":
        desk = make(PaperBroker(place.broker, place.account, markets))
        await nursery.start(desk.run)
        return desk
    if not hasattr(provider, "open_trade_dialog"):
        raise PikerError(f"provider {place.broker} takes no orders: use paper mode")
    live = LiveBroker(provider.open_trade_dialog, account=place.account, config=config)
    desk = make(live)
    live.join(desk.put, lambda: desk.gateway, database.is_ours)
    await nursery.start(desk.run)
    await nursery.start(live.run, place.symbols)
    return desk


class _Here:
    """The line of the client in this process."""

    def __init__(self, desk: Desk, seat: Seat) -> None:
        self._desk, self._seat = desk, seat

    def post(self, number: int, request: Order | Update | Cancel | None) -> None:
        self._desk.put(Asked(self._seat, number, request))

    def heard(self, seq: int) -> None:
        self._seat.heard = seq

    async def leave(self) -> None:
        session = self._seat.session
        if session.cancels:
            self._desk.put(self._seat)
            await self._desk.left(session.id)


def _enter(desk: Desk, client: OrderClient) -> None:
    """Give the client of this process its seat."""

    def welcomed(seat: Seat, welcome: Welcome) -> None:
        client.welcome(welcome, _Here(desk, seat))

    own = (client.deliver, welcomed, client.refuse)
    desk.put(Entering(client.hello(), *own, here=True))
