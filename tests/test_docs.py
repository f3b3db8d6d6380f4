"""The examples of the documentation are run; links in it lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/bars.md")
] + sorted((ROOT / "docs").glob("*.md"))


def examples(path: Path) -> str:
    """The Python blocks of a document, each on its own lines."""
    lines, inside = [], False
    for line in path.read_text().splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(lines)


def test_the_examples_of_bars_run(namespace: str) -> None:
    path = ROOT / "docs" / "bars.md"
    code = examples(path)
    assert code.count("assert ") > 20
    scope: dict[str, Any] = {}
    try:
        exec(compile(code, str(path), "exec"), scope)
    finally:
        scope["engine"].close()


@pytest.mark.parametrize("path", sorted(set(DOCUMENTS)), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target
