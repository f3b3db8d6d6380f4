"""Kraken's public REST calls: pacing, retries, and what each kind of answer means.

Rules this file owns:

1. Every attempt takes a token of the limiter, retries too; waiters are served in order.
2. A refusal for too many calls stops everybody who shares the limiter, then is raised
   as `DataThrottle`; it is never retried here.
3. What may pass by itself (no connection, silence, 5xx, `EService:Unavailable` or
   `Busy`, `EGeneral:Internal error`) is retried with jittered back-off, then raised as
   `ProviderError`. All else is raised at once.
4. Only the body of a 200 is decoded, and no exception of httpx or msgspec gets out.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro
"""

import logging
import math
import random
import re
import time
from collections.abc import Mapping
from typing import TypeVar

import httpx
import msgspec
import trio

from piker_core.errors import DataThrottle, NotFound, ProviderError

T = TypeVar("T")

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 300.0
_LONGEST_BACKOFF_S = 8.0
_ROUNDING = 1e-6
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_THROTTLED = re.compile(
    r"EGeneral:\s*Too many requests"
    r"|EAPI:\s*Rate limit exceeded"
    r"|EService:\s*Throttled(?::\s*(?P<until>\d+))?"
)
_TRANSIENT = re.compile(r"EService:\s*(?:Unavailable|Busy)|EGeneral:\s*Internal error")
_UNKNOWN_PAIR = re.compile(r"EQuery:\s*Unknown asset pair")


class Limiter:
    """Token bucket under trio: `rate` calls a second, at most `burst` saved up.

    Waiters are served in the order of their calls. A pause is a debt of tokens, so it
    holds for those who already wait. Belongs to one trio run.
    """

    def __init__(self, rate: float, burst: int, *, pause_s: float) -> None:
        self._rate, self._burst, self._pause_s = rate, burst, pause_s
        self._tokens = float(burst)
        self._counted_at = trio.current_time()
        self._turn = trio.Lock()
        self._throttled_at = -math.inf
        self._streak = 0

    async def acquire(self) -> None:
        """Wait for a token and take it; nothing is taken if the wait is cancelled."""
        async with self._turn:
            while (delay := self.delay()) > 0:  # noqa: ASYNC110 - a pause prolongs it
                await trio.sleep(delay)
            self._tokens -= 1

    def delay(self) -> float:
        """Seconds until there is a token."""
        now = trio.current_time()
        earned = (now - self._counted_at) * self._rate
        self._tokens = min(self._tokens + earned, self._burst)
        self._counted_at = now
        missing = 1 - self._tokens
        return missing / self._rate if missing > _ROUNDING else 0.0

    def throttle(self, *, sent_at: float, wait_s: float | None = None) -> float:
        """The venue refused a call sent at `sent_at` (trio time): stop everybody.

        The pause is what the venue asked for, else `pause_s`, doubled each time in a
        row. Calls that were already under way at the last refusal do not count again.
        Returns the seconds until the next call.
        """
        delay = self.delay()
        if sent_at > self._throttled_at:
            self._throttled_at = trio.current_time()
            self._streak = min(self._streak + 1, 10)
            own = self._pause_s * 2 ** (self._streak - 1)
            delay = max(delay, own if wait_s is None else wait_s)
        else:
            delay = max(delay, wait_s or 0.0)
        delay = min(delay, LONGEST_PAUSE_S)
        self._tokens = min(self._tokens, 1 - delay * self._rate)
        return delay

    def answered(self, *, sent_at: float) -> None:
        """A call sent at `sent_at` was served: the next refusal is a first one."""
        if sent_at > self._throttled_at:
            self._streak = 0


class RestStatistics(msgspec.Struct, frozen=True):
    """What a client has done: requests sent, of them retries, refusals, failures."""

    requests: int
    retries: int
    throttled: int
    failed: int
    warnings: int


class _Envelope(msgspec.Struct):
    error: list[str] = []
    result: msgspec.Raw = msgspec.Raw(b"")


class Reply(msgspec.Struct, frozen=True):
    """The `result` of an answer, with what an error about it has to name."""

    result: msgspec.Raw
    body: bytes
    url: str
    subject: str

    def decode(self, kind: type[T]) -> T:
        """The result as `kind`. Raises ProviderError with the body as frame."""
        try:
            return msgspec.json.decode(self.result, type=kind)
        except _UNDECODABLE as error:
            raise self.refuse(str(error)) from None

    def part(self, result: msgspec.Raw) -> "Reply":
        """The same answer with a part of its result as the result."""
        return Reply(result, self.body, self.url, self.subject)

    def refuse(self, reason: str) -> ProviderError:
        """The error to raise for a result that cannot be understood."""
        return ProviderError(
            f"{self.url} ({self.subject}) answered what cannot be understood: "
            f"{reason}; try again, or check that rest_url in [kraken] is Kraken's",
            frame=self.body,
        )


class _Transient(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, body: bytes | None = None) -> None:
        super().__init__(reason)
        self.body = body


class Rest:
    """GET calls to `<url>/0/public/<method>`, by several tasks at once."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        limiter: Limiter,
        *,
        url: str,
        attempts: int,
        timeout_s: float,
    ) -> None:
        self._http, self._limiter = http, limiter
        self._url, self._attempts, self._timeout_s = url, attempts, timeout_s
        self._counts = dict.fromkeys(RestStatistics.__struct_fields__, 0)

    def statistics(self) -> RestStatistics:
        """Counters since the client was opened."""
        return RestStatistics(**self._counts)

    async def get(
        self, method: str, params: Mapping[str, str | int], *, subject: str
    ) -> Reply:
        """Call a public method; `subject` is what errors say the call was about.

        Raises DataThrottle, NotFound for an unknown pair, else ProviderError.
        """
        url = f"{self._url}/0/public/{method}"
        fault = _Transient("")
        for attempt in range(self._attempts):
            if attempt:
                self._counts["retries"] += 1
                log.warning("%s (%s): %s, trying again", url, subject, fault)
                await trio.sleep(_backoff_s(attempt))
            await self._limiter.acquire()
            try:
                return await self._attempt(url, params, subject)
            except _Transient as error:
                fault = error
        self._counts["failed"] += 1
        raise ProviderError(
            f"{url} ({subject}): {fault}, in {self._attempts} attempts; check the "
            "network, https://status.kraken.com and rest_url in [kraken]",
            frame=fault.body,
        )

    async def _attempt(
        self, url: str, params: Mapping[str, str | int], subject: str
    ) -> Reply:
        self._counts["requests"] += 1
        sent_at = trio.current_time()
        answer = await self._send(url, params)
        body, status = answer.content, answer.status_code
        where = f"{url} ({subject})"
        if status == 429:
            wait_s = _seconds(answer.headers.get("Retry-After"))
            raise self._throttled(where, "HTTP 429", sent_at, wait_s)
        if status >= 500:
            raise _Transient(f"HTTP {status} from the venue's edge", body)
        if status != 200:
            self._counts["failed"] += 1
            raise ProviderError(f"{where}: {_http_advice(answer)}", frame=body)
        reply = Reply(msgspec.Raw(body), body, url, subject)
        envelope = reply.decode(_Envelope)
        self._check(envelope.error, reply, sent_at)
        self._limiter.answered(sent_at=sent_at)
        if not bytes(envelope.result):
            raise reply.refuse("neither a result nor an error")
        return reply.part(envelope.result)

    async def _send(self, url: str, params: Mapping[str, str | int]) -> httpx.Response:
        answer: httpx.Response | None = None
        try:
            with trio.move_on_after(self._timeout_s):
                answer = await self._http.get(url, params=params)
        except (httpx.HTTPError, OSError) as error:
            text = str(error) or type(error).__name__
            raise _Transient(f"no answer ({text})") from None
        if answer is None:
            raise _Transient(f"no answer within {self._timeout_s:g} s")
        return answer

    def _check(self, errors: list[str], reply: Reply, sent_at: float) -> None:
        """Raise for the first error of an answer; log its warnings."""
        where = f"{reply.url} ({reply.subject})"
        for text in errors:
            if text.startswith("W"):
                self._counts["warnings"] += 1
                log.warning("%s: %s", where, text)
                continue
            if match := _THROTTLED.match(text):
                until = match["until"]
                wait_s = None if until is None else max(int(until) - time.time(), 1.0)
                raise self._throttled(where, text, sent_at, wait_s)
            if _TRANSIENT.match(text):
                raise _Transient(text, reply.body)
            self._counts["failed"] += 1
            if _UNKNOWN_PAIR.match(text):
                raise NotFound(
                    f"Kraken does not know {reply.subject} ({text}); "
                    "piker-core search lists the markets there are"
                )
            raise ProviderError(f"{where}: {text}", frame=reply.body)

    def _throttled(
        self, where: str, text: str, sent_at: float, wait_s: float | None
    ) -> DataThrottle:
        self._counts["throttled"] += 1
        delay = self._limiter.throttle(sent_at=sent_at, wait_s=wait_s)
        return DataThrottle(
            f"{where}: {text}; no calls for {delay:.1f} s, then lower rest_rate in "
            "[kraken] if it happens again",
            retry_after=delay,
        )


def _backoff_s(attempt: int) -> float:
    longest = min(0.5 * 2.0**attempt, _LONGEST_BACKOFF_S)
    return random.uniform(longest / 2, longest)


def _seconds(text: str | None) -> float | None:
    """A Retry-After header in seconds; None for its other form, a date."""
    return float(text) if text and text.isascii() and text.isdecimal() else None


def _http_advice(answer: httpx.Response) -> str:
    status = answer.status_code
    if status == 403:
        return (
            "HTTP 403, Kraken's edge refuses this address; wait some minutes without "
            "calling, then use fewer calls or another network"
        )
    if answer.is_redirect:
        target = answer.headers.get("Location", "nowhere")
        return f"HTTP {status}, a redirect to {target}; mend rest_url in [kraken]"
    return (
        f"HTTP {status}, which is no answer of Kraken's API; check rest_url in [kraken]"
    )
