"""Client order ids, legs, and signatures, without sockets."""

import logging
import re
from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.adapter.clock import VenueClock
from piker_core.adapter.rest import Request
from piker_core.config import Secret
from providers.binance.legs import LegName, Orders, parse_name
from providers.binance.side_broker import plain_text
from providers.binance.signing import Keys, make_signer, payload_text

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
REQIDS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=18)


def keys() -> Keys:
    return Keys(Secret(KEY), Secret(SECRET))


@given(REQIDS, st.integers(0, 999_999), st.booleans())
def test_every_leg_has_a_name_of_its_own_that_leads_back(
    reqid: str, number: int, replaces: bool
) -> None:
    name = LegName(reqid, number, replaces and number > 0)
    text = str(name)
    assert re.fullmatch(r"[.A-Z:/a-z0-9_-]{1,36}", text)
    assert parse_name(text) == name
    assert str(LegName(reqid)) == reqid


@given(st.text(max_size=40))
def test_a_name_of_others_is_taken_as_it_is(text: str) -> None:
    name = parse_name(text)
    assert str(name) == text
    if not re.fullmatch(r"[0-9a-z]{1,18}(-[1-9][0-9]{0,5}r?)?", text):
        assert name == LegName(text)


@given(st.permutations([(0, "3"), (0, "1"), (1, "2"), (1, "0"), (2, "4"), (0, "3")]))
def test_what_is_filled_is_the_same_in_whichever_order_it_is_told(
    told: list[tuple[int, str]],
) -> None:
    orders = Orders()
    known = orders.note("a", "BTCUSDT", "buy")
    for number, filled in told:
        orders.leg(known, number, D(1), D(5), 0).note("open", D(filled))
    assert known.newest == 2 and known.name == "a-2"
    assert known.before(2) == 5 and known.before(3) == 9


def test_an_end_is_final() -> None:
    orders = Orders()
    known = orders.note("a", "BTCUSDT", "buy")
    leg = orders.leg(known, 0, D(1), D(5), 2)
    leg.note("closed", D(5))
    leg.note("open", D(0))
    assert (leg.state, leg.filled) == ("closed", 5) and known.ended
    assert orders.leg(known, 0, D(9), D(9), 1).price == 1


def test_the_average_price_is_of_all_legs() -> None:
    orders = Orders()
    known = orders.note("a", "BTCUSDT", "buy")
    assert known.avg_price == 0
    orders.leg(known, 0, D(1), D(5), 0).note("canceled", D(1), D(10))
    orders.leg(known, 1, D(1), D(4), 0).note("open", D(3), D(14))
    assert known.avg_price == 13


def test_orders_that_ended_are_forgotten_first() -> None:
    orders = Orders()
    for number in range(5000):
        known = orders.note(f"a{number}", "BTCUSDT", "buy")
        state = "open" if number == 0 else "canceled"
        orders.leg(known, 0, D(1), D(5), 0).note(state, D(0))  # type: ignore[arg-type]
    assert orders.find("a0") is not None and orders.find("a1") is None
    assert orders.find("a4999") is not None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0))
def test_numbers_are_sent_exactly_and_without_an_exponent(number: D) -> None:
    text = plain_text(number)
    assert D(text) == number and re.fullmatch(r"[0-9]+(\.[0-9]*[1-9])?", text)


@pytest.mark.parametrize(
    ("number", "text"),
    [("1E-8", "0.00000001"), ("1E+3", "1000"), ("100", "100"), ("0.10", "0.1")],
)
def test_numbers_are_plain(number: str, text: str) -> None:
    assert plain_text(D(number)) == text


# Signatures


def test_the_signature_over_http_is_that_of_the_documents() -> None:
    payload = (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1"
        "&recvWindow=5000&timestamp=1499827319559"
    )
    assert keys().sign(payload) == (
        "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )


def test_the_signature_of_a_request_is_that_of_the_documents() -> None:
    params = {
        "symbol": "BTCUSDT", "side": "SELL", "type": "LIMIT", "timeInForce": "GTC",
        "quantity": "0.01000000", "price": "52000.00", "recvWindow": 100,
        "timestamp": 1645423376532,
    }  # fmt: skip
    signed = keys().request(params)
    assert signed["signature"] == (
        "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"
    )
    assert signed["apiKey"] == KEY
    assert payload_text({"b": 1, "a": "x"}) == "a=x&b=1"


def test_what_is_signed_is_what_is_sent_percent_encoded() -> None:
    sign = make_signer(keys(), VenueClock("test"), 5000, unit="MICROSECOND")
    request = sign(Request("GET", "/x", {"symbol": "币安人生USDT", "note": "a b"}))
    text, _, signature = request.encoded().rpartition("&signature=")
    assert text.isascii() and "%E5%B8%81" in text and "a%20b" in text
    assert keys().sign(text) == signature
    assert request.headers["X-MBX-APIKEY"] == KEY
    assert request.headers["X-MBX-TIME-UNIT"] == "MICROSECOND"
    assert (
        abs(int(request.params["timestamp"]) * 10**6 - VenueClock("x").now_ns()) < 1e10
    )


def test_keys_show_themselves_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("x").debug("%r %s", keys(), keys())
    assert SECRET not in caplog.text and KEY not in caplog.text


def test_keys_that_are_missing_are_named() -> None:
    with pytest.raises(pk.ConfigError, match=r"need api_secret: .*PIKER_BINANCE__API"):
        Keys(Secret("x"), Secret())
    with pytest.raises(pk.ConfigError, match="need api_key and api_secret"):
        Keys(Secret(), Secret())
