"""A client by others (ccxt) signs, places, asks for and cancels orders here."""

from typing import Any

import pytest
import trio

from providers.binance.venue import API_KEY, API_SECRET, open_venue
from tests.test_binance_venue_clients import CONTRACT, NAMES, SPOT, point

ccxt = pytest.importorskip("ccxt", reason="needs ccxt: pip install ccxt")


def trade(config: dict[str, str], name: str, price: float) -> dict[str, Any]:
    """What ccxt's blocking client gets of its orders."""
    client = point(ccxt.binance({"apiKey": API_KEY, "secret": API_SECRET}), config)
    client.load_markets()
    mine = {"newClientOrderId": "ccxt-1"}
    placed = client.create_order(name, "limit", "buy", 0.01, price - 100, mine)
    done: dict[str, Any] = {"placed": placed}
    done["fetched"] = client.fetch_order(placed["id"], name)
    done["open"] = client.fetch_open_orders(name)
    changed = client.edit_order(placed["id"], name, "limit", "buy", 0.02, price - 50)
    done["changed"] = client.fetch_order(changed["id"], name)
    done["canceled"] = client.cancel_order(changed["id"], name)
    taken = client.create_order(name, "limit", "buy", 0.001, round(price * 1.02, 1))
    done["taken"] = client.fetch_order(taken["id"], name)
    done["trades"] = client.fetch_my_trades(name)
    done["balance"] = client.fetch_balance()
    try:
        client.create_order(name, "limit", "buy", 500.0, price - 100)
    except ccxt.ExchangeError as error:
        done["refused"] = str(error)
    client.secret = "wrong"
    try:
        client.fetch_open_orders(name)
    except ccxt.AuthenticationError as error:
        done["unsigned"] = str(error)
    return done


@pytest.mark.parametrize("name", [SPOT, CONTRACT])
async def test_ccxt_trades_and_gets_the_truth(name: str) -> None:
    async with open_venue(seed=11, live_rate=0, history_s=60) as venue:
        market = venue.market(NAMES[name])
        price = float(market.price(market.quote.bid))
        got = await trio.to_thread.run_sync(trade, venue.config, name, price)
        account = venue.account(NAMES[name])
        first = account.orders("ccxt-1")[0]
    assert got["placed"]["clientOrderId"] == "ccxt-1"
    assert got["placed"]["status"] == got["fetched"]["status"] == "open"
    assert got["fetched"]["amount"] == 0.01 and got["fetched"]["filled"] == 0
    assert [row["id"] for row in got["open"]] == [got["placed"]["id"]]
    assert got["changed"]["amount"] == 0.02 and got["changed"]["status"] == "open"
    assert got["canceled"]["status"] == "canceled" and first.state == "canceled"
    assert got["taken"]["status"] == "closed" and got["taken"]["filled"] == 0.001
    (row,) = got["trades"]
    ((_, execution),) = account.matching.executions()
    assert (row["price"], row["amount"]) == (
        float(execution.price),
        float(execution.size),
    )
    assert row["fee"]["cost"] == pytest.approx(float(execution.fee), abs=1e-8)
    assert row["takerOrMaker"] == "taker" and row["side"] == "buy"
    assert got["balance"]["USDT"]["total"] > 0
    assert "insufficient" in got["refused"]
    assert "-1022" in got["unsigned"]
