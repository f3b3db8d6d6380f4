"""The command that fetches history: names, options, help."""

from typing import Annotated

import typer

from piker_core.cli.command import check_markets, command
from piker_core.cli.output import Output


def _check_market(fqme: str) -> str:
    return check_markets([fqme])[0]


def _check_moment(text: str | None) -> str | None:
    from piker_core.cli.moments import parse_moment

    if text is not None:
        try:
            parse_moment(text, 0.0)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return text


@command
def history(
    out: Output,
    fqme: Annotated[
        str,
        typer.Argument(
            metavar="FQME", callback=_check_market, help="Such as xbtusd.kraken."
        ),
    ],
    period: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="What a bar spans.")
    ] = 60,
    start: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            callback=_check_moment,
            help="ISO date or time (UTC), Unix seconds, or how long ago: -90m, -12h, "
            "-7d, -2w.",
        ),
    ] = "-7d",
    end: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            callback=_check_moment,
            help="The same, exclusive.  [default: now]",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Such as parquet:///path.  [default: url in [store] of the "
            "configuration, else Parquet files in the user's data folder]",
        ),
    ] = None,
) -> None:
    """Fetch a market's history from its venue into a store.

    Only what the store lacks is asked for, so it goes on where it was ended, whatever
    ended it. Rows that are placeholders or lack trades are fetched, too; the forming
    one never is. With --json prints objects of kind "progress", then "hole" for each
    span of which the venue has no rows, and at the end "history".
    """
    from piker_core.cli.history import fetch_history

    fetch_history(out, fqme, period=period, start=start, end=end, store_url=store)
