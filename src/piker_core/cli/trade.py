"""Commands of orders: names, options, help.

What they do is imported when they run.
"""

from typing import Annotated, Literal

import typer

from piker_core.cli.command import app, check_markets, command, commands_of, new_app
from piker_core.cli.output import Output

ems_app = new_app("ems", "The order gateway of an account.")
app.add_typer(ems_app)
ems_command = commands_of(ems_app, "ems_")
Live = Annotated[
    bool, typer.Option("--live", help="Real orders, not those of the paper engine.")
]
Account = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="[default: paper; with --live, named as the provider]"
    ),
]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, help="Seconds to wait at most; 0: for ever.")
]


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
    account: Account = None,
    wait: Wait = 5.0,
    namespace: str | None = None,
) -> int:
    """Send an order, and print what becomes of it until it rests or has ended.

    It goes through the account's gateway if one runs. Else this command is the gateway
    while it lasts: a paper or dark order then waits for the next one (`ems run`), a
    live one stays at the broker. Exit code 4 if it is refused.
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
    account: Account = None,
    wait: Wait = 5.0,
    namespace: str | None = None,
) -> int:
    """Cancel orders, whoever sent them. Exit code 4 if one could not be canceled."""
    from piker_core.cli.ordering import run_cancel
    from piker_core.errors import OrderError

    if bool(oids) == every:
        raise OrderError("which orders? name them, or say --all")
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
    account: Account = None,
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
