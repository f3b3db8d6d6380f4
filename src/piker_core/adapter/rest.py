"""Calls to a venue over HTTP: pacing, retries, and what each kind of answer means.

Rules this file owns:

1. Every attempt takes its cost of the limiter, retries too; waiters keep their order.
2. A refusal for too many calls stops everybody who shares the limiter, then is raised
   as `DataThrottle`; it is never retried here.
3. What may pass by itself (no connection, silence, 5xx, what the venue's judge calls
   transient) is retried with jittered back-off, then raised as `ProviderError`. All
   else is raised at once. What changes something at the venue is sent once: where it
   may have been done nevertheless, the error is an `OutcomeUnknown`.
4. Only the body of an answer judged ok is decoded, and no exception of httpx or msgspec
   gets out.

What an answer means is the venue's business: it gives a `Judge`.
"""

import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

import httpx
import msgspec
import trio

from piker_core.adapter.answers import (
    Judge,
    OutcomeUnknown,
    Reply,
    Request,
    Signer,
    Site,
    Verdict,
    decode_body,
    judge_http,
    outcome_unknown,
    seconds,
)
from piker_core.adapter.clock import Moment, VenueClock
from piker_core.adapter.defaults import RestLimits
from piker_core.adapter.limiter import Limiter, Used
from piker_core.adapter.shared import share
from piker_core.errors import (
    ConfigError,
    DataThrottle,
    NotFound,
    PikerError,
    ProviderError,
)

__all__ = [
    "Judge",
    "OutcomeUnknown",
    "Reply",
    "Request",
    "Rest",
    "RestStatistics",
    "Signer",
    "Site",
    "Used",
    "Verdict",
    "checked_url",
    "decode_body",
    "judge_http",
    "open_rest",
    "seconds",
]

Params = Mapping[str, str | int | float]

log = logging.getLogger("piker_core.adapter")

_LONGEST_BACKOFF_S = 8.0
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class RestStatistics(msgspec.Struct, frozen=True):
    """What a client has done: requests sent, of them retries, refusals, failures."""

    requests: int
    retries: int
    throttled: int
    failed: int
    warnings: int


class _Failed(Exception):
    """An attempt failed in a way that may pass; `sent` unless nothing left us."""

    def __init__(
        self,
        reason: str,
        body: bytes | None = None,
        *,
        sent: bool = True,
        clock: bool = False,
    ) -> None:
        super().__init__(reason)
        self.body, self.sent, self.clock = body, sent, clock


class Rest:
    """Calls to one address with one credential, by several tasks at once.

    `resync` is awaited when the venue refused our time stamp; it is to ask the venue's
    time and `clock.note` it.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        limiter: Limiter,
        *,
        site: Site,
        url: str,
        judge: Judge,
        attempts: int,
        timeout_s: float,
        clock: VenueClock,
    ) -> None:
        self.site, self.clock = site, clock
        self.resync: Callable[[], Awaitable[None]] | None = None
        self.limiter = limiter
        self._http, self._judge = http, judge
        self._url, self._attempts, self._timeout_s = url, attempts, timeout_s
        self._counts = dict.fromkeys(RestStatistics.__struct_fields__, 0)

    def statistics(self) -> RestStatistics:
        """Counters since the client was opened."""
        return RestStatistics(**self._counts)

    async def keep_time(self, every_s: float) -> None:
        """Have the venue's time asked for (`resync`), now and then, for ever."""
        assert self.resync is not None
        while True:
            try:
                await self.resync()
            except PikerError as error:
                log.warning("%s does not tell the time: %s", self.site.name, error)
            await trio.sleep(every_s)

    async def get(
        self,
        path: str,
        params: Params,
        *,
        subject: str,
        cost: float = 1.0,
        sign: Signer | None = None,
    ) -> Reply:
        """Ask for something; `subject` is what errors say the call was about.

        Raises DataThrottle, NotFound for an unknown market, else ProviderError.
        """
        request = Request("GET", path, dict(params))
        return await self.call(request, subject=subject, cost=cost, sign=sign)

    async def call(
        self,
        request: Request,
        *,
        subject: str,
        cost: float = 1.0,
        sign: Signer | None = None,
        hurry: bool = False,
    ) -> Reply:
        """Make any call. Raises as `get` does.

        One that changes something is sent again only if nothing was sent before or the
        venue says that it did nothing; OutcomeUnknown if it may have been done. One in
        a `hurry` waits for no other call.
        """
        where = f"{self._url}{request.path} ({subject})"
        fault = _Failed("")
        for attempt in range(self._attempts):
            if attempt:
                self._counts["retries"] += 1
                log.warning("%s: %s, trying again", where, fault)
                await self._wait(attempt, fault)
            limiter = self.limiter
            spent = limiter.spend(cost) if hurry else await limiter.acquire(cost)
            try:
                return await self._attempt(request, sign, subject, spent)
            except _Failed as error:
                fault = error
            if request.changes and fault.sent and not fault.clock:
                self._counts["failed"] += 1
                raise outcome_unknown(f"{where}: {fault}", fault.body)
        self._counts["failed"] += 1
        page = f"{self.site.status_page} and " if self.site.status_page else ""
        raise ProviderError(
            f"{where}: {fault}, in {self._attempts} attempts; check the network, "
            f"{page}{self.site.where}",
            frame=fault.body,
        )

    async def _wait(self, attempt: int, fault: _Failed) -> None:
        """Before another attempt: patience, or another look at the venue's clock."""
        if fault.clock and self.resync is not None:
            await self.resync()
        else:
            await trio.sleep(_backoff_s(attempt))

    async def _attempt(
        self, request: Request, sign: Signer | None, subject: str, spent: float
    ) -> Reply:
        self._counts["requests"] += 1
        if sign is not None:
            request = sign(request)
        url = self._url + request.path
        sent_at, sent_ns, sent_s = trio.current_time(), time.time_ns(), time.monotonic()
        answer = await self._send(url, request)
        moment = Moment(sent_ns, sent_ns + int((time.monotonic() - sent_s) * 1e9))
        if self.site.dated and "Age" not in answer.headers:
            self.clock.note_date(answer.headers.get("Date"), moment)
        verdict = self._judge(answer)
        for used in verdict.used:
            sent_venue_s = sent_ns / 1e9 + self.clock.offset_s
            self.limiter.adopt(used, spent=spent, sent_s=sent_venue_s)
        reply = Reply(
            verdict.result,
            answer.content,
            url,
            subject,
            self.site,
            moment,
            answer.headers,
            request.changes,
        )
        for text in verdict.warnings:
            self._counts["warnings"] += 1
            log.warning("%s (%s): %s", url, subject, text)
        if verdict.kind != "ok":
            raise self._fault(verdict, reply, sent_at)
        self.limiter.answered(sent_at=sent_at)
        return reply

    async def _send(self, url: str, request: Request) -> httpx.Response:
        text, headers = request.encoded(), dict(request.headers)
        if text and not request.form:
            url = f"{url}?{text}"
        call = self._http.build_request(request.method, url, headers=headers)
        if request.form:
            call = _with_body(call, text.encode())
        answer: httpx.Response | None = None
        try:
            with trio.move_on_after(self._timeout_s):
                answer = await self._http.send(call)
        except (httpx.HTTPError, OSError) as error:
            text = str(error) or type(error).__name__
            sent = not isinstance(error, _NOT_SENT)
            raise _Failed(f"no answer ({text})", sent=sent) from None
        if answer is None:
            raise _Failed(f"no answer within {self._timeout_s:g} s")
        return answer

    def _fault(self, verdict: Verdict, reply: Reply, sent_at: float) -> Exception:
        """What to raise for an answer that is not ok."""
        where, text = f"{reply.url} ({reply.subject})", verdict.text
        if verdict.kind == "throttled":
            self._counts["throttled"] += 1
            delay = self.limiter.throttle(sent_at=sent_at, wait_s=verdict.wait_s)
            return DataThrottle(
                f"{where}: {text}; no calls for {delay:.1f} s, then lower "
                f"{self.site.rate_key} in [{self.site.section}] if it happens again",
                retry_after=delay,
            )
        if verdict.kind in ("transient", "clock"):
            return _Failed(text, reply.body, clock=verdict.kind == "clock")
        if verdict.kind == "garbled":
            return reply.refuse(text)
        self._counts["failed"] += 1
        if verdict.kind == "unknown":
            return NotFound(
                f"{self.site.name} does not know {reply.subject} ({text}); "
                "piker-core search lists the markets there are"
            )
        return ProviderError(f"{where}: {text}", frame=reply.body)


class _Body(httpx.AsyncByteStream):
    """The body of a request. httpx's own leaves a generator behind if cancelled."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = content

    def __aiter__(self) -> "_Body":
        self._left = self._content
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        content, self._left = self._left, b""
        return content


def _with_body(call: httpx.Request, content: bytes) -> httpx.Request:
    """A call with a form as its body."""
    headers = call.headers.copy()
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    headers["Content-Length"] = str(len(content))
    return httpx.Request(
        call.method,
        call.url,
        headers=headers,
        stream=_Body(content),
        extensions=call.extensions,
    )


@asynccontextmanager
async def open_rest(
    site: Site,
    limits: RestLimits,
    *,
    url: str,
    judge: Judge,
    credential: str = "",
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Rest]:
    """A client of one address with one `credential` (what tells it from others).

    All of a trio run for the same address, credential and rate share one limiter and
    one clock. `transport` takes the place of the network (tests, recordings). Nothing
    is sent yet.
    """
    clock, limiter = _shared(site, limits, url, credential)
    headers = {"User-Agent": _user_agent()}
    async with httpx.AsyncClient(
        headers=headers, timeout=None, transport=transport, verify=_ssl_context()
    ) as http:
        yield Rest(
            http,
            limiter,
            site=site,
            url=url,
            judge=judge,
            attempts=limits.rest_attempts,
            timeout_s=limits.rest_timeout_s,
            clock=clock,
        )


def _shared(
    site: Site, limits: RestLimits, url: str, credential: str
) -> tuple[VenueClock, Limiter]:
    clock = share(
        ("clock", url), lambda: VenueClock(site.name, alarm_s=limits.clock_alarm_s)
    )
    rate, burst = limits.rest_rate, limits.rest_burst
    limiter = share(
        ("rest", url, credential, rate, burst),
        lambda: Limiter(
            rate,
            burst,
            pause_s=limits.throttle_pause_s,
            longest_s=limits.throttle_longest_s,
            wall_s=clock.now_s,
        ),
    )
    return clock, limiter


def checked_url(text: str, site: Site, *, example: str) -> str:
    """An address without a slash at its end. Raises ConfigError that names its key."""
    key = f"[{site.section}] {site.url_key} {text!r}"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{key}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{key} must be like {example}")
    return text.rstrip("/")


@cache
def _user_agent() -> str:
    """Who calls; to look the version up takes a millisecond."""
    return f"piker-core/{version('piker-core')}"


@cache
def _ssl_context() -> ssl.SSLContext:
    """One for all clients: to load the certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


def _backoff_s(attempt: int) -> float:
    longest = min(0.5 * 2.0**attempt, _LONGEST_BACKOFF_S)
    return random.uniform(longest / 2, longest)
