"""What fuzzing does with texts that may be Binance's: frames, and bodies of answers."""

import atheris
import msgspec

import piker_core as pk
from piker_core.adapter.answers import Reply
from providers.binance import answers, markets, wire
from providers.binance.rest import SPOT_SITE

NUMBERS = (b'"61837.63000000"', b'"1e-8"', b'"0"', b'"-0.0"', b'"-1"', b'"nan"')
NUMBERS += (b'"inf"', b'"5e-324"', b'"1e308"', b"2.5", b'""')
IDS = (b"7", b"8", b"0", b"-1", b"9223372036854775807", b"18446744073709551615")
TIMES = (b"1732320001123", b"1732320001123456", b"0", b"-1", b"9999999999999999")
ODD = (b"null", b"true", b"[]", b"{}", b"1e999", b"1" * 30, b"1.5", b'"x"')
SYMBOLS = (b'"XBTUSD"', b'""', b'"\\ud800"', b'"' + b"x" * 300 + b'"')
_TRADE = {b"s": SYMBOLS, b"p": NUMBERS, b"q": NUMBERS, b"T": TIMES}
_TRADE |= {b"m": (b"true", b"false")}
FIELDS = {
    b"trade": {b"t": IDS} | _TRADE,
    b"aggTrade": {b"a": IDS, b"f": IDS, b"l": IDS} | _TRADE,
    b"bookTicker": {b"u": IDS, b"s": SYMBOLS, b"T": TIMES}
    | dict.fromkeys((b"b", b"B", b"a", b"A"), NUMBERS),
}
DECODERS = (
    answers.decode_trades,
    answers.decode_aggregates,
    answers.decode_first_id,
    answers.decode_klines,
    answers.decode_prices,
    answers.decode_books,
    answers.decode_server_time,
    markets.decode_statuses,
)


def built_frame(choices: bytes) -> bytes:
    """A frame of the right shape, its values plausible or hostile."""
    source = atheris.FuzzedDataProvider(choices)
    kind = source.PickValueInList(list(FIELDS))
    fields = []
    for name, values in FIELDS[kind].items():
        odd = source.ConsumeIntInRange(0, 31) == 31
        value = source.PickValueInList(list(ODD if odd else values))
        fields.append(b'"%b":%b' % (name, value))
    return b'{"stream":"xbtusd@%b","data":{%b}}' % (kind, b",".join(fields))


def try_frame(raw: bytes, engine: pk.FeedEngine, now_ns: int) -> None:
    """What the stream does with a frame."""
    try:
        frame = wire.decode_frame(raw)
        if isinstance(frame, (wire.Trade, wire.Aggregate)):
            engine.push(wire.normalize_trade("xbtusd", frame))
        elif isinstance(frame, wire.Best):
            engine.push(wire.normalize_best("xbtusd", frame, None, now_ns))
    except (pk.PikerError, ValueError):
        return


def try_answer(raw: bytes) -> None:
    """What the client does with a body, whatever was asked for."""
    reply = Reply(msgspec.Raw(raw), raw, "http://127.0.0.1", "fuzz", SPOT_SITE)
    for decode in DECODERS:
        try:
            decode(reply)
        except pk.ProviderError:
            continue
    for contracts in (False, True):
        try:
            markets.decode_table(reply, contracts=contracts)
        except pk.ProviderError:
            continue
