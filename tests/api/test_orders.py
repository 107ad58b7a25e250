"""Orders on the wire: making them, reading them, their metadata and what they say for customers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from strongroom.api.order_bodies import MAX_FAILURES
from strongroom.payments.orders import MAX_INSTRUCTIONS
from tests.api.paying import ORDERS, codes, instruction, make_account, make_order, make_scheme, order, refusal
from tests.fixtures.platform import Client, Platform

ONE = f"{ORDERS}/o-1"
DEFAULTS = f"{ONE}/customer-defaults/c-1"


async def test_an_order_without_instructions_is_made_at_once(tenant: Client) -> None:
    made = await tenant.post(ORDERS, {"orderRef": "o-1"})
    assert made.status_code == 201
    assert made.json() == {"_links": {"self": {"href": ONE}}, "orderRef": "o-1"}
    assert made.headers["location"] == ONE


async def test_an_order_with_instructions_is_taken(tenant: Client) -> None:
    made = await tenant.post(ORDERS, order("o-1", instruction()))
    assert made.status_code == 202
    assert made.json() == {"_links": {"self": {"href": ONE}}, "orderRef": "o-1"}


async def test_reading_an_order(tenant: Client) -> None:
    before = int(time.time() * 1000)
    await make_order(
        tenant, "o-1", instruction("a"), instruction("b", direction="DEBIT", amount="0.10"), metadata={"claim": "77"}
    )
    answer = await tenant.get(ONE)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == [
        "_links", "orderRef", "created", "lastUpdated", "instructions", "metadata", "customerDefaults",
    ]  # fmt: skip
    assert body["_links"] == {"self": {"href": ONE}}
    assert before <= body["created"] == body["lastUpdated"] <= int(time.time() * 1000)
    assert body["metadata"] == {"claim": "77"}
    assert body["customerDefaults"] == {}
    assert sorted((item["instructionRef"], item["direction"], item["amount"]) for item in body["instructions"]) == [
        ("a", "CREDIT", 200.0),
        ("b", "DEBIT", 0.1),
    ]


@pytest.mark.parametrize("instructions", [None, []])
async def test_no_instructions_said_otherwise(tenant: Client, instructions: Any) -> None:
    made = await tenant.post(ORDERS, {"orderRef": "o-1", "instructions": instructions, "metadata": None})
    assert made.status_code == 201
    assert (await tenant.get(ONE)).json()["instructions"] == []


async def test_a_reference_is_used_once_in_a_tenant(tenant: Client, platform: Platform) -> None:
    await make_order(tenant, "o-1", metadata={"first": "yes"})
    again = await tenant.post(ORDERS, order("o-1", instruction(), metadata={"first": "no"}))
    assert refusal(again) == (400, ["ORDER_ALREADY_EXISTS"])
    assert again.json()["errors"][0]["metadata"]["orderRef"] == "o-1"
    body = (await tenant.get(ONE)).json()
    assert (body["metadata"], body["instructions"]) == ({"first": "yes"}, [])
    stranger = await platform.new_tenant()
    assert refusal(await stranger.get(ONE)) == (400, ["ORDER_NOT_FOUND"])
    await make_order(stranger, "o-1")


async def test_references_are_told_apart_by_case(tenant: Client) -> None:
    await make_order(tenant, "Ref")
    await make_order(tenant, "ref")


async def test_all_that_is_wrong_is_listed_in_field_order(tenant: Client) -> None:
    wrong = {
        "orderRef": "a b",
        "instructions": [
            {"instructionRef": "x" * 51, "direction": "credit", "amount": "1.001", "currency": "EUR", "country": "de"},
            instruction("ok", schemeId="none", metadata={"k" * 41: "v"}),
        ],
        "metadata": {"k": "v" * 501},
        "customerDefaults": {"c 1": {}, "c-2": {"schemeId": "x"}},
    }
    answer = await tenant.post(ORDERS, wrong)
    assert refusal(answer) == (
        400,
        [
            "ORDER_REF_CONTAINS_INVALID_CHARACTERS",
            "INSTRUCTION_REF_LENGTH_OUT_OF_RANGE",
            "CUSTOMER_REF_IS_REQUIRED",
            "DIRECTION_IS_NOT_RECOGNISED",
            "AMOUNT_OUT_OF_RANGE",
            "COUNTRY_NOT_SUPPORTED",
            "SETTLED_BY_DATE_IS_REQUIRED",
            "SCHEME_ID_NOT_RECOGNISED",
            "METADATA_KEY_SIZE_OUT_OF_RANGE",
            "METADATA_VALUE_SIZE_OUT_OF_RANGE",
            "CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS",
            "SCHEME_ID_NOT_RECOGNISED",
        ],
    )
    fields = [error["metadata"]["field"] for error in answer.json()["errors"]]
    assert fields[1] == "instructions[0].instructionRef"
    assert fields[8] == "instructions[1].metadata"
    assert refusal(await tenant.get(f"{ORDERS}/a%20b"))[0] == 400


async def test_an_order_is_made_whole_or_not_at_all(tenant: Client) -> None:
    answer = await tenant.post(ORDERS, order("o-1", instruction("a"), instruction("b", amount="0")))
    assert refusal(answer) == (400, ["AMOUNT_OUT_OF_RANGE"])
    answer = await tenant.post(ORDERS, order("o-1", instruction("a"), instruction("b", schemeId="A" * 32)))
    assert refusal(answer) == (400, ["SCHEME_ID_NOT_RECOGNISED"])
    assert codes(await tenant.get(ONE)) == ["ORDER_NOT_FOUND"]
    assert codes(await tenant.get("/v1/customer-vault/c-1")) == ["CUSTOMER_NOT_FOUND"]


async def test_a_reference_twice_in_one_order(tenant: Client) -> None:
    answer = await tenant.post(ORDERS, order("o-1", instruction("a"), instruction("b"), instruction("a")))
    assert refusal(answer) == (400, ["INSTRUCTION_ALREADY_EXISTS"])
    assert answer.json()["errors"][0]["metadata"]["field"] == "instructions[2].instructionRef"


async def test_as_many_instructions_as_a_request_may_bring(tenant: Client) -> None:
    await make_order(tenant, "o-1", *[instruction(f"i-{number}") for number in range(MAX_INSTRUCTIONS)])
    assert len((await tenant.get(ONE)).json()["instructions"]) == MAX_INSTRUCTIONS


async def test_as_many_defaults_as_a_request_may_bring(tenant: Client) -> None:
    many: dict[str, Any] = {f"c-{number}": {"metadata": {"a": "b"}} for number in range(MAX_INSTRUCTIONS + 1)}
    answer = await tenant.post(ORDERS, order("o-1", customerDefaults=many))
    assert refusal(answer) == (400, ["CUSTOMER_DEFAULTS_COUNT_OUT_OF_RANGE"])
    assert codes(await tenant.get(ONE)) == ["ORDER_NOT_FOUND"]
    del many["c-0"]
    await make_order(tenant, "o-1", customerDefaults=many)
    assert len((await tenant.get(ONE)).json()["customerDefaults"]) == MAX_INSTRUCTIONS


async def test_a_small_request_gets_no_enormous_answer(tenant: Client) -> None:
    wrong = {str(number): 1 for number in range(2 * MAX_FAILURES)}
    answer = await tenant.post(ORDERS, order("o-1", metadata=wrong))
    assert (answer.status_code, len(codes(answer))) == (400, MAX_FAILURES)


async def test_ten_thousand_instructions_are_told_where_to_go(tenant: Client) -> None:
    # As short as they can be, so that the count is what is wrong and not the size.
    short = [{"instructionRef": f"{number}"} for number in range(10_000)]
    answer = await tenant.post(ORDERS, {"orderRef": "o-1", "instructions": short})
    assert refusal(answer) == (400, ["INSTRUCTION_COUNT_OUT_OF_RANGE"])
    assert answer.json()["errors"][0]["metadata"]["maximum"] == MAX_INSTRUCTIONS
    assert "bulk" in answer.json()["errors"][0]["message"]
    whole = [instruction(f"i-{number}") for number in range(10_000)]
    answer = await tenant.post(ORDERS, {"orderRef": "o-1", "instructions": whole})
    assert refusal(answer) == (413, ["REQUEST_TOO_LARGE"])
    assert codes(await tenant.get(ONE)) == ["ORDER_NOT_FOUND"]


async def test_metadata_is_replaced_and_removed(tenant: Client) -> None:
    await make_order(tenant, "o-1", metadata={"a": "1", "b": None})
    assert (await tenant.get(ONE)).json()["metadata"] == {"a": "1"}
    for body in ({"metadata": {"c": "3", "d": None}}, {"c": "3", "d": None}):
        put = await tenant.put(f"{ONE}/metadata", body)
        assert (put.status_code, put.content) == (200, b"")
        assert (await tenant.get(ONE)).json()["metadata"] == {"c": "3"}
    refused = await tenant.put(f"{ONE}/metadata", {"metadata": {"c": 3}})
    assert refusal(refused) == (400, ["METADATA_IS_INVALID"])
    removed = await tenant.delete(f"{ONE}/metadata")
    assert (removed.status_code, removed.content) == (200, b"")
    assert (await tenant.get(ONE)).json()["metadata"] == {}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({str(number): "v" for number in range(50)}, []),
        ({str(number): "v" for number in range(51)}, ["METADATA_COUNT_OUT_OF_RANGE"]),
        ({**{str(number): "v" for number in range(50)}, "dropped": None}, []),
        ({"k" * 40: "v" * 500}, []),
        ({"k" * 41: "v"}, ["METADATA_KEY_SIZE_OUT_OF_RANGE"]),
        ({"": "v"}, ["METADATA_KEY_SIZE_OUT_OF_RANGE"]),
        ({"k": "v" * 501}, ["METADATA_VALUE_SIZE_OUT_OF_RANGE"]),
        ({"k" * 41: "v" * 501}, ["METADATA_KEY_SIZE_OUT_OF_RANGE"]),
        ({"k": 1}, ["METADATA_IS_INVALID"]),
        ({"k": {"deep": "er"}}, ["METADATA_IS_INVALID"]),
        ([], ["METADATA_IS_INVALID"]),
        ("text", ["METADATA_IS_INVALID"]),
        ({"k": ""}, []),
        ({"Größe 🙂": "¥"}, []),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_limits_of_metadata(tenant: Client, metadata: Any, expected: list[str]) -> None:
    answer = await tenant.post(ORDERS, order("o-1", instruction(metadata=metadata), metadata=metadata))
    if expected:
        assert refusal(answer) == (400, expected * 2)
        return
    kept = {key: value for key, value in metadata.items() if value is not None}
    assert answer.status_code == 202
    body = (await tenant.get(ONE)).json()
    assert body["metadata"] == body["instructions"][0]["metadata"] == kept


async def test_defaults_fill_only_what_is_left_out(tenant: Client) -> None:
    common, special = await make_scheme(tenant), await make_scheme(tenant, name="Special")
    mine, other = await make_account(tenant), await make_account(tenant, holder="Max Mustermann")
    theirs = await make_account(tenant, "c-2")
    defaults = {"c-1": {"financialInstrumentId": mine, "schemeId": common, "metadata": {"a": "default", "b": "b"}}}
    await make_order(
        tenant,
        "o-1",
        instruction("filled"),
        instruction("own", schemeId=special, financialInstrumentId=other, metadata={"a": "own", "c": "c"}),
        instruction("somebody-else", customerRef="c-2", financialInstrumentId=theirs),
        instruction("blank", financialInstrumentId=" ", schemeId=""),
        instruction("not-an-id", financialInstrumentId="n/a"),
        customerDefaults=defaults,
    )
    body = (await tenant.get(ONE)).json()
    assert body["customerDefaults"] == defaults
    found = {item["instructionRef"]: item for item in body["instructions"]}

    def choice(ref: str) -> tuple[Any, ...]:
        instrument, scheme = found[ref]["financialInstrument"], found[ref]["scheme"]
        return (
            found[ref]["status"], instrument["financialInstrumentId"], instrument["source"], scheme["schemeId"],
            scheme["source"],
        )  # fmt: skip

    assert choice("filled") == ("READY", mine, "CUSTOMER_DEFAULT", common, "CUSTOMER_DEFAULT")
    assert choice("own") == ("READY", other, "MANUALLY_SET", special, "MANUALLY_SET")
    assert choice("somebody-else") == ("INCOMPLETE", theirs, "MANUALLY_SET", None, "NONE")
    assert choice("blank") == choice("not-an-id") == choice("filled")
    assert found["filled"]["metadata"] == {"a": "default", "b": "b"}
    assert found["own"]["metadata"] == {"a": "own", "b": "b", "c": "c"}
    assert found["somebody-else"]["metadata"] == {}

    assert (await tenant.post(f"{ONE}/instruction", instruction("later", metadata={"b": "own"}))).status_code == 201
    later = (await tenant.get(f"{ONE}/instruction/later")).json()
    assert later["scheme"] == {"schemeId": common, "source": "CUSTOMER_DEFAULT", "canUpdate": True}
    assert later["metadata"] == {"a": "default", "b": "own"}


async def test_defaults_are_set_in_parts_and_removed(tenant: Client) -> None:
    scheme, account = await make_scheme(tenant), await make_account(tenant)
    await make_order(tenant)
    steps: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("PUT", "/scheme", {"schemeId": scheme}, {"schemeId": scheme}),
        ("PUT", "/financial-instrument", {"financialInstrumentId": account}, {"financialInstrumentId": account}),
        ("PUT", "/metadata", {"metadata": {"a": "1", "b": None}}, {"metadata": {"a": "1"}}),
        ("DELETE", "/scheme", None, {"schemeId": None}),
        ("DELETE", "/metadata", None, {"metadata": {}}),
    ]
    expected: dict[str, Any] = {"financialInstrumentId": None, "schemeId": None, "metadata": {}}
    for method, part, body, change in steps:
        expected |= change
        answer = await tenant.request(method, DEFAULTS + part, json=body)
        assert (answer.status_code, answer.content) == (200, b""), (method, part, answer.text)
        assert (await tenant.get(ONE)).json()["customerDefaults"] == {"c-1": expected}
    assert (await tenant.delete(f"{DEFAULTS}/financial-instrument")).status_code == 200
    assert (await tenant.get(ONE)).json()["customerDefaults"] == {}
    whole = {"financialInstrumentId": account, "schemeId": scheme, "metadata": {"x": "y"}}
    for _ in range(2):
        assert (await tenant.put(DEFAULTS, whole)).status_code == 200
        assert (await tenant.get(ONE)).json()["customerDefaults"] == {"c-1": whole}
    assert (await tenant.delete(DEFAULTS)).status_code == 200
    assert (await tenant.get(ONE)).json()["customerDefaults"] == {}


async def test_removing_what_is_not_there_makes_nothing(tenant: Client) -> None:
    await make_order(tenant)
    for part in ("", "/scheme", "/financial-instrument", "/metadata"):
        assert (await tenant.delete(DEFAULTS + part)).status_code == 200
    assert (await tenant.get(ONE)).json()["customerDefaults"] == {}
    assert codes(await tenant.get("/v1/customer-vault/c-1")) == ["CUSTOMER_NOT_FOUND"]


async def test_defaults_name_what_is_there(tenant: Client, platform: Platform) -> None:
    stranger = await platform.new_tenant()
    foreign_scheme, foreign_account = await make_scheme(stranger), await make_account(stranger)
    somebodys = await make_account(tenant, "c-2")
    await make_order(tenant)
    for body, expected in (
        ({"schemeId": "F" * 32}, "SCHEME_ID_NOT_RECOGNISED"),
        ({"schemeId": foreign_scheme}, "SCHEME_ID_NOT_RECOGNISED"),
        ({"schemeId": 7}, "SCHEME_ID_NOT_RECOGNISED"),
        ({"financialInstrumentId": foreign_account}, "FINANCIAL_INSTRUMENT_NOT_FOUND"),
        ({"financialInstrumentId": somebodys}, "FINANCIAL_INSTRUMENT_NOT_FOUND"),
    ):
        assert refusal(await tenant.put(DEFAULTS, body)) == (400, [expected])
        new = order("o-2", instruction(), customerDefaults={"c-1": body})
        answer = await tenant.post(ORDERS, new)
        assert (answer.status_code, set(codes(answer))) == (400, {expected})
    assert (await tenant.get(ONE)).json()["customerDefaults"] == {}
    for wrong in ("text", [], {"c-1": "text"}, {"c-1": []}):
        answer = await tenant.post(ORDERS, order("o-2", customerDefaults=wrong))
        assert refusal(answer) == (400, ["CUSTOMER_DEFAULTS_INVALID"])
    await make_order(tenant, "o-2", customerDefaults={"c-1": None})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PUT", "/metadata", {"metadata": {}}),
        ("DELETE", "/metadata", None),
        ("PUT", "/customer-defaults/c-1", {}),
        ("DELETE", "/customer-defaults/c-1", None),
        ("PUT", "/customer-defaults/c-1/scheme", {}),
        ("DELETE", "/customer-defaults/c-1/metadata", None),
        ("POST", "/instruction", instruction()),
        ("GET", "/instruction/i-1", None),
        ("PUT", "/instruction/i-1", {}),
        ("POST", "/instruction/i-1/cancel", {}),
    ],
)
async def test_what_is_not_there_is_not_found(tenant: Client, method: str, path: str, body: Any) -> None:
    assert refusal(await tenant.request(method, ONE + path, json=body)) == (400, ["ORDER_NOT_FOUND"])
    for ref, code in (
        ("a%20b", "ORDER_REF_CONTAINS_INVALID_CHARACTERS"),
        ("a%0A", "ORDER_REF_CONTAINS_INVALID_CHARACTERS"),
        ("%D9%A1", "ORDER_REF_CONTAINS_INVALID_CHARACTERS"),
        ("a" * 51, "ORDER_REF_LENGTH_OUT_OF_RANGE"),
    ):
        assert refusal(await tenant.request(method, f"{ORDERS}/{ref}{path}", json=body)) == (400, [code])
