"""Idempotency keys on every POST: the same key and body give the stored answer (wire contract, section 4)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import httpx
import pytest

from strongroom.api import idempotency
from strongroom.assembly import App
from strongroom.database.housekeeping import forget_expired
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock, SystemClock
from tests.api.paying import ORDERS, codes, instruction, make_order, order, refusal
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World


def keyed(key: str = "a-key") -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key}}


def replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


async def kept(app: App, client: Client) -> int:
    """How many keys the tenant has used."""
    async with World.of(app, client).operation() as op:
        row = await op.row("select count(*) from idempotency_keys where scope_id = %s", op.tenant)
    assert row is not None
    return int(row[0])


async def test_an_order_is_made_once_and_answered_twice(tenant: Client, platform: Platform) -> None:
    body = order("o-1", instruction())
    first = await tenant.post(ORDERS, body, **keyed())
    assert (first.status_code, replayed(first)) == (202, False)
    async with platform.another_process() as other:
        elsewhere = Client(
            http=other.http, account_id=tenant.account_id, tenant_id=tenant.tenant_id, public_key=tenant.public_key,
            private_key=tenant.private_key,
        )  # fmt: skip
        for client in (tenant, elsewhere):
            again = await client.post(ORDERS, body, **keyed())
            assert (again.status_code, again.content) == (202, first.content)
            assert replayed(again)
    assert refusal(await tenant.post(ORDERS, body, **keyed("another"))) == (400, ["ORDER_ALREADY_EXISTS"])


async def test_an_instruction_is_made_once_and_answered_twice(tenant: Client) -> None:
    await make_order(tenant)
    path = f"{ORDERS}/o-1/instruction"
    first = await tenant.post(path, instruction(), **keyed())
    # What became of it since doesn't change the answer.
    await tenant.post(f"{path}/i-1/cancel", {})
    again = await tenant.post(path, instruction(), **keyed())
    assert (again.status_code, again.content, replayed(again)) == (201, first.content, True)


async def test_a_cancellation_is_answered_twice(tenant: Client) -> None:
    await make_order(tenant, "o-1", instruction())
    path = f"{ORDERS}/o-1/instruction/i-1/cancel"
    first = await tenant.post(path, {"reason": "x"}, **keyed())
    again = await tenant.post(path, {"reason": "x"}, **keyed())
    assert first.status_code == again.status_code == 200
    assert first.json()["status"] == "CANCELLED"
    assert (again.content, replayed(again)) == (first.content, True)


async def test_a_private_key_is_shown_once_even_so(tenant: Client) -> None:
    body = {"name": "Nightly batch", "roles": ["tenant-transaction-write"]}
    first = (await tenant.post("/v1/tenant/keys", body, **keyed())).json()
    again = await tenant.post("/v1/tenant/keys", body, **keyed())
    assert first["privateKey"]
    assert again.json() == {**first, "privateKey": None}
    assert again.status_code == 201
    listed = (await tenant.get("/v1/tenant/keys")).json()["tenantKeys"]
    assert [key["name"] for key in listed].count("Nightly batch") == 1


async def test_another_body_is_another_request(tenant: Client) -> None:
    await make_order(tenant)
    assert (await tenant.post(ORDERS, order("o-2"), **keyed())).status_code == 201
    for path, body in (
        (ORDERS, order("o-3")),
        (ORDERS, {**order("o-2"), "x": 1}),
        (f"{ORDERS}/o-1/instruction", order("o-2")),
        (f"{ORDERS}/o-2/instruction", instruction()),
        ("/v1/tenant/keys", {"roles": ["tenant-admin"]}),
    ):
        assert refusal(await tenant.post(path, body, **keyed())) == (422, ["IDEMPOTENCY_KEY_REUSED"]), path
    assert codes(await tenant.get(f"{ORDERS}/o-3")) == ["ORDER_NOT_FOUND"]


async def test_the_same_body_on_another_path_is_another_request(tenant: Client) -> None:
    await make_order(tenant, "o-1")
    await make_order(tenant, "o-2")
    assert (await tenant.post(f"{ORDERS}/o-1/instruction", instruction(), **keyed())).status_code == 201
    answer = await tenant.post(f"{ORDERS}/o-2/instruction", instruction(), **keyed())
    assert refusal(answer) == (422, ["IDEMPOTENCY_KEY_REUSED"])


async def test_refusals_are_not_kept(tenant: Client, app: App) -> None:
    for wrong, expected in (
        (order("a b"), ["ORDER_REF_CONTAINS_INVALID_CHARACTERS"]),
        (order("o-1", instruction(schemeId="0" * 32)), ["SCHEME_ID_NOT_RECOGNISED"]),
    ):
        assert codes(await tenant.post(ORDERS, wrong, **keyed())) == expected
    assert codes(await tenant.post(f"{ORDERS}/o-1/instruction", instruction(), **keyed())) == ["ORDER_NOT_FOUND"]
    assert await kept(app, tenant) == 0
    mended = await tenant.post(ORDERS, order("o-1"), **keyed())
    assert (mended.status_code, replayed(mended)) == (201, False)
    assert await kept(app, tenant) == 1


async def test_keys_belong_to_their_tenant(tenant: Client, platform: Platform) -> None:
    stranger = await platform.new_tenant()
    for client in (tenant, stranger):
        answer = await client.post(ORDERS, order("o-1"), **keyed())
        assert (answer.status_code, replayed(answer)) == (201, False)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\x7f"])
async def test_what_is_no_key(tenant: Client, key: str) -> None:
    await tenant.sign_in()
    for path, body in ((ORDERS, order("o-1")), ("/v1/tenant/keys", {"roles": ["tenant-admin"]})):
        answer = await tenant.http.post(
            path,
            json=body,
            headers=[*tenant.headers.items(), ("Idempotency-Key", key.encode())],  # type: ignore[list-item]  # httpx takes bytes as values
        )
        assert refusal(answer) == (400, ["IDEMPOTENCY_KEY_INVALID"])


@pytest.mark.parametrize("key", ["x" * 255, "!", '"8e03978e-40d5-43e8-bc93-6894a57f9324"'])
async def test_what_is_a_key(tenant: Client, key: str) -> None:
    assert (await tenant.post(ORDERS, order("o-1"), **keyed(key))).status_code == 201
    assert replayed(await tenant.post(ORDERS, order("o-1"), **keyed(key)))


async def test_other_methods_have_no_keys(tenant: Client, app: App) -> None:
    await make_order(tenant)
    for metadata in ({"a": "1"}, {"b": "2"}):
        assert (await tenant.put(f"{ORDERS}/o-1/metadata", metadata, **keyed())).status_code == 200
        assert (await tenant.get(f"{ORDERS}/o-1", **keyed())).json()["metadata"] == metadata
    assert await kept(app, tenant) == 0


async def test_in_flight_it_is_told_so(tenant: Client, app: App) -> None:
    """Another process holds the key in an operation that hasn't ended."""
    world = World.of(app, tenant)
    await tenant.sign_in()
    async with world.operation() as op:
        key_hash = op.cipher.index("idempotency_keys", "key_hash", "a-key")
        assert await idempotency.claim(op, key_hash, b"the other's request") is None
        for path, body in ((ORDERS, order("o-1")), ("/v1/tenant/keys", {"roles": ["tenant-admin"]})):
            answer = await asyncio.wait_for(tenant.post(path, body, **keyed()), timeout=5)
            assert refusal(answer) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
        # Nobody else waits for it.
        assert (await tenant.post(ORDERS, order("o-2"), **keyed("another"))).status_code == 201
        await op.run("delete from idempotency_keys where scope_id = %s and key_hash = %s", op.tenant, key_hash)
    assert (await tenant.post(ORDERS, order("o-1"), **keyed())).status_code == 201


async def test_sent_many_times_at_once_it_is_made_once(tenant: Client) -> None:
    await tenant.sign_in()
    answers = await asyncio.gather(*(tenant.post(ORDERS, order("o-1", instruction()), **keyed()) for _ in range(20)))
    made = [answer for answer in answers if answer.status_code == 202]
    assert len([answer for answer in made if not replayed(answer)]) == 1
    assert {answer.content for answer in made} == {made[0].content}
    for answer in answers:
        assert answer.status_code == 202 or refusal(answer) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
    assert replayed(await tenant.post(ORDERS, order("o-1", instruction()), **keyed()))


async def test_neighbours_with_and_without_keys_are_told_apart(tenant: Client) -> None:
    """Coalesced into one write, each gets its own answer."""
    await tenant.sign_in()
    await tenant.post(ORDERS, order("seen"), **keyed("seen"))
    answers = await asyncio.gather(
        tenant.post(ORDERS, order("plain")),
        tenant.post(ORDERS, order("seen"), **keyed("seen")),
        tenant.post(ORDERS, order("other"), **keyed("seen")),
        tenant.post(ORDERS, order("fresh"), **keyed("fresh")),
        tenant.post(ORDERS, order("seen"), **keyed("unseen")),
        tenant.post(ORDERS, order("wrong", instruction(schemeId="0" * 32)), **keyed("wrong")),
    )
    assert [(answer.status_code, replayed(answer)) for answer in answers] == [
        (201, False), (201, True), (422, False), (201, False), (400, False), (400, False),
    ]  # fmt: skip
    assert codes(answers[4]) == ["ORDER_ALREADY_EXISTS"]
    mended = await tenant.post(ORDERS, order("wrong"), **keyed("wrong"))
    assert (mended.status_code, replayed(mended)) == (201, False)


async def test_after_a_day_a_key_is_free_again(tenant: Client, app: App, platform: Platform) -> None:
    key = uuid.uuid4().hex
    await tenant.post(ORDERS, order("o-1"), **keyed(key))
    clock = ManualClock(SystemClock().now())
    async with platform.another_process(clock) as other:
        clock.advance(timedelta(hours=23))
        await forget_expired(other.app.databases, system("housekeeping"))
        assert await kept(app, tenant) == 1
        clock.advance(timedelta(hours=2))
        assert await forget_expired(other.app.databases, system("housekeeping")) >= 1
    assert await kept(app, tenant) == 0
    assert refusal(await tenant.post(ORDERS, order("o-1"), **keyed(key))) == (400, ["ORDER_ALREADY_EXISTS"])


async def test_answers_are_kept_sealed(tenant: Client, app: App) -> None:
    await tenant.post(ORDERS, order("KANARIENVOGEL"), **keyed("a-secret-key"))
    async with World.of(app, tenant).operation() as op:
        [row] = await op.rows(
            "select key_hash, request_hash, sealed, status from idempotency_keys where scope_id = %s", op.tenant
        )
        assert b"KANARIENVOGEL" in op.cipher.open("idempotency_keys", "sealed", row[0], row[2])
    assert row[3] == 201
    assert b"KANARIENVOGEL" not in row[2]
    assert b"a-secret-key" not in b"".join(row[:3])
