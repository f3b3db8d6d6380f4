"""History: bars of the past, beside the venue's own."""

import time
from typing import Any

import trio

from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage
from piker_core.conformance.truth import clock, difference

SPAN = 5
"""Rows of the span that is asked for."""
LIMITS_S = 3.0
LIMITS_CALLS = 60
SLOW_S = 0.25
REFUSED = ("rest_refused", "pacing_refused")
MINUTES = 12
"""So many frames are different: there is not more history than that."""
_EMPTY = ("NoData", "DataUnavailable")


async def check_minutes(stage: Stage) -> Passed:
    """60 s rows up to now."""
    return await _check_newest(stage, 60)


async def check_seconds(stage: Stage) -> Passed:
    """1 s rows up to now."""
    return await _check_newest(stage, 1)


async def check_span(stage: Stage) -> Passed:
    """Rows of a span that is asked for, and no others."""
    symbol = stage.symbols[0]
    for period in (60, 1):
        begin_s = (int(time.time()) // period - 2 * SPAN - 10) * period
        end_s = begin_s + SPAN * period
        answer = await _ask(stage, symbol, period, start_s=begin_s, end_s=end_s)
        rows = _check_rows(stage, symbol, period, answer)
        outside = [row["time"] for row in rows if not begin_s <= row["time"] < end_s]
        if outside:
            raise Failed(
                f"{period} s: a row of {clock(outside[0])} is outside the span "
                f"{clock(begin_s)} to {clock(end_s)}"
            )
        there = {row["time"] for row in rows}
        for candle in stage.venue.candles(symbol, period, begin_s, end_s):
            if candle.count and candle.time_s not in there:
                raise Failed(
                    f"{period} s: {clock(candle.time_s)} traded and has no row"
                )
    return Passed(f"spans of {SPAN} rows are kept")


async def check_empty(stage: Stage) -> Passed:
    """What is not there yet or was never there is said in the words of the contract."""
    symbol = stage.symbols[0]
    first_s = stage.venue.trades(symbol)[0].time_ns // 10**9
    long_ago_s = first_s // 60 * 60 - 30 * 86_400
    spans = {
        "in the future": (time.time() + 3600, time.time() + 7200),
        "before the first trade": (None, long_ago_s),
    }
    told = []
    for words, (start_s, end_s) in spans.items():
        try:
            answer = await stage.subject.ask(
                "history", symbol=symbol, period=60, start_s=start_s, end_s=end_s
            )
        except Told as error:
            if error.kind not in _EMPTY:
                text = f"a span {words} raises {error}, not NoData or DataUnavailable"
                raise Failed(text) from None
            told.append(f"{error.kind} {words}")
        else:
            raise Failed(f"a span {words} has {len(answer['rows'])} rows")
    return Passed(", ".join(told))


async def check_limits(stage: Stage) -> Passed:
    """At the pace that the provider tells, the venue refuses nothing.

    Here the venue keeps its own limits, and the provider its own patience.
    """
    first = await _ask(stage, stage.symbols[0], 60)
    erlangs, rate = _limits(first["limits"])
    pace = f"erlangs {erlangs}, rate {rate:g}"
    refused, before = stage.counter(*REFUSED) or 0, stage.calls()
    slow = getattr(stage.venue.faults, "slow_rest", None)
    if slow is not None:
        slow(SLOW_S)  # or calls would hardly be under way at once
    frames = min(LIMITS_CALLS, max(int(rate * LIMITS_S), 2))
    problems = await _ask_paced(stage, frames, erlangs, rate)
    if problems:
        raise Failed(f"at {pace}: {problems[0]}")
    more = (stage.counter(*REFUSED) or 0) - refused
    if more:
        raise Failed(f"at {pace} the venue refused {more}")
    _check_concurrency(stage, erlangs)
    seen = stage.calls() - before
    return Passed(f"{frames} frames at {pace}; none of {seen} calls refused")


async def _ask_paced(stage: Stage, frames: int, erlangs: int, rate: float) -> list[str]:
    """Ask for frames, so many at once and so many a second; what was raised."""
    problems: list[str] = []
    slots = trio.CapacityLimiter(erlangs)

    async def call(end_s: int) -> None:
        async with slots:
            try:
                await stage.subject.ask(
                    "history", symbol=stage.symbols[0], period=60, end_s=end_s
                )
            except Told as error:
                problems.append(str(error))

    async with trio.open_nursery() as nursery:
        for number in range(frames):
            now_s = int(time.time()) // 60 * 60
            nursery.start_soon(call, now_s - number % MINUTES * 60)
            await trio.sleep(1.0 / rate)
    return problems


def _check_concurrency(stage: Stage, erlangs: int) -> None:
    at_once = stage.counter("rest_concurrency")
    if at_once is not None and at_once > erlangs:
        raise Failed(f"{at_once} calls at once, told were erlangs {erlangs}")


def _limits(limits: dict[str, Any]) -> tuple[int, float]:
    erlangs, rate = limits.get("erlangs"), limits.get("rate")
    for key, value in (("erlangs", erlangs), ("rate", rate)):
        if not isinstance(value, (int, float)) or not value > 0:
            raise Failed(f"open_history_client tells no {key}: {limits}")
    return max(int(erlangs or 1), 1), float(rate or 1.0)


async def _check_newest(stage: Stage, period: int) -> Passed:
    rows = 0
    for symbol in stage.symbols:
        answer = await _ask(stage, symbol, period)
        checked = _check_rows(stage, symbol, period, answer)
        newest = int(answer["asked_s"]) // period * period - period
        lag = newest - checked[-1]["time"]
        if lag > max(period, 5):
            raise Failed(f"{symbol}: the newest row is {lag} s older than it could be")
        rows += len(checked)
    return Passed(f"{rows} rows are the venue's, final and in order", {"rows": rows})


def _need_history(stage: Stage) -> None:
    if not hasattr(stage.provider, "open_history_client"):
        raise NotApplicable("it has no open_history_client")


async def _ask(stage: Stage, symbol: str, period: int, **span: float) -> dict[str, Any]:
    _need_history(stage)
    await stage.describe()
    try:
        answer: dict[str, Any] = await stage.subject.ask(
            "history", symbol=symbol, period=period, **span
        )
    except Told as error:
        raise Failed(f"get_ohlc({period}) of {symbol} raises {error}") from None
    return answer


def _check_rows(
    stage: Stage, symbol: str, period: int, answer: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of an answer that are final, ascending, aligned and the venue's own."""
    lacks = [name for name in ("time", "close", "count") if name not in answer["names"]]
    if lacks:
        raise Failed(f"{symbol} {period} s: rows have no {', '.join(lacks)}")
    rows = [dict(zip(answer["names"], row, strict=True)) for row in answer["rows"]]
    if not rows:
        raise Failed(f"{symbol} {period} s: no rows, and no NoData")
    times = [row["time"] for row in rows]
    where = f"{symbol} {period} s"
    if times != sorted(set(times)):
        raise Failed(f"{where}: the times of the rows do not rise")
    if any(time_s % period for time_s in times):
        raise Failed(f"{where}: a row does not begin at a multiple of {period} s")
    if times[-1] + period > answer["answered_s"]:
        raise Failed(f"{where}: the row of {clock(times[-1])} was still forming")
    if answer["start_s"] != times[0]:
        raise Failed(f"{where}: start_dt is not the time of the first row")
    end_s = answer["end_s"]
    if end_s is None or not times[-1] <= end_s <= times[-1] + period:
        raise Failed(f"{where}: end_dt is not the end of the last row")
    _compare(stage, symbol, period, rows)
    return rows


def _compare(
    stage: Stage, symbol: str, period: int, rows: list[dict[str, Any]]
) -> None:
    first_s, last_s = rows[0]["time"], rows[-1]["time"]
    candles = stage.venue.candles(symbol, period, first_s, last_s + period)
    known = {candle.time_s: candle for candle in candles}
    steps = stage.steps[symbol]
    for row in rows:
        candle = known.get(row["time"])
        if candle is None:
            problem = "the venue has no such candle"
        else:
            problem = difference(row, candle, steps)
        if problem:
            where = f"{symbol} {period} s {clock(row['time'])}"
            raise Failed(f"{where}: {problem}")
