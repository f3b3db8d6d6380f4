"""Names of contracts, and which contract a name means."""

import sys
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import piker_core as pk
from providers.ib.config import Config
from providers.ib.contracts import describe, describe_market, read_rule, rule_id
from providers.ib.names import (
    choose,
    listing_name,
    parse_name,
    queries,
    step,
)


def contract(**fields: Any) -> SimpleNamespace:
    known: dict[str, Any] = {
        "conId": 1, "symbol": "AAPL", "secType": "STK", "exchange": "SMART",
        "primaryExchange": "NASDAQ", "currency": "USD", "localSymbol": "AAPL",
        "tradingClass": "NMS", "multiplier": "", "strike": 0.0, "right": "",
        "lastTradeDateOrContractMonth": "",
    }  # fmt: skip
    return SimpleNamespace(**(known | fields))


def row(**fields: Any) -> SimpleNamespace:
    known: dict[str, Any] = {
        "minTick": 0.01, "validExchanges": "SMART,NASDAQ", "marketRuleIds": "26,557",
        "priceMagnifier": 1, "longName": "APPLE INC", "sizeIncrement": 0.0001,
        "minSize": 0.0001, "tradingHours": "", "liquidHours": "", "timeZoneId": "",
    }  # fmt: skip
    own = {key: fields.pop(key) for key in known.keys() & fields.keys()}
    return SimpleNamespace(contract=contract(**fields), **(known | own))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("aapl.nasdaq.ib", ("aapl", "nasdaq", "")),
        ("aapl.ib", ("aapl", "", "")),
        ("MNQ.CME.20261218.IB", ("mnq", "cme", "20261218")),
        ("aapl.smart.20261218-c-250", ("aapl", "smart", "20261218-c-250")),
        ("eurusd.idealpro", ("eurusd", "idealpro", "")),
        ("brk-b.nyse.ib", ("brk-b", "nyse", "")),
    ],
)
def test_a_name_has_pair_venue_and_tail(name: str, parts: tuple[str, ...]) -> None:
    wanted = parse_name(name)
    assert (wanted.pair, wanted.venue, wanted.tail) == parts
    assert wanted.provider == "ib"


@pytest.mark.parametrize(
    "name", ["", "a b.ib", "aapl.smart.soon.ib", "a.b.2026.d.ib", "a.b.20261218-c-2_50"]
)
def test_what_names_no_contract_says_how_names_are_written(name: str) -> None:
    with pytest.raises(pk.NotFound, match=r"mnq\.cme\.20261218\.ib"):
        parse_name(name)


def test_a_name_says_of_what_class_its_contract_is() -> None:
    kinds = {
        "aapl.nasdaq": ["STK", "STK", "IND", "CMDTY", "FUT"],
        "aapl.smart": ["STK", "CMDTY"],
        "eurusd.idealpro": ["CASH"],
        "btcusd.paxos": ["CRYPTO"],
        "mnq.cme.20261218": ["FUT"],
        "aapl.smart.20261218-c-250": ["OPT", "FOP"],
    }
    for name, expected in kinds.items():
        assert [each["secType"] for each in queries(parse_name(name))] == expected


def test_options_are_asked_for_by_expiry_right_and_strike() -> None:
    first = queries(parse_name("aapl.smart.20261218-p-2_5.ib"))[0]
    assert first == {
        "secType": "OPT",
        "symbol": "AAPL",
        "exchange": "SMART",
        "lastTradeDateOrContractMonth": "20261218",
        "right": "P",
        "strike": 2.5,
    }


def test_pairs_of_currencies_are_split() -> None:
    (forex,) = queries(parse_name("eurusd.idealpro"))
    assert (forex["symbol"], forex["currency"]) == ("EUR", "USD")
    (coin,) = queries(parse_name("dogeusd.zerohash"))
    assert (coin["symbol"], coin["currency"]) == ("DOGE", "USD")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "aapl.nasdaq"),
        ({"symbol": "BRK B", "primaryExchange": "NYSE"}, "brk-b.nyse"),
        ({"primaryExchange": "NASDAQ.NMS"}, "aapl.nasdaq"),
        (
            {
                "symbol": "MNQ",
                "secType": "FUT",
                "exchange": "CME",
                "lastTradeDateOrContractMonth": "20261218",
            },
            "mnq.cme.20261218",
        ),
        (
            {
                "secType": "OPT",
                "right": "C",
                "strike": 250.0,
                "lastTradeDateOrContractMonth": "20261218",
            },
            "aapl.smart.20261218-c-250",
        ),
        (
            {
                "secType": "OPT",
                "right": "P",
                "strike": 2.5,
                "lastTradeDateOrContractMonth": "20261218",
            },
            "aapl.smart.20261218-p-2_5",
        ),
        (
            {"symbol": "EUR", "secType": "CASH", "exchange": "IDEALPRO"},
            "eurusd.idealpro",
        ),
        ({"symbol": "SPX", "secType": "IND", "exchange": "CBOE"}, "spx.cboe"),
        ({"symbol": "BTC", "secType": "CRYPTO", "exchange": "PAXOS"}, "btcusd.paxos"),
    ],
)
def test_every_class_has_a_name_that_leads_back(
    fields: dict[str, Any], name: str
) -> None:
    assert listing_name(contract(**fields)) == name
    assert parse_name(name).symbol == name


def test_the_venue_is_called_as_it_was_asked_for() -> None:
    assert listing_name(contract(), "smart") == "aapl.smart"


def test_of_listings_in_several_currencies_the_configured_one_is_meant() -> None:
    rows = [
        row(conId=4391, symbol="AMD"),
        row(conId=32596680, symbol="AMD", currency="EUR", primaryExchange="IBIS"),
    ]
    wanted = parse_name("amd.smart")
    assert choose(wanted, rows, Config()).contract.conId == 4391
    assert choose(wanted, rows, Config(currency="EUR")).contract.conId == 32596680
    assert choose(parse_name("amd.ibis"), rows, Config()).contract.currency == "EUR"
    assert choose(parse_name("amd.nyse"), rows, Config()) is None


def test_an_ambiguous_name_is_an_error_that_lists_what_it_may_be() -> None:
    rows = [
        row(
            conId=number, symbol="SI", secType="FUT", exchange="COMEX",
            lastTradeDateOrContractMonth="20261229", localSymbol=name,
            tradingClass=name, multiplier=size,
        )
        for number, name, size in ((1, "SIZ6", "5000"), (2, "SILZ6", "1000"))
    ]  # fmt: skip
    with pytest.raises(pk.NotFound, match=r"SILZ6.*1000 a point.*SIZ6.*ask for one"):
        choose(parse_name("si.comex"), rows, Config())


def test_of_futures_of_several_sizes_the_one_whose_class_is_its_symbol_is_meant() -> (
    None
):
    rows = [
        row(conId=1, symbol="SI", secType="FUT", exchange="COMEX", tradingClass="SI"),
        row(conId=2, symbol="SI", secType="FUT", exchange="COMEX", tradingClass="SIL"),
    ]
    assert choose(parse_name("si.comex.202612"), rows, Config()).contract.conId == 1


def test_steps_are_exact_decimals_and_the_greatest_double_is_none() -> None:
    assert step(0.00005) == Decimal("0.00005") and step(250.0) == Decimal(250)
    assert str(step(0.25)) == "0.25" and str(step(250.0)) == "250"
    assert step(sys.float_info.max) is None and step(0.0) is None


def test_the_market_rule_is_that_of_the_exchange() -> None:
    assert rule_id(row()) == 26
    assert rule_id(row(exchange="NASDAQ")) == 557
    assert rule_id(row(marketRuleIds="")) is None
    rule = read_rule(
        SimpleNamespace(lowEdge=edge, increment=size)
        for edge, size in ((100.0, 0.05), (0.0, 0.01), (1000.0, 0.1))
    )
    listing = describe("x.y", row(), rule, Config(), 178)
    steps = [str(listing.tick_at(Decimal(price))) for price in (5, 100, 2000)]
    assert steps == ["0.01", "0.05", "0.1"]


def test_sizes_of_old_servers_are_in_lots_for_us_stocks_alone() -> None:
    assert describe("x.y", row(), (), Config(), 157).lot == 100
    assert describe("x.y", row(), (), Config(), 178).lot == 1
    assert describe("x.y", row(currency="EUR"), (), Config(), 157).lot == 1
    assert describe("x.y", row(), (), Config(us_stock_lot=100), 178).lot == 100


def test_a_description_becomes_a_market_with_decimal_steps() -> None:
    listing = describe("aapl.nasdaq", row(), (), Config(), 178)
    mkt = describe_market(listing)
    assert mkt.fqme == "aapl.nasdaq.ib" and mkt.venue_symbol == "AAPL"
    assert (str(mkt.price_tick), str(mkt.size_tick)) == ("0.01", "0.0001")
    assert mkt.base.atype == "stock" and mkt.quote.name == "usd"
    assert (mkt.kind, mkt.venue, mkt.multiplier) == ("stock", "nasdaq", 1)
    forex = describe("eurusd.idealpro", row(secType="CASH"), (), Config(), 178)
    assert (forex.kind, forex.what, forex.bars_from) == ("quotes", "BID", "bid")
    middle = Config(quote_bars_from="mid")
    assert describe("x.y", row(secType="CASH"), (), middle, 178).what == "MIDPOINT"
    assert describe("x.y", row(secType="CRYPTO"), (), Config(), 178).what == "AGGTRADES"


def test_an_option_is_described_whole_and_briefly() -> None:
    fields = {"secType": "OPT", "localSymbol": "AAPL  261218P00002500"}
    name = "aapl.smart.20261218-p-2_5"
    mkt = describe_market(
        describe(name, row(multiplier="100", **fields), (), Config(), 178)
    )
    assert (mkt.kind, mkt.expiry, mkt.right) == ("option", "20261218", "p")
    assert (str(mkt.strike), mkt.multiplier) == ("2.5", 100)
    assert len(msgspec.json.encode(mkt)) < 500  # room in the header of a ring
    future = describe("mnq.cme.20261218", row(secType="FUT"), (), Config(), 178)
    assert describe_market(future).kind == "future"


def test_a_description_without_a_price_step_is_refused() -> None:
    with pytest.raises(pk.PikerError, match=r"no price step of aapl\.nasdaq\.ib"):
        describe("aapl.nasdaq", row(minTick=0.0), (), Config(), 178)
