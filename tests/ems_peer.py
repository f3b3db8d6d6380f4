"""A strategy that does what it is told, line by line, and says what it hears.

send OID PRICE MODE   nowait OID PRICE MODE   cancel OID   burst NAME COUNT
fork   dialogs        until the lines end
"""

import argparse
import os
import signal
import sys

import trio

import piker_core as pk
from tests.ems_stage import FQME, order


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def hear(stream: trio.abc.ReceiveChannel[object]) -> None:
    async for message in stream:
        if isinstance(message, pk.Status):
            say("status", message.oid, message.resp, message.seq)


async def do(client: pk.OrderClient, words: list[str]) -> None:
    """What one line says."""
    match words:
        case ["send", oid, price, mode]:
            await client.send(order(oid, float(price), exec_mode=mode))
            say("stored", oid)
        case ["nowait", oid, price, mode]:
            client.send_nowait(order(oid, float(price), exec_mode=mode))
        case ["cancel", oid]:
            await client.cancel(oid)
        case ["burst", name, count]:
            for number in range(int(count)):
                client.send_nowait(order(f"{name}{number}"))
            say("burst", name)
        case ["fork"]:
            if child := os.fork():
                say("forked", child)
            else:
                signal.pause()
        case _:
            raise ValueError(words)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client")
    parser.add_argument("--cancels", action="store_true")
    options = parser.parse_args()
    lines = trio.lowlevel.FdStream(os.dup(0))
    async with pk.open_ems(
        FQME, client=options.client, cancel_on_disconnect=options.cancels
    ) as (client, stream, _, _, dialogs):
        say("opened")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream)
            received = b""
            async for chunk in lines:
                *told, received = (received + chunk).split(b"\n")
                for line in told:
                    words = line.decode().split()
                    if words == ["dialogs"]:
                        say("dialogs", *(f"{o}={s.resp}" for o, s in dialogs.items()))
                    else:
                        await do(client, words)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
