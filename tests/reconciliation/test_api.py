"""The same over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from strongroom.reconciliation import MAX_REPORT_BYTES
from strongroom.reconciliation.reading import COME_AGAIN_AFTER_S, MAX_AT_ONCE_BY_TENANT
from tests.fixtures.platform import Client
from tests.reconciliation.bank import FOREIGN, BankWorld, Paid, entry, execution, file_of, part, statement

REPORTS = "/v1/reconciliation/reports"
XML = {"content-type": "application/xml"}


@pytest.fixture
async def paid(bank: BankWorld) -> Paid:
    [made] = await bank.pay(("Ada Lovelace", 5_000))
    return made


def code(answer: object) -> str:
    found: str = answer.json()["errors"][0]["errorCode"]  # type: ignore[attr-defined]  # an HTTP answer
    return found


async def test_a_report_is_sent_in_and_read_back(tenant: Client, paid: Paid) -> None:
    document = statement(execution(paid), entry(1_234, credit=True))
    answer = await tenant.post(REPORTS, content=document, headers=XML)
    assert answer.status_code == 201, answer.text
    [report] = answer.json()["reports"]
    assert report["outcome"] == "IMPORTED"
    assert (report["kind"], report["name"], report["sequence"], report["account"]) == ("STATEMENT", "S-1", 1, "2051")
    assert (report["openingBalance"], report["closingBalance"]) == (10_000, 9_962.34)
    assert report["matched"] == {"count": 1, "debits": 50, "credits": 0}
    assert report["breaks"] == {"count": 1, "debits": 0, "credits": 12.34}

    again = await tenant.post(REPORTS, content=document, headers={"content-type": "text/xml; charset=utf-8"})
    assert (again.status_code, again.json()["reports"][0]["outcome"]) == (200, "SEEN_BEFORE")

    path = f"/v1/reconciliation/statements/{report['statementId']}"
    detail = (await tenant.get(path)).json()
    assert [(line["entryNo"], line["state"], line["amount"]) for line in detail["lines"]] == [
        (1, "MATCHED", -50),
        (2, "BREAK", 12.34),
    ]
    assert detail["lines"][0]["transactionId"] == str(paid.transaction_id)
    kept = await tenant.get(f"{path}/document")
    assert (kept.content, kept.headers["content-type"]) == (document, "application/xml")
    listed = (await tenant.get("/v1/reconciliation/statements")).json()
    assert [one["statementId"] for one in listed["statements"]] == [report["statementId"]]
    assert listed["cursor"] is None


async def test_breaks_are_listed_and_resolved(tenant: Client, bank: BankWorld) -> None:
    await tenant.post(REPORTS, content=statement(entry(1), entry(2), entry(3)), headers=XML)
    first = (await tenant.get("/v1/reconciliation/breaks", params={"take": "2"})).json()
    assert [one["amount"] for one in first["breaks"]] == [-0.01, -0.02]
    cursor = {"cursor": first["cursor"], "take": "2"}
    rest = (await tenant.get("/v1/reconciliation/breaks", params=cursor)).json()
    assert ([one["amount"] for one in rest["breaks"]], rest["cursor"]) == ([-0.03], None)
    found = rest["breaks"][0]
    assert (found["reason"], found["ageDays"] >= 0, found["note"]) == ("UNKNOWN_REFERENCE", True, None)

    path = f"/v1/reconciliation/breaks/{found['statementId']}/{found['entryNo']}/resolve"
    resolved = await tenant.post(path, {"note": "The bank's fee"})
    assert resolved.status_code == 200, resolved.text
    assert (resolved.json()["state"], resolved.json()["note"]) == ("RESOLVED", "The bank's fee")
    assert resolved.json()["resolvedBy"] == tenant.public_key
    assert code(await tenant.post(path, {"note": "Again"})) == "BREAK_RESOLVED_BEFORE"
    assert code(await tenant.post(path, {})) == "NOTE_IS_REQUIRED"
    assert code(await tenant.post(path, {"note": "x" * 1001})) == "NOTE_LENGTH_OUT_OF_RANGE"
    for wrong in ("x/1", f"{found['statementId']}/x", f"{found['statementId']}/99999999999"):
        answer = await tenant.post(f"/v1/reconciliation/breaks/{wrong}/resolve", {"note": "n"})
        assert (answer.status_code, code(answer)) == (400, "BREAK_NOT_FOUND")

    [done] = (await tenant.get("/v1/reconciliation/breaks?state=RESOLVED")).json()["breaks"]
    assert done["entryNo"] == found["entryNo"]
    [euro] = (await tenant.get("/v1/reconciliation/summary")).json()["currencies"]
    assert euro["openBreaks"] == {"count": 2, "debits": 0.03, "credits": 0}
    assert euro["resolvedBreaks"] == {"count": 1, "debits": 0.03, "credits": 0}


async def test_missing_payments_are_a_list_of_their_own(tenant: Client, paid: Paid) -> None:
    answer = await tenant.get("/v1/reconciliation/breaks?state=MISSING")
    assert answer.json() == {"breaks": [], "missing": [], "cursor": None}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("statements?take=0", "TAKE_OUT_OF_RANGE"),
        ("statements?take=1001", "TAKE_OUT_OF_RANGE"),
        ("statements?take=²", "TAKE_OUT_OF_RANGE"),
        ("statements?cursor=x", "CURSOR_IS_INVALID"),
        ("statements/x", "STATEMENT_NOT_FOUND"),
        ("statements/x?cursor=-1", "CURSOR_IS_INVALID"),
        ("statements/00000000-0000-4000-8000-000000000000", "STATEMENT_NOT_FOUND"),
        ("statements/00000000-0000-4000-8000-000000000000/document", "STATEMENT_NOT_FOUND"),
        ("breaks?state=open", "STATE_NOT_RECOGNISED"),
        ("breaks?cursor=x", "CURSOR_IS_INVALID"),
        ("breaks?cursor=00000000-0000-4000-8000-000000000000.x", "CURSOR_IS_INVALID"),
        ("breaks?state=MISSING&cursor=1", "CURSOR_IS_INVALID"),
    ],
)
async def test_wrong_questions_are_refused(tenant: Client, path: str, expected: str) -> None:
    answer = await tenant.get(f"/v1/reconciliation/{path}")
    assert (answer.status_code, code(answer)) == (400, expected)


async def test_reports_that_cannot_be_taken_in_are_refused(tenant: Client, bank: BankWorld) -> None:
    refusals = [
        (statement(entry(1), error=1), "STATEMENT_BALANCE_BROKEN"),
        (statement(entry(1), iban=FOREIGN), "STATEMENT_OF_ANOTHER_ACCOUNT"),
        (statement(entry(1))[:-9], "STATEMENT_MALFORMED"),
        (b"", "REPORT_NOT_RECOGNISED"),
        (b"\xff\xfe", "REPORT_NOT_RECOGNISED"),
    ]
    for document, expected in refusals:
        answer = await tenant.post(REPORTS, content=document, headers=XML)
        assert (answer.status_code, code(answer)) == (400, expected)
    answer = await tenant.post(REPORTS, content=b"{}", headers={"content-type": "application/json"})
    assert (answer.status_code, code(answer)) == (415, "MEDIA_TYPE_NOT_SUPPORTED")
    assert await bank.stored() == (0, 0)


async def test_a_report_over_the_limit_is_refused(tenant: Client) -> None:
    answer = await tenant.post(REPORTS, content=b"<" * (MAX_REPORT_BYTES + 1), headers=XML)
    assert (answer.status_code, code(answer)) == (413, "REQUEST_TOO_LARGE")


async def test_a_report_may_be_larger_than_other_bodies(tenant: Client, bank: BankWorld) -> None:
    document = file_of(*(part(*(entry(1) for _ in range(300)), name=f"S-{n}", sequence=n) for n in range(1, 15)))
    assert len(document) > 1024 * 1024
    answer = await tenant.post(REPORTS, content=document, headers=XML)
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["reports"]) == 14


async def test_an_idempotency_key_gives_the_stored_answer(tenant: Client, bank: BankWorld) -> None:
    document, key = statement(entry(1)), {"idempotency-key": "day-1", **XML}
    first = await tenant.post(REPORTS, content=document, headers=key)
    again = await tenant.post(REPORTS, content=document, headers=key)
    other = await tenant.post(REPORTS, content=statement(entry(2)), headers=key)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (other.status_code, code(other)) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_readers_read_and_do_not_send_in(tenant: Client, bank: BankWorld) -> None:
    reader = await tenant.new_key("tenant-transaction-read")
    writer = await tenant.new_key("tenant-transaction-write")
    stranger = await tenant.new_key("tenant-app-read")
    document = statement(entry(1))
    assert (await reader.post(REPORTS, content=document, headers=XML)).status_code == 403
    sent = await writer.post(REPORTS, content=document, headers=XML)
    assert sent.status_code == 201
    statement_id = sent.json()["reports"][0]["statementId"]
    resolve = f"/v1/reconciliation/breaks/{statement_id}/1/resolve"
    assert (await reader.post(resolve, {"note": "n"})).status_code == 403
    reads = ["statements", f"statements/{statement_id}", "breaks", "summary"]
    # A report tells the other parties in clear, so to read it is an opening.
    document_path = f"/v1/reconciliation/statements/{statement_id}/document"
    opener = await tenant.new_key("tenant-vault-open")
    assert [(await client.get(document_path)).status_code for client in (reader, writer, opener)] == [403, 403, 200]
    for path in reads:
        assert (await reader.get(f"/v1/reconciliation/{path}")).status_code == 200
        assert (await stranger.get(f"/v1/reconciliation/{path}")).status_code == 403


async def test_only_so_many_are_taken_in_at_once(tenant: Client, bank: BankWorld) -> None:
    """Those that stand in the middle of their body hold their places."""
    go_on = asyncio.Event()
    begun = [asyncio.Event() for _ in range(MAX_AT_ONCE_BY_TENANT)]

    async def slowly(number: int, document: bytes) -> AsyncIterator[bytes]:
        yield document[:100]
        begun[number].set()
        await go_on.wait()
        yield document[100:]

    documents = [statement(entry(number + 1)) for number in range(MAX_AT_ONCE_BY_TENANT)]
    sending = [
        asyncio.create_task(tenant.post(REPORTS, content=slowly(number, document), headers=XML))
        for number, document in enumerate(documents)
    ]
    for event in begun:
        await event.wait()
    answer = await tenant.post(REPORTS, content=statement(entry(9)), headers=XML)
    while answer.status_code != 429:  # what was begun may still be on its way
        answer = await tenant.post(REPORTS, content=statement(entry(9)), headers=XML)
    assert (code(answer), answer.headers["retry-after"]) == ("REPORTS_AT_ONCE", str(COME_AGAIN_AFTER_S))
    go_on.set()
    assert {(await answered).status_code for answered in sending} <= {200, 201, 400}
    assert (await tenant.post(REPORTS, content=statement(entry(9)), headers=XML)).status_code < 429
