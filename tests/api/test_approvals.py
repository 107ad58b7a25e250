"""Payouts that wait for others: rules, votes, what voids them, and what the database holds to by itself (ACC-5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from strongroom.assembly import Installation
from strongroom.database.databases import url_of
from tests.api.paying import ORDERS, instruction, make_account, make_scheme, order, refusal
from tests.fixtures.oauth import KeyPair, OAuthClient, register
from tests.fixtures.platform import Client, Platform

RULES = "/v1/tenant/approval-rules"


class Bank:
    """A tenant whose payouts wait from 1,000.00 euros on: an admin, who makes payments, and two who approve."""

    def __init__(self, account: Client, admin: Client) -> None:
        self.account = account
        self.admin = admin
        self.made = 0

    async def furnish(self) -> None:
        self.maker = await self.admin.new_key("tenant-transaction-write")
        self.first = await self.admin.new_key("tenant-approval")
        self.second = await self.admin.new_key("tenant-approval")
        self.scheme = await make_scheme(self.admin)
        self.payee = await make_account(self.admin)

    async def rule(self, **more: Any) -> str:
        body = {"name": "Large", "thresholds": [{"currency": "EUR", "amount": "1000.00"}], **more}
        made = await self.admin.post(RULES, body)
        assert made.status_code == 201, made.text
        return str(made.json()["ruleId"])

    async def pay(self, amount: str = "1000.00", by: Client | None = None, **more: Any) -> str:
        """A payout that is complete; returns its path."""
        self.made += 1
        ref = f"o-{self.made}"
        body = order(ref, instruction(amount=amount, **self.complete, **more))
        answer = await (by or self.maker).post(ORDERS, body)
        assert answer.status_code == 202, answer.text
        return f"{ORDERS}/{ref}/instruction/i-1"

    async def approve(self, path: str, by: Client) -> httpx.Response:
        """Somebody's approval of what is there now; of nothing that waits, where nothing does."""
        waiting = (await self.admin.get("/v1/approvals")).json()["approvals"]
        seen = (item["contentHash"] for item in waiting if item["orderRef"] == path.split("/")[3])
        return await by.post(f"{path}/approve", {"contentHash": next(seen, "00" * 32)})

    @property
    def complete(self) -> dict[str, str]:
        return {"schemeId": self.scheme, "financialInstrumentId": self.payee}

    async def status(self, path: str) -> str:
        return str((await self.admin.get(path)).json()["status"])


@pytest.fixture(scope="module")
async def bank(platform: Platform) -> AsyncIterator[Bank]:
    """One with one rule, for all tests that need no other."""
    account = await platform.new_account()
    made = Bank(account, await account.new_tenant())
    await made.furnish()
    await made.rule()
    yield made


@pytest.fixture
async def other(platform: Platform) -> Bank:
    """One without rules."""
    account = await platform.new_account()
    made = Bank(account, await account.new_tenant())
    await made.furnish()
    return made


async def test_a_large_payout_waits_for_another(bank: Bank) -> None:
    small, large = await bank.pay("999.99"), await bank.pay()
    assert await bank.status(small) == "READY"
    assert await bank.status(large) == "AWAITING_APPROVAL"
    waiting = (await bank.first.get("/v1/approvals")).json()["approvals"]
    ref = large.split("/")[3]
    found = next(item for item in waiting if item["orderRef"] == ref)
    assert (found["amount"], found["approvalsNeeded"], found["approvalsGiven"]) == (1000.0, 1, 0)
    assert refusal(await bank.approve(large, by=bank.maker)) == (403, ["FORBIDDEN"])
    # Nobody approves what they haven't looked at.
    assert refusal(await bank.first.post(f"{large}/approve")) == (400, ["CONTENT_HASH_IS_REQUIRED"])
    assert (await bank.first.post(f"{large}/approve", {"contentHash": found["contentHash"]})).status_code == 202
    assert await bank.status(large) == "READY"
    assert refusal(await bank.approve(large, by=bank.second)) == (400, ["NOTHING_TO_APPROVE"])
    assert refusal(await bank.approve(small, by=bank.first)) == (400, ["NOTHING_TO_APPROVE"])


async def test_what_collects_doesnt_wait(bank: Bank) -> None:
    scheme = await make_scheme(bank.admin, "collect", "Premiums")
    answer = await bank.maker.post(
        ORDERS,
        order("collected", instruction(amount="5000.00", direction="DEBIT", schemeId=scheme)),
    )
    assert answer.status_code == 202
    assert await bank.status(f"{ORDERS}/collected/instruction/i-1") == "INCOMPLETE"


async def test_a_currency_without_a_threshold_isnt_guessed(bank: Bank) -> None:
    assert await bank.status(await bank.pay("0.01", currency="USD", country="US")) == "AWAITING_APPROVAL"


async def test_nobody_approves_their_own(bank: Bank) -> None:
    own = await bank.pay(by=bank.admin)
    assert refusal(await bank.approve(own, by=bank.admin)) == (403, ["APPROVER_IS_AUTHOR"])
    # Nor by a key that they made, nor what a key that they made has made.
    assert refusal(await bank.approve(own, by=bank.first)) == (403, ["APPROVER_IS_AUTHOR"])
    by_key = await bank.pay()
    assert refusal(await bank.approve(by_key, by=bank.admin)) == (403, ["APPROVER_IS_AUTHOR"])
    assert await bank.status(own) == await bank.status(by_key) == "AWAITING_APPROVAL"
    # Their own they may stop.
    assert (await bank.admin.post(f"{own}/reject")).status_code == 202
    assert await bank.status(own) == "CANCELLED"


async def test_who_changed_it_is_an_author_too(bank: Bank) -> None:
    beginner = await bank.admin.new_key("tenant-admin")
    answer = await beginner.post(ORDERS, order("begun", instruction(amount="1500.00")))
    assert answer.status_code == 202
    path = f"{ORDERS}/begun/instruction/i-1"
    assert (await bank.maker.put(path, bank.complete)).status_code == 200
    assert await bank.status(path) == "AWAITING_APPROVAL"
    assert refusal(await bank.approve(path, by=beginner)) == (403, ["APPROVER_IS_AUTHOR"])
    assert (await bank.approve(path, by=bank.first)).status_code == 202


async def test_who_puts_a_public_key_into_a_key_has_a_part_in_it(bank: Bank) -> None:
    """Neither it nor a key that it makes from then on approves what they made."""
    thief = await bank.admin.new_key("tenant-admin")
    path = await bank.pay(by=thief)
    own = KeyPair.make(key_id="thief's")
    for role in ("tenant-approval", "tenant-admin"):
        held = await register(bank.admin, role)
        jwks = {"keys": [held.pair.public, own.public]}
        put = await thief.put(f"/v1/tenant/keys/{held.client_id}", {"roles": [role], "jwks": jwks})
        assert put.status_code == 204, put.text
        taken = OAuthClient(at=held.at, pair=own, issuer=held.issuer)
        taken.at.token = await taken.token()
        assert refusal(await bank.approve(path, by=taken.at)) == (403, ["APPROVER_IS_AUTHOR"])
    made = await taken.at.new_key("tenant-approval")
    assert refusal(await bank.approve(path, by=made)) == (403, ["APPROVER_IS_AUTHOR"])
    assert (await bank.approve(path, by=bank.first)).status_code == 202


async def test_a_change_makes_another_payment_of_it(bank: Bank) -> None:
    path = await bank.pay()
    seen = next(
        item["contentHash"]
        for item in (await bank.first.get("/v1/approvals")).json()["approvals"]
        if item["orderRef"] == path.split("/")[3]
    )
    assert (await bank.approve(path, by=bank.first)).status_code == 202
    assert await bank.status(path) == "READY"
    assert (await bank.maker.put(path, {"amount": "1000.01"})).status_code == 200
    assert await bank.status(path) == "AWAITING_APPROVAL"
    stale = await bank.first.post(f"{path}/approve", {"contentHash": seen})
    assert refusal(stale) == (400, ["APPROVAL_CONTENT_CHANGED"])
    assert (await bank.approve(path, by=bank.first)).status_code == 202
    # Under the threshold nobody is asked; over it again, they are.
    assert (await bank.maker.put(path, {"amount": "10.00"})).status_code == 200
    assert await bank.status(path) == "READY"
    assert (await bank.maker.put(path, {"amount": "1000.00"})).status_code == 200
    assert await bank.status(path) == "AWAITING_APPROVAL"


async def test_one_no_is_enough(bank: Bank) -> None:
    path = await bank.pay()
    assert (await bank.second.post(f"{path}/reject")).status_code == 202
    assert await bank.status(path) == "CANCELLED"
    assert refusal(await bank.approve(path, by=bank.first)) == (400, ["NOTHING_TO_APPROVE"])


async def test_two_others_when_a_rule_wants_two(other: Bank) -> None:
    await other.rule(approvals=2)
    path = await other.pay()
    assert (await other.approve(path, by=other.first)).status_code == 202
    assert await other.status(path) == "AWAITING_APPROVAL"
    assert refusal(await other.approve(path, by=other.first)) == (400, ["ALREADY_DECIDED"])
    assert (await other.approve(path, by=other.second)).status_code == 202
    assert await other.status(path) == "READY"


async def test_one_holder_with_two_keys_isnt_two_others(other: Bank, installation: Installation) -> None:
    await other.rule(approvals=2)
    path = await other.pay(by=await other.account.new_key("tenant-transaction-write", tenant_id=other.admin.tenant_id))
    chief = await other.account.new_key("tenant-admin", tenant_id=other.admin.tenant_id)
    own = await chief.new_key("tenant-approval")
    assert (await other.approve(path, by=chief)).status_code == 202
    assert refusal(await other.approve(path, by=own)) == (403, ["APPROVER_HAS_APPROVED"])
    assert await other.status(path) == "AWAITING_APPROVAL"
    with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
        vote = (
            "insert into approval_votes select tenant_id, order_id, instruction_id, version, %s, array[approver], "
            "verdict, content_hash, at from approval_votes where tenant_id = %s"
        )
        with pytest.raises(psycopg.errors.CheckViolation, match="approved already"):
            connection.execute(vote, (f"api-key:{own.public_key}", other.admin.tenant_id))
    assert (await other.approve(path, by=other.second)).status_code == 202
    assert await other.status(path) == "READY"


async def test_a_key_whose_makers_nobody_knows_is_nobodys_other(other: Bank, installation: Installation) -> None:
    """One from before makers were written down; replacing its public keys doesn't tell who made it."""
    await other.rule()
    old = await register(other.admin, "tenant-approval")
    path = await other.pay()

    def forget(key: str) -> None:
        for database in ("eu", "directory"):
            with psycopg.connect(url_of(installation.admin_url, database).reveal()) as connection:
                connection.execute("update api_keys set made_by = '{}' where public_key = %s", (key,))

    forget(old.client_id)
    old.at.token = await old.token()
    assert refusal(await other.approve(path, by=old.at)) == (403, ["APPROVER_IS_AUTHOR"])
    stranger = await other.account.new_key("tenant-admin", tenant_id=other.admin.tenant_id)
    again = {"roles": ["tenant-approval"], "jwks": {"keys": [old.pair.public]}}
    assert (await stranger.put(f"/v1/tenant/keys/{old.client_id}", again)).status_code == 204
    assert refusal(await other.approve(path, by=old.at)) == (403, ["APPROVER_IS_AUTHOR"])
    forget(other.maker.public_key)
    assert refusal(await other.approve(await other.pay(), by=other.first)) == (403, ["APPROVER_IS_AUTHOR"])
    assert (await other.approve(path, by=other.first)).status_code == 202


async def test_rules_by_country_scheme_and_first_payment(other: Bank) -> None:
    await other.rule(name="Abroad", thresholds=[], countries=["FR"])
    assert await other.status(await other.pay("1.00", country="FR")) == "AWAITING_APPROVAL"
    assert await other.status(await other.pay("1.00")) == "READY"
    await other.rule(name="Strangers", thresholds=[], firstPayment=True, schemeIds=[other.scheme])
    assert await other.status(await other.pay("1.00")) == "AWAITING_APPROVAL"


async def test_what_was_collected_isnt_a_first_payment(other: Bank, installation: Installation) -> None:
    await other.rule(name="Strangers", thresholds=[], firstPayment=True)
    collect = await make_scheme(other.admin, "collect", "Premiums")
    line = instruction(direction="DEBIT", schemeId=collect, financialInstrumentId=other.payee)
    assert (await other.maker.post(ORDERS, order("collected", line))).status_code == 202
    await end_all(installation, other)
    assert await other.status(f"{ORDERS}/collected/instruction/i-1") == "COMPLETED"
    path = await other.pay("1.00")
    assert await other.status(path) == "AWAITING_APPROVAL"
    assert (await other.approve(path, by=other.first)).status_code == 202
    await end_all(installation, other)
    assert await other.status(await other.pay("1.00")) == "READY"


async def end_all(installation: Installation, bank: Bank) -> None:
    """All that is ready has been completed."""
    with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
        connection.execute(
            "update instructions set status = 'COMPLETED' where tenant_id = %s and status = 'READY'",
            (bank.admin.tenant_id,),
        )


async def test_a_rule_ends(other: Bank) -> None:
    rule = await other.rule()
    waits = await other.pay()
    assert (await other.admin.delete(f"{RULES}/{rule}")).status_code == 204
    assert (await other.admin.get(RULES)).json() == {"rules": []}
    assert refusal(await other.admin.delete(f"{RULES}/{rule}")) == (400, ["APPROVAL_RULE_NOT_FOUND"])
    assert await other.status(await other.pay()) == "READY"
    # What waits goes on waiting, until it is approved or made anew.
    assert await other.status(waits) == "AWAITING_APPROVAL"
    assert (await other.maker.put(waits, {"amount": "1000.02"})).status_code == 200
    assert await other.status(waits) == "READY"


async def test_an_account_makes_rules_for_its_tenants(other: Bank) -> None:
    path = f"/v1/tenant/{other.admin.tenant_id}/approval-rules"
    made = await other.account.post(path, {"name": "All", "expiresAfterHours": 1})
    assert made.status_code == 201, made.text
    assert (await other.admin.get(RULES)).json()["rules"] == [made.json()]
    assert await other.status(await other.pay("0.01")) == "AWAITING_APPROVAL"
    stranger = f"/v1/tenant/{UUID(int=7)}/approval-rules"
    assert refusal(await other.account.get(stranger)) == (400, ["TENANT_NOT_FOUND"])


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({}, ["NAME_IS_REQUIRED"]),
        ({"name": "x", "approvals": 0}, ["APPROVALS_OUT_OF_RANGE"]),
        ({"name": "x", "expiresAfterHours": 10_000}, ["EXPIRES_AFTER_HOURS_OUT_OF_RANGE"]),
        ({"name": "x", "countries": ["XX"]}, ["COUNTRIES_NOT_RECOGNISED"]),
        ({"name": "x", "thresholds": [{"currency": "EUR", "amount": "-1"}]}, ["AMOUNT_IS_INVALID"]),
        ({"name": "x", "thresholds": {}}, ["THRESHOLDS_IS_INVALID"]),
        ({"name": "x", "schemeIds": [1]}, ["SCHEME_IDS_IS_INVALID"]),
    ],
)
async def test_what_is_no_rule(bank: Bank, body: dict[str, Any], codes: list[str]) -> None:
    assert refusal(await bank.admin.post(RULES, body)) == (400, codes)


async def upload(bank: Bank, order_ref: str, *amounts: str) -> tuple[str, list[str]]:
    """A bulk upload of payouts; its path, and theirs."""
    rows = [
        f"{order_ref},i-{number},c-1,CREDIT,{amount},EUR,DE,2030-12-01,{bank.scheme},{bank.payee}"
        for number, amount in enumerate(amounts)
    ]
    header = (
        "orderRef,instructionRef,customerRef,direction,amount,currency,country,settledByDate,schemeId,"
        "financialInstrumentId"
    )
    content = "\n".join([header, *rows]).encode()
    job = await bank.maker.post(f"{ORDERS}/bulk", content=content, headers={"content-type": "text/csv"})
    assert job.status_code == 202, job.text
    paths = [f"{ORDERS}/{order_ref}/instruction/i-{number}" for number in range(len(amounts))]
    return f"{ORDERS}/bulk/{job.json()['jobId']}", paths


async def test_a_batch_is_approved_together(bank: Bank) -> None:
    path, paths = await upload(bank, "batch", "1000.00", "2000.00", "1.00")
    assert [await bank.status(item) for item in paths] == ["AWAITING_APPROVAL", "AWAITING_APPROVAL", "READY"]
    assert refusal(await bank.admin.post(f"{path}/approve")) == (403, ["APPROVER_IS_AUTHOR"])
    answer = await bank.first.post(f"{path}/approve")
    assert (answer.status_code, answer.json()) == (202, {"decided": 2, "remaining": 0})
    assert [await bank.status(item) for item in paths] == ["READY"] * 3
    assert refusal(await bank.first.post(f"{ORDERS}/bulk/{UUID(int=7)}/approve")) == (400, ["BULK_JOB_NOT_FOUND"])


async def test_what_was_changed_isnt_of_the_batch_any_more(bank: Bank) -> None:
    path, (kept, changed, lowered) = await upload(bank, "changed", "1000.00", "1000.00", "1000.00")
    assert (await bank.maker.put(changed, {"amount": "900000.00"})).status_code == 200
    assert (await bank.maker.put(lowered, {"amount": "1.00"})).status_code == 200
    assert (await bank.maker.put(lowered, {"amount": "900000.00"})).status_code == 200
    assert (await bank.first.post(f"{path}/approve")).json() == {"decided": 1, "remaining": 0}
    found = [await bank.status(item) for item in (kept, changed, lowered)]
    assert found == ["READY", "AWAITING_APPROVAL", "AWAITING_APPROVAL"]


async def test_an_upload_that_can_grow_isnt_approved(bank: Bank, installation: Installation) -> None:
    path, [waits] = await upload(bank, "growing", "1000.00")
    for state in ("RUNNING", "INTERRUPTED"):
        with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
            connection.execute("update bulk_jobs set status = %s where job_id = %s", (state, path.rpartition("/")[2]))
        assert refusal(await bank.first.post(f"{path}/approve")) == (400, ["BULK_JOB_NOT_COMPLETED"])
    assert await bank.status(waits) == "AWAITING_APPROVAL"
    assert (await bank.first.post(f"{path}/reject")).json() == {"decided": 1, "remaining": 0}
    assert await bank.status(waits) == "CANCELLED"


async def test_the_database_lets_nothing_go_by_itself(bank: Bank, installation: Installation) -> None:
    """Whoever writes: neither the state nor a vote of an author gets past it."""
    path = await bank.pay()
    with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
        found = "from approvals where state = 'PENDING' and tenant_id = %s order by created_at desc limit 1"
        row = connection.execute(
            f"select order_id, instruction_id, authors, content_hash {found}",
            (bank.admin.tenant_id,),
        ).fetchone()
        assert row is not None
        order_id, instruction_id, authors, content_hash = row
        with pytest.raises(psycopg.errors.CheckViolation, match="awaits approval"), connection.transaction():
            connection.execute(
                "update instructions set status = 'READY' where order_id = %s and instruction_id = %s",
                (order_id, instruction_id),
            )
        vote = (
            "insert into approval_votes values (%s, %s, %s, 1, %s, '{}', 'APPROVE', %s, now())",
            (bank.admin.tenant_id, order_id, instruction_id, authors[0], content_hash),
        )
        with pytest.raises(psycopg.errors.CheckViolation, match="their own"), connection.transaction():
            connection.execute(*vote)
        with pytest.raises(psycopg.errors.CheckViolation, match="awaits approval"), connection.transaction():
            connection.execute("update approvals set state = 'APPROVED' where instruction_id = %s", (instruction_id,))
            connection.execute(
                "update instructions set status = 'PROCESSING' where instruction_id = %s", (instruction_id,)
            )
    assert await bank.status(path) == "AWAITING_APPROVAL"
