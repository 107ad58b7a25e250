"""People over the API: invited, listed, changed, removed; those of the account, and of its tenants."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from strongroom.kernel.actors import operator
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.ids import AccountId
from tests.api.paying import codes
from tests.fixtures.platform import Client, Platform
from tests.people.browser import new_person, unique_address

USERS = "/v1/account/users"
FIELDS = ["userId", "emailAddress", "name", "roles", "invitationStatus", "expiryDate", "isSsoUser"]


async def invited(client: Client, path: str = USERS, *roles: str) -> dict[str, object]:
    body = {"emailAddress": unique_address(), "roles": list(roles) or ["account-admin"]}
    made = await client.post(path, body)
    assert made.status_code == 201, made.text
    user: dict[str, object] = made.json()
    return user


async def test_a_users_life(platform: Platform, account: Client) -> None:
    address = unique_address("Ada")
    made = await account.post(USERS, {"emailAddress": f" {address.upper()} ", "roles": ["account-admin"]})
    assert made.status_code == 201
    user = made.json()
    assert list(user) == FIELDS
    assert (user["emailAddress"], user["invitationStatus"]) == (address.lower(), "INVITED")
    assert user["roles"] == ["account-admin"]
    left = datetime.fromisoformat(user["expiryDate"]) - datetime.now(UTC)
    assert timedelta(hours=71, minutes=59) < left <= timedelta(hours=72)
    one = f"{USERS}/{user['userId']}"
    assert (await account.get(one)).json() == user
    again = await account.post(f"{USERS}/resend", {"userId": user["userId"]})
    assert (again.status_code, again.json()["invitationStatus"]) == (201, "INVITED")
    assert (await account.delete(one)).status_code == 204
    assert (await account.get(one)).json()["invitationStatus"] == "REVOKED"
    assert (await account.get(USERS)).json()["results"] == []
    for gone in (await account.delete(one), await account.post(f"{USERS}/resend", {"userId": user["userId"]})):
        assert (gone.status_code, codes(gone)) == (400, ["INVITATION_CLOSED"])


async def test_an_invitation_expires_and_can_be_sent_again(platform: Platform, account: Client) -> None:
    user = await invited(account)
    async with platform.another_process(ManualClock(platform.app.clock.now() + timedelta(hours=73))) as later:
        client = replace(account, http=later.http, token="")
        assert (await client.sign_in(epoch=str(int(later.app.clock.now().timestamp())))).status_code == 201
        path = f"{USERS}/{user['userId']}"
        assert (await client.get(path)).json()["invitationStatus"] == "EXPIRED"
        again = await client.post(f"{USERS}/resend", {"userId": user["userId"]})
        assert again.json()["invitationStatus"] == "INVITED"


async def test_pages(account: Client) -> None:
    users = [await invited(account) for _ in range(3)]
    first = (await account.get(USERS, params={"pageSize": "2"})).json()
    assert {name: value for name, value in first.items() if name != "results"} == {
        "currentPage": 1, "pageCount": 2, "pageSize": 2, "rowCount": 3,
    }  # fmt: skip
    second = (await account.get(USERS, params={"pageSize": "2", "page": "2"})).json()
    assert first["results"] + second["results"] == users
    for params, code in (({"page": "0"}, "PAGE_OUT_OF_RANGE"), ({"pageSize": "101"}, "PAGE_SIZE_OUT_OF_RANGE")):
        answer = await account.get(USERS, params=params)
        assert (answer.status_code, codes(answer)) == (400, [code])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ["EMAIL_ADDRESS_IS_REQUIRED", "ROLES_IS_REQUIRED"]),
        ({"emailAddress": "ada", "roles": ["king"]}, ["EMAIL_ADDRESS_IS_INVALID", "ROLES_NOT_RECOGNISED"]),
        ({"emailAddress": 5, "roles": "account-admin"}, ["EMAIL_ADDRESS_IS_INVALID", "ROLES_IS_INVALID"]),
        ({"emailAddress": "a@example.com", "roles": ["tenant-admin"]}, ["ROLES_NOT_RECOGNISED"]),
        ({"emailAddress": "a" * 255, "roles": ["account-admin"]}, ["EMAIL_ADDRESS_LENGTH_OUT_OF_RANGE"]),
    ],
)
async def test_what_is_wrong_with_an_invitation(account: Client, body: dict[str, object], expected: list[str]) -> None:
    answer = await account.post(USERS, body)
    assert (answer.status_code, codes(answer)) == (400, expected)


async def test_an_address_is_there_once(platform: Platform, account: Client) -> None:
    user = await invited(account)
    answer = await account.post(USERS, {"emailAddress": user["emailAddress"], "roles": ["account-tenant-read"]})
    assert (answer.status_code, codes(answer)) == (400, ["USER_ALREADY_EXISTS"])
    address = unique_address()
    await new_person(platform, account, address)
    answer = await account.post(USERS, {"emailAddress": address.upper(), "roles": ["account-tenant-read"]})
    assert (answer.status_code, codes(answer)) == (400, ["USER_ALREADY_EXISTS"])


async def test_the_last_admin_stays(platform: Platform, account: Client) -> None:
    await new_person(platform, account, unique_address())
    (user,) = (await account.get(USERS)).json()["results"]
    path = f"{USERS}/{user['userId']}"
    for answer in (await account.delete(path), await account.put(path, {"roles": ["account-tenant-read"]})):
        assert (answer.status_code, codes(answer)) == (400, ["LAST_ADMIN"])
    await new_person(platform, account, unique_address())
    assert (await account.put(path, {"roles": ["account-tenant-read"]})).status_code == 204
    assert (await account.get(path)).json()["roles"] == ["account-tenant-read"]
    assert (await account.delete(path)).status_code == 204
    assert (await account.get(path)).json()["invitationStatus"] == "ACCEPTED"


async def test_people_of_a_tenant(platform: Platform, account: Client) -> None:
    tenant = await account.new_tenant(region="ch")
    path = f"/v1/tenant/{tenant.tenant_id}/users"
    address = unique_address()
    await new_person(platform, account, address, "account-tenant-read")
    # Somebody who is in the account needs no link.
    made = await account.post(path, {"emailAddress": address, "roles": ["tenant-transaction-read"]})
    assert (made.status_code, made.json()["invitationStatus"]) == (201, "ACCEPTED")
    newcomer = await invited(account, path, "tenant-admin")
    results = (await account.get(path)).json()["results"]
    assert [(user["roles"], user["invitationStatus"]) for user in results] == [
        (["tenant-transaction-read"], "ACCEPTED"),
        (["tenant-admin"], "INVITED"),
    ]
    assert [user["emailAddress"] for user in (await account.get(USERS)).json()["results"]] == [address]
    one = f"{path}/{results[0]['userId']}"
    assert (await account.put(one, {"roles": ["tenant-app-read"]})).status_code == 204
    assert (await account.get(one)).json()["roles"] == ["tenant-app-read"]
    assert (await account.delete(one)).status_code == 204
    assert codes(await account.get(one)) == ["USER_NOT_FOUND"]
    assert (await account.get(USERS)).json()["results"][0]["roles"] == ["account-tenant-read"]
    assert (await account.delete(f"{path}/{newcomer['userId']}")).status_code == 204
    assert (await account.get(path)).json()["results"] == []
    # The tenant's own region holds nothing of anybody.
    for table in ("persons", "invitations", "grants", "mails"):
        async with platform.app.operation(operator(), account=AccountId(UUID(account.account_id)), region="ch") as op:
            assert await op.rows(f"select 1 from {table}") == [], table  # noqa: S608  names of ours


async def test_people_of_another_account_are_nobody(platform: Platform, account: Client) -> None:
    await new_person(platform, account, unique_address())
    (user,) = (await account.get(USERS)).json()["results"]
    tenant = await account.new_tenant()
    stranger = await platform.new_account()
    one = f"{USERS}/{user['userId']}"
    assert codes(await stranger.get(one)) == ["USER_NOT_FOUND"]
    assert codes(await stranger.put(one, {"roles": ["account-admin"]})) == ["USER_NOT_FOUND"]
    assert codes(await stranger.delete(one)) == ["USER_NOT_FOUND"]
    assert codes(await stranger.get(f"{one}/sessions")) == ["USER_NOT_FOUND"]
    assert codes(await stranger.delete(f"{one}/sessions")) == ["USER_NOT_FOUND"]
    theirs = f"/v1/tenant/{tenant.tenant_id}/users"
    assert codes(await stranger.get(theirs)) == ["TENANT_NOT_FOUND"]
    made = await stranger.post(theirs, {"emailAddress": unique_address(), "roles": ["tenant-admin"]})
    assert codes(made) == ["TENANT_NOT_FOUND"]


async def test_every_change_is_in_the_record_without_any_secret(platform: Platform, account: Client) -> None:
    address = unique_address()
    await new_person(platform, account, address)
    await new_person(platform, account, unique_address())
    users = (await account.get(USERS)).json()["results"]
    user = next(user["userId"] for user in users if user["emailAddress"] == address)
    await account.put(f"{USERS}/{user}", {"roles": ["account-tenant-read"]})
    await account.delete(f"{USERS}/{user}/sessions")
    await account.delete(f"{USERS}/{user}")
    async with platform.app.operation(operator(), account=AccountId(UUID(account.account_id))) as op:
        rows = await op.rows("select action, actor_id, detail, t::text from audit_entries t order by entry_id")
    actions = [row[0] for row in rows]
    for action in (
        "invitation.create", "invitation.accept", "person.create", "grant.change", "credential.add",
        "recovery-codes.replace", "sign-in", "session.begin", "device.know", "session.end-all", "person.remove",
    ):  # fmt: skip
        assert action in actions
    changes = [row[1:3] for row in rows if row[0] == "grant.change"]
    assert (account.public_key, "account: account-admin > account-tenant-read") in changes
    assert (user, "account: none > account-admin") in changes
    assert not any(address in row[3] or "Beispiel" in row[3] for row in rows)
