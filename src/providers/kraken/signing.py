"""Signatures of Kraken's private calls, and the nonces that they need.

1. Nonces are nanoseconds since 1970 and rise strictly for a key in all threads of a
   process; another process of the same key draws from the same clock.
2. What is signed is the body as it is sent, byte for byte.
3. No repr, log or error has a key or a secret.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-auth
"""

import base64
import binascii
import hashlib
import hmac
import threading
import time

import msgspec

from piker_core.adapter.answers import Request
from piker_core.config import Secret, config_path
from piker_core.errors import ConfigError

from .api import Config

_lock = threading.Lock()
_last_nonce: dict[str, int] = {}


def next_nonce(key: str) -> int:
    """A nonce above all that this process gave for a key."""
    with _lock:
        nonce = max(time.time_ns(), _last_nonce.get(key, 0) + 1)
        _last_nonce[key] = nonce
        return nonce


def signature(secret: bytes, path: str, nonce: str, body: str) -> str:
    """The header API-Sign of a call: HMAC-SHA512 of path and SHA-256, in base64."""
    digest = hashlib.sha256((nonce + body).encode()).digest()
    mac = hmac.new(secret, path.encode() + digest, hashlib.sha512)
    return base64.b64encode(mac.digest()).decode()


class Credentials:
    """A key and its secret, which sign calls."""

    __slots__ = ("_key", "_secret")

    def __init__(self, key: Secret, secret: Secret) -> None:
        """Raises ConfigError that names what is missing or cannot be a secret."""
        lacks = [
            name
            for name, text in (("api_key", key), ("api_secret", secret))
            if not text
        ]
        if lacks:
            raise ConfigError(
                f"[kraken] {' and '.join(lacks)} missing: orders need a key with the "
                "permissions to query, to create and to cancel orders, and WebSocket "
                f"access; put api_key and api_secret into {config_path()} (chmod 600) "
                "or into PIKER_KRAKEN__API_KEY and PIKER_KRAKEN__API_SECRET"
            )
        try:
            base64.b64decode(secret.reveal(), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(
                "[kraken] api_secret is no base64: copy the private key as the venue "
                "shows it, to its last letter"
            ) from None
        self._key, self._secret = key, secret

    @classmethod
    def of(cls, config: Config) -> "Credentials":
        """Those of the configuration. Raises ConfigError."""
        return cls(config.api_key, config.api_secret)

    def __repr__(self) -> str:
        return "Credentials('***')"

    @property
    def name(self) -> str:
        """What tells these credentials from others, without giving them away."""
        return hashlib.sha256(self._key.reveal().encode()).hexdigest()[:16]

    def sign(self, request: Request) -> Request:
        """A call with nonce, key and signature; a `Signer`."""
        nonce = str(next_nonce(self.name))
        params = {"nonce": nonce} | request.params
        signed = msgspec.structs.replace(request, params=params, form=True)
        secret = base64.b64decode(self._secret.reveal())
        headers = request.headers | {
            "API-Key": self._key.reveal(),
            "API-Sign": signature(secret, request.path, nonce, signed.encoded()),
        }
        return msgspec.structs.replace(signed, headers=headers)
