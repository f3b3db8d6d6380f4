"""`[ib]`: where TWS or the Gateway listens, and every limit as a default.

Source: https://interactivebrokers.github.io/tws-api/historical_limitations.html
"""

from typing import Annotated, Literal

import msgspec

from piker_core.config import load_section

PROVIDER = "ib"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[int, msgspec.Meta(ge=0)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Address, account, patience and limits.

    `client_id` is a number of your own, or "auto": the first that is free, counted from
    one that depends on the process, so that several processes do not meet.

    Of orders: `order_client_id` is the number of the connection that trades, always
    the same: only under it orders can be changed. 0 takes hold of those that were made
    by hand, too. `outside_rth` lets orders trade outside the regular hours. `account`
    is the account of a login that has several.

    Of market data: `market_data_type` 1 live, 2 frozen, 3 delayed, 4 delayed frozen;
    `tick_by_tick_lines` markets get every trade, the others are sampled, by
    `rt_volume` 233 (all trades) or 375 (without unreportable ones);
    `quote_bars_from` is what bars of markets without trades (forex) are made of;
    `hours` chooses what counts as open, all trading hours or the liquid ones;
    `us_stock_lot` is the unit of sizes of US stocks, 0: 100 before server version 164,
    else 1 (TWS may be set to send lots). `currency` decides between listings.

    Of patience: `connect_timeout_s` to connect and greet, `request_timeout_s` and
    `history_timeout_s` for answers, `timeouts_most` missing ones in a row end the
    connection; after `ping_s` of silence TWS is asked for the time and has
    `liveness_s` to say anything; `farm_grace_s` of silence makes a market stale while a
    data farm is away; `restore_s` is how soon a market must tick again after an outage,
    `silence_s` how long one that ticks may be silent; `refused_retry_s` is the first
    wait before a market that was refused, or whose data another session has, is asked
    for again. Trades of a second are complete `settle_s` after its end; every `sweep_s`
    those told one by one are compared with TWS's bars, a request for each such market,
    and soon after a subscription began.

    Of requests: `message_rate` a second; `history_requests` in `history_window_s`, of
    which `repair_reserve` are kept for gaps; none identical within `identical_s`, at
    most `burst_requests` for one contract in `burst_window_s`, `open_requests` at once;
    after a complaint of TWS about that none for `pacing_pause_s`;
    a wait for those limits of over `pacing_wait_s` is a DataThrottle; bars of up to
    30 s reach back `small_bars_days`;
    `search_interval_s` between searches, `tick_by_tick_interval_s` between tick-by-tick
    subscriptions of one contract. A gap of more than `repair_pages` pages of trades is
    rebuilt from 1 s bars.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 4002
    client_id: Amount | Literal["auto"] = "auto"
    account: str = ""
    order_client_id: Amount = 90
    outside_rth: bool = False
    market_data_type: Literal[1, 2, 3, 4] = 1
    tick_by_tick_lines: Amount = 3
    rt_volume: Literal[233, 375] = 233
    quote_bars_from: Literal["bid", "ask", "mid"] = "bid"
    hours: Literal["trading", "liquid"] = "trading"
    us_stock_lot: Amount = 0
    currency: str = "USD"
    connect_timeout_s: Positive = 5.0
    request_timeout_s: Positive = 10.0
    history_timeout_s: Positive = 60.0
    timeouts_most: Count = 3
    ping_s: Positive = 5.0
    liveness_s: Positive = 5.0
    farm_grace_s: Positive = 2.0
    restore_s: Positive = 10.0
    silence_s: Positive = 60.0
    refused_retry_s: Positive = 60.0
    settle_s: NotNegative = 2.0
    sweep_s: Positive = 300.0
    message_rate: Count = 45
    history_requests: Count = 60
    history_window_s: Positive = 600.0
    repair_reserve: Amount = 10
    identical_s: NotNegative = 15.0
    burst_requests: Count = 5
    burst_window_s: NotNegative = 2.0
    open_requests: Count = 20
    small_bars_days: Count = 180
    pacing_wait_s: NotNegative = 660.0
    pacing_pause_s: Positive = 60.0
    search_interval_s: NotNegative = 1.0
    tick_by_tick_interval_s: NotNegative = 15.0
    repair_pages: Count = 60

    @property
    def address(self) -> str:
        """Host and port as one word."""
        return f"{self.host}:{self.port}"


def load_config() -> Config:
    """The `[ib]` table, the environment's overrides applied; raises ConfigError."""
    return load_section(PROVIDER, Config)
