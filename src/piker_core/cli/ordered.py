"""The commands about orders, positions and the ledger: names, options, help.

`order`, `cancel` and `ems run` go through the gateway of an account; the others read
what is stored, whether or not one runs.
"""

from typing import Annotated, Literal

import typer

from piker_core.cli.command import app, check_markets, command, commands_of, new_app
from piker_core.cli.failures import misused
from piker_core.cli.output import Output
from piker_core.cli.stored import AnyMarket, End, Start

ems_app = new_app("ems", "The order gateway: run it, stop all sending, let it go on.")
app.add_typer(ems_app)
ems_command = commands_of(ems_app, "ems_")

Account = Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.")]
Broker = Annotated[
    str | None, typer.Option(metavar="PROVIDER", help="Only accounts at this broker.")
]


Live = Annotated[
    bool, typer.Option("--live", help="Real orders, not those of the paper engine.")
]
Own = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="NAME",
        help="[default: paper; with --live, named as the provider]",
    ),
]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, help="Seconds to wait at most; 0: for ever.")
]


@command
def positions(
    out: Output,
    account: Account = None,
    broker: Broker = None,
    flat: Annotated[
        bool, typer.Option("--all", help="Those that are flat now, too.")
    ] = False,
) -> int:
    """List what accounts hold, at what average price, and what was earned and paid.

    With --json objects of kind "position".
    """
    from piker_core.cli.orders import show_positions

    return show_positions(out, account=account, broker=broker, flat=flat)


@command
def orders(
    out: Output,
    account: Account = None,
    broker: Broker = None,
    ended: Annotated[
        bool, typer.Option("--all", help="Those that have ended, too.")
    ] = False,
    newest: Annotated[
        int,
        typer.Option("-n", metavar="COUNT", min=1, help="How many of the newest."),
    ] = 1000,
) -> int:
    """List the orders that live: at the broker, dark ones and alerts; oldest first.

    With --json objects of kind "order".
    """
    from piker_core.cli.orders import show_orders

    return show_orders(out, account=account, broker=broker, ended=ended, count=newest)


@command
def ledger(
    out: Output,
    fqme: AnyMarket = None,
    account: Account = None,
    broker: Broker = None,
    start: Start = None,
    end: End = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="As CSV with a heading; of one account.")
    ] = False,
) -> int:
    """List fills, fees, transfers and splits as they count, oldest first.

    With --json objects of kind "transaction".
    """
    from piker_core.cli.orders import export_ledger, show_ledger

    if as_csv and out.json:
        return misused("--csv and --json do not go together: choose one")
    show = export_ledger if as_csv else show_ledger
    return show(out, fqme, account=account, broker=broker, start=start, end=end)


@ems_command
def ems_kill(
    out: Output,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; told with each refusal.")
    ] = "",
) -> None:
    """Stop all gateways of this user's state folder from sending orders, at once.

    Cancels still go out. It lasts, over restarts too, until `ems resume`. With --json
    an object of kind "kill".
    """
    from piker_core.cli.orders import kill_all

    kill_all(out, reason)


@ems_command
def ems_resume(out: Output) -> None:
    """Let orders be sent again after `ems kill`.

    With --json an object of kind "resume".
    """
    from piker_core.cli.orders import resume_all

    resume_all(out)


@command
def order(
    out: Output,
    action: Annotated[Literal["buy", "sell", "alert"], typer.Argument()],
    fqme: Annotated[str, typer.Argument(metavar="FQME", help="Such as xbtusd.kraken.")],
    size: Annotated[str, typer.Argument(metavar="SIZE", help="Units of the base.")],
    price: Annotated[str, typer.Argument(metavar="PRICE", help="The limit.")],
    dark: Annotated[
        bool, typer.Option("--dark", help="Keep it here until a trade reaches PRICE.")
    ] = False,
    stop: Annotated[
        str | None, typer.Option(metavar="PRICE", help="Send it at this price.")
    ] = None,
    trail: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Send it when so far from the best price."),
    ] = None,
    tif: Annotated[
        Literal["gtc", "ioc", "fok", "day"], typer.Option(help="How long it stands.")
    ] = "gtc",
    post_only: Annotated[
        bool, typer.Option("--post-only", help="Cancel it rather than take.")
    ] = False,
    reduce_only: Annotated[
        bool, typer.Option("--reduce-only", help="Never enlarge the position.")
    ] = False,
    oco: Annotated[
        str, typer.Option(metavar="GROUP", help="Of a group one is filled.")
    ] = "",
    oid: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name, used once for ever.")
    ] = None,
    live: Live = False,
    account: Own = None,
    wait: Wait = 5.0,
    namespace: str | None = None,
) -> int:
    """Send an order, and print what becomes of it until it rests or has ended.

    It goes through the account's gateway if one runs. Else this command is the gateway
    while it lasts: a paper or dark order then waits for the next one (`ems run`), a
    live one stays at the broker. Exit code 4 if it is refused, or canceled unfilled.
    """
    from piker_core.cli.ordering import run_order

    fields = {
        "action": action,
        "symbol": fqme,
        "size": size,
        "price": price,
        "exec_mode": "dark" if dark else "live",
        "stop": stop,
        "trail": trail,
        "tif": tif,
        "post_only": post_only,
        "reduce_only": reduce_only,
        "oco": oco,
    }
    return run_order(
        out, fields, oid=oid, place=(fqme, live, account, namespace), wait_s=wait
    )


@command
def cancel(
    out: Output,
    fqme: Annotated[
        str, typer.Argument(metavar="FQME", help="A market of the broker.")
    ],
    oids: Annotated[
        list[str] | None, typer.Argument(metavar="OID", help="Orders to cancel.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every order of the account.")
    ] = False,
    live: Live = False,
    account: Own = None,
    wait: Wait = 5.0,
    namespace: str | None = None,
) -> int:
    """Cancel orders, whoever sent them. Exit code 4 if one could not be canceled."""
    from piker_core.cli.ordering import run_cancel

    if bool(oids) == every:
        return misused("which orders? name them, or say --all")
    return run_cancel(
        out, oids or [], place=(fqme, live, account, namespace), wait_s=wait
    )


@ems_command
def ems_run(
    out: Output,
    fqmes: Annotated[
        list[str],
        typer.Argument(
            metavar="FQME", callback=check_markets, help="Markets of one provider."
        ),
    ],
    live: Live = False,
    account: Own = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="End by itself after so long.")
    ] = None,
    namespace: str | None = None,
) -> None:
    """Run the gateway of an account, for strategies in other processes.

    It feeds the markets if nobody does, and watches the triggers of dark orders while
    no strategy is there. It ends with Ctrl-C; orders at the broker stay there.
    """
    from piker_core.cli.ordering import run_gateway_daemon

    run_gateway_daemon(
        out, fqmes, live=live, account=account, seconds=seconds, namespace=namespace
    )
