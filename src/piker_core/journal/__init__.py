"""Journals: what a feed received and did, record by record, in append-only files.

layout     the files, byte by byte
records    what a record may tell
folder     segments of a journal, the lock of its writer
packing    compression
segment    one segment as far as it is whole
reader     `read_journal`
recovery   what a writer that died has left
disk       the segment that is written
queue      between the caller and the disk
writer     `open_journal`
"""

from piker_core.journal.opening import open_journal
from piker_core.journal.reader import Cut, JournalReader, read_journal
from piker_core.journal.records import (
    Answer,
    Kind,
    Lost,
    Record,
    Session,
    decode_answer,
    encode_answer,
)
from piker_core.journal.writer import JournalWriter

__all__ = [
    "Answer",
    "Cut",
    "JournalReader",
    "JournalWriter",
    "Kind",
    "Lost",
    "Record",
    "Session",
    "decode_answer",
    "encode_answer",
    "open_journal",
    "read_journal",
]
