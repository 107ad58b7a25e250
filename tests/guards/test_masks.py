"""What is sensitive is shown through masks: every GET route is walked over a tenant with a canary in every field."""

from __future__ import annotations

import re
from pathlib import Path

from strongroom.api.routing import Access
from strongroom.api.table import ROUTES
from strongroom.database.catalogue import SENSITIVE
from tests.fixtures.platform import Platform
from tests.guards.test_routes import filled
from tests.reconciliation.bank import BankWorld, entry, execution, statement

OPENINGS = {"/v1/reconciliation/statements/{statementId}/document"}
"""GET routes that give something in clear: openings, with a permission of their own, counted and recorded."""
IBAN = "GB29NWBK60161331926819"
CANARIES = {
    "email": "kanarienvogel", "holder": "Kanari", "iban": "60161331926819", "number": "ZKTO8765", "bank code": "ZBLZ30",
    "bic": "NWBKGB2L", "street": "Vogelweg", "town": "Finkenau", "post code": "VX98Z", "building": "77 Zwinger",
    "party": "Zeisigmann", "party's account": "DE75512108001245126199", "remittance": "Zwitscherrechnung",
}  # fmt: skip
"""Field → what nobody may see of it, of letters that no id in hexadecimal has, or long."""


async def test_no_get_route_answers_anything_sensitive(platform: Platform, tmp_path: Path) -> None:
    account = await platform.new_account()
    tenant = await account.new_tenant()
    bank = await BankWorld.open(platform.app, tenant, tmp_path)
    vault = "/v1/customer-vault/c-1"
    address = {
        "streetAddress": "Vogelweg", "extendedAddress": "77 Zwinger", "locality": "Finkenau", "postCode": "VX98Z",
        "country": "DE",
    }  # fmt: skip
    common = {"type": "BANK_ACCOUNT", "accountHolderName": "Kanari Vogelsang", "bic": "NWBKGB2L", "address": address}
    made = await tenant.post(f"{vault}/financial-instrument", {**common, "iban": IBAN})
    assert made.status_code == 202, made.text
    domestic = {"accountNumber": "ZKTO87654321", "bankCode": "ZBLZ309876", "country": "GB"}
    assert (await tenant.post(f"{vault}/financial-instrument", {**common, **domestic})).status_code == 202
    assert (await tenant.put(vault, {"email": "kanarienvogel@example.com"})).status_code == 202
    [paid] = await bank.pay(("Kanari Vogelsang", 12_345))
    related = (
        "<TxDtls><Refs/><RltdPties><Cdtr><Pty><Nm>Zeisigmann</Nm></Pty></Cdtr><CdtrAcct><Id><IBAN>"
        "DE75512108001245126199</IBAN></Id></CdtrAcct></RltdPties><RmtInf><Ustrd>Zwitscherrechnung</Ustrd></RmtInf>"
        "</TxDtls>"
    )
    [imported] = await bank.take_in(statement(execution(paid), entry(777, related)))
    await tenant.post(
        f"{vault}/open", {"fields": ["iban", "email"], "purpose": "customer-service", "reason": "T-1"},
        headers={"Idempotency-Key": "k"},
    )  # fmt: skip
    # All of it is there, in the columns that the catalogue calls sensitive.
    async with bank.operation() as op:
        for table, column in SENSITIVE:
            assert await op.row(f"select from {table} where {column} is not null") is not None, (table, column)
        order = await op.row("select order_id from orders limit 1")
    assert order is not None
    listed = (await tenant.get("/v1/customer-vault", params={"customerRef": "c-1"})).json()
    assert listed["customers"][0]["email"] == "k***@example.com"
    values = {
        "customerRef": "c-1",
        "id": made.json()["id"],
        "financialInstrumentId": made.json()["id"],
        "statementId": str(imported.statement_id),
        "tenantId": str(tenant.tenant_id),
        "publicKey": tenant.public_key,
        "schemeId": bank.scheme_id,
        "appId": "sepa-credit-transfer",
    }
    answered, told = 0, ""
    for route in ROUTES:
        if route.method != "GET" or route.access is Access.PUBLIC or route.path in OPENINGS:
            continue
        client = account if route.access is Access.ACCOUNT else tenant
        queries = [{}]
        if route.path == "/v1/customer-vault":
            queries = [{"email": "kanarienvogel@example.com"}, {"iban": IBAN}, {"customerRef": "c-1"}]
        elif "state" in route.query:
            queries = [{"state": state} for state in ("OPEN", "RESOLVED", "MISSING")]
        for query in queries:
            answer = await client.get(filled(route.path, values), params=query)
            answered += answer.status_code == 200
            told = answer.text
            found = [field for field, canary in CANARIES.items() if canary.lower() in told.lower()]
            assert not found, (route.path, found)
    assert answered > 25
    # The canaries are what they are taken for: the opening and the document give them.
    everything = {"fields": ["email", "iban", "accountHolderName", "accountNumber", "bankCode", "bic", "address"]}
    opened = await tenant.post(f"{vault}/open", {**everything, "purpose": "legal-obligation", "reason": "T-2"})
    document = await tenant.get(filled(next(iter(OPENINGS)), values))
    assert [field for field, canary in CANARIES.items() if canary not in opened.text + document.text] == []


def test_the_openings_are_routes_that_need_the_permission() -> None:
    found = {route.path for route in ROUTES if route.permission is not None and route.permission == "customers:open"}
    assert {path for path in found if not re.fullmatch(r"/v1/customer-vault/\{customerRef\}/open", path)} == OPENINGS
