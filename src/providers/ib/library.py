"""The extra `ib`: ib_async, imported when it is first needed."""

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

from piker_core.errors import PikerError

NEEDED = "ib_async"


def check_installed() -> None:
    """Raises PikerError with what to install if the extra is missing."""
    if importlib.util.find_spec(NEEDED) is None:
        raise PikerError("the provider ib needs ib_async: pip install 'piker-core[ib]'")


@cache
def load_codec() -> Any:
    """The module `codec`; some tenths of a second when called first."""
    check_installed()
    return importlib.import_module("providers.ib.codec")


def load_library() -> ModuleType:
    """ib_async itself."""
    check_installed()
    return importlib.import_module(NEEDED)
