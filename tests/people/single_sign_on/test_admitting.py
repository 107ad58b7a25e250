"""Who comes in by the provider, with which roles, and who no longer comes in any other way."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import psycopg
import pytest

from strongroom.database.databases import url_of
from strongroom.kernel.actors import operator
from strongroom.kernel.errors import Collided
from strongroom.kernel.ids import AccountId, new_uuid
from tests.fixtures.platform import Client
from tests.people.browser import Browser, new_link, new_person, unique_address
from tests.people.single_sign_on.made import PATH, MadeProvider, NameServer, Scene, new_scene, verified_domain

USERS = "/v1/account/users"


async def users(scene: Scene) -> dict[str, dict[str, Any]]:
    found = (await scene.account.get(USERS)).json()["results"]
    return {user["emailAddress"]: user for user in found}


def codes(answer: Any) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


async def record_of(scene: Scene) -> list[str]:
    async with scene.platform.app.operation(operator(), account=account_id(scene)) as op:
        return [str(row[0]) for row in await op.rows("select t::text from audit_entries t")]


def account_id(scene: Scene) -> AccountId:
    return AccountId(UUID(scene.account.account_id))


async def test_somebody_new_is_made_with_the_default_role(scene: Scene) -> None:
    assert (await scene.sign_in(scene.browser())).status_code == 303
    made = (await users(scene))[scene.address()]
    assert (made["roles"], made["name"], made["isSsoUser"]) == (["account-tenant-read"], "Ada Beispiel", True)
    assert (await scene.sign_in(scene.browser())).status_code == 303
    assert len(await users(scene)) == 1


async def test_nobody_new_is_made_where_the_account_does_not_let_them_in(scene: Scene) -> None:
    assert (await scene.put(createsUsers=False)).status_code == 200
    answer = await scene.sign_in(scene.browser())
    assert answer.status_code == 401 and "nobody has invited you" in answer.text
    assert await users(scene) == {}


async def test_who_may_change_it_holds_what_an_admin_holds(scene: Scene) -> None:
    """Otherwise they would come in as an admin, by a provider of their own."""
    role = {"name": "settings", "level": "account", "permissions": ["account:manage"]}
    assert (await scene.account.post("/v1/account/roles", role)).status_code == 201
    key = await scene.account.new_key("custom:settings")
    assert (await key.get(PATH)).status_code == 200
    domain = f"{PATH}/domains/{(await key.get(f'{PATH}/domains')).json()['domains'][0]['domainId']}"
    for answer in (
        await key.put(PATH, scene.settings),
        await key.delete(PATH),
        await key.post(f"{PATH}/domains", {"domain": "elsewhere.example"}),
        await key.post(f"{domain}/verify"),
        await key.delete(domain),
    ):
        assert (answer.status_code, codes(answer)) == (403, ["GRANT_EXCEEDS_OWN"])
    assert (await scene.sign_in(scene.browser())).status_code == 303, "all is as it was"


async def test_nobody_is_made_without_a_role(scene: Scene) -> None:
    assert (await scene.put(defaultRoles=[])).status_code == 200
    answer = await scene.sign_in(scene.browser())
    assert answer.status_code == 401 and "no role" in answer.text
    async with scene.platform.app.operation(operator(), account=account_id(scene)) as op:
        assert not await op.rows("select 1 from persons union all select 1 from provider_subjects")
    assert "SIGN_IN_NOT_ADMITTED" in "".join(await record_of(scene))

    await new_link(scene.platform, scene.account, scene.address(), "account-tenant-read")
    assert (await scene.sign_in(scene.browser())).status_code == 303


async def test_people_of_other_domains_are_not_believed(scene: Scene) -> None:
    for address, reason in (
        (unique_address(), "isn&#39;t verified"),
        (f"ada@sub.{scene.domain}", "isn&#39;t verified"),
        ("ada", "no mail address"),
    ):
        answer = await scene.sign_in(scene.browser(), email=address)
        assert answer.status_code == 401 and reason in answer.text, answer.text
    assert await users(scene) == {}


async def test_the_database_admits_nobody_whom_the_account_does_not_let_in(scene: Scene) -> None:
    domain = (await scene.account.get(f"{PATH}/domains")).json()["domains"][0]["domainId"]
    insert = (
        "insert into admissions (account_id, admission_id, person_id, domain_id, admitted_at) "
        "values (%s, %s, %s, %s, now())"
    )
    databases = scene.platform.app.databases
    assert (await scene.put(createsUsers=False)).status_code == 200
    with pytest.raises(Collided):
        async with databases.operation(operator(), account=account_id(scene)) as op:
            await op.run(insert, op.account, new_uuid(), new_uuid(), UUID(domain))
    assert (await scene.put(createsUsers=True)).status_code == 200
    with pytest.raises(Collided):
        async with databases.operation(operator(), account=account_id(scene)) as op:
            await op.run(insert, op.account, new_uuid(), new_uuid(), new_uuid())


async def test_an_address_that_is_given_to_somebody_else_opens_nothing(scene: Scene) -> None:
    assert (await scene.sign_in(scene.browser())).status_code == 303
    answer = await scene.sign_in(scene.browser(), sub="another-1")
    assert answer.status_code == 401 and "belonged to somebody else" in answer.text
    renamed = scene.browser()
    assert (await scene.sign_in(renamed, email=scene.address("ada.married"))).status_code == 303
    assert list(await users(scene)) == [scene.address()]


async def test_groups_give_and_take_roles_at_each_sign_in(scene: Scene) -> None:
    tenant = await scene.account.new_tenant()
    mappings = [
        {"group": "Approvers", "roles": ["account-tenant-approval"]},
        {"group": "Payers", "roles": ["tenant-transaction-write"], "tenantId": tenant.tenant_id},
    ]
    assert (await scene.put(groupRoles=mappings, defaultRoles=[])).status_code == 200
    browser = scene.browser()
    assert (await scene.sign_in(browser, groups=["Approvers", "Payers", "Others"])).status_code == 303
    made = (await users(scene))[scene.address()]
    assert made["roles"] == ["account-tenant-approval"]
    at_tenant = f"/v1/tenant/{tenant.tenant_id}/users"
    assert [one["roles"] for one in (await scene.account.get(at_tenant)).json()["results"]] == [
        ["tenant-transaction-write"]
    ]
    assert (await scene.sign_in(scene.browser(), groups="Payers")).status_code == 303
    assert (await scene.account.get(f"{USERS}/{made['userId']}")).json()["roles"] == []

    answer = await scene.sign_in(scene.browser(), groups=[])
    assert answer.status_code == 401 and "no role" in answer.text
    assert (await scene.account.get(at_tenant)).json()["results"] == []
    assert not await browser.is_signed_in(), "who has no role any more is out"


async def test_groups_together_give_nothing_that_may_not_be_held_together(scene: Scene) -> None:
    tenant = await scene.account.new_tenant()
    mappings = [
        {"group": group, "roles": [role], "tenantId": tenant.tenant_id}
        for group, role in (
            ("Payers", "tenant-transaction-write"),
            ("Approvers", "tenant-approval"),
            ("Admins", "tenant-admin"),
        )
    ]
    assert (await scene.put(groupRoles=mappings, defaultRoles=[])).status_code == 200
    assert (await scene.sign_in(scene.browser(), groups=["Payers"])).status_code == 303
    answer = await scene.sign_in(scene.browser(), groups=["Payers", "Approvers"])
    assert answer.status_code == 401 and "may not be held together" in answer.text
    assert "SIGN_IN_NOT_ADMITTED" in "".join(await record_of(scene))

    async def held() -> list[str]:
        found = (await scene.account.get(f"/v1/tenant/{tenant.tenant_id}/users")).json()["results"]
        return [role for one in found for role in one["roles"]]

    assert await held() == ["tenant-transaction-write"], "all is as it was"
    assert (await scene.sign_in(scene.browser(), groups=["Approvers"])).status_code == 303
    assert await held() == ["tenant-approval"]
    assert (await scene.sign_in(scene.browser(), groups=["Admins", "Payers", "Approvers"])).status_code == 303


async def test_a_removed_person_is_out_in_every_process_and_stays_out(scene: Scene) -> None:
    browser = scene.browser()
    assert (await scene.sign_in(browser)).status_code == 303
    async with scene.platform.another_process() as other:
        elsewhere = dataclasses.replace(browser, platform=other, cookies=dict(browser.cookies))
        assert await elsewhere.is_signed_in() and await browser.is_signed_in()
        made = (await users(scene))[scene.address()]
        assert (await scene.account.delete(f"{USERS}/{made['userId']}")).status_code == 204
        assert not await elsewhere.is_signed_in()
        assert not await browser.is_signed_in()
    assert (await scene.put(createsUsers=False)).status_code == 200
    assert (await scene.sign_in(scene.browser())).status_code == 401


async def test_enforced_people_come_in_by_the_provider_alone(scene: Scene) -> None:
    ada = await local_person(scene, "ada", "account-tenant-read")
    root = await local_person(scene, "root", "account-admin")
    foreign = await new_person(scene.platform, scene.account, address := unique_address(), "account-tenant-read")
    admin = (await users(scene))[scene.address("root")]["userId"]
    assert (await scene.put(enforced=True, breakGlassUserId=admin)).status_code == 200
    assert not await ada.is_signed_in(), "sessions that didn't come from the provider have ended"
    assert await root.is_signed_in() and await foreign.is_signed_in()

    answer = await ada.sign_in(scene.address("ada"))
    assert answer.status_code == 401 and "its own provider" in answer.text
    answer = await ada.sign_in(scene.address("ada"), password="nicht das richtige Wort")
    assert answer.status_code == 401 and "its own provider" not in answer.text, "strangers aren't told"
    assert (await root.sign_in(scene.address("root"))).status_code == 200
    assert (await foreign.sign_in(address)).status_code == 200
    assert (await scene.sign_in(ada)).status_code == 303 and await ada.is_signed_in()

    link = await new_link(scene.platform, scene.account, scene.address("eve"), "account-tenant-read")
    answer = await Browser(platform=scene.platform).accept(link)
    assert answer.status_code == 401 and "its own provider" in answer.text
    assert scene.address("eve") in await users(scene), "the invitation stays open"
    assert (await scene.sign_in(scene.browser(), sub="eve-1", email=scene.address("eve"))).status_code == 303


async def test_sessions_end_with_the_provider_that_they_came_from(scene: Scene) -> None:
    local = await new_person(scene.platform, scene.account, unique_address(), "account-tenant-read")
    issuer = {**scene.settings["oidc"], "issuer": "https://elsewhere.example"}
    client = {**scene.settings["oidc"], "clientId": "another"}
    for same in ({"name": "Renamed"}, {"defaultRoles": ["account-tenant-approval"]}):
        browser = scene.browser()
        assert (await scene.sign_in(browser)).status_code == 303
        assert (await scene.put(**same)).status_code == 200
        assert await browser.is_signed_in()
    before = scene.settings
    for other in ({"enabled": False}, {"oidc": issuer}, {"oidc": client}):
        assert (await scene.put(**before)).status_code == 200
        browser = scene.browser()
        assert (await scene.sign_in(browser)).status_code == 303
        assert (await scene.put(**other)).status_code == 200
        assert not await browser.is_signed_in(), other
        assert await local.is_signed_in()


async def local_person(scene: Scene, name: str, role: str) -> Browser:
    return await new_person(scene.platform, scene.account, scene.address(name), role)


async def test_enforcement_reaches_new_domains_and_who_was_for_emergencies(scene: Scene, names: NameServer) -> None:
    domain = f"{new_uuid().hex}.example"
    elsewhere = await new_person(scene.platform, scene.account, f"eve@{domain}", "account-tenant-read")
    root = await local_person(scene, "root", "account-admin")
    rita = await local_person(scene, "rita", "account-admin")
    found = await users(scene)
    first, second = (found[scene.address(name)]["userId"] for name in ("root", "rita"))
    assert (await scene.put(enforced=True, breakGlassUserId=first)).status_code == 200
    assert await root.is_signed_in() and not await rita.is_signed_in()
    assert (await rita.sign_in(scene.address("rita"))).status_code == 401
    assert (await scene.put(breakGlassUserId=second)).status_code == 200
    assert not await root.is_signed_in()

    assert await elsewhere.is_signed_in()
    await verified_domain(scene.account, names, domain)
    assert not await elsewhere.is_signed_in()


async def test_enforcement_needs_somebody_for_emergencies(scene: Scene) -> None:
    assert codes(await scene.put(enforced=True)) == ["BREAK_GLASS_USER_ID_IS_REQUIRED"]
    await local_person(scene, "ada", "account-tenant-read")
    root = await local_person(scene, "root", "account-admin")
    found = await users(scene)
    plain, admin = (found[scene.address(name)]["userId"] for name in ("ada", "root"))
    for wrong in (plain, str(new_uuid())):
        answer = await scene.put(enforced=True, breakGlassUserId=wrong)
        assert codes(answer) == ["BREAK_GLASS_USER_ID_IS_INVALID"]
    assert codes(await scene.put(enabled=False, breakGlassUserId=admin)) == ["ENFORCED_NEEDS_ENABLED"]
    assert (await scene.put(enabled=True, breakGlassUserId=admin)).status_code == 200
    assert codes(await scene.account.delete(f"{USERS}/{admin}")) == ["BREAK_GLASS_PERSON"]
    demoted = await scene.account.put(f"{USERS}/{admin}", {"roles": ["account-tenant-read"]})
    assert codes(demoted) == ["BREAK_GLASS_PERSON"]

    mappings = [{"group": "Nobody", "roles": ["account-tenant-read"]}]
    assert (await scene.put(groupRoles=mappings)).status_code == 200
    assert (await scene.sign_in(scene.browser(), sub="root-1", email=scene.address("root"))).status_code == 303
    assert (await users(scene))[scene.address("root")]["roles"] == ["account-admin"], "no group takes the last way in"
    assert await root.is_signed_in()


async def test_a_domain_belongs_to_one_account(
    scene: Scene, provider: MadeProvider, names: NameServer, account: Client
) -> None:
    other = await new_scene(scene.platform, provider, names)
    claimed = (await other.account.post(f"{PATH}/domains", {"domain": scene.domain})).json()
    verify = f"{PATH}/domains/{claimed['domainId']}/verify"
    assert codes(await other.account.post(verify)) == ["DOMAIN_RECORD_NOT_FOUND"]
    names.records[claimed["recordName"]].append(claimed["recordValue"])
    assert codes(await other.account.post(verify)) == ["DOMAIN_TAKEN"]

    mine = (await scene.account.get(f"{PATH}/domains")).json()["domains"][0]
    assert (await scene.account.delete(f"{PATH}/domains/{mine['domainId']}")).status_code == 204
    assert (await scene.sign_in(scene.browser())).status_code == 401, "not believed any more"
    assert (await other.account.post(verify)).json()["status"] == "VERIFIED"


async def test_domains_that_nobody_can_claim(scene: Scene) -> None:
    for domain, code in (
        ("", "DOMAIN_IS_REQUIRED"),
        ("localhost", "DOMAIN_IS_INVALID"),
        ("a b.example", "DOMAIN_IS_INVALID"),
        ("gmail.com", "DOMAIN_IS_PUBLIC"),
        (scene.domain.upper(), "DOMAIN_ALREADY_EXISTS"),
    ):
        assert codes(await scene.account.post(f"{PATH}/domains", {"domain": domain})) == [code]


async def test_an_address_leads_to_its_provider(scene: Scene) -> None:
    browser = scene.browser()
    await browser.open("/portal/sign-in")
    answer = await browser.submit("/portal/single-sign-on", address=scene.address())
    assert answer.status_code == 200 and f"url={scene.provider.issuer}/authorize" in answer.text
    assert "__Host-single-sign-on" in browser.cookies
    await browser.open("/portal/sign-in")
    answer = await browser.submit("/portal/single-sign-on", address=unique_address())
    assert answer.status_code == 401 and "No organisation" in answer.text


async def test_changes_are_recorded_before_and_after_and_without_secrets(scene: Scene) -> None:
    assert (
        await scene.put(createsUsers=False, oidc={**scene.settings["oidc"], "clientSecret": None})
    ).status_code == 200
    assert (await scene.account.delete(PATH)).status_code == 204
    told = [row for row in await record_of(scene) if "single-sign-on." in row]
    issuer = scene.provider.issuer
    assert len(told) == 3
    assert f"none > OIDC {issuer} on makes-persons" in told[0]
    assert (
        f"OIDC {issuer} on makes-persons default=account-tenant-read 0 mappings > OIDC {issuer} on default" in told[1]
    )
    assert told[2].count("> none") == 1


async def test_a_secret_goes_to_no_other_provider(scene: Scene) -> None:
    kept = {**scene.settings["oidc"], "clientSecret": None}
    assert (await scene.put(oidc=kept)).status_code == 200
    answer = await scene.put(oidc={**kept, "issuer": "https://elsewhere.example"})
    assert codes(answer) == ["CLIENT_SECRET_IS_REQUIRED"]


async def test_only_providers_in_public_are_asked(scene: Scene) -> None:
    """An account can't make us look around in our own network."""
    for issuer in ("https://127.0.0.1:1", "https://169.254.169.254", "https://10.0.0.1", "https://[::1]:8443"):
        assert (await scene.put(oidc={**scene.settings["oidc"], "issuer": issuer})).status_code == 200
        steps = (await scene.account.post(f"{PATH}/test")).json()["steps"]
        assert (steps[0]["succeeded"] is False and "not a public address" in steps[0]["message"]) or "itself" in str(
            steps
        )
    for issuer in ("http://idp.example", "https://user@idp.example", "ftp://x", "https://idp.example?x=1"):
        answer = await scene.put(oidc={**scene.settings["oidc"], "issuer": issuer})
        assert codes(answer) == ["PROVIDER_URL_IS_INVALID"], issuer


async def test_what_is_kept_of_it_is_sealed(scene: Scene) -> None:
    assert (await scene.sign_in(scene.browser())).status_code == 303
    await scene.leave(scene.browser())
    url = url_of(scene.platform.app.installation.admin_url, "eu").reveal()
    rows: list[str] = []
    with psycopg.connect(url) as connection:
        for table in ("single_sign_ons", "email_domains", "admissions", "provider_subjects", "sign_in_requests"):
            statement = f"select t::text from {table} t where account_id = %s"  # noqa: S608  names of ours
            found = [row[0] for row in connection.execute(statement.encode(), (UUID(scene.account.account_id),))]
            assert found, table
            rows += found
    for secret in (scene.domain, scene.provider.issuer, "ada-1", "Ada Beispiel"):
        assert not any(form in row for row in rows for form in (secret, secret.encode().hex())), secret


async def test_another_domain_can_be_verified(scene: Scene) -> None:
    second = f"{new_uuid().hex}.example"
    await verified_domain(scene.account, scene.names, second)
    assert (await scene.sign_in(scene.browser(), email=f"ada@{second}")).status_code == 303
