"""TWS's frames and messages, recorded ones too, without a socket."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ib_async
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.ib import codec
from providers.ib.config import Config
from providers.ib.contracts import describe, read_rule

Told = list[tuple[str, tuple[Any, ...]]]


def framed(*fields: object) -> bytes:
    return codec.pack("".join(f"{field}\0" for field in fields).encode())


def read(*messages: str, version: int = 178) -> Told:
    """What some messages tell; `|` stands for the NUL between fields."""
    told: Told = []
    inbox = codec.Inbox(lambda name, arguments: told.append((name, arguments)))
    reader = codec.Reader(inbox, version)
    for message in messages:
        fields = message.replace("|", "\0").split("\0")
        reader.interpret(fields[:-1] if fields[-1] == "" else fields)
    return told


def test_the_first_words_name_the_versions_we_read() -> None:
    assert codec.hello() == b"API\0\0\0\0\x09v157..178"


@given(st.lists(st.integers(1, 9), max_size=20), st.randoms())
def test_frames_may_be_cut_anywhere(sizes: list[int], rng: Any) -> None:
    frames = [["x" * size, str(size)] for size in sizes]
    stream = b"".join(framed(*fields) for fields in frames)
    reader, found = codec.Frames(), []
    while stream:
        cut = rng.randint(1, len(stream))
        found += list(reader.feed(stream[:cut]))
        stream = stream[cut:]
    assert found == frames


def test_a_length_that_no_frame_has_breaks_the_framing() -> None:
    reader = codec.Frames()
    good = framed("49", "1", "17")
    with pytest.raises(codec.BrokenFraming, match="2147483647"):
        list(reader.feed(good + b"\x7f\xff\xff\xff4\0"))


def test_odd_bytes_and_missing_ends_are_still_fields() -> None:
    reader = codec.Frames()
    assert list(reader.feed(codec.pack(b"4\0\xff\xfe\0"))) == [["4", "\\xff\\xfe"]]
    assert list(reader.feed(codec.pack(b"49\x001"))) == [["49", "1"]]
    assert list(reader.feed(codec.pack(b""))) == [[]]


def test_messages_are_told_by_the_names_of_ib_asyncs_wrapper() -> None:
    told = read(
        "1|6|7|1|185.5|100|0|",
        "2|6|7|8|4321|",
        "46|6|7|48|100.1;1;1795444320123;4321;100.05;true|",
        "99|7|2|1678740829|3895.25|7|2|NASDAQ| I|",
        "4|2|-1|2104|Market data farm connection is OK:usfarm||",
    )
    assert told[0] == ("priceSizeTick", (7, 1, 185.5, 100.0))
    assert told[1] == ("tickSize", (7, 8, 4321.0))
    assert told[2][1][:2] == (7, 48)
    name, arguments = told[3]
    assert name == "tickByTickAllLast" and arguments[:5] == (
        7,
        2,
        1678740829,
        3895.25,
        7,
    )
    assert arguments[5].unreported and not arguments[5].pastLimit
    assert told[4][1][:2] == (-1, 2104)


def test_unset_numbers_are_none_of_ours() -> None:
    ((_, arguments),) = read("2|6|7|5||")
    assert arguments == (7, 5, 0.0)


@pytest.mark.parametrize(
    "message",
    ["1|6|", "1|6|7|4|high|many|0|", "haiku|1|", ""],
)
def test_what_does_not_fit_is_malformed(message: str) -> None:
    with pytest.raises(codec.Malformed):
        read(message)


def test_a_number_that_nobody_knows_is_unknown() -> None:
    with pytest.raises(codec.Unknown, match="250"):
        read("250|1|weather|")


def test_more_fields_than_known_are_ignored_where_a_message_is_a_list() -> None:
    ((name, arguments),) = read("49|1|1700000000|and|more|")
    assert (name, arguments) == ("currentTime", (1700000000,))


def test_requests_are_written_as_the_version_has_them() -> None:
    written: list[bytes] = []
    requests = codec.Requests(written.append, 178)
    requests.start(5)
    contract = ib_async.Contract(conId=265598, exchange="SMART")
    requests.reqMktData(1, contract, "233", False, False, [])
    requests.reqTickByTickData(2, contract, "AllLast", 0, False)
    texts = [frame[4:].decode().split("\0") for frame in written]
    assert [struct.unpack(">I", f[:4])[0] for f in written] == [
        len(f) - 4 for f in written
    ]
    assert texts[0] == ["71", "2", "5", "", ""]
    assert len(texts[1]) - 1 == 20 and texts[1][16] == "233"
    assert texts[2][:3] == ["97", "2", "265598"] and texts[2][14] == "AllLast"


def test_recorded_messages_are_read_or_refused_one_by_one(captures: Path) -> None:
    path = captures / "ib" / "wire_messages.jsonl"
    read_well = 0
    for line in path.read_text().splitlines():
        message = json.loads(line)["message"]
        try:
            read_well += bool(read(message))
        except (codec.Malformed, codec.Unknown):
            continue  # other versions, requests, and what never was a message
    assert read_well > 50


def test_recorded_details_become_listings(captures: Path) -> None:
    path = captures / "ib" / "wire_messages.jsonl"
    symbols = {}
    for line in path.read_text().splitlines():
        message = json.loads(line)["message"]
        if not message.startswith("10\0900") or "|BOND|" in message.replace("\0", "|"):
            continue
        try:
            ((_, (_, row)),) = read(message)
        except codec.Malformed:
            continue
        listing = describe("x.y", row, (), Config(), 178)
        symbols[row.contract.symbol] = listing
    assert {"TSLA", "ES"} <= symbols.keys()
    future = symbols["ES"]
    assert str(future.price_tick) == "0.25" and future.multiplier == 50
    assert future.expiry == "20250620"
    saturday_ns = 1_748_088_000 * 10**9
    assert not future.hours("trading").is_open(saturday_ns)
    assert future.hours("trading").is_open(saturday_ns - 2 * 86400 * 10**9)


def test_a_recorded_market_rule_has_its_steps(captures: Path) -> None:
    ((_, (number, increments)),) = read("93|26|3|0|0.01|100|0.05|1000|0.1|")
    assert number == 26
    assert [str(size) for _, size in read_rule(increments)] == ["0.01", "0.05", "0.1"]


LAZY = """
import sys
import providers.ib, piker_core
assert "ib_async" not in sys.modules and "eventkit" not in sys.modules
sys.modules["ib_async"] = None
import importlib.util, trio
real = importlib.util.find_spec
hide = lambda name, *more: None if name == "ib_async" else real(name, *more)
importlib.util.find_spec = hide
async def main():
    async with providers.ib.get_client(providers.ib.Config()):
        raise AssertionError
try:
    trio.run(main)
except piker_core.PikerError as error:
    print(error)
"""


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == (
        "the provider ib needs ib_async: pip install 'piker-core[ib]'"
    ), done.stderr


THREADS = """
import sys, threading
import trio
import providers.ib
from providers.ib.venue import open_venue
class Where:
    seen = []
    def find_spec(self, name, path=None, target=None):
        if name == "ib_async.wrapper":
            self.seen.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Where())
async def main():
    async with open_venue(contracts=["AAPL"], history_s=10.0) as venue:
        config = providers.ib.Config(port=venue.port)
        async with providers.ib.get_client(config) as client:
            await client.listing("aapl.nasdaq.ib")
trio.run(main)
print(Where.seen)
"""


def test_the_library_is_imported_in_a_thread_and_holds_no_loop() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["[False]"], done.stderr
