"""Signatures as a simulated Binance checks them: key, clock, then signature."""

import hashlib
import hmac
from collections.abc import Mapping
from http import HTTPStatus

from .venue_errors import (
    BAD_KEY,
    BAD_SIGNATURE,
    EARLY,
    LATE,
    NO_PERMISSION,
    Refused,
    illegal,
    missing,
)

API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
API_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
_LONGEST_WINDOW_MS = 60_000.0


def check_key(key: str | None) -> None:
    """Refuse a call with another key than the account's."""
    if not key:
        raise Refused(*BAD_KEY, HTTPStatus.UNAUTHORIZED)
    if key != API_KEY:
        raise Refused(*NO_PERMISSION, HTTPStatus.UNAUTHORIZED)


def check_stamp(fields: Mapping[str, str], now_ms: float) -> None:
    """Refuse a time stamp that is too early or too late."""
    for name in ("timestamp", "signature"):
        if not fields.get(name):
            raise missing(name)
    stamp_ms = _number("timestamp", fields["timestamp"])
    window_ms = _number("recvWindow", fields.get("recvWindow", "5000"))
    if stamp_ms >= 10**14:
        stamp_ms /= 1000
    if window_ms > _LONGEST_WINDOW_MS:
        raise Refused(-1131, "recvWindow must be less than 60000.")
    if stamp_ms >= now_ms + 1000:
        raise Refused(*EARLY)
    if now_ms - stamp_ms > window_ms:
        raise Refused(*LATE)


def check_signature(payload: bytes, signature: str) -> None:
    """Refuse a signature that is none of these bytes."""
    made = hmac.new(API_SECRET.encode(), payload, hashlib.sha256).hexdigest()
    if made != signature.lower():
        raise Refused(*BAD_SIGNATURE)


def check_request(fields: Mapping[str, str], now_ms: float) -> None:
    """Refuse a request of the WebSocket API whose key, clock or signature is wrong."""
    check_key(fields.get("apiKey"))
    check_stamp(fields, now_ms)
    names = sorted(name for name in fields if name != "signature")
    payload = "&".join(f"{name}={fields[name]}" for name in names)
    check_signature(payload.encode(), fields["signature"])


def _number(name: str, text: str) -> float:
    whole, _, part = text.partition(".")
    if (
        not (f"{whole}{part}".isascii() and f"{whole}{part}".isdigit())
        or len(text) > 24
    ):
        raise illegal(name, "^[0-9]{1,20}$")
    return float(text)
