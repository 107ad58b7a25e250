"""Signing in: the signature's rules (wire contract, section 2), and what a token opens."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from strongroom.identity.hmac_signin import REFUSAL_TAKES_S
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.ids import AccountId, TenantId
from tests.fixtures.platform import Client, Platform
from tests.fixtures.signing import authorization


def claims_of(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    decoded: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


async def send(
    platform: Platform, header: str | None, path: str = "/v1/identity/hmac", **options: object
) -> httpx.Response:
    headers = {} if header is None else {"Authorization": header}
    return await platform.http.post(path, headers=headers, **options)  # type: ignore[arg-type]  # httpx's own options


async def record_of(platform: Platform, client: Client) -> list[tuple[str, str, str]]:
    """(action, outcome, detail) of every entry about the client's key, oldest first."""
    account = AccountId(uuid.UUID(client.account_id))
    tenant = TenantId(uuid.UUID(client.tenant_id)) if client.tenant_id else None
    async with platform.app.operation(system("test"), account=account, tenant=tenant) as op:
        rows = await op.rows(
            "select action, outcome, detail from audit_entries where subject_id = %s order by entry_id",
            client.public_key,
        )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_a_signed_request_gets_a_token_bound_to_the_key(tenant: Client) -> None:
    answer = await tenant.sign_in()
    assert answer.status_code == 201
    assert list(answer.json()) == ["accessToken", "expires"]
    claims = claims_of(answer.json()["accessToken"])
    assert claims["sub"] == tenant.public_key
    assert claims["account"] == tenant.account_id
    assert claims["tenant"] == tenant.tenant_id
    assert claims["roles"] == ["tenant-admin"]
    assert claims["env"] == "sandbox"
    assert answer.json()["expires"] == str(int(str(claims["exp"])) * 1000)
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 15 * 60
    assert (await tenant.get("/v1/tenant")).status_code == 200


@pytest.mark.parametrize("scheme", ["Hmac", "hmac", "HMAC", "hMaC"])
async def test_the_scheme_is_read_in_any_case(platform: Platform, account: Client, scheme: str) -> None:
    header = authorization(account.public_key, account.private_key)
    assert (await send(platform, scheme + header[4:])).status_code == 201


@pytest.mark.parametrize("decimals", [0, 1, 3, 6])
async def test_the_epoch_may_have_a_fraction_and_be_the_nonce(
    platform: Platform, account: Client, decimals: int
) -> None:
    epoch = f"{time.time():.{decimals}f}"
    header = authorization(account.public_key, account.private_key, epoch=epoch, nonce=epoch)
    assert (await send(platform, header)).status_code == 201


async def test_a_body_is_part_of_what_is_signed(platform: Platform, account: Client) -> None:
    body = b'{"for": "nothing"}'
    header = authorization(account.public_key, account.private_key, body=body)
    assert (await send(platform, header, content=body)).status_code == 201
    header = authorization(account.public_key, account.private_key, body=body)
    assert codes(await send(platform, header, content=body + b" ")) == ["SIGNATURE_REFUSED"]
    header = authorization(account.public_key, account.private_key)
    assert codes(await send(platform, header, content=body)) == ["SIGNATURE_REFUSED"]


@pytest.mark.parametrize("path", ["/v1/identity/hmac/", "/v1/identity/hmac?tenantId=1&x=y"])
async def test_trailing_slash_and_query_make_no_difference(platform: Platform, account: Client, path: str) -> None:
    header = authorization(account.public_key, account.private_key)
    assert (await send(platform, header, path)).status_code == 201


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "SIGNATURE_IS_REQUIRED"),
        ("", "SIGNATURE_IS_REQUIRED"),
        ("Hmac", "SIGNATURE_IS_REQUIRED"),
        ("Bearer abc", "SIGNATURE_IS_REQUIRED"),
        ("Hmac {key}:{nonce}:{epoch}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:{epoch}:{signature}:x", "SIGNATURE_MALFORMED"),
        ("Hmac not-a-key:{nonce}:{epoch}:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}::{epoch}:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:" + "n" * 129 + ":{epoch}:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}::{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:NaN:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:1e9:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:-5:{signature}", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:{epoch}:not base64!", "SIGNATURE_MALFORMED"),
        ("Hmac {key}:{nonce}:{epoch}:", "SIGNATURE_REFUSED"),
        ("Hmac {key}:{nonce}:{epoch}:AAAA", "SIGNATURE_REFUSED"),
        ("Hmac {key}:{nonce}x:{epoch}:{signature}", "SIGNATURE_REFUSED"),
        ("Hmac {key}:{nonce}:{epoch}1:{signature}", "SIGNATURE_REFUSED"),
        ("Hmac 0190a7c2-7d2e-7b3f-8c4d-5e6f7a8b9c0d:{nonce}:{epoch}:{signature}", "SIGNATURE_REFUSED"),
    ],
)
async def test_what_is_not_signed_just_so_is_refused(
    platform: Platform, account: Client, header: str | None, code: str
) -> None:
    if header is not None:
        key, nonce, epoch, signature = authorization(account.public_key, account.private_key)[5:].split(":")
        header = header.format(key=key, nonce=nonce, epoch=epoch, signature=signature)
    answer = await send(platform, header)
    assert (answer.status_code, codes(answer)) == (401, [code])
    assert answer.headers["www-authenticate"]


async def test_another_keys_private_half_does_not_sign(platform: Platform, account: Client) -> None:
    other = await platform.new_account()
    answer = await send(platform, authorization(account.public_key, other.private_key))
    assert (answer.status_code, codes(answer)) == (401, ["SIGNATURE_REFUSED"])


@pytest.mark.parametrize("minutes", [-10, 10, -5.1, 5.1])
async def test_a_client_whose_clock_is_off_is_refused(account: Client, minutes: float) -> None:
    answer = await account.sign_in(epoch=str(int(time.time() + 60 * minutes)))
    assert (answer.status_code, codes(answer)) == (401, ["CLOCK_OUT_OF_RANGE"])


@pytest.mark.parametrize("minutes", [-4.9, 4.9])
async def test_a_clock_that_is_a_little_off_is_fine(account: Client, minutes: float) -> None:
    assert (await account.sign_in(epoch=str(int(time.time() + 60 * minutes)))).status_code == 201


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_our_own_clock_being_off_refuses_and_says_why(platform: Platform, account: Client, minutes: int) -> None:
    clock = ManualClock(datetime.now(UTC) + timedelta(minutes=minutes))
    async with platform.another_process(clock) as other:
        answer = await send(other, authorization(account.public_key, account.private_key))
    assert codes(answer) == ["CLOCK_OUT_OF_RANGE"]
    assert answer.json()["errors"][0]["metadata"]["now"] == int(clock.now().timestamp())


async def test_a_replay_is_refused_here_elsewhere_and_after_a_restart(platform: Platform, account: Client) -> None:
    header = authorization(account.public_key, account.private_key)
    assert (await send(platform, header)).status_code == 201
    here = await send(platform, header)
    async with platform.another_process() as other:
        elsewhere = await send(other, header)
    async with platform.another_process() as restarted:
        afterwards = await send(restarted, header)
    for answer in (here, elsewhere, afterwards):
        assert (answer.status_code, codes(answer)) == (401, ["NONCE_REPLAYED"])


async def test_a_nonce_counts_once_whatever_else_is_signed_with_it(account: Client) -> None:
    assert (await account.sign_in(nonce="once")).status_code == 201
    assert codes(await account.sign_in(nonce="once", epoch=f"{time.time() + 60:.0f}")) == ["NONCE_REPLAYED"]


async def test_a_nonce_belongs_to_its_key(platform: Platform, account: Client) -> None:
    other = await account.new_key("account-admin")
    assert (await account.sign_in(nonce="shared")).status_code == 201
    assert (await other.sign_in(nonce="shared")).status_code == 201


async def test_of_many_replays_at_once_in_two_processes_one_gets_in(platform: Platform, account: Client) -> None:
    header = authorization(account.public_key, account.private_key)
    async with platform.another_process() as other:
        answers = await asyncio.gather(*(send(process, header) for process in (platform, other) * 5))
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 9


async def test_an_unsigned_attempt_does_not_spend_the_nonce(platform: Platform, account: Client) -> None:
    header = authorization(account.public_key, account.private_key, nonce="mine")
    forged = header.rsplit(":", 1)[0] + ":AAAA"
    assert codes(await send(platform, forged)) == ["SIGNATURE_REFUSED"]
    assert (await send(platform, header)).status_code == 201


async def test_nonces_are_forgotten_when_their_signatures_are_long_too_old(platform: Platform, account: Client) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with platform.another_process(clock) as other:
        for minute in (0, 16):
            clock.advance(timedelta(minutes=minute))
            epoch = f"{clock.now().timestamp():.0f}"
            header = authorization(account.public_key, account.private_key, epoch=epoch)
            assert (await send(other, header)).status_code == 201
    async with platform.app.operation(system("test"), account=AccountId(uuid.UUID(account.account_id))) as op:
        assert await op.row("select count(*) from nonces") == (1,)


async def test_sign_ins_and_refusals_of_a_known_key_are_on_record(platform: Platform, tenant: Client) -> None:
    await tenant.sign_in(nonce="first")
    await tenant.sign_in(nonce="first")
    await tenant.sign_in(epoch=str(int(time.time() - 3600)))
    await send(platform, f"Hmac {tenant.public_key}:n:{time.time():.0f}:AAAA")
    assert [entry for entry in await record_of(platform, tenant) if entry[0] == "sign-in"] == [
        ("sign-in", "done", ""),
        ("sign-in", "refused", "NONCE_REPLAYED"),
        ("sign-in", "refused", "CLOCK_OUT_OF_RANGE"),
        ("sign-in", "refused", "SIGNATURE_REFUSED"),
    ]


async def test_refusals_take_as_long_for_keys_that_exist_as_for_those_that_do_not(
    platform: Platform, account: Client
) -> None:
    for key in (account.public_key, str(uuid.uuid4())):
        started = time.monotonic()
        answer = await send(platform, f"Hmac {key}:{uuid.uuid4().hex}:{time.time():.0f}:AAAA")
        took = time.monotonic() - started
        assert codes(answer) == ["SIGNATURE_REFUSED"]
        assert took >= REFUSAL_TAKES_S


async def test_a_key_of_the_other_environment_is_refused(platform: Platform, account: Client) -> None:
    key = str(uuid.uuid4())
    async with platform.app.databases.directory() as directory:
        await directory.execute(
            "insert into api_keys (public_key, environment, account_id, region) values (%s, 'production', %s, 'eu')",
            (key, account.account_id),
        )
    answer = await send(platform, authorization(key, account.private_key))
    assert (answer.status_code, codes(answer)) == (401, ["KEY_OF_OTHER_ENVIRONMENT"])


async def test_a_key_that_was_relabelled_lets_nobody_in(platform: Platform, account: Client) -> None:
    """What was sealed in another installation doesn't open here, whatever its label says."""
    other = await platform.new_account()

    async def of(client: Client, statement: str, *values: object) -> list[tuple[object, ...]]:
        scope = AccountId(uuid.UUID(client.account_id))
        async with platform.app.operation(system("test"), account=scope) as op:
            return list(await op.rows(statement, *values, client.public_key))

    [(foreign,)] = await of(other, "select sealed from api_keys where public_key = %s")
    assert await of(account, "update api_keys set sealed = %s where public_key = %s returning 1", foreign)
    answer = await send(platform, authorization(account.public_key, account.private_key))
    assert (answer.status_code, codes(answer)) == (401, ["SIGNATURE_REFUSED"])
    assert ("sign-in", "refused", "SIGNATURE_REFUSED") in await record_of(platform, account)


@pytest.mark.parametrize("step", ["waiting", "rejected", "deleted"])
async def test_only_an_approved_tenants_keys_sign_in(platform: Platform, step: str) -> None:
    account = await platform.new_account(tenant_creation_approval_required=True)
    made = await account.post("/v1/account/tenants", {"name": "Claims"})
    tenant_id = made.json()["tenantId"]
    tenant = await account.new_key("tenant-admin", tenant_id=tenant_id)
    path = f"/v1/account/tenants/{tenant_id}"
    if step == "rejected":
        assert (await account.post(f"{path}/reject", {"reason": "No."})).status_code == 200
    if step == "deleted":
        assert (await account.post(f"{path}/approve")).status_code == 200
        assert (await tenant.sign_in()).status_code == 201
        assert (await tenant.get("/v1/tenant")).status_code == 200
        assert (await account.delete(path)).status_code == 200
        with_token = await tenant.get("/v1/tenant")
        assert (with_token.status_code, codes(with_token)) == (403, ["TENANT_NOT_APPROVED"])
    answer = await tenant.sign_in()
    assert (answer.status_code, codes(answer)) == (403, ["TENANT_NOT_APPROVED"])
