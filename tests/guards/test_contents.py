"""Nothing in the repository speaks of the machine it was written on, names a registry, or gives a private key away."""

from __future__ import annotations

import re

import pytest

from tests.guards.tree import files, shown

# None of these patterns matches its own text.
UNWANTED = {
    "a path of somebody's machine": re.compile(rb"(?<![\w.-])/(?:(?:work|root)/|home/\w|Users/\w)"),
    "the host of a package registry": re.compile(
        rb"\b(?:pypi|pythonhosted|npmjs|debian|ubuntu)\.(?:org|com)\b|\bregistry\.npm|\bghcr\.(?:io)\b"
    ),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s|\\n|\\r|[\"'])*[A-Za-z0-9+/]{32}"),
}


def findings(content: bytes) -> list[tuple[str, int]]:
    """What is unwanted in a file, and on which lines."""
    return [
        (what, content.count(b"\n", 0, match.start()) + 1)
        for what, pattern in UNWANTED.items()
        for match in pattern.finditer(content)
    ]


def test_no_file_holds_anything_unwanted() -> None:
    found = [f"{shown(path)}:{line}: {what}" for path in files() for what, line in findings(path.read_bytes())]
    assert not found, "take these out:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("what", "pieces"),
    [
        ("a path of somebody's machine", ("see /", "work/main")),
        ("a path of somebody's machine", ("'/", "root/.config'")),
        ("a path of somebody's machine", ("/ho", "me/ada/x")),
        ("the host of a package registry", ("https://files.python", "hosted.org/x")),
        ("the host of a package registry", ("pypi", ".org")),
        ("a private key", ("-----BEGIN EC PRIVATE ", "KEY-----\n", "MHcCAQEEIIr" * 4)),
        ("a private key", ("-----BEGIN PRIVATE ", "KEY-----\\n", "MHcCAQEEIIr" * 4)),
    ],
)
def test_each_pattern_finds_what_it_is_for(what: str, pieces: tuple[str, ...]) -> None:
    assert findings(("first line\n" + "".join(pieces)).encode()) == [(what, 2)]


@pytest.mark.parametrize("text", ["/workers/", "a/root/b", "/home/", "/homes/x", "-----BEGIN PRIVATE KEY-----"])
def test_what_only_looks_similar_passes(text: str) -> None:
    assert findings(text.encode()) == []
