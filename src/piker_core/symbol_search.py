"""A search over many names that puts first what a trader means.

Every word of a pattern must be found in a market: as one of its words or names, as the
beginning or a part of one, or, where no market has it so, by its letters in order or
misspelt. Of markets that answer alike, spot comes before contracts, the usual quote
currencies before others, the nearer expiry before the later.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from piker_core.symbols import MktPair

ASSET_NAMES = {
    "btc": "bitcoin xbt",
    "xbt": "bitcoin btc",
    "eth": "ethereum ether",
    "usdt": "tether",
    "usdc": "usdcoin circle",
    "xrp": "ripple",
    "bnb": "binancecoin",
    "sol": "solana",
    "doge": "dogecoin xdg",
    "xdg": "dogecoin doge",
    "ada": "cardano",
    "trx": "tron",
    "link": "chainlink",
    "avax": "avalanche",
    "xlm": "stellar lumens",
    "sui": "sui",
    "ton": "toncoin",
    "hbar": "hedera",
    "dot": "polkadot",
    "ltc": "litecoin",
    "bch": "bitcoincash",
    "xmr": "monero",
    "shib": "shibainu",
    "uni": "uniswap",
    "aave": "aave",
    "apt": "aptos",
    "icp": "internetcomputer",
    "etc": "ethereumclassic",
    "atom": "cosmos",
    "algo": "algorand",
    "arb": "arbitrum",
    "fil": "filecoin",
    "mkr": "maker",
    "xtz": "tezos",
    "zec": "zcash",
    "pol": "polygon matic",
    "dai": "makerdao",
    "paxg": "gold paxgold",
    "usd": "dollar",
    "eur": "euro",
    "gbp": "pound sterling",
    "jpy": "yen",
    "chf": "franc swiss",
    "cad": "canadian loonie",
    "aud": "australian",
    "cny": "yuan renminbi",
}
"""What people call the assets that are traded most, in that order."""

KINDS = ("spot", "stock", "forex", "index", "perp", "future", "option")
QUOTES = ("usd", "usdt", "usdc", "eur", "btc", "xbt", "gbp", "jpy", "eth")

NAME, BASE, OTHER = 1.3, 1.2, 1.0
"""Weights: what was found is the market's name, its base, or any other word."""
BEGINS, WITHIN, SCATTERED = 0.65, 0.45, 0.2
"""A word is worth 1 where it is the same, and these where it begins a word, is within
it, or has its letters there in order; plus a tenth of how much of the word it is."""
LIKE = 0.75
"""How much a misspelt word must resemble one."""
FUZZY = 3
"""Shorter words are found as they are, or not at all."""

_ASSETS = list(ASSET_NAMES)
_WORD = re.compile(r"[a-z0-9]+")


class Found(NamedTuple):
    """A market that answers, by its place in the table."""

    place: int
    score: float


class SearchIndex:
    """Words and names of markets; built once, then searched often.

    Searching takes milliseconds and no other thread's time: do it in a thread.
    """

    def __init__(self, markets: Sequence[tuple[MktPair, Iterable[str], str]]) -> None:
        """`markets`: each with its other names, and what else is said of it."""
        self._order = _trade_order([market for market, _, _ in markets])
        self._words: dict[str, list[tuple[int, float]]] = {}
        for place, (market, aliases, title) in enumerate(markets):
            for word, weight in _weighed(market, aliases, title).items():
                self._words.setdefault(word, []).append((place, weight))

    def search(self, pattern: str, limit: int) -> list[Found]:
        """The best `limit` markets for a pattern, best first."""
        words = _WORD.findall(pattern.lower())
        if not words or limit < 1:
            return []
        found_as = {word: self._exactly(word) for word in words}
        rough = not all(found_as.values())
        scores = _in_all(
            [found or self._roughly(word) for word, found in found_as.items()]
        )
        if len(words) > 1:  # a name with its parts apart
            name = "".join(words)
            whole = self._exactly(name) or (self._roughly(name) if rough else {})
            for place, score in whole.items():
                scores[place] = max(score, scores.get(place, 0.0))
        found = [Found(place, score) for place, score in scores.items()]
        found.sort(key=lambda each: (-each.score, self._order[each.place]))
        return found[:limit]

    def _exactly(self, wanted: str) -> dict[int, float]:
        """Markets with a word that is, begins with or has the wanted one."""
        return self._best(
            (word, _part(wanted, word)) for word in self._words if wanted in word
        )

    def _roughly(self, wanted: str) -> dict[int, float]:
        """Markets with a word that resembles the wanted one."""
        if len(wanted) < FUZZY:
            return {}
        scattered = re.compile(".*".join(wanted))
        matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
        return self._best(
            (
                word,
                max(_like(matcher, wanted, word), _scattered(scattered, wanted, word)),
            )
            for word in self._words
        )

    def _best(self, matches: Iterable[tuple[str, float]]) -> dict[int, float]:
        best: dict[int, float] = {}
        for word, match in matches:
            if match > 0:
                for place, weight in self._words[word]:
                    if match * weight > best.get(place, 0.0):
                        best[place] = match * weight
        return best


def _in_all(found: Sequence[dict[int, float]]) -> dict[int, float]:
    """Places that all have: as good as the worst of them, and a tenth of their mean."""
    places = set(found[0]).intersection(*found[1:])
    scores = {place: [each[place] for each in found] for place in places}
    return {
        place: min(all_of_it) + sum(all_of_it) / len(all_of_it) / 10
        for place, all_of_it in scores.items()
    }


def _trade_order(markets: Sequence[MktPair]) -> list[int]:
    """Where each market stands among those that answer equally well."""

    def key(place: int) -> tuple[int, int, int, int, str]:
        market = markets[place]
        return (
            _rank(KINDS, market.kind),
            _rank(QUOTES, market.quote.name),
            _rank(_ASSETS, market.base.name),
            len(market.symbol),
            market.symbol,
        )

    order = [0] * len(markets)
    for rank, place in enumerate(sorted(range(len(markets)), key=key)):
        order[place] = rank
    return order


def _rank(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def _weighed(market: MktPair, aliases: Iterable[str], title: str) -> dict[str, float]:
    """The words that find a market, each with its weight."""
    weights: dict[str, float] = {}

    def add(words: Iterable[str], weight: float) -> None:
        for word in words:
            weights[word] = max(weight, weights.get(word, 0.0))

    add(_names(market, aliases), NAME)
    base, quote = market.base.name.lower(), market.quote.name.lower()
    add([base, *ASSET_NAMES.get(base, "").split()], BASE)
    add([quote, *ASSET_NAMES.get(quote, "").split()], OTHER)
    others = (market.venue, market.kind, market.expiry, market.provider, title)
    add(_WORD.findall(" ".join(others).lower()), OTHER)
    weights.pop("", None)
    return weights


def _names(market: MktPair, aliases: Iterable[str]) -> Iterator[str]:
    pair = market.symbol.partition(".")[0]
    for name in (market.symbol, pair, market.venue_symbol, *aliases):
        yield "".join(_WORD.findall(name.lower()))


def _part(wanted: str, word: str) -> float:
    if wanted == word:
        return 1.0
    share = len(wanted) / len(word) / 10
    return (BEGINS if word.startswith(wanted) else WITHIN) + share


def _scattered(pattern: "re.Pattern[str]", wanted: str, word: str) -> float:
    return SCATTERED + len(wanted) / len(word) / 10 if pattern.search(word) else 0.0


def _like(matcher: "difflib.SequenceMatcher[str]", wanted: str, word: str) -> float:
    """How alike two words are, if they are much alike; most with letters swapped."""
    matcher.set_seq1(word)
    if matcher.real_quick_ratio() < LIKE or matcher.quick_ratio() < LIKE:
        return 0.0
    ratio = matcher.ratio()
    if ratio < LIKE:
        return 0.0
    return ratio * WITHIN + (sorted(wanted) == sorted(word)) / 20
