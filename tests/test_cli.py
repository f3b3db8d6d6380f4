"""The command line: help, usage, and how it ends when something goes wrong."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import pytest
from typer.testing import CliRunner

import piker_core as pk
from piker_core.cli import failures, load_app, output
from tests.commands import run

COMMANDS = (
    "demo",
    "feed",
    "bars",
    "ticks",
    "search",
    "providers",
    "check",
    "new-provider",
    "segments",
    "doctor",
    "history",
    "plot",
)


def test_help_imports_neither_numpy_nor_trio_nor_httpx() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "piker_core", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "piker_core" in imported
    assert not imported & {"numpy", "trio", "httpx", "msgspec", "websockets"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_documents_its_exit_codes_and_shared_options(
    command: str,
) -> None:
    done = CliRunner().invoke(load_app(), [command, "--help"])
    assert done.exit_code == 0
    for text in ("Exit codes:", "3  not found", "--json", "--namespace", "--debug"):
        assert text in done.output


def test_the_command_list_documents_the_exit_codes() -> None:
    done = CliRunner().invoke(load_app(), ["--help"])
    assert all(command in done.output for command in COMMANDS)
    assert "5  machine or configuration in trouble" in done.output


def test_the_console_script_is_the_module() -> None:
    points = entry_points(group="console_scripts", name="piker-core")
    assert {point.value for point in points} == {"piker_core.cli:main"}


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"piker-core {pk.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["nosuchcommand"],
        ["bars"],
        ["bars", "a.b", "--period", "0"],
        ["bars", "a.b", "-n", "-1"],
        ["feed"],
        ["feed", "XBTUSD"],
        ["feed", "xbtusd"],
        ["segments", "--namespace", "a/b"],
        ["demo", "--seconds", "1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(words: list[str], namespace: str) -> None:
    done = CliRunner().invoke(load_app(), words)
    assert done.exit_code == failures.USAGE
    assert "Usage:" in done.output


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (pk.NotFound("no ring"), 3, "no ring"),
        (pk.ProviderError("odd answer"), 4, "odd answer"),
        (pk.DataThrottle("wait", retry_after=1.0), 4, "wait"),
        (pk.WriterBusy("taken"), 5, "taken"),
        (pk.PikerError("misspelt"), 5, "misspelt"),
        (TimeoutError("too long"), 4, "too long"),
        (BrokenPipeError(32, "Broken pipe"), 4, "Broken pipe"),
        (
            OSError(28, "No space left", "/dev/shm/x"),
            5,
            "/dev/shm/x: No space left: free",
        ),
        (OSError(28, "no space left in /dev/shm: do this"), 5, "do this"),
        (FileNotFoundError(2, "No such file", "/dev/shm"), 5, "mount a tmpfs there"),
        (KeyError("k"), 1, "unexpected KeyError: 'k' (a bug"),
        (AssertionError(), 1, "unexpected AssertionError (a bug"),
        (KeyboardInterrupt(), 130, ""),
        (failures.OutputClosed(), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_an_exit_code_and_a_sentence(
    error: BaseException, code: int, text: str
) -> None:
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error])])
    for raised in (error, group):
        found, sentence = failures.explain(raised)
        assert found == code
        assert text in sentence
        assert bool(text) == bool(sentence)


def test_of_several_errors_the_unexpected_one_is_told() -> None:
    group = ExceptionGroup("both", [pk.FeedError("ended"), ZeroDivisionError("by 0")])
    code, sentence = failures.explain(group)
    assert code == failures.BUG
    assert "ZeroDivisionError" in sentence
    assert sentence.endswith("(and 1 more errors)")


def test_an_interrupt_among_errors_is_an_interrupt() -> None:
    group = BaseExceptionGroup("", [ValueError("late"), KeyboardInterrupt()])
    assert failures.explain(group) == (failures.INTERRUPTED, "")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (83769.7, "83769.7"),
        (1e-8, "0.00000001"),
        (0.1 + 0.2, "0.3"),
        (5e15, "5000000000000000"),
        (0.0, "0"),
    ],
)
def test_numbers_are_written_without_noise_and_exponent(
    number: float, text: str
) -> None:
    assert output.decimal_text(number) == text


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (["1", "2.5", "-3"], True),
        (["39 MB", "8.7 kB"], True),
        (["1/256", ""], True),
        (["2026-01-01 00:00:00"], False),
        (["live", "1"], False),
        (["", ""], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_aligned_to_the_right(
    cells: Sequence[str], right: bool
) -> None:
    assert output.numeric(cells) is right


def test_sizes_spans_and_times_are_written_for_people() -> None:
    assert output.bytes_text(999) == "999 B"
    assert output.bytes_text(8_658_944) == "8.7 MB"
    assert output.bytes_text(479_383_552) == "479 MB"
    assert output.span_text(12.4) == "12 s"
    assert output.span_text(7200) == "2.0 h"
    assert output.utc_text(0.25, 3) == "1970-01-01 00:00:00.250"
    assert output.utc_text(2.0**62) == f"{2.0**62} s"
