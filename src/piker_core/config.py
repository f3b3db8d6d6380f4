"""The configuration: one TOML file, every key of which the environment can override.

The file is `$PIKER_CONFIG`, else `piker-core/config.toml` in the user's configuration
folder. `PIKER_KRAKEN__WS_URL` overrides `[kraken] ws_url`. Unknown keys are errors.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from piker_core.errors import ConfigError
from piker_core.provider import is_provider, provider_names

T = TypeVar("T", bound=msgspec.Struct)
Table = dict[str, Any]
_NAMED = ("account", "risk")
"""Tables of tables, each of which has the name of an account."""
_OURS = ("ems", "feed", "paper", "store", *_NAMED)
"""Tables that are not a provider's."""


class Secret:
    """Text that shows itself only to `reveal()`: no log, repr or traceback has it.

    In the configuration it is the text itself, `file:PATH` (a file of mode 0600) or
    `keyring:SERVICE/NAME`.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret('***')" if self._text else "Secret('')"


class FeedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[feed]`: how feeds start and what they fetch.

    `first_quote_s`: longest wait for a provider's first quotes; `seconds_back` and
    `minutes_back`: how many 1 s and 60 s rows are back-filled below the live ones;
    `store`: URL of the store that rows are kept in, none if empty.
    """

    first_quote_s: float = 20.0
    seconds_back: int = 3600
    minutes_back: int = 720
    store: str = ""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: the store that commands use where none is named.

    `url`: as `open_store` takes it; if empty, Parquet files in the user's data folder.
    """

    url: str = ""


class EmsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[ems]`: the order gateway.

    `sync`: "full" writes through to the disk before anything is acknowledged or sent,
    "normal" leaves it to the system when, which loses nothing when a process dies, but
    may when the machine does. `queue`: messages that wait for a client that does not
    read, before it is let go. `reconcile_s`: how often open orders, fills and positions
    are compared with the broker's. `grace_s`: how long an order that the broker does
    not know may still turn up.
    """

    sync: Literal["full", "normal"] = "full"
    queue: int = 65536
    reconcile_s: float = 30.0
    grace_s: float = 5.0


class AccountConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[account.NAME]`: whether real orders may leave for it, and to whom.

    `live`: without it, live mode is refused. `broker`: the provider; if empty, that of
    the account's name or of the market.
    """

    live: bool = False
    broker: str = ""


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where orders, positions and their ledger are kept: `$PIKER_STATE`."""
    if environ.get("PIKER_STATE"):
        return Path(environ["PIKER_STATE"]).absolute()
    home = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (Path(home) / "piker-core").absolute()


def default_store_url(environ: Mapping[str, str] = os.environ) -> str:
    """The store that is used where none is named. Raises ConfigError."""
    url = load_section("store", StoreConfig, environ=environ).url
    if url:
        return url
    home = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"parquet://{(Path(home) / 'piker-core' / 'store').absolute()}"


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration file is, whether or not it exists."""
    if environ.get("PIKER_CONFIG"):
        return Path(environ["PIKER_CONFIG"])
    home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "piker-core" / "config.toml"


def load_section(
    name: str, shape: type[T], *, environ: Mapping[str, str] = os.environ
) -> T:
    """A table of the configuration as a Struct, the environment's overrides applied.

    Raises ConfigError for unreadable files, unknown tables or keys, and wrong types.
    """
    path = config_path(environ)
    tables = _read(path)
    _check_tables(tables, name, path)
    return _load(tables.get(name, {}), name, shape, path=path, environ=environ)


def load_named(
    table: str, name: str, shape: type[T], *, environ: Mapping[str, str] = os.environ
) -> T:
    """`[table.name]` as a Struct: `[risk.paper]`, or `PIKER_RISK__PAPER__...`.

    Raises as `load_section`; a table without this name gives the Struct's defaults.
    """
    path = config_path(environ)
    tables = _read(path)
    _check_tables(tables, table, path)
    named = tables.get(table, {})
    if not isinstance(named, dict):
        raise ConfigError(f"{path}: {table} must be a table: write [{table}.{name}]")
    for key, value in named.items():
        if not isinstance(value, dict):
            raise ConfigError(
                f"{path}: [{table}] {key} belongs to an account: write [{table}.NAME]"
            )
    if table == "risk":
        accounts = {"paper", name, *provider_names(), *tables.get("account", {})}
        _check_accounts(named, accounts, path)
    place = f"{table}.{name}"
    return _load(named.get(name, {}), place, shape, path=path, environ=environ)


def _check_accounts(named: Table, accounts: set[str], path: Path) -> None:
    """Limits of an account that there is not would limit nothing."""
    for key in named:
        if key not in accounts:
            meant = get_close_matches(key, accounts, 1)
            raise ConfigError(
                f"{path}: [risk.{key}] is of no account: one of that name needs "
                f"[account.{key}]"
                + "".join(f"; did you mean [risk.{one}]?" for one in meant)
            )


def _load(
    table: Any, name: str, shape: type[T], *, path: Path, environ: Mapping[str, str]
) -> T:
    """A table that was read, with what the environment says in its place."""
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} must be a table: write [{name}]")
    _check_keys(table, shape, f"{path}: [{name}]", "{}")
    prefix = f"PIKER_{name.upper().replace('.', '__')}__"
    overrides = {
        key.removeprefix(prefix).lower(): value
        for key, value in environ.items()
        if key.startswith(prefix)
    }
    _check_keys(overrides, shape, "environment", prefix + "{}")
    section = _convert(table, shape, f"{path}: [{name}]", strict=True)
    if "api_secret" in table:
        _check_private(path)
    if not overrides:
        return section
    merged = {field: getattr(section, field) for field in shape.__struct_fields__}
    return _convert(merged | overrides, shape, f"environment {prefix}*", strict=False)


def _read(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _check_tables(tables: Table, name: str, path: Path) -> None:
    for table in tables:
        if table not in (*_OURS, name) and not is_provider(table):
            known = {*_OURS, name, *provider_names()}
            raise ConfigError(
                f"{path}: unknown table [{table}]; allowed: {', '.join(sorted(known))}"
            )


def _check_keys(
    table: Mapping[str, Any], shape: type[msgspec.Struct], where: str, spelling: str
) -> None:
    allowed = shape.__struct_fields__
    for key in table:
        if key not in allowed:
            spell = spelling.format
            written = str.upper if "__" in spelling else str
            meant = get_close_matches(key, allowed, 1)
            raise ConfigError(
                f"{where}: unknown key {spell(written(key))}; "
                + "".join(f"did you mean {spell(written(name))}? " for name in meant)
                + "allowed: "
                + ", ".join(spell(written(name)) for name in allowed)
            )


def _convert(table: Table, shape: type[T], where: str, *, strict: bool) -> T:
    try:
        return msgspec.convert(table, shape, strict=strict, dec_hook=_hide)
    except msgspec.ValidationError as error:
        text = str(error).replace("$.", "")
        raise ConfigError(f"{where}: {text}") from None


def _hide(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, (str, Secret)):
        return value if isinstance(value, Secret) else _secret(value)
    raise NotImplementedError(f"a value of type {kind.__name__}")


def _secret(text: str) -> Secret:
    """A secret as it is, or from where it is: `file:PATH`, `keyring:SERVICE/NAME`."""
    if text.startswith("file:"):
        return _secret_file(Path(text.removeprefix("file:")).expanduser())
    if text.startswith("keyring:"):
        return _secret_of_keyring(text.removeprefix("keyring:"))
    return Secret(text)


def _secret_file(path: Path) -> Secret:
    """The text of a file that is open to nobody else. Raises ConfigError."""
    try:
        _check_private(path)
        return Secret(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret in {path} cannot be read: {error}") from None


def _secret_of_keyring(place: str) -> Secret:
    """What the system's keyring has. Raises ConfigError."""
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "a secret of the system keyring needs the extra: "
            "pip install 'piker-core[keyring]'"
        ) from None
    service, _, name = place.partition("/")
    try:
        text = keyring.get_password(service, name)
    except Exception as error:  # noqa: BLE001 - each keyring raises its own
        raise ConfigError(f"the keyring cannot be asked: {error}") from None
    if text is None:
        raise ConfigError(
            f"the keyring has nothing for {place}: keyring set {service} {name}"
        )
    return Secret(text)


def _check_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} holds a secret and is open to others (mode {mode:o}): "
            f"chmod 600 {path}"
        )
