"""What flows need of trio: a nursery with plain errors, a back-off with jitter."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


def single_error(group: BaseExceptionGroup) -> BaseException:
    """The one error of a group, cancellations aside; the group if there are more."""
    errors: BaseException | None = group.split(trio.Cancelled)[1]
    while isinstance(errors, BaseExceptionGroup) and len(errors.exceptions) == 1:
        errors = errors.exceptions[0]
    return group if errors is None else errors


@asynccontextmanager
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """A trio nursery whose only error comes out as itself, not as a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        error = single_error(group)
        if error is group:
            raise
        raise error from error.__cause__


class Backoff:
    """Waiting times that double from `least_s` to `most_s`, each cut by up to a half.

    The first is 0: a connection that was just lost is tried again at once.
    """

    def __init__(self, least_s: float = 0.25, most_s: float = 30.0) -> None:
        self.least_s = least_s
        self.most_s = most_s
        self.failures = 0

    def next_s(self) -> float:
        """How long to wait now."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        whole: float = min(
            self.most_s, self.least_s * 2.0 ** min(self.failures - 2, 60)
        )
        return whole * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well: begin again from nothing."""
        self.failures = 0
