"""Signatures and nonces of Kraken's private calls; keys stay where they are."""

import base64
import threading

import pytest

from piker_core.adapter.answers import Request
from piker_core.config import Secret
from piker_core.errors import ConfigError
from providers.kraken.api import Config
from providers.kraken.signing import Credentials, next_nonce, signature

SECRET = (
    "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6"
    "F1huXg=="
)
BODY = (
    "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25"
)


def test_the_signature_is_the_one_that_the_venue_documents() -> None:
    signed = signature(
        base64.b64decode(SECRET), "/0/private/AddOrder", "1616492376594", BODY
    )
    assert signed == (
        "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6"
        "H8ndwLUQ=="
    )


def test_a_call_is_signed_as_it_is_sent() -> None:
    credentials = Credentials(Secret("key"), Secret(SECRET))
    request = Request("POST", "/0/private/OpenOrders", {"cl_ord_id": "a b&c"})
    signed = credentials.sign(request)
    assert signed.form
    assert list(signed.params) == ["nonce", "cl_ord_id"]
    assert signed.headers["API-Key"] == "key"
    assert signed.headers["API-Sign"] == signature(
        base64.b64decode(SECRET),
        request.path,
        str(signed.params["nonce"]),
        signed.encoded(),
    )
    assert credentials.sign(request).headers["API-Sign"] != signed.headers["API-Sign"]


def test_nonces_rise_strictly_in_all_threads_of_a_process() -> None:
    drawn: list[list[int]] = [[] for _ in range(4)]

    def draw(mine: list[int]) -> None:
        mine += [next_nonce("threads") for _ in range(2000)]

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(set(mine)) for mine in drawn)
    assert len({nonce for mine in drawn for nonce in mine}) == 8000
    assert min(map(min, drawn)) > 10**18  # nanoseconds


def test_a_clock_that_goes_back_does_not_take_the_nonce_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = next_nonce("back")
    monkeypatch.setattr("time.time_ns", lambda: first - 10**12)
    assert next_nonce("back") == first + 1


@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        ("", "", "api_key and api_secret missing"),
        ("key", "", "api_secret missing"),
        ("", SECRET, "api_key missing"),
        ("key", "no base64!", "api_secret is no base64"),
    ],
)
def test_keys_that_cannot_be_are_named_with_what_mends_it(
    key: str, secret: str, words: str
) -> None:
    config = Config(api_key=Secret(key), api_secret=Secret(secret))
    with pytest.raises(ConfigError, match=words) as raised:
        Credentials.of(config)
    text = str(raised.value)
    assert "[kraken]" in text
    assert secret == "" or secret not in text


def test_neither_key_nor_secret_is_in_a_repr() -> None:
    credentials = Credentials(Secret("canary-key"), Secret(SECRET))
    config = Config(api_key=Secret("canary-key"), api_secret=Secret(SECRET))
    for text in (repr(credentials), credentials.name, repr(config)):
        assert "canary-key" not in text
        assert SECRET not in text
