"""A secret for each customer: destroyed when they are forgotten, and with it what older copies of the database hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest

from strongroom.assembly import SPLITS
from strongroom.database import Operation, Purpose
from strongroom.database.catalogue import PERSONAL
from strongroom.database.databases import CARDS, DIRECTORY, url_of
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.kernel.errors import StrongroomError, Unavailable
from strongroom.payments.customer_search import SearchBy, search_customers
from strongroom.payments.customers import customer_id_of, forget, get_customer, put_details
from strongroom.payments.instruments import add_many, open_contents
from strongroom.vault import Layer, ScopeCipher, destroy_ended, persons, verify_scope
from strongroom.vault._walking import read_batch, write_column
from strongroom.vault.holders.persons import BLOCK, RUNS, SLOT_BYTES, PersonSecrets
from strongroom.vault.work import KEEPER
from tests.fixtures.platform import Client, Platform
from tests.payments.world import IBAN, World, bank_account
from tests.vault.desk import Owner
from tests.vault.test_work import furnish

LOST = "KEY_UNAVAILABLE"
COPIED = {
    "customers": "customer_id, status, sealed, sensitive, person, email_index",
    "financial_instruments": "financial_instrument_id, status, sealed, sensitive, iban_index",
}
Copy = dict[str, list[Sequence[Any]]]


async def persons_of(owner: Owner) -> dict[str, int | None]:
    """Customers' secrets by reference."""
    async with owner.operation() as op:
        rows = await op.rows("select customer_id, person from customers order by person")
        known = {customer_id_of(op, ref): ref for ref in (f"C-{number}" for number in range(20))}
        return {known[customer_id.bytes]: person for customer_id, person in rows}


async def copy_of(owner: Owner) -> Copy:
    """What a backup has of customers and their accounts."""
    async with owner.operation() as op:
        return {
            table: list(await op.rows(f"select {columns} from {table}"))  # noqa: S608  names of ours
            for table, columns in COPIED.items()
        }


async def restore(owner: Owner, copy: Copy) -> None:
    """Put it back byte for byte."""
    async with owner.operation() as op:
        for table, rows in copy.items():
            key, *columns = COPIED[table].split(", ")
            changes = ", ".join(f"{column} = %s" for column in columns)
            for row in rows:
                sql = f"update {table} set {changes} where {key} = %s"  # noqa: S608  names of ours
                assert await op.run(sql, *row[1:], row[0]) == 1


async def fields_of(owner: Owner, ref: str) -> list[str]:
    """What opening each of a customer's fields ends in: its content, or an error's code."""

    async def opened(what: str) -> str:
        try:
            async with owner.operation() as op:
                if what == "notes":
                    return (await get_customer(op, ref)).metadata["note"]
                with op.opening(Purpose.CUSTOMER_SERVICE):
                    contents = await open_contents(op, UUID(bytes=customer_id_of(op, ref)))
                return ",".join(account.iban for account in contents.values())
        except StrongroomError as error:
            return error.code

    return [await opened("notes"), await opened("accounts")]


async def forget_and_destroy(owner: Owner, ref: str) -> None:
    async with owner.operation() as op:
        await forget(op, ref)
    assert await destroy_ended(owner.app.databases, owner.scope) == 1


async def write_customers(owner: Owner, count: int = 3) -> None:
    for number in range(count):
        await owner.put_account(f"C-{number}")
        async with owner.operation() as op:
            await put_details(op, f"C-{number}", {"note": f"number {number}"}, email=f"c{number}@example.com")


async def test_an_older_copy_has_nothing_of_who_was_forgotten_and_everything_of_others(
    owner: Owner, far: Platform
) -> None:
    await write_customers(owner)
    copy = await copy_of(owner)
    await forget_and_destroy(owner, "C-1")
    await restore(owner, copy)
    for seat in (owner, owner.seen_by(far.app)):
        assert await fields_of(seat, "C-0") == ["number 0", IBAN]
        assert await fields_of(seat, "C-1") == [LOST, LOST]
        assert await fields_of(seat, "C-2") == ["number 2", IBAN]
    verified = await verify_scope(owner.app.databases, owner.first, owner.scope)
    assert (verified.lost, verified.away, verified.findings) == (2, 0, [])
    # Who was put back is forgotten again like anybody, which needs nothing of theirs.
    async with owner.operation() as op:
        await forget(op, "C-1")
    assert (await persons_of(owner))["C-1"] is None


async def test_what_is_lost_holds_up_no_rotation(owner: Owner) -> None:
    await write_customers(owner)
    copy = await copy_of(owner)
    await forget_and_destroy(owner, "C-1")
    await restore(owner, copy)
    for layer in Layer:
        await owner.desk.rotate_data_key(owner.first, owner.scope, layer)
        await owner.finish()
    assert await fields_of(owner, "C-1") == [LOST, LOST]
    assert await fields_of(owner, "C-2") == ["number 2", IBAN]


async def test_it_is_forgotten_through_the_api_and_at_once_everywhere(near: Platform, far: Platform) -> None:
    client = await near.new_tenant()
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Example", "iban": IBAN}
    for ref in ("C-1", "C-2"):
        made = await client.post(f"/v1/customer-vault/{ref}/financial-instrument", account)
        assert made.status_code == 202, made.text
    world = World.of(near.app, client)
    async with world.operation() as op:
        [[ending], [staying]] = await op.rows(
            "select person from customers order by customer_id = %s desc", UUID(bytes=customer_id_of(op, "C-1"))
        )
    async with far.app.operation(KEEPER, tenant=world.tenant) as late:
        cipher = late.cipher
        assert isinstance(cipher, ScopeCipher)
        assert cipher.persons is not None
        assert cipher.persons.read(ending) is not None
        assert (await client.delete("/v1/customer-vault/C-1")).status_code == 202
        # An operation that had begun before finds it gone as well.
        assert cipher.persons.read(ending) is None
        assert cipher.persons.read(staying) is not None
    assert (await client.delete("/v1/customer-vault/C-1")).status_code == 202
    assert [subject for _, subject, _ in await world.actions("person-key.destroy")] == [str(ending)]


async def test_a_change_that_is_rolled_back_destroys_nothing(owner: Owner) -> None:
    await write_customers(owner, 1)
    with pytest.raises(ZeroDivisionError):
        async with owner.operation() as op:
            await forget(op, "C-0")
            raise ZeroDivisionError
    await owner.desk.tend(owner.scope, SPLITS)
    assert await fields_of(owner, "C-0") == ["number 0", IBAN]


async def test_what_a_crash_left_undone_the_worker_does(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    await write_customers(owner, 2)
    copy = await copy_of(owner)
    async with owner.operation() as op:
        await forget(op, "C-0")
    # Killed after the commit, or in the middle of destroying: either way the list says what is to be done.
    destroy = PersonSecrets.destroy

    def crash(self: PersonSecrets, ended: Sequence[int]) -> None:
        destroy(self, ended)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(PersonSecrets, "destroy", crash)
        with pytest.raises(ZeroDivisionError):
            await destroy_ended(owner.app.databases, owner.scope)
    assert await owner.actions("person-key.destroy") == []
    await owner.desk.tend(owner.scope)
    assert len(await owner.actions("person-key.destroy")) == 1
    await restore(owner, copy)
    assert await fields_of(owner, "C-0") == [LOST, LOST]
    assert await fields_of(owner, "C-1") == ["number 1", IBAN]


async def test_what_a_copy_of_the_folder_brings_back_is_destroyed_again(owner: Owner) -> None:
    await write_customers(owner, 2)
    copy, person = await copy_of(owner), (await persons_of(owner))["C-0"]
    assert person is not None
    block = owner.app.config.keys_dir / "persons" / "eu" / f"{person // BLOCK:08d}.secrets"
    content = block.read_bytes()
    await forget_and_destroy(owner, "C-0")
    await restore(owner, copy)
    slot = slice(RUNS + person % BLOCK * SLOT_BYTES, RUNS + (person % BLOCK + 1) * SLOT_BYTES)
    with block.open("r+b") as file:
        file.seek(slot.start)
        file.write(content[slot])
    assert await fields_of(owner, "C-0") == ["number 0", IBAN]
    await owner.desk.tend(owner.scope, SPLITS, again=True)
    assert await fields_of(owner, "C-0") == [LOST, LOST]
    assert await fields_of(owner, "C-1") == ["number 1", IBAN]
    assert len(await owner.actions("person-key.destroy")) == 1


async def test_who_comes_again_gets_another_secret(owner: Owner) -> None:
    await write_customers(owner, 1)
    [before] = (await persons_of(owner)).values()
    copy = await copy_of(owner)
    await forget_and_destroy(owner, "C-0")
    assert await persons_of(owner) == {"C-0": None}
    await owner.put_account("C-0")
    [after] = (await persons_of(owner)).values()
    assert after not in {None, before}
    async with owner.operation() as op:
        await put_details(op, "C-0", {"note": "again"})
    assert await fields_of(owner, "C-0") == ["again", IBAN]
    del copy["customers"]
    await restore(owner, copy)
    # The account of before came back, and is read no more for there being a new secret.
    assert await fields_of(owner, "C-0") == ["again", LOST]


async def test_searching_goes_on_and_finds_nobody_who_was_forgotten(owner: Owner) -> None:
    await write_customers(owner, 2)
    await forget_and_destroy(owner, "C-0")
    async with owner.operation() as op:
        found = [await search_customers(op, SearchBy.EMAIL, f"c{number}@example.com") for number in range(2)]
        assert [len(each) for each in found] == [0, 1]
        assert [each.ref for each in await search_customers(op, SearchBy.IBAN, IBAN)] == ["C-1"]


async def test_all_who_write_the_same_customer_at_once_use_one_secret(owner: Owner, far: Platform) -> None:
    seats = (owner, owner.seen_by(far.app))

    async def write(number: int) -> None:
        async with seats[number % 2].operation() as op:
            await add_many(op, [(f"C-{at}", bank_account(f"Holder {number}")) for at in range(3)])

    await asyncio.gather(*(write(number) for number in range(8)))
    async with owner.operation() as op:
        cipher = op.cipher
        assert isinstance(cipher, ScopeCipher)
        rows = await op.rows("select customer_id, financial_instrument_id, sensitive from financial_instruments")
        assert len(rows) == 24
        owners = dict(await op.rows("select customer_id, person from customers"))
        assert len(set(owners.values())) == 3
        for person in owners.values():
            secrets = cipher.persons
            assert isinstance(secrets, PersonSecrets)
            secrets.destroy([person])
        lost = [
            cipher.is_lost("financial_instruments", "sensitive", instrument.bytes, sensitive)
            for _, instrument, sensitive in rows
        ]
        assert lost == [True] * 24


async def test_a_database_that_counts_from_an_older_place_hands_out_nobody_s_secret_twice(owner: Owner) -> None:
    await write_customers(owner, 2)
    before = set((await persons_of(owner)).values())
    async with owner.operation() as op:
        cipher = op.cipher
    assert isinstance(cipher, ScopeCipher)
    assert isinstance(cipher.persons, PersonSecrets)
    cipher.persons.spare.clear()
    async with await psycopg.AsyncConnection.connect(
        url_of(owner.app.installation.admin_url, "eu").reveal(), autocommit=True
    ) as admin:
        await admin.execute("select setval('person_runs', 0, false)")
    for number in range(2, 5):
        await owner.put_account(f"C-{number}")
    found = await persons_of(owner)
    assert len(set(found.values())) == 5
    assert before < set(found.values())
    assert all(isinstance(person, int) and person < 20 * BLOCK for person in found.values())


async def unpart(owner: Owner) -> None:
    """Put a tenant back to how it was before there were persons' secrets."""
    async with owner.operation() as op:
        cipher = op.cipher
        assert isinstance(cipher, ScopeCipher)
        for table, column in PERSONAL:
            at = SEALED_TABLES[table].columns.index(column)
            rows, _ = await read_batch(op, table, "", 1000, condition=f"{column} is not null")
            envelopes = []
            for row in rows:
                envelope = row.envelopes[at]
                assert envelope is not None
                content = cipher.for_purpose(Purpose.INDEXING).open(table, column, row.row, envelope)
                envelopes.append(cipher.seal_for_nobody(table, column, row.row, content))
            await write_column(op, table, column, [row.key for row in rows], envelopes)
        await op.run("update customers set person = null")


async def parted(owner: Owner) -> list[bool]:
    """Of each personal field whether it is sealed for a person."""
    found = []
    async with owner.operation() as op:
        assert isinstance(op.cipher, ScopeCipher)
        for table, column in PERSONAL:
            at = SEALED_TABLES[table].columns.index(column)
            rows, _ = await read_batch(op, table, "", 1000, condition=f"{column} is not null")
            for row in rows:
                envelope = row.envelopes[at]
                assert envelope is not None
                found.append(op.cipher.is_personal(table, column, row.row, envelope))
    return found


async def test_what_is_from_before_there_were_secrets_gets_them_and_goes_on_where_it_stopped(
    owner: Owner, far: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    instruments = await furnish(owner, 5)
    await unpart(owner)
    # Readable as it is; what is written meanwhile gets its secret at once, and what was there stays as it was.
    assert await fields_of(owner.seen_by(far.app), "C-0") == ["number 0", IBAN]
    async with owner.operation() as op:
        await put_details(op, "C-0", {"note": "number 0"})
    assert sorted(await parted(owner)) == [False] * 9 + [True]
    monkeypatch.setattr(persons, "BATCH", 2)
    batches = 0
    give = persons._give_persons

    async def stopping(op: Operation, customers: Sequence[UUID]) -> dict[UUID, int]:
        nonlocal batches
        batches += 1
        if batches == 4:
            raise ZeroDivisionError
        return await give(op, customers)

    with monkeypatch.context() as patched:
        patched.setattr(persons, "_give_persons", stopping)
        with pytest.raises(ZeroDivisionError):
            await owner.desk.tend(owner.scope, SPLITS)
    assert 1 < sum(await parted(owner)) < 10
    there = owner.seen_by(far.app)
    await there.desk.tend(there.scope, SPLITS)
    assert await parted(owner) == [True] * 10
    async with owner.operation() as op:
        [row] = await op.rows("select state, seen, done from key_work where kind = 'part-persons'")
    assert tuple(row) == ("DONE", 10, 9)
    assert await persons.part_persons(owner.app.databases, owner.scope) == 0
    for number, instrument in enumerate(instruments):
        assert await owner.iban(instrument) == IBAN
        assert await fields_of(there, f"C-{number}") == [f"number {number}", IBAN]


async def test_it_rests_while_the_customer_s_key_is_away(owner: Owner) -> None:
    await furnish(owner, 2)
    await unpart(owner)
    await owner.desk.disable(owner.first, owner.scope)
    with pytest.raises(Unavailable) as refused:
        await owner.desk.tend(owner.scope, SPLITS)
    assert refused.value.code == LOST
    await owner.desk.enable(owner.first, owner.scope)
    await owner.desk.tend(owner.scope, SPLITS)
    assert await parted(owner) == [True] * 4


async def everything_in(url: str) -> bytes:
    """All rows of all tables of a database, as the administrator sees them."""
    found = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        tables = await admin.execute("select tablename from pg_tables where schemaname = 'public'")
        for (table,) in await tables.fetchall():
            async with admin.cursor().copy(f"copy {table} to stdout".encode()) as rows:
                found.extend([bytes(row) async for row in rows])
    return b"".join(found)


async def test_a_tenant_s_keys_are_in_its_region_alone(near: Platform) -> None:
    """ENC-6, as far as keys go: scope keys, data keys and persons' secrets, wrapped or not."""
    account = await near.new_account(region="eu")
    for region, other in (("eu", "ch"), ("ch", "eu")):
        client: Client = await account.new_tenant(region=region)
        world = World.of(near.app, client)
        bank = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Example", "iban": IBAN}
        made = await client.post("/v1/customer-vault/C-1/financial-instrument", bank)
        assert made.status_code == 202, made.text
        async with world.operation() as op:
            wrapped = [row[0] for row in await op.rows("select wrapped from scope_keys where wrapped is not null")]
            wrapped += [row[0] for row in await op.rows("select wrapped from data_keys where wrapped <> ''")]
            references = [row[0] for row in await op.rows("select reference from scope_keys where layer = 'customer'")]
            [[person]] = await op.rows("select person from customers")
            assert isinstance(op.cipher, ScopeCipher)
            assert op.cipher.persons is not None
            kept = op.cipher.persons.read(person)
            assert kept is not None
            secret = op.cipher.persons.open(person, kept)
        assert len(wrapped) == 5  # the platform's scope key, and four data keys
        sought = [key.hex().encode() for key in (*wrapped, secret.reveal())] + [name.encode() for name in references]
        keys_dir = near.app.config.keys_dir
        admin_url = near.app.installation.admin_url
        here = await everything_in(url_of(admin_url, region).reveal())
        assert [word in here for word in sought] == [True] * 5 + [False] + [True], "a search that would find them"
        for database in (other, DIRECTORY, CARDS):
            content = await everything_in(url_of(admin_url, database).reveal())
            assert content
            assert not any(word in content for word in sought), database
        # In the folder of the keys, each region's secrets are apart, under a key of their own.
        [block] = (path for path in (keys_dir / "persons" / region).glob("*.secrets"))
        copied = keys_dir / "persons" / other / f"{person // BLOCK + 9:08d}.secrets"
        copied.parent.mkdir(exist_ok=True, mode=0o700)
        copied.touch(0o600)
        copied.write_bytes(block.read_bytes())
        with pytest.raises(StrongroomError) as refused:
            near.app.keyring.holders.persons(other).find(person + 9 * BLOCK)
        assert refused.value.code in {"KEY_FILE_BROKEN", LOST}
        copied.unlink()
