"""The limits of a venue as keys of a provider's configuration Struct.

Each adds to the one before it: markets alone, with REST, with a WebSocket. A provider
derives its `Config` from the one it needs and states what its venue differs in:

    class Config(StreamLimits, frozen=True, forbid_unknown_fields=True):
        rest_url: str = "https://api.venue.test"
        rest_rate: Positive = 20.0
"""

from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class MarketLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The patience with one market.

    At the first start live trades are held for `hold_s` at most, until those of the
    running minute are known. A jump of trade ids is a gap once it has lasted
    `disorder_s`. Where quotes tell of trades that the stream does not for `suspect_s`,
    or nothing trades for `audit_s` (0: never asked), the venue's list is looked at:
    what it has and the stream had not told `audit_grace_s` later makes the stream dead.
    A gap of more than `repair_pages` pages stays on record; ids that are not in the
    list after it was read `repair_reads` times never were. Without trade ids: lists are
    complete `repair_settle_s` after the fact, and trades within `repair_edge_s` of a
    gap are told apart by time, price and size.
    """

    hold_s: Positive = 2.0
    disorder_s: Positive = 1.0
    suspect_s: Positive = 10.0
    audit_s: NotNegative = 0.0
    audit_grace_s: Positive = 5.0
    repair_pages: Count = 200
    repair_reads: Count = 6
    repair_settle_s: NotNegative = 2.0
    repair_edge_s: Positive = 2.0


class RestLimits(MarketLimits, frozen=True, forbid_unknown_fields=True):
    """Calls over HTTP.

    `rest_rate` of cost a second is spent at most, after `rest_burst` at once (one call
    costs 1 unless the venue weighs them). A call may take `rest_timeout_s` and is tried
    `rest_attempts` times. A refusal for too many calls stops all for what the venue
    says, else for `throttle_pause_s`, doubled each time in a row, but never for longer
    than `throttle_longest_s`. Its time is asked for every `clock_every_s`, where there
    is a call for that; a clock that is more than `clock_alarm_s` off ours, or jumps by
    as much, is a warning.
    """

    rest_rate: Positive = 1.0
    rest_burst: Count = 10
    rest_timeout_s: Positive = 10.0
    rest_attempts: Count = 4
    throttle_pause_s: Positive = 5.0
    throttle_longest_s: Positive = 300.0
    clock_every_s: Positive = 3600.0
    clock_alarm_s: Positive = 0.5


class StreamLimits(RestLimits, frozen=True, forbid_unknown_fields=True):
    """Connections of a WebSocket, and the markets on them.

    A connection carries `ws_topics` topics at most, a request asks for `ws_batch`;
    requests go out at `ws_rate` a second after `ws_burst` at once. `connect_rate` and
    `connect_burst` are the same of attempts to connect, for all connections to an
    address. To open may take `ack_timeout_s`, an acknowledgement as long. Silence of
    `liveness_s` is death. A connection is replaced after `rotate_s` (0: never); its
    predecessor is kept for `overlap_s` once the new one is subscribed. A message has
    `ws_frame_bytes` at most.
    """

    liveness_s: Positive = 15.0
    ack_timeout_s: Positive = 10.0
    ws_topics: Count = 1000
    ws_batch: Count = 100
    ws_rate: Positive = 5.0
    ws_burst: Count = 5
    ws_frame_bytes: Count = 8 << 20
    connect_rate: Positive = 0.15
    connect_burst: Count = 50
    rotate_s: NotNegative = 0.0
    overlap_s: NotNegative = 2.0
