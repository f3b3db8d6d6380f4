"""What the answers of Kraken's REST mean.

Errors stand in the body of a 200: `EGeneral:Too many requests`, `EAPI:Rate limit
exceeded` and `EService: Throttled` ask for patience; `EService:Unavailable`, `Busy` and
`EGeneral:Internal error` may pass; `W...` are warnings beside a result.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro
"""

import re
import time

import httpx
import msgspec

from piker_core.adapter.rest import Site, Verdict, decode_body, judge_http

SITE = Site("Kraken", "kraken", status_page="https://status.kraken.com", dated=True)
PRIVATE_SITE = msgspec.structs.replace(SITE, rate_key="private_rate")

_THROTTLED = re.compile(
    r"EGeneral:\s*Too many requests"
    r"|EAPI:\s*Rate limit exceeded"
    r"|EService:\s*Throttled(?::\s*(?P<until>\d+))?"
)
_TRANSIENT = re.compile(r"EService:\s*(?:Unavailable|Busy)|EGeneral:\s*Internal error")
_LATE_NONCE = re.compile(r"EAPI:\s*Invalid nonce")
_UNKNOWN_PAIR = re.compile(r"EQuery:\s*Unknown asset pair")


class _Envelope(msgspec.Struct):
    error: list[str] = []
    result: msgspec.Raw = msgspec.Raw(b"")


def judge(answer: httpx.Response) -> Verdict:
    """What an answer means: its first error, or its result and warnings."""
    if answer.status_code != 200:
        return judge_http(answer, SITE)
    envelope = decode_body(answer, _Envelope)
    if isinstance(envelope, Verdict):
        return envelope
    warnings = []
    for text in envelope.error:
        if text.startswith("W"):
            warnings.append(text)
        else:
            return _judge_error(text, tuple(warnings))
    if not bytes(envelope.result):
        return Verdict("garbled", "neither a result nor an error")
    return Verdict("ok", result=envelope.result, warnings=tuple(warnings))


def judge_private(answer: httpx.Response) -> Verdict:
    """The same of a signed call: one with a nonce that came too late was not done."""
    verdict = judge(answer)
    if verdict.kind == "refused" and _LATE_NONCE.match(verdict.text):
        advice = "another process may use the key of [kraken], too: give it its own"
        return Verdict("clock", f"{verdict.text} ({advice})")
    return verdict


def _judge_error(text: str, warnings: tuple[str, ...]) -> Verdict:
    if match := _THROTTLED.match(text):
        until = match["until"]
        wait_s = None if until is None else max(int(until) - time.time(), 1.0)
        return Verdict("throttled", text, wait_s=wait_s, warnings=warnings)
    if _TRANSIENT.match(text):
        return Verdict("transient", text, warnings=warnings)
    if _UNKNOWN_PAIR.match(text):
        return Verdict("unknown", text, warnings=warnings)
    return Verdict("refused", text, warnings=warnings)
