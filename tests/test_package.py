"""What is built and installed: file lists, metadata, and a wheel in a fresh venv."""

import ast
import configparser
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import piker_core as pk

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
INSTALLED_SUFFIXES = {".py", ".pyi", ".pxd", ".typed", ".tmpl"}
PACKAGES = {"piker_core", "providers"}
heavy = pytest.mark.skipif(
    not os.environ.get("PIKER_HEAVY"), reason="builds the project: set PIKER_HEAVY=1"
)

USE_IT = """
import piker_core as pk
with pk.open_engine("kraken", namespace={namespace!r}) as engine:
    market = engine.add_market("xbtusd.kraken", capacity={{1: 256, 60: 256}})
    market.set_status("live")
    assert engine.push_trade(market, 1_732_320_000_250_000_000, 101.5, 0.25, id=1) == 1
    with pk.attach_bars("xbtusd.kraken", namespace={namespace!r}) as bars:
        assert bars.last()["close"] == 101.5, bars.last()
pk.remove_segments({namespace!r})
"""


def meson_text() -> str:
    return (ROOT / "meson.build").read_text()


def compiled_modules() -> list[str]:
    """Names of the extension modules, as meson.build has them."""
    listed = re.search(r"foreach name : (\[.*?\])", meson_text(), re.DOTALL)
    assert listed, "no list of extension modules in meson.build"
    return list(ast.literal_eval(listed[1]))


def listed_files() -> set[str]:
    """Paths that meson.build installs from src/, relative to it."""
    table = re.search(
        r"^installed = (\{.*?^\})", meson_text(), re.DOTALL | re.MULTILINE
    )
    assert table, "no table of installed files in meson.build"
    folders: dict[str, list[str]] = ast.literal_eval(table[1])
    return {f"{folder}/{name}" for folder, names in folders.items() for name in names}


def source_files() -> set[str]:
    return {
        path.relative_to(SRC).as_posix()
        for path in SRC.rglob("*")
        if path.suffix in INSTALLED_SUFFIXES and path.is_file()
    }


def imported_names(path: Path) -> Iterator[str]:
    """Top-level modules that a source file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def project_table() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def requirement_name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0].lower().replace("-", "_")


def run(*command: object, cwd: Path) -> str:
    """Output of a command that must succeed."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


def test_every_source_file_is_listed_in_meson_build() -> None:
    unlisted = sorted(source_files() - listed_files())
    assert not unlisted, f"add to `installed` in meson.build: {unlisted}"
    missing = sorted(listed_files() - source_files())
    assert not missing, f"in meson.build, but not there: {missing}"


def test_every_compiled_module_has_its_source_and_stub() -> None:
    core = SRC / "piker_core" / "core"
    assert {path.stem for path in core.glob("*.pyx")} == set(compiled_modules())
    for name in compiled_modules():
        assert f"piker_core/core/{name}.pyi" in listed_files()


def test_the_version_is_the_same_everywhere() -> None:
    built = re.search(r"version: '([^']+)'", meson_text())
    assert built
    assert pk.__version__ == built[1] == version("piker-core")


def test_the_changelog_has_the_version() -> None:
    assert f"## [{pk.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_installed_provider_is_found_by_its_entry_point() -> None:
    points = {point.name: point for point in entry_points(group="piker_core.providers")}
    assert points["kraken"].value == "providers.kraken"
    assert points["kraken"].load().name == "kraken"


def test_the_command_is_an_entry_point() -> None:
    (command,) = entry_points(group="console_scripts", name="piker-core")
    assert callable(command.load())


def test_every_third_party_import_is_a_declared_dependency() -> None:
    dependencies = project_table()["dependencies"]
    assert isinstance(dependencies, list)
    extras = project_table()["optional-dependencies"]
    assert isinstance(extras, dict)
    for extra in extras.keys() - {"bench", "dev"}:
        dependencies += extras[extra]
    declared = {requirement_name(requirement) for requirement in dependencies}
    known = declared | PACKAGES | set(sys.stdlib_module_names)
    undeclared = {
        f"{path.relative_to(SRC)}: {name}"
        for path in SRC.rglob("*.py")
        for name in imported_names(path)
        if name not in known
    }
    assert not undeclared, f"add to pyproject.toml: {sorted(undeclared)}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of what is committed, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def fresh_python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new venv, outside the checkout, that has the wheel only."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return python


def wheel_names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@heavy
def test_the_wheel_holds_the_packages_and_nothing_else(built: Path) -> None:
    names = {name for name in wheel_names(built) if ".dist-info/" not in name}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    modules = {f"piker_core/core/{name}{suffix}" for name in compiled_modules()}
    assert names == listed_files() | modules


@heavy
def test_the_wheel_carries_its_licence_and_entry_points(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        about = {
            name.partition(".dist-info/")[2]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    assert about["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0" in about["METADATA"]
    points = configparser.ConfigParser()
    points.read_string(about["entry_points.txt"])
    assert points["piker_core.providers"]["kraken"] == "providers.kraken"
    assert points["console_scripts"]["piker-core"] == "piker_core.cli:main"


@heavy
def test_the_sdist_has_what_builds_and_tests_it(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "Makefile", "README.md", "meson.build", "pyproject.toml"}
    needed |= {"src/piker_core/core/ring.h", "tests/conftest.py", ".ci/run"}
    assert needed <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


@heavy
def test_the_wheel_works_in_a_fresh_venv(fresh_python: Path, namespace: str) -> None:
    elsewhere = fresh_python.parents[2]
    run(fresh_python, "-I", "-c", USE_IT.format(namespace=namespace), cwd=elsewhere)


@heavy
def test_the_command_of_the_wheel_lists_its_provider(fresh_python: Path) -> None:
    command = fresh_python.with_name("piker-core")
    assert "kraken" in run(command, "providers", cwd=fresh_python.parents[2])
