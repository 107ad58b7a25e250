"""The lock files: everything pinned, everything hashed, nothing fetched from a named place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.guards.tree import ROOT, shown

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"[a-z0-9][a-z0-9._-]*(?:\[[a-z0-9,-]+\])?==[^\s;]+(?: ; [^\\]+)?(?: --hash=sha256:[0-9a-f]{64})+")


def loose(lock: str) -> list[str]:
    """Entries of a lock that are not one pinned name with its hashes."""
    entries = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE)).splitlines()
    return [entry for entry in entries if not PINNED.fullmatch(re.sub(r"\s+", " ", entry).strip())]


def names(lock: str) -> set[str]:
    """The packages a lock pins."""
    return set(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==", lock, flags=re.MULTILINE))


@pytest.mark.parametrize("path", LOCKS, ids=shown)
def test_everything_is_pinned_and_hashed(path: Path) -> None:
    lock = path.read_text("utf-8")
    assert names(lock)
    assert loose(lock) == []


def test_each_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]
    wanted = {
        "runtime.txt": [*project["project"]["dependencies"], *groups["build"]],
        "test.txt": [*project["project"]["dependencies"], *groups["build"], *groups["test"], *groups["check"]],
        "schemas.txt": groups["schemas"],
    }
    assert {path.name for path in LOCKS} == set(wanted)
    for path in LOCKS:
        declared = {re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in wanted[path.name]}
        assert declared <= names(path.read_text("utf-8")), f"{shown(path)} is behind pyproject.toml: make lock"


def test_tests_run_on_the_releases_that_ship() -> None:
    runtime, test = (
        set(re.findall(r"^[a-z0-9._-]+==[^\s;]+", lock.read_text("utf-8"), flags=re.MULTILINE))
        for lock in (ROOT / "requirements" / "runtime.txt", ROOT / "requirements" / "test.txt")
    )
    assert runtime <= test


@pytest.mark.parametrize(
    "entry",
    [
        "thing==1.0",
        "thing>=1.0 --hash=sha256:" + "a" * 64,
        "thing==1.0 --hash=md5:" + "a" * 32,
        "--index-url somewhere",
        "thing @ https://example.test/thing.whl --hash=sha256:" + "a" * 64,
    ],
)
def test_the_guard_finds_what_is_loose(entry: str) -> None:
    good = "# made by hand\nother==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "b" * 64 + "\n    # via x\n"
    assert loose(good) == []
    assert loose(good + entry + "\n") == [entry]
