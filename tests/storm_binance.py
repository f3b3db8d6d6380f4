"""Binance, both its sides, in a storm."""

from providers.binance.venue import Limits, open_venue
from tests.storm_site import COMMON, Site, Strike, calls, closing, with_cut

_LIMITS = Limits(weight=50_000, life_s=60.0)

SITE = Site(
    name="binance",
    open_venue=lambda seed: open_venue(
        seed=seed,
        live_rate=100.0,
        history_s=1200.0,
        limits=_LIMITS,
        usdm_limits=_LIMITS,
    ),
    symbols=lambda _: (
        *("btcusdt", "ethbtc"),
        *("btcusdt.usdtm.perp", "btcusdt.usdtm.20301227"),
    ),
    settings={
        "liveness_s": 2,
        "ack_timeout_s": 2,
        "rotate_s": 5,
        "overlap_s": 0.5,
        "status_s": 1,
        "audit_s": 5,
        "rest_weight": 50_000,
        "rest_rate": 500,
        "usdm_rest_weight": 50_000,
        "usdm_rest_rate": 500,
    },
    rates={"duplicate": 0.05, "disorder": 0.1, "drop": 0.02, "malformed": 0.02},
    strikes=COMMON
    | {
        "rotate": Strike(lambda faults, _: faults.rotate()),
        "shutdown": Strike(lambda faults, _: faults.shutdown(3.0)),
        "ban": Strike(with_cut(lambda faults, _: faults.ban(3.0))),
        "html": Strike(
            with_cut(lambda faults, rng: faults.html(calls(rng), status=502))
        ),
        "halt": closing(3.0),
    },
)
