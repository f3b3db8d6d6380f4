"""How a command is registered, and what all commands share."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from piker_core.cli.failures import EXIT_CODES, guard
from piker_core.cli.output import Output
from piker_core.errors import PikerError


def new_app(name: str, about: str) -> typer.Typer:
    """An application, or a group of commands in one."""
    words = {"help_option_names": ["-h", "--help"], "max_content_width": 96}
    return typer.Typer(
        name=name,
        help=about,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,  # rich doubles the time that --help takes
        pretty_exceptions_enable=False,
        context_settings=words,
    )


app = new_app(
    "piker-core",
    "Market-data feeds in shared memory: run them, look at them, check them.",
)


def _check_namespace(namespace: str | None) -> str | None:
    from piker_core.core.rings import checked_namespace

    try:
        checked_namespace(namespace)
    except PikerError as error:
        raise typer.BadParameter(str(error)) from None
    return namespace


def check_markets(fqmes: list[str]) -> list[str]:
    from piker_core.symbols import parse_fqme

    try:
        for fqme in fqmes:
            parse_fqme(fqme)
    except PikerError as error:
        raise typer.BadParameter(str(error)) from None
    return fqmes


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        Output(json=False).line(f"piker-core {version('piker-core')}")
        raise typer.Exit


Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line; logs go to stderr.")
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        callback=_check_namespace,
        help="Where the rings are: keeps users and tests apart.  "
        "[default: $PIKER_NAMESPACE, else piker]",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks and all log records.")
]
_SHARED = {
    "json": (Json, False),
    "namespace": (Namespace, None),
    "debug": (Debug, False),
}


Body = Callable[..., int | None]


def commands_of(target: typer.Typer, prefix: str = "") -> Callable[[Body], Body]:
    """A decorator: a body becomes a command with --json, --namespace and --debug.

    The command has the body's name without `prefix`. The body gets an `Output`, its own
    options and, if it takes it, `namespace`; it returns its exit code, None for 0.
    Whatever it raises ends as an exit code and a sentence.
    """
    return functools.partial(_register, target, prefix)


def _register(target: typer.Typer, prefix: str, body: Body) -> Body:
    own = list(inspect.signature(body).parameters.values())[1:]
    takes_namespace = any(option.name == "namespace" for option in own)

    @functools.wraps(body)
    def run(*, json: bool, namespace: str | None, debug: bool, **options: Any) -> None:
        if takes_namespace:
            options["namespace"] = namespace
        work = functools.partial(body, Output(json), **options)
        raise typer.Exit(guard(work, debug=debug))

    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
        )
        for name, (kind, default) in _SHARED.items()
    ]
    own = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for option in own
        if option.name != "namespace"
    ]
    run.__signature__ = inspect.Signature(own + shared)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in own + shared}
    name = body.__name__.removeprefix(prefix).replace("_", "-")
    target.command(name, epilog=EXIT_CODES)(run)
    return body


command = commands_of(app)
"""Registers a body as a command of `piker-core` itself."""
