"""docs/shm-format.md says what the C compiler says."""

import mmap
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import piker_core as pk
from piker_core.core.rings import COUNTERS
from piker_core.dtypes import STATUSES
from tests.compilers import CORE, compile_c, run_c

PAGE = Path(__file__).resolve().parents[1] / "docs" / "shm-format.md"
LAYOUTS = {
    "pk_identity",
    "pk_header",
    "pk_redo",
    "pk_reason",
    "pk_wait_page",
    "pk_row",
    "pk_side",
    "pk_gap",
    "pk_tick",
}
NUMPY_NAMES = {"sequence": "seq", "wap": "bar_wap"}


def read_layouts() -> dict[str, list[tuple[int, int, str]]]:
    """The tables under headings that name a C struct: (offset, size, field)."""
    layouts: dict[str, list[tuple[int, int, str]]] = {}
    for part in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        name = part.splitlines()[0].strip("`")
        rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", part, re.MULTILINE)
        if rows:
            layouts[name] = [(int(at), int(size), field) for at, size, field in rows]
    return layouts


def read_codes() -> dict[str, int]:
    """Named numbers of the page."""
    found = re.findall(r"^\| `(PK_\w+)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, ...]]:
    """Offsets, sizes and constants as gcc sees them."""
    lines = []
    for layout, rows in read_layouts().items():
        lines.append(f'printf("{layout} %zu\\n", sizeof({layout}));')
        lines += [
            f'printf("{layout}.{field} %zu %zu\\n", offsetof({layout}, {field}),'
            f" sizeof((({layout} *)0)->{field}));"
            for _, _, field in rows
        ]
    lines += [f'printf("{name} %d\\n", (int){name});' for name in read_codes()]
    folder = tmp_path_factory.mktemp("offsets")
    source = folder / "offsets.c"
    source.write_text(
        '#include "recover.h"\nint main(void) {\n'
        + "\n".join(lines)
        + "\nreturn 0; }\n"
    )
    said = run_c(compile_c("gcc", source, folder / "offsets"))
    words = [line.split() for line in said.splitlines()]
    return {name: tuple(int(number) for number in rest) for name, *rest in words}


def test_the_page_describes_every_shared_struct() -> None:
    assert set(read_layouts()) == LAYOUTS


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_offsets_and_sizes_on_the_page_are_those_of_the_compiler(
    layout: str, compiled: dict[str, tuple[int, ...]]
) -> None:
    for offset, size, field in read_layouts()[layout]:
        assert compiled[f"{layout}.{field}"] == (offset, size), field


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_fields_on_the_page_fill_their_struct_without_a_hole(
    layout: str, compiled: dict[str, tuple[int, ...]]
) -> None:
    end = 0
    for offset, size, field in read_layouts()[layout]:
        assert offset == end, field
        end += size
    assert (end,) == compiled[layout]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_offset_on_the_page_is_pinned_by_a_static_assert(layout: str) -> None:
    headers = "".join(path.read_text() for path in CORE.glob("*.h"))
    pins = set(re.findall(r"PK_AT\((\w+), (\w+), (\d+)\);", headers))
    for offset, _, field in read_layouts()[layout]:
        assert (layout, field, str(offset)) in pins


def test_codes_on_the_page_are_those_of_the_headers_and_of_python(
    compiled: dict[str, tuple[int, ...]],
) -> None:
    codes = read_codes()
    assert {name: (value,) for name, value in codes.items()} == {
        name: compiled[name] for name in codes
    }
    for number, status in enumerate(STATUSES):
        assert codes[f"PK_{status.upper()}"] == number
    for name, value in pk.TICK_TYPES.items():
        assert codes[f"PK_{name.upper()}"] == value
    for flag in pk.BarFlag:
        name = (flag.name or "").replace("SYNTHETIC_", "")
        assert codes[f"PK_{name}"] == flag.value
    assert sum(name.startswith("PK_N_") for name in codes) == len(COUNTERS)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("pk_row", pk.OHLCV_DTYPE),
        ("pk_tick", pk.TICK_DTYPE),
        ("pk_gap", pk.GAP_DTYPE),
    ],
)
def test_numpy_layouts_are_those_of_the_page(
    layout: str, dtype: np.dtype[np.void]
) -> None:
    fields = dict(dtype.fields or {})
    on_page = {
        NUMPY_NAMES.get(field, field): (offset, size)
        for offset, size, field in read_layouts()[layout]
        if not field.startswith("unused")
    }
    in_numpy = {name: (spec[1], spec[0].itemsize) for name, spec in fields.items()}
    assert in_numpy == on_page


def name_by_the_page(namespace: str, provider: str, fqme: str, period: int) -> str:
    """A ring's file name, from the recipe on the page."""

    def fnv(text: str, value: int) -> int:
        for byte in text.encode():
            value = (value ^ byte) * 0x100000001B3 % 2**64
        return value

    low = fnv(f"{os.getuid()}/{namespace}", 0xCBF29CE484222325)
    high = fnv(f"{provider}/{fqme}/{period}", low)
    return f"pk{(low ^ low >> 32) & 0xFFFFFFFF:08x}.{high:016x}"


def word(ring: mmap.mmap, layout: str, field: str, base: int = 0) -> int:
    """A number of a ring, by the offset and size that the page gives."""
    places = {name: (at, size) for at, size, name in read_layouts()[layout]}
    at, size = places[field]
    return int.from_bytes(ring[base + at : base + at + size], "little")


def test_a_ring_of_bars_can_be_found_and_read_by_the_page_alone(namespace: str) -> None:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market("xbtusd.kraken", about=b'{"a": 1}')
        market.set_status("live", reason="ack after 0.2 s")
        engine.push_trade(market, 1_600_000_000_500_000_000, 60000.5, 0.25, id=7)
        path = Path("/dev/shm") / name_by_the_page(
            namespace, "kraken", "xbtusd.kraken", 1
        )
        with path.open("rb") as file:
            ring = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert ring[:8] == b"PKERRNG1"
        assert len(ring) == word(ring, "pk_identity", "total_size")
        assert ring[512:521] == b'{"a": 1}\0'
        places = {name: at for at, _, name in read_layouts()["pk_header"]}
        reason = places["reasons"] + 136 * (
            word(ring, "pk_header", "reason_number") % 2
        )
        assert word(ring, "pk_reason", "status", reason) == STATUSES.index("live")
        assert ring[reason + 8 : reason + 24] == b"ack after 0.2 s\0"
        head = word(ring, "pk_header", "head")
        assert (head, word(ring, "pk_header", "first")) == (2**40 + 1, 2**40)
        slot = (head - 1) % word(ring, "pk_identity", "capacity")
        stamp = word(ring, "pk_identity", "stamp_offset") + 8 * slot
        assert ring[stamp] == 2 * word(ring, "pk_header", "clock")
        item = word(ring, "pk_identity", "item_offset") + 80 * slot
        assert struct.unpack_from("<qq5dqdq", ring, item) == (
            *(head - 1, 1_600_000_000),
            *(60000.5, 60000.5, 60000.5, 60000.5, 0.25),
            *(1, 60000.5, int(pk.BarFlag.PARTIAL)),
        )


def test_a_ring_of_ticks_can_be_found_and_read_by_the_page_alone(
    namespace: str,
) -> None:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market("xbtusd.kraken")
        engine.push_trade(market, 1_600_000_000_500_000_000, 60000.5, 0.25, 7, "sell")
        path = Path("/dev/shm") / name_by_the_page(namespace, "kraken", "", 0)
        with path.open("rb") as file:
            ring = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert word(ring, "pk_header", "head") == word(ring, "pk_header", "clock") == 1
        table = word(ring, "pk_identity", "table_offset")
        assert ring[table : table + 14] == b"xbtusd.kraken\0"
        item = word(ring, "pk_identity", "item_offset")
        sequence, time_ns, _, price, size, number = struct.unpack_from(
            "<Qqqddq", ring, item
        )
        assert (sequence, time_ns, price, size) == (
            *(0, 1_600_000_000_500_000_000),
            *(60000.5, 0.25),
        )
        assert (number, *struct.unpack_from("<IIHbB", ring, item + 48)) == (
            *(7, 0, 1),
            *(pk.TICK_TYPES["trade"], -1, 0),
        )
