"""Tokens are taken on a real installation, and one that is somebody else's stops the bench."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import tokens
from bench.failure import BenchError
from strongroom.identity import Admission
from strongroom.kernel.actors import Actor
from strongroom.kernel.ids import AccountId, new_uuid


def test_every_way_is_measured_and_a_wrong_holder_stops_it(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("ISSUED", 8), ("CHECKED", 20), ("PROVEN", 8), ("ROUNDS", 1)):
        monkeypatch.setattr(tokens, name, few)
    found = tokens.measure(passable / "tokens")
    assert min(found.by_hmac, found.by_assertion, found.bound) > 1
    assert found.remembered > found.bound

    admit = Admission.admit

    async def mistaken(self: Admission, *request: object) -> Actor:
        return replace(await admit(self, *request), account_id=AccountId(new_uuid()))  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Admission, "admit", mistaken)
    with pytest.raises(BenchError, match="somebody else"):
        tokens.measure(passable / "others")
