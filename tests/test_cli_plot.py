"""`plot`: candles, volume, and shades where there are no rows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import piker_core as pk
from piker_core.cli import failures
from piker_core.cli.chart import DAY_S, MOST_CANDLES, draw_chart, folded
from tests.commands import BASE_S, invoke, records, rings, run, told_once

START_S = 1_704_067_200
FQME = "xbtusd.kraken"
Rows = NDArray[np.void]
FLAT_GAP = int(pk.BarFlag.FLAT | pk.BarFlag.SYNTHETIC_GAP)
PNG = b"\x89PNG\r\n\x1a\n"


def walk(count: int, period: int = 60) -> Rows:
    """Rows of a price that walks up and down by dimes."""
    random = np.random.default_rng(7)
    rows = np.zeros(count, pk.OHLCV_DTYPE)
    rows["time"] = START_S + period * np.arange(count)
    closes = 1000 + np.cumsum(random.integers(-9, 10, count)) / 10
    rows["open"], rows["close"] = np.append(1000, closes[:-1]), closes
    rows["high"] = np.maximum(rows["open"], closes) + random.integers(0, 5, count) / 10
    rows["low"] = np.minimum(rows["open"], closes) - random.integers(0, 5, count) / 10
    rows["bar_wap"] = (rows["high"] + rows["low"]) / 2
    rows["volume"], rows["count"] = random.random(count), 3
    return rows


def holed(rows: Rows) -> Rows:
    """Without rows 10 to 19, and 30 to 34 as placeholders."""
    rows["flags"][30:35] = FLAT_GAP
    return np.delete(rows, slice(10, 20))


def parts(figure: Any, name: str) -> list[Any]:
    """The shapes of a name, in each of the two axes."""
    return [
        artist.get_paths()
        for axes in figure.axes
        for artist in axes.collections
        if artist.get_gid() == name
    ]


def seconds(path: Any) -> tuple[float, float]:
    """From when to when a shape is."""
    across = path.vertices[:, 0] * DAY_S
    return round(float(across.min()), 3), round(float(across.max()), 3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"parquet://{tmp_path}/bars"
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, holed(walk(100)))
    return url


# The picture


def test_each_row_is_a_candle_from_low_to_high_with_a_body() -> None:
    rows = walk(50)
    figure: Any = draw_chart(rows, FQME, 60)
    (wicks,), (bodies,) = parts(figure, "wicks"), parts(figure, "bodies")
    assert len(wicks) == len(bodies) == 50
    for row, wick, body in zip(rows, wicks, bodies, strict=True):
        assert wick.vertices[:, 1].tolist() == [row["low"], row["high"]]
        middle = seconds(wick)
        assert middle == (row["time"] + 30, row["time"] + 30)
        ends = sorted((row["open"], row["close"]))
        assert sorted(set(body.vertices[:, 1])) == sorted(set(ends))
        start, end = seconds(body)
        assert row["time"] < start < end < row["time"] + 60


def test_volume_stands_below_in_the_colour_of_its_candle() -> None:
    rows = walk(50)
    figure: Any = draw_chart(rows, FQME, 60)
    (volumes,) = parts(figure, "volumes")
    assert [path.vertices[:, 1].max() for path in volumes] == rows["volume"].tolist()
    bodies, bars = (
        next(each for each in axes.collections if each.get_gid() == name)
        for axes, name in zip(figure.axes, ("bodies", "volumes"), strict=True)
    )
    assert np.array_equal(bodies.get_facecolor()[:, :3], bars.get_facecolor()[:, :3])
    rising = rows["close"] > rows["open"]
    colours = {tuple(one) for one in bodies.get_facecolor()[rising].tolist()}
    assert len(colours) == 1


def test_missing_rows_and_placeholders_are_shaded_in_both_axes() -> None:
    figure: Any = draw_chart(holed(walk(100)), FQME, 60)
    expected = [(START_S + 600, START_S + 1200), (START_S + 1800, START_S + 2100)]
    for shades in (both := parts(figure, "gaps")):
        assert [seconds(path) for path in shades] == expected
        assert all(set(path.vertices[:, 1]) == {0, 1} for path in shades)
    assert len(both) == 2
    (bodies,) = parts(figure, "bodies")
    assert len(bodies) == 85
    legend = figure.axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "2 intervals without rows"


def test_what_a_chosen_span_lacks_at_its_ends_is_shaded_too() -> None:
    rows, span = walk(100)[10:90], (START_S, START_S + 6000)
    figure: Any = draw_chart(rows, FQME, 60, start_s=span[0], end_s=span[1])
    shades, _ = parts(figure, "gaps")
    expected = [(START_S, START_S + 600), (START_S + 5400, START_S + 6000)]
    assert [seconds(path) for path in shades] == expected
    low, high = (limit * DAY_S for limit in figure.axes[0].get_xlim())
    assert low < span[0] < span[1] < high
    inner: Any = draw_chart(rows, FQME, 60, start_s=START_S + 630, end_s=START_S + 5370)
    assert [len(shades) for shades in parts(inner, "gaps")] == [0, 0]


def test_without_gaps_nothing_is_shaded() -> None:
    figure: Any = draw_chart(walk(100), FQME, 60)
    assert [len(shades) for shades in parts(figure, "gaps")] == [0, 0]
    assert figure.axes[0].get_legend() is None


def test_times_are_utc_whatever_the_zone_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        figure: Any = draw_chart(walk(120), FQME, 60)
        figure.canvas.draw()
        labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "00:30" in labels and "01:00" in labels
    assert figure.axes[1].get_xlabel() == "time (UTC)"
    title = figure.axes[0].get_title(loc="left")
    assert "2024-01-01 00:00 to 2024-01-01 01:59 UTC" in title


def test_rows_that_cannot_be_told_apart_become_candles_of_several() -> None:
    rows = walk(5000)
    candles, span_s = folded(rows, 60)
    assert span_s == 600
    assert len(candles) == MOST_CANDLES
    for number in (0, 77, 499):
        part = rows[number * 10 : number * 10 + 10]
        candle = candles[number]
        assert candle["time"] == part["time"][0]
        assert candle["open"] == part["open"][0]
        assert candle["close"] == part["close"][-1]
        assert candle["high"] == part["high"].max()
        assert candle["low"] == part["low"].min()
        assert candle["volume"] == pytest.approx(part["volume"].sum())
    title = draw_chart(rows, FQME, 60).axes[0].get_title(loc="left")
    assert "(5,000 rows of 1 min, a candle is 10 min)" in title


@pytest.mark.parametrize("period", [1, 7, 60, 86_400, 604_800])
@pytest.mark.parametrize("count", [501, 3000, 40_000])
def test_candles_are_few_enough_whatever_the_period(period: int, count: int) -> None:
    rows = walk(count, period)
    rows["time"] -= START_S % period
    candles, span_s = folded(rows, period)
    assert span_s % period == 0
    assert len(candles) <= MOST_CANDLES + 1
    assert candles["volume"].sum() == pytest.approx(rows["volume"].sum())


@pytest.mark.parametrize("count", [1, 2])
def test_few_rows_at_one_price_are_a_picture_too(count: int, tmp_path: Path) -> None:
    rows = walk(count)
    for name in ("open", "high", "low", "close"):
        rows[name] = 5.0
    rows["volume"] = 0.0
    draw_chart(rows, FQME, 60).savefig(tmp_path / "a.png")
    rows["flags"] = FLAT_GAP
    draw_chart(rows, FQME, 60).savefig(tmp_path / "b.png")


def test_prices_are_labelled_with_the_decimals_of_the_market() -> None:
    figure: Any = draw_chart(walk(100), FQME, 60, digits=2)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert all(len(label.rpartition(".")[2]) == 2 for label in labels)


# The command


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", PNG), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")]
)
def test_a_picture_of_a_store_is_written(
    url: str, tmp_path: Path, name: str, begins: bytes
) -> None:
    file = tmp_path / name
    file.write_text("an older picture")
    done = invoke("plot", FQME, "--out", str(file), "--store", url)
    assert (done.returncode, done.stderr) == (failures.OK, "")
    assert done.stdout == f"90 rows of {FQME}, 60 s in {file}\n"
    assert file.read_bytes().startswith(begins)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "bars"])


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["-n", "20"], 20),
        (["--start", "2024-01-01T01:00"], 40),
        (["--start", "2024-01-01T01:00", "--end", "2024-01-01T01:10"], 10),
        (["--end", "2024-01-01T01:00", "-n", "7"], 7),
    ],
)
def test_the_span_is_chosen(
    url: str, tmp_path: Path, words: list[str], rows: int
) -> None:
    file = str(tmp_path / "a.png")
    done = invoke("plot", FQME, *words, "--out", file, "--json", "--store", url)
    assert [line["rows"] for line in records(done.stdout, "plotted")] == [rows]


def test_a_picture_of_a_ring_is_written(namespace: str, tmp_path: Path) -> None:
    file = str(tmp_path / "a.png")
    words = ["plot", FQME, "--period", "1", "--live", "--out", file, "--json"]
    with rings(namespace, seconds=30):
        done = invoke(*words)
        span = ["--start", f"{np.datetime64(BASE_S + 5, 's')}"]
        some = invoke(*words, *span, "--end", f"{np.datetime64(BASE_S + 9, 's')}")
        few = invoke(*words, "-n", "3")
        other = told_once(
            invoke("plot", "no.kraken", "--live", "--out", file), failures.MISSING
        )
    shown = [records(each.stdout, "plotted")[0]["rows"] for each in (done, some, few)]
    assert shown == [30, 4, 3]
    assert "no.kraken" in other


def test_what_cannot_be_drawn_is_told_in_one_sentence(url: str, tmp_path: Path) -> None:
    def sentence(code: int, *words: str, name: str = "a.png") -> str:
        file = str(tmp_path / name)
        return told_once(invoke("plot", *words, "--out", file, "--store", url), code)

    assert "has no bars" in sentence(failures.MISSING, "no.kraken")
    assert "has no bars" in sentence(failures.MISSING, FQME, "--period", "7")
    later = ["--start", "2025-01-01"]
    assert "no rows of" in sentence(failures.MISSING, FQME, *later)
    assert ".png, .svg or .pdf" in sentence(failures.USAGE, FQME, name="a.jpg")
    assert ".png, .svg or .pdf" in sentence(failures.USAGE, FQME, name="picture")
    assert "leave out --store" in sentence(failures.USAGE, FQME, "--live")
    missing = sentence(failures.MACHINE, FQME, name="nowhere/a.png")
    assert "No such file" in missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars"]


def test_a_missing_matplotlib_is_told_with_the_extra_that_has_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = invoke("plot", FQME, "--out", str(tmp_path / "a.png"), "--store", url)
    assert "pip install 'piker-core[plot]'" in told_once(done, failures.MACHINE)


def test_the_command_needs_a_file() -> None:
    assert run("plot", FQME).returncode == failures.USAGE
