"""Running checks: verdicts, evidence, and what becomes of checks that fail to finish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.kernel.errors import Invalid
from strongroom.trust import PROMISES, Check, Colour, Figure, Verdict, Workbench, describe_age, last_verdicts, prove
from strongroom.trust.evidence import NOT_BUILT, NOT_CHECKED
from strongroom.trust.verdicts import CannotTell, Findings


async def _kept(bench: Workbench) -> Figure:
    return Figure("3 doors tried, 0 open")


async def _broken(bench: Workbench) -> Figure:
    findings = Findings()
    for door in range(7):
        findings.expect(door == 6, f"door {door} is open")
    return findings.figure("all shut")


async def _fails(bench: Workbench) -> Figure:
    raise ConnectionRefusedError("nobody is at home")


async def _cannot_tell(bench: Workbench) -> Figure:
    raise CannotTell("There is nothing to look at here.")


CHECKS: Mapping[str, Check] = {"MON-1": _kept, "MON-2": _broken, "MON-3": _fails, "MON-4": _cannot_tell}


async def test_each_outcome_has_its_verdict(bench: Workbench) -> None:
    told: list[tuple[str, str]] = []
    verdicts = await prove(
        bench,
        ["mon-1", "MON-2", "MON-3", "MON-4", "MON-5"],
        checks=CHECKS,
        report=lambda promise, verdict: told.append((promise.id, verdict.colour if verdict else "begins")),
    )
    assert [(verdict.id, verdict.colour, verdict.figure) for verdict in verdicts] == [
        ("MON-1", Colour.GREEN, "3 doors tried, 0 open"),
        (
            "MON-2",
            Colour.RED,
            "door 0 is open; door 1 is open; door 2 is open; door 3 is open; door 4 is open; and 1 more",
        ),
        ("MON-3", Colour.RED, "The check could not finish: nobody is at home"),
        ("MON-4", Colour.UNBUILT, "There is nothing to look at here."),
        ("MON-5", Colour.UNBUILT, NOT_BUILT),
    ]
    assert told == [
        ("MON-1", "begins"), ("MON-1", Colour.GREEN), ("MON-2", "begins"), ("MON-2", Colour.RED),
        ("MON-3", "begins"), ("MON-3", Colour.RED), ("MON-4", "begins"), ("MON-4", Colour.UNBUILT),
    ]  # fmt: skip


async def test_the_last_evidence_counts(bench: Workbench) -> None:
    async def turned(bench: Workbench) -> Figure:
        return Figure("ajar", ("ajar",))

    await prove(bench, ["AVL-1"], checks={"AVL-1": _kept})
    await prove(bench, ["AVL-1"], checks={"AVL-1": turned})
    standing = {verdict.id: verdict for verdict in await last_verdicts(bench.databases, ["AVL-1", "AVL-2"])}
    assert list(standing) == [promise.id for promise in PROMISES]
    assert (standing["AVL-1"].colour, standing["AVL-1"].figure) == (Colour.RED, "ajar")
    assert (standing["AVL-2"].colour, standing["AVL-2"].figure) == (Colour.UNBUILT, NOT_CHECKED)
    assert (standing["AVL-3"].colour, standing["AVL-3"].figure) == (Colour.UNBUILT, NOT_BUILT)
    assert standing["AVL-2"].checked_at is None


async def test_what_says_nothing_leaves_no_evidence(bench: Workbench) -> None:
    await prove(bench, ["AVL-4", "AVL-5"], checks={"AVL-4": _cannot_tell})
    standing = {verdict.id: verdict for verdict in await last_verdicts(bench.databases, ["AVL-4"])}
    assert standing["AVL-4"].checked_at is None
    assert standing["AVL-5"].checked_at is None


async def test_an_unknown_promise_is_refused(bench: Workbench) -> None:
    with pytest.raises(Invalid) as refused:
        await prove(bench, ["ENC-1", "ENC-99"])
    assert refused.value.code == "PROMISE_NOT_RECOGNISED"
    assert "ENC-99" in str(refused.value)


def test_the_form_as_data() -> None:
    verdict = Verdict(
        id="ENC-1",
        promise="All traffic…",
        colour=Colour.GREEN,
        figure="0",
        checked_at=datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC),
    )
    assert json.loads(json.dumps(verdict.as_data())) == {
        "id": "ENC-1",
        "promise": "All traffic…",
        "verdict": "green",
        "figure": "0",
        "checked_at": "2026-11-22T12:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (timedelta(seconds=0), "0 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(seconds=120), "2 min"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=12), "12 d"),
    ],
)
def test_ages_for_people(age: timedelta, said: str) -> None:
    assert describe_age(age) == said
