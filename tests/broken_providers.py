"""Providers with one thing wrong each: the skeleton, changed in a few words."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from piker_core.conformance.skeleton import write_provider

Change = tuple[str, str, str]
"""A file of the package, words in it, and what takes their place."""


class Broken(NamedTuple):
    """What is changed, the check that has to find it, and in what words."""

    what: str
    check: str
    text: str
    changes: Sequence[Change]


_CLIENT = "    async with get_client() as client:\n        feed = Feed("
_BARS = "        rows, first_s = await self._client.bars("
_BEGIN = "        begin, last = "
_URL = "    async def url(self)"
_TAKE = "        frame = decode_frame(raw)"
_ANSWER = "        self.requests[call.path] += 1"


def _method(*lines: str) -> Change:
    """The feed has a method more."""
    return ("feed.py", _URL, "".join(f"    {line}\n" for line in lines) + "\n" + _URL)


def _market(*lines: str) -> list[Change]:
    """The markets of the feed have a method of their own."""
    body = "".join(f"    {line}\n" for line in lines)
    kind = f"class OtherFeed(MarketFeed):\n{body}\n\nclass Feed(VenueFeed):"
    return [
        ("feed.py", "class Feed(VenueFeed):", kind),
        ("feed.py", "market = MarketFeed(", "market = OtherFeed("),
    ]


def _beforehand(*lines: str) -> Change:
    """Something is done before the stream begins."""
    return ("feed.py", _CLIENT, "".join(f"    {line}\n" for line in lines) + _CLIENT)


def _fault(line: str) -> Change:
    """The venue has a fault more."""
    words = "    def throttle(self"
    return ("venue_socket.py", words, f"    {line}\n\n{words}")


_NEVER_AGAIN = _method(
    "def lost(self, topics, cause, heard_ns):",
    "    self.patience_s = 1e9 if '(1001)' in cause else 0.0",
    "    super().lost(topics, cause, heard_ns)",
)


def _rows(*lines: str) -> Change:
    """Something is done to the rows of history."""
    return ("history.py", _BEGIN, "".join(f"        {x}\n" for x in lines) + _BEGIN)


CONTRACT = (
    Broken(
        "a function wants an argument that nobody gives",
        "contract.signatures",
        r"stream_quotes: missing a required argument: 'mood'",
        [("feed.py", "    loglevel: str | None = None,", "    mood: str,")],
    ),
    Broken(
        "a capability is told that is not there",
        "contract.capabilities",
        r"it says 'orders', but open_trade_dialog is missing",
        [("__init__.py", '"orders": False', '"orders": True')],
    ),
    Broken(
        "bars have other fields",
        "contract.names",
        r"the fields of its ohlc_dtype are start_ns",
        [("__init__.py", "import OHLCV_DTYPE as", "import GAP_DTYPE as")],
    ),
    Broken(
        "a market has no price step",
        "contract.markets",
        r"the price_tick of btcusd\S* is 0",
        [("api.py", "price_tick=row.price_step", "price_tick=Decimal(0)")],
    ),
    Broken(
        "a search finds everything",
        "contract.search",
        r"a search for nonsense finds",
        [("api.py", "if plain(pattern) in r.symbol]", "if pattern]")],
    ),
    Broken(
        "an unknown symbol is some market",
        "refusal.unknown",
        r"market of 'nosuchmarket9' is no error",
        [
            (
                "api.py",
                ".get(plain(name))",
                '.get(plain(name), MarketRow(*["A-B"] * 3, 1, 1))',
            )
        ],
    ),
    Broken(
        "an unknown symbol is a ProviderError",
        "refusal.unknown",
        r"raises ProviderError: .*not NotFound",
        [
            ("api.py", "raise NotFound(", "raise ProviderError("),
            ("api.py", "import NotFound", "import ProviderError"),
        ],
    ),
)
HISTORY = (
    Broken(
        "the forming row is one of history",
        "history.minutes",
        r"was still forming",
        [_rows("rows = rows[[*range(len(rows)), -1]]", 'rows["time"][-1] += period')],
    ),
    Broken(
        "history comes newest first",
        "history.seconds",
        r"the times of the rows do not rise",
        [_rows("rows = rows[::-1]")],
    ),
    Broken(
        "a row of history is not the venue's",
        "history.minutes",
        r"count \d+ instead of \d+",
        [_rows('rows["count"][3] += 1')],
    ),
    Broken(
        "the span that is asked for is not kept",
        "history.span",
        r"is outside the span",
        [("history.py", "if start_dt is not None:", "if start_dt is not None and 0:")],
    ),
    Broken(
        "an empty span has no rows and is no error",
        "history.empty",
        r"a span in the future has 0 rows",
        [
            ("history.py", "        if start_s >= end_s:", "        if 0:"),
            ("history.py", "        if not len(rows):", "        if 0:"),
            (
                "history.py",
                _BEGIN,
                "        if not len(rows):\n            return rows, end_dt, end_dt\n"
                + _BEGIN,
            ),
        ],
    ),
    Broken(
        "the limits that are told are not the venue's",
        "history.limits",
        r"at erlangs 50, rate 200",
        [
            (
                "history.py",
                '{"erlangs": 3, "rate": 5}\n',
                '{"erlangs": 50, "rate": 200}\n',
            ),
            ("api.py", "Positive = 10.0", "Positive = 1000.0"),
            ("api.py", "Count = 20", "Count = 1000"),
        ],
    ),
    Broken(
        "more calls are made at once than is told",
        "history.limits",
        r"\d calls at once, told were erlangs 3",
        [
            (
                "history.py",
                _BARS,
                "        async with trio.open_nursery() as many:\n"
                "            for _ in range(6):\n"
                "                many.start_soon(self._client.bars, self._row, 60, 0, 9)\n"
                + _BARS,
            ),
        ],
    ),
)
CALLS = (
    Broken(
        "a call too many is tried again like any other",
        "calls.throttled",
        r"is not told: no DataThrottle",
        [
            (
                "api.py",
                'Verdict("throttled", fault.text',
                'Verdict("transient", fault.text',
            )
        ],
    ),
    Broken(
        "the pause that a venue asks for is not kept",
        "calls.throttled",
        r"\d+ calls within a pause of 3\.0 s",
        [
            ("api.py", "wait_s=fault.wait_s)", "wait_s=0.01)"),
            (
                "history.py",
                _BARS,
                "        try:\n            await self._client.bars(self._row, 60, 0, 9)\n"
                "        except DataThrottle as error:\n"
                "            raise DataThrottle(str(error), retry_after=3.0) from None\n"
                + _BARS,
            ),
            (
                "history.py",
                "import DataUnavailable",
                "import DataThrottle, DataUnavailable",
            ),
        ],
    ),
    Broken(
        "an HTML page is an exception of a library's",
        "calls.html",
        r"DecodeError: .*, which is no PikerError",
        [
            (
                "api.py",
                "    fault = decode_body(answer, _Fault)",
                "    fault = msgspec.json.decode(answer.content, type=_Fault)",
            )
        ],
    ),
    Broken(
        "a busy venue is an exception of nobody's",
        "calls.unavailable",
        r"KeyError: 'unavailable', which is no PikerError",
        [
            (
                "api.py",
                'return Verdict("transient", fault.text)',
                "raise KeyError(fault.error)",
            )
        ],
    ),
    Broken(
        "clocks that are apart are not allowed for",
        "calls.skewed_clock",
        r"ProviderError.* when clocks are 2\.5 s apart",
        [_fault("def skew_clock(self, s): self._rest['html'] = 99 if s else 0")],
    ),
)
FEED = (
    Broken(
        "first quotes have no last price",
        "feed.first_quotes",
        r"the first quote of btcusd has no `last`",
        [("feed.py", '"last": ticker.last, "bid"', '"bid"')],
    ),
    Broken(
        "the last price is another market's",
        "feed.first_quotes",
        r"`last` of \w+ is \S+; it traded at",
        [("feed.py", '"last": ticker.last,', '"last": ticker.last * 3,')],
    ),
    Broken(
        "the live event is never set",
        "feed.live",
        r"feed_is_live was never set",
        [("feed.py", "feed_is_live=feed_is_live", "feed_is_live=trio.Event()")],
    ),
    Broken(
        "ticks have no time",
        "feed.quotes",
        r"a tick lacks time_ns",
        [("wire.py", '        "time_ns": row.time,\n', "")],
    ),
    Broken(
        "a high is wrong",
        "exact.seconds",
        r"btcusd 1 s \d\d:\d\d:\d\d: prices",
        [
            (
                "wire.py",
                '"price": row.price,',
                '"price": row.price + (row.id % 50 == 0),',
            )
        ],
    ),
    Broken(
        "sizes are cut",
        "exact.seconds",
        r"volume \S+ instead of",
        [("wire.py", '"size": row.size,', '"size": round(row.size, 3),')],
    ),
    Broken(
        "minutes are not made of all that was traded",
        "exact.minutes",
        r"btcusd 60 s.*(prices|count) .* instead of",
        [("venue_socket.py", "for rows in bursts:", "for rows in bursts[:1]:")]
        + _market("def notice_jumps(self, noticed_before_s): pass"),
    ),
)
LOSSES = (
    Broken(
        "a lost connection is not told of",
        "reconnect.cut",
        r"no status says that the connection is lost",
        [_method("def lost(self, topics, cause, heard_ns): pass")],
    ),
    Broken(
        "a loss is not put on record",
        "reconnect.cut",
        r"a gap is not repaired|no gap of \w+ is on record",
        _market("def _open_gap(self, start_ns, end_ns, cause): pass"),
    ),
    Broken(
        "a gap is made good and never said to be repaired",
        "reconnect.cut",
        r"a gap is not repaired",
        _market("def _close(self, gap): pass"),
    ),
    Broken(
        "a gap is said to be repaired and nothing was fetched",
        "reconnect.cut",
        r"(prices|count) .* instead of",
        _market(
            "async def fill(self, asked_ns, *, final):",
            "    list(map(self._close, self.gaps))",
            "    self.gaps.clear()",
            "    self.tracker.missing.clear()",
            "    return True",
        ),
    ),
    Broken(
        "a gap on record begins when it is noticed",
        "reconnect.half_open",
        r"the gap of btcusd on record begins \+[1-9]",
        _market(
            "def down(self, cause, heard_ns):",
            "    super().down(cause, time.time_ns())",
        )
        + [("feed.py", "import logging\n", "import logging\nimport time\n")],
    ),
    Broken(
        "rows are invented while the feed is down",
        "reconnect.cut",
        r"rows of btcusd are invented",
        _market(
            "def down(self, cause, heard_ns):",
            "    super().down(cause, heard_ns)",
            "    self.handle.set_status('stale')",
            "    self.host = self._host",
            "    trio.lowlevel.spawn_system_task(self.lie)",
            "",
            "async def lie(self):",
            "    await trio.sleep(0.1)",
            "    self.handle.set_status('live')",
        ),
    ),
    Broken(
        "a silent connection is waited for",
        "reconnect.half_open",
        r"the silence is not noticed",
        [_method("def look(self): pass")],
    ),
    Broken(
        "a subscription without an answer is waited for",
        "reconnect.silent_acks",
        r"a subscription without an answer is not tried again",
        [_method("def look(self): pass")],
    ),
    Broken(
        "a connection that was closed in order is not made again",
        "reconnect.closed",
        r"no new connection is made",
        [_NEVER_AGAIN],
    ),
    Broken(
        "a connection that has lived its life is not made again",
        "reconnect.rotation",
        r"no new connection is made",
        [_NEVER_AGAIN, _fault("def rotate(self): return self.close()")],
    ),
    Broken(
        "a venue that goes away is not come back to",
        "reconnect.shutdown",
        r"no 3 further rows were appended",
        [_NEVER_AGAIN, _fault("def shutdown(self, seconds): return self.close()")],
    ),
    Broken(
        "the time between two feeds is not made good",
        "reconnect.restart",
        r"a gap is not repaired|is not on record",
        _market("def _newest_row_ns(self): return 0"),
    ),
)
FRAMES = (
    Broken(
        "trades that come twice count twice",
        "frames.repeated",
        r"count \d+ instead of \d+",
        [("wire.py", '"id": row.id,', '"id": row.id * 64 + next(NUMBERS),')]
        + [("wire.py", "Quote = dict", "NUMBERS = cycle(range(64))\nQuote = dict")]
        + [
            (
                "wire.py",
                "import msgspec\n",
                "import msgspec\nfrom itertools import cycle\n",
            )
        ]
        + _market(
            "def notice_jumps(self, noticed_before_s): pass",
            "def close_gaps(self, asked_ns, newest_id, *, final):",
            "    self.tracker.missing.clear()",
            "    return super().close_gaps(asked_ns, 1 << 62, final=final)",
        ),
    ),
    Broken(
        "lost messages are not noticed",
        "frames.lost",
        r"lost messages are not on record",
        _market("def notice_jumps(self, noticed_before_s): pass"),
    ),
    Broken(
        "a broken message is the end of the process",
        "frames.malformed",
        r"the provider's process ended with code 3",
        [
            (
                "wire.py",
                "        raise ProviderError(f",
                "        import os\n        os._exit(3)\n        raise ProviderError(f",
            )
        ],
    ),
    Broken(
        "a broken message is the end of a market",
        "frames.malformed",
        r"btcusd is stopped by a broken message",
        [("feed.py", "if market and frame.trades:", "if market:")],
    ),
    Broken(
        "broken messages are not counted",
        "frames.counted",
        r"none of 10 broken messages is counted",
        [
            (
                "feed.py",
                "        self.client = client\n",
                "        self.client = client\n"
                "        self.complain = self.stream.complain = lambda *what: None\n",
            )
        ],
    ),
    Broken(
        "one refused market is the end of all",
        "refusal.market",
        r"the markets are not live again",
        [
            (
                "feed.py",
                '        return str(topic).partition(":")[2]',
                "        return None",
            )
        ],
    ),
    Broken(
        "maintenance is not told of",
        "venue.maintenance",
        r"the markets stay live in maintenance",
        [("feed.py", "self.set_trading(", "str(")],
    ),
    Broken(
        "late trades are thrown away",
        "frames.disordered",
        r"(prices|count|volume) .* instead of",
        _market(
            "async def take(self, rows, *, repeated=False):",
            "    rows = [r for r in rows if r.time >= self.handle.last_time_ns]",
            "    if rows:",
            "        await super().take(rows)",
            "",
            "def notice_jumps(self, noticed_before_s): pass",
        ),
    ),
    Broken(
        "messages that are lost in a storm are not noticed",
        "storm.all",
        r"(prices|count|volume) .* instead of",
        _market("def notice_jumps(self, noticed_before_s): pass"),
    ),
    Broken(
        "live data wait for the repair",
        "repair.patient",
        r"the markets were not live before|a gap is not repaired",
        _market(
            "def _say_live(self, since_ns=None):",
            "    if not self.gaps: super()._say_live(since_ns)",
            "",
            "async def fill(self, asked_ns, *, final):",
            "    done = await super().fill(asked_ns, final=final)",
            "    self._say_live()",
            "    return done",
        ),
    ),
    Broken(
        "a repair that meets trouble is given up",
        "repair.troubled",
        r"a gap is not repaired",
        _market(
            "async def fill(self, asked_ns, *, final):",
            "    try:",
            "        return await super().fill(asked_ns, final=final)",
            "    except Exception as error:",
            "        self.give_up(str(error))",
            "        return True",
        ),
    ),
)
ENDS = (
    Broken(
        "a socket stays open",
        "shutdown.leaks",
        r"left open: descriptors: socket",
        [_beforehand("import socket", "KEPT.append(socket.socket())")]
        + [("feed.py", "class Feed(", "KEPT = []\n\n\nclass Feed(")],
    ),
    Broken(
        "a thread goes on",
        "shutdown.leaks",
        r"left open: threads: forever",
        [
            _beforehand(
                "import threading",
                "wait = threading.Event().wait",
                "threading.Thread(target=wait, name='forever', daemon=True).start()",
            )
        ],
    ),
    Broken(
        "a task goes on",
        "shutdown.leaks",
        r"left open: tasks: \S*sleep_forever",
        [_beforehand("trio.lowlevel.spawn_system_task(trio.sleep_forever)")],
    ),
    Broken(
        "cancellation is put off",
        "shutdown.cancellation",
        r"it took [34]\.\d s, allowed are 3",
        [
            (
                "feed.py",
                "        await run_feed(",
                "        async def linger():\n"
                "            with trio.CancelScope(shield=True):\n"
                "                await trio.sleep(3.5)\n"
                "        try:\n          await run_feed(",
            ),
            (
                "feed.py",
                "            task_status=task_status,\n        )\n",
                "            task_status=task_status,\n          )\n"
                "        finally:\n            await linger()\n",
            ),
        ],
    ),
    Broken(
        "the event loop is held",
        "shutdown.resources",
        r"nothing else runs for so long",
        [_beforehand("import time", "time.sleep(2.2)")],
    ),
    Broken(
        "memory is eaten",
        "shutdown.resources",
        r"more than 64 MiB",
        [_beforehand("KEPT.append(b'x' * (80 << 20))")]
        + [("feed.py", "class Feed(", "KEPT = []\n\n\nclass Feed(")],
    ),
)
BROKEN = (*CONTRACT, *HISTORY, *CALLS, *FEED, *LOSSES, *FRAMES, *ENDS)


def make_provider(name: str, folder: Path, changes: Sequence[Change]) -> None:
    """Write the skeleton with these changes, so that it can be imported."""
    write_provider(name, folder)
    root = folder / name
    for file, words, other in changes:
        path = root / name / file
        text = path.read_text()
        assert words in text, f"{file} has no {words!r}"
        path.write_text(text.replace(words, other, 1))
    sys.path.append(str(root))
