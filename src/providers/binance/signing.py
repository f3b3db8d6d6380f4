"""Keys, and what they sign: calls over HTTP, and requests of the WebSocket API.

1. What is signed is what is sent, byte for byte: parameters are percent-encoded first.
   Requests of the WebSocket API are signed as sorted, plain text.
2. The time stamp is the venue's time, made anew for every attempt.
3. Keys are shown by nothing but `headers` and `request`.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api and
websocket-api, request security.
"""

import hashlib
import hmac
from collections.abc import Mapping

import msgspec

from piker_core.adapter.clock import VenueClock
from piker_core.adapter.rest import Request, Signer
from piker_core.config import Secret, config_path
from piker_core.errors import ConfigError

from .markets import PROVIDER

Texts = Mapping[str, str | int | float]
_MS_NS = 1_000_000


class Keys:
    """What an account's requests are signed with."""

    __slots__ = ("_key", "_secret")

    def __init__(self, key: Secret, secret: Secret) -> None:
        """Raises ConfigError where one of them is missing."""
        lacks = [
            name
            for name, each in (("api_key", key), ("api_secret", secret))
            if not each
        ]
        if lacks:
            names = " and ".join(lacks)
            raise ConfigError(
                f"orders at Binance need {names}: set them in [{PROVIDER}] of "
                f"{config_path()}, or PIKER_BINANCE__API_KEY and "
                "PIKER_BINANCE__API_SECRET"
            )
        self._key, self._secret = key, secret

    def __repr__(self) -> str:
        return "Keys('***')"

    @property
    def headers(self) -> dict[str, str]:
        """The header of a call over HTTP."""
        return {"X-MBX-APIKEY": self._key.reveal()}

    def sign(self, payload: str) -> str:
        """The signature of a text, in hex."""
        secret = self._secret.reveal().encode()
        return hmac.new(secret, payload.encode(), hashlib.sha256).hexdigest()

    def request(self, params: Texts) -> dict[str, str | int | float]:
        """Parameters of the WebSocket API with key and signature."""
        signed = dict(params) | {"apiKey": self._key.reveal()}
        return signed | {"signature": self.sign(payload_text(signed))}


def payload_text(params: Texts) -> str:
    """What the WebSocket API has signed: sorted by name, not encoded."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params))


def stamp(clock: VenueClock, window_ms: float) -> dict[str, str | int | float]:
    """When it is sent, and for how long it is good."""
    return {"recvWindow": f"{window_ms:g}", "timestamp": clock.now_ns() // _MS_NS}


def make_header(keys: Keys) -> Signer:
    """Adds the key alone: what user streams want."""

    def add(request: Request) -> Request:
        headers = request.headers | keys.headers
        return msgspec.structs.replace(request, headers=headers)

    return add


def make_signer(
    keys: Keys, clock: VenueClock, window_ms: float, *, unit: str = ""
) -> Signer:
    """Signs calls over HTTP; `unit` is what their answers are to count times in."""
    headers = {"X-MBX-TIME-UNIT": unit} if unit else {}

    def sign(request: Request) -> Request:
        stamped = msgspec.structs.replace(
            request,
            params=request.params | stamp(clock, window_ms),
            headers=request.headers | keys.headers | headers,
        )
        signature = keys.sign(stamped.encoded())
        params = stamped.params | {"signature": signature}
        return msgspec.structs.replace(stamped, params=params)

    return sign
