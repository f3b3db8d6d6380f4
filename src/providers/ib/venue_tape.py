"""How a simulated gateway tells trades and quotes: what is printed, in what fields."""

from fractions import Fraction
from typing import Any

import msgspec

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS

from .venue_contracts import VenueContract
from .venue_directory import Refused
from .venue_frames import FRACTIONAL_SIZES, SIZE_RULES, price_text, size_text

SIZE_SCALE: int = 10**SIZE_DECIMALS
UNREPORTED = 2
ODD_LOT = "   I"
_OLD_LOT = 100


def check_sizes(version: int, contract: VenueContract) -> None:
    """Raises `Refused` where a version has no numbers for a contract's sizes."""
    if contract.sec_type == "CRYPTO" and version < FRACTIONAL_SIZES:
        text = "Your API version does not support fractional size rules."
        raise Refused(10285, f"{text} Please upgrade to a minimum version 163.")


class Tape(msgspec.Struct, frozen=True, kw_only=True):
    """How trades of stocks are told.

    Market data are sampled every `sample_s`, 0 sends every burst. Sizes of US stocks
    are in lots of `lot`; 0 is what TWS does: 100 for clients below version 164, else 1.
    Trades of less than `print_min` shares count in the volume but are not printed as
    last. Delayed data are `delay_s` late. `flat_bars`: history has bars for periods
    without trades.
    """

    sample_s: float = 0.25
    lot: int = 0
    print_min: int = 0
    delay_s: float = 900.0
    flat_bars: bool = True

    def lot_of(self, contract: VenueContract, version: int) -> int:
        """The unit of a contract's sizes for a client."""
        if (contract.sec_type, contract.currency) != ("STK", "USD"):
            return 1
        return self.lot or (_OLD_LOT if version < SIZE_RULES else 1)

    def size(self, contract: VenueContract, units: int, version: int) -> str:
        """A size in units of 1e-8 as a field."""
        return size_text(units, version, self.lot_of(contract, version))

    def printed_from(self, contract: VenueContract) -> int:
        """The least size that is printed, in units."""
        least = self.print_min if contract.sec_type == "STK" else 0
        return least * SIZE_SCALE


def trade_fields(
    contract: VenueContract, row: tuple[Any, ...], version: int, tape: Tape
) -> tuple[object, ...]:
    """Time in s, mask, price, size, exchange, conditions, from one of `TRADE_ROW`."""
    time_ns, price, size, trade_id, *_ = row
    silent = size < tape.printed_from(contract)
    places = contract.exchanges[1:] or contract.exchanges
    return (
        time_ns // NS,
        UNREPORTED if silent else 0,
        price_text(contract, price),
        tape.size(contract, size if contract.sized else 0, version),
        places[trade_id % len(places)],
        ODD_LOT if silent else "",
    )


def quote_fields(
    contract: VenueContract, row: tuple[Any, ...], version: int, tape: Tape
) -> tuple[object, ...]:
    """Time in s, mask, bid, ask and their sizes, from one of `QUOTE_ROW`."""
    time_ns, bid, ask, bid_size, ask_size = row
    prices = (price_text(contract, units) for units in (bid, ask))
    sizes = (tape.size(contract, size, version) for size in (bid_size, ask_size))
    return (time_ns // NS, 0, *prices, *sizes)


def midpoint_fields(
    contract: VenueContract, row: tuple[Any, ...]
) -> tuple[object, ...]:
    """Time in s and midpoint, from one of `QUOTE_ROW`."""
    return (row[0] // NS, price_text(contract, Fraction(row[1] + row[2], 2)))
