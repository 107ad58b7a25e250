"""ENC-4 turns red when a card number is anywhere but in the vault, and when somebody else gets into its database."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import attached, find_served
from strongroom.kernel.config import Config
from strongroom.trust import Workbench
from strongroom.trust.checks.cards import check_cards, draw_card
from strongroom.trust.verdicts import CannotTell
from tests.fixtures.platform import Server, public_folder
from tests.vault.cards.numbers import MASTERCARD, VISA

HOLDER = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (1, 1)); kept = sys.stdin.readline(); "
    "print('ready', flush=True); sys.stdin.read()"
)
"""Keeps a line in memory, and may leave a core file."""


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[tuple[Server, Workbench]]:
    """`strongroom serve`, and a workbench for it."""
    with public_folder() as folder:
        server = Server(folder)
        try:
            server.start()
            installation = find_served(Installation(Config(data_dir=server.data_dir)))
            assert installation is not None
            app = installation.app(connections=4)
            await app.open()
            async with attached(app) as bench:
                yield server, bench
            await app.close()
        finally:
            server.stop()


@contextmanager
def holding(number: str) -> Iterator[int]:
    """A process that has a number in its memory; its id."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"{number}\n".encode())
        holder.stdin.flush()
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
        holder.stdin.close()


async def test_planted_numbers_are_red_and_their_absence_is_green(served: tuple[Server, Workbench]) -> None:
    server, bench = served
    with holding(VISA) as holder:
        log = server.log
        with server._log.open("a") as output:
            output.write(f'{{"event": "oops", "number": "{MASTERCARD}"}}\n')
        async with bench.admin("directory") as connection:
            await connection.execute("grant connect on database strongroom_cards to strongroom_app")
            await connection.execute(
                "insert into evidence (control_id, checked_at, verdict, figure) values ('TEST', now(), 'red', %s)",
                (f"paid with 5555-5555-5555-4444, not {VISA}",),
            )
        async with bench.admin("cards") as connection:
            await connection.execute(
                "insert into card_keys values (gen_random_uuid(), 'seal', 1, 'x', now() - interval '366 days')"
            )
        processes = bench.processes
        leaky = dataclasses.replace(bench, processes=lambda: [*processes(), holder], card_processes=lambda: [])
        figure = await check_cards(leaky)
    masked, other = "41111111****1111", "55555555****4444"
    assert f"process {holder} may leave a core file: its RLIMIT_CORE is not 0" in figure.breaches
    assert "no process of the card vault was found" in figure.breaches
    assert "strongroom_app may connect to strongroom_cards" in figure.breaches
    assert "1 keys of the card vault are used beyond their year: rotate them" in figure.breaches
    for breach in (
        f"found: card number {masked}, clear, in memory of process {holder}",
        f"found: card number {other}, clear, in log served.log",
        f"found: card number {masked}, clear, in table directory.evidence",
        f"found: card number {other}, clear, in groups, in table directory.evidence",
    ):
        assert breach in figure.breaches
    for place in ("data directory", "write-ahead log", "backup"):
        assert any(f"in {place}" in breach and masked in breach for breach in figure.breaches), place
    assert not any(VISA in breach or MASTERCARD in breach for breach in figure.breaches)
    server._log.write_text(log)
    async with bench.admin("cards") as connection:
        await connection.execute("delete from card_keys where wrapped = 'x'")
    async with bench.admin("directory") as connection:
        await connection.execute("revoke connect on database strongroom_cards from strongroom_app")
        await connection.execute("delete from evidence where control_id = 'TEST'")
        await connection.execute("vacuum full evidence")
        cursor = await connection.execute("select (regexp_split_to_array(pg_read_file('postmaster.pid'), E'\\n'))[1]")
        [(database,)] = await cursor.fetchall()
        # Twice, so that the old files of the log are not needed, and go.
        for _ in range(2):
            await connection.execute("select pg_switch_wal()")
            await connection.execute("checkpoint")
    mended = await check_cards(bench)
    # What was planted in the database outlives its removal in the log of changes, and in the server's buffers.
    places = ("in write-ahead log", "in backup", f"in memory of process {database}")
    assert [breach for breach in mended.breaches if not any(place in breach for place in places)] == []
    assert [breach for breach in mended.breaches if masked not in breach and other not in breach] == []


async def test_without_a_served_installation_nothing_is_claimed(bench: Workbench) -> None:
    with pytest.raises(CannotTell, match="strongroom serve"):
        await check_cards(bench)
    with pytest.raises(CannotTell, match="server of your own"):
        await check_cards(dataclasses.replace(bench, server=None))


def test_numbers_are_drawn_afresh_from_a_range_for_tests() -> None:
    drawn = {draw_card().number for _ in range(100)}
    assert len(drawn) == 100
    assert all(number.startswith("400000") and len(number) == 16 for number in drawn)
