"""The commands about bars at rest, history and the chart: names, options, help."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from piker_core.cli.command import app, check_markets, command, commands_of, new_app
from piker_core.cli.failures import misused
from piker_core.cli.output import Output

store_app = new_app("store", "Bars at rest: list, check, mend, delete and export them.")
app.add_typer(store_app)
store_command = commands_of(store_app, "store_")


def _check_market(fqme: str | None) -> str | None:
    return fqme if fqme is None else check_markets([fqme])[0]


def _check_moment(text: str | None) -> str | None:
    from piker_core.cli.moments import parse_moment

    if text is not None:
        try:
            parse_moment(text, 0.0)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return text


Market = Annotated[
    str,
    typer.Argument(
        metavar="FQME", callback=_check_market, help="Such as xbtusd.kraken."
    ),
]
AnyMarket = Annotated[
    str | None,
    typer.Argument(
        metavar="[FQME]", callback=_check_market, help="Only this market's bars."
    ),
]
Period = Annotated[
    int, typer.Option(metavar="SECONDS", min=1, help="What a bar spans.")
]
AnyPeriod = Annotated[
    int | None,
    typer.Option(metavar="SECONDS", min=1, help="Only bars that span so long."),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        callback=_check_moment,
        help="ISO date or time (UTC), or how long ago: -90m, -12h, -7d, -2w.",
    ),
]
End = Annotated[
    str | None,
    typer.Option(metavar="WHEN", callback=_check_moment, help="The same, exclusive."),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Such as parquet:///path or postgresql://user@host/database.  "
        "[default: url in [store] of the configuration, else Parquet files in the "
        "user's data folder]",
    ),
]


@store_command
def store_list(
    out: Output,
    fqme: AnyMarket = None,
    period: AnyPeriod = None,
    store: StoreUrl = None,
) -> int:
    """List what a store has: rows, the first and the last one, gaps.

    With --json objects of kind "series".
    """
    from piker_core.cli.store_views import show_series

    return show_series(out, fqme, period=period, store_url=store)


@store_command
def store_gaps(
    out: Output,
    fqme: AnyMarket = None,
    period: AnyPeriod = None,
    store: StoreUrl = None,
) -> int:
    """List the holes of series: missing rows, and placeholders of lost intervals.

    Hours in which a market is closed are holes, too. With --json objects of kind "gap".
    """
    from piker_core.cli.store_views import show_gaps

    return show_gaps(out, fqme, period=period, store_url=store)


@store_command
def store_verify(
    out: Output,
    fqme: AnyMarket = None,
    period: AnyPeriod = None,
    store: StoreUrl = None,
) -> int:
    """Check every row, and every file on the way: a line for each that is wrong.

    Repeated, disordered and odd times; low <= open and close <= high, bar_wap between;
    no negative sizes; flat rows without trades. Exit code 4 if anything is wrong.
    With --json objects of kind "fault", and "verified" for each series.
    """
    from piker_core.cli.store_checks import verify_series

    return verify_series(out, fqme, period=period, store_url=store)


@store_command
def store_repair(
    out: Output,
    fqme: AnyMarket = None,
    period: AnyPeriod = None,
    start: Start = None,
    end: End = None,
    store: StoreUrl = None,
) -> int:
    """Fetch holes, and rows that are wrong, from the venue; say what stays a hole.

    At the pace that each venue asks for. What has come is stored at once. With --json
    objects of kind "hole" for what the venue has not, and "repaired" for each series.
    """
    from piker_core.cli.store_repair import repair_series

    return repair_series(
        out, fqme, period=period, start=start, end=end, store_url=store
    )


@store_command
def store_delete(
    out: Output,
    fqme: Market,
    period: Period = 60,
    start: Start = None,
    end: End = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreUrl = None,
) -> int:
    """Remove a series, or a span of it, for good.

    Asks first; with --json it needs --yes. Exit code 3 if there are no such rows.
    """
    from piker_core.cli.store_changes import delete_rows

    if out.json and not yes:
        return misused("--json asks no questions: delete needs --yes beside it")
    return delete_rows(
        out, fqme, period=period, start=start, end=end, yes=yes, store_url=store
    )


class Format(StrEnum):
    """What `export` writes."""

    csv = "csv"
    parquet = "parquet"


@store_command
def store_export(
    out: Output,
    fqme: Market,
    file: Annotated[
        Path, typer.Option("--out", metavar="FILE", dir_okay=False, help="Where to.")
    ],
    period: Period = 60,
    form: Annotated[
        Format, typer.Option("--format", help="Exact in every bit, either way.")
    ] = Format.csv,
    start: Start = None,
    end: End = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is there.")
    ] = False,
    store: StoreUrl = None,
) -> int:
    """Write rows to one file, which appears when it is whole."""
    from piker_core.cli.store_export import export_rows

    if file.exists() and not force:
        return misused(f"{file} is there already: --force replaces it")
    return export_rows(
        out,
        fqme,
        period=period,
        start=start,
        end=end,
        file=file,
        form=form.value,
        force=force,
        store_url=store,
    )


Picture = Annotated[
    Path,
    typer.Option("--out", metavar="FILE", dir_okay=False, help=".png, .svg or .pdf"),
]
Newest = Annotated[
    int,
    typer.Option(
        "-n", metavar="N", min=1, help="So many newest periods, without a start."
    ),
]


@command
def history(
    out: Output,
    fqme: Market,
    period: Period = 60,
    start: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            callback=_check_moment,
            help="ISO date or time (UTC), Unix seconds, or how long ago: -90m, -12h, "
            "-7d, -2w.",
        ),
    ] = "-7d",
    end: End = None,
    store: StoreUrl = None,
) -> None:
    """Fetch a market's history from its venue into a store.

    Only what the store lacks is asked for, so it goes on where it was ended, whatever
    ended it. Rows that are placeholders or lack trades are fetched, too; the forming
    one never is. With --json prints objects of kind "progress", then "hole" for each
    span of which the venue has no rows, and at the end "history".
    """
    from piker_core.cli.history import fetch_history

    fetch_history(out, fqme, period=period, start=start, end=end, store_url=store)


@command
def plot(
    out: Output,
    fqme: Market,
    file: Picture,
    period: Period = 60,
    start: Start = None,
    end: End = None,
    newest: Newest = 300,
    live: Annotated[
        bool, typer.Option("--live", help="From the rings, not from a store.")
    ] = False,
    store: StoreUrl = None,
    namespace: str | None = None,
) -> int:
    """Draw candles and volume; intervals without rows are shaded.

    Several rows are one candle where there are too many to be told apart.
    """
    from piker_core.cli.plot import plot_chart

    if live and store:
        return misused("--live draws from the rings: leave out --store")
    return plot_chart(
        out,
        fqme,
        period=period,
        start=start,
        end=end,
        newest=newest,
        file=file,
        store_url=store,
        namespace=namespace,
        live=live,
    )
