"""The load generator's report, and what happens without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.failure import BenchError
from bench.load import parse_report

REPOSITORY = Path(__file__).resolve().parents[2]
CLEAN = {
    "requests": 2_000, "duration_us": 4_000_000, "p50_us": 1_500, "p90_us": 2_500, "p99_us": 9_250, "max_us": 20_000,
    "refused": 0, "timed_out": 0, "broken": 0,
}  # fmt: skip


def said(**changes: int) -> str:
    return f"Running 4s test @ https://127.0.0.1\n  2000 requests in 4.00s\n{json.dumps(CLEAN | changes)}\n"


def test_a_clean_run_gives_its_rate_and_latencies() -> None:
    load = parse_report(said())

    assert load.rate == 500.0
    assert (load.p50_ms, load.p99_ms, load.max_ms) == (1.5, 9.25, 20.0)


@pytest.mark.parametrize("trouble", ["refused", "timed_out", "broken"])
def test_one_answer_that_is_no_success_voids_the_run(trouble: str) -> None:
    with pytest.raises(BenchError, match=f'"{trouble}": 1'):
        parse_report(said(**{trouble: 1}))


def test_a_generator_that_dies_is_quoted() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        parse_report("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_without_wrk_the_bench_says_what_to_install_and_leaves_no_old_figures(tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    figures.write_text("[]")

    ended = subprocess.run(
        [sys.executable, "bench/run.py", "--quick", "--json", str(figures)],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "apt-get install wrk" in ended.stderr
    assert not figures.exists()
