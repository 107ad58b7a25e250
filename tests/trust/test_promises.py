"""The list itself: nothing is ever taken off it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from strongroom.database import CATALOGUE
from strongroom.trust import CHECKS, PROMISES, Group
from strongroom.trust.stage import KEPT, SWEPT

IDS = [
    *(f"ACC-{number}" for number in range(1, 8)),
    *(f"ENC-{number}" for number in range(1, 7)),
    *(f"AVL-{number}" for number in range(1, 6)),
    *(f"NET-{number}" for number in range(1, 6)),
    *(f"MON-{number}" for number in range(1, 7)),
    *(f"ASR-{number}" for number in range(1, 9)),
    *(f"PRV-{number}" for number in range(1, 10)),
    *(f"PAY-{number}" for number in range(1, 5)),
]
FORMS = {
    "pci": re.compile(r"(?:[1-9]|1[0-2])(?:\.\d{1,2}){2,3}"),
    "iso": re.compile(r"[5-8]\.\d{1,2}"),
    "gdpr": re.compile(r"\d{1,2}(?:\(\d\)(?:\([a-h]\))?)?"),
    "asvs": re.compile(r"(?:[1-9]|1[0-7])\.\d{1,2}\.\d{1,2}"),
}
ANNEX_A = {"5": 37, "6": 8, "7": 14, "8": 34}
"""Theme → how many controls it has (ISO/IEC 27001:2022)."""


def test_all_fifty_are_there_in_order() -> None:
    assert len(IDS) == 50
    assert [promise.id for promise in PROMISES] == IDS


def test_each_says_something_of_its_own() -> None:
    sentences = [promise.sentence for promise in PROMISES]
    assert len(set(sentences)) == 50
    assert all(sentence.endswith(".") and len(sentence) >= 30 for sentence in sentences)


def test_every_group_has_its_promises() -> None:
    assert [group for group in Group if any(promise.group is group for promise in PROMISES)] == list(Group)
    assert next(promise for promise in PROMISES if promise.id == "PRV-3").group is Group.PRIVACY


def test_checks_are_of_promises() -> None:
    assert set(CHECKS) == {
        "ACC-1",
        "ACC-2",
        "ACC-3",
        "ACC-4",
        "ACC-5",
        "ACC-6",
        "ENC-1",
        "ENC-2",
        "ENC-3",
        "ENC-4",
        "ENC-5",
        "PAY-2",
        "PAY-3",
    }
    assert set(CHECKS) <= set(IDS)


@pytest.mark.parametrize("standard", FORMS)
def test_references_have_the_standard_s_form(standard: str) -> None:
    found = [(promise.id, id_) for promise in PROMISES for id_ in getattr(promise.references, standard)]
    assert found
    assert [entry for entry in found if not FORMS[standard].fullmatch(entry[1])] == []


def test_annex_a_has_these_controls() -> None:
    for promise in PROMISES:
        for id_ in promise.references.iso:
            theme, number = id_.split(".")
            assert 1 <= int(number) <= ANNEX_A[theme], f"{promise.id}: {id_}"


@pytest.mark.judges
def test_asvs_has_these_requirements() -> None:
    published = Path(os.environ["STRONGROOM_JUDGES"]) / "asvs" / "asvs-5.0.0.flat.json"
    known = {entry["req_id"] for entry in json.loads(published.read_text())["requirements"]}
    unknown = {id_ for promise in PROMISES for id_ in promise.references.asvs if f"V{id_}" not in known}
    assert unknown == set()


def test_the_stage_is_swept_of_every_table() -> None:
    assert {*SWEPT, *KEPT} == set(CATALOGUE["region"])
    assert not set(SWEPT) & set(KEPT)
