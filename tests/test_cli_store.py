"""`store list`, gaps, verify, repair, delete and export: bars at rest."""

import csv
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fakevenue
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import piker_core as pk
from piker_core.cli import failures, load_app
from piker_core.cli.store_export import COLUMNS, whole_file
from tests.commands import PYTHON, invoke, records, run, told_once
from tests.history_book import Book
from tests.postgres_server import PASSWORD, PostgresServer

START_S = 1_704_067_200
FQME, OTHER = "xbtusd.fakevenue", "ethusd.fakevenue"
Rows = NDArray[np.void]
BOTH_NEGATIVE = ("volume 1.0 or count -7", "volume -1.0 or count 1")
SUBCOMMANDS = ("list", "gaps", "verify", "repair", "delete", "export")


def minutes(count: int, start: int = 0) -> Rows:
    """Rows of minutes as the venue's book has them."""
    first_s = START_S + 60 * start
    return np.asarray(Book(START_S, period=60).rows(first_s, first_s + 60 * count))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/bars"


@pytest.fixture
def filled(url: str) -> str:
    """A store with 100 minutes of one market, in which 10 to 19 are missing."""
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, np.delete(minutes(100), slice(10, 20)))
        store.write_ohlcv(OTHER, 60, minutes(5))
    return url


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    """What the venue has of the past."""
    book = Book(START_S, period=60)
    book.delay_s = 0.0
    monkeypatch.setattr(fakevenue.plan, "history", book.get_ohlc)
    yield book
    assert fakevenue.plan.histories_open == []


def words(rows: Rows) -> list[bytes]:
    return [row.tobytes()[8:] for row in rows]


def spoil(url: str) -> None:
    """Two rows that break a rule each."""
    with pk.open_store(url) as store:
        rows = store.read_ohlcv(FQME, 60, None, START_S + 120)
        rows["count"][0], rows["volume"][1] = -7, -1.0
        assert store.write_ohlcv(FQME, 60, rows) == 2


# All of them


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_subcommand_documents_its_exit_codes_and_shared_options(
    command: str,
) -> None:
    done = CliRunner().invoke(load_app(), ["store", command, "--help"])
    assert done.exit_code == 0
    for text in ("Exit codes:", "--store", "--json", "--namespace", "--debug"):
        assert text in done.output


@pytest.mark.parametrize(
    "words",
    [
        ["delete", "NO NAME"],
        ["list", "NO NAME"],
        ["gaps", FQME, "--period", "0"],
        ["export", FQME],
        ["export", FQME, "--out", "x", "--format", "xls"],
        ["repair", "--start", "soon"],
        ["mend"],
    ],
)
def test_wrong_words_are_wrong_usage(words: list[str]) -> None:
    assert run("store", *words).returncode == failures.USAGE


@pytest.mark.parametrize("command", ["list", "gaps", "verify", "repair"])
def test_a_market_that_the_store_has_not_is_told_with_those_it_has(
    filled: str, command: str
) -> None:
    done = invoke("store", command, "no.kraken", "--store", filled)
    sentence = told_once(done, failures.MISSING)
    assert f"has no bars of no.kraken; it has {OTHER} (60 s), {FQME} (60 s)" in sentence


@pytest.mark.parametrize("command", ["list", "gaps", "verify", "repair"])
def test_an_empty_store_has_nothing_to_tell(url: str, command: str) -> None:
    done = invoke("store", command, "--json", "--store", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_store_that_is_none_is_told_without_its_password() -> None:
    for url in ("mysql://me:s3cret@host/x", "postgresql://me:s3cret@127.0.0.1:1/x"):
        sentence = told_once(invoke("store", "list", "--store", url), failures.MACHINE)
        assert "s3cret" not in sentence


def test_without_an_option_the_store_is_the_configured_one_or_the_users(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_CONFIG", "/dev/null")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    done = invoke("store", "list")
    assert f"0 series in parquet://{tmp_path}/home/piker-core/store" in done.stderr
    monkeypatch.setenv("PIKER_STORE__URL", filled)
    assert len(records(invoke("store", "list", "--json").stdout, "series")) == 2


def test_commands_work_on_a_database(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, np.delete(minutes(100), slice(10, 20)))
    (series,) = records(invoke("store", "list", "--json", "--store", url).stdout)
    assert (series["rows"], series["gaps"]) == (90, 1)
    done = invoke("store", "verify", "--store", url)
    assert done.returncode == failures.OK
    assert "nothing wrong" in done.stderr
    assert PASSWORD not in done.stderr


# What there is


def test_series_are_listed_with_their_rows_and_gaps(filled: str) -> None:
    done = invoke("store", "list", "--json", "--store", filled)
    assert records(done.stdout, "series") == [
        {
            "kind": "series", "fqme": OTHER, "period": 60, "rows": 5,
            "first_s": START_S, "last_s": START_S + 240, "gaps": 0, "missing_s": 0,
        },
        {
            "kind": "series", "fqme": FQME, "period": 60, "rows": 90,
            "first_s": START_S, "last_s": START_S + 99 * 60, "gaps": 1,
            "missing_s": 600,
        },
    ]  # fmt: skip
    table = invoke("store", "list", FQME, "--store", filled)
    assert table.stdout.split("\n")[1].split() == [
        *(FQME, "60", "s", "90", "2024-01-01", "00:00:00", "2024-01-01", "01:39:00"),
        *("1", "10.0", "min"),
    ]
    assert "1 series in parquet://" in table.stderr


def test_holes_are_listed_with_their_length(filled: str) -> None:
    done = invoke("store", "gaps", "--json", "--store", filled)
    (gap,) = records(done.stdout, "gap")
    assert gap["start_ns"] == (START_S + 600) * 10**9
    assert gap["end_ns"] == (START_S + 1200) * 10**9
    assert (gap["fqme"], gap["rows"]) == (FQME, 10)
    table = invoke("store", "gaps", "--store", filled)
    assert table.stdout.split("\n")[1].split() == [
        *(FQME, "60", "s", "2024-01-01", "00:10:00", "2024-01-01", "00:20:00"),
        *("10.0", "min", "10"),
    ]


# Faults


def test_what_is_wrong_is_a_line_each_and_exit_code_4(filled: str) -> None:
    good = invoke("store", "verify", "--store", filled)
    assert (good.returncode, good.stdout) == (failures.OK, "")
    assert "95 rows of 2 series" in good.stderr
    spoil(filled)
    done = invoke("store", "verify", "--store", filled)
    assert done.returncode == failures.VENUE
    assert done.stdout.splitlines() == [
        f"{FQME}, 60 s  2024-01-01 00:0{minute}:00  negative: {text} is negative"
        for minute, text in enumerate(
            ("volume 1.0 or count -7", "volume -1.0 or count 1")
        )
    ]
    assert "2 wrong" in done.stderr
    told = records(invoke("store", "verify", "--json", "--store", filled).stdout)
    assert [(line["kind"], line.get("rule")) for line in told] == [
        ("verified", None), ("fault", "negative"), ("fault", "negative"),
        ("verified", None),
    ]  # fmt: skip


def test_damaged_files_are_named_and_all_others_are_checked(url: str) -> None:
    days = minutes(1440 * 95)
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, days)
        store.write_ohlcv(OTHER, 60, minutes(5))
    files = sorted(Path(url.removeprefix("parquet://")).rglob(f"*{FQME}/**/*.parquet"))
    assert len(files) == 4
    for path in files[1:3]:
        content = bytearray(path.read_bytes())
        content[200:208] = b"damaged!"
        path.write_bytes(content)
    done = invoke("store", "verify", "--json", "--store", url)
    assert done.returncode == failures.VENUE
    faults = records(done.stdout, "fault")
    assert {fault["rule"] for fault in faults} == {"damaged"}
    assert len(faults) == 2
    assert all(str(files[n]) in fault["text"] for n, fault in enumerate(faults, 1))
    checked = {line["fqme"]: line["rows"] for line in records(done.stdout, "verified")}
    assert checked == {OTHER: 5, FQME: 1440 * (31 + 4)}


def test_files_that_a_list_passes_over_are_damage_to_a_check(filled: str) -> None:
    paths = sorted(Path(filled.removeprefix("parquet://")).rglob("*.parquet"))
    for path in paths:
        path.write_bytes(path.read_bytes()[:-50])
    done = invoke("store", "verify", "--json", "--store", filled)
    assert done.returncode == failures.VENUE
    told = [fault["text"] for fault in records(done.stdout, "fault")]
    assert len(told) == len(paths) == 2
    assert all(str(path) in text for path, text in zip(paths, told, strict=True))


# Repair


def test_holes_and_wrong_rows_are_fetched_from_the_venue(
    filled: str, book: Book
) -> None:
    spoil(filled)
    done = invoke("store", "repair", FQME, "--store", filled)
    assert done.returncode == failures.OK
    assert "2 wrong rows among them; 12 rows came" in done.stdout
    assert "12 of them new or changed; no hole is left" in done.stdout
    with pk.open_store(filled) as store:
        rows = store.read_ohlcv(FQME, 60)
        assert len(store.gaps(FQME, 60)) == 0
    rows["flags"] = 0
    assert words(rows) == words(minutes(100))
    assert invoke("store", "verify", "--store", filled).returncode == failures.OK
    asked = len(book.asked)
    again = invoke("store", "repair", FQME, "--store", filled)
    assert "nothing is missing or wrong" in again.stdout
    assert len(book.asked) == asked


def test_what_the_venue_has_not_stays_a_hole_and_is_told(
    filled: str, book: Book
) -> None:
    book.holes = [(START_S + 720, START_S + 840)]
    done = invoke("store", "repair", FQME, "--json", "--store", filled)
    assert done.returncode == failures.OK
    (hole,) = records(done.stdout, "hole")
    assert (hole["start_s"], hole["end_s"]) == book.holes[0]
    (told,) = records(done.stdout, "repaired")
    assert (told["rows"], told["changed"], told["holes"]) == (8, 8, 1)


def test_a_repair_keeps_to_its_span(filled: str, book: Book) -> None:
    span = ["--start", "2024-01-01T00:12", "--end", "2024-01-01T00:15"]
    done = invoke("store", "repair", FQME, "--json", *span, "--store", filled)
    assert records(done.stdout, "repaired")[0]["rows"] == 3
    with pk.open_store(filled) as store:
        assert len(store.read_ohlcv(FQME, 60)) == 93


def test_the_trouble_of_one_market_stops_no_other(
    filled: str, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pk.open_store(filled) as store:
        store.write_ohlcv(OTHER, 60, minutes(5, start=10))
    monkeypatch.setattr(fakevenue.plan, "broken_history", {"ethusd"})
    done = invoke("store", "repair", "--store", filled)
    assert "unexpected KeyError: 'ethusd'" in told_once(done, failures.BUG)
    assert "no hole is left" in done.stdout


def test_a_throttle_is_waited_for_and_a_venue_that_fails_is_told(
    filled: str, book: Book
) -> None:
    book.errors = [pk.DataThrottle("slow down", retry_after=0.01)]
    done = invoke("store", "repair", FQME, "--json", "--store", filled)
    assert records(done.stdout, "repaired")[0]["rows"] == 10
    with pk.open_store(filled) as store:
        store.delete(FQME, 60, START_S + 1800, START_S + 1860)
    book.errors = [pk.NotFound("this market is gone")]
    done = invoke("store", "repair", FQME, "--store", filled)
    assert "this market is gone" in told_once(done, failures.MISSING)


def test_a_market_of_a_provider_that_is_not_installed_cannot_be_repaired(
    url: str,
) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv("a.nosuchvenue", 60, minutes(20)[::3])
    sentence = told_once(invoke("store", "repair", "--store", url), failures.MISSING)
    assert "no provider named 'nosuchvenue'" in sentence


# Delete


def test_a_span_is_deleted_without_a_question_if_so_said(filled: str) -> None:
    span = ["--start", "2024-01-01T00:00", "--end", "2024-01-01T00:05"]
    done = invoke("store", "delete", FQME, *span, "--yes", "--json", "--store", filled)
    assert records(done.stdout)[0]["rows"] == 5
    done = invoke("store", "delete", FQME, *span, "--yes", "--store", filled)
    assert "no rows of" in told_once(done, failures.MISSING)
    done = invoke("store", "delete", FQME, "--yes", "--store", filled)
    assert done.stdout.startswith("85 rows of")
    with pk.open_store(filled) as store:
        assert [one.fqme for one in store.series()] == [OTHER]


def test_nothing_is_deleted_when_nobody_can_be_asked(filled: str) -> None:
    for more, text in (["--json"], "asks no questions"), ([], "needs --yes"):
        done = subprocess.run(
            [*PYTHON, "store", "delete", FQME, *more, "--store", filled],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert text in told_once(done, failures.USAGE)
    with pk.open_store(filled) as store:
        assert len(store.read_ohlcv(FQME, 60)) == 90


@pytest.mark.parametrize(("answer", "left"), [("n", 90), ("y", 0)])
def test_a_person_is_asked_before_rows_are_deleted(
    filled: str, answer: str, left: int
) -> None:
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        [*PYTHON, "store", "delete", FQME, "--store", filled],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        os.write(mine, f"{answer}\n".encode())
        _, err = process.communicate()
    os.close(mine)
    assert process.returncode == failures.OK
    assert f"Delete 90 rows of {FQME}, 60 s, 2024-01-01 00:00:00 to" in err
    with pk.open_store(filled) as store:
        assert len(store.read_ohlcv(FQME, 60)) == left


# Export


@pytest.fixture
def odd(url: str) -> Rows:
    """Rows with numbers that a careless writer rounds, in a store."""
    rows = minutes(1000)
    rows["close"] = np.random.default_rng(3).random(1000) / 3
    rows["volume"][:6] = 5e-324, -0.0, 1.7976931348623157e308, 0.1 + 0.2, 1e16, 2**-30
    rows["count"][0], rows["flags"][0] = 2**62, 31
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, rows)
    return rows


def test_a_csv_file_is_exact_in_every_bit(odd: Rows, url: str, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    done = invoke("store", "export", FQME, "--out", str(file), "--store", url)
    assert done.stdout == f"1,000 rows of {FQME}, 60 s in {file}\n"
    with file.open(newline="") as text:
        lines = list(csv.DictReader(text))
    back = np.zeros(len(lines), pk.OHLCV_DTYPE)
    for name in COLUMNS:
        kind = float if back.dtype[name].kind == "f" else int
        back[name] = [kind(line[name]) for line in lines]
    assert words(back) == words(odd)


def test_a_parquet_file_is_exact_in_every_bit(
    odd: Rows, url: str, tmp_path: Path
) -> None:
    from pyarrow import parquet

    file = tmp_path / "bars.parquet"
    done = invoke(
        "store", "export", FQME, "--format", "parquet", "--out", str(file),
        "--json", "--store", url,
    )  # fmt: skip
    (told,) = records(done.stdout, "exported")
    assert (told["rows"], told["bytes"]) == (1000, file.stat().st_size)
    table = parquet.read_table(file)
    assert table.column_names == COLUMNS
    back = np.zeros(table.num_rows, pk.OHLCV_DTYPE)
    for name in COLUMNS:
        back[name] = table[name].to_numpy()
    assert words(back) == words(odd)


def test_a_long_series_is_exported_in_parts_and_only_its_span(
    odd: Rows, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piker_core.cli.store_export.BLOCK_PERIODS", 7)
    file = tmp_path / "bars.csv"
    invoke(
        "store", "export", FQME, "--out", str(file), "--store", url,
        "--start", "2024-01-01T00:03", "--end", "2024-01-01T01:40",
    )  # fmt: skip
    times = [int(line.partition(",")[0]) for line in file.read_text().split()[1:]]
    assert times == odd["time"][3:100].tolist()


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(
    filled: str, tmp_path: Path
) -> None:
    file = tmp_path / "bars.csv"
    file.write_text("mine")
    words = ["store", "export", FQME, "--out", str(file), "--store", filled]
    assert "--force replaces it" in told_once(invoke(*words), failures.USAGE)
    assert file.read_text() == "mine"
    assert invoke(*words, "--force").returncode == failures.OK
    assert file.read_text().count("\n") == 91
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_a_file_that_another_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    whole = whole_file(file, force=False)
    whole.__enter__().write(b"ours")
    file.write_text("theirs")
    with pytest.raises(FileExistsError):
        whole.__exit__(None, None, None)
    assert file.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_pyarrow_is_told_with_the_extra_that_has_it(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = invoke(
        "store", "export", FQME, "--format", "parquet",
        "--out", str(tmp_path / "x"), "--store", filled,
    )  # fmt: skip
    assert "pip install 'piker-core[store]'" in told_once(done, failures.MACHINE)
    assert [path.name for path in tmp_path.iterdir()] == ["bars"]


def test_an_export_that_fails_leaves_no_file(filled: str, tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    (path,) = Path(filled.removeprefix("parquet://")).rglob(f"*{FQME}/**/*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:200] + b"damaged!" + content[208:])
    words = ["store", "export", FQME, "--out", str(file), "--store", filled]
    assert str(path) in told_once(invoke(*words), failures.MACHINE)
    missing = [*words[:4], str(tmp_path / "nowhere" / "x.csv"), *words[5:]]
    assert "No such file" in told_once(invoke(*missing), failures.MACHINE)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bars"]
