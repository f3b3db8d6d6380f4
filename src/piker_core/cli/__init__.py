"""The command line, `piker-core`. Nothing is imported here before a command is chosen.

`commands` has the names, options and help of all commands, `failures` the exit codes
and what is said when something goes wrong, `output` tables and JSON lines; the other
modules do the work.
"""


def main() -> None:
    """Run the command line and end the process with one of its exit codes."""
    from piker_core.cli.commands import app
    from piker_core.cli.failures import catch_termination

    with catch_termination():
        app(prog_name="piker-core")
