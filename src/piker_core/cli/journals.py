"""Commands of journals and digests: names, options, help.

What they do is imported when they run.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from piker_core.cli.command import check_markets, command
from piker_core.cli.output import Output

Compress = Annotated[
    Literal["zstd", "none"],
    typer.Option(help="How blocks are compressed; zstd needs piker-core[store]."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a journal.")]


@command
def record(
    out: Output,
    fqmes: Annotated[
        list[str],
        typer.Argument(
            metavar="FQME", callback=check_markets, help="Such as xbtusd.kraken."
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the journal is.")
    ],
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="End by itself after so long.")
    ] = None,
    ticks: Annotated[
        bool, typer.Option("--ticks", help="The records of the tick ring, too.")
    ] = False,
    compress: Compress = "zstd",
    fsync: Annotated[
        Literal["never", "close", "second", "block"],
        typer.Option(help="When the disk is told to keep what was written."),
    ] = "close",
    segment_bytes: Annotated[
        int, typer.Option(min=1 << 16, help="About how long a file may be.")
    ] = 64 << 20,
    namespace: str | None = None,
) -> int:
    """Feed markets and write every frame into a journal, for `replay` and `verify`.

    The rings are those of the namespace, and others may attach. Where another process
    writes them already, the markets are fed once more, in a namespace that is removed
    at the end. A disk that is full or fails does not end it: exit code 5 means that
    something is missing, and the journal says where.
    """
    from piker_core.cli.record_replay import run_record

    return run_record(
        out,
        fqmes,
        folder,
        seconds=seconds,
        ticks=ticks,
        compress=compress,
        fsync=fsync,
        segment_bytes=segment_bytes,
        namespace=namespace,
    )


@command
def replay(
    out: Output,
    folder: Folder,
    speed: Annotated[
        float,
        typer.Option(min=0.0, help="1 is real time, 0 as fast as it goes."),
    ] = 0.0,
    namespace: str | None = None,
) -> int:
    """Play a journal into the rings of a namespace, which stay.

    Nothing is asked of a venue or of the clock: it gives the same rows each time. The
    namespace must have no rings of the recorded providers. A journal that is cut or
    damaged is played as far as it is whole; exit code 4, and an object of kind "cut"
    with --json.
    """
    from piker_core.cli.record_replay import run_replay

    return run_replay(out, folder, speed=speed, namespace=namespace)


@command
def import_recording(
    out: Output,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            exists=True,
            dir_okay=False,
            help="In the order in which they were recorded.",
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The journal to write.")
    ],
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="Whose frames they are.")
    ],
    markets: Annotated[
        list[str] | None,
        typer.Option(
            "--market", metavar="NAME", help="A market in them, such as btcusdt."
        ),
    ] = None,
    compress: Compress = "zstd",
) -> None:
    """Make a journal of a session that was recorded by other means.

    FILE holds a receive time in ns, a space and a frame a line, plain or in gzip; or
    lines `URL <-> t`, `URL <- t: text`, `t: text` and `URL -> t: text`, as `check
    --frames` reads them.
    """
    from piker_core.cli.recordings import import_files

    import_files(
        out,
        files,
        folder=folder,
        provider=provider,
        markets=markets or [],
        compress=compress,
    )


@command
def verify(
    out: Output,
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE", help="A store, such as parquet:///path, or a journal."
        ),
    ] = "",
    namespace: str | None = None,
) -> int:
    """Print digests of bars, one for each market, period and UTC day.

    Of a store, of the replay of a journal's folder, or with --namespace of the rings
    there. Equal digests mean equal bars: every row in which something traded, in every
    field but `index` and `flags`. The last row of a ring, which may be forming, does
    not count. Of a journal that is cut or damaged what is whole counts; exit code 4.
    """
    from piker_core.cli.verify import run_verify

    return run_verify(out, place, namespace=namespace)
