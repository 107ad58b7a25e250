"""ENC-2 turns red when what describes a transaction is stored in clear, be it in a single column."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.kernel.telemetry import configure_logs
from strongroom.trust import Workbench
from strongroom.trust.checks.at_rest import Canaries, check_at_rest, draw_canaries
from strongroom.trust.places import search_swap
from strongroom.trust.searching import Pattern
from strongroom.trust.verdicts import CannotTell
from tests.trust.breaking import LooseCipher, TalkativeCipher, clear_keyring, keyring_of


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """As the platform's own processes have them; a test's would show the values of variables."""
    before = structlog.get_config()
    configure_logs()
    structlog.configure(**{**structlog.get_config(), "cache_logger_on_first_use": False})
    yield
    structlog.configure(**before)


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
    assert mended.text.startswith("310 canaries, ")
    for place in ("every column", "data directory", "write-ahead log", "backup", "logs", "temporary files"):
        assert re.search(rf"{place} [\d.]+ [KMG]iB", mended.text), place
    assert re.search(
        r"0 found; 3,\d{3} envelopes in a wrong place or damaged, all refused \(tenant, row, ", mended.text
    )


async def test_one_column_in_clear_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", clear_keyring("financial_instruments.sensitive"))
    async with served_here(Installation(bench.config)) as unsealed:
        figure = await check_at_rest(unsealed)
    assert "found in clear: IBAN, clear, in table eu.financial_instruments" in figure.breaches
    assert not [breach for breach in figure.breaches if "amount" in breach or "eu.instructions" in breach]


async def test_a_value_in_a_log_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", keyring_of(TalkativeCipher))
    before = os.dup(2)
    with (tmp_path / "serve.log").open("wb") as log:
        try:
            os.dup2(log.fileno(), 2)
            async with served_here(Installation(bench.config)) as talkative:
                figure = await check_at_rest(talkative)
        finally:
            os.dup2(before, 2)
            os.close(before)
    for value in ("text", "mail address", "IBAN", "account number"):
        assert any(
            breach.startswith(f"found in clear: {value}, clear, in logs, descriptor 2 of") for breach in figure.breaches
        ), value
    assert not [breach for breach in figure.breaches if "in table" in breach or "in backup" in breach]


async def test_a_temporary_file_with_a_value_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is open and has no name any more, and one that is lying about."""
    with tempfile.TemporaryFile() as open_one, tempfile.NamedTemporaryFile(prefix="strongroom-test-") as named:

        def draw() -> Canaries:
            drawn = draw_canaries()
            for file, value in ((open_one, drawn.mail), (named, drawn.iban)):
                file.write(base64.b64encode(b"?" + value.encode()))
                file.flush()
            return drawn

        monkeypatch.setattr("strongroom.trust.checks.at_rest.draw_canaries", draw)
        figure = await check_at_rest(bench)
    found = "\n".join(figure.breaches)
    assert re.search(r"mail address, base64 at 1, in temporary files, descriptor \d+ of", found)
    assert re.search(r"IBAN, base64 at \d, in temporary file", found)


async def test_an_envelope_that_opens_in_another_row_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", keyring_of(LooseCipher))
    async with served_here(Installation(bench.config)) as loose:
        figure = await check_at_rest(loose)
    assert "a field of orders.sealed with another row opens as orders.sealed" in figure.breaches
    assert "GET /v1/order-management/… with another's envelope is answered 200" in figure.breaches
    assert not [breach for breach in figure.breaches if "another tenant" in breach or "another column" in breach]


def test_swap_is_looked_through_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    area, table = tmp_path / "swapfile", tmp_path / "swaps"
    area.write_bytes(bytes(3_000_000) + b"a canary" + bytes(10))
    heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    table.write_text(f"{heading}{area}   file\t\t4096\t\t0\t\t-2\n{tmp_path / 'away'} partition\t\t1\t\t0\t\t-3\n")
    search, unread = search_swap([Pattern("value", b"a canary")], table)
    assert search is not None
    assert (search.found, search.size) == (["value, in swap swapfile"], area.stat().st_size)
    assert unread == "1 of 2 swap areas unreadable"
    table.write_text(heading)
    assert search_swap([], table) == (None, "no swap")
    assert search_swap([], tmp_path / "none") == (None, "swap can't be found here")


async def test_another_s_database_server_can_t_be_searched(bench: Workbench) -> None:
    with pytest.raises(CannotTell, match="a server of your own"):
        await check_at_rest(dataclasses.replace(bench, server=None))
