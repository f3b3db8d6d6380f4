"""Nothing a client sends can break the simulated gateway."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ib_venue_client import AAPL, BITCOIN, EURO, INDEX, NEW, Contract, twelve

from providers.ib.venue import HistoryLimits, Limits, open_venue
from providers.ib.venue_pacing import STEPS_S

CONTRACTS: tuple[Contract, ...] = (
    *(AAPL, EURO, BITCOIN, INDEX, {}, {"con_id": 265598, "exchange": "SMART"}),
    {"symbol": "ES", "sec_type": "CONTFUT", "exchange": "CME"},
)
KINDS = ("TRADES", "MIDPOINT", "BID", "BID_ASK", "AGGTRADES", "SCHEDULE", "RAIN")
SPANS = ("60 S", "2000 S", "1 D", "365 D", "1 W", "999999 W", "999999 M", "9999 Y", "S")
STEPS = (*STEPS_S, "1 sec")
TIMES = (
    *("", "20261104-10:00:00", "00010101-00:00:00", "99991231-23:59:59", "now"),
    *("20261104 10:00:00 US/Eastern", "20261104 10:00:00 US", "20261104 10:00:00"),
    *("20261104 10:00:00 ../../etc/passwd", "20261399-10:00:00", "19700101-00:00:00"),
)
ODD = (
    *("", "0", "1", "-1", "7", "nan", "inf", "1e999", "x", "é", "9" * 30, "AAPL"),
    *("233", "233,375", "\ud800", "DU1234567", "1_000", " 5 "),
)
FLAGS = (0, 1)
SHAPES: dict[int, tuple[tuple[Any, ...], ...]] = {
    1: (FLAGS, ("", "233", "233,375", "x"), FLAGS, FLAGS, ("",)),
    9: (FLAGS, ("",), ("",), ("",)),
    20: (FLAGS, TIMES, STEPS, SPANS, FLAGS, KINDS, (0, 1, 2), FLAGS, ("",)),
    50: (("5", "x"), KINDS, FLAGS, ("",)),
    87: (FLAGS, FLAGS, KINDS, (1, 2)),
    96: (FLAGS, TIMES, TIMES, (0, 1, 1000, 1001), KINDS, FLAGS, FLAGS, ("",)),
    97: (("Last", "AllLast", "BidAsk", "MidPoint", "x"), (0,), FLAGS),
}
VERSIONED = {1: (11,), 9: (8,), 50: (3,)}


class Peer:
    """A connection that only counts what it is sent."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.data_type = 1
        self.client_id = 1
        self.over = False
        self.line = SimpleNamespace(frozen=False)
        self.frames = 0
        self.codes: set[int] = set()

    def send(self, *frames: bytes) -> None:
        """Count frames."""
        assert all(len(frame) > 4 for frame in frames)
        self.frames += len(frames)

    def error(self, request_id: int, code: int, text: str) -> None:
        """Note an error."""
        assert text
        self.codes.add(code)

    def end(self) -> None:
        """Nothing to end."""


def make_payload(rng: random.Random, number: int) -> tuple[int, bytes]:
    """A request that is well formed, or not at all."""
    if rng.random() < 0.7:
        kind = rng.choice(tuple(SHAPES))
        fields = [*VERSIONED.get(kind, ()), number, *twelve(rng.choice(CONTRACTS))]
        fields += [rng.choice(values) for values in SHAPES[kind]]
        if rng.random() < 0.1:
            fields[rng.randrange(len(fields))] = rng.choice(ODD)
    else:
        kind = rng.randrange(1, 105)
        fields = [rng.choice(ODD) for _ in range(rng.randrange(25))]
    texts = (str(field) + "\0" for field in (kind, *fields))
    return kind, "".join(texts).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("seed", range(4))
async def test_any_request_is_answered_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    async with open_venue(
        seed=seed, history_s=1800, live_rate=50, keep_hours=seed % 2 == 1,
        server_version=NEW, limits=Limits(lines=10**6),
        history_limits=HistoryLimits(
            requests=10**6, same=10**6, identical_s=0, open_requests=10**6
        ),
    ) as venue:  # fmt: skip
        desk = venue._server.desk
        peer: Any = Peer(rng.choice((157, 163, 178)))
        for number in range(1200):
            desk.answer(peer, *make_payload(rng, number))
        assert peer.frames > 100
        assert peer.codes >= {162, 200, 320, 321}
        desk.forget(peer)
        statistics = venue.statistics()
        assert (statistics.lines, statistics.history_open) == (0, 0)
