"""What a stream counts, and what it says of how a market is told."""

import msgspec


class StreamStatistics(msgspec.Struct, frozen=True):
    """Counters of the connection and the stream, and how one market is told.

    `source` is where its trades come from, `times` of what kind their times are;
    `local_times` counts those that are times of arrival, `missed` trades that the
    stream should have told, `compared` seconds that were compared with TWS's bars and
    `uncompared` those that could not be, `backwards` and `resets` totals of the volume
    that fell.
    """

    source: str = ""
    times: str = ""
    local_times: int = 0
    missed: int = 0
    compared: int = 0
    uncompared: int = 0
    backwards: int = 0
    resets: int = 0
    messages: int = 0
    malformed: int = 0
    unknown: int = 0
    unmatched: int = 0
    refused: int = 0
    no_space: int = 0
    refusals: int = 0
    connections: int = 0
    stale: int = 0
    timeouts: int = 0
    pacing_waits: int = 0
