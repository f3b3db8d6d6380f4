"""What can be wrong with a provider's feed."""

from tests.broken_providers import (
    a_fault,
    a_market,
    a_method,
    at_start,
    before,
    broken,
)

DEAF = a_market("def notice_jumps(self, noticed_before_s): pass")
FORSAKEN = a_method(
    "def lost(self, topics, cause, heard_ns):",
    "    self.patience_s = 1e9 if '(1001)' in cause else 0.0",
    "    super().lost(topics, cause, heard_ns)",
)
UNEQUAL = r"(prices|count|volume) .* instead of"

FEED = (
    broken(
        "first quotes have no last price",
        "feed.first_quotes",
        r"the first quote of btcusd has no `last`",
        ("feed.py", '"last": ticker.last, "bid"', '"bid"'),
    ),
    broken(
        "the last price is another market's",
        "feed.first_quotes",
        r"`last` of \w+ is \S+; it traded at",
        ("feed.py", '"last": ticker.last,', '"last": ticker.last * 3,'),
    ),
    broken(
        "the live event is never set",
        "feed.live",
        r"feed_is_live was never set",
        ("feed.py", "feed_is_live=feed_is_live", "feed_is_live=trio.Event()"),
    ),
    broken(
        "some ticks have no price",
        "feed.quotes",
        r"a tick lacks price",
        before(
            "wire.py",
            "    quote: Quote = {",
            "ticks = [tick | {'price': None} for tick in ticks]",
            indent=4,
        ),
    ),
    broken(
        "a high is wrong",
        "exact.seconds",
        r"btcusd 1 s \d\d:\d\d:\d\d: prices",
        ("wire.py", '"price": row.price,', '"price": row.price + (row.id % 50 == 0),'),
    ),
    broken(
        "sizes are cut",
        "exact.seconds",
        r"volume \S+ instead of",
        ("wire.py", '"size": row.size,', '"size": round(row.size, 3),'),
    ),
    broken(
        "minutes are not made of all that was traded",
        "exact.minutes",
        r"btcusd 60 s.*(prices|count) .* instead of",
        ("venue_socket.py", "for rows in bursts:", "for rows in bursts[:1]:"),
        DEAF,
    ),
)
LOSSES = (
    broken(
        "a lost connection is not told of",
        "reconnect.cut",
        r"no status says that the connection is lost",
        a_method("def lost(self, topics, cause, heard_ns): pass"),
    ),
    broken(
        "a loss is not put on record",
        "reconnect.cut",
        r"a gap is not repaired|no gap of \w+ is on record",
        a_market(
            "def _open_gap(self, start_ns, end_ns, cause): pass",
            "def notice_jumps(self, noticed_before_s): pass",
        ),
    ),
    broken(
        "a gap is made good and never said to be repaired",
        "reconnect.cut",
        r"a gap is not repaired",
        a_market("def _close(self, gap): pass"),
    ),
    broken(
        "a gap is said to be repaired and nothing was fetched",
        "reconnect.cut",
        UNEQUAL,
        a_market(
            "async def fill(self, asked_ns, *, final):",
            "    list(map(self._close, self.gaps))",
            "    self.gaps.clear()",
            "    self.tracker.missing.clear()",
            "    return True",
        ),
    ),
    broken(
        "a gap on record begins when it is noticed",
        "reconnect.half_open",
        r"the gap of btcusd on record begins \+[1-9]",
        a_market(
            "def down(self, cause, heard_ns):",
            "    super().down(cause, time.time_ns())",
        ),
        ("feed.py", "import logging\n", "import logging\nimport time\n"),
    ),
    broken(
        "rows are invented while the feed is down",
        "reconnect.cut",
        r"rows of \w+ are invented",
        a_market(
            "def down(self, cause, heard_ns):",
            "    super().down(cause, heard_ns)",
            "    trio.lowlevel.spawn_system_task(self.lie)",
            "",
            "async def lie(self):",
            "    await trio.sleep(0.4)",
            "    for _ in range(30):",
            "        self.handle.set_status('live')",
            "        await trio.sleep(0.05)",
        ),
    ),
    broken(
        "a silent connection is waited for",
        "reconnect.half_open",
        r"the silence is not noticed",
        a_method("def look(self): pass"),
    ),
    broken(
        "a subscription without an answer is waited for",
        "reconnect.silent_acks",
        r"a subscription without an answer is not tried again",
        a_method("def look(self): pass"),
    ),
    broken(
        "a connection that was closed in order is not made again",
        "reconnect.closed",
        r"no new connection is made",
        FORSAKEN,
    ),
    broken(
        "a connection that has lived its life is not made again",
        "reconnect.rotation",
        r"no new connection is made",
        FORSAKEN,
        a_fault("def rotate(self): return self.close()"),
    ),
    broken(
        "a venue that goes away is not come back to",
        "reconnect.shutdown",
        r"no 3 further rows were appended",
        FORSAKEN,
        a_fault("def shutdown(self, seconds): return self.close()"),
    ),
    broken(
        "the time between two feeds is not made good",
        "reconnect.restart",
        rf"a gap is not repaired|is not on record|{UNEQUAL}",
        a_market("def _newest_row_ns(self): return 0"),
    ),
)
TWICE = broken(
    "trades that come twice count twice",
    "frames.repeated",
    r"count \d+ instead of \d+",
    ("wire.py", '"id": row.id,', '"id": row.id * 64 + next(NUMBERS),'),
    ("wire.py", "Quote = dict", "NUMBERS = cycle(range(64))\nQuote = dict"),
    ("wire.py", "import msgspec\n", "import msgspec\nfrom itertools import cycle\n"),
    a_market(
        "def notice_jumps(self, noticed_before_s): pass",
        "def close_gaps(self, asked_ns, newest_id, *, final):",
        "    self.tracker.missing.clear()",
        "    return super().close_gaps(asked_ns, 1 << 62, final=final)",
    ),
)
LATE = broken(
    "late trades are thrown away",
    "frames.disordered",
    UNEQUAL,
    a_market(
        "async def take(self, rows, *, repeated=False):",
        "    rows = [r for r in rows if r.time >= self.handle.last_time_ns]",
        "    if rows:",
        "        await super().take(rows)",
        "",
        "def notice_jumps(self, noticed_before_s): pass",
    ),
)
DEAF_TO_THE_PAST = broken(
    "trades from before the connection are thrown away",
    "replay.cut",
    r", without faults open ",
    a_market(
        "def up(self, now_ns):",
        "    self.begun_ns = now_ns",
        "    super().up(now_ns)",
        "",
        "async def take(self, rows, *, repeated=False):",
        "    rows = [r for r in rows if r.time >= self.begun_ns]",
        "    if rows:",
        "        await super().take(rows)",
    ),
)
FRAMES = (
    TWICE,
    LATE,
    broken(
        "lost messages are not noticed",
        "frames.lost",
        r"lost messages are not on record",
        DEAF,
    ),
    broken(
        "trades that come twice in a storm count twice",
        "storm.all",
        UNEQUAL,
        list(TWICE.changes),
    ),
    broken(
        "a broken message is the end of the process",
        "frames.malformed",
        r"the provider's process ended with code 3",
        before("wire.py", "        raise ProviderError(f", "import os", "os._exit(3)"),
    ),
    broken(
        "a broken message is the end of a market",
        "frames.malformed",
        r"btcusd is stopped by a broken message",
        ("feed.py", "if market and frame.trades:", "if market:"),
    ),
    broken(
        "broken messages are not counted",
        "frames.counted",
        r"none of 10 broken messages is counted",
        before(
            "feed.py",
            "        self.client = client\n",
            "self.complain = self.stream.complain = lambda *what: None",
        ),
    ),
    broken(
        "live data wait for the repair",
        "repair.patient",
        r"the markets were not live before|a gap is not repaired",
        a_market(
            "def _say_live(self, since_ns=None):",
            "    if not self.gaps: super()._say_live(since_ns)",
            "",
            "async def fill(self, asked_ns, *, final):",
            "    done = await super().fill(asked_ns, final=final)",
            "    self._say_live()",
            "    return done",
        ),
    ),
    broken(
        "a repair that meets trouble is given up",
        "repair.troubled",
        r"a gap is not repaired",
        a_market(
            "async def fill(self, asked_ns, *, final):",
            "    try:",
            "        return await super().fill(asked_ns, final=final)",
            "    except Exception as error:",
            "        self.give_up(str(error))",
            "        return True",
        ),
    ),
    broken(
        "one refused market is the end of all",
        "refusal.market",
        r"the markets are not live again",
        (
            "feed.py",
            '        return str(topic).partition(":")[2]',
            "        return None",
        ),
    ),
    broken(
        "maintenance is not told of",
        "venue.maintenance",
        r"the markets stay live in maintenance",
        ("feed.py", "self.set_trading(", "str("),
    ),
)
ENDS = (
    broken(
        "a socket stays open",
        "shutdown.leaks",
        r"left open: descriptors: socket",
        at_start("import socket", "KEPT.append(socket.socket())"),
    ),
    broken(
        "a thread goes on",
        "shutdown.leaks",
        r"left open: threads: forever",
        at_start(
            "import threading",
            "wait = threading.Event().wait",
            "threading.Thread(target=wait, name='forever', daemon=True).start()",
        ),
    ),
    broken(
        "a task goes on",
        "shutdown.leaks",
        r"left open: tasks: \S*sleep_forever",
        at_start("trio.lowlevel.spawn_system_task(trio.sleep_forever)"),
    ),
    broken(
        "a file is never closed",
        "shutdown.leaks",
        r"unclosed: unclosed file",
        at_start("open('/dev/null')"),
    ),
    broken(
        "cancellation is put off",
        "shutdown.cancellation",
        r"it took [34]\.\d s, allowed are 3",
        (
            "feed.py",
            "    if loglevel is not None:\n",
            """    try:
        await really(send_chan, symbols, shm, feed_is_live, task_status=task_status)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(3.5)


async def really(send_chan, symbols, shm, feed_is_live, *, task_status, loglevel=None):
    if loglevel is not None:
""",
        ),
    ),
    broken(
        "the event loop is held",
        "shutdown.resources",
        r"nothing else runs for so long",
        at_start("import time", "time.sleep(2.2)"),
    ),
    broken(
        "memory is eaten",
        "shutdown.resources",
        r"more than 64 MiB",
        at_start("KEPT.append(b'x' * (80 << 20))"),
    ),
)
