"""Kraken in a storm."""

from providers.kraken.venue import open_venue
from tests.storm_site import COMMON, Site, Strike, calls, closing, with_cut

_BROKEN = ["large", "nan_price", "negative_size", "bad_time", "empty"]

SITE = Site(
    name="kraken",
    open_venue=lambda seed: open_venue(
        seed=seed, live_rate=40.0, history_s=1200.0, rest_rate=50.0, rest_burst=100
    ),
    symbols=lambda _: ("xbtusd", "ethusd", "mlneur"),
    settings={
        "liveness_s": 2,
        "ack_timeout_s": 2,
        "rest_rate": 20,
        "throttle_pause_s": 0.5,
    },
    rates={"duplicate": 0.05, "disorder": 0.1, "drop": 0.02, "malformed": 0.05},
    strikes=COMMON
    | {
        "close": Strike(lambda faults, _: faults.close()),
        "html": Strike(with_cut(lambda faults, rng: faults.html(calls(rng)))),
        "bad": Strike(lambda faults, _: faults.malformed(_BROKEN)),
        "closed": closing(2.0),
    },
)
