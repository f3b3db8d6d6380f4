"""Commands of journals and digests: names, options, help.

What they do is imported when they run.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from piker_core.cli.command import command
from piker_core.cli.output import Output

Compress = Annotated[
    Literal["zstd", "none"],
    typer.Option(help="How blocks are compressed; zstd needs piker-core[store]."),
]


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
        str, typer.Argument(metavar="URL", help="A store, such as parquet:///path.")
    ] = "",
    namespace: str | None = None,
) -> int:
    """Print digests of bars, one for each market, period and UTC day.

    Of a store, or with --namespace of the rings there. Equal digests mean equal bars:
    every row in which something traded, in every field but `index` and `flags`. The
    last row of a ring, which may be forming, does not count.
    """
    from piker_core.cli.verify import run_verify

    return run_verify(out, place, namespace=namespace)
