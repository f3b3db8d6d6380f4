"""Places in a gateway's work at which a process can kill itself: its steps.

Before and after whatever touches the disk, the broker or an order: commits, requests,
queries, and each kind of message that is heard.
"""

import functools
import inspect
import os
import signal
from collections.abc import Callable
from typing import Any

from piker_core.ems import reconcile
from piker_core.ems.database import Database
from piker_core.ems.gateway import Gateway
from piker_core.ems.paper_broker import PaperBroker
from tests.plain_broker import PlainDialog

STEPS: tuple[tuple[type, str], ...] = (
    (Database, "commit"),
    *((PlainDialog, name) for name in ("submit", "cancel", "order", "orders")),
    *((PlainDialog, name) for name in ("fills", "positions")),
    *((Gateway, name) for name in ("ask", "heard", "fired", "found", "not_known")),
    *((Gateway, name) for name in ("take_turn",)),
    *((reconcile.Reconciler, name) for name in ("reconcile", "resolve")),
    *((PaperBroker, name) for name in ("take",)),
)


class Steps:
    """Counts steps; at one of that number the process dies. 0: at none."""

    def __init__(self, deadly: int = 0) -> None:
        self.count, self.deadly = 0, deadly
        for kind, name in STEPS:
            setattr(kind, name, self._watched(getattr(kind, name)))

    def step(self) -> None:
        self.count += 1
        if self.count == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(real):

            @functools.wraps(real)
            async def call(*arguments: Any, **options: Any) -> Any:
                self.step()
                try:
                    return await real(*arguments, **options)
                finally:
                    self.step()

            return call

        @functools.wraps(real)
        def call_now(*arguments: Any, **options: Any) -> Any:
            self.step()
            try:
                return real(*arguments, **options)
            finally:
                self.step()

        return call_now
