"""A venue that never was, over HTTP: its judge, and scripted answers to calls."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import trio

from piker_core.adapter.defaults import RestLimits
from piker_core.adapter.limiter import Used
from piker_core.adapter.rest import (
    Rest,
    Site,
    Verdict,
    checked_url,
    decode_body,
    judge_http,
    open_rest,
)

Answer = httpx.Response | Exception
SITE = Site("Acme", "acme", status_page="https://status.acme.test")
URL = "http://acme.test"
LIMIT = 100.0


class Fault(msgspec.Struct):
    """The body of an answer with an error."""

    code: int
    msg: str


def judge(answer: httpx.Response) -> Verdict:
    """Weights in a header; errors with a code and a 4xx status."""
    text = answer.headers.get("X-Used", "")
    used = (Used(float(text), LIMIT, 60.0),) if text else ()
    if answer.status_code == 200:
        return Verdict("ok", result=answer.content, used=used)
    fault = decode_body(answer, Fault)
    if isinstance(fault, Verdict) or answer.status_code in (418, 429):
        return msgspec.structs.replace(judge_http(answer, SITE), used=used)
    kinds: dict[int, Any] = {-1: "clock", -2: "unknown", -3: "transient"}
    return Verdict(kinds.get(fault.code, "refused"), fault.msg, used=used)


def ok(body: Any = None, **headers: str) -> httpx.Response:
    """An answer; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.Response(200, json=body, headers=named)


def fault(code: int, msg: str = "no", status: int = 400) -> httpx.Response:
    """An answer with an error of the venue."""
    return httpx.Response(status, json={"code": code, "msg": msg})


class Acme:
    """Gives the scripted answers in turn, then `ok()` for ever."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.calls: list[httpx.Request] = []
        self.times: list[float] = []
        self.delay_s = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        self.times.append(trio.current_time())
        await trio.sleep(self.delay_s)
        answer = self.script.pop(0) if self.script else ok()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @asynccontextmanager
    async def open(
        self, *, credential: str = "", site: Site = SITE, **limits: Any
    ) -> AsyncIterator[Rest]:
        """A client of it, by default without a rate to speak of."""
        known = {"rest_rate": 1e6, "rest_burst": 1000}
        async with open_rest(
            site,
            RestLimits(**(known | limits)),
            url=checked_url(URL, site, example="https://api.acme.test"),
            judge=judge,
            credential=credential,
            transport=httpx.MockTransport(self.answer),
        ) as rest:
            yield rest

    def waits(self) -> list[float]:
        """The seconds between one call and the next."""
        steps = zip(self.times, self.times[1:], strict=False)
        return [later - earlier for earlier, later in steps]


def clock_at(seconds: float) -> Callable[[], float]:
    """A wall clock for a trio run with a mock clock, which is at 0 now."""
    begin = trio.current_time()
    return lambda: seconds + trio.current_time() - begin


def now_ns() -> int:
    return time.time_ns()
