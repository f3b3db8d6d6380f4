"""Segment files of a journal, byte by byte. All numbers are little endian.

A journal is a folder of segments `00000000.journal`, `00000001.journal`, ... and a file
`lock`. A segment is a header, then blocks, then an end once it is complete.

Header, 64 bytes:

    offset  size  what
    0       8     magic `PIKERJNL`
    8       2     version of this layout, 1
    10      2     length of this header, 64
    12      4     number of the segment, the first of a journal is 0
    16      8     creation time, UTC ns, signed
    24      16    id of the journal, random, the same in all its segments
    40      8     number of the first block of this segment, counted over all segments
    48      12    zero
    60      4     CRC-32 (zlib) of bytes 0 to 59

Block, 56 bytes and a payload; an end is one without a payload:

    offset  size  what
    0       4     magic: `BLK1` a block, `END1` an end
    4       1     compression of the payload: 0 none, 1 zstd (one frame); in an end why
                  the segment ended: 1 closed, 2 the next one follows, 3 cut by the
                  writer that came after one that died
    5       3     zero
    8       4     length of the payload as stored
    12      4     length of the payload, raw
    16      4     number of records in it; in an end 0
    20      4     number of the segment
    24      8     number of the block, counted over all segments; in an end the next one
    32      8     time of the first record, UTC ns, signed
    40      8     time of the last record
    48      4     zero
    52      4     CRC-32 of bytes 0 to 51 and of the payload as stored

Record in a raw payload, 17 bytes and a body; no record spans two blocks:

    offset  size  what
    0       1     kind
    1       4     source
    5       8     time, UTC ns, signed
    13      4     length of the body

Lengths are checked against `MOST_RAW` and the file before anything is allocated.
"""

import re
import struct
import zlib

import msgspec

MAGIC = b"PIKERJNL"
VERSION = 1
HEADER = struct.Struct("<8sHHIq16sQ12xI")
BLOCK = struct.Struct("<4sB3xIIIIQqq4xI")
RECORD = struct.Struct("<BIqI")
CRC = struct.Struct("<I")
BLOCK_MAGIC, END_MAGIC = b"BLK1", b"END1"
NONE, ZSTD = 0, 1
CLOSED, ROTATED, RECOVERED = 1, 2, 3
MOST_BODY = 1 << 26
"""The longest body of a record: more than any venue's answer."""
MOST_RAW = MOST_BODY + RECORD.size
"""The longest raw payload; `MOST_BLOCK` is for blocks of more than one record."""
MOST_BLOCK = 1 << 24
SUFFIX = ".journal"
LOCK = "lock"
_NAME = re.compile(r"([0-9]{8})\.journal")
_NOTHING = b"\0"


class Header(msgspec.Struct, frozen=True):
    """Head of a segment; see the table above."""

    number: int
    created_ns: int
    journal: bytes
    first_block: int


class Block(msgspec.Struct, frozen=True):
    """Head of a block or of an end; see the table above."""

    end: bool
    code: int
    stored: int
    raw: int
    records: int
    segment: int
    number: int
    first_ns: int
    last_ns: int
    crc: int


class Malformed(Exception):
    """Bytes are none of this layout; the text says why."""


class OtherVersion(Malformed):
    """A header of another version of this layout."""


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}{SUFFIX}"


def segment_number(name: str) -> int | None:
    """Number of a segment by its file name; None for other files."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def encode_header(header: Header) -> bytes:
    """The 64 bytes."""
    raw = HEADER.pack(
        MAGIC,
        VERSION,
        HEADER.size,
        header.number,
        header.created_ns,
        header.journal,
        header.first_block,
        0,
    )
    return raw[:-4] + CRC.pack(zlib.crc32(raw[:-4]))


def decode_header(raw: bytes) -> Header:
    """Raises Malformed, and OtherVersion for one of another version."""
    if len(raw) < HEADER.size:
        raise Malformed(f"{len(raw)} of the {HEADER.size} bytes of its header")
    magic, version, size, number, created, journal, first, crc = HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise Malformed("it does not begin as a journal")
    if zlib.crc32(raw[: HEADER.size - 4]) != crc:
        raise Malformed("the checksum of its header is wrong")
    if version != VERSION or size != HEADER.size:
        raise OtherVersion(f"layout version {version}, this release reads {VERSION}")
    if raw[48:60].strip(_NOTHING):
        raise Malformed("its header has more in it than this version knows")
    return Header(number, created, journal, first)


def encode_block(block: Block, payload: bytes) -> bytes:
    """Head and payload, with their checksum."""
    raw = BLOCK.pack(
        END_MAGIC if block.end else BLOCK_MAGIC,
        block.code,
        block.stored,
        block.raw,
        block.records,
        block.segment,
        block.number,
        block.first_ns,
        block.last_ns,
        0,
    )[:-4]
    return raw + CRC.pack(zlib.crc32(payload, zlib.crc32(raw))) + payload


def decode_block(raw: bytes) -> Block:
    """The head of a block, its sizes within bounds; its checksum is not yet looked at.

    Raises Malformed.
    """
    magic, *fields = BLOCK.unpack(raw)
    if magic not in (BLOCK_MAGIC, END_MAGIC):
        raise Malformed("no block begins here")
    block = Block(magic == END_MAGIC, *fields)
    if raw[5:8].strip(_NOTHING) or raw[48:52].strip(_NOTHING):
        raise Malformed("the head of a block has more in it than this version knows")
    if block.end:
        if block.stored or block.raw or block.records or block.code not in (1, 2, 3):
            raise Malformed("an end that is none")
        return block
    if block.code not in (NONE, ZSTD):
        raise Malformed(f"compression {block.code}, this release knows 0 and 1")
    most = MOST_RAW if block.records == 1 else MOST_BLOCK
    fits = block.stored == block.raw if block.code == NONE else block.stored < block.raw
    if not 0 < block.raw <= most or not block.stored or not fits:
        raise Malformed(f"a block of {block.stored} bytes for {block.raw}")
    if not 0 < block.records <= block.raw // RECORD.size:
        raise Malformed(f"{block.records} records in {block.raw} bytes")
    return block


def checked_crc(raw: bytes, payload: bytes, crc: int) -> bool:
    """Whether a block is as it was written."""
    return zlib.crc32(payload, zlib.crc32(raw[:-4])) == crc
