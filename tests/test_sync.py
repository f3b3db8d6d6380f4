"""Each ordering of shared memory names its partner, and the partner names it back."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

CORE = Path(__file__).resolve().parents[1] / "src" / "piker_core" / "core"
SOURCES = sorted(
    path for path in CORE.iterdir() if path.suffix in (".h", ".pyx", ".pxi")
)
LABEL = re.compile(r"SYNC ([\w-]+): pairs with ([\w-]+(?:, [\w-]+)*)")
ORDERED = re.compile(
    r"memory_order_(?:acquire|release|acq_rel|seq_cst)"
    r"|\bpk_(?:load_acquire|store_release)\("
)
RELEASES = re.compile(r"memory_order_(?:release|acq_rel|seq_cst)|pk_store_release\(")
ACQUIRES = re.compile(r"memory_order_(?:acquire|acq_rel|seq_cst)|pk_load_acquire\(")


class Site(NamedTuple):
    """A line with an ordering access or a label."""

    place: str
    label: str
    partners: frozenset[str]
    releases: bool
    acquires: bool


def read_sites() -> list[Site]:
    found = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if is_definition(path, line) or not (
                ORDERED.search(line) or LABEL.search(line)
            ):
                continue
            said = LABEL.search(line)
            found.append(
                Site(
                    place=f"{path.name}:{number}",
                    label=said[1] if said else "",
                    partners=frozenset(said[2].split(", ") if said else ()),
                    releases=bool(RELEASES.search(line)),
                    acquires=bool(ACQUIRES.search(line)),
                )
            )
    return found


def is_definition(path: Path, line: str) -> bool:
    """The helpers themselves, and what Cython is told of them, order nothing."""
    return line.startswith("static inline") or (
        path.name == "atomics.h" and "atomic_" in line
    )


SITES = read_sites()
BY_LABEL: dict[str, list[Site]] = {}
for site in SITES:
    BY_LABEL.setdefault(site.label, []).append(site)


def test_there_are_labels_in_every_file_that_orders_memory() -> None:
    assert {site.place.partition(":")[0] for site in SITES} == {
        *("ring.h", "ticks.h", "wake.h", "segment.h"),
    }


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.place)
def test_every_ordering_access_carries_a_label(site: Site) -> None:
    assert site.label, f"{site.place} orders memory and does not say against what"


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.place)
def test_every_label_stands_on_an_ordering_access(site: Site) -> None:
    assert site.releases or site.acquires, site.place


@pytest.mark.parametrize("label", sorted(BY_LABEL.keys() - {""}))
def test_each_label_stands_on_both_sides(label: str) -> None:
    for site in BY_LABEL[label]:
        for partner in site.partners:
            assert partner in BY_LABEL, f"{site.place}: nobody is {partner}"
            for other in BY_LABEL[partner]:
                assert label in other.partners, f"{other.place} does not name {label}"


@pytest.mark.parametrize("label", sorted(BY_LABEL.keys() - {""}))
def test_one_side_releases_what_the_other_acquires(label: str) -> None:
    for site in BY_LABEL[label]:
        for partner in site.partners:
            for other in BY_LABEL[partner]:
                assert (site.releases and other.acquires) or (
                    site.acquires and other.releases
                ), f"{site.place} and {other.place} are on the same side"


@pytest.mark.parametrize("label", sorted(BY_LABEL.keys() - {""}))
def test_all_sites_of_a_label_have_the_same_partners(label: str) -> None:
    assert len({site.partners for site in BY_LABEL[label]}) == 1


def test_the_document_on_the_memory_model_knows_every_label() -> None:
    text = (CORE.parents[2] / "docs" / "memory-model.md").read_text()
    assert set(BY_LABEL) <= set(re.findall(r"`([\w-]+)`", text))
