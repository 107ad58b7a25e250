"""Sealing is measured on what is used: real ciphers, a real installation."""

import asyncio
from pathlib import Path

import pytest

from bench.bulk import fill
from bench.sealing import measure_fields, measure_keys, measure_scopes
from bench.target import start_strongroom
from tests.fixtures.platform import public_folder


def test_a_layer_costs_something_and_two_cost_more() -> None:
    bare, one, both, personal = measure_fields(1.2)
    assert bare.sealed > one.sealed > both.sealed > personal.sealed > 500
    assert bare.opened > one.opened > both.opened > personal.opened > 500


def test_memory_of_loaded_scopes_is_some_kilobytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sealing.SCOPES", 500)
    assert 0.5 < measure_scopes() < 50


def test_keys_are_rotated_on_a_served_installation() -> None:
    with public_folder() as folder:
        data: Path = folder / "keys"
        with start_strongroom(data) as target:
            fill(target, run="keys", count=200)
            with_one, with_both, rewrapped, reencrypted = asyncio.run(measure_keys(data, 0.9))
    assert min(with_one, with_both) > 10
    assert rewrapped > 1
    assert reencrypted > 50
