"""A picture of bars: candles, volume below, and shades where there are none.

Only here is matplotlib imported, without its windows.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.output import utc_text
from piker_core.dtypes import OHLCV_DTYPE
from piker_core.errors import PikerError
from piker_core.store.rows import holes, is_placeholder, joined

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = NDArray[np.void]
MOST_CANDLES = 500
"""More than that cannot be told apart: several rows become one candle."""
STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14_400, 21_600, 43_200),
    *(86_400, 172_800, 604_800, 1_209_600, 2_419_200),
)
"""What a candle may span."""
SIZE_IN, DPI = (14.0, 7.5), 110
BODY, CROWDED_BODY = 0.7, 0.9
"""A candle's width, as a part of what it spans, if there are few or many."""
UP, DOWN, STILL, SHADE = "#1a9850", "#d73027", "#8c8c8c", "#f2c14e"
DAY_S = 86_400.0
NS = 1_000_000_000


class Candles(NamedTuple):
    """Rows that are drawn, and what each of them spans."""

    rows: Rows
    span_s: int


def draw_chart(
    rows: Rows,
    fqme: str,
    period: int,
    *,
    digits: int | None = None,
    start_s: int | None = None,
    end_s: int | None = None,
) -> "Figure":
    """The picture of rows that ascend. Raises PikerError without matplotlib.

    Of start <= time < end, which may reach beyond the rows; by default it does not.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PikerError(
            f"a chart needs matplotlib (pip install 'piker-core[plot]'): {error}"
        ) from None
    candles = folded(rows[~is_placeholder(rows)], period)
    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    prices, volumes = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]}
    )
    _draw_prices(prices, candles, digits)
    _draw_volumes(volumes, candles)
    first_s = int(rows["time"][0]) if start_s is None else start_s
    last_s = int(rows["time"][-1]) + period if end_s is None else end_s
    gaps = _gaps(rows, period, first_s, last_s)
    for axes in (prices, volumes):
        _shade(axes, gaps)
    _dress(prices, volumes, gaps)
    margin_s = max((last_s - first_s) * 0.01, candles.span_s / 2)
    prices.set_xlim(_days(first_s - margin_s), _days(last_s + margin_s))
    prices.set_title(_title(fqme, rows, period, candles.span_s), loc="left")
    return figure


def _gaps(rows: Rows, period: int, start_s: int, end_s: int) -> NDArray[np.void]:
    """Holes of a span: before, between and behind the rows."""
    inner = holes(rows, period)
    starts = np.array([start_s, int(rows["time"][-1]) + period])
    ends = np.array([int(rows["time"][0]), end_s])
    outer = starts < ends
    return joined(
        np.concatenate([inner["start_ns"] // NS, starts[outer]]),
        np.concatenate([inner["end_ns"] // NS, ends[outer]]),
    )


def folded(rows: Rows, period: int) -> Candles:
    """Rows, or where there are too many, candles of several rows each."""
    if len(rows) <= MOST_CANDLES:
        return Candles(rows, period)
    length_s = int(rows["time"][-1] - rows["time"][0]) + period
    wanted_s = max(len(rows) * period, length_s // 4) / MOST_CANDLES
    steps = [step for step in STEPS_S if step % period == 0 and step >= wanted_s]
    span_s = steps[0] if steps else -(-int(wanted_s) // period) * period
    firsts = np.flatnonzero(np.diff(rows["time"] // span_s, prepend=-1))
    candles = np.zeros(len(firsts), OHLCV_DTYPE)
    candles["time"] = rows["time"][firsts] // span_s * span_s
    candles["open"] = rows["open"][firsts]
    candles["close"] = rows["close"][np.append(firsts[1:], len(rows)) - 1]
    candles["high"] = np.maximum.reduceat(rows["high"], firsts)
    candles["low"] = np.minimum.reduceat(rows["low"], firsts)
    candles["volume"] = np.add.reduceat(rows["volume"], firsts)
    return Candles(candles, span_s)


def _days(seconds: Any) -> Any:
    """Seconds UTC as the days that matplotlib counts."""
    return seconds / DAY_S


def _colours(rows: Rows) -> list[str]:
    moves = np.sign(rows["close"] - rows["open"]).astype(int).tolist()
    return [(STILL, UP, DOWN)[move] for move in moves]


def _boxes(candles: Candles, bottom: Any, top: Any) -> Any:
    """Corners of boxes in the middle of what candles span, as one array."""
    width = CROWDED_BODY if len(candles.rows) > MOST_CANDLES / 2 else BODY
    left = _days(candles.rows["time"] + candles.span_s * (1 - width) / 2)
    right = left + _days(candles.span_s * width)
    corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _draw_prices(axes: "Axes", candles: Candles, digits: int | None) -> None:
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.ticker import ScalarFormatter, StrMethodFormatter

    rows, colours = candles.rows, _colours(candles.rows)
    middle = _days(rows["time"] + candles.span_s / 2)
    ends = [
        np.stack([middle, rows["low"]], axis=-1),
        np.stack([middle, rows["high"]], axis=-1),
    ]
    crowd = len(rows) / MOST_CANDLES
    wicks = LineCollection(
        list(np.stack(ends, axis=1)), colors=colours, linewidths=1.1 - 0.4 * crowd
    )
    wicks.set_gid("wicks")
    bodies = PolyCollection(
        list(_boxes(candles, rows["open"], rows["close"])),
        facecolors=colours,
        edgecolors=colours,  # a body without height is seen by its edge
        linewidths=0.8 - 0.4 * crowd,
        zorder=3,
    )
    bodies.set_gid("bodies")
    axes.add_collection(wicks)
    axes.add_collection(bodies)
    if len(rows):
        low, high = float(rows["low"].min()), float(rows["high"].max())
        room = (high - low) * 0.06 or abs(high) * 0.001 or 1.0
        axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_formatter(
        ScalarFormatter(useOffset=False)
        if digits is None
        else StrMethodFormatter(f"{{x:,.{digits}f}}")
    )


def _draw_volumes(axes: "Axes", candles: Candles) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.ticker import EngFormatter

    rows = candles.rows
    bars = PolyCollection(
        list(_boxes(candles, np.zeros(len(rows)), rows["volume"])),
        facecolors=_colours(rows),
        alpha=0.75,
    )
    bars.set_gid("volumes")
    axes.add_collection(bars)
    most = float(rows["volume"].max(initial=0.0))
    axes.set_ylim(0, most * 1.08 or 1.0)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _shade(axes: "Axes", gaps: NDArray[np.void]) -> None:
    """Every hole, over the whole height and at least as wide as can be seen."""
    from matplotlib.collections import PolyCollection

    start, end = _days(gaps["start_ns"] / NS), _days(gaps["end_ns"] / NS)
    bottom, top = np.zeros(len(gaps)), np.ones(len(gaps))
    corners = [(start, bottom), (start, top), (end, top), (end, bottom)]
    shades = PolyCollection(
        list(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)),
        facecolors=SHADE,
        edgecolors=SHADE,
        linewidths=0.8,
        alpha=0.35,
        zorder=0,
        transform=axes.get_xaxis_transform(),
    )
    shades.set_gid("gaps")
    axes.add_collection(shades, autolim=False)


def _dress(prices: "Axes", volumes: "Axes", gaps: NDArray[np.void]) -> None:
    """Axes, grid, legend."""
    from datetime import UTC

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.patches import Patch

    locator = AutoDateLocator(tz=UTC, minticks=6, maxticks=12)  # type: ignore[no-untyped-call]
    form = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    volumes.xaxis.set_major_locator(locator)
    volumes.xaxis.set_major_formatter(form)
    volumes.set_xlabel("time (UTC)")
    prices.set_ylabel("price")
    volumes.set_ylabel("volume")
    for axes in (prices, volumes):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    if len(gaps):
        missing = "1 interval" if len(gaps) == 1 else f"{len(gaps):,} intervals"
        patch = Patch(color=SHADE, alpha=0.35, label=f"{missing} without rows")
        prices.legend(
            handles=[patch],
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            borderpad=0.2,
        )


def _title(fqme: str, rows: Rows, period: int, span_s: int) -> str:
    shown = 16 if period % 60 == 0 else 19  # seconds where there are any
    first, last = (utc_text(int(rows["time"][place]))[:shown] for place in (0, -1))
    each = "" if span_s == period else f", a candle is {_span_words(span_s)}"
    count = f"{len(rows):,} rows of {_span_words(period)}"
    return f"{fqme}   {first} to {last} UTC   ({count}{each})"


def _span_words(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
