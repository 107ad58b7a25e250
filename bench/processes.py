"""The processes of a measurement: starting and ending them, and what they cost in CPU and memory."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.failure import BenchError

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.05
_LAST_WORDS = 3_000


def free_port() -> int:
    """A TCP port of the loopback address on which nobody listens at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str]
) -> Iterator[psutil.Process]:
    """Run a server until the end of the block, from the moment on that it accepts connections on `port`.

    Raises:
        BenchError: it ended early or doesn't answer in time; the message ends with its last words.
    """
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=dict(environment)) as child:
        process = psutil.Process(child.pid)
        try:
            if not _accepts(port, child):
                said = log.read_text(errors="replace")[-_LAST_WORDS:]
                raise BenchError(f"`{' '.join(command)}` doesn't answer on port {port}. Its last words:\n{said}")
            yield process
        finally:
            _end(child, process)


def family_of(process: psutil.Process) -> list[psutil.Process]:
    """The process and all its descendants alive now; empty when it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of CPU, user and system, that the processes and the children they have buried used since they began."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def resident_mib(process: psutil.Process) -> tuple[float, float]:
    """Resident memory in MiB: all of it (RSS), and with shared pages divided among their sharers (PSS)."""
    memory = process.memory_full_info()
    return memory.rss / 2**20, memory.pss / 2**20


def _accepts(port: int, child: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(_POLL_S)
    return False


def _end(child: subprocess.Popen[bytes], process: psutil.Process) -> None:
    # The family is noted first: who outlives the parent can't be found through it afterwards.
    family = family_of(process)
    child.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
    for straggler in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            straggler.kill()
    psutil.wait_procs(alive, timeout=_STOP_TIMEOUT_S)
    child.wait()
