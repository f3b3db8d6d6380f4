"""Exact numbers as text."""


def fixed_text(units: int, decimals: int) -> str:
    """An integer of 10**-decimals as text with exactly that many decimals."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**decimals)
    return f"{sign}{whole}.{part:0{decimals}d}" if decimals else f"{sign}{whole}"
