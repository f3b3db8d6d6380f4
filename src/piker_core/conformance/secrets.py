"""Who looks for secrets where they must not be: logs of every level, errors, reprs."""

import logging
from collections.abc import Sequence

MOST = 20


class SecretWatch(logging.Handler):
    """A handler of the root logger; `seen` says where a secret was, never which."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[str] = []
        self.lines = 0
        self._secrets: list[str] = []

    def begin(self, secrets: Sequence[str]) -> None:
        """Listen to all loggers that have no level of their own, from DEBUG up."""
        self._secrets = [secret for secret in secrets if secret]
        root = logging.getLogger()
        if self not in root.handlers:
            shown = logging.StreamHandler()
            shown.setLevel(logging.WARNING)
            root.addHandler(self)
            root.addHandler(shown)
        root.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log."""
        self.lines += 1
        where = f"the log of {record.name}, level {record.levelname}"
        self.look(f"{self.format(record)}{record.args!r}", where)

    def look(self, text: str, where: str) -> None:
        """Whether a secret is in a text."""
        if any(secret in text for secret in self._secrets) and len(self.seen) < MOST:
            self.seen.append(where)
