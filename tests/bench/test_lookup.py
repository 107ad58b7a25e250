"""Look-ups are taken on a real installation, and somebody who isn't found stops the bench."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench import lookup
from bench.failure import BenchError


def test_look_ups_find_whom_they_look_for(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "TAKEN", 20)
    monkeypatch.setattr(lookup, "BATCH", 30)
    few, many = lookup.measure(passable / "lookups", (5, 70))
    assert (few.customers, many.customers) == (5, 70)
    assert few.rate > 1
    assert 0 < many.p99_ms < 10_000


def test_somebody_who_is_not_found_stops_it(passable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = itertools.count()
    monkeypatch.setattr(lookup, "_ref", lambda _number: f"C-{next(asked)}")
    with pytest.raises(BenchError, match="among 4"):
        lookup.measure(passable / "other", (4,))
