"""`piker-core history`: into a store, once, whatever ends it."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from piker_core.cli.moments import parse_moment
from piker_core.config import default_store_url
from piker_core.store import open_store
from tests import backfill_kills
from tests.commands import (
    NO_NETWORK,
    PYTHON,
    Following,
    invoke,
    on_terminal,
    private_shm,
    records,
    run,
    told_once,
)

FQME = "abc.bookvenue"
END = 1_700_000_400
VENUE = """
import os, trio
from contextlib import asynccontextmanager
from tests.history_book import Book
import piker_core as pk

get_client = None
book = Book({start}, most=500)
book.holes = [({end} - 9000, {end} - 8000)]
book.delay_s = float(os.environ.get("BOOK_DELAY_S", "0"))

@asynccontextmanager
async def open_history_client(symbol):
    if symbol == "nosuch":
        raise pk.NotFound("bookvenue has no market 'nosuch'")
    yield book.get_ohlc, {{"erlangs": 3, "rate": 1000}}
"""


@pytest.fixture(autouse=True)
def venue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider whose history is a book of 20,000 s with a hole."""
    (tmp_path / "bookvenue.py").write_text(VENUE.format(start=END - 20_000, end=END))
    root = str(Path(__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, [str(tmp_path), root, before]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/store"


def iso(time_s: int) -> str:
    return backfill_kills.iso(time_s)


def words(url: str, *more: str, start_s: int = END - 30_000) -> list[str]:
    span = ["--start", iso(start_s), "--end", iso(END)]
    return ["history", FQME, "--period", "1", *span, "--store", url, *more]


def test_it_fills_a_store_and_tells_of_holes(url: str) -> None:
    done = run(*words(url, "--json"))
    assert done.returncode == 0, done.stderr
    told = records(done.stdout, "history")[0]
    assert told["complete"] and told["rows"] == told["changed"] == 19_000
    assert told["begins_s"] == END - 20_000 and told["store"] == url
    assert [(r["start_s"], r["end_s"]) for r in records(done.stdout, "hole")] == [
        (END - 30_000, END - 20_000),
        (END - 9000, END - 8000),
    ]
    with open_store(url) as store:
        assert len(store.read_ohlcv(FQME, 1)) == 19_000
        assert store.gaps(FQME, 1).tolist() == [
            ((END - 9000) * 10**9, (END - 8000) * 10**9)
        ]


def test_nothing_that_is_there_is_fetched_again(url: str) -> None:
    assert run(*words(url, start_s=END - 5000)).returncode == 0
    done = run(*words(url, start_s=END - 5000))
    assert done.returncode == 0 and "nothing was missing" in done.stdout
    done = run(*words(url, "--json", start_s=END - 6000))
    assert records(done.stdout, "history")[0]["rows"] == 1000


def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOK_DELAY_S", "0.5")
    with Following(*words(url)) as command:
        seen = command.next("progress")
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait() == 130
        told = command.next("history")
    assert not told["complete"] and told["rows"] >= seen["rows"] > 0
    with open_store(url) as store:
        assert len(store.read_ohlcv(FQME, 1)) == told["rows"]
    monkeypatch.setenv("BOOK_DELAY_S", "0")
    rest = records(run(*words(url, "--json")).stdout, "history")[0]
    assert rest["complete"] and rest["rows"] == 19_000 - told["rows"]


def test_a_full_disk_is_told_and_what_was_stored_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    kept = tmp_path / "kept"
    small = private_shm(f"-o size=140k tmpfs {folder}")
    store_words = [*PYTHON, *words(f"parquet://{folder}")]
    script = f'"$@"; code=$?; cp -r {folder} {kept}; exit $code'
    done = subprocess.run(
        [*small, "sh", "-c", script, "sh", *store_words],
        capture_output=True,
        text=True,
    )
    assert "No space left" in told_once(done, 5)
    assert "fetched" in done.stdout
    with open_store(f"parquet://{kept}") as store:
        stored = len(store.read_ohlcv(FQME, 1))
        assert stored < 19_000
    assert run(*words(f"parquet://{kept}")).returncode == 0
    with open_store(f"parquet://{kept}") as store:
        assert len(store.read_ohlcv(FQME, 1)) == 19_000
    shutil.rmtree(kept)


def test_progress_is_a_bar_on_a_terminal(url: str) -> None:
    code, text = on_terminal(*words(url))
    assert code == 0
    assert "rows/s" in text and "100%" in text and "2 holes" in text


def test_without_a_store_named_it_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"parquet://{tmp_path}/home/piker-core/store"
    assert default_store_url() == own
    done = run(*words("", "--json", start_s=END - 500))
    assert records(done.stdout, "history")[0]["store"] == own
    monkeypatch.setenv("PIKER_STORE__URL", "parquet:///elsewhere")
    assert default_store_url() == "parquet:///elsewhere"
    config = tmp_path / "config.toml"
    config.write_text('[store]\nurl = "parquet:///there"\n')
    monkeypatch.delenv("PIKER_STORE__URL")
    monkeypatch.setenv("PIKER_CONFIG", str(config))
    assert default_store_url() == "parquet:///there"


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--store", "sqlite:///x"], 5, "is no store"),
        (["--start", "yesterday"], 2, "is no moment"),
        (["--period", "0"], 2, "greater than"),
    ],
)
def test_what_is_wrong_is_told(url: str, more: list[str], code: int, told: str) -> None:
    done = run(*words(url), *more)
    assert done.returncode == code and told in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_markets_and_providers_are_not_found(url: str) -> None:
    for fqme in ("nosuch.bookvenue", "abc.nowhere"):
        done = run("history", fqme, "--store", url)
        assert "no " in told_once(done, 3)


def test_moments_are_iso_text_or_how_long_ago() -> None:
    now_s = 1_700_000_000.5
    assert parse_moment("now", now_s) == now_s
    assert parse_moment("-7d", now_s) == now_s - 7 * 86400
    assert parse_moment("-1.5h", now_s) == now_s - 5400
    assert parse_moment("-2w", now_s) == now_s - 14 * 86400
    assert parse_moment("1700000000.5", 0.0) == now_s
    assert parse_moment("2026-01-31", now_s) == 1_769_817_600
    assert parse_moment("2026-01-31T09:30", now_s) == 1_769_851_800
    assert parse_moment("2026-01-31T09:30+01:00", now_s) == 1_769_848_200
    for text in ("7d", "-7x", "", "2026", "2026-13-01", "P7D", "-7days"):
        with pytest.raises(ValueError, match="is no moment"):
            parse_moment(text, now_s)


def test_help_says_how_moments_are_written() -> None:
    assert "-90m" in invoke("history", "--help").stdout


async def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    report = await backfill_kills.kill_often(6, 3, tmp_path)
    assert report["kills"] >= 6 and report["rows"] > 0
