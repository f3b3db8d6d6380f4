"""A new provider to begin with: a package that works, against a venue made up."""

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path

from piker_core.errors import PikerError
from piker_core.provider import is_provider

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "tests/test_newvenue.py": "test.py",
    **{
        f"newvenue/{name}.py": f"{name}.py"
        for name in (
            *("__init__", "api", "wire", "feed", "history"),
            *("venue", "venue_socket", "venue_rest"),
        )
    },
}
"""What is written, and the template of it; `newvenue` stands for the name."""
_NAME = re.compile(r"[a-z][a-z0-9_]{1,19}")


def write_provider(name: str, folder: Path) -> list[Path]:
    """Write a provider of this name into `folder/name`; the files.

    Raises PikerError for a name that cannot be one or is taken, and where something is
    in the way; nothing is written then.
    """
    _check_name(name)
    root = folder / name
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PikerError(f"{root} is there already: remove it, or give another --out")
    written = []
    templates = files("piker_core.conformance") / "skeleton"
    for target, template in FILES.items():
        text = (templates / f"{template}.tmpl").read_text("utf-8")
        path = root / target.replace("newvenue", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_named(text, name), "utf-8")
        written.append(path)
    return written


def _named(text: str, name: str) -> str:
    spellings = {"newvenue": name, "Newvenue": name.capitalize()}
    spellings["NEWVENUE"] = name.upper()
    for word, spelling in spellings.items():
        text = text.replace(word, spelling)
    return text


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise PikerError(
            f"{name!r} cannot be the name of a provider: write 2 to 20 of [a-z0-9_], a "
            "letter first"
        )
    if is_provider(name) or importlib.util.find_spec(name) is not None:
        raise PikerError(f"{name!r} is taken: a module of this name is installed")
