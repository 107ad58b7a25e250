"""`strongroom customers search`, beside a running server."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.cli.test_serve import open_account
from tests.fixtures.platform import Server
from tests.fixtures.signing import authorization

EMAIL = "erika.mustermann@example.com"
IBAN = "DE89370400440532013000"


def search(server: Server, value: str, *options: str) -> tuple[int, str, str]:
    done = server.run("customers", "search", *options, typed=value + "\n")
    return done.returncode, done.stdout, done.stderr


def sign_in(http: httpx.Client, public_key: str, private_key: str) -> str:
    answer = http.post("/v1/identity/hmac", headers={"Authorization": authorization(public_key, private_key)})
    assert answer.status_code == 201, answer.text
    return f"Bearer {answer.json()['accessToken']}"


@pytest.fixture(scope="module")
def tenant(server: Server) -> str:
    """A tenant with a customer, made through the API; returns its id."""
    opened = open_account(server)
    with server.http() as http:
        headers = {"x-account-id": opened["accountId"]}
        headers["Authorization"] = sign_in(http, opened["publicKey"], opened["privateKey"])
        made = http.post("/v1/account/tenants", json={"name": "Claims"}, headers=headers)
        tenant_id = str(made.json()["tenantId"])
        body = {"name": "k", "roles": ["tenant-admin"]}
        key = http.post(f"/v1/tenant/{tenant_id}/keys", json=body, headers=headers).json()
        headers["x-tenant-id"] = tenant_id
        headers["Authorization"] = sign_in(http, key["publicKey"], key["privateKey"])
        vault = "/v1/customer-vault/c-1"
        account = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": IBAN}
        assert http.post(f"{vault}/financial-instrument", json=account, headers=headers).status_code == 202
        assert http.put(vault, json={"email": EMAIL}, headers=headers).status_code == 202
        for asked in ({"email": EMAIL}, {"iban": IBAN}):
            found = http.get("/v1/customer-vault", params=asked, headers=headers)
            assert [each["customerRef"] for each in found.json()["customers"]] == ["c-1"]
    return tenant_id


@pytest.mark.parametrize(
    ("value", "by"), [("ERIKA.Mustermann@example.com", ()), ("de89 3704 0044 0532 0130 00", ("--by", "iban")),
                      ("c-1", ("--by", "customerRef"))]
)  # fmt: skip
def test_it_finds_whom_it_is_told_of(server: Server, tenant: str, value: str, by: tuple[str, ...]) -> None:
    status, out, err = search(server, value, "--tenant", tenant, "--json", *by)
    assert (status, json.loads(out), err) == (0, [{"customerRef": "c-1", "email": "e***@example.com"}], "")
    status, out, _ = search(server, value, "--tenant", tenant, *by)
    assert status == 0
    assert "c-1" in out
    assert "e***@example.com" in out


def test_nobody_is_status_1(server: Server, tenant: str) -> None:
    assert search(server, "ada@example.com", "--tenant", tenant) == (1, "", "There is no such customer.\n")
    assert search(server, "ada@example.com", "--tenant", tenant, "--json")[:2] == (1, "[]\n")


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        ("ada", (), "EMAIL_IS_INVALID"),
        ("DE00", ("--by", "iban"), "IBAN_IS_INVALID"),
        ("a b", ("--by", "customerRef"), "There is no such customer."),
    ],
)
def test_what_is_wrong_is_said(server: Server, tenant: str, value: str, options: tuple[str, ...], said: str) -> None:
    status, out, err = search(server, value, "--tenant", tenant, *options)
    assert (status, out) == (1, "")
    assert said in err


def test_a_tenant_that_is_not_there(server: Server) -> None:
    status, _, err = search(server, EMAIL, "--tenant", "00000000-0000-7000-8000-000000000000")
    assert (status, err.split(":")[0]) == (1, "TENANT_NOT_FOUND")


def test_the_server_s_log_holds_nothing_that_was_searched_for(server: Server, tenant: str) -> None:
    assert tenant
    for secret in ("mustermann", IBAN, "example.com"):
        assert secret not in server.log.lower()
