"""Connections of websockets, on frugal streams."""

import trio
from websockets.trio.client import connect as _connect

from piker_core.adapter.frugal import FrugalSocket, FrugalStream


class connect(_connect):
    """`websockets.trio.client.connect` on frugal streams."""

    async def open_tcp_stream(self) -> trio.abc.Stream:
        """TCP, below TLS or alone."""
        return FrugalSocket(await super().open_tcp_stream())

    async def enable_tls(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """TLS: it decrypts into room of its own."""
        return FrugalStream(await super().enable_tls(stream))
