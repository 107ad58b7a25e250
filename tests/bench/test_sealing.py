"""Sealing is measured on what is used: real ciphers. (On a real installation: `test_strongroom`.)"""

import pytest

from bench.sealing import measure_fields, measure_scopes


def test_a_layer_costs_something_and_two_cost_more() -> None:
    bare, one, both, personal = measure_fields(1.2)
    assert bare.sealed > one.sealed > both.sealed > personal.sealed > 500
    assert bare.opened > one.opened > both.opened > personal.opened > 500


def test_memory_of_loaded_scopes_is_some_kilobytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sealing.SCOPES", 500)
    assert 0.5 < measure_scopes() < 50
