"""Coverage-guided fuzzing of what reads text from outside, with atheris.

    python -m tests.fuzz.texts TARGET -max_total_time=60 tests/fuzz/seeds/TARGET

`frames`: WebSocket frames of Kraken and Binance through decode, normalize and the
engine; `answers`: bodies of their REST calls; `config`: configuration files; `journal`:
segments of journals; `orders`: bytes at the order gateway's socket, and requests and
messages of brokers in any order. Only documented errors may come out: anything else
ends the run with the input that did it.
"""

import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports(include=["piker_core", "providers"]):
    import piker_core as pk
    from piker_core.adapter.rest import Reply
    from piker_core.config import load_section
    from piker_core.journal import Kind, decode_answer, read_journal
    from piker_core.journal.layout import BLOCK, CRC, Header, encode_header
    from providers.kraken import answers, wire
    from providers.kraken.api import Config
    from providers.kraken.rest import SITE
    from tests.fuzz import binance_texts, order_turns

NAMESPACE = f"fuzz{os.getpid()}"
NOW_NS = 1_732_320_000 * 10**9


def open_fuzzed_engine() -> tuple[pk.FeedEngine, pk.Market]:
    """Rings of this process, which nobody else reads."""
    engine = pk.open_engine("kraken", namespace=NAMESPACE, tick_capacity=64)
    market = engine.add_market("xbtusd.kraken", capacity={1: 256, 60: 256})
    market.set_status("live")
    return engine, market


TEXTS = (
    b'"BTC/USD"',
    b'"buy"',
    b'"sell"',
    b'""',
    b'"\\ud800"',
    b'"' + b"x" * 300 + b'"',
)
TIMES = (
    b'"2024-11-23T00:00:01.123456Z"',
    b'"2024-11-23T00:00:01Z"',
    b'"2024-02-30T25:61:61.5Z"',
    b'"0001-01-01T00:00:00Z"',
    b'"9999-12-31T23:59:59.999999999Z"',
    b'"2024-11-23T00:00:01.+1234Z"',
    b'""',
)
NUMBERS = (b"60000.1", b"1e-8", b"0", b"-0.0", b"-1", b"5e-324", b"1e308", b"2.5")
IDS = (b"7", b"8", b"0", b"-1", b"9223372036854775807", b"-9223372036854775808")
ODD = (b"null", b"true", b"[]", b"{}", b"1e999", b"18446744073709551616", b"1.5", b'""')
FIELDS = {
    "trade": {
        "symbol": TEXTS,
        "side": TEXTS,
        "price": NUMBERS,
        "qty": NUMBERS,
        "trade_id": IDS,
        "timestamp": TIMES,
    },
    "ticker": dict.fromkeys(("bid", "bid_qty", "ask", "ask_qty", "last"), NUMBERS)
    | {"symbol": TEXTS, "timestamp": TIMES},
    "status": {"system": TEXTS, "version": TEXTS},
}


def built_frame(choices: bytes) -> bytes:
    """A frame of the right shape, its values plausible or hostile."""
    source = atheris.FuzzedDataProvider(choices)
    channel = source.PickValueInList(list(FIELDS))
    rows = []
    for _ in range(source.ConsumeIntInRange(1, 3)):
        fields = []
        for name, values in FIELDS[channel].items():
            odd = source.ConsumeIntInRange(0, 31) == 31
            value = source.PickValueInList(list(ODD if odd else values))
            fields.append(b'"%s":%s' % (name.encode(), value))
        rows.append(b"{%s}" % b",".join(fields))
    head = b'{"channel":"%s","type":"update","data":[' % channel.encode()
    return head + b",".join(rows) + b"]}"


def try_frame(raw: bytes) -> None:
    """What streams do with a frame; bytes after a 0 or 1 say how to build one."""
    if raw[:1] == b"\1":
        raw = binance_texts.built_frame(raw[1:])
    binance_texts.try_frame(raw, ENGINE[0], NOW_NS)
    raw = built_frame(raw[1:]) if raw[:1] == b"\0" else raw
    try:
        frame = wire.decode_frame(raw)
        if isinstance(frame, wire.TradeFrame) and frame.data:
            ENGINE[0].push(wire.normalize_trades("xbtusd", frame.data))
        elif isinstance(frame, wire.TickerFrame):
            before = None
            for row in frame.data:
                quote = wire.normalize_ticker("xbtusd", row, before, NOW_NS)
                ENGINE[0].push(quote)
                before = row
    except (pk.PikerError, ValueError):
        return


def try_answer(raw: bytes) -> None:
    """What REST clients do with the `result` of a body, whatever was asked for."""
    binance_texts.try_answer(raw)
    reply = Reply(msgspec.Raw(raw), raw, "http://127.0.0.1", "fuzz", SITE)
    for decode in (answers.decode_trades, answers.decode_ohlc, answers.decode_pairs):
        try:
            decode(reply)
        except pk.ProviderError:
            continue


def try_config(raw: bytes) -> None:
    """What a start does with a configuration file."""
    CONFIG.write_bytes(raw)
    try:
        load_section("kraken", Config, environ={"PIKER_CONFIG": str(CONFIG)})
    except pk.ConfigError:
        return


def try_journal(raw: bytes) -> None:
    """What a reader does with a segment, its checksums made right after a first byte 0.

    Whatever it is, what was read is whole records, and the end is known.
    """
    if raw[:1] == b"\0":
        raw = summed_segment(raw[1:])
    (JOURNAL / "00000000.journal").write_bytes(raw)
    with read_journal(JOURNAL) as reader:
        try:
            for record in reader:
                if record.kind == Kind.ANSWER:
                    decode_answer(record.body)
        except pk.JournalError:
            return
        assert reader.cut is None or reader.cut.cut_at <= len(raw)


def summed_segment(raw: bytes) -> bytes:
    """A segment with a good header and the right checksums of all its blocks."""
    found = encode_header(Header(0, 0, bytes(16), 0))
    while len(raw) >= BLOCK.size:
        stored = min(BLOCK.unpack_from(raw)[2], len(raw) - BLOCK.size)
        head, payload = raw[: BLOCK.size - 4], raw[BLOCK.size : BLOCK.size + stored]
        found += head + CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload
        raw = raw[BLOCK.size + stored :]
    return found + raw


ENGINE: tuple[pk.FeedEngine, pk.Market]
JOURNAL = Path(tempfile.mkdtemp(prefix="piker-fuzz-"))
CONFIG = Path(tempfile.gettempdir()) / f"piker-fuzz-{os.getpid()}.toml"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": try_frame,
    "answers": try_answer,
    "config": try_config,
    "journal": try_journal,
    "orders": order_turns.try_orders,
}


def fuzz() -> None:
    """Never returns: the fuzzer ends its process."""
    global ENGINE
    ENGINE = open_fuzzed_engine()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


def main() -> int:
    child = os.fork()
    if not child:
        fuzz()
    _, status = os.waitpid(child, 0)
    pk.remove_segments(NAMESPACE)
    CONFIG.unlink(missing_ok=True)
    shutil.rmtree(JOURNAL)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
