"""The symbol table of a venue, in memory and on disk, fetched again when it is old.

On disk it is `<cache folder>/<provider>/symbols-<hash of its source>.json`, the cache
folder being `$XDG_CACHE_HOME/piker-core`, else `~/.cache/piker-core`. A file is old or
new at any moment, never half of it; one that is damaged, foreign or open to others is
passed over, and written anew.
"""

import hashlib
import ipaddress
import logging
import math
import os
import secrets
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
import trio

from piker_core.errors import DataThrottle, PikerError, ProviderError
from piker_core.symbol_table import Listing, SymbolTable

FORMAT = 1
"""Of the file; raised with whatever would mislead who reads an older one."""
LARGEST = 1 << 28
"""Bytes of a file that is read; the largest venue's has a twentieth of that."""
LEFT_OVER_S = 60.0
"""A temporary file older than this is of a writer that died."""

log = logging.getLogger("piker_core.symbols")

T = TypeVar("T")
Fetch = Callable[[], Awaitable[SymbolTable]]


class _Head(msgspec.Struct, frozen=True):
    format: int
    provider: str
    source: str


class StoredTable(_Head, frozen=True):
    """What is in the file."""

    fetched_ns: int
    listings: list[Listing]


class SymbolCache(Generic[T]):
    """Keeps one venue's symbol table within a trio run; `get()` gives it.

    `source` is where it comes from, such as a URL: it tells tables of one provider
    apart. `build` makes of it what the provider works with (in a thread); a table from
    disk that it refuses (ValueError, ValidationError) is passed over. A table is
    good for `ttl_s`. `on_disk` False keeps it in memory alone, as is right for a
    simulated venue.
    """

    def __init__(
        self,
        provider: str,
        source: str,
        *,
        build: Callable[[SymbolTable], T],
        ttl_s: float,
        on_disk: bool = True,
    ) -> None:
        self.provider = provider
        self.source = source
        self.ttl_s = ttl_s
        self._build = build
        self.path = table_path(provider, source) if on_disk else None
        self._lock = trio.Lock()
        self._built: T | None = None
        self._fetched_at = -math.inf
        self._looked = False
        self._said: set[str] = set()

    async def get(self, fetch: Fetch, *, refresh: bool = False) -> T:
        """The table, built: fetched if it is older than `ttl_s`, or to `refresh`.

        Fetched once, however many ask at a time. Where the venue does not answer
        (ProviderError, DataThrottle, OSError), an old table serves, and its age is
        logged; without one, or to `refresh`, the error comes out.
        """
        asked_at = trio.current_time()
        async with self._lock:
            await self._look_on_disk()
            oldest = trio.current_time() - self.ttl_s
            if refresh:
                oldest = max(oldest, asked_at)
            if self._built is not None and self._fetched_at >= oldest:
                return self._built
            try:
                table = await fetch()
            except (ProviderError, DataThrottle, OSError) as error:
                if refresh or self._built is None:
                    raise
                self._say_old(error)
                return self._built
            built = await trio.to_thread.run_sync(self._build, table)
            self._built, self._fetched_at = built, trio.current_time()
            await self._store(table)
            return built

    def _say_old(self, error: Exception) -> None:
        age = age_text(trio.current_time() - self._fetched_at)
        text = "using an old table of %s's markets, %s: %s"
        log.warning(text, self.provider, age, error)

    async def _look_on_disk(self) -> None:
        """Take over what is there, once, if it is any good."""
        if self.path is None or self._looked:
            return
        self._looked = True
        try:
            fetched_ns, built = await trio.to_thread.run_sync(self._read, self.path)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._say("%s is passed over: it %s", self.path, error)
            return
        age_s = (time.time_ns() - fetched_ns) / 1e9
        self._built = built
        self._fetched_at = trio.current_time() - age_s if age_s >= 0 else -math.inf

    def _read(self, path: Path) -> tuple[int, T]:
        stored = read_table(path, self.provider, self.source)
        try:
            table = SymbolTable(self.provider, stored.listings)
            return stored.fetched_ns, self._build(table)
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(f"does not fit: {error}") from None

    async def _store(self, table: SymbolTable) -> None:
        if self.path is None:
            return
        stored = StoredTable(
            format=FORMAT,
            provider=self.provider,
            source=self.source,
            fetched_ns=time.time_ns(),
            listings=list(table.listings.values()),
        )
        try:
            await trio.to_thread.run_sync(write_table, self.path, stored)
        except OSError as error:
            self._say("%s cannot be written: %s", self.path, error.strerror or error)

    def _say(self, text: str, *details: object) -> None:
        """Log a kind of trouble the first time."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text, *details)


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def table_path(
    provider: str, source: str, environ: Mapping[str, str] = os.environ
) -> Path:
    """Where the table of a source is kept, whether or not it is there."""
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    number = hashlib.sha256(source.encode()).hexdigest()[:16]
    return Path(home) / "piker-core" / provider / f"symbols-{number}.json"


def read_table(path: Path, provider: str, source: str) -> StoredTable:
    """A table from its file.

    Raises FileNotFoundError, OSError, and ValueError, which says what is wrong with it.
    """
    text = _read_own(path)
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format != FORMAT:
            raise ValueError(f"has format {head.format}, not {FORMAT}")
        if (head.provider, head.source) != (provider, source):
            raise ValueError(f"is of {head.provider}, {head.source:.80}")
        return msgspec.json.decode(text, type=StoredTable)
    except (msgspec.MsgspecError, UnicodeDecodeError, PikerError) as error:
        raise ValueError(f"is damaged: {error}") from None


def write_table(path: Path, stored: StoredTable) -> None:
    """Write a file, whole or not at all, for this user alone. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_left_over(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(msgspec.json.encode(stored))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def age_text(age_s: float) -> str:
    """How long ago, in words."""
    if not math.isfinite(age_s):
        return "fetched nobody knows when"
    return f"fetched {age_s:.0f} s ago" if age_s < 7200 else f"{age_s / 3600:.1f} h old"


def _read_own(path: Path) -> bytes:
    """The content of a file of this user that nobody else can write."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("is no file of this user's")
        if status.st_mode & 0o022:
            raise ValueError("can be written by others")
        if status.st_size > LARGEST:
            raise ValueError(f"has {status.st_size} bytes")
        return file.read()


def _remove_left_over(path: Path) -> None:
    for other in path.parent.glob(f"{path.name}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > LEFT_OVER_S:
                other.unlink()
