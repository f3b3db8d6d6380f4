"""The commands about orders, positions and the ledger: names, options, help.

They read what is stored, whether or not a gateway runs.
"""

from typing import Annotated

import typer

from piker_core.cli.command import app, command, commands_of, new_app
from piker_core.cli.failures import misused
from piker_core.cli.output import Output
from piker_core.cli.stored import AnyMarket, End, Start

ems_app = new_app("ems", "The order gateway: stop all sending, let it go on.")
app.add_typer(ems_app)
ems_command = commands_of(ems_app, "ems_")

Account = Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.")]
Broker = Annotated[
    str | None, typer.Option(metavar="PROVIDER", help="Only accounts at this broker.")
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
