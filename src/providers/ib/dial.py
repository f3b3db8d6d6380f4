"""A TCP connection to where TWS should be."""

import trio

from piker_core.adapter.frugal import FrugalSocket

from . import codes
from .config import Config


async def dial(config: Config) -> FrugalSocket:
    """Connect; raises ProviderError if nobody answers in time."""
    try:
        with trio.fail_after(config.connect_timeout_s):
            return FrugalSocket(await trio.open_tcp_stream(config.host, config.port))
    except trio.TooSlowError:
        cause = OSError(0, f"no answer within {config.connect_timeout_s:g} s")
        raise codes.unreachable_error(config.address, cause) from None
    except OSError as error:
        raise codes.unreachable_error(config.address, _root(error)) from None


def _root(error: OSError) -> OSError:
    """The system's own error: trio wraps those of all the addresses it tried."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error
