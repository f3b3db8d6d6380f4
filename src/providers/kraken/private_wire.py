"""Kraken's private WebSocket v2 frames: bytes to Structs, requests to bytes.

1. Prices and sizes are exact decimals on both ways; they are written in full, with a
   decimal point, never with an exponent.
2. Of an order only what changed is told after its first event: every field of a row is
   optional. Unknown fields are ignored, unknown words of events are the caller's.
3. A request that is encoded has the session's token in it: it is never logged.

Source: https://docs.kraken.com/api/docs/websocket-v2/executions, balances, add_order
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from piker_core.config import Secret
from piker_core.errors import ProviderError

from .wire import NS, StatusFrame


class Fee(msgspec.Struct, frozen=True):
    """What an execution cost, in an asset."""

    asset: str = ""
    qty: Decimal = Decimal(0)


class ExecutionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an order: what it is, and the fields that changed by it."""

    order_id: str
    cl_ord_id: str = ""
    exec_type: str = ""
    order_status: str = ""
    symbol: str = ""
    side: str = ""
    order_qty: Decimal | None = None
    limit_price: Decimal | None = None
    cum_qty: Decimal | None = None
    exec_id: str = ""
    trade_id: int | None = None
    last_qty: Decimal | None = None
    last_price: Decimal | None = None
    liquidity_ind: str = ""
    fees: list[Fee] | None = None
    reason: str | None = None
    cancel_reason: str | None = None
    ratecount: float | None = None
    timestamp: str = ""


class ExecutionsFrame(msgspec.Struct, frozen=True):
    """Events of orders; `type` is snapshot or update, `sequence` rises by one."""

    channel: str
    type: str
    data: list[ExecutionRow]
    sequence: int | None = None


class Wallet(msgspec.Struct, frozen=True):
    """A part of a balance."""

    type: str = ""
    id: str = ""
    balance: Decimal = Decimal(0)


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A balance (snapshot), or a ledger's line that changed one (update)."""

    asset: str
    balance: Decimal
    wallets: list[Wallet] = []
    wallet_type: str = ""
    wallet_id: str = ""

    @property
    def spot(self) -> Decimal | None:
        """What the spot wallet has; None where the row is of another wallet."""
        if self.wallet_type:
            main = self.wallet_type == "spot" and self.wallet_id in ("main", "")
            return self.balance if main else None
        found = [w.balance for w in self.wallets if (w.type, w.id) == ("spot", "main")]
        if self.wallets:
            return sum(found, Decimal(0))
        return self.balance


class BalancesFrame(msgspec.Struct, frozen=True):
    """Balances, or changes of them."""

    channel: str
    type: str
    data: list[BalanceRow]
    sequence: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request; `error` if it was refused, else its `result`."""

    method: str = ""
    req_id: int | None = None
    success: bool = False
    error: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")


class Result(msgspec.Struct, frozen=True):
    """What an answer says, of any method. In a batch an order may have an `error`."""

    order_id: str = ""
    cl_ord_id: str = ""
    count: int = 0
    maxratecount: int | None = None
    error: str = ""


class Heartbeat(msgspec.Struct, frozen=True):
    """The connection is alive."""


class Unknown(msgspec.Struct, frozen=True):
    """A frame of a channel that nobody asked for."""

    name: str


class _Envelope(msgspec.Struct):
    channel: str = ""
    method: str = ""
    success: bool | None = None


class _Batch(msgspec.Struct):
    orders: list[Result]


PrivateFrame = (
    ExecutionsFrame | BalancesFrame | Answer | StatusFrame | Heartbeat | Unknown
)

_HEARTBEAT = Heartbeat()
_envelope = msgspec.json.Decoder(_Envelope).decode
_answer = msgspec.json.Decoder(Answer).decode
_by_channel: dict[str, Any] = {
    "executions": msgspec.json.Decoder(ExecutionsFrame).decode,
    "balances": msgspec.json.Decoder(BalancesFrame).decode,
    "status": msgspec.json.Decoder(StatusFrame).decode,
}
_results = msgspec.json.Decoder(Result | list[Result] | None).decode
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode_private(raw: bytes) -> PrivateFrame:
    """One message as a Struct. Raises ProviderError with the frame."""
    try:
        envelope = _envelope(raw)
        if envelope.success is not None or envelope.method:
            return _answer(raw)
        if envelope.channel == "heartbeat":
            return _HEARTBEAT
        decode = _by_channel.get(envelope.channel)
        if decode is None:
            return Unknown(envelope.channel)
        frame: PrivateFrame = decode(raw)
        return frame
    except _UNDECODABLE as error:
        raise ProviderError(f"a frame cannot be decoded: {error}", frame=raw) from None


def decode_results(answer: Answer) -> list[Result]:
    """The results of an answer: one, or one for each order of a batch.

    Raises ProviderError.
    """
    raw = bytes(answer.result)
    try:
        if raw.startswith(b"{") and b'"orders"' in raw:
            return msgspec.json.decode(raw, type=_Batch).orders
        found = _results(raw)
    except _UNDECODABLE as error:
        text = f"the result of {answer.method} cannot be decoded: {error}"
        raise ProviderError(text, frame=raw) from None
    if isinstance(found, list):
        return found
    return [] if found is None else [found]


def number(exact: Decimal) -> msgspec.Raw:
    """A decimal as a JSON number: in full, with a point, without trailing zeros."""
    text = f"{exact:f}"
    if "." in text:
        text = text.rstrip("0")
    text = text if "." in text else text + "."
    return msgspec.Raw((text + "0" if text.endswith(".") else text).encode())


def encode_request(
    method: str, params: Mapping[str, Any], req_id: int, token: Secret
) -> bytes:
    """A request with its token, as it goes out."""
    asked = {**params, "token": token.reveal()}
    return msgspec.json.encode({"method": method, "params": asked, "req_id": req_id})


def stamp_ms(time_ns: int) -> str:
    """RFC 3339 UTC, cut to milliseconds, as deadlines are written."""
    seconds, rest = divmod(time_ns, NS)
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
