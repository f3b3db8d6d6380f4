"""A venue that costs its client nothing but the reading: bursts of ready-made frames.

It answers the REST calls and subscriptions of a Kraken client with the same few
replies, and on a line `PATH COUNT` on its standard input sends so many trade frames of
200 bytes at once to whoever is connected at that path. A process of its own, standard
library only. Prints the port it listens on.
"""

import base64
import hashlib
import json
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from socket import socket
from typing import Any
from urllib.parse import urlsplit

LENGTH = 200
PAIR = "XXBTZUSD"
ASSET_PAIR = {
    "altname": "XBTUSD",
    "wsname": "XBT/USD",
    "aclass_base": "currency",
    "base": "XXBT",
    "aclass_quote": "currency",
    "quote": "ZUSD",
    "cost_decimals": 5,
    "pair_decimals": 1,
    "lot_decimals": 8,
    "lot_multiplier": 1,
    "ordermin": "0.00005",
    "costmin": "0.5",
    "tick_size": "0.1",
    "status": "online",
}
TICKER = {
    "a": ["60000.1", "1", "1.000"],
    "b": ["60000.0", "1", "1.000"],
    "c": ["60000.0", "0.10000000"],
    "v": ["10.0", "20.0"],
    "p": ["60000.0", "60000.0"],
    "t": [10, 20],
    "l": ["60000.0", "60000.0"],
    "h": ["60000.0", "60000.0"],
    "o": "60000.0",
}
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_connections: dict[str, socket] = {}
_numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1000))


def trade_frame(number: int, kind: str = "update") -> bytes:
    """The JSON text of one trade, blanks at its end up to the length."""
    row = {
        "symbol": "BTC/USD",
        "side": "buy" if number % 3 else "sell",
        "price": 60_000.0 + number % 7 / 10,
        "qty": 0.001 + number % 100 / 1e4,
        "ord_type": "market",
        "trade_id": number,
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds")[:26] + "Z",
    }
    frame = {"channel": "trade", "type": kind, "data": [row]}
    return json.dumps(frame, separators=(",", ":")).encode().ljust(LENGTH)


def wrap(text: bytes) -> bytes:
    """One unmasked WebSocket text frame."""
    if len(text) < 126:
        return bytes([0x81, len(text)]) + text
    return struct.pack(">BBH", 0x81, 126, len(text)) + text


class Handler(BaseHTTPRequestHandler):
    """REST replies, or a WebSocket by hand."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if "Sec-WebSocket-Key" in self.headers:
            self._serve_socket()
            return
        method = urlsplit(self.path).path.rpartition("/")[2]
        last = str(time.time_ns())
        results: dict[str, dict[str, Any]] = {
            "AssetPairs": {PAIR: ASSET_PAIR},
            "Ticker": {PAIR: TICKER},
            "Trades": {PAIR: [], "last": last},
        }
        body = json.dumps({"error": [], "result": results[method]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve_socket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        _connections[self.path] = self.connection
        while self._answer():
            pass

    def _answer(self) -> bool:
        """Take a message of the client and acknowledge it; False after its last."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 15 == 8:
            return False
        size = head[1] & 127
        if size == 126:
            (size,) = struct.unpack(">H", self.rfile.read(2))
        mask, masked = self.rfile.read(4), self.rfile.read(size)
        text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
        if head[0] & 15 == 1:
            self.connection.sendall(acknowledge(json.loads(text), self.path))
        return True


def acknowledge(request: dict[str, Any], path: str) -> bytes:
    """Acks of a subscription, one a symbol, and a snapshot of one trade."""
    params = request["params"]
    acks = [
        {
            "method": "subscribe",
            "req_id": request["req_id"],
            "success": True,
            "result": {"channel": params["channel"], "symbol": symbol},
        }
        for symbol in params["symbol"]
    ]
    frames = [wrap(json.dumps(ack).encode()) for ack in acks]
    if params["channel"] == "trade":
        frames.append(wrap(trade_frame(next(_numbers[path]), "snapshot")))
    return b"".join(frames)


def main() -> None:
    """Serve until standard input ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        path, wanted = line.split()
        numbers = islice(_numbers[path], int(wanted))  # without gaps for each client
        frames = [wrap(trade_frame(number)) for number in numbers]
        _connections[path].sendall(b"".join(frames))


if __name__ == "__main__":
    main()
