"""Commands of feeds, rings and providers: names, options, help.

What they do is imported when they run.
"""

from pathlib import Path
from typing import Annotated

import typer

from piker_core.cli.command import app, check_markets, command, print_version
from piker_core.cli.failures import misused
from piker_core.cli.output import Output

Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, across new writers.")
]
Newest = Annotated[
    int, typer.Option("-n", metavar="COUNT", min=0, help="How many of the newest.")
]


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=print_version,
            is_eager=True,
            help="Show it and exit.",
        ),
    ] = False,
) -> None:
    """Market-data feeds in shared memory: run them, look at them, check them."""


@command
def demo(
    out: Output,
    seconds: Annotated[
        float, typer.Option(min=6.0, max=3600.0, help="How long it runs.")
    ] = 20.0,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write down what is fed, see `record`."),
    ] = None,
    namespace: str | None = None,
) -> int:
    """Watch it work: no keys, no network.

    A simulated Kraken on loopback, its provider, the rings, and a second process that
    reads them. Half-way the connection is cut once, so a gap opens and is repaired. At
    the end the bars are compared with the venue's own candles: exit code 0 means that
    all were equal, nothing was lost or torn, and the gap was repaired.
    """
    from piker_core.cli.demo import run_demo

    return run_demo(out, seconds=seconds, namespace=namespace, journal=journal)


@command
def feed(
    out: Output,
    fqmes: Annotated[
        list[str],
        typer.Argument(
            metavar="FQME", callback=check_markets, help="Such as xbtusd.kraken."
        ),
    ],
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="End by itself after so long.")
    ] = None,
    tick_throttle: Annotated[
        float | None,
        typer.Option(
            metavar="HZ",
            min=0.001,
            help="Updates of the live table a second.  [default: 4]",
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write down what is fed, see `record`."),
    ] = None,
    namespace: str | None = None,
) -> None:
    """Feed markets into the rings until Ctrl-C, or attach to who feeds them.

    Shows a live table. With --json prints objects of kind "bar" (each closed second),
    "status" (each change) and "gap" (each that opens or is repaired).
    """
    from piker_core.cli.feeds import run_feed

    run_feed(
        out,
        fqmes,
        seconds=seconds,
        tick_throttle=tick_throttle,
        namespace=namespace,
        journal=journal,
    )


@command
def bars(
    out: Output,
    fqme: Annotated[str, typer.Argument(metavar="FQME", help="Such as xbtusd.kraken.")],
    period: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="What a bar spans.")
    ] = 1,
    newest: Newest = 10,
    follow: Follow = False,
    namespace: str | None = None,
) -> None:
    """Print the newest bars of a ring that any process writes.

    With --follow only closed bars, then each one as it is closed, and again if a late
    trade or a repair revises it (JSON kind "revision"). Status changes go to stderr, or
    are objects of kind "status".
    """
    from piker_core.cli.views import show_bars

    show_bars(
        out,
        fqme,
        period=period,
        count=newest,
        follow=follow,
        namespace=namespace,
    )


@command
def ticks(
    out: Output,
    provider: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="Whose ticks, such as kraken.")
    ],
    newest: Newest = 10,
    market: Annotated[
        str | None, typer.Option(metavar="FQME", help="Only this market's.")
    ] = None,
    follow: Follow = False,
    namespace: str | None = None,
) -> None:
    """Print the newest ticks of a provider, and how many were lost unread."""
    from piker_core.cli.views import show_ticks

    show_ticks(
        out,
        provider,
        count=newest,
        follow=follow,
        market=market,
        namespace=namespace,
    )


@command
def search(
    out: Output,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Part of a name, such as btcusd.")
    ],
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider.")
    ] = None,
) -> int:
    """Find markets by name at every installed provider."""
    from piker_core.cli.catalogue import search_markets

    return search_markets(out, pattern, provider=provider)


@command
def providers(out: Output) -> None:
    """List the installed providers and what each is capable of."""
    from piker_core.cli.catalogue import show_providers

    show_providers(out)


def _check_cases(names: list[str] | None) -> list[str]:
    from piker_core.conformance.cases import chosen

    try:
        chosen(names or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return names or []


Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CASE",
        callback=_check_cases,
        help="Only this check, or all of a kind, such as reconnect.  [repeatable]",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="What the venue's trades are drawn from.")
]
Frames = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A recorded session, in place of a simulated venue.  [repeatable]",
    ),
]
OfRecording = Annotated[
    list[str] | None,
    typer.Option(metavar="SYMBOL", help="A market of the recording.  [repeatable]"),
]


@command
def check(
    out: Output,
    provider: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A provider's name, or a package's dotted path."
        ),
    ],
    only: Only = None,
    seed: Seed = 0,
    frames: Frames = None,
    market: OfRecording = None,
) -> int:
    """Check a provider against its simulated venue, without a network.

    The contract, exact bars, every fault that the venue has, history, what is left at
    the end: a line for each check. What the venue lacks is not applicable, never
    passed. Exit code 4 if any check has failed. The package is also looked for in the
    current folder.

    With --frames it is checked by a recorded session, replayed with faults: its bars
    must equal those of a replay without any.
    """
    from piker_core.cli.check import run_check

    if bool(frames) != bool(market):
        return misused("--frames and --market need each other")
    return run_check(
        out,
        provider,
        only=only or [],
        seed=seed,
        frames=frames or [],
        markets=market or [],
    )


@command
def new_provider(
    out: Output,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Such as acme: [a-z0-9_].")
    ],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where its folder is made.")
    ] = Path(),
) -> None:
    """Write a provider to begin with: a package that works, and its simulated venue.

    It passes `check` as it is, with a protocol that is made up; README.md in it says
    what to put in its place.
    """
    from piker_core.cli.check import make_provider

    make_provider(out, name, folder=folder)


@command
def segments(
    out: Output,
    gc: Annotated[
        bool, typer.Option("--gc", help="Remove the dead ones, print what was removed.")
    ] = False,
    everywhere: Annotated[
        bool, typer.Option("--all", help="Of all namespaces, and other users' too.")
    ] = False,
    namespace: str | None = None,
) -> None:
    """List the rings of this machine: writer, age, status, size.

    Dead are rings whose writer was killed or crashed before it could close them, and
    creations that never ended. Those that were closed cleanly (status stopped) are
    history that the next writer resumes: --gc keeps them, as it does rings of a living
    writer, damaged and foreign files.
    """
    from piker_core.cli.machine import show_segments

    show_segments(out, gc=gc, everywhere=everywhere, namespace=namespace)


@command
def doctor(
    out: Output,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="How long the self-test runs.")
    ] = 1.0,
    namespace: str | None = None,
) -> int:
    """Check whether this machine is fit, and say what to do where it is not.

    Looks at shared memory, locks, clocks, limits, configuration and providers, then
    runs a ring in two processes for a second. Exit code 5 if any check fails.
    """
    from piker_core.cli.doctor import run_doctor

    return run_doctor(out, seconds=seconds, namespace=namespace)
