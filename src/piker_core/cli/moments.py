"""Moments as people type them: ISO text, or how long ago."""

import re

_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNIX = re.compile(r"\d{9,11}(\.\d+)?")
_ISO = re.compile(r"\d{4}-\d\d-\d\d.*")


def parse_moment(text: str, now_s: float) -> float:
    """Seconds UTC of `now`, `-7d` (s, m, h, d, w), an ISO date or time, Unix seconds.

    An ISO text without an offset is UTC. Raises ValueError for anything else.
    """
    if text == "now":
        return now_s
    if ago := _AGO.fullmatch(text):
        return now_s - float(ago[1]) * _SECONDS[ago[2]]
    if _UNIX.fullmatch(text):
        return float(text)
    if _ISO.fullmatch(text):
        import pendulum

        try:
            moment = pendulum.parse(text)
        except ValueError:
            moment = None
        if isinstance(moment, pendulum.DateTime):
            return moment.timestamp()
    raise ValueError(
        f"{text!r:.40} is no moment: write 2026-01-31, 2026-01-31T09:30, "
        "2026-01-31T09:30+01:00, Unix seconds, now, or how long ago: -90m, -12h, -7d"
    )
