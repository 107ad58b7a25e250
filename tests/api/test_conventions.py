"""What holds for every route: media types, headers, error bodies, paths (wire contract, section 1)."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from strongroom.api import surface
from tests.api.paying import ORDERS, codes, instruction, make_order, order, refusal
from tests.fixtures.platform import Client, Platform
from tests.fixtures.signing import authorization

BODY = json.dumps({"orderRef": "o-1"}).encode()


async def send(client: Client, content: bytes, **headers: str) -> httpx.Response:
    """POST an order; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(ORDERS, content=content, headers=named)


@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json-patch+json",
        "text/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "text/json;charset=UTF-8",
        "",
    ],
)
async def test_what_is_read_as_json(tenant: Client, media: str) -> None:
    assert (await send(tenant, BODY, content_type=media)).status_code == 201


async def test_no_content_type_is_json(tenant: Client) -> None:
    await tenant.sign_in()
    request = tenant.http.build_request("POST", ORDERS, content=BODY, headers=tenant.headers)
    assert "content-type" not in request.headers
    assert (await tenant.http.send(request)).status_code == 201


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "json"])
async def test_other_content_types_are_refused(tenant: Client, media: str) -> None:
    answer = await send(tenant, BODY, content_type=media)
    assert refusal(answer) == (415, ["MEDIA_TYPE_NOT_SUPPORTED"])
    assert codes(await tenant.get(f"{ORDERS}/o-1")) == ["ORDER_NOT_FOUND"]


async def test_an_errors_body(tenant: Client) -> None:
    before = int(time.time() * 1000)
    answer = await send(tenant, b'{"orderRef": "' + b"x" * 51 + b'"}', x_correlation_id="my-own.id_1:2")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-correlation-id"] == "my-own.id_1:2"
    body = answer.json()
    assert list(body) == ["timestamp", "correlationId", "errors"]
    assert before <= body["timestamp"] <= int(time.time() * 1000)
    assert body["correlationId"] == "my-own.id_1:2"
    [error] = body["errors"]
    assert list(error) == ["errorCode", "message", "messageTemplate", "metadata"]
    assert error["errorCode"] == "ORDER_REF_LENGTH_OUT_OF_RANGE"
    assert error["metadata"]["correlationId"] == "my-own.id_1:2"
    assert error["metadata"]["maxLength"] == 50
    assert error["messageTemplate"].format_map(error["metadata"]) == error["message"]


async def test_templates_hold_nothing_that_metadata_lacks(tenant: Client) -> None:
    await make_order(tenant, "taken", instruction())
    wrong: list[Any] = [
        {},
        {"orderRef": "taken"},
        {"orderRef": "{a} b", "metadata": {"k" * 41: "v"}},
        order("{o}", instruction("{x}", amount="{y}", currency="{}", country="{0}", settledByDate="{", schemeId="}")),
        order("o-2", instruction(), instruction()),
        {"orderRef": {"{": "}"}},
    ]
    answers = [await tenant.post(ORDERS, body) for body in wrong]
    answers.append(await send(tenant, b'{"orderRef": {'))
    answers.append(await send(tenant, BODY, content_type="text/{plain}"))
    answers.append(await send(tenant, BODY, idempotency_key="a b"))
    for answer in answers:
        assert answer.status_code in {400, 415}
        for error in answer.json()["errors"]:
            named = set(re.findall(r"\{(\w+)\}", error["messageTemplate"]))
            assert named <= set(error["metadata"]), error
            assert error["messageTemplate"].format_map(error["metadata"]) == error["message"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "a\tb"])
async def test_a_correlation_id_is_made_when_there_is_none_of_use(tenant: Client, given: str) -> None:
    await tenant.sign_in()
    answer = await tenant.http.get(
        f"{ORDERS}/none",
        headers=[*tenant.headers.items(), ("x-correlation-id", given.encode())],  # type: ignore[list-item]  # httpx takes bytes as values
    )
    made = answer.headers["x-correlation-id"]
    assert uuid.UUID(made).version == 7
    assert answer.json()["correlationId"] == made


async def test_correlation_ids_come_with_successes_too(tenant: Client) -> None:
    assert (await send(tenant, BODY, x_correlation_id="abc")).headers["x-correlation-id"] == "abc"


@pytest.mark.parametrize("accept", ["application/problem+json", "text/html, application/problem+json;q=0.9"])
async def test_problem_details_on_request(tenant: Client, accept: str) -> None:
    plain = await tenant.post(ORDERS, {"orderRef": "a b"})
    answer = await tenant.post(ORDERS, {"orderRef": "a b"}, headers={"Accept": accept})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert list(body) == ["type", "title", "status", "detail", "correlationId", "errors"]
    assert (body["type"], body["status"]) == ("about:blank", 400)
    assert body["detail"] == body["errors"][0]["message"]
    assert [error["errorCode"] for error in body["errors"]] == codes(plain)
    for path, method, status in (("/v1/nothing", "GET", 404), (ORDERS, "DELETE", 405)):
        other = await tenant.request(method, path, headers={"Accept": accept})
        assert (other.status_code, other.json()["status"]) == (status, status)
        assert other.headers["content-type"] == "application/problem+json"


async def test_a_trailing_slash_changes_nothing(tenant: Client) -> None:
    assert (await tenant.post(f"{ORDERS}/", order("o-1", instruction()))).status_code == 202
    for path in (f"{ORDERS}/o-1", f"{ORDERS}/o-1/instruction/i-1"):
        with_slash, without = await tenant.get(f"{path}/"), await tenant.get(path)
        assert (with_slash.status_code, with_slash.json()) == (200, without.json())
    assert (await tenant.http.get("/health/")).status_code == 200
    assert refusal(await tenant.http.get("/")) == (404, ["PATH_NOT_FOUND"])


async def test_order_routes_answer_under_v2(tenant: Client) -> None:
    v2 = ORDERS.replace("/v1/", "/v2/")
    assert (await tenant.post(f"{v2}/", order("o-1", instruction()))).status_code == 202
    assert (await tenant.get(f"{v2}/o-1")).json() == (await tenant.get(f"{ORDERS}/o-1")).json()
    assert (await tenant.post(f"{v2}/o-1/instruction", instruction("i-2"))).status_code == 201
    assert (await tenant.put(f"{v2}/o-1/metadata", {"a": "b"})).status_code == 200
    assert (await tenant.post(f"{v2}/o-1/instruction/i-2/cancel", {})).json()["status"] == "CANCELLED"
    line = json.dumps({"orderRef": "o-1", **instruction("i-3")}).encode()
    bulk = await tenant.post(f"{v2}/bulk", content=line, headers={"content-type": "application/x-ndjson"})
    assert (bulk.status_code, bulk.json()["accepted"]) == (202, 1)
    for nowhere in ("/v2/order-managementx", "/v2/orders", "/v3/order-management", "/v2"):
        assert refusal(await tenant.get(nowhere)) == (404, ["PATH_NOT_FOUND"])


async def test_other_methods_are_named(tenant: Client) -> None:
    answer = await tenant.delete(f"{ORDERS}/o-1/instruction/i-1")
    assert refusal(answer) == (405, ["METHOD_NOT_ALLOWED"])
    assert answer.headers["allow"] == "GET, PUT"


async def test_an_order_may_be_called_bulk(tenant: Client) -> None:
    """The upload's path is taken by its method only; what the path doesn't answer at all is still named."""
    assert (await tenant.post(ORDERS, order("bulk", instruction()))).status_code == 202
    assert (await tenant.get(f"{ORDERS}/bulk")).json()["orderRef"] == "bulk"
    assert (await tenant.get(f"{ORDERS}/bulk/instruction/i-1")).json()["instructionRef"] == "i-1"
    more = await tenant.post(f"{ORDERS}/bulk/instruction", instruction("results"))

    assert more.status_code == 201, more.text
    found = (await tenant.get(f"{ORDERS}/bulk/instruction/results")).json()
    assert found["instructionRef"] == "results"
    assert (await tenant.put(f"{ORDERS}/bulk/metadata", {"claim": "7"})).status_code == 200
    assert (await tenant.get(f"{ORDERS}/bulk")).json()["metadata"] == {"claim": "7"}
    answer = await tenant.delete(ORDERS)
    assert (refusal(answer), answer.headers["allow"]) == ((405, ["METHOD_NOT_ALLOWED"]), "POST")


async def test_headers_are_required_and_agree(tenant: Client, platform: Platform) -> None:
    await tenant.sign_in()
    other = await platform.new_tenant()
    good = tenant.headers

    async def ask(**changed: str | None) -> httpx.Response:
        headers = {**good, **{name.replace("_", "-"): value for name, value in changed.items()}}
        return await tenant.http.get(
            f"{ORDERS}/o-1", headers={name: value for name, value in headers.items() if value is not None}
        )

    assert refusal(await ask()) == (400, ["ORDER_NOT_FOUND"])
    assert refusal(await ask(x_account_id=None)) == (400, ["ACCOUNT_ID_IS_REQUIRED"])
    assert refusal(await ask(x_tenant_id="")) == (400, ["TENANT_ID_IS_REQUIRED"])
    both = await ask(x_account_id=None, x_tenant_id=None)
    assert refusal(both) == (400, ["ACCOUNT_ID_IS_REQUIRED", "TENANT_ID_IS_REQUIRED"])
    assert refusal(await ask(x_account_id=other.account_id)) == (403, ["HEADERS_DISAGREE"])
    assert refusal(await ask(x_tenant_id=other.tenant_id)) == (403, ["HEADERS_DISAGREE"])
    assert refusal(await ask(x_tenant_id="not-a-uuid")) == (403, ["HEADERS_DISAGREE"])
    # Ids are read in upper case, too.
    assert refusal(await ask(x_tenant_id=str(tenant.tenant_id).upper())) == (400, ["ORDER_NOT_FOUND"])


@pytest.mark.parametrize("name", ["authorization", "x-account-id", "x-tenant-id", "idempotency-key"])
async def test_who_acts_is_said_once(tenant: Client, platform: Platform, name: str) -> None:
    await tenant.sign_in()
    other = await platform.new_tenant()
    await other.sign_in()
    good, others = ({**client.headers, "Idempotency-Key": client.public_key} for client in (tenant, other))
    second = {key.lower(): value for key, value in others.items()}[name]
    for both in ([*good.items(), (name, second)], [(name, second), *good.items()]):
        answer = await tenant.http.post(ORDERS, content=BODY, headers=both)
        assert refusal(answer) == (400, ["HEADER_SENT_TWICE"])
        assert answer.json()["errors"][0]["metadata"]["header"] == name
    for client in (tenant, other):
        assert codes(await client.get(f"{ORDERS}/o-1")) == ["ORDER_NOT_FOUND"]


async def test_signing_in_with_two_signatures_is_refused(tenant: Client) -> None:
    signed = [("Authorization", authorization(tenant.public_key, tenant.private_key)) for _ in range(2)]
    assert refusal(await tenant.http.post("/v1/identity/hmac", headers=signed)) == (400, ["HEADER_SENT_TWICE"])


@pytest.mark.parametrize("path", [ORDERS, f"{ORDERS}/bulk"])
async def test_bodies_are_sent_as_they_are(tenant: Client, path: str) -> None:
    zipped = await tenant.post(path, content=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
    assert refusal(zipped) == (415, ["CONTENT_ENCODING_NOT_SUPPORTED"])
    assert (await tenant.post(path, content=BODY, headers={"Content-Encoding": "identity"})).status_code in {201, 202}


@pytest.mark.parametrize("path", [ORDERS, f"{ORDERS}/bulk", "/v1/identity/hmac"])
@pytest.mark.parametrize("content", [b"", b'{"orderRef": '])
async def test_a_body_that_stops_is_not_waited_for(
    tenant: Client, monkeypatch: pytest.MonkeyPatch, path: str, content: bytes
) -> None:
    monkeypatch.setattr(surface, "STALLED_AFTER_S", 0.05)

    async def stops() -> AsyncIterator[bytes]:
        yield content
        await asyncio.sleep(30)

    began = time.monotonic()
    answer = await tenant.post(path, content=stops(), headers={"content-type": "application/json"})
    assert refusal(answer) == (400, ["REQUEST_TOO_SLOW"])
    assert time.monotonic() - began < 10


async def test_a_body_that_drips_is_not_waited_for(tenant: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "BODY_WITHIN_S", 0.2)

    async def drips() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    answer = await tenant.post(ORDERS, content=drips(), headers={"content-type": "application/json"})
    assert refusal(answer) == (400, ["REQUEST_TOO_SLOW"])


async def test_answers_are_not_kept_by_anybody(tenant: Client) -> None:
    for answer in (await send(tenant, BODY), await tenant.get("/v1/nothing"), await tenant.http.get("/health")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["strict-transport-security"].startswith("max-age=")
