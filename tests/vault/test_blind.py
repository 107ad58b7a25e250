"""Blind indexes: equal for equals, telling nothing else, and made anew under a new key while everything goes on."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.assembly import SPLITS
from strongroom.database.catalogue import Indexed
from strongroom.database.databases import url_of
from strongroom.kernel.errors import Conflict, Forbidden, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.payments.customer_search import FIND, SearchBy, search_customers
from strongroom.payments.customers import put_details
from strongroom.vault import Layer, Scope, work
from strongroom.vault.blind import BlindIndexes, normalise
from tests.fixtures.platform import Platform
from tests.payments.world import IBAN
from tests.vault.desk import Owner

SCOPE = UUID(int=7)
EMAIL = "ada@example.com"
PLACE = ("customers", "email_index")


def indexes(scope: UUID = SCOPE, *keys: int) -> BlindIndexes:
    return BlindIndexes(scope, {version: Secret(bytes([version]) * 32) for version in keys or (1,)})


def test_an_entry_is_made_as_it_is_written_down() -> None:
    info = b"strongroom blind index 1\0" + SCOPE.bytes + b"\0\0\0\x02" + b"customers\0email_index"
    column_key = HKDF(SHA256(), 32, salt=None, info=info).derive(b"\x02" * 32)
    expected = b"\0\0\0\x02" + hmac.new(column_key, b"ada@example.com", hashlib.sha256).digest()[:16]
    assert indexes(SCOPE, 1, 2).entries(*PLACE, " Ada@EXAMPLE.com")[0] == expected


def test_equal_values_and_no_others_are_the_same() -> None:
    [one] = indexes().entries(*PLACE, EMAIL)
    assert indexes().entries(*PLACE, "ADA@example.COM") == [one]
    different = [
        indexes().entries(*PLACE, "adb@example.com")[0],
        indexes(UUID(int=8)).entries(*PLACE, EMAIL)[0],
        indexes(SCOPE, 2).entries(*PLACE, EMAIL)[0],
        indexes().entries("financial_instruments", "iban_index", EMAIL)[0],
    ]
    assert len({entry[4:] for entry in (one, *different)}) == 5
    assert {len(entry) for entry in (one, *different)} == {20}


def test_a_look_up_asks_for_every_key_the_newest_first() -> None:
    both = indexes(SCOPE, 1, 2).entries(*PLACE, EMAIL)
    assert both == [indexes(SCOPE, 2).entries(*PLACE, EMAIL)[0], indexes(SCOPE, 1).entries(*PLACE, EMAIL)[0]]


def test_without_a_key_nothing_is_told_to_be_absent() -> None:
    with pytest.raises(Unavailable) as refused:
        BlindIndexes(SCOPE, {}).entries(*PLACE, EMAIL)
    assert refused.value.code == "SEARCH_KEY_MISSING"


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        (Indexed.EMAIL, "Ada@Example.com", EMAIL),
        (Indexed.EMAIL, "not an address", "not an address"),
        (Indexed.IBAN, "de89 3704 0044 0532 0130 00", IBAN),
    ],
)
def test_what_counts_as_equal(kind: Indexed, value: str, normal: str) -> None:
    assert normalise(kind, value) == normal


async def furnish(owner: Owner, count: int) -> None:
    for number in range(count):
        await owner.put_account(f"C-{number}")
        async with owner.operation() as op:
            await put_details(op, f"C-{number}", email=f"c{number}@example.com")


async def found(owner: Owner, by: SearchBy, value: str) -> list[str]:
    async with owner.operation() as op:
        return sorted([customer.ref for customer in await search_customers(op, by, value)])


async def versions(owner: Owner) -> set[int]:
    async with owner.operation() as op:
        rows = await op.rows(
            "select email_index from customers where email_index is not null union all "
            "select iban_index from financial_instruments where iban_index is not null"
        )
    return {int.from_bytes(row[0][:4], "big") for row in rows}


async def test_rotation_indexes_anew_and_everything_is_found_all_along(
    owner: Owner, far: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BATCH", 3)
    await furnish(owner, 8)
    there = owner.seen_by(far.app)
    assert await versions(owner) == {1}
    begun = await owner.desk.rotate_search_key(owner.first, owner.scope)
    assert (begun.kind, begun.version) == ("re-index", 2)
    stop, missed, asked = asyncio.Event(), 0, 0

    async def look() -> None:
        nonlocal missed, asked
        while not stop.is_set():
            number = asked % 8
            missed += await found(there, SearchBy.EMAIL, f"c{number}@example.com") != [f"C-{number}"]
            missed += len(await found(there, SearchBy.IBAN, IBAN)) < 8
            asked += 1

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.2)
    await there.put_account("C-new")
    told: list[work.Work] = []
    done = await owner.desk.tend(owner.scope, SPLITS, told.append)
    stop.set()
    await looking
    assert (missed, asked > 0) == (0, True)
    assert done is not None
    assert (done.is_done, done.done) == (True, 16)
    assert len(told) > 4
    assert await versions(owner) == {2}
    keys = [(key.version, key.state.value) for key in (await owner.keys()).data_keys if key.purpose == "search"]
    assert keys == [(1, "DESTROYED"), (2, "ACTIVE")]
    assert await found(owner, SearchBy.IBAN, IBAN) == [*(f"C-{number}" for number in range(8)), "C-new"]
    assert ("key.rotated", str(owner.tenant), "re-index platform version=2") in await owner.actions("key.rotated")


async def test_two_at_once_the_second_is_refused(owner: Owner) -> None:
    await owner.desk.rotate_search_key(owner.first, owner.scope)
    for attempt in (
        owner.desk.rotate_search_key(owner.second, owner.scope),
        owner.desk.rotate_data_key(owner.second, owner.scope, Layer.PLATFORM),
    ):
        with pytest.raises(Conflict) as refused:
            await attempt
        assert refused.value.code == "KEY_WORK_RUNNING"


async def test_it_needs_its_permission(owner: Owner) -> None:
    nobody = replace(owner.first, roles=frozenset({"tenant-transaction-write"}))
    with pytest.raises(Forbidden):
        await owner.desk.rotate_search_key(nobody, owner.scope)
    assert await owner.actions("key.rotate") == []


async def test_an_account_has_nothing_to_search_in(owner: Owner) -> None:
    admin = replace(owner.first, tenant_id=None, key_id=None, roles=frozenset({"account-admin"}))
    with pytest.raises(Exception, match="There is no such encryption key") as refused:
        await owner.desk.rotate_search_key(admin, Scope(account=owner.account))
    assert getattr(refused.value, "code", "") == "KEY_NOT_FOUND"


async def test_it_waits_for_the_customer_s_key_and_goes_on_when_that_is_back(owner: Owner) -> None:
    await furnish(owner, 2)
    await owner.desk.rotate_search_key(owner.first, owner.scope)
    await owner.desk.disable(owner.first, owner.scope)
    with pytest.raises(Unavailable) as refused:
        await owner.desk.tend(owner.scope, SPLITS)
    assert refused.value.code == "KEY_UNAVAILABLE"
    assert await found(owner, SearchBy.EMAIL, "c1@example.com") == ["C-1"]
    await owner.desk.enable(owner.first, owner.scope)
    assert (await owner.finish()).done == 4
    assert await versions(owner) == {2}


async def test_destroying_the_customer_s_key_takes_the_entries_along(owner: Owner) -> None:
    await furnish(owner, 3)
    desk = replace(owner.desk, destroy_delay=work.timedelta(0))
    await desk.ask_to_destroy(owner.first, owner.scope)
    await desk.approve_destroying(owner.second, owner.scope)
    await desk.tend(owner.scope, SPLITS)
    assert await versions(owner) == set()
    assert await found(owner, SearchBy.IBAN, IBAN) == []
    # A new key begins anew; what was lost stays out of the index, and doesn't hold it up.
    await desk.bring(owner.first, owner.scope, Secret(b"k" * 32))
    await owner.finish()
    await owner.put_account("C-9")
    await desk.rotate_search_key(owner.first, owner.scope)
    assert (await owner.finish()).done == 1
    assert await found(owner, SearchBy.IBAN, IBAN) == ["C-9"]


async def test_a_look_up_is_a_probe_of_the_index(owner: Owner) -> None:
    """However many customers there are, no index and no table is walked from end to end."""
    await furnish(owner, 1)
    async with owner.operation() as op:
        await op.run(
            "insert into customers (tenant_id, customer_id, status, sealed, email_index, created_at, updated_at) "
            "select %s, gen_random_uuid(), 'ACTIVE', '', substr(sha256(n::text::bytea), 1, 20), now(), now() "
            "from generate_series(1, 20000) n",
            op.tenant,
        )
        await op.run(
            "insert into financial_instruments (tenant_id, financial_instrument_id, customer_id, type, status, "
            "country, fingerprint, sealed, iban_index, created_at) select %s, gen_random_uuid(), customer_id, "
            "'BANK_ACCOUNT', 'ACTIVE', 'DE', '', '', email_index, now() from customers where sealed = ''",
            op.tenant,
        )
    # What the planner believes of tables that were filled just now depends on what was in them before.
    with psycopg.connect(url_of(owner.app.installation.admin_url, "eu").reveal(), autocommit=True) as admin:
        admin.execute("analyze customers, financial_instruments")
    async with owner.operation() as op:
        for by, value, index in (
            (SearchBy.EMAIL, "c0@example.com", "customers_email"),
            (SearchBy.IBAN, IBAN, "financial_instruments_iban"),
        ):
            plan = [
                row[0]
                for row in await op.rows(
                    f"explain (analyze, timing off) {FIND[by]}",
                    op.tenant,
                    op.cipher.blinds(*INDEXES[by], value),
                    op.tenant,
                    UUID(int=0),
                    101,
                )
            ]
            assert any(index in line for line in plan), plan
            assert not any("Seq Scan" in line or "rows=20000" in line or "Removed by" in line for line in plan), plan
            assert [customer.ref for customer in await search_customers(op, by, value)] == ["C-0"]


INDEXES = {SearchBy.EMAIL: PLACE, SearchBy.IBAN: ("financial_instruments", "iban_index")}
