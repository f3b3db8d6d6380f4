"""Every error this package raises on purpose. All derive from `PikerError`."""


class PikerError(Exception):
    """Base of all errors of piker-core; its text says what to do."""


class NotFound(PikerError):
    """There is no such ring, market, symbol or provider."""


class WriterBusy(PikerError):
    """Another engine already writes this provider's rings."""


class BadTick(PikerError):
    """A tick was refused; nothing of its quote or batch was taken."""


class SegmentError(PikerError):
    """A shared-memory segment is foreign, damaged or of another layout version."""


class StoreError(PikerError):
    """A store cannot be opened, read or written, or what is in it is damaged."""


class JournalError(PikerError):
    """A journal cannot be read or written, or is damaged."""


class ConfigError(PikerError):
    """The configuration file or an environment variable is wrong."""


class FeedError(PikerError):
    """A feed could not be opened or has ended."""


class ProviderError(PikerError):
    """The venue answered with an error or with something that cannot be understood.

    `frame` is the raw message, as far as there is one.
    """

    def __init__(self, message: str, *, frame: bytes | str | None = None) -> None:
        super().__init__(message)
        self.frame = frame


class OrderError(PikerError, ValueError):
    """An order, or a request about one, is not what it can be."""


class BrokerDown(ProviderError):
    """A request was certainly not sent: the broker is not connected."""


class NoData(PikerError):
    """This span of history is empty; older spans may not be."""


class DataUnavailable(PikerError):
    """There is no history at or before this time and there never will be."""


class DataThrottle(PikerError):
    """The venue asks for patience: try again in `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
