"""Servers are started and ended as a whole, and what they cost is counted."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from bench import processes
from bench.failure import BenchError
from bench.processes import cpu_s, family_of, free_port, resident_mib, serving

SERVER = """
import socket, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()
"""


def ended(members: Sequence[psutil.Process]) -> bool:
    # Orphans stay on the list until the first process has taken note of them.
    return not psutil.wait_procs(members, timeout=30)[1]


def test_a_server_is_up_inside_the_block_and_gone_with_its_children_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child doesn't end with its parent, so it has to be ended after this time.
    monkeypatch.setattr(processes, "_STOP_TIMEOUT_S", 1.0)
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]

    with serving(command, port=port, log=tmp_path / "log", environment=os.environ) as process:
        family = family_of(process)
        rss, pss = resident_mib(process)

    assert len(family) == 2
    assert 0 < pss <= rss
    assert ended(family)


def test_a_server_that_dies_is_quoted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]

    with (
        pytest.raises(BenchError, match="no such setting"),
        serving(command, port=free_port(), log=tmp_path / "log", environment=os.environ),
    ):
        pytest.fail("it can't have started")


def test_cpu_time_counts_children_that_have_ended() -> None:
    spender = "import time; e = time.process_time() + 0.3\nwhile time.process_time() < e: pass"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {spender!r}]); time.sleep(600)"
    with psutil.Popen([sys.executable, "-c", parent]) as process:
        try:
            deadline = time.monotonic() + 30
            while cpu_s([process]) < 0.3 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert cpu_s([process]) >= 0.3
            assert not process.children()
        finally:
            process.kill()
