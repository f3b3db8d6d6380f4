"""What Kraken's refusals of orders mean, and what mends them.

`EService:...` says that the engine did not answer: nobody knows what became of the
request, unless it says that the deadline was over or in which mode the market is.

Source: https://docs.kraken.com/api/docs/guides/spot-errors
"""

import re
from typing import Literal

Kind = Literal["refused", "throttled", "unknown", "session", "gone"]

_WORDS: tuple[tuple[str, Kind], ...] = (
    (r"EService:\s*(Deadline elapsed|Market in )", "refused"),
    (r"EService:\s*Throttled|EGeneral:\s*Too many requests", "throttled"),
    (r"E(API|Order):\s*(Domain )?[Rr]ate limit exceeded", "throttled"),
    (r"Exceeded msg rate", "throttled"),
    (r"EService:|EGeneral:\s*Internal error", "unknown"),
    (r"ESession:\s*Invalid session", "session"),
    (r"EOrder:\s*Unknown order", "gone"),
)
_KINDS = tuple((re.compile(pattern), kind) for pattern, kind in _WORDS)
_ADVICE: tuple[tuple[str, str], ...] = (
    ("EOrder:Insufficient funds", "the account has too little free for it"),
    ("EOrder:Order minimum not met", "the size is below the market's least"),
    ("EOrder:Cost minimum not met", "price times size is below the market's least"),
    ("EOrder:Tick size check failed", "the price is no multiple of the tick"),
    ("EOrder:Invalid price", "the price is none that the market takes"),
    ("EOrder:Orders limit exceeded", "too many orders of this market are open"),
    ("EOrder:Unknown order", "there is no such open order"),
    ("EOrder:Reduce only", "it would not make a position smaller"),
    ("EService:Deadline elapsed", "it came too late and was not taken"),
    ("EService:Market in cancel_only", "the market takes cancels alone now"),
    ("EService:Market in post_only", "the market takes post-only orders alone now"),
    ("EGeneral:Permission denied", "the key has no permission for it"),
    ("EQuery:Unknown asset pair", "there is no such market"),
)


def judge_error(text: str) -> Kind:
    """What a refusal of an order's request means."""
    return next((kind for pattern, kind in _KINDS if pattern.search(text)), "refused")


def explain(text: str) -> str:
    """The venue's words, and ours where there are any."""
    for words, advice in _ADVICE:
        if words in text:
            return f"{text}: {advice}"
    return text
