"""Load by `wrk`: one thread of C, so that on two cores the generator leaves the machine to what is measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench import workload
from bench.failure import BenchError

_SCRIPT = Path(__file__).with_name("load.lua")
_TIMEOUT_S = 10
_GRACE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of one run. A latency runs from the request's sending to the answer's end."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return self.requests / self.seconds


def require_wrk() -> str:
    """The path of wrk.

    Raises:
        BenchError: it isn't installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("the load generator `wrk` is missing; install it with: apt-get install wrk")
    return found


def create_orders(
    base_url: str, headers: Mapping[str, str], *, run: str, connections: int, seconds: int, rate: float | None = None
) -> Load:
    """Create orders, one a request, over TLS connections that are kept; as fast as answers come, or at `rate` a second.

    Raises:
        BenchError: wrk is missing, or not every answer was a success: then there is no figure.
    """
    address = urlsplit(base_url)
    lines = [f"POST {workload.CREATE_PATH} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Content-Type: application/json", "Content-Length: "]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "BENCH_HEAD": "\r\n".join(lines),
        "BENCH_BODY": workload.template(),
        "BENCH_RUN": run,
        "BENCH_CUSTOMERS": str(workload.CUSTOMERS),
    }
    if rate is not None:
        environment["BENCH_RATE"] = str(rate)
    size = ("--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s")
    command = [require_wrk(), *size, "--timeout", f"{_TIMEOUT_S}s", "--script", str(_SCRIPT), base_url]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False
    )
    return parse_report(done.stdout + done.stderr)


def parse_report(said: str) -> Load:
    """Read the line of JSON that `load.lua` ends with.

    Raises:
        BenchError: there is none, or an answer was an error, late or cut off.
    """
    report = next((line for line in reversed(said.splitlines()) if line.startswith("{")), None)
    if report is None:
        raise BenchError(f"wrk gave no report:\n{said}")
    told: dict[str, int] = json.loads(report)
    if told["refused"] or told["timed_out"] or told["broken"]:
        raise BenchError(f"not every request was answered with success, so the rate means nothing: {report}")
    return Load(
        requests=told["requests"],
        seconds=told["duration_us"] / 1e6,
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        max_ms=told["max_us"] / 1e3,
    )
