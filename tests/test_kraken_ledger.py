"""Kraken's records of an account as transactions, and what its refusals mean."""

import json
from decimal import Decimal as D
from typing import Any

import pytest

from piker_core.errors import ProviderError
from providers import kraken
from providers.kraken.order_errors import explain, judge_error

TRADE: dict[str, Any] = {
    "txid": "THVRQM-33VKH-UCI7BS",
    "ordertxid": "OQCLML-BW3P3-BUCMWZ",
    "postxid": "TKH2SE-M7IF5-CFI7LT",
    "pair": "XXBTZUSD",
    "time": D("1688667796.8802"),
    "type": "buy",
    "ordertype": "limit",
    "price": "30010.00000",
    "cost": "600.20000",
    "fee": "0.60020",
    "vol": "0.02000000",
    "trade_id": 40274859,
    "maker": True,
}
LEDGER: dict[str, Any] = {
    "ledger_id": "L4UESK-KG3EQ-UFO4T5",
    "refid": "TJKLXF-PGMUI-4NTLXU",
    "time": 1688464484.1787,
    "type": "deposit",
    "aclass": "currency",
    "asset": "XXBT",
    "amount": "0.5000000000",
    "fee": "0.0001000000",
    "balance": "10.4980000000",
}


def test_a_bought_and_a_sold_trade_are_fills_of_either_sign() -> None:
    bought = kraken.norm_trade(TRADE)
    assert bought is not None
    assert (bought.kind, bought.tid) == ("fill", "THVRQM-33VKH-UCI7BS")
    assert (bought.size, bought.price) == (D("0.02"), D("30010"))
    assert (bought.fee, bought.fee_currency) == (D("0.60020"), "usd")
    assert (bought.symbol, bought.time_ns) == ("xbtusd.kraken", 1688667796880200000)
    sold = kraken.norm_trade(TRADE | {"type": "sell"})
    assert sold is not None
    assert sold.size == D("-0.02")


@pytest.mark.parametrize(
    ("pair", "symbol", "currency"),
    [
        ("XXBTZUSD", "xbtusd.kraken", "usd"),
        ("XBTUSD", "xbtusd.kraken", "usd"),
        ("XBT/USD", "xbtusd.kraken", "usd"),
        ("XETHXXBT", "ethxbt.kraken", "btc"),
        ("SOLUSDT", "solusdt.kraken", "usdt"),
        ("ADAXBT", "adaxbt.kraken", "btc"),
        ("XDGEUR", "xdgeur.kraken", "eur"),
    ],
)
def test_a_market_is_found_by_any_of_the_venues_names(
    pair: str, symbol: str, currency: str
) -> None:
    found = kraken.norm_trade(TRADE | {"pair": pair})
    assert found is not None
    assert (found.symbol, found.fee_currency) == (symbol, currency)


def test_a_full_name_that_is_known_is_kept() -> None:
    found = kraken.norm_trade(TRADE | {"symbol": "other.kraken", "cl_ord_id": "a1"})
    assert found is not None
    assert (found.symbol, found.reqid) == ("other.kraken", "a1")


def test_a_deposit_and_a_withdrawal_are_transfers_of_their_asset() -> None:
    deposit = kraken.norm_trade(LEDGER)
    assert deposit is not None
    assert (deposit.kind, deposit.symbol) == ("transfer", "btc.kraken")
    assert (deposit.size, deposit.fee, deposit.fee_currency) == (
        D("0.5"),
        D("0.0001"),
        "btc",
    )
    out = kraken.norm_trade(LEDGER | {"type": "withdrawal", "amount": "-0.5"})
    assert out is not None
    assert out.size == D("-0.5")


def test_a_rollover_is_a_fee_and_legs_of_trades_are_told_by_the_trades() -> None:
    fee = kraken.norm_trade(LEDGER | {"type": "rollover", "amount": "0"})
    assert fee is not None
    assert (fee.kind, fee.size, fee.fee) == ("fee", 0, D("0.0001"))
    for kind in ("trade", "spend", "receive", "something new"):
        assert kraken.norm_trade(LEDGER | {"type": kind}) is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        TRADE | {"type": "swap"},
        TRADE | {"vol": "NaN"},
        {k: v for k, v in TRADE.items() if k != "txid"},
        LEDGER | {"amount": "lots"},
        LEDGER | {"asset": ""} | {"time": None},
    ],
)
def test_a_record_that_cannot_be_understood_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match="cannot be understood"):
        kraken.norm_trade(record)


def test_records_as_the_venue_sends_them_are_exact() -> None:
    text = json.dumps(TRADE, default=float)
    record = json.loads(text, parse_float=D)
    found = kraken.norm_trade(record)
    assert found is not None
    assert found.time_ns == 1688667796880200000


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("EService:Unavailable", "unknown"),
        ("EService:Busy", "unknown"),
        ("EService:Timeout", "unknown"),
        ("EGeneral:Internal error", "unknown"),
        ("EService:Deadline elapsed", "refused"),
        ("EService:Market in cancel_only mode", "refused"),
        ("EService:Market in post_only mode", "refused"),
        ("EService: Throttled: 1700000000", "throttled"),
        ("EAPI:Rate limit exceeded", "throttled"),
        ("EOrder:Rate limit exceeded", "throttled"),
        ("EOrder:Domain rate limit exceeded", "throttled"),
        ("EGeneral:Too many requests", "throttled"),
        ("ESession:Invalid session", "session"),
        ("EOrder:Unknown order", "gone"),
        ("EOrder:Insufficient funds", "refused"),
        ("EOrder:Order minimum not met", "refused"),
        ("EGeneral:Invalid arguments:limit_price", "refused"),
        ("EGeneral:Permission denied", "refused"),
        ("Limit_price field must be a number_float", "refused"),
    ],
)
def test_what_a_refusal_means(text: str, kind: str) -> None:
    assert judge_error(text) == kind
    assert explain(text).startswith(text)
