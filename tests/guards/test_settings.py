"""The test run itself: what is skipped counts as failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards.tree import ROOT

PLAIN = {name: value for name, value in os.environ.items() if name != "CI"}
"""On CI pytest prints every reason twice."""
SKIPPING = {
    "marked": "@pytest.mark.skip(reason='no bank')\ndef test_it(): ...",
    "inside": "def test_it(): pytest.skip('no bank')",
    "module": "pytest.skip('no bank', allow_module_level=True)",
    "expected": "@pytest.mark.xfail(reason='no bank')\ndef test_it(): assert False",
}
PLUGIN = "tests.fixtures.strict"


def test_the_rule_is_this_run_s(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin(PLUGIN)


def test_a_skipped_test_fails_the_run(tmp_path: Path) -> None:
    for name, source in SKIPPING.items():
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{source}\n")
    options = ["-p", PLUGIN, "-p", "no:cacheprovider", "-c", "/dev/null", "--continue-on-collection-errors"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        env=PLAIN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stdout.count("A test may not be skipped or expected to fail: ") == len(SKIPPING)
    assert "2 failed, 2 errors in" in run.stdout


def test_an_expected_failure_alone_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_expected.py").write_text(f"import pytest\n{SKIPPING['expected']}\n")
    options = ["-p", PLUGIN, "-p", "no:cacheprovider", "-c", "/dev/null"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        env=PLAIN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
