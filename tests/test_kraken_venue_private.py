"""The simulated Kraken's private side: checked by hand and by a client of others."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal as D
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trio
from websockets.trio.client import ClientConnection, connect

from providers.kraken.venue import Venue
from tests.kraken_broker import V2, open_quiet_venue

PATIENCE_S = 20.0
Frame = dict[str, Any]


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_quiet_venue() as opened:
        yield opened


def signed(venue: Venue, path: str, form: Frame, *, secret: str = "") -> Frame:
    """Headers and body of a call, signed as the documentation says."""
    body = urlencode(form)
    secret = secret or venue.config["api_secret"]
    digest = hashlib.sha256(f"{form['nonce']}{body}".encode()).digest()
    mac = hmac.new(base64.b64decode(secret), path.encode() + digest, hashlib.sha512)
    headers = {
        "API-Key": venue.config["api_key"],
        "API-Sign": base64.b64encode(mac.digest()).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return {"headers": headers, "content": body}


async def call(venue: Venue, method: str, **form: Any) -> Frame:
    """What a private call answers."""
    given = {"nonce": time.time_ns()} | form
    path = f"/0/private/{method}"
    async with httpx.AsyncClient(base_url=venue.rest_url) as http:
        answer = await http.post(path, **signed(venue, path, given))
    decoded: Frame = answer.json()
    return decoded


class Socket:
    """A private connection, spoken by hand."""

    def __init__(self, socket: ClientConnection, token: str) -> None:
        self.socket, self.token = socket, token

    async def ask(self, method: str, req_id: int = 1, **params: Any) -> Frame:
        """Send a request; the answer to it."""
        asked = {"token": self.token} | params
        request = {"method": method, "params": asked, "req_id": req_id}
        await self.socket.send(json.dumps(request))
        return await self.read("method", method)

    async def read(self, key: str, value: str) -> Frame:
        """The next frame of a channel or a method."""
        with trio.fail_after(PATIENCE_S):
            while True:
                text = await self.socket.recv()
                frame: Frame = json.loads(text, parse_float=D)
                if frame.get(key) == value:
                    return frame


@pytest.fixture
async def socket(venue: Venue) -> AsyncIterator[Socket]:
    token = (await call(venue, "GetWebSocketsToken"))["result"]["token"]
    async with connect(venue.ws_auth_url, proxy=None, compression=None) as opened:
        yield Socket(opened, token)


async def test_a_signature_nonce_or_key_that_is_wrong_is_refused(venue: Venue) -> None:
    path = "/0/private/Balance"
    async with httpx.AsyncClient(base_url=venue.rest_url) as http:
        now = time.time_ns()

        async def errors(request: Frame) -> list[str]:
            answer: Frame = (await http.post(path, **request)).json()
            return list(answer["error"])

        assert await errors(signed(venue, path, {"nonce": now})) == []
        again = signed(venue, path, {"nonce": now})
        assert await errors(again) == ["EAPI:Invalid nonce"]
        wrong = signed(venue, path, {"nonce": now + 1}, secret="c2VjcmV0")
        assert await errors(wrong) == ["EAPI:Invalid signature"]
        other = signed(venue, path, {"nonce": now + 2})
        other["headers"]["API-Key"] = "nobody"
        assert await errors(other) == ["EAPI:Invalid key"]
        changed = signed(venue, path, {"nonce": now + 3})
        changed["content"] += "&asset=XBT"
        assert await errors(changed) == ["EAPI:Invalid signature"]
        for _ in range(5):
            await errors(wrong)
        assert await errors(signed(venue, path, {"nonce": now + 9})) == [
            "EGeneral:Temporary lockout"
        ]


async def test_calls_over_the_keys_rate_are_refused() -> None:
    account = {"calls": 5.0, "calls_decay": 0.01}
    async with open_quiet_venue(account=account) as venue:
        costs = ["TradesHistory", "OpenOrders", "TradesHistory", "OpenOrders"]
        answers = [(await call(venue, method))["error"] for method in costs]
        assert answers == [[], [], [], ["EAPI:Rate limit exceeded"]]
        assert (await call(venue, "CancelAll"))["error"] == []
        assert venue.private.refused == 1


async def test_a_request_without_a_token_is_refused(
    venue: Venue, socket: Socket
) -> None:
    for token in ("", "guess"):
        answer = await socket.ask("subscribe", channel="executions", token=token)
        assert answer["error"] == "ESession:Invalid session"
    assert (await socket.ask("subscribe", channel="executions"))["success"]


async def test_a_token_has_to_be_used_in_time_and_then_lasts() -> None:
    async with open_quiet_venue(account={"token_s": 0.2}) as venue:
        token = (await call(venue, "GetWebSocketsToken"))["result"]["token"]
        async with connect(venue.ws_auth_url, proxy=None, compression=None) as opened:
            used = Socket(opened, token)
            assert (await used.ask("subscribe", channel="balances"))["success"]
            await trio.sleep(0.25)
            assert (await used.ask("cancel_all"))["success"]
        async with connect(venue.ws_auth_url, proxy=None, compression=None) as late:
            answer = await Socket(late, token).ask("subscribe", channel="balances")
            assert answer["error"] == "ESession:Invalid session"


async def test_the_ack_of_executions_tells_the_limit_and_the_snapshot_is_numbered(
    socket: Socket,
) -> None:
    ack = await socket.ask("subscribe", channel="executions", ratecounter=True)
    assert ack["result"]["maxratecount"] == 10_000
    snapshot = await socket.read("channel", "executions")
    assert (snapshot["type"], snapshot["sequence"]) == ("snapshot", 1)
    again = await socket.ask("subscribe", channel="executions")
    assert again["error"] == "Already subscribed"


async def test_one_cancel_of_several_orders_has_an_answer_for_each(
    socket: Socket,
) -> None:
    terms = {"order_type": "limit", "side": "buy", "symbol": V2}
    for reqid in ("a", "b"):
        answer = await socket.ask(
            "add_order", cl_ord_id=reqid, order_qty=0.01, limit_price=80000.5, **terms
        )
        assert answer["result"]["cl_ord_id"] == reqid
    first = await socket.ask("cancel_order", cl_ord_id=["a", "nix", "b"])
    others = [await socket.read("method", "cancel_order") for _ in range(2)]
    assert [each["success"] for each in (first, *others)] == [True, False, True]
    assert {each["req_id"] for each in (first, *others)} == {1}


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"limit_price": "80000.5"}, "Limit_price field must be a number_float"),
        ({"limit_price": 80000}, "Limit_price field must be a number_float"),
        ({"symbol": "XBT/USD"}, "Currency pair not supported XBT/USD"),
        ({"side": "hold"}, "EGeneral:Invalid arguments:side"),
        ({"deadline": "2020-01-01T00:00:00.000Z"}, "EService:Deadline elapsed"),
        (
            {"deadline": "2090-01-01T00:00:00.000Z"},
            "EGeneral:Invalid arguments:deadline",
        ),
        ({"order_qty": 1e9}, "EOrder:Insufficient funds"),
        ({"limit_price": 80000.05}, "EOrder:Tick size check failed"),
    ],
)
async def test_what_is_wrong_with_an_order_is_said(
    socket: Socket, params: Frame, error: str
) -> None:
    terms = {"order_type": "limit", "side": "buy", "symbol": V2, "order_qty": 0.01}
    given = terms | {"limit_price": 80000.5, "cl_ord_id": "a"} | params
    assert (await socket.ask("add_order", **given))["error"] == error


async def test_a_client_id_is_free_again_when_its_order_has_ended(
    venue: Venue, socket: Socket
) -> None:
    terms = {"order_type": "limit", "side": "buy", "symbol": V2, "order_qty": 0.01}
    given = terms | {"limit_price": 80000.5, "cl_ord_id": "a"}
    assert (await socket.ask("add_order", **given))["success"]
    twice = await socket.ask("add_order", **given)
    assert twice["error"] == "EGeneral:Invalid arguments:cl_ord_id"
    await socket.ask("cancel_order", cl_ord_id=["a"])
    assert (await socket.ask("add_order", **given))["success"]
    assert venue.orders.accepted("a") == 2


async def test_orders_over_the_engines_limit_are_refused() -> None:
    async with open_quiet_venue(account={"threshold": 3, "decay": 0.01}) as venue:
        form = {"pair": "XBTUSD", "type": "buy", "ordertype": "limit"}
        given = form | {"volume": "0.01", "price": "80000.0"}
        errors = [(await call(venue, "AddOrder", **given))["error"] for _ in range(4)]
        assert errors == [[], [], [], ["EOrder:Rate limit exceeded"]]


def trade_by_ccxt(config: dict[str, str]) -> Frame:
    """What ccxt's blocking client gets of orders over REST."""
    ccxt = pytest.importorskip("ccxt", reason="needs ccxt: pip install ccxt")
    client = ccxt.kraken(
        {
            "apiKey": config["api_key"],
            "secret": config["api_secret"],
            "enableRateLimit": False,
        }
    )
    url = config["rest_url"]
    client.urls["api"] = {"public": url, "private": url}
    client.load_markets()
    got: Frame = {"balance": client.fetch_balance()}
    resting = client.create_order(V2, "limit", "buy", 0.02, 80000.0)
    taken = client.create_order(V2, "limit", "buy", 0.001, 95000.0)
    got["open"] = client.fetch_open_orders(V2)
    got["resting"] = client.fetch_order(resting["id"], V2)
    got["canceled"] = client.cancel_order(resting["id"], V2)
    got["after"] = client.fetch_open_orders(V2)
    got["closed"] = client.fetch_closed_orders(V2)
    got["trades"] = client.fetch_my_trades(V2)
    got["ids"] = (resting["id"], taken["id"])
    try:
        client.create_order(V2, "limit", "buy", 10**6, 80000.0)
    except ccxt.InsufficientFunds as error:
        got["refused"] = str(error)
    try:
        client.cancel_order(resting["id"], V2)
    except ccxt.OrderNotFound as error:
        got["unknown"] = str(error)
    return got


async def test_ccxt_trades_here_with_its_own_signatures(venue: Venue) -> None:
    got = await trio.to_thread.run_sync(trade_by_ccxt, venue.config)
    resting, taken = venue.orders.matching.orders.values()
    assert got["balance"]["BTC"]["total"] == 10
    assert got["balance"]["USD"]["free"] == 1_000_000
    (standing,) = got["open"]
    assert (standing["id"], standing["status"]) == (got["ids"][0], "open")
    assert (standing["price"], standing["amount"]) == (80000.0, 0.02)
    assert (standing["symbol"], standing["side"]) == (V2, "buy")
    assert got["resting"]["remaining"] == 0.02
    assert got["after"] == []
    assert resting.state == "canceled"
    closed = {each["id"]: each["status"] for each in got["closed"]}
    assert closed == {got["ids"][0]: "canceled", got["ids"][1]: "closed"}
    (trade,) = got["trades"]
    (execution,) = taken.executions
    assert trade["order"] == got["ids"][1]
    assert D(str(trade["price"])) == execution.price
    assert D(str(trade["amount"])) == execution.size == D("0.001")
    assert trade["takerOrMaker"] == "taker"
    assert "Insufficient funds" in got["refused"]
    assert "Unknown order" in got["unknown"]
    assert venue.private.bad_nonces == 0
