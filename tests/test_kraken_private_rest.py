"""Kraken's private calls: nonces, a refused key, what cannot be told; no network."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from piker_core.adapter.rest import OutcomeUnknown
from piker_core.config import Secret
from piker_core.errors import ProviderError
from providers.kraken.api import Config
from providers.kraken.private_rest import (
    KeyRefused,
    PrivateClient,
    RestOrder,
    open_private,
)
from providers.kraken.signing import Credentials
from tests.kraken_answers import error as failed
from tests.kraken_answers import ok

CONFIG = Config(
    rest_url="http://venue.test",
    api_key=Secret("canary-key"),
    api_secret=Secret("c2VjcmV0"),
    private_rate=100.0,
    private_burst=100,
)


class Script:
    """Answers calls in turn, and keeps them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    def forms(self) -> list[dict[str, str]]:
        return [
            dict(httpx.QueryParams(call.content.decode()).items())
            for call in self.calls
        ]


@asynccontextmanager
async def opened(
    answer: Callable[[httpx.Request], Any], config: Config = CONFIG
) -> AsyncIterator[PrivateClient]:
    transport = httpx.MockTransport(answer)
    async with open_private(
        config, Credentials.of(config), transport=transport
    ) as client:
        yield client


async def test_a_nonce_that_came_too_late_is_made_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(failed("EAPI:Invalid nonce"), ok({"XXBT": "1.5"}))
    async with opened(script) as client:
        assert {k: str(v) for k, v in (await client.balances()).items()} == {
            "XXBT": "1.5"
        }
    first, second = (int(form["nonce"]) for form in script.forms())
    assert second > first
    assert [call.url.path for call in script.calls] == ["/0/private/Balance"] * 2
    assert script.calls[0].method == "POST"


async def test_nonces_arrive_in_order_however_many_call_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script, waits = Script(*(ok({"open": {}}) for _ in range(20))), [3.0, 1.0] * 10

    async def arrive_late(request: httpx.Request) -> httpx.Response:
        await trio.sleep(waits.pop())
        return script(request)

    async with opened(arrive_late) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.open_orders)
    nonces = [int(form["nonce"]) for form in script.forms()]
    assert nonces == sorted(set(nonces))


async def test_a_key_that_is_refused_is_left_alone_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script(failed("EAPI:Invalid key"), ok({"open": {}}))
    async with opened(script) as client:
        with pytest.raises(KeyRefused, match=r"api_key.*EAPI:Invalid key") as refused:
            await client.open_orders()
        assert "canary" not in str(refused.value)
        with pytest.raises(KeyRefused, match="900 s"):
            await client.balances()
        assert len(script.calls) == 1
        await trio.sleep(901)
        assert await client.open_orders() == {}


async def test_a_token_is_secret_and_one_that_is_garbled_is_in_no_error() -> None:
    script = Script(ok({"token": "canary", "expires": 900}), ok({"token": ["canary"]}))
    async with opened(script) as client:
        token = await client.token()
        assert (repr(token), token.reveal()) == ("Secret('***')", "canary")
        with pytest.raises(ProviderError) as garbled:
            await client.token()
        assert garbled.value.frame is None


@pytest.mark.parametrize(
    "answer",
    [
        failed("EService:Unavailable"),
        httpx.Response(502, text="<html>"),
        httpx.ReadTimeout("late"),
    ],
)
async def test_canceling_all_without_an_answer_is_unknown_and_not_sent_again(
    answer: Any,
) -> None:
    script = Script(answer)
    async with opened(script) as client:
        with pytest.raises(OutcomeUnknown):
            await client.cancel_all()
    assert len(script.calls) == 1


async def test_too_many_calls_are_a_provider_error_that_names_the_key() -> None:
    async with opened(Script(failed("EAPI:Rate limit exceeded"))) as client:
        with pytest.raises(ProviderError, match="private_rate"):
            await client.open_orders()


async def test_orders_of_another_client_id_are_left_out() -> None:
    order = {
        "status": "open",
        "descr": {"pair": "XBTUSD", "type": "buy", "price": "1.0"},
        "vol": "1.0",
        "vol_exec": "0.0",
        "opentm": 1.5,
    }
    answer = {"open": {"O1": order | {"cl_ord_id": "a1"}, "O2": order}}
    async with opened(Script(ok(answer), ok(answer))) as client:
        assert list(await client.open_orders("a1")) == ["O1"]
        assert list(await client.open_orders()) == ["O1", "O2"]


async def test_more_orders_than_fit_a_call_are_asked_for_in_several() -> None:
    script = Script(ok({}), ok({}), ok({}))
    async with opened(script) as client:
        assert await client.query_orders(f"O{n}" for n in range(120)) == {}
    assert [len(form["txid"].split(",")) for form in script.forms()] == [50, 50, 20]


def test_the_recorded_shape_of_ended_orders_is_understood() -> None:
    raw = json.dumps(
        {
            "refid": "None",
            "userref": 1,
            "status": "canceled",
            "reason": "User requested",
            "opentm": 1635788984.1899097,
            "closetm": 1656085073.8308148,
            "descr": {},
            "vol": "429.343",
            "vol_exec": "383.125",
            "price": "8442.790",
        }
    )
    order = msgspec.json.decode(raw, type=RestOrder)
    assert str(order.opentm) == "1635788984.1899097"
    assert (str(order.vol_exec), order.reason) == ("383.125", "User requested")


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "1E+999999", "-1e-900"])
async def test_numbers_that_are_none_are_provider_errors(text: str) -> None:
    order = {
        "status": "open",
        "descr": {"pair": "XBTUSD", "type": "buy", "price": "1.0"},
        "vol": text,
        "vol_exec": "0.0",
        "opentm": 1.5,
    }
    trade = {
        "ordertxid": "O1",
        "pair": "XBTUSD",
        "time": 1.5,
        "type": "buy",
        "price": "1.0",
        "vol": text,
    }
    answers = ok({"open": {"O1": order}}), ok({"trades": {"T1": trade}})
    async with opened(Script(*answers)) as client:
        with pytest.raises(ProviderError, match="cannot be understood"):
            await client.open_orders()
        with pytest.raises(ProviderError, match="cannot be understood"):
            await client.trades(0)


async def test_a_balance_that_is_none_is_a_provider_error() -> None:
    async with opened(Script(ok({"XXBT": "NaN"}))) as client:
        with pytest.raises(ProviderError, match="finite"):
            await client.balances()
