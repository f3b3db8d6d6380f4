"""Compression of blocks: zstd, from the standard library where that has it."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from piker_core.errors import JournalError
from piker_core.journal.layout import Malformed

WINDOW_LOG = 27
"""A frame that asks for a larger window is refused: that is memory it would take."""


@cache
def load_zstd() -> Any:
    """The module. Raises JournalError where there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise JournalError(
        "journals are compressed with zstd, which is not installed: "
        "pip install 'piker-core[store]', or write them with --compress none"
    )


def open_packer(level: int) -> Callable[[bytes], bytes]:
    """What makes a zstd frame of a payload. Raises JournalError without zstd."""
    zstd = load_zstd()
    compressor = zstd.ZstdCompressor(level=level)
    mode = compressor.FLUSH_FRAME

    def pack(raw: bytes) -> bytes:
        packed: bytes = compressor.compress(raw, mode)
        return packed

    return pack


def unpack(packed: bytes, raw_length: int) -> bytes:
    """The payload of a frame, which must be of that length.

    Never makes more than that. Raises Malformed, and JournalError without zstd.
    """
    zstd = load_zstd()
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    decompressor = zstd.ZstdDecompressor(options=options)
    try:
        raw: bytes = decompressor.decompress(packed, max_length=raw_length + 1)
    except zstd.ZstdError as error:
        raise Malformed(f"a block cannot be decompressed ({error})") from None
    if len(raw) != raw_length or not decompressor.eof or decompressor.unused_data:
        raise Malformed(f"a block is not of the {raw_length} bytes that it says")
    return raw
