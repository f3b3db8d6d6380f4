"""Market names: every form there and back, and what is none."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.fqme import Fqme, parse_fqme

FORMS = {
    "xbtusd.kraken": Fqme(pair="xbtusd", provider="kraken"),
    "eurusd.idealpro.ib": Fqme(pair="eurusd", venue="idealpro", provider="ib"),
    "btcusdt.usdtm.perp.binance": Fqme(
        pair="btcusdt", venue="usdtm", kind="perp", provider="binance"
    ),
    "btcusdt.usdtm.20261225.binance": Fqme(
        pair="btcusdt", venue="usdtm", expiry="20261225", provider="binance"
    ),
    "mnq.cme.202612.ib": Fqme(pair="mnq", venue="cme", expiry="202612", provider="ib"),
    "aapl.smart.20261218-c-250.ib": Fqme(
        pair="aapl",
        venue="smart",
        expiry="20261218",
        right="c",
        strike=Decimal(250),
        provider="ib",
    ),
    "brk-b.smart.20261218-p-2_5.ib": Fqme(
        pair="brk-b",
        venue="smart",
        expiry="20261218",
        right="p",
        strike=Decimal("2.5"),
        provider="ib",
    ),
}
parts = st.text("abcxyz019_-", min_size=1, max_size=8)
days = st.dates().map(lambda day: f"{day:%Y%m%d}".rjust(8, "0"))
strikes = st.decimals(0, 10**6, allow_nan=False, places=4)
tails = st.one_of(
    st.just({}),
    days.map(lambda day: {"expiry": day}),
    st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).map(lambda k: {"kind": k}),
    st.builds(
        lambda day, right, strike: {"expiry": day, "right": right, "strike": strike},
        *(days, st.sampled_from("cp"), strikes),
    ),
)


@pytest.mark.parametrize("text", FORMS)
def test_each_form_of_a_name_says_its_parts_and_back(text: str) -> None:
    assert Fqme.parse(text) == FORMS[text]
    assert str(FORMS[text]) == text
    assert parse_fqme(text) == (FORMS[text].symbol, FORMS[text].provider)


@given(pair=parts, provider=parts, venue=parts, tail=tails)
def test_whatever_makes_a_name_is_read_from_it_again(
    pair: str, provider: str, venue: str, tail: dict[str, object]
) -> None:
    name = Fqme(pair=pair, provider=provider, venue=venue, **tail)  # type: ignore[arg-type]
    assert Fqme.parse(str(name)) == name
    assert str(Fqme.parse(str(name))) == str(name)


@given(st.text("ab1-_.A/ c2026p", max_size=24))
def test_a_text_is_a_name_as_it_stands_or_refused(text: str) -> None:
    with suppress(pk.PikerError):
        assert str(Fqme.parse(text)) == text


@pytest.mark.parametrize(
    ("strike", "text"),
    [("250", "250"), ("2.50", "2_5"), ("1E+3", "1000"), ("0.05", "0_05"), ("0", "0")],
)
def test_a_strike_is_written_plainly(strike: str, text: str) -> None:
    name = Fqme(
        pair="a",
        venue="v",
        expiry="20261218",
        right="c",
        strike=Decimal(strike),
        provider="p",
    )
    assert str(name) == f"a.v.20261218-c-{text}.p"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("xbtusd", "two to four parts"),
        ("a.b.c.d.e", "two to four parts"),
        ("XBTUSD.kraken", r"of \[a-z0-9_-\]"),
        ("xbt/usd.kraken", r"of \[a-z0-9_-\]"),
        ("a..kraken", r"of \[a-z0-9_-\]"),
        ("mnq.cme.2026121.ib", "'2026121' is no day or month"),
        ("mnq.cme.20261318.ib", "'20261318' is no day or month"),
        ("mnq.cme.20260230.ib", "'20260230' is no day or month"),
        ("mnq.cme.202613.ib", "'202613' is no day or month"),
        ("aapl.smart.20261218-x-250.ib", "'x' is no right"),
        ("aapl.smart.20261218-c-0250.ib", "strike 0250 is not plain"),
        ("aapl.smart.20261218-c-2_50.ib", "strike 2_50 is not plain"),
        ("aapl.smart.20261318-c-250.ib", "is no day or month"),
    ],
)
def test_what_is_no_name_is_told_why(text: str, why: str) -> None:
    with pytest.raises(pk.PikerError, match=f"is not a market name: .*{why}"):
        Fqme.parse(text)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"expiry": "20261218"}, "behind a venue"),
        ({"venue": "v", "kind": "perp", "expiry": "20261218"}, "no class"),
        ({"venue": "v", "kind": "9perp"}, "no class"),
        ({"venue": "v", "expiry": "2026-12-18"}, "no day"),
        ({"venue": "v", "right": "c", "strike": Decimal(1)}, "has an expiry"),
        ({"venue": "v", "expiry": "20261218", "right": "c"}, "None is no strike"),
        (
            {
                "venue": "v",
                "expiry": "20261218",
                "right": "c",
                "strike": Decimal("NaN"),
            },
            "NaN is no strike",
        ),
        (
            {"venue": "v", "expiry": "20261218", "right": "c", "strike": Decimal(-1)},
            "-1 is no strike",
        ),
        ({"venue": "v", "expiry": "20261218", "strike": Decimal(1)}, "no right"),
    ],
)
def test_parts_that_make_no_name_are_refused(
    fields: dict[str, object], why: str
) -> None:
    with pytest.raises(pk.PikerError, match=why):
        Fqme(pair="a", provider="p", **fields)  # type: ignore[arg-type]
