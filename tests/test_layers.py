"""Imports go to lower floors only; the reading side needs just numpy and msgspec."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
CORE = SRC / "piker_core" / "core"
COMPILED = 1
WORDS = 2
RESOURCES = 3
FLOORS = {
    COMPILED: (
        *("core.native", "core.rings", "core.ticks", "core.fold", "core.engine"),
        "core.triggers",
    ),
    WORDS: (
        *("digest", "dtypes", "errors", "fqme", "messages", "orders", "steps"),
        "symbols",
    ),
    RESOURCES: (
        *("broker", "channel", "config", "provider", "segments", "tasks", "waiting"),
        *("calendars", "symbol_cache", "symbol_search", "symbol_table"),
        *("control", "control_server", "control_socket", "cutoff"),
        *("adapter", "journal", "simulation", "store"),
    ),
    4: (
        *("feed", "feeder", "quotes", "source", "stream"),
        *("backfill", "fetch", "history", "keeper"),
        *("recorder", "replay"),
    ),
    5: ("conformance", "ems"),
    6: ("__main__", "cli"),
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
FACE = ("", "core")
"""Packages that hold names of all floors or none."""
SPOKEN = {"dtypes", "errors", "messages"}
"""Words that the compiled modules speak, though they lie below them."""
ENDS = {"channel", "waiting"}
"""Trio ends of the compiled modules, imported only when one is asked for."""
INCLUDES = {
    "atomics.h": set(),
    "layout.h": {"atomics.h"},
    "segment.h": {"layout.h"},
    "ring.h": {"segment.h"},
    "ticks.h": {"segment.h"},
    "wake.h": {"segment.h"},
    "lock.h": {"segment.h"},
    "ids.h": set(),
    "sessions.h": {"atomics.h"},
    "sums.h": set(),
    "fold.h": {"ids.h", "ring.h", "sessions.h", "sums.h", "ticks.h"},
    "market.h": {"fold.h"},
    "triggers.h": {"ring.h"},
    "reach.h": {"ticks.h", "triggers.h"},
    "recover.h": {"market.h"},
}


class Import(NamedTuple):
    """One import statement: who, what, and whether it waits for a function call."""

    importer: str
    imported: str
    later: bool


def module_name(path: Path) -> str:
    """Dotted name below `piker_core`; an included .pxi counts as its module."""
    parts = path.relative_to(SRC / "piker_core").with_suffix("").parts
    if path.suffix == ".pxi":
        return "core.engine"
    return ".".join(part for part in parts if part != "__init__")


def python_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules a Python file or stub imports, and whether a function does it."""
    tree = ast.parse(path.read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    calls += [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef)]  # type: ignore[misc]
    inside = {inner for call in calls for inner in ast.walk(call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node in inside) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node in inside


def cython_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules a Cython file imports or cimports."""
    pattern = r"^( *)(?:from ([\w.]+) c?import|c?import ([\w.]+))"
    for space, origin, whole in re.findall(pattern, path.read_text(), re.MULTILINE):
        yield origin or whole, bool(space)


def imports_of(path: Path) -> list[Import]:
    """Imports of this project's packages in one file."""
    find = python_imports if path.suffix in (".py", ".pyi") else cython_imports
    return [
        Import(module_name(path), name, later)
        for name, later in find(path)
        if name.partition(".")[0] in ("", "piker_core", "providers")
    ]


def sources(*suffixes: str) -> list[Path]:
    return [
        path
        for path in sorted((SRC / "piker_core").rglob("*"))
        if path.suffix in suffixes
    ]


CODE = sources(".py", ".pyi", ".pyx", ".pxd", ".pxi")
IMPORTS = [found for path in CODE for found in imports_of(path)]


def room(module: str) -> str:
    """The room of a module of `piker_core`: the name that has a floor."""
    short = module.removeprefix("piker_core").removeprefix(".")
    return short if short in FLOOR_OF else short.partition(".")[0]


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_every_file_has_a_floor(path: Path) -> None:
    assert module_name(path) in FACE or room(module_name(path)) in FLOOR_OF


def test_the_package_never_imports_providers() -> None:
    assert [found for found in IMPORTS if found.imported.startswith("providers")] == []


def test_imports_name_the_module_in_full_and_never_the_package_itself() -> None:
    loose = [
        found
        for found in IMPORTS
        if found.imported == "piker_core" or found.imported.startswith(".")
    ]
    assert loose == []


def test_every_import_goes_to_a_lower_floor_or_stays_on_its_own() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.importer not in FACE
        and FLOOR_OF[room(found.importer)] > COMPILED
        and FLOOR_OF[room(found.imported)] > FLOOR_OF[room(found.importer)]
    ]
    assert wrong == []


def test_words_import_words_only() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.importer not in FACE
        and FLOOR_OF[room(found.importer)] == WORDS
        and FLOOR_OF[room(found.imported)] != WORDS
    ]
    assert wrong == []


def test_compiled_modules_import_their_words_and_only_when_asked_their_trio_ends() -> (
    None
):
    for found in IMPORTS:
        if room(found.importer).startswith("core."):
            target = room(found.imported)
            known = target in SPOKEN or target.startswith("core.")
            ends = target in ENDS and (found.later or is_stub(found.importer))
            assert known or ends, found


def is_stub(module: str) -> bool:
    """Stubs name the trio ends in annotations; nothing runs there."""
    return (SRC / "piker_core" / (module.replace(".", "/") + ".pyi")).exists()


def test_no_room_imports_itself_in_a_circle_when_it_is_loaded() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources(".py", ".pyx"):
        for found in imports_of(path):
            importer, imported = room(found.importer), room(found.imported)
            if not found.later and importer not in FACE and importer != imported:
                graph.setdefault(importer, set()).add(imported)
    assert list(TopologicalSorter(graph).static_order())


def test_providers_import_from_floors_below_the_flows() -> None:
    for path in sorted((SRC / "providers").rglob("*.py")):
        for name, _ in python_imports(path):
            if name.startswith("piker_core."):
                assert FLOOR_OF[room(name)] <= RESOURCES, (path, name)


def test_headers_include_only_lower_headers() -> None:
    found = {
        path.name: set(re.findall(r'#include "([^"]+)"', path.read_text()))
        for path in CORE.glob("*.h")
    }
    assert found == INCLUDES
    assert list(TopologicalSorter(INCLUDES).static_order())


def test_headers_know_nothing_of_python() -> None:
    for path in CORE.glob("*.h"):
        assert not re.search(r"Python\.h|\bPy[A-Z_]\w+|numpy", path.read_text()), path


READ = """
import json, sys
import msgspec, numpy
before = set(sys.modules)
import piker_core as pk
bars = pk.attach_bars("xbtusd.kraken")
cursor = pk.attach_ticks("kraken").cursor(start="oldest")
bars.last(), bars.snapshot(9), bars.window(9), bars.between(0, 9), bars.gaps()
bars.wait(after=0), bars.statistics(), bars.status, bars.writer_alive
assert len(cursor.poll()) == 1
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
json.dump(sorted(tops - sys.stdlib_module_names), sys.stdout)
"""


def test_the_reading_side_imports_numpy_and_msgspec_only(namespace: str) -> None:
    import piker_core as pk

    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market("xbtusd.kraken", capacity={1: 128, 60: 128})
        engine.push_trade(market, 1_600_000_000_000_000_000, 100.0, 1.0, id=1)
        done = subprocess.run(
            [sys.executable, "-c", READ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    own = {"piker_core", "cython_runtime"}
    assert {name for name in json.loads(done.stdout) if name[0] != "_"} == own
