"""How a simulated gateway tells trades and quotes: what is printed, in what fields."""

from fractions import Fraction
from typing import Any

import msgspec

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS

from .venue_contracts import VenueContract
from .venue_directory import Refused
from .venue_frames import FRACTIONAL_SIZES, price_text, size_text

SIZE_SCALE: int = 10**SIZE_DECIMALS
UNREPORTED = 2
ODD_LOT = "   I"


def check_sizes(version: int, contract: VenueContract) -> None:
    """Raises `Refused` where a version has no numbers for a contract's sizes."""
    if contract.sec_type == "CRYPTO" and version < FRACTIONAL_SIZES:
        text = "Your API version does not support fractional size rules."
        raise Refused(10285, f"{text} Please upgrade to a minimum version 163.")


class Tape(msgspec.Struct, frozen=True, kw_only=True):
    """How trades of stocks are told.

    Market data are sampled every `sample_s`, 0 sends every burst. Sizes of stocks are
    in lots of `lot`; trades of less than `print_min` shares count in the volume but are
    not printed as last. Delayed data are `delay_s` late. `flat_bars`: history has bars
    for periods without trades.
    """

    sample_s: float = 0.25
    lot: int = 1
    print_min: int = 0
    delay_s: float = 900.0
    flat_bars: bool = True

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
        size_text(contract, size if contract.sized else 0, version, tape.lot),
        places[trade_id % len(places)],
        ODD_LOT if silent else "",
    )


def quote_fields(
    contract: VenueContract, row: tuple[Any, ...], version: int, tape: Tape
) -> tuple[object, ...]:
    """Time in s, mask, bid, ask and their sizes, from one of `QUOTE_ROW`."""
    time_ns, bid, ask, bid_size, ask_size = row
    prices = (price_text(contract, units) for units in (bid, ask))
    sizes = (
        size_text(contract, size, version, tape.lot) for size in (bid_size, ask_size)
    )
    return (time_ns // NS, 0, *prices, *sizes)


def midpoint_fields(
    contract: VenueContract, row: tuple[Any, ...]
) -> tuple[object, ...]:
    """Time in s and midpoint, from one of `QUOTE_ROW`."""
    return (row[0] // NS, price_text(contract, Fraction(row[1] + row[2], 2)))
