"""ENC-2 turns red when what describes a transaction is stored in clear, be it in a single column."""

from __future__ import annotations

import dataclasses

import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.trust import Workbench
from strongroom.trust.checks.at_rest import check_at_rest
from strongroom.trust.verdicts import CannotTell
from tests.trust.breaking import clear_keyring


async def test_clear_text_is_red_and_sealing_it_is_green_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("strongroom.assembly.Keyring", clear_keyring())
        async with served_here(Installation(bench.config)) as unsealed:
            figure = await check_at_rest(unsealed)
    for place in ("data directory", "write-ahead log", "backup", "table eu.instructions", "table ch.orders"):
        assert any(place in breach for breach in figure.breaches), place
    for value in ("text, clear", "IBAN, clear", "account number, clear", "amount, integer, big-endian"):
        assert any(breach.startswith(f"found in clear: {value}") for breach in figure.breaches), value
    mended = await check_at_rest(bench)
    assert mended.breaches == ()
    assert mended.text.startswith("254 canaries, ")
    assert mended.text.endswith("(every column, data directory, write-ahead log, backup), 0 found")


async def test_one_column_in_clear_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", clear_keyring("financial_instruments.sensitive"))
    async with served_here(Installation(bench.config)) as unsealed:
        figure = await check_at_rest(unsealed)
    assert "found in clear: IBAN, clear, in table eu.financial_instruments" in figure.breaches
    assert not [breach for breach in figure.breaches if "amount" in breach or "eu.instructions" in breach]


async def test_another_s_database_server_can_t_be_searched(bench: Workbench) -> None:
    with pytest.raises(CannotTell, match="a server of your own"):
        await check_at_rest(dataclasses.replace(bench, server=None))
