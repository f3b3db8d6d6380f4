"""`open_store`: the store that a URL names."""

import re
from importlib import import_module
from typing import NamedTuple, cast

from piker_core.errors import StoreError
from piker_core.store.protocol import Store


class _Kind(NamedTuple):
    """Where the class of a kind of store is, and the extra that it needs."""

    module: str
    name: str
    extra: str


_PARQUET = _Kind("piker_core.store.parquet", "ParquetStore", "store")
_POSTGRES = _Kind("piker_core.store.postgres", "PostgresStore", "postgres")
KINDS = {"parquet": _PARQUET, "postgresql": _POSTGRES, "postgres": _POSTGRES}


def open_store(url: str) -> Store:
    """Open the store at `parquet:///path/of/a/folder` or `postgresql://...`.

    Use it in a `with` statement, or `close()` it. Raises StoreError where there is no
    store, or the extra that its kind needs is not installed.
    """
    scheme, found, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    kind = KINDS.get(scheme) if found else None
    if kind is None:
        raise StoreError(
            f"{without_password(str(url))!r} is no store: "
            "write parquet:///path/of/a/folder or postgresql://user@host/database"
        )
    try:
        opened = getattr(import_module(kind.module), kind.name)
    except ImportError as error:
        raise StoreError(
            f"{without_password(url)} cannot be opened, {error.name or kind.module} is "
            f"not installed: pip install 'piker-core[{kind.extra}]'"
        ) from None
    return cast(Store, opened(url))


def without_password(url: str) -> str:
    """A URL that can be shown."""
    shown = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)(password=)[^&\s]*", r"\1***", shown)
