"""Customers and their bank accounts: what is kept, what is shown, what is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.assembly import App
from strongroom.database import Operation, Purpose
from strongroom.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from strongroom.payments.contents import Defaults
from strongroom.payments.customers import (
    customer_id_of,
    forget,
    get_customer,
    pack_new_customer,
    put_details,
)
from strongroom.payments.instruments import (
    NewBankAccount,
    add_bank_account,
    add_many,
    check_bank_account,
    find_for_use,
    get_instrument,
    list_instruments,
    open_account,
    open_accounts,
)
from strongroom.payments.orders import get_customer_defaults, put_customer_defaults
from strongroom.rails.contract import Address, BankAccount
from tests.fixtures.platform import Client, Platform
from tests.payments.world import IBAN, World, bank_account, instruct, publish_scheme

ADDRESS = {
    "streetAddress": "Domstraße",
    "extendedAddress": "4a",
    "locality": "Köln",
    "postCode": "50667",
    "country": "DE",
}
FRENCH = "FR1420041010050500013M02606"
"""The example of the IBAN registry."""


async def opened_account(op: Operation, instrument_id: bytes) -> BankAccount:
    with op.opening(Purpose.EXECUTION):
        return await open_account(op, instrument_id)


async def opened_accounts(op: Operation, ids: Collection[bytes]) -> Mapping[bytes, BankAccount]:
    with op.opening(Purpose.EXECUTION):
        return await open_accounts(op, ids)


@pytest.fixture
async def world(app: App, tenant: Client) -> World:
    return World.of(app, tenant)


async def test_a_customers_id_is_the_tenants_keyed_hash(world: World, platform: Platform) -> None:
    other = World.of(platform.app, await platform.new_tenant())
    async with world.operation() as op, other.operation() as theirs:
        assert customer_id_of(op, "c") == customer_id_of(op, "c")
        assert len({customer_id_of(op, "c"), customer_id_of(op, "C"), customer_id_of(theirs, "c")}) == 3
        assert len(customer_id_of(op, "c")) == 16


async def test_a_packed_customer_is_read_back(world: World) -> None:
    async with world.operation() as op:
        sealed = pack_new_customer(op, customer_id_of(op, "c"), "c")
        assert b"c" not in sealed[:5]
        await op.run(
            "insert into customers (tenant_id, customer_id, status, sealed, created_at, updated_at) "
            "values (%s, %s, 'ACTIVE', %s, %s, %s)",
            op.tenant,
            UUID(bytes=customer_id_of(op, "c")),
            sealed,
            op.now,
            op.now,
        )
        customer = await get_customer(op, "c")
        assert (customer.ref, customer.status, customer.metadata) == ("c", "ACTIVE", {})


async def test_metadata_is_replaced_and_sealed(world: World) -> None:
    async with world.operation() as op:
        with pytest.raises(NotFound) as refused:
            await put_details(op, "c", {})
        assert refused.value.code == "CUSTOMER_NOT_FOUND"
        await add_many(op, [("c", bank_account())])
        await put_details(op, "c", {"a": "canary-in-metadata", "b": "2"})
        await put_details(op, "c", {"a": "canary-in-metadata"})
        await add_many(op, [("c", bank_account(iban=FRENCH))])  # leaves a known customer as it is
        assert (await get_customer(op, "c")).metadata == {"a": "canary-in-metadata"}
        row = await op.row("select sealed from customers")
        assert row is not None
        assert b"canary" not in row[0]
    customer_id = (await world.actions("customer."))[0][1]
    assert await world.actions("customer.") == [("customer.change-metadata", customer_id, "")] * 2
    async with world.operation() as op:
        assert customer_id == customer_id_of(op, "c").hex()


async def test_the_same_account_told_again_is_the_same_instrument(world: World) -> None:
    async with world.operation() as op:
        first, is_new = await add_bank_account(op, "c", bank_account())
        assert is_new
        again, is_new = await add_bank_account(
            op, "c", bank_account(" erika  MUSTERMANN ", "de89 3704 0044 0532 0130 00")
        )
        assert not is_new
        assert again == first
        different = [
            bank_account("Max Mustermann"),
            bank_account(bic="COBADEFFXXX"),
            bank_account(address=ADDRESS),
            bank_account(iban=FRENCH),
        ]
        others = [(await add_bank_account(op, "c", account))[0] for account in different]
        of_another, is_new = await add_bank_account(op, "d", bank_account())
        assert is_new
        ids = {found.financial_instrument_id for found in (first, *others, of_another)}
        assert len(ids) == 6
        assert [found.financial_instrument_id for found in await list_instruments(op, "c")] == [
            found.financial_instrument_id for found in (first, *others)
        ]
    assert len(await world.actions("financial-instrument.create")) == 6


async def test_many_are_added_at_once_in_order_and_each_once(world: World) -> None:
    async with world.operation() as op:
        [old] = await add_many(op, [("c", bank_account())])
        ids = await add_many(
            op,
            [
                ("d", bank_account(iban=FRENCH)),
                ("c", bank_account()),
                ("d", bank_account()),
                ("d", bank_account(iban=FRENCH)),
            ],
        )
        assert ids[1] == old
        assert ids[0] == ids[3]
        assert len(set(ids)) == 3
        found = await find_for_use(op, [*ids, bytes(16)])
        assert {key: value.customer_id for key, value in found.items()} == {
            ids[0]: customer_id_of(op, "d"),
            ids[1]: customer_id_of(op, "c"),
            ids[2]: customer_id_of(op, "d"),
        }
        accounts = await opened_accounts(op, [*ids, bytes(16)])
        assert [accounts[key].iban for key in ids] == [FRENCH, IBAN, IBAN, FRENCH]
        assert await add_many(op, []) == []


async def test_those_who_add_the_same_at_once_get_the_same_and_never_wait_in_a_ring(world: World) -> None:
    accounts = [(f"c{n}", bank_account()) for n in range(500)]

    async def add(wanted: list[tuple[str, NewBankAccount]]) -> dict[str, bytes]:
        async with world.operation() as op:
            ids = await add_many(op, wanted)
        return dict(zip((ref for ref, _ in wanted), ids, strict=True))

    async with world.operation() as op:
        await op.run("lock table financial_instruments in share mode")
        adding = [asyncio.create_task(add(wanted)) for wanted in (accounts, accounts[::-1], accounts)]
        await asyncio.sleep(0.5)  # all of them stand at the door; opened, they go at once
    first, *others = await asyncio.gather(*adding)
    assert all(other == first for other in others)
    assert len(await world.actions("financial-instrument.create")) == 500


async def test_details_are_sealed_shown_masked_and_open_for_rails_only(world: World) -> None:
    account = bank_account(bic="cobadeffxxx", address=ADDRESS)
    async with world.operation() as op:
        shown, _ = await add_bank_account(op, "c", account)
        assert (shown.type, shown.status, shown.display_name) == ("BANK_ACCOUNT", "ACTIVE", "DE** **** **** 3000")
        assert (shown.can_credit, shown.can_debit) == (True, True)
        assert shown.details == {
            "accountHolderName": "E*** M***",
            "iban": "DE** **** **** 3000",
            "bic": "COBA****",
            "country": "DE",
        }
        row = await op.row("select row_to_json(f)::text, sealed || sensitive from financial_instruments f")
        assert row is not None
        for clear in (IBAN, "Erika", "Köln", "COBADEFF"):
            assert clear not in row[0]
            assert clear.encode() not in row[1]
        opened = await opened_account(op, shown.financial_instrument_id.bytes)
        assert opened == BankAccount(
            holder="Erika Mustermann",
            iban=IBAN,
            bic="COBADEFFXXX",
            address=Address(country="DE", street="Domstraße", building="4a", post_code="50667", town="Köln"),
        )
    async with world.operation("tenant-transaction-read") as op:
        assert await get_instrument(op, "c", str(shown.financial_instrument_id)) == shown
        with pytest.raises(Forbidden):
            await opened_account(op, shown.financial_instrument_id.bytes)


async def test_a_domestic_account_is_kept_without_blanks(world: World) -> None:
    account = check_bank_account(
        {"accountHolderName": "Ann Example", "accountNumber": "3192-6819", "bankCode": "60 16 13", "country": "GB"}
    )
    async with world.operation() as op:
        shown, _ = await add_bank_account(op, "c", account)
        assert shown.display_name == "GB **** 6819"
        assert shown.details == {
            "accountHolderName": "A*** E***",
            "accountNumber": "GB **** 6819",
            "bankCode": "****13",
            "country": "GB",
        }
        assert await opened_account(op, shown.financial_instrument_id.bytes) == BankAccount(
            holder="Ann Example", number="31926819", bank_code="601613"
        )


NUMBER = {"accountHolderName": "A", "accountNumber": "1", "bankCode": "2", "country": "GB"}


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        ({}, ["ACCOUNT_HOLDER_NAME_IS_REQUIRED", "IBAN_IS_REQUIRED"]),
        ({"accountHolderName": " ", "iban": ""}, ["ACCOUNT_HOLDER_NAME_IS_REQUIRED", "IBAN_IS_REQUIRED"]),
        ({"accountHolderName": 5, "iban": IBAN}, ["ACCOUNT_HOLDER_NAME_CONTAINS_INVALID_CHARACTERS"]),
        ({"accountHolderName": "a\nb", "iban": IBAN}, ["ACCOUNT_HOLDER_NAME_CONTAINS_INVALID_CHARACTERS"]),
        ({"accountHolderName": "a" * 141, "iban": IBAN}, ["ACCOUNT_HOLDER_NAME_LENGTH_OUT_OF_RANGE"]),
        ({"accountHolderName": "A", "iban": IBAN[:-1] + "1"}, ["IBAN_IS_INVALID"]),
        ({"accountHolderName": "A", "iban": 5}, ["IBAN_IS_INVALID"]),
        ({"accountHolderName": "A", "iban": "XX" + IBAN[2:]}, ["IBAN_IS_INVALID"]),
        ({**NUMBER, "iban": IBAN}, ["IBAN_AND_ACCOUNT_NUMBER_GIVEN"]),
        ({**NUMBER, "accountNumber": "é"}, ["ACCOUNT_NUMBER_IS_INVALID"]),
        ({**NUMBER, "accountNumber": 5}, ["ACCOUNT_NUMBER_IS_INVALID"]),
        ({**NUMBER, "bankCode": None}, ["BANK_CODE_IS_REQUIRED"]),
        ({**NUMBER, "bankCode": "1" * 36}, ["BANK_CODE_IS_INVALID"]),
        ({**NUMBER, "country": None}, ["COUNTRY_IS_REQUIRED"]),
        ({**NUMBER, "country": "GBR"}, ["COUNTRY_LENGTH_OUT_OF_RANGE"]),
        ({**NUMBER, "country": "XX"}, ["COUNTRY_NOT_SUPPORTED"]),
        ({**NUMBER, "bic": "NOPE"}, ["BIC_IS_INVALID"]),
        ({**NUMBER, "bic": ["NOPE"]}, ["BIC_IS_INVALID"]),
        ({**NUMBER, "address": "somewhere"}, ["ADDRESS_IS_INVALID"]),
        ({**NUMBER, "address": {}}, ["COUNTRY_IS_REQUIRED", "ADDRESS_LOCALITY_IS_REQUIRED"]),
        ({**NUMBER, "address": {**ADDRESS, "postCode": "1" * 17}}, ["ADDRESS_LENGTH_OUT_OF_RANGE"]),
        (
            {**NUMBER, "address": {**ADDRESS, "streetAddress": "s" * 60, "extendedAddress": "e" * 17}},
            ["ADDRESS_LENGTH_OUT_OF_RANGE"],
        ),
        (
            {"iban": "DE00", "bic": "x", "address": {"country": "XX", "locality": "\t\n\t\nx\ny"}},
            [
                "ACCOUNT_HOLDER_NAME_IS_REQUIRED",
                "IBAN_IS_INVALID",
                "BIC_IS_INVALID",
                "ADDRESS_CONTAINS_INVALID_CHARACTERS",
                "COUNTRY_NOT_SUPPORTED",
                "ADDRESS_LOCALITY_IS_REQUIRED",
            ],
        ),
    ],
)
def test_what_is_wrong_with_an_account_is_listed_whole(sent: dict[str, Any], codes: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        check_bank_account(sent)
    assert [failure.code for failure in refused.value.failures] == codes
    assert IBAN[:-1] not in str(refused.value)


def test_a_long_second_line_joins_the_street() -> None:
    account = bank_account(address={**ADDRESS, "extendedAddress": "Hinterhaus, 3. Stock links"})
    assert account.account.address == Address(
        country="DE", street="Domstraße, Hinterhaus, 3. Stock links", post_code="50667", town="Köln"
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=150) | st.sampled_from([IBAN, "DE", "COBADEFF"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*ADDRESS, "region"]), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["accountHolderName", "iban", "bic", "accountNumber", "bankCode", "country", "address"]),
        ANYTHING,
    )
)
def test_whatever_is_sent_is_an_account_or_a_refusal(sent: dict[str, Any]) -> None:
    try:
        new = check_bank_account(sent)
    except Invalid as refused:
        assert refused.failures
    else:
        assert new.account.holder
        assert new.country
        assert bool(new.account.iban) is not bool(new.account.number and new.account.bank_code)


@pytest.mark.parametrize("instrument_id", ["", "x", "\0", "00000000-0000-7000-8000-000000000000"])
async def test_an_instrument_that_is_not_the_customers_is_not_found(world: World, instrument_id: str) -> None:
    async with world.operation() as op:
        [theirs] = await add_many(op, [("d", bank_account())])
        for wanted in (instrument_id, str(UUID(bytes=theirs))):
            with pytest.raises(NotFound) as refused:
                await get_instrument(op, "c", wanted)
            assert refused.value.code == "FINANCIAL_INSTRUMENT_NOT_FOUND"


async def test_forgetting_leaves_nothing_of_the_person(world: World) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        [instrument] = await add_many(op, [("c", bank_account())])
        await put_details(op, "c", {"a": "b"})
        await instruct(op, "o", "c", scheme_id, instrument)
        await put_customer_defaults(op, "o", "c", Defaults(instrument, scheme_id, {"k": "v"}))
        await op.run("update instructions set status = 'COMPLETED'")
        before = await op.row("select fingerprint from financial_instruments")
        await forget(op, "c")
        await forget(op, "c")
        customer = await get_customer(op, "c")
        assert (customer.status, customer.metadata) == ("FORGOTTEN", {})
        [shown] = await list_instruments(op, "c")
        assert (shown.status, shown.display_name, shown.details) == ("INACTIVE", "", {})
        assert (shown.can_credit, shown.can_debit) == (False, False)
        assert (await find_for_use(op, [instrument]))[instrument].status == "INACTIVE"
        with pytest.raises(NotFound):
            await opened_account(op, instrument)
        assert await opened_accounts(op, [instrument]) == {}
        assert await get_customer_defaults(op, "o", "c") == Defaults()
        sealed = await op.row("select c.sealed, f.sealed, f.fingerprint from customers c, financial_instruments f")
        assert sealed is not None
        assert op.cipher.open("customers", "sealed", customer_id_of(op, "c"), sealed[0]) == b""
        assert op.cipher.open("financial_instruments", "sealed", instrument, sealed[1]) == b""
        assert before != (sealed[2],)
        with pytest.raises(NotFound) as refused:
            await put_details(op, "c", {"a": "b"})
        assert refused.value.code == "CUSTOMER_NOT_FOUND"
    assert [action for action, _, _ in await world.actions("customer.forget")] == ["customer.forget"]


async def test_a_forgotten_customer_who_comes_back_begins_anew(world: World) -> None:
    async with world.operation() as op:
        [old] = await add_many(op, [("c", bank_account())])
        await put_details(op, "c", {"a": "b"})
        await forget(op, "c")
        [new] = await add_many(op, [("c", bank_account())])
        assert new != old
        customer = await get_customer(op, "c")
        assert (customer.status, customer.metadata) == ("ACTIVE", {})
        assert [shown.status for shown in await list_instruments(op, "c")] == ["INACTIVE", "ACTIVE"]


@pytest.mark.parametrize("status", ["READY", "AWAITING_APPROVAL", "PROCESSING", "UNCONFIRMED", "INCOMPLETE"])
async def test_nobody_is_forgotten_while_money_is_on_its_way(world: World, status: str) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        ours, theirs = await add_many(op, [("c", bank_account()), ("d", bank_account())])
        await instruct(op, "o", "c", scheme_id, ours)
        await op.run("update instructions set status = %s", status)
        with pytest.raises(Conflict) as refused:
            await forget(op, "c")
        assert refused.value.code == "CUSTOMER_IN_USE"
        assert (await opened_account(op, ours)).iban == IBAN
        await forget(op, "d")
        assert await opened_accounts(op, [theirs]) == {}


async def test_an_instruction_that_is_being_made_holds_its_customer(world: World) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        [instrument] = await add_many(op, [("c", bank_account())])

    async def forgetting() -> None:
        async with world.operation() as op:
            await forget(op, "c")

    async with world.operation() as op:
        await instruct(op, "o", "c", scheme_id, instrument)
        waiting = asyncio.create_task(forgetting())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    with pytest.raises(Conflict) as refused:
        await waiting
    assert refused.value.code == "CUSTOMER_IN_USE"


async def test_forgetting_needs_its_own_permission(world: World) -> None:
    async with world.operation() as op:
        await add_many(op, [("c", bank_account())])
    async with world.operation("tenant-transaction-write") as op:
        with pytest.raises(Forbidden):
            await forget(op, "c")
    async with world.operation("tenant-transaction-read") as op:
        assert (await get_customer(op, "c")).status == "ACTIVE"
        for attempt in (put_details(op, "c", {}), add_many(op, [("c", bank_account())])):
            with pytest.raises(Forbidden):
                await attempt
    async with world.operation("tenant-app-write") as op:
        for ask in (get_customer(op, "c"), list_instruments(op, "c"), get_instrument(op, "c", "x")):
            with pytest.raises(Forbidden):
                await ask
    async with world.operation("tenant-admin") as op:
        await forget(op, "c")


async def test_another_tenants_customers_are_not_there(world: World, platform: Platform) -> None:
    stranger = World.of(platform.app, await platform.new_tenant())
    async with world.operation() as op:
        [instrument] = await add_many(op, [("c", bank_account())])
    async with stranger.operation() as op:
        assert await find_for_use(op, [instrument]) == {}
        assert await opened_accounts(op, [instrument]) == {}
        for ask in (get_customer(op, "c"), forget(op, "c"), get_instrument(op, "c", str(UUID(bytes=instrument)))):
            with pytest.raises(NotFound):
                await ask
        [own] = await add_many(op, [("c", bank_account())])
        assert own != instrument
        await forget(op, "c")
    async with world.operation() as op:
        assert (await opened_account(op, instrument)).iban == IBAN
