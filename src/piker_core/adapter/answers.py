"""Calls before they are sent, and what answers mean: the venue's part of REST.

A venue gives a `Judge`, and a `Signer` where it wants signatures. `judge_http` knows
what HTTP itself says.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from piker_core.adapter.clock import Moment
from piker_core.adapter.limiter import Used
from piker_core.errors import ProviderError

T = TypeVar("T")

_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Site(msgspec.Struct, frozen=True):
    """What errors about a venue have to name.

    `section` of the configuration, the keys of the address and of the rate there, and
    where the venue says how it is, if it does. `dated`: the Date header of its answers
    is the venue's time, as far as there is nothing better.
    """

    name: str
    section: str
    url_key: str = "rest_url"
    rate_key: str = "rest_rate"
    status_page: str = ""
    dated: bool = False

    @property
    def where(self) -> str:
        """The key of the address, as errors name it."""
        return f"{self.url_key} in [{self.section}]"


class Verdict(msgspec.Struct, frozen=True):
    """What an answer means.

    `ok`: `result` is to be decoded. `transient`: it may pass. `throttled`: too many
    calls, for `wait_s` if the venue says so. `unknown`: there is no such market.
    `clock`: our time stamp was refused. `garbled`: it cannot be understood. `refused`:
    all else. `text` says why; `warnings` are logged; `used`: what the venue says of the
    budgets that the `cost` of calls is spent from.
    """

    kind: Literal[
        "ok", "transient", "throttled", "unknown", "clock", "garbled", "refused"
    ]
    text: str = ""
    result: bytes | msgspec.Raw = b""
    wait_s: float | None = None
    warnings: tuple[str, ...] = ()
    used: tuple[Used, ...] = ()


Judge = Callable[[httpx.Response], Verdict]
"""Looks at status, headers and body; `judge_http` knows what HTTP itself says."""


class OutcomeUnknown(ProviderError):
    """It is not known whether the venue did what it was asked: ask it, never repeat."""


class Request(msgspec.Struct, frozen=True):
    """A call before it is sent: what a `Signer` gets, and gives back signed.

    `params` go into the address, or into a form body if `form`. `encoded` is what is
    sent, byte for byte. `changes`: it does something at the venue, such as an order.
    """

    method: str
    path: str
    params: dict[str, str | int | float]
    headers: dict[str, str] = {}
    form: bool = False
    changes: bool = False

    def encoded(self) -> str:
        """The parameters in their order, percent-encoded."""
        return urlencode(self.params, quote_via=quote)


Signer = Callable[[Request], Request]
"""Adds time stamp, nonce, key and signature; called anew for every attempt."""


class Reply(msgspec.Struct, frozen=True):
    """The result of an answer, with what an error about it has to name."""

    result: bytes | msgspec.Raw
    body: bytes
    url: str
    subject: str
    site: Site
    moment: Moment | None = None
    headers: Mapping[str, str] = {}
    changes: bool = False

    def decode(self, kind: type[T]) -> T:
        """The result as `kind`. Raises ProviderError with the body as frame."""
        try:
            return msgspec.json.decode(self.result, type=kind)
        except _UNDECODABLE as error:
            raise self.refuse(str(error)) from None

    def part(self, result: msgspec.Raw) -> "Reply":
        """The same answer with a part of its result as the result."""
        return msgspec.structs.replace(self, result=result)

    def refuse(self, reason: str) -> ProviderError:
        """The error to raise for a result that cannot be understood."""
        text = (
            f"{self.url} ({self.subject}) answered what cannot be understood: {reason}"
        )
        if self.changes:
            return outcome_unknown(text, self.body)
        site = self.site
        advice = f"try again, or check that {site.where} is {site.name}'s"
        return ProviderError(f"{text}; {advice}", frame=self.body)


def outcome_unknown(text: str, body: bytes | None) -> OutcomeUnknown:
    """The error to raise when it may have been done."""
    advice = "it may have been done: ask the venue, do not send it again"
    return OutcomeUnknown(f"{text}; {advice}", frame=body)


def judge_http(answer: httpx.Response, site: Site) -> Verdict:
    """What an answer means by its status, where it is none of the venue's interface."""
    status = answer.status_code
    if status in (418, 429):
        wait_s = seconds(answer.headers.get("Retry-After"))
        return Verdict("throttled", f"HTTP {status}", wait_s=wait_s)
    if status >= 500:
        return Verdict("transient", f"HTTP {status} from the venue's edge")
    if status == 403:
        advice = (
            f"{site.name}'s edge refuses this address; wait some minutes without "
            "calling, then use fewer calls or another network"
        )
        return Verdict("refused", f"HTTP 403, {advice}")
    if answer.is_redirect:
        target = answer.headers.get("Location", "nowhere")
        advice = f"a redirect to {target}; mend {site.where}"
    else:
        advice = f"which is no answer of {site.name}'s API; check {site.where}"
    return Verdict("refused", f"HTTP {status}, {advice}")


def decode_body(answer: httpx.Response, kind: type[T]) -> T | Verdict:
    """The body as `kind`, or the verdict that it is garbled: for judges."""
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except _UNDECODABLE as error:
        return Verdict("garbled", str(error))


def seconds(text: str | None) -> float | None:
    """A Retry-After header in seconds; None for its other form, a date."""
    return float(text) if text and text.isascii() and text.isdecimal() else None
