"""ENC-3 turns red when a field is readable without its owner's key, or the key's end is not everywhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.database.catalogue import SENSITIVE
from strongroom.kernel.actors import operator
from strongroom.trust import Workbench
from strongroom.trust.checks.customer_keys import SECOND, check_customer_keys
from strongroom.trust.stage import PROVER, TENANTS, stage
from strongroom.vault import KeyState, Layer, Scope, get_scope_key
from strongroom.vault.holders.file import FileHolder
from strongroom.vault.holders.persons import PersonSecrets
from tests.trust.breaking import StubbornKeyring


async def test_kept_as_promised_is_green(bench: Workbench) -> None:
    figure = await check_customer_keys(bench)
    assert figure.breaches == ()
    assert re.fullmatch(
        r"57 fields, of which the platform's keys alone open 0; key disabled: read nowhere after \d\.\d s, "
        r"in its holder alone after [0-4]\.\d s \(at most 5\), enabled back after \d\.\d s, another tenant read on; "
        r"\d+ envelopes sealed anew under \d+ requests, 0 failed; key destroyed: a restored backup opens 0 of 19; "
        r"customer forgotten: it opens 0 of 2",
        figure.text,
    )


async def test_a_column_under_the_platform_s_layer_alone_is_red(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.vault.envelopes.SENSITIVE", SENSITIVE - {("customers", "sensitive")})
    async with served_here(Installation(bench.config)) as weak:
        figure = await check_customer_keys(weak)
    assert set(figure.breaches) == {"customers.sensitive is readable with the platform's keys alone"}


async def test_one_process_of_several_that_reads_on_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API hears of it, and the process that checks does not."""
    async with served_here(Installation(bench.config)) as hearing:
        monkeypatch.setattr("strongroom.assembly.Keyring", StubbornKeyring)
        deaf = Installation(hearing.config).app(connections=2)
        await deaf.open()
        try:
            figure = await check_customer_keys(dataclasses.replace(hearing, databases=deaf.databases))
        finally:
            await deaf.close()
    [breach] = figure.breaches
    assert re.fullmatch(r"a field was still read [5-9]\.\d s after its key was disabled here", breach)


async def test_a_copy_of_a_destroyed_key_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Path] = []

    def put_aside(path: Path) -> None:
        left.append(path.rename(path.with_suffix(".old")))

    monkeypatch.setattr("strongroom.vault.holders._files.shred", put_aside)
    figure = await check_customer_keys(bench)
    [copy] = left
    copy.unlink()
    assert figure.breaches == (f"a destroyed key is left in the folder of the keys: {copy.name}",)


async def test_a_key_that_is_destroyed_in_name_only_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pretend(self: FileHolder, reference: str) -> None:
        assert await self.describe(reference)

    monkeypatch.setattr(FileHolder, "destroy", pretend)
    figure = await check_customer_keys(bench)
    assert any("left in the folder of the keys" in breach for breach in figure.breaches)
    assert "fields of a restored backup, their key destroyed, end in nothing: they open" in figure.breaches
    assert "data keys of a restored backup open although their key is destroyed" in figure.breaches


async def test_a_person_s_secret_that_is_left_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(self: PersonSecrets, persons: Sequence[int]) -> None:
        assert all(self.find(person) for person in persons)

    monkeypatch.setattr(PersonSecrets, "destroy", pretend)
    figure = await check_customer_keys(bench)
    assert figure.breaches == ("fields of a restored backup, of somebody forgotten since, end in nothing: they open",)


async def test_without_a_database_of_ours_no_backup_is_restored_and_the_figure_says_so(bench: Workbench) -> None:
    figure = await check_customer_keys(dataclasses.replace(bench, server=None))
    assert figure.breaches == ()
    assert figure.text.endswith("read nowhere (no backup restored: the database is on a server of your own)")


async def test_what_a_run_left_behind_is_mended_by_the_next_and_keys_don_t_pile_up(bench: Workbench) -> None:
    async with stage(bench) as scene:
        scopes = [Scope(account=seat.account_id, tenant=seat.tenant_id) for seat in scene.seats]
    assert [scope.tenant for scope in scopes] == list(TENANTS)
    desk = dataclasses.replace(bench.key_desk, destroy_delay=timedelta(0))
    disabled, destroyed, switched_off = scopes
    counts = []
    for _ in range(2):
        await desk.disable(PROVER, disabled)
        await desk.ask_to_destroy(PROVER, disabled)
        await desk.ask_to_destroy(PROVER, destroyed)
        await desk.approve_destroying(SECOND, destroyed)
        await desk.tend(destroyed)
        await desk.rotate_data_key(PROVER, switched_off, Layer.PLATFORM)
        await desk.tend(switched_off)
        async with bench.databases.operation(PROVER, tenant=switched_off.tenant) as op:
            await bench.keyring.holders.own.disable((await get_scope_key(op, Layer.CUSTOMER)).reference)
        async with stage(bench):
            for scope in scopes:
                await desk.test(operator("a test"), scope)
                async with bench.databases.operation(PROVER, tenant=scope.tenant) as op:
                    key = await get_scope_key(op, Layer.CUSTOMER)
                assert (key.state, key.destroy_asked_by) == (KeyState.ACTIVE, None)
        counts.append(await count_keys(bench))
    assert counts[0] == counts[1]


async def count_keys(bench: Workbench) -> list[int]:
    """Rows of keys of the stage, by region and table."""
    found = []
    for region in bench.config.regions:
        async with bench.admin(region) as connection:
            for table in ("scope_keys", "data_keys"):
                statement = f"select count(*) from {table} where scope_id = any(%s)"  # noqa: S608  names of ours
                row = await (await connection.execute(statement.encode(), (list(TENANTS),))).fetchone()
                assert row is not None
                found.append(row[0])
    return found
