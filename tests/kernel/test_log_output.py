"""Logs whose disk is full, or whose reader has gone, cost nothing but themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import structlog
from strongroom.kernel.telemetry import configure_logs

configure_logs()
for number in range(2000):
    structlog.get_logger().warning("a line that is long enough to fill whatever stands in between", number=number)
print("went on")
"""


def run_with(stderr: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=False
    )


@pytest.mark.parametrize("broken", ["full", "closed"])
def test_work_goes_on_when_logs_can_not_be_written(broken: str) -> None:
    if broken == "full":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    try:
        done = run_with(stderr)
    finally:
        os.close(stderr)
    assert done.stdout == b"went on\n"


def test_what_can_be_written_is(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert run_with(log.fileno()).returncode == 0
    assert (tmp_path / "log").read_text().count("a line that is long enough") == 2000
