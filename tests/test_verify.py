"""`verify`: the same bars have the same digests, in rings and in a store."""

from pathlib import Path

import pytest

import piker_core as pk
from tests.commands import invoke, records, rings, told_once


def digests(*words: str) -> set[tuple[str, int, str, int, str]]:
    done = invoke("verify", *words, "--json")
    assert done.returncode == 0, done.stderr
    return {
        (each["market"], each["period"], each["day"], each["rows"], each["digest"])
        for each in records(done.stdout, "digest")
    }


def test_rings_and_a_store_of_their_rows_have_the_same_digests(
    namespace: str, tmp_path: Path
) -> None:
    url = f"parquet://{tmp_path}"
    with rings(namespace, seconds=130) as (_, market), pk.open_store(url) as store:
        for period in (1, 60):
            with pk.attach_bars(market.fqme, period=period) as bars:
                rows = bars.snapshot(bars.head - bars.first)[:-1]
                store.write_ohlcv(market.fqme, period, rows)
        of_rings = digests("--namespace", namespace)
    assert digests(url) == of_rings
    assert {each[:4] for each in of_rings} == {
        ("xbtusd.kraken", 1, "2020-09-13", 129),
        ("xbtusd.kraken", 60, "2020-09-13", 1),
    }


def test_a_changed_row_changes_the_digest_and_a_changed_flag_does_not(
    namespace: str, tmp_path: Path
) -> None:
    url = f"parquet://{tmp_path}"
    with rings(namespace, seconds=9) as (_, market), pk.open_store(url) as store:
        with pk.attach_bars(market.fqme) as bars:
            rows = bars.snapshot(8)
        store.write_ohlcv(market.fqme, 1, rows)
        before = digests(url)
        rows["flags"] |= int(pk.BarFlag.REVISED)
        assert store.write_ohlcv(market.fqme, 1, rows)
        assert digests(url) == before
        rows["volume"][3] += 1e-8
        store.write_ohlcv(market.fqme, 1, rows)
        assert digests(url) != before


def test_without_json_it_is_a_table(namespace: str) -> None:
    with rings(namespace):
        done = invoke("verify", "--namespace", namespace)
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["market", "period", "day", "rows", "digest"]
    assert [line.split()[:2] for line in lines] == [["xbtusd.kraken", "1"]]


@pytest.mark.parametrize("words", [(), ("parquet:///tmp", "--namespace", "ns")])
def test_it_wants_one_place(words: tuple[str, ...]) -> None:
    told = told_once(invoke("verify", *words), 2)
    assert "either the URL of a store or --namespace" in told


def test_where_there_are_no_bars_it_says_so(namespace: str) -> None:
    done = invoke("verify", "--namespace", namespace)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no bars" in done.stderr
