"""Every sealed column opens through the binding that the catalogue gives it: what walks over all of them finds all."""

from __future__ import annotations

from pathlib import Path

from strongroom.assembly import App
from strongroom.database.catalogue import OPENED_FOR
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.kernel.actors import operator
from strongroom.notices import queue_letter
from strongroom.vault._walking import TABLES, count_envelopes, read_batch
from strongroom.vault.work import Scope, _operation
from tests.api.paying import IBAN, ORDERS, instruction, order
from tests.fixtures.platform import Client, Platform
from tests.people.browser import new_person, unique_address
from tests.people.single_sign_on.identity_provider import IdentityProvider
from tests.people.single_sign_on.made import PATH as SINGLE_SIGN_ON
from tests.reconciliation.bank import BankWorld, execution, statement

LETTER = {"company": "Alpine Mutual", "address": "ada@example.com", "link": "", "until": ""}


async def test_what_the_application_wrote_opens_by_the_catalogue(platform: Platform, app: App, tmp_path: Path) -> None:
    account = await platform.new_account()
    client = await account.new_tenant()
    bank = await BankWorld.open(app, client, tmp_path)
    await fill(client)
    await pay_under_a_ceiling(account, client)
    person = await new_person(platform, account, unique_address())
    provider = {"kind": "SAML", "name": "Ours", "enabled": True, "saml": {"metadata": IdentityProvider().metadata}}
    assert (await account.put(SINGLE_SIGN_ON, provider)).status_code == 200
    assert (await account.post(f"{SINGLE_SIGN_ON}/domains", {"domain": "bindings.example"})).status_code == 201
    assert (await person.send("GET", f"/portal/single-sign-on/{account.account_id}")).status_code == 303
    async with app.databases.operation(operator(), account=bank.account) as op:
        await queue_letter(op, "invitation", "ada@example.com", LETTER)
    [paid] = await bank.pay(("Erika Mustermann", 12_345))
    await bank.take_in(statement(execution(paid), execution(paid)))
    tenant = Scope(account=bank.account, tenant=bank.tenant)
    found: dict[str, int] = {}
    for scope in (tenant, Scope(account=bank.account)):
        async with _operation(app.databases, scope) as op:
            walked = 0
            for table in TABLES:
                position, first = "", True
                while position or first:
                    rows, position = await read_batch(op, table, position, 2)
                    first = False
                    for row in rows:
                        for column, envelope in zip(SEALED_TABLES[table].columns, row.envelopes, strict=True):
                            if envelope is not None:
                                purpose = next(iter(OPENED_FOR.get((table, column), {""})))
                                op.cipher.for_purpose(purpose).open(table, column, row.row, envelope)
                                walked += 1
                                name = f"{table}.{column}"
                                found[name] = found.get(name, 0) + 1
            assert walked == await count_envelopes(op)
    assert set(found) == {f"{table}.{column}" for table, entry in SEALED_TABLES.items() for column in entry.columns}


async def pay_under_a_ceiling(account: Client, client: Client) -> None:
    """What is added up for a day."""
    conditions = {"ceilings": [{"currency": "EUR", "perDay": "1000.00"}]}
    role = {"name": "clerk", "level": "tenant", "permissions": ["transactions:write"], "conditions": conditions}
    assert (await account.post("/v1/account/roles", role)).status_code == 201
    clerk = await client.new_key("custom:clerk")
    assert (await clerk.post(ORDERS, order("o-clerk", instruction()))).status_code == 202


async def fill(client: Client) -> None:
    """A bit of everything that comes by the API."""
    whole = order("o-1", instruction("i-1"), instruction("i-2"), customerDefaults={"c-1": {"metadata": {"a": "b"}}})
    made = await client.post(ORDERS, whole, headers={"Idempotency-Key": "k-1"})
    assert made.status_code == 202, made.text
    made = await client.put("/v1/customer-vault/c-1", {"metadata": {"note": "x"}})
    assert made.status_code == 202, made.text
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Example", "iban": IBAN}
    assert (await client.post("/v1/customer-vault/c-1/financial-instrument", account)).status_code == 202
    asked = {"fields": ["iban"], "purpose": "customer-service", "reason": "T-1"}
    assert (await client.post("/v1/customer-vault/c-1/open", asked)).status_code == 200
    line = b'{"orderRef": "o-2"}'
    sent = await client.post(f"{ORDERS}/bulk", content=line, headers={"content-type": "application/x-ndjson"})
    assert sent.status_code == 202, sent.text
    rule = {"name": "Office Graz", "cidr": "198.51.100.0/24"}
    listed = await client.put("/v1/tenant/ip-whitelist", {"enabled": False, "rules": [rule]})
    assert listed.status_code == 204, listed.text
