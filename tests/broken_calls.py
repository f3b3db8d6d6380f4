"""What can be wrong with a provider's contract, its calls and its history."""

from tests.broken_providers import a_fault, before, broken, of_rows

_FIND = "self._rows[self.symbols.find(name).market.fqme]"
_BARS = "        rows, first_s = await self._client.bars("
_ONE = "await self._client.bars(self._row, 60, 0, 9)"

CONTRACT = (
    broken(
        "a function wants an argument that nobody gives",
        "contract.signatures",
        r"stream_quotes: missing a required argument: 'mood'",
        ("feed.py", "    loglevel: str | None = None,", "    mood: str,"),
    ),
    broken(
        "a capability is told that is not there",
        "contract.capabilities",
        r"it says 'orders', but open_trade_dialog is missing",
        ("__init__.py", '"orders": False', '"orders": True'),
    ),
    broken(
        "bars have other fields",
        "contract.names",
        r"the fields of its ohlc_dtype are start_ns",
        ("__init__.py", "import OHLCV_DTYPE as", "import GAP_DTYPE as"),
    ),
    broken(
        "a market has no price step",
        "contract.markets",
        r"the price_tick of btcusd\S* is 0",
        ("api.py", "price_tick=row.price_step", "price_tick=Decimal(0)"),
    ),
    broken(
        "a search finds everything",
        "contract.search",
        r"a search for nonsense finds",
        ("api.py", "run_sync(symbols.search, pattern)", "run_sync(list, symbols)"),
    ),
    broken(
        "an unknown symbol is some market",
        "refusal.unknown",
        r"(market|open) of 'nosuchmarket9' is no error",
        ("api.py", _FIND, "next(iter(self._rows.values()))"),
    ),
    broken(
        "an unknown symbol is a ProviderError",
        "refusal.unknown",
        r"raises ProviderError: .*not NotFound",
        before(
            "api.py",
            f"        return {_FIND}",
            "if 'nosuch' in name:",
            "    raise pk.ProviderError(name)",
        ),
    ),
)
HISTORY = (
    broken(
        "the forming row is one of history",
        "history.minutes",
        r"was still forming",
        of_rows("rows = rows[[*range(len(rows)), -1]]", 'rows["time"][-1] += period'),
    ),
    broken(
        "history comes newest first",
        "history.seconds",
        r"the times of the rows do not rise",
        of_rows("rows = rows[::-1]"),
    ),
    broken(
        "a row of history is not the venue's",
        "history.minutes",
        r"count \d+ instead of \d+",
        of_rows('rows["count"][3] += 1'),
    ),
    broken(
        "the span that is asked for is not kept",
        "history.span",
        r"is outside the span",
        ("history.py", "if start_dt is not None:", "if start_dt is not None and 0:"),
    ),
    broken(
        "an empty span has no rows and is no error",
        "history.empty",
        r"a span in the future has 0 rows",
        ("history.py", "        if start_s >= end_s:", "        if 0:"),
        ("history.py", "        if not len(rows):", "        if 0:"),
        of_rows("if not len(rows):", "    return rows, end_dt, end_dt"),
    ),
    broken(
        "the limits that are told are not the venue's",
        "history.limits",
        r"at erlangs 50, rate 200",
        ("history.py", '"erlangs": 3, "rate": 5}\n', '"erlangs": 50, "rate": 200}\n'),
        ("api.py", "Positive = 10.0", "Positive = 1000.0"),
        ("api.py", "Count = 20", "Count = 1000"),
        ("venue.py", "rest_rate: float = 10.0", "rest_rate: float = 0.5"),
        ("venue.py", "rest_burst: float = 40.0", "rest_burst: float = 5.0"),
    ),
    broken(
        "more calls are made at once than is told",
        "history.limits",
        r"\d+ calls at once, told were erlangs 3",
        before(
            "history.py",
            _BARS,
            "async with trio.open_nursery() as many:",
            "    for _ in range(6):",
            "        many.start_soon(self._client.bars, self._row, 60, 0, 9)",
        ),
    ),
)
CALLS = (
    broken(
        "a call too many is tried again like any other",
        "calls.throttled",
        r"is not told: no DataThrottle",
        (
            "api.py",
            'Verdict("throttled", fault.text',
            'Verdict("transient", fault.text',
        ),
    ),
    broken(
        "the pause that a venue asks for is not kept",
        "calls.throttled",
        r"\d+ calls within a pause of 3\.0 s",
        ("api.py", "wait_s=fault.wait_s)", "wait_s=0.01)"),
        ("history.py", "import DataUnavail", "import DataThrottle, DataUnavail"),
        before(
            "history.py",
            _BARS,
            "try:",
            f"    {_ONE}",
            "except DataThrottle as error:",
            "    raise DataThrottle(str(error), retry_after=3.0) from None",
        ),
    ),
    broken(
        "an HTML page is an exception of a library's",
        "calls.html",
        r"DecodeError: .*, which is no PikerError",
        (
            "api.py",
            "decode_body(answer, _Fault)",
            "msgspec.json.decode(answer.content, type=_Fault)",
        ),
    ),
    broken(
        "a busy venue is an exception of nobody's",
        "calls.unavailable",
        r"KeyError: 'unavailable', which is no PikerError",
        ("api.py", 'return Verdict("transient", fault', "raise KeyError(fault.error"),
        ("api.py", "KeyError(fault.error.text)", "KeyError(fault.error)"),
    ),
    broken(
        "clocks that are apart are not allowed for",
        "calls.skewed_clock",
        r"ProviderError.* when clocks are 2\.5 s apart",
        a_fault("def skew_clock(self, s): self._rest['html'] = 99 if s else 0"),
    ),
)
