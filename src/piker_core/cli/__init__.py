"""The command line, `piker-core`. Nothing is imported here before a command is chosen.

`commands`, `journals`, `ordered` and `stored` have names, options and help, registered
by `command`; `failures` has the exit codes and what is said when something goes wrong,
`output` tables and JSON lines; the other modules do the work.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

_WITH_COMMANDS = ("commands", "journals", "ordered", "stored")


def load_app() -> "typer.Typer":
    """The application with all its commands."""
    from piker_core.cli.command import app

    for name in _WITH_COMMANDS:
        import_module(f"{__name__}.{name}")
    return app


def main() -> None:
    """Run the command line and end the process with one of its exit codes."""
    from piker_core.cli.failures import catch_termination

    with catch_termination():
        load_app()(prog_name="piker-core")
