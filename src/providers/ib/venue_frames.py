"""Frames of the socket API as a simulated gateway reads and writes them.

A frame is a big-endian 32-bit length and fields of text, each ended by a NUL. Layouts
follow those of TWS for server versions 157 to 178 (the last ones without protobuf).
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS

from .venue_contracts import VenueContract
from .venue_directory import Found, Refused, Wanted, exchange_name
from .venue_market import Bar

OLDEST, NEWEST = 157, 178
FRACTIONAL_SIZES = 163
SIZE_RULES = 164
ADVANCED_REJECT = 166
ZONED_TIMES = 174
DESCRIBED_SAMPLES = 176
SYSTEM = -1
_ORDER_TYPES = (
    "ACTIVETIM,AD,ADJUST,ALERT,ALGO,ALLOC,AVGCOST,BASKET,BENCHPX,COND,CONDORDER,DAY,"
    "DEACT,GAT,GTC,GTD,GTT,HID,IOC,LIT,LMT,MIT,MKT,MTL,STP,STPLMT,TRAIL,WHATIF"
)
_COMMON = {"STK": "COMMON"}
_EXTRA_WAP_DECIMALS = 3


class Fields:
    """The fields of a request, read one after another.

    `request_id` is that of the request once it was read, until then the system's.
    Raises `Refused` with code 320 for what is missing or no number.
    """

    def __init__(self, payload: bytes) -> None:
        self.request_id = SYSTEM
        self._texts = payload.decode("utf-8", "backslashreplace").split("\0")[:-1]
        self._next = 0

    def text(self) -> str:
        """The next field as it is."""
        if self._next >= len(self._texts):
            raise Refused(320, "Error reading request:Unable to parse data.  Too short")
        self._next += 1
        return self._texts[self._next - 1]

    def read_id(self) -> int:
        """The next field as the id of the request."""
        self.request_id = self.integer()
        return self.request_id

    def integer(self) -> int:
        """The next field as an integer; empty is 0."""
        text = self.text()
        try:
            return int(text or 0)
        except ValueError:
            raise _no_number(text) from None

    def number(self) -> float:
        """The next field as a double; empty is 0."""
        text = self.text()
        try:
            return float(text or 0)
        except ValueError:
            raise _no_number(text) from None

    def flag(self) -> bool:
        """The next field as a boolean."""
        return self.integer() != 0

    def contract(self) -> Wanted:
        """The next twelve fields as a contract."""
        return Wanted(
            self.integer(),
            self.text(),
            self.text().upper(),
            self.text(),
            self.number(),
            self.text().upper(),
            *(self.text() for _ in range(6)),
        )


def _no_number(text: str) -> Refused:
    return Refused(
        320,
        "Error reading request:Unable to parse data. "
        f'java.lang.NumberFormatException: For input string: "{text}"',
    )


# Texts of values


def field_text(value: object) -> str:
    """A value as a field: booleans as 1 and 0, None as nothing."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else str(value)


def frame(*fields: object) -> bytes:
    """A frame of some fields."""
    payload = "".join(field_text(field) + "\0" for field in fields).encode()
    return struct.pack(">I", len(payload)) + payload


def decimal_text(units: int | Fraction, decimals: int) -> str:
    """A number of 10**-decimals, with as many decimals as it needs and they allow.

    Midpoints may need one decimal more.
    """
    more = decimals + 1
    tenths = round(units * 10)
    text = f"{Decimal(tenths).scaleb(-more):.{more}f}"
    return text[:-1] if text.endswith("0") and decimals else text.rstrip("0").strip(".")


def price_text(contract: VenueContract, units: int | Fraction) -> str:
    """A price in units of the contract."""
    return decimal_text(units, contract.price_decimals)


def wap_text(contract: VenueContract, units: int | Fraction) -> str:
    """A mean price, with three decimals more than a price has."""
    if units == -1:
        return "-1"
    decimals = contract.price_decimals + _EXTRA_WAP_DECIMALS
    scaled = round(units * 10**_EXTRA_WAP_DECIMALS)
    return f"{Decimal(scaled).scaleb(-decimals):f}"


def size_text(units: int, version: int, lot: int = 1) -> str:
    """A size in units of 1e-8, in whole lots, as a version has it."""
    if units < 0:
        return str(units)
    if lot > 1:
        return str(units // (lot * 10**SIZE_DECIMALS))
    if version < FRACTIONAL_SIZES or not units % 10**SIZE_DECIMALS:
        return str(units // 10**SIZE_DECIMALS)
    return f"{Decimal(units).scaleb(-SIZE_DECIMALS).normalize():f}"


def time_text(time_s: int, zone: str, version: int) -> str:
    """A time in the zone of the instrument, or for older versions in that of login."""
    if version >= ZONED_TIMES:
        local = datetime.fromtimestamp(time_s, ZoneInfo(zone))
        return f"{local:%Y%m%d %H:%M:%S} {zone}"
    return f"{datetime.fromtimestamp(time_s, UTC):%Y%m%d  %H:%M:%S}"


# Frames of several requests


def error_frame(version: int, request_id: int, code: int, text: str) -> bytes:
    """An error or a notice; request id -1 is the system."""
    if version >= ADVANCED_REJECT:
        return frame(4, 2, request_id, code, text, "")
    return frame(4, 2, request_id, code, text)


def details_frame(request_id: int, found: Found, *, version: int, lot: int) -> bytes:
    """Contract details, with the hours of the days to come."""
    row, hours = found.contract, found.market.hours
    now_s = found.market.quote.time_ns // NS
    expiry = f"{row.expiry:%Y%m%d}" if row.expiry else ""
    last_trade = expiry
    if expiry and version >= ZONED_TIMES:
        last_trade = f"{expiry} 08:30 {hours.zone}"
    old = version < SIZE_RULES
    lots = (lot,) if old else ()
    suggested = "100" if row.sec_type == "STK" else row.size_step
    sizes = [row.size_step, row.size_step, suggested]
    if old:
        sizes = [suggested] if version >= FRACTIONAL_SIZES else []
    ids = (1, "ISIN", row.isin) if row.isin else (0,)
    under = row.ticker if row.under_con_id else ""
    under_type = ("STK" if row.sec_type == "OPT" else "IND") if under else ""
    exchanges = ",".join(row.exchanges)
    rules = ",".join([str(rule_id(row))] * len(row.exchanges))
    return frame(
        10, *((8,) if old else ()), request_id, row.ticker, found.sec_type, last_trade,
        f"{row.strike:g}", row.right, exchange_name(found.exchange), row.currency,
        row.local_symbol, row.trading_class, row.trading_class, row.con_id, row.tick,
        *lots, row.multiplier, _ORDER_TYPES, exchanges, 1, row.under_con_id,
        ascii_text(row.long_name), row.exchange if row.sec_type == "STK" else "",
        f"{row.expiry:%Y%m}" if row.expiry else "", "", "", "", hours.zone,
        hours.text(now_s), hours.text(now_s, rth=True), "", "", *ids, 1, under,
        under_type, rules, expiry, _COMMON.get(row.sec_type, ""),
        *sizes,
    )  # fmt: skip


def ascii_text(text: str) -> str:
    r"""Text in 7 bits, all else as \uXXXX."""
    return text.encode("ascii", "backslashreplace").decode()


def rule_id(contract: VenueContract) -> int:
    """The market rule of a contract: one for each price step."""
    return contract.price_decimals * 1000 + contract.tick_units


def rule_frame(number: int) -> bytes:
    """A market rule: its step holds from price 0 on."""
    decimals, ticks = divmod(number, 1000)
    return frame(93, number, 1, 0, Decimal(ticks).scaleb(-decimals))


def samples_frame(
    request_id: int, rows: Sequence[tuple[VenueContract, list[str]]], version: int
) -> bytes:
    """Matching symbols, each with the classes of its derivatives."""
    fields: list[object] = [79, request_id, len(rows)]
    for row, kinds in rows:
        sec_type = "IND" if row.sec_type == "FUT" else row.sec_type
        con_id = row.under_con_id or row.con_id
        fields += [con_id, row.ticker, sec_type, row.exchange, row.currency]
        fields += [len(kinds), *kinds]
        if version >= DESCRIBED_SAMPLES:
            fields += [ascii_text(row.long_name), ""]
    return frame(*fields)


def bar_fields(
    contract: VenueContract, bar: Bar, *, version: int, lot: int
) -> tuple[object, ...]:
    """Open, high, low, close, volume, wap and count."""
    prices = (bar.open, bar.high, bar.low, bar.close)
    return (
        *(price_text(contract, price) for price in prices),
        size_text(bar.volume, version, lot),
        wap_text(contract, bar.wap),
        bar.trades,
    )
