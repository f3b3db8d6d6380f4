"""Commands of journals. What they do is imported when one of them runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from piker_core.cli.command import check_markets, command
from piker_core.cli.output import Output

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
    compress: Annotated[
        Literal["zstd", "none"], typer.Option(help="How blocks are packed.")
    ] = "zstd",
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
    from piker_core.cli.records import run_record

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
    from piker_core.cli.records import run_replay

    return run_replay(out, folder, speed=speed, namespace=namespace)
