"""Interactive Brokers in a storm.

Its trades have no ids: one told twice is two, and their order is that of coming, so
no messages are repeated or disordered. Quotes that are lost are told by nothing, so
prices of a market whose bars are made of quotes are not compared.

A TWS is not known to lose single messages of a connection that goes on: TCP does not,
and what it samples it makes good by the next total. What is known are silent stalls,
which are told by nothing either. `drop` stands for whatever else may come, far more
often than it ever will: what is not told must be missed all the same.
"""

from typing import Any

from providers.ib.venue import LENIENT, PATIENCE, open_venue
from tests.storm_site import COMMON, MOST_S, Site, Strike

STOCK, CRYPTO, FOREX = "aapl.nasdaq", "btcusd.paxos", "eurusd.idealpro"
_OTHERS = {CRYPTO: "AGGTRADES", FOREX: "BID"}


def _symbols(venue: Any) -> list[str]:
    future = next(name for name in venue.symbols if name.startswith("mnq.cme"))
    return [future, STOCK, CRYPTO, FOREX]


def _candles(venue: Any, symbol: str, period: int, start: int, end: int) -> Any:
    what = _OTHERS.get(symbol, "TRADES")
    return venue.candles(symbol, period, start, end, what=what)


def _away(code: int, back: int) -> Strike:
    return Strike(
        lambda faults, _: faults.connectivity(code),
        lambda faults: faults.connectivity(back),
        (0.5, MOST_S),
    )


SITE = Site(
    name="ib",
    open_venue=lambda seed: open_venue(
        seed=seed, live_rate=80.0, history_s=1200.0, **LENIENT
    ),
    symbols=_symbols,
    settings={**PATIENCE, "liveness_s": 2, "tick_by_tick_lines": 5},
    rates={"drop": 0.02, "malformed": 0.02},
    strikes=COMMON
    | {
        "close": Strike(lambda faults, _: faults.close()),
        "restart": Strike(lambda faults, _: faults.restart(2.0), lasts_s=(2.5, 2.5)),
        "kept": Strike(lambda faults, _: faults.outage(1.0), lasts_s=(1.5, 1.5)),
        "lost": Strike(
            lambda faults, _: faults.outage(1.0, lost=True), lasts_s=(1.5, 1.5)
        ),
        "farm": _away(2103, 2104),
        "history farm": _away(2105, 2106),
        "silent": Strike(
            lambda faults, _: faults.silent(), lambda faults: faults.silent(False)
        ),
        "competing": Strike(
            lambda faults, _: faults.competing_session(),
            lambda faults: faults.competing_session(False),
            (0.5, MOST_S),
        ),
        "no answer": Strike(
            lambda faults, rng: faults.history_never_answers(rng.randrange(1, 3))
        ),
        "framing": Strike(lambda faults, _: faults.malformed(["giant_length"])),
    },
    candles=_candles,
    untold=(FOREX,),
    quiet_s=15.0,  # PATIENCE's `history_timeout_s` and two times its `sweep_s`
)
