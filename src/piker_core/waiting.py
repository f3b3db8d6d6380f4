"""Waiting for a ring under trio: a doorbell, a datagram socket that the writer rings.

Threads sleep on a futex; an event loop cannot. So a waiting task binds a socket to a
random abstract address and leaves its key in the ring's wait page; the writer sends an
empty datagram there when it publishes. Nothing stays behind after the wait: no
thread, no task, no descriptor.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import trio

SAFETY_S = 0.25
"""Longest sleep without a look: another network namespace hears no doorbell."""
POLL_S = 0.001
"""Sleep between looks when the ring has no place for one more doorbell."""


class Ring(Protocol):
    """What is waited for: a reader of bars, or a cursor."""

    def doorbell(self, place: int, key: int) -> int: ...


@contextmanager
def _open_doorbell() -> Iterator[tuple[socket.socket, int]]:
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with bell:
        key = int.from_bytes(os.urandom(8), "little") | 1
        bell.bind(f"\0piker-core-{key:016x}")
        yield bell, key


async def _sleep(bell: socket.socket, place: int) -> None:
    with trio.move_on_after(SAFETY_S if place >= 0 else POLL_S):
        if place < 0:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(bell)
        while True:
            try:
                bell.recv(16)
            except BlockingIOError:
                break


async def _wait_until(ring: Ring, look: Any) -> Any:
    """Sleep until look() is true; what it gave. Cancellable; a checkpoint."""
    found = look()
    if found:
        await trio.lowlevel.checkpoint()
        return found
    with _open_doorbell() as (bell, key):
        place = ring.doorbell(-1, key)
        try:
            while not (found := look()):
                await _sleep(bell, place)
                if place >= 0:
                    ring.doorbell(place, 0)
        finally:
            if place >= 0:
                ring.doorbell(place, key)
    return found


async def wait_head_async(reader: Any, after: int) -> int:
    """The head of a ring once it is above `after`."""

    def look() -> int:
        head: int = reader.head
        return head if head > after else 0

    return int(await _wait_until(reader, look))


async def wait_ready_async(cursor: Any) -> None:
    """Return once a cursor has something to poll (or has lost something)."""
    await _wait_until(cursor, lambda: cursor.ready_nowait())
