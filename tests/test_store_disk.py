"""The Parquet store on disks that are full, fail or cannot be written."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import piker_core as pk
from tests.mounted import run_mounted, small, unwritable
from tests.store_places import FQME, files
from tests.store_rows import FEB_S, JAN_S, bars, check_same

pytest.importorskip("pyarrow")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/bars"


# ---- the disk ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    url: str, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    real: Callable[..., object] = getattr(os, name)

    def fail(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] > number * (2 if name == "fsync" else 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    old, new = bars([FEB_S - 60, FEB_S]), bars([FEB_S - 60, FEB_S], 1)
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, old)
        before = files(url)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(pk.StoreError, match="No space left") as said:
                store.write_ohlcv(FQME, 60, new)
        assert FQME in str(said.value)
        assert files(url) == before
        rows = store.read_ohlcv(FQME, 60)
        check_same(rows, np.concatenate([new[:number], old[number:]]))
        assert store.write_ohlcv(FQME, 60, new) == 2 - number


def test_a_batch_is_on_disk_before_it_is_acknowledged(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What power loss cannot undo: synced content, names in synced folders."""
    loose: set[str] = set()
    names: dict[int, str] = {}

    def opened(path: Path, *arguments: int, real: Any = os.open) -> int:
        file: int = real(path, *arguments)
        names[file] = str(path)
        if arguments[0] & os.O_CREAT:
            loose.add(f"content of {path}")
        return file

    def synced(file: int, real: Any = os.fsync) -> None:
        real(file)
        loose.discard(f"content of {names[file]}")
        for name in [name for name in loose if name.startswith("name of ")]:
            if str(Path(name.removeprefix("name of ")).parent) == names[file]:
                loose.discard(name)

    def replaced(origin: Path, target: Path, real: Any = os.replace) -> None:
        assert f"content of {origin}" not in loose
        real(origin, target)
        loose.add(f"name of {target}")

    def made(path: Path, *arguments: int, real: Any = os.mkdir) -> None:
        real(path, *arguments)
        loose.add(f"name of {path}")

    calls = {"open": opened, "fsync": synced, "replace": replaced, "mkdir": made}
    for name, call in calls.items():
        monkeypatch.setattr(os, name, call)
    with pk.open_store(url) as store:
        for times in ([JAN_S], [FEB_S - 60, FEB_S], [FEB_S + 366 * 86_400]):
            assert store.write_ohlcv(FQME, 60, bars(times)) == len(times)
            assert loose == set()
        store.write_ohlcv(FQME, 1, bars([JAN_S]))
        assert loose == set()
        (path,) = [path for path in files(url) if path.stem == "2024-01"]
        loose.add(f"name of {path}")  # by a writer that has died
        assert store.write_ohlcv(FQME, 60, bars([JAN_S])) == 0
        assert loose == set()
    assert {path.stem for path in files(url)} == {
        *("2024-01", "2024-01-01", "2024-02", "2025-02")
    }


FILL = """
import sys
from pathlib import Path
import numpy as np
import piker_core as pk
from tests.store_rows import JAN_S, bars, check_same, every
root = Path(sys.argv[1])
(root / "ballast").write_bytes(bytes(400_000))
with pk.open_store(f"parquet://{root}") as store:
    done = 0
    try:
        while True:
            store.write_ohlcv("a.kraken", 60, bars(every(JAN_S + 24_000 * done, 400)))
            done += 1
    except pk.StoreError as error:
        assert str(root) in str(error) and "space" in str(error), error
    held = bars(every(JAN_S, 400 * done))
    check_same(store.read_ohlcv("a.kraken", 60, None, JAN_S + 24_000 * done), held)
    (root / "ballast").unlink()
    assert store.write_ohlcv("a.kraken", 60, bars(every(JAN_S, 400 * done + 400))) >= 0
    check_same(store.read_ohlcv("a.kraken", 60), bars(every(JAN_S, 400 * done + 400)))
    assert not [path for path in root.rglob("*") if path.suffix == ".tmp"]
sys.stdout.write(str(done))
"""

READ = """
import sys
import piker_core as pk
from tests.store_rows import FEB_S, JAN_S, bars, check_same
with pk.open_store(f"parquet://{sys.argv[1]}") as store:
    check_same(store.read_ohlcv("a.kraken", 60), bars([JAN_S]))
    assert len(store.series()) == 1
    for fqme in ("a.kraken", "b.kraken"):
        try:
            store.write_ohlcv(fqme, 60, bars([FEB_S]))
        except pk.StoreError as error:
            assert sys.argv[1] in str(error) and "Read-only" in str(error), error
        else:
            sys.exit("written")
    check_same(store.read_ohlcv("a.kraken", 60), bars([JAN_S]))
"""


def test_a_full_disk_loses_nothing_and_room_mends_it(tmp_path: Path) -> None:
    assert int(run_mounted(small(tmp_path, "1500k"), FILL, tmp_path)) >= 3


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    with pk.open_store(f"parquet://{tmp_path}") as store:
        store.write_ohlcv("a.kraken", 60, bars([JAN_S]))
    run_mounted(unwritable(tmp_path), READ, tmp_path)
