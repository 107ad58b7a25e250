"""Rows, goals and `bench.json`."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.bulk import Filled
from bench.findings import FULL, QUICK, Findings
from bench.load import Load
from bench.lookup import LookedUp
from bench.measure import Run
from bench.report import Goal, Row, costs, print_costs, print_rows, rows, write_json
from bench.sealing import Sealing, Speed
from bench.tokens import TokenRates


def run(rate: float, p99_ms: float = 5.0) -> Run:
    load = Load(requests=int(rate * 10), seconds=10, p50_ms=1, p99_ms=p99_ms, max_ms=50)
    return Run(load=load, cpu_us={"api": 300.0, "database": 120.0})


def findings() -> Findings:
    return Findings(
        floors=[9_000, 11_000],
        ordinary=run(500),
        created={32: [run(1_900), run(2_100)], 128: [run(2_990)]},
        at_half_load=run(1_000, p99_ms=25.0),
        batches=[Filled(instructions=tens * 10, seconds=10, cpu_us={"api": 20.0}) for tens in (20_000, 22_000)],
        bulk=Filled(instructions=110_000, seconds=10, cpu_us={"api": 40.0}),
        rate_with_few=1_900,
        rate_with_many=1_700,
        lookups_few=LookedUp(customers=1_000, rate=1_000, p99_ms=2),
        lookups_many=LookedUp(customers=20_000, rate=850, p99_ms=12),
        tokens=TokenRates(by_hmac=800, by_assertion=700, checked=5_000, remembered=200_000, bound=600),
        rss_mib=251,
        pss_mib=180,
        sealing=Sealing(
            bare=Speed(sealed=1_000, opened=1_000),
            one_layer=Speed(sealed=500, opened=499),
            both_layers=Speed(sealed=300, opened=240),
            personal=Speed(sealed=30, opened=20),
            with_one=1_000,
            with_both=899,
            rewrapped=100,
            reencrypted=20_000,
            scopes_mib=50,
        ),
    )


def test_floor_and_figures_are_means_of_their_turns_and_every_goal_is_judged() -> None:
    judged = {
        row.aim: (row.ratio if row.floor else row.value, row.met)
        for row in rows(findings(), QUICK)
        if row.goal and "layer" not in row.name
    }

    assert judged == {
        "≥ 0.2 × floor": (0.2, True),
        "≥ 0.3 × floor": (0.299, False),
        "≥ 2 × floor": (2.1, True),
        "≤ 25 ms": (25.0, True),
        "≥ 0.9 × floor": (1_700 / 1_900, False),
        "≥ 0.8 × floor": (0.85, True),
        "≥ 500 /s": (100, False),
        "≤ 10 ms": (12, False),
        "≤ 250 MiB": (251, False),
    }


def test_sealing_is_held_against_the_bare_cipher_and_both_layers_against_twice_of_it() -> None:
    judged = {
        row.name: (row.ratio, row.met) for row in rows(findings(), FULL) if "bytes" in row.name or "both" in row.name
    }

    held = [(0.5, True), (0.499, False), (0.6, True), (0.48, False), (0.899, False)]
    assert list(judged.values()) == [*held, (None, None), (None, None)]


def test_a_quick_run_says_so_in_every_name() -> None:
    names = [row.name for row in (*rows(findings(), QUICK), *costs(findings(), QUICK))]

    assert all(name.endswith(" (quick)") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("value", "met"), [(19.9999, False), (20.0, True)])
def test_a_goal_is_judged_before_rounding(value: float, met: bool) -> None:
    assert Row(name="x", value=value, unit="/s", floor=100, goal=Goal(bound="≥", limit=0.2)).met is met


def test_the_json_has_the_agreed_fields(tmp_path: Path) -> None:
    with_floor = Row(name="create", value=250, unit="/s", floor=1_000, goal=Goal(bound="≥", limit=0.2))
    without = Row(name="memory", value=123.45678, unit="MiB")

    write_json([with_floor, without], tmp_path / "bench.json")

    assert json.loads((tmp_path / "bench.json").read_text()) == [
        {
            "name": "create", "value": 250, "unit": "/s", "floor": 1000, "ratio": 0.25,
            "goal": "≥ 0.2 × floor", "met": True,
        },
        {
            "name": "memory", "value": 123.4568, "unit": "MiB", "floor": None, "ratio": None,
            "goal": None, "met": None,
        },
    ]  # fmt: skip


def test_the_tables_show_verdicts_and_where_the_time_goes() -> None:
    console = Console(file=StringIO(), width=200)

    print_rows(rows(findings(), QUICK), console)
    print_costs(findings(), console)

    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    verdict = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in lines if line.count("│") == 8}
    assert verdict["create order, 32 connections (quick)"] == "met"
    assert verdict["create order, 128 connections (quick)"] == "not met"
    cost = next(line for line in lines if line.startswith("│ the ordinary way, 32 connections ") and "420" in line)
    assert [cell.strip() for cell in cost.split("│")[2:5]] == ["300", "120", "420"]
