"""Bulk uploads: every line gets its own verdict, and an upload that broke off goes on where it stopped."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import httpx
import pytest

from strongroom.api.bulk import CHUNK_LINES, MAX_LINE_BYTES, MAX_RECORD_LINES, Records
from strongroom.payments.bulk import RESULT_CHUNKS, STALE_AFTER
from tests.api.paying import IBAN, ORDERS, codes, instruction, make_account, make_order, make_scheme, order, refusal
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

BULK = f"{ORDERS}/bulk"
NDJSON = "application/x-ndjson"
COLUMNS = ("orderRef", *instruction())


def line(number: int, **changed: Any) -> dict[str, Any]:
    """An instruction in an order of its own."""
    return {"orderRef": f"o-{number}", **instruction(**changed)}


def ndjson(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)


def as_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str] = COLUMNS, **dialect: Any) -> bytes:
    output = io.StringIO(newline="")
    writer = csv.DictWriter(output, columns, restval="", extrasaction="ignore", **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue().encode()


async def upload(client: Client, content: Any, media: str = NDJSON, key: str | None = None) -> httpx.Response:
    headers = {"content-type": media} | ({"Idempotency-Key": key} if key else {})
    return await client.post(BULK, content=content, headers=headers)


async def taken(client: Client, content: Any, media: str = NDJSON, key: str | None = None) -> dict[str, Any]:
    """An upload that is taken: its job."""
    answer = await upload(client, content, media, key)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def results(client: Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    """All results of a job, page by page."""
    found: list[dict[str, Any]] = []
    path: str | None = job["_links"]["results"]["href"]
    while path:
        page = await client.get(path)
        assert (page.status_code, page.headers["content-type"]) == (200, NDJSON)
        found += [json.loads(text) for text in page.text.splitlines()]
        link = page.headers.get("link", "")
        path = link[1 : link.index(">")] if link.endswith('rel="next"') else None
    return found


def verdicts(found: Iterable[dict[str, Any]]) -> list[tuple[int, list[str]]]:
    """Each line with the codes that it was refused with, if any."""
    for item in found:
        assert (item["status"] == "REFUSED") == ("errors" in item)
    return [(item["line"], [error["errorCode"] for error in item.get("errors", [])]) for item in found]


async def test_a_jobs_form(tenant: Client) -> None:
    answer = await upload(tenant, ndjson([line(1), line(2, amount="0")]))
    assert answer.status_code == 202
    job = answer.json()
    assert list(job) == [
        "_links", "jobId", "status", "linesDone", "accepted", "refused", "createdOn", "lastUpdatedOn",
    ]  # fmt: skip
    href = f"{BULK}/{job['jobId']}"
    assert job["_links"] == {"self": {"href": href}, "results": {"href": f"{href}/results"}}
    assert answer.headers["location"] == href
    assert (job["status"], job["linesDone"], job["accepted"], job["refused"]) == ("COMPLETED", 2, 1, 1)
    assert (await tenant.get(href)).json() == job
    good, bad = await results(tenant, job)
    assert good == {"line": 1, "status": "ACCEPTED", "orderRef": "o-1", "instructionRef": "i-1"}
    [error] = bad["errors"]
    assert list(error) == ["errorCode", "message", "messageTemplate", "metadata"]
    assert error["errorCode"] == "AMOUNT_OUT_OF_RANGE"
    assert error["messageTemplate"].format_map(error["metadata"]) == error["message"]


async def test_orders_and_instructions_side_by_side(tenant: Client) -> None:
    await make_order(tenant, "there")
    lines: list[dict[str, Any]] = [
        order("whole", instruction("a"), instruction("b"), metadata={"k": "v"}),
        order("bare"),
        {"orderRef": "there", **instruction("added")},
        {"orderRef": "made", **instruction("first")},
        {"orderRef": "made", **instruction("second")},
        order("there"),
        {"orderRef": "made", **instruction("first", amount="1.00")},
        order("whole", instruction("c")),
        order("twice", instruction("x"), instruction("x")),
        {"orderRef": "tricky", **instruction("t", metadata={"instructions": "call first"})},
        {"orderRef": "tricky", **instruction("u", metadata={'"instructions"': '"instructions": []'})},
    ]
    found = await results(tenant, await taken(tenant, ndjson(lines)))
    refused = {number: refusals for number, refusals in verdicts(found) if refusals}
    assert refused == {
        6: ["ORDER_ALREADY_EXISTS"],
        7: ["INSTRUCTION_ALREADY_EXISTS"],
        8: ["ORDER_ALREADY_EXISTS"],
        9: ["INSTRUCTION_ALREADY_EXISTS"],
    }
    refs = {}
    for ref in ("whole", "bare", "there", "made", "tricky"):
        body = (await tenant.get(f"{ORDERS}/{ref}")).json()
        refs[ref] = sorted(item["instructionRef"] for item in body["instructions"])
    assert refs == {
        "whole": ["a", "b"], "bare": [], "there": ["added"], "made": ["first", "second"], "tricky": ["t", "u"],
    }  # fmt: skip
    assert (await tenant.get(f"{ORDERS}/made/instruction/first")).json()["amount"] == 200
    assert codes(await tenant.get(f"{ORDERS}/twice")) == ["ORDER_NOT_FOUND"]


async def test_an_instructions_name_may_be_written_otherwise(tenant: Client) -> None:
    text = json.dumps(line(1)).replace("instructionRef", r"\u0069nstructionRef")
    [found] = await results(tenant, await taken(tenant, text.encode()))
    assert (found["status"], found["instructionRef"]) == ("ACCEPTED", "i-1")
    assert (await tenant.get(f"{ORDERS}/o-1/instruction/i-1")).status_code == 200


async def test_an_orders_defaults_hold_for_lines_too(tenant: Client) -> None:
    scheme, account = await make_scheme(tenant), await make_account(tenant)
    defaults = {"schemeId": scheme, "financialInstrumentId": account, "metadata": {"a": "default", "b": "default"}}
    await make_order(tenant, "o-1", customerDefaults={"c-1": defaults})
    lines = [line(1, ref="mine", metadata={"b": "own"}), line(1, ref="hers", customerRef="c-2")]
    assert (await taken(tenant, ndjson(lines)))["accepted"] == 2
    mine = (await tenant.get(f"{ORDERS}/o-1/instruction/mine")).json()
    assert (mine["status"], mine["metadata"]) == ("READY", {"a": "default", "b": "own"})
    assert (mine["scheme"]["source"], mine["financialInstrument"]["source"]) == ("CUSTOMER_DEFAULT",) * 2
    hers = (await tenant.get(f"{ORDERS}/o-1/instruction/hers")).json()
    assert (hers["status"], hers["metadata"]) == ("INCOMPLETE", {})


BAD_LINES: dict[str, tuple[bytes, list[str]]] = {
    "text": (b"text", ["REQUEST_BODY_INVALID"]),
    "array": (b"[]", ["REQUEST_BODY_INVALID"]),
    "truncated": (b'{"orderRef": "o-1", "instructionRef": "i', ["REQUEST_BODY_INVALID"]),
    "Latin-1": ('{"orderRef": "ä"}'.encode("latin-1"), ["REQUEST_BODY_INVALID"]),
    "Latin-1 amount": (b'{"instructionRef": "i", "amount": "\xe4"}', ["REQUEST_BODY_INVALID"]),
    "NUL": (b'{"orderRef": "o-1", "metadata": {"a": "\\u0000"}}', ["REQUEST_BODY_INVALID"]),
    "deep": (b'{"orderRef": "o-1", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", ["REQUEST_BODY_INVALID"]),
    "empty order": (b"{}", ["ORDER_REF_IS_REQUIRED"]),
    "wrong reference": (b'{"orderRef": "a b"}', ["ORDER_REF_CONTAINS_INVALID_CHARACTERS"]),
    "too long": (b'{"orderRef": "o-1", "x": "' + b"x" * MAX_LINE_BYTES + b'"}', ["LINE_TOO_LONG"]),
    "wrong fields": (
        json.dumps(line(1, direction="x", amount="y") | {"orderRef": ""}).encode(),
        ["ORDER_REF_IS_REQUIRED", "DIRECTION_IS_NOT_RECOGNISED", "AMOUNT_IS_INVALID"],
    ),
    "wrong account": (
        json.dumps({**line(1), "bankAccount": {"accountHolderName": "", "iban": "DE00"}}).encode(),
        ["ACCOUNT_HOLDER_NAME_IS_REQUIRED", "IBAN_IS_INVALID"],
    ),
    "no account": (json.dumps({**line(1), "bankAccount": "DE00"}).encode(), ["REQUEST_BODY_INVALID"]),
    "more zeros than Python reads": (json.dumps(line(1, amount="0" * 5_000)).encode(), ["AMOUNT_OUT_OF_RANGE"]),
    "unknown scheme": (json.dumps(line(1, schemeId="0" * 32)).encode(), ["SCHEME_ID_NOT_RECOGNISED"]),
}


async def test_each_bad_line_is_answered_and_its_neighbours_go_through(tenant: Client) -> None:
    content, expected, number = b"\xef\xbb\xbf", [], 0
    for bad, refusals in BAD_LINES.values():
        content += json.dumps(line(1000 + number)).encode() + b"\r\n" + bad + b"\n\n  \n"
        expected += [(number + 1, []), (number + 2, refusals)]
        number += 4
    job = await taken(tenant, content)
    assert verdicts(await results(tenant, job)) == expected
    assert (job["accepted"], job["refused"]) == (len(BAD_LINES), len(BAD_LINES))
    assert codes(await tenant.get(f"{ORDERS}/o-1")) == ["ORDER_NOT_FOUND"]


async def test_one_bad_line_among_ten_thousand(tenant: Client) -> None:
    lines = [line(number) for number in range(1, 10_001)]
    lines[6_543]["currency"] = "EURO"
    job = await taken(tenant, ndjson(lines))
    assert (job["linesDone"], job["accepted"], job["refused"]) == (10_000, 9_999, 1)
    first = await tenant.get(job["_links"]["results"]["href"])
    assert len(first.text.splitlines()) == CHUNK_LINES * RESULT_CHUNKS
    found = await results(tenant, job)
    assert [item["line"] for item in found] == list(range(1, 10_001))
    assert [item for item in verdicts(found) if item[1]] == [(6_544, ["CURRENCY_LENGTH_OUT_OF_RANGE"])]
    assert (await tenant.get(f"{ORDERS}/o-10000/instruction/i-1")).json()["amount"] == 200


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "1" * 19, "\u0661"])
async def test_a_cursor_is_one_that_was_given(tenant: Client, cursor: str) -> None:
    job = await taken(tenant, ndjson([line(1)]))
    answer = await tenant.get(job["_links"]["results"]["href"], params={"cursor": cursor})
    assert refusal(answer) == (400, ["CURSOR_IS_INVALID"])


async def test_jobs_are_their_tenants(tenant: Client, platform: Platform) -> None:
    job = await taken(tenant, ndjson([line(1)]))
    stranger = await platform.new_tenant()
    for client, job_id in ((stranger, job["jobId"]), (tenant, "00000000-0000-7000-8000-000000000000"), (tenant, "x")):
        for path in (f"{BULK}/{job_id}", f"{BULK}/{job_id}/results"):
            assert refusal(await client.get(path)) == (400, ["BULK_JOB_NOT_FOUND"])


async def test_an_account_comes_with_its_line(tenant: Client) -> None:
    scheme = await make_scheme(tenant)
    account = {"accountHolderName": "Erika Mustermann", "iban": IBAN}
    lines = [
        {**line(1, schemeId=scheme), "bankAccount": account},
        {**line(2, schemeId=scheme), "bankAccount": {**account, "iban": "DE89 3704 0044 0532 0130 00"}},
        {**line(3, schemeId=scheme), "bankAccount": {"accountHolder": "Erika Mustermann", "iban": IBAN}},
        {**line(4, schemeId=scheme), "bankAccount": {**account, "accountHolderName": "Max Mustermann"}},
        {**line(5, schemeId=scheme, customerRef="c-2"), "bankAccount": account},
    ]
    for first in (1, 6):
        for number, item in enumerate(lines, first):
            item["orderRef"] = f"o-{number}"
        assert (await taken(tenant, ndjson(lines)))["accepted"] == len(lines)
    vault = (await tenant.get("/v1/customer-vault/c-1")).json()["financialInstruments"]
    assert len(vault) == 2
    assert len((await tenant.get("/v1/customer-vault/c-2")).json()["financialInstruments"]) == 1
    used = []
    for number in range(1, 6):
        body = (await tenant.get(f"{ORDERS}/o-{number}/instruction/i-1")).json()
        assert body["status"] == "READY"
        used.append(body["financialInstrument"]["financialInstrumentId"])
    assert used[0] == used[1] == used[2] != used[3]
    assert set(used[:4]) == {instrument["id"] for instrument in vault}


CSV_ACCOUNT = ("accountHolder", "iban", "street", "building", "postCode", "town")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
async def test_csv(tenant: Client, delimiter: str, start: bytes) -> None:
    scheme = await make_scheme(tenant)
    columns = (*reversed(COLUMNS), "schemeId", "metadata.note", "metadata.empty", "ignored", *CSV_ACCOUNT)
    note = 'Müller, "Sohn"; a|b\ttwo\nlines'
    row = {
        **line(1), "schemeId": scheme, "metadata.note": note, "ignored": "x", "accountHolder": "Erika Mustermann",
        "iban": IBAN, "street": "Hauptstraße", "building": "5", "postCode": "50667", "town": "Köln",
    }  # fmt: skip
    job = await taken(tenant, start + as_csv([row, line(2)], columns, delimiter=delimiter), "text/csv; charset=utf-8")
    assert (job["accepted"], job["refused"], job["linesDone"]) == (2, 0, 3)
    assert verdicts(await results(tenant, job)) == [(2, []), (3, [])]
    body = (await tenant.get(f"{ORDERS}/o-1/instruction/i-1")).json()
    assert (body["status"], body["amount"], body["metadata"]) == ("READY", 200, {"note": note})
    [instrument] = (await tenant.get("/v1/customer-vault/c-1")).json()["financialInstruments"]
    assert instrument["id"] == body["financialInstrument"]["financialInstrumentId"]
    assert (await tenant.get(f"{ORDERS}/o-2/instruction/i-1")).json()["status"] == "INCOMPLETE"


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        (b"", "CSV_HEADER_MISSING", ""),
        (as_csv([line(1)], COLUMNS[1:]), "CSV_COLUMN_MISSING", "orderRef"),
        (as_csv([line(1)], [*COLUMNS[:3], *COLUMNS[5:]]), "CSV_COLUMN_MISSING", "direction, amount"),
        (as_csv([line(1)], delimiter=":"), "CSV_COLUMN_MISSING", "orderRef, instructionRef"),
        (b"\n" + as_csv([line(1)]), "CSV_COLUMN_MISSING", "orderRef"),
        (as_csv([line(1)]).decode().encode("utf-16"), "CSV_NOT_UTF_8", "UTF-8"),
        (as_csv([line(1)]).replace(b"orderRef", b'"orderRef'), "CSV_LINE_INVALID", ""),
        (as_csv([line(1)]).replace(b"orderRef", b"orderRef,orderRef"), "CSV_COLUMN_TWICE", "orderRef"),
    ],
    ids=["empty", "one missing", "two missing", "wrong delimiter", "blank first line", "UTF-16", "quote", "twice"],
)
async def test_a_csv_without_its_columns(tenant: Client, content: bytes, code: str, named: str) -> None:
    answer = await upload(tenant, content, "text/csv", "a-key")
    assert refusal(answer) == (400, [code])
    assert named in answer.json()["errors"][0]["message"]
    # Mended, it is sent again with the same key.
    assert (await taken(tenant, as_csv([line(1)]), "text/csv", "a-key"))["accepted"] == 1


async def test_bad_csv_lines(tenant: Client) -> None:
    good = as_csv([line(number) for number in range(1, 8)]).split(b"\r\n")[:-1]
    header, *rows = good
    content = b"\r\n".join(
        [
            header,
            rows[0],
            b"o-9,too,few",
            rows[1] + b",too many",
            rows[1],
            rows[2].replace(b"i-1", b"i-\xe4"),
            rows[2],
            b"",
            b'o-8,"opened and never closed,c-1,CREDIT,200.00,EUR,DE,2030-12-01',
            rows[3],
            rows[4].replace(b"200.00", b'"200,00"'),
            rows[4].replace(b"200.00", b'"200.00"'),
            rows[5].replace(b"i-1", b'5" pipe'),
            rows[5].replace(b"i-1", b"a\x00b"),
            rows[5],
            b'"' + rows[6].replace(b",", b'","') + b'"',
        ]
    )
    job = await taken(tenant, content, "text/csv")
    assert verdicts(await results(tenant, job)) == [
        (2, []),
        (3, ["CSV_LINE_INVALID"]),
        (4, ["CSV_LINE_INVALID"]),
        (5, []),
        (6, ["CSV_LINE_INVALID"]),
        (7, []),
        (9, ["CSV_LINE_INVALID"]),
        (10, []),
        (11, ["AMOUNT_IS_INVALID"]),
        (12, []),
        (13, ["INSTRUCTION_REF_CONTAINS_INVALID_CHARACTERS"]),
        (14, ["CSV_LINE_INVALID"]),
        (15, []),
        (16, []),
    ]
    assert job["accepted"] == 7


def records(text: str, columns: int = 2) -> list[str]:
    reader = Records(",", columns)
    found = [record for part in text.split("\n") for record in reader.feed(part.encode())]
    return [record.decode() for record in [*found, *reader.finish()]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\nc,d", ["a,b", "c,d"]),
        ('"a\nb",c\nd,e', ['"a\nb",c', "d,e"]),
        ('a,"b\n\nc"\nd,e', ['a,"b\n\nc"', "d,e"]),
        ('a,"b ""c"" d"\ne,f', ['a,"b ""c"" d"', "e,f"]),
        ('a,"b ""c\n"" d"\ne,f', ['a,"b ""c\n"" d"', "e,f"]),
        ('5" pipe,b\nc,d', ['5" pipe,b', "c,d"]),
        ('a,"b\nc,d\ne,f', ['a,"b', "c,d", "e,f"]),
        ('a,"b\nc,d\ne,"f"\ng,h', ['a,"b', "c,d", 'e,"f"', "g,h"]),
        ('a,"b\nc,"d\ne,f', ['a,"b', 'c,"d', "e,f"]),
        ('a,"b\n"c\nd",e', ['a,"b', '"c\nd",e']),
        ('"', ['"']),
    ],
)
def test_records_are_put_together(text: str, expected: list[str]) -> None:
    assert records(text) == expected


def test_a_quote_that_never_closes_costs_one_line() -> None:
    lines = [f"a,{number}" for number in range(5 * MAX_RECORD_LINES)]
    lines[7] = 'a,"7'
    assert records("\n".join(lines)) == lines
    lines[9] = '"' + "x" * MAX_LINE_BYTES
    assert records("\n".join(lines)) == lines


def test_quotes_without_end_are_cheap() -> None:
    """Each of the lines opens a quote and keeps an open one open. Looked through anew for every line after the
    hundredth, two megabytes of them would have kept a process from everything else for an hour."""
    lines = ['a","b' * 1_000] * 400
    started = time.process_time()
    assert records("\n".join(lines)) == lines
    assert time.process_time() - started < 5


@pytest.mark.parametrize("media", ["application/xml", "multipart/form-data; boundary=x", "text/plain"])
async def test_other_media(tenant: Client, media: str) -> None:
    assert refusal(await upload(tenant, b"x", media)) == (415, ["MEDIA_TYPE_NOT_SUPPORTED"])


async def test_an_empty_upload(tenant: Client) -> None:
    for content in (b"", b"\n\n"):
        job = await taken(tenant, content)
        assert (job["status"], job["accepted"], job["refused"]) == ("COMPLETED", 0, 0)
        assert await results(tenant, job) == []


async def test_the_same_upload_again_does_nothing_twice(tenant: Client) -> None:
    content = ndjson([line(number) for number in range(CHUNK_LINES + 10)]) + b"\n \n"
    first = await taken(tenant, content, key="a-key")
    again = await taken(tenant, content, key="a-key")
    assert again["jobId"] == first["jobId"]
    assert (again["accepted"], again["refused"]) == (first["accepted"], first["refused"]) == (CHUNK_LINES + 10, 0)
    other = await taken(tenant, content, key="another")
    assert (other["accepted"], other["refused"]) == (0, CHUNK_LINES + 10)


async def test_another_upload_needs_another_key(tenant: Client) -> None:
    lines = [line(number) for number in range(CHUNK_LINES + 10)]
    await taken(tenant, ndjson(lines), key="a-key")
    changed = [{**item, "amount": "1.00"} if number == 3 else item for number, item in enumerate(lines)]
    for wrong in (changed, lines[:-1], [*lines, line(9999)], []):
        assert refusal(await upload(tenant, ndjson(wrong), key="a-key")) == (422, ["IDEMPOTENCY_KEY_REUSED"])
    assert codes(await tenant.get(f"{ORDERS}/o-9999")) == ["ORDER_NOT_FOUND"]
    assert (await taken(tenant, ndjson(lines), key="a-key"))["accepted"] == len(lines)


async def broken_off(platform: Platform, client: Client, content: bytes, key: str) -> None:
    """An upload whose connection is lost after this content."""
    await client.sign_in()
    messages = [
        {"type": "http.request", "body": content, "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = {**client.headers, "content-type": NDJSON, "idempotency-key": key}
    scope = {
        "type": "http", "method": "POST", "path": BULK, "query_string": b"", "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await platform.app.surface(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_an_upload_that_broke_off_goes_on(tenant: Client, platform: Platform) -> None:
    lines = [line(number) for number in range(3 * CHUNK_LINES)]
    lines[1]["amount"] = "0"
    content = ndjson(lines)
    # It breaks off in the middle of a line of the third chunk, then in the middle of the second.
    for cut in (int(len(content) * 0.8), len(content) // 2):
        await broken_off(platform, tenant, content[:cut], "a-key")
        assert codes(await tenant.get(f"{ORDERS}/o-{3 * CHUNK_LINES - 1}")) == ["ORDER_NOT_FOUND"]
    other = ndjson([{**lines[0], "amount": "7.00"}, *lines[1:]])
    assert refusal(await upload(tenant, other, key="a-key")) == (422, ["IDEMPOTENCY_KEY_REUSED"])
    job = await taken(tenant, content, key="a-key")
    assert (job["status"], job["accepted"], job["refused"]) == ("COMPLETED", len(lines) - 1, 1)
    found = verdicts(await results(tenant, job))
    assert found == [(n, ["AMOUNT_OUT_OF_RANGE"] if n == 2 else []) for n in range(1, len(lines) + 1)]


async def test_while_it_runs_the_key_is_in_flight(tenant: Client) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        begun.set()
        yield ndjson([line(1)])
        await gate.wait()
        yield ndjson([line(2)])

    await tenant.sign_in()
    first = asyncio.create_task(upload(tenant, slowly(), key="a-key"))
    await begun.wait()
    second = await upload(tenant, ndjson([line(1), line(2)]), key="a-key")
    assert refusal(second) == (409, ["BULK_IN_FLIGHT"])
    job_id = second.json()["errors"][0]["metadata"]["jobId"]
    assert (await tenant.get(f"{BULK}/{job_id}")).json()["status"] == "RUNNING"
    gate.set()
    answer = await first
    assert (answer.status_code, answer.json()["accepted"], answer.json()["jobId"]) == (202, 2, job_id)


async def test_a_job_whose_process_died_is_taken_over(tenant: Client, platform: Platform) -> None:
    """What a killed process leaves: a job that is running for nobody."""
    lines = [line(number) for number in range(2 * CHUNK_LINES)]
    content = ndjson(lines)
    await broken_off(platform, tenant, content[: int(len(content) * 0.7)], "a-key")
    async with World.of(platform.app, tenant).operation() as op:
        await op.run("update bulk_jobs set status = 'RUNNING', updated_at = %s", op.now - STALE_AFTER / 2)
    assert refusal(await upload(tenant, content, key="a-key")) == (409, ["BULK_IN_FLIGHT"])
    async with World.of(platform.app, tenant).operation() as op:
        await op.run("update bulk_jobs set updated_at = %s", op.now - STALE_AFTER)
        [row] = await op.rows("select job_id from bulk_jobs")
    assert (await tenant.get(f"{BULK}/{row[0]}")).json()["status"] == "INTERRUPTED"
    job = await taken(tenant, content, key="a-key")
    assert (job["jobId"], job["accepted"], job["refused"]) == (str(row[0]), len(lines), 0)
