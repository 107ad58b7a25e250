"""Bodies that can't be used: a clear error, nothing kept, and nothing unknown stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strongroom.api.routing import MAX_BODY_BYTES
from strongroom.assembly import App
from strongroom.database.catalogue import OPENED_FOR
from strongroom.database.sealed_tables import SEALED_TABLES, row_bytes
from tests.api.paying import ORDERS, codes, instruction, make_account, make_order, order, refusal
from tests.fixtures.platform import Client
from tests.payments.world import World

DEEP = 100_000
UNREADABLE = {
    "text": b"text",
    "top-level array": b'[{"orderRef": "o-1"}]',
    "top-level string": b'"o-1"',
    "top-level null": b"null",
    "top-level number": b"1",
    "truncated": b'{"orderRef": "o-1", "metadata": {"a": "b"',
    "truncated inside a text": b'{"orderRef": "o-',
    "trailing comma": b'{"orderRef": "o-1",}',
    "something after": b'{"orderRef": "o-1"} {}',
    "two documents": b'{"orderRef": "o-1"}\n{"orderRef": "o-2"}',
    "single quotes": b"{'orderRef': 'o-1'}",
    "comment": b'{"orderRef": "o-1" /* mine */}',
    "NaN": b'{"orderRef": "o-1", "x": NaN}',
    "BOM": b'\xef\xbb\xbf{"orderRef": "o-1"}',
    "UTF-16": '{"orderRef": "o-1"}'.encode("utf-16"),
    "Latin-1": '{"orderRef": "o-1", "metadata": {"a": "ä"}}'.encode("latin-1"),
    "Latin-1 in what is dropped": '{"orderRef": "o-1", "x": "ä"}'.encode("latin-1"),
    "Latin-1 in a dropped name": '{"orderRef": "o-1", "ä": 1}'.encode("latin-1"),
    "surrogate bytes": b'{"orderRef": "o-1", "metadata": {"a": "\xed\xa0\x80"}}',
    "overlong bytes": b'{"orderRef": "o-1", "metadata": {"a": "\xc0\xaf"}}',
    "half of a pair": b'{"orderRef": "o-1", "metadata": {"a": "\\ud800"}}',
    "other half of a pair": b'{"orderRef": "o-1", "metadata": {"a": "\\udc00"}}',
    "half of a pair in what is dropped": b'{"orderRef": "o-1", "x": "\\ud800 "}',
    "NUL": b'{"orderRef": "o-1", "metadata": {"a": "\\u0000"}}',
    "NUL in a name": b'{"orderRef": "o-1", "metadata": {"\\u0000": "a"}}',
    "raw NUL": b'{"orderRef": "o-1", "metadata": {"a": "\x00"}}',
    "raw control character": b'{"orderRef": "o-1", "metadata": {"a": "\x1f"}}',
    "deep arrays": b'{"orderRef": "o-1", "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"orderRef": "o-1", "metadata": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "deep and truncated": b'{"orderRef": "o-1", "x": ' + b"[" * DEEP,
    "endless number": b'{"orderRef": ' + b"1" * 100_000 + b"}",
    "number beyond floats": b'{"orderRef": 1e999}',
    "instructions of another kind": b'{"orderRef": "o-1", "instructions": {"a": 1}}',
    "instructions of nothing": b'{"orderRef": "o-1", "instructions": [null]}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_is_no_json_object(tenant: Client, content: bytes) -> None:
    answer = await tenant.post(ORDERS, content=content)
    assert refusal(answer) == (400, ["REQUEST_BODY_INVALID"])
    assert answer.json()["errors"][0]["metadata"]["what"]
    assert codes(await tenant.get(f"{ORDERS}/o-1")) == ["ORDER_NOT_FOUND"]


async def test_every_route_refuses_such_bodies(tenant: Client) -> None:
    await make_order(tenant, "o-1", instruction())
    one = f"{ORDERS}/o-1"
    before = (await tenant.get(one)).json()
    for method, path in (
        ("POST", f"{one}/instruction"),
        ("PUT", f"{one}/instruction/i-1"),
        ("POST", f"{one}/instruction/i-1/cancel"),
        ("PUT", f"{one}/metadata"),
        ("PUT", f"{one}/customer-defaults/c-1"),
        ("PUT", f"{one}/customer-defaults/c-1/metadata"),
        ("PUT", "/v1/customer-vault/c-1"),
        ("POST", "/v1/customer-vault/c-1/financial-instrument"),
        ("POST", "/v1/schemes/payout"),
        ("POST", "/v1/tenant/keys"),
    ):
        for name in ("truncated", "top-level array", "Latin-1", "half of a pair", "NUL", "deep arrays"):
            answer = await tenant.request(method, path, content=UNREADABLE[name])
            assert refusal(answer) == (400, ["REQUEST_BODY_INVALID"]), (method, path, name)
    assert (await tenant.get(one)).json() == before


@pytest.mark.parametrize("content", [b"", b" ", b"\n\t"])
async def test_no_body(tenant: Client, content: bytes) -> None:
    assert refusal(await tenant.post(ORDERS, content=content)) == (400, ["REQUEST_BODY_IS_REQUIRED"])


async def test_a_written_backslash_is_no_nul(tenant: Client) -> None:
    await make_order(tenant, "o-1", metadata={"path": r"C:\u0000"})
    assert (await tenant.get(f"{ORDERS}/o-1")).json()["metadata"] == {"path": r"C:\u0000"}


async def test_the_largest_body(tenant: Client) -> None:
    def sized(size: int) -> bytes:
        head, tail = b'{"orderRef": "o-1", "x": "', b'"}'
        return head + b"x" * (size - len(head) - len(tail)) + tail

    answer = await tenant.post(ORDERS, content=sized(MAX_BODY_BYTES + 1))
    assert refusal(answer) == (413, ["REQUEST_TOO_LARGE"])
    assert answer.json()["errors"][0]["metadata"]["limit"] == MAX_BODY_BYTES
    assert (await tenant.post(ORDERS, content=sized(MAX_BODY_BYTES))).status_code == 201


async def test_the_last_of_duplicate_names_wins(tenant: Client) -> None:
    body = (
        b'{"orderRef": "first", "orderRef": "o-1", "metadata": {"a": "1", "a": "2"}, "instructions": ['
        b'{"instructionRef": "i-1", "customerRef": "c-1", "direction": "DEBIT", "direction": "CREDIT", '
        b'"amount": "1.00", "amount": 2.5, "currency": "EUR", "country": "DE", "settledByDate": "2030-12-01"}]}'
    )
    answer = await tenant.post(ORDERS, content=body)
    assert answer.json()["orderRef"] == "o-1"
    found = (await tenant.get(f"{ORDERS}/o-1")).json()
    assert found["metadata"] == {"a": "2"}
    assert (found["instructions"][0]["direction"], found["instructions"][0]["amount"]) == ("CREDIT", 2.5)


def marked(value: Any) -> Any:
    """A JSON value with an unknown field in each of its objects."""
    if isinstance(value, list):
        return [marked(item) for item in value]
    if isinstance(value, dict):
        known = {key: item if key == "metadata" else marked(item) for key, item in value.items()}
        return {**known, "unknownField": "KANARIENVOGEL", "x-nested": {"deep": ["KANARIENVOGEL"]}}
    return value


async def test_unknown_fields_are_dropped_and_never_stored(tenant: Client, app: App) -> None:
    instrument = await make_account(tenant)
    given = order("o-1", instruction(), metadata={"mine": "KEPT"}, customerDefaults={"c-9": {"metadata": {}}})
    assert (await tenant.post(ORDERS, {**given, **marked(given), "customerDefaults": {}})).status_code == 202
    one = f"{ORDERS}/o-1"
    for method, path, body in (
        ("POST", f"{one}/instruction", marked(instruction("i-2"))),
        ("PUT", f"{one}/instruction/i-2", marked({"amount": "3.00"})),
        ("POST", f"{one}/instruction/i-2/cancel", marked({"reason": "because"})),
        ("PUT", f"{one}/customer-defaults/c-1", marked({"financialInstrumentId": instrument})),
        ("PUT", f"{one}/metadata", {"metadata": {"mine": "KEPT"}, "unknownField": "KANARIENVOGEL"}),
        ("POST", "/v1/customer-vault/c-3/financial-instrument", marked({
            "type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": "DE89370400440532013000",
            "address": {"locality": "Köln", "country": "DE"},
        })),
    ):  # fmt: skip
        answer = await tenant.request(method, path, json=body, headers={"Idempotency-Key": f"{method}-{path}"})
        assert answer.status_code in {200, 201, 202}, answer.text
    account = {"accountHolderName": "Max", "iban": "DE89370400440532013000"}
    line = marked({"orderRef": "o-2", **instruction(), "bankAccount": account})
    bulk = await tenant.post(
        f"{ORDERS}/bulk", content=json.dumps(line).encode(), headers={"content-type": "application/x-ndjson"}
    )
    assert bulk.json()["accepted"] == 1
    opened = await everything(World.of(app, tenant))
    for kept in (b"KEPT", b"Erika Mustermann", b"because", b"Max", b"o-2"):
        assert kept in opened
    assert b"KANARIENVOGEL" not in opened
    assert b"unknownField" not in opened


async def everything(world: World) -> bytes:
    """All that the database holds of a tenant's payments, its envelopes opened."""
    parts: list[bytes] = []
    async with world.operation() as op:
        for table, sealed in SEALED_TABLES.items():
            names = ", ".join((*sealed.columns, *sealed.row))
            rows = await op.rows(
                f"select t::text, {names} from {table} t where {sealed.owner[0]} = %s",  # noqa: S608  the catalogue's
                op.scope,
            )
            for shown, *values in rows:
                row = row_bytes(table, values[len(sealed.columns) :], op.cipher.index)
                parts.append(shown.encode())
                parts += [
                    op.cipher.for_purpose(next(iter(OPENED_FOR.get((table, column), {""})))).open(
                        table, column, row, envelope
                    )
                    for column, envelope in zip(sealed.columns, values, strict=False)
                    if envelope is not None
                ]
    return b"\n".join(parts)
