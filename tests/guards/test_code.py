"""Rules about Python files that no linter has: no way round the checks without a reason, nothing too long."""

from __future__ import annotations

import ast
import io
import re
import tokenize

import pytest

from tests.guards.tree import python_files, shown, syntax

MAX_LINES = 700

SKIPPING = frozenset({"skip", "skipif", "xfail", "importorskip"})
EXCEPTION = re.compile(r"#\s*(?:type:\s*ignore|noqa|pragma:|ruff:|mypy:)")
REASONED = re.compile(
    r"#\s*(?:type:\s*ignore\[[a-z-]+(?:,\s*[a-z-]+)*\]|noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\W+(?P<why>\w.+)"
)


def skips(tree: ast.AST) -> list[int]:
    """Lines on which a test is skipped, or expected to fail."""
    return sorted(
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in SKIPPING and _is_pytest(node.value))
        or (isinstance(node, ast.ImportFrom) and node.module == "pytest" and {a.name for a in node.names} & SKIPPING)
    )


def unreasoned(source: str) -> list[int]:
    """Lines that switch a check off without naming the rule and saying why."""
    return [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and EXCEPTION.match(token.string) and not _says_why(token.string)
    ]


def _is_pytest(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "mark" and _is_pytest(node.value)
    return isinstance(node, ast.Name) and node.id == "pytest"


def _says_why(comment: str) -> bool:
    match = REASONED.match(comment)
    return match is not None and len(match["why"]) >= 6


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    found = [f"{shown(path)}:{line}" for path in python_files() for line in skips(syntax(path))]
    assert not found, "a test runs, or isn't there:\n" + "\n".join(found)


def test_switching_a_check_off_needs_its_name_and_a_reason() -> None:
    found = [f"{shown(path)}:{line}" for path in python_files() for line in unreasoned(path.read_text("utf-8"))]
    assert not found, "write `# noqa: CODE  why` or `# type: ignore[code]  # why`:\n" + "\n".join(found)


def test_no_file_is_too_long() -> None:
    lengths = {shown(path): len(path.read_text("utf-8").splitlines()) for path in python_files()}
    found = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MAX_LINES]
    assert not found, f"more than {MAX_LINES} lines are more than one thing:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n@pytest.mark.skip\ndef test(): ...",
        "import pytest\n@pytest.mark.xfail(reason='later')\ndef test(): ...",
        "import pytest\npytest.importorskip('x')",
        "import os\nfrom pytest import skip",
    ],
)
def test_the_guard_finds_skips(source: str) -> None:
    assert skips(ast.parse(source)) == [2]


@pytest.mark.parametrize("comment", ["type: ignore", "type: ignore[arg-type]", "noqa", "noqa: S101", "noqa: S101  hm"])
def test_the_guard_finds_what_gives_no_reason(comment: str) -> None:
    assert unreasoned(f"x = 1  # {comment}\n") == [1]


@pytest.mark.parametrize("comment", ["type: ignore[arg-type]  # no None here", "noqa: S101  two cases only", "noqa"])
def test_the_guard_accepts_reasons_and_strings(comment: str) -> None:
    assert unreasoned(f"x = '# {comment}'\n") == []
    if " " in comment:
        assert unreasoned(f"x = 1  # {comment}\n") == []
