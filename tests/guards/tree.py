"""The repository's files, as git knows them: committed, or new and not ignored."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = tuple(path for name in listing.split("\0") if name and (path := ROOT / name).is_file())
    assert found, f"git lists no files in {ROOT}; guards look at a checkout"
    return found


def python_files(below: Path = ROOT) -> list[Path]:
    """The Python files below a folder."""
    return [path for path in files() if path.suffix == ".py" and path.is_relative_to(below)]


@cache
def syntax(path: Path) -> ast.Module:
    """A Python file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path) -> str:
    """A file's name for people."""
    return str(path.relative_to(ROOT))
