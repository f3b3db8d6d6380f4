"""Limits of an account: each refuses what is beyond it, by its name, and no more."""

import os
import stat
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.config import load_named
from piker_core.ems.kill_switch import NAME, kill, killed, resume
from piker_core.ems.risk import Refusal, Risk, RiskConfig, View, plain, quantized
from piker_core.errors import ConfigError, PikerError
from piker_core.orders import Order
from piker_core.symbols import Asset, MktPair

SECOND = 1_000_000_000
XBTUSD = MktPair(
    base=Asset("xbt"),
    quote=Asset("usd", "fiat"),
    symbol="xbtusd",
    venue_symbol="XBT/USD",
    provider="kraken",
    price_tick=Decimal("0.1"),
    size_tick=Decimal("1e-8"),
    min_size=Decimal("0.0001"),
    max_size=Decimal(100),
    min_notional=Decimal(5),
)
sizes = st.decimals("0.00000001", 100, places=8)
limits = st.decimals(0, 200, places=8)


def order(
    action: str = "buy", size: Any = 1, price: Any = 60_000, **more: Any
) -> Order:
    fields = {"exec_mode": "live", "oid": "o", "symbol": "xbtusd.kraken"} | more
    return Order(action=action, size=size, price=price, account="paper", **fields)  # type: ignore[arg-type]


def view(**known: Any) -> View:
    fields = {"now_ns": 10 * SECOND, "bid": 59_999.9, "ask": 60_000.1} | known
    for name in ("position", "buying", "selling", "filled", "day_profit"):
        fields[name] = Decimal(str(fields.get(name, 0)))
    return View(**fields)


def refused(limits: dict[str, Any], asked: Order, known: View) -> str:
    """The text of the refusal, empty if there is none."""
    return str(Risk(RiskConfig(**limits)).check(asked, known) or "")


# -- configuration ---------------------------------------------------------------------


def configured(tmp_path: Path, text: str, **environ: str) -> RiskConfig:
    path = tmp_path / "config.toml"
    path.write_text(text)
    names = {"PIKER_CONFIG": str(path)} | environ
    return load_named("risk", "paper", RiskConfig, environ=names)


def test_limits_are_numbers_or_text_and_exact(tmp_path: Path) -> None:
    text = "[risk.paper]\nmax_order_size = 0.1\nmax_position = 2\ndaily_loss = '64.10'"
    config = configured(tmp_path, text, PIKER_RISK__PAPER__PRICE_COLLAR="0.0625")
    assert config.max_order_size == Decimal("0.1")
    assert config.max_position == 2
    assert config.daily_loss == Decimal("64.1")
    assert config.price_collar == Decimal("0.0625")
    assert config.max_notional is None


@pytest.mark.parametrize("rule", RiskConfig.__struct_fields__)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "'nan'", "'many'", "true"])
def test_a_limit_that_is_none_is_refused_by_its_name(
    tmp_path: Path, rule: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\[risk.paper\].*{rule}"):
        configured(tmp_path, f"[risk.paper]\n{rule} = {value}\n")


def test_a_limit_that_is_not_known_is_refused_with_the_one_that_is_meant(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="did you mean max_position"):
        configured(tmp_path, "[risk.paper]\nmax_positon = 1\n")


def test_nothing_is_limited_that_has_no_limit() -> None:
    vast = order(size=10**12, price=10**9)
    known = view(bid=None, ask=None, day_profit=-(10**9), open_orders=10**6)
    risk = Risk(RiskConfig())
    assert [risk.check(vast, known) for _ in range(1000)] == [None] * 1000


# -- one rule each ---------------------------------------------------------------------


def test_a_larger_order_than_allowed_is_refused_with_both_numbers() -> None:
    limits = {"max_order_size": "0.5"}
    assert refused(limits, order(size="0.5"), view()) == ""
    text = refused(limits, order("sell", "0.75"), view())
    assert text == "max_order_size: 0.75 xbtusd.kraken is more than 0.5"


def test_a_larger_worth_than_allowed_is_refused_contracts_counted_as_their_units() -> (
    None
):
    limits = {"max_notional": 30_000}
    assert refused(limits, order(size="0.5"), view()) == ""
    text = refused(limits, order(size="0.50000001"), view())
    assert text.startswith("max_notional: 0.50000001 xbtusd.kraken at 60000 is worth ")
    assert "30000.0006, more than 30000" in text
    assert refused(limits, order(size="0.5"), view(multiplier=Decimal(2)))


@pytest.mark.parametrize(
    ("action", "price"), [("buy", 30_000), ("sell", 30_000), ("buy", 90_000)]
)
def test_a_price_far_from_the_last_quote_is_refused_on_both_sides(
    action: str, price: int
) -> None:
    text = refused({"price_collar": "0.0625"}, order(action, price=price), view())
    assert text == (
        f"price_collar: {price} for xbtusd.kraken is not within 0.0625 of the last "
        "quote, 60000: from 56250 to 63750"
    )


@pytest.mark.parametrize(
    ("known", "middle"),
    [
        ({"bid": 100, "ask": 102, "last": 500}, 101),
        ({"bid": None, "ask": 102, "last": 500}, 102),
        ({"bid": 100, "ask": None, "last": 500}, 100),
        ({"bid": None, "ask": None, "last": 500}, 500),
    ],
)
def test_the_collar_is_around_the_middle_or_the_one_side_or_the_last_trade(
    known: dict[str, Any], middle: int
) -> None:
    limits = {"price_collar": "0.5"}
    for edge, beyond in (("0.5", "0.49"), ("1.5", "1.51")):
        on, off = (order(price=middle * Decimal(part)) for part in (edge, beyond))
        assert refused(limits, on, view(**known)) == ""
        assert f" {middle}: " in refused(limits, off, view(**known))


def test_without_any_quote_the_collar_refuses_and_says_so() -> None:
    known = view(bid=None, ask=None)
    text = refused({"price_collar": 1}, order(), known)
    assert text.startswith("price_collar: no quote of xbtusd.kraken is known")


def test_what_waits_for_a_price_is_held_against_that_price_until_it_is_reached() -> (
    None
):
    limits = {"price_collar": "0.01"}
    assert refused(limits, order(price=90_000, exec_mode="dark"), view()) == ""
    assert refused(limits, order(price=90_000, trail=100), view()) == ""
    assert refused(limits, order(price=90_000, stop=90_100), view()) == ""
    text = refused(limits, order(price=60_000, stop=90_000), view())
    assert "within 0.01 of the stop at 90000: from 89100 to 90900" in text
    reached = view(is_update=True, is_triggered=True)
    dark = order(price=90_000, exec_mode="dark")
    assert "the last quote" in refused(limits, dark, reached)
    for more in ({"trail": 100}, {"stop": 90_000}):  # may be far through the market
        assert refused(limits, order(price=90_000, **more), reached) == ""
        sent = view(is_update=True, is_sent=True)
        assert "the last quote" in refused(limits, order(price=90_000, **more), sent)


def test_the_position_is_the_one_that_would_be_were_all_orders_of_the_side_filled() -> (
    None
):
    limits = {"max_position": 1}
    assert (
        refused(limits, order("buy", "0.25"), view(position=".5", buying=".25")) == ""
    )
    text = refused(limits, order("buy", "0.5"), view(position=".5", buying=".25"))
    assert text == (
        "max_position: a buy of 0.5 xbtusd.kraken could make the position of 0.5 one "
        "of 1.25 (other buys: 0.25), more than 1"
    )
    assert refused(limits, order("sell", "2"), view(position=1)) == ""
    assert refused(limits, order("sell", "2.1"), view(position=1))
    assert refused(limits, order("sell", "1"), view(position=1, selling="1.1"))
    assert refused(limits, order("sell", "1"), view(position=5, buying=9)) == ""
    assert refused(limits, order("buy", "1"), view(position=-5, selling=9)) == ""


def test_what_is_filled_of_a_changed_order_is_in_the_position_already() -> None:
    known = view(position=".75", filled=".75", is_update=True)
    assert refused({"max_position": 1}, order(size=1), known) == ""
    assert refused({"max_position": 1}, order(size="1.01"), known)


@given(limits, sizes, st.decimals(-100, 100, places=8), limits, limits)
def test_the_worst_position_decides(
    limit: Decimal, size: Decimal, position: Decimal, buying: Decimal, selling: Decimal
) -> None:
    known = view(position=position, buying=buying, selling=selling)
    for action, worst in (
        ("buy", Fraction(position) + Fraction(buying) + Fraction(size)),
        ("sell", -(Fraction(position) - Fraction(selling) - Fraction(size))),
    ):
        text = refused({"max_position": limit}, order(action, size), known)
        assert bool(text) == (worst > limit)


def test_one_order_more_than_may_be_open_is_refused_a_change_of_one_is_not() -> None:
    limits = {"max_open_orders": 2}
    assert refused(limits, order(), view(open_orders=1)) == ""
    text = refused(limits, order(), view(open_orders=2))
    assert text == "max_open_orders: 2 orders are open, 2 may be"
    assert refused(limits, order(), view(open_orders=2, is_update=True)) == ""


def test_no_more_orders_pass_in_any_second_and_a_refused_one_does_not_count() -> None:
    risk = Risk(RiskConfig(max_orders_per_s=2, max_order_size=1))  # type: ignore[arg-type]
    times = [0, 400, 500, 999, 1000, 1001, 1399, 1400, 1401]
    passed = []
    for time_ms in times:
        known = view(now_ns=time_ms * SECOND // 1000, is_update=time_ms == 400)
        assert risk.check(order(size=2), known)
        refusal = risk.check(order(), known)
        if refusal is None:
            passed.append(time_ms)
        else:
            assert str(refusal) == (
                "max_orders_per_s: 2 orders were sent or changed within a second, "
                "2 may be"
            )
    assert passed == [0, 400, 1000, 1400]


@given(st.lists(st.integers(0, 3 * SECOND)), st.integers(0, 4))
def test_never_more_than_the_limit_in_a_second_and_never_refused_below_it(
    times: list[int], limit: int
) -> None:
    risk = Risk(RiskConfig(max_orders_per_s=limit))  # type: ignore[arg-type]
    passed: list[int] = []
    for now in sorted(times):
        recent = sum(now - SECOND < time <= now for time in passed)
        assert (risk.check(order(), view(now_ns=now)) is None) == (recent < limit)
        if recent < limit:
            passed.append(now)


def test_a_clock_that_is_set_back_does_not_stop_all_orders() -> None:
    risk = Risk(RiskConfig(max_orders_per_s=1))  # type: ignore[arg-type]
    assert risk.check(order(), view(now_ns=3600 * SECOND)) is None
    assert risk.check(order(), view(now_ns=10 * SECOND)) is None
    assert risk.check(order(), view(now_ns=10 * SECOND))


def test_what_was_triggered_counts_in_its_second_and_is_not_held_up() -> None:
    risk = Risk(RiskConfig(max_orders_per_s=1))  # type: ignore[arg-type]
    assert risk.check(order(), view(is_update=True, is_triggered=True)) is None
    assert risk.check(order(), view(is_update=True, is_triggered=True)) is None
    assert risk.check(order(), view())


def test_after_the_day_s_loss_only_what_reduces_the_position_is_taken() -> None:
    limits = {"daily_loss": 64}
    assert refused(limits, order("buy"), view(day_profit="-63.99")) == ""
    text = refused(limits, order("buy", ".5"), view(day_profit=-200, position=1))
    assert text.startswith("daily_loss: 200 was lost today, 64 may be: a buy of 0.5 ")
    assert refused(limits, order("buy"), view(day_profit=-64))
    assert refused(limits, order("sell"), view(day_profit=-64))
    long, short = ({"day_profit": -64, "position": sign} for sign in (1, -1))
    assert refused(limits, order("sell", 1), view(**long)) == ""
    assert refused(limits, order("sell", "1.1"), view(**long))
    assert refused(limits, order("sell", ".5"), view(**long, selling=".6"))
    assert refused(limits, order("buy", 1), view(**short)) == ""
    assert refused(limits, order("buy", ".5"), view(**short, buying=".6"))
    assert refused(limits, order("sell", ".5"), view(**short))
    done = {"filled": ".5", "is_update": True, "selling": ".5"}
    assert refused(limits, order("sell", 1), view(**long, **done)) == ""


def test_a_kill_refuses_all_and_else_alerts_are_limited_by_their_number_alone() -> None:
    narrow = dict.fromkeys(RiskConfig.__struct_fields__, 0)
    del narrow["max_open_orders"]
    alert = order("alert", exec_mode="dark")
    for asked in (alert, order()):
        assert refused(narrow, asked, view(killed="because")) == "kill: because"
        assert refused(narrow, asked, view(killed="because", is_update=True))
    assert refused(narrow, alert, view()) == ""
    assert "max_open_orders" in refused({"max_open_orders": 0}, alert, view())


def test_numbers_in_refusals_are_plain() -> None:
    for text in ("0", "-0", "0.000", "1E+3", "1.50", "1E-8", "-20", "100"):
        assert Fraction(plain(Decimal(text))) == Fraction(text)
    shown = [plain(Decimal(text)) for text in ("-0", "1E+3", "1.50", "1E-8", "100")]
    assert shown == ["0", "1000", "1.5", "0.00000001", "100"]


# -- whole steps -----------------------------------------------------------------------


@pytest.mark.parametrize(("action", "price"), [("buy", "60000.1"), ("sell", "60000.2")])
def test_a_price_between_ticks_is_rounded_to_the_one_not_worse_for_the_sender(
    action: str, price: str
) -> None:
    stepped = quantized(order(action, "0.123456789", "60000.15"), XBTUSD)
    assert isinstance(stepped, Order)
    assert (stepped.price, stepped.size) == (Decimal(price), Decimal("0.12345678"))


@pytest.mark.parametrize(
    ("size", "price", "text"),
    [
        ("1e-12", 60_000, "size_tick: a size of 0.000000000001 is less"),
        (1, "0.05", "price_tick: a price of 0.05 is less"),
        ("0.00009", 60_000, "min_size: a size of 0.00009 is less"),
        ("100.1", 60_000, "max_size: a size of 100.1 is more"),
        ("0.0001", 40_000, "min_notional: a worth of 4 is less"),
    ],
)
def test_an_order_that_no_step_or_bound_of_the_market_allows_is_refused(
    size: Any, price: Any, text: str
) -> None:
    refusal = quantized(order("buy", size, price), XBTUSD)
    assert isinstance(refusal, Refusal)
    assert refusal.rule == text.partition(":")[0]
    assert str(refusal).startswith(text)
    assert "xbtusd.kraken" in str(refusal)


def test_bounds_themselves_are_allowed_and_none_is_no_bound() -> None:
    for size, price in (("100", 60_000), ("0.0001", 50_000)):
        assert isinstance(quantized(order("buy", size, price), XBTUSD), Order)
    unbounded = msgspec.structs.replace(XBTUSD, max_size=None)
    assert isinstance(quantized(order("buy", 10**9), unbounded), Order)


def test_alerts_stops_and_trails_stay_as_they_are() -> None:
    alert = order("alert", "1e-12", "60000.05", exec_mode="dark")
    assert quantized(alert, XBTUSD) == alert
    stop = quantized(order("sell", 1, stop="60000.05", trail="0.15"), XBTUSD)
    assert isinstance(stop, Order)
    assert (stop.stop, stop.trail) == (Decimal("60000.05"), Decimal("0.15"))


@given(
    st.sampled_from(["buy", "sell"]), sizes, st.decimals("0.2", 10**6, places=9), sizes
)
def test_a_stepped_order_is_in_whole_steps_never_worse_and_stays(
    action: str, size: Decimal, price: Decimal, tick: Decimal
) -> None:
    free = {"min_size": Decimal(0), "min_notional": Decimal(0), "size_tick": tick}
    mkt = msgspec.structs.replace(XBTUSD, **free)
    stepped = quantized(order(action, size, price), mkt)
    if isinstance(stepped, Refusal):
        assert stepped.rule == "size_tick" and size < tick
        return
    assert stepped.price <= price if action == "buy" else stepped.price >= price
    assert abs(stepped.price - price) < mkt.price_tick
    assert 0 <= size - stepped.size < tick
    assert (Fraction(stepped.size) / Fraction(tick)).denominator == 1
    assert quantized(stepped, mkt) == stepped


# -- the kill switch -------------------------------------------------------------------


def test_a_kill_holds_until_it_is_resumed_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "deep"
    assert killed(folder) == ""
    assert not resume(folder)
    kill(folder, "prices look wrong")
    text = killed(folder)
    assert "prices look wrong" in text and str(folder / NAME) in text
    assert " UTC" in text and "ems resume" in text
    kill(folder, "again")
    assert "again" in killed(folder)
    assert resume(folder)
    assert killed(folder) == ""


def test_the_kill_file_is_its_user_s_alone_and_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    kill(folder)
    assert list(folder.iterdir()) == [folder / NAME]
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


HOSTILE = [
    *(b"", b"\0" * 10_000_000, b"\xff\xfe", b"[" * 4096, b'{"reason": 5}', b"null"),
    *(
        b'{"time_ns": 1' + b"0" * 300 + b"}",
        b'{"time_ns": -1}',
        b'{"reason": "\\ud800"}',
    ),
    *(b'{"time_ns": 99999999999999999999}', b'{"x": ' + b"[" * 4000),
    *(b'{"reason": "\\u0000\\n\\u001b[2J"}', b'{"user": "' + b"x" * 3000 + b'"}'),
]


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:20]))
def test_whatever_is_in_the_file_kills_and_is_one_printable_line(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)
    text = killed(tmp_path)
    assert text and text.isprintable() and len(text) < 1000
    assert resume(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_in_the_file_kill(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(content)
        assert killed(Path(folder)).isprintable()


def test_whatever_stands_in_the_place_of_the_file_kills(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert killed(tmp_path)
    kill(tmp_path, "it does as well")
    with pytest.raises(PikerError, match="remove it by hand"):
        resume(tmp_path)
    (tmp_path / NAME).rmdir()
    os.mkfifo(tmp_path / NAME)
    assert killed(tmp_path)
    assert resume(tmp_path)
    (tmp_path / NAME).symlink_to(tmp_path / NAME)
    assert killed(tmp_path)
    assert resume(tmp_path)


def test_a_switch_that_cannot_be_looked_at_counts_as_thrown(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "cannot be looked at" in killed(loop)
    (tmp_path / "file").write_text("")
    assert killed(tmp_path / "file") == ""
    with pytest.raises(PikerError, match="cannot be set"):
        kill(tmp_path / "file")


def test_a_long_reason_is_cut_and_told(tmp_path: Path) -> None:
    kill(tmp_path, "long\n" * 10_000)
    assert "long long" in killed(tmp_path)
