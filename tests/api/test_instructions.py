"""Instructions on the wire: making, reading, changing and cancelling them."""

from __future__ import annotations

import json
import time
import uuid
from datetime import date, timedelta
from typing import Any

import pytest

from strongroom.assembly import App
from tests.api.paying import ORDERS, codes, instruction, make_account, make_order, make_scheme, refusal
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

ALL = f"{ORDERS}/o-1/instruction"
ONE = f"{ALL}/i-1"


@pytest.fixture
async def client(tenant: Client) -> Client:
    """A tenant-admin whose tenant has an order."""
    await make_order(tenant)
    return tenant


@pytest.fixture(scope="module")
async def shared(platform: Platform) -> Client:
    """The same once for many tests, which leave nothing behind that another one would meet."""
    client = await platform.new_tenant()
    await make_order(client)
    return client


async def test_an_instruction_is_answered_in_the_contracts_form(client: Client) -> None:
    before = int(time.time() * 1000)
    made = await client.post(ALL, instruction(metadata={"note": "x", "gone": None}))
    assert made.status_code == 201
    body = made.json()
    assert list(body) == [
        "_links", "instructionRef", "created", "lastUpdated", "direction", "status", "customerRef", "amount",
        "currency", "country", "settledByDate", "forecastedSettlementDate", "actualSettlementDate",
        "executionTimestamp", "financialInstrument", "scheme", "metadata", "transaction",
    ]  # fmt: skip
    assert before <= body["created"] == body["lastUpdated"] <= int(time.time() * 1000)
    del body["created"], body["lastUpdated"]
    assert body == {
        "_links": {"self": {"href": ONE}, "financialInstruments": [], "transactions": []},
        "instructionRef": "i-1",
        "direction": "CREDIT",
        "status": "INCOMPLETE",
        "customerRef": "c-1",
        "amount": 200,
        "currency": "EUR",
        "country": "DE",
        "settledByDate": "2030-12-01",
        "forecastedSettlementDate": "2030-12-01",
        "actualSettlementDate": None,
        "executionTimestamp": None,
        "financialInstrument": {
            "financialInstrumentId": None, "source": "NONE", "canUpdate": True, "sourceFlow": None,
        },
        "scheme": {"schemeId": None, "source": "NONE", "canUpdate": True},
        "metadata": {"note": "x"},
        "transaction": None,
    }  # fmt: skip
    again = await client.get(ONE)
    assert (again.status_code, again.json()) == (200, made.json())
    assert (await client.get(f"{ORDERS}/o-1")).json()["instructions"] == [made.json()]


async def test_with_a_scheme_and_an_account_it_is_ready(client: Client) -> None:
    scheme, account = await make_scheme(client), await make_account(client)
    body = (await client.post(ALL, instruction(schemeId=scheme, financialInstrumentId=account))).json()
    assert body["status"] == "READY"
    href = f"/v1/customer-vault/c-1/financial-instrument/{account}"
    assert body["_links"]["financialInstruments"] == [{"href": href, "name": account}]
    assert (await client.get(href)).status_code == 200
    assert body["scheme"] == {"schemeId": scheme, "source": "MANUALLY_SET", "canUpdate": True}
    assert body["financialInstrument"] == {
        "financialInstrumentId": account, "source": "MANUALLY_SET", "canUpdate": True, "sourceFlow": None,
    }  # fmt: skip


async def test_past_its_day_it_is_late(client: Client) -> None:
    scheme, account = await make_scheme(client), await make_account(client)
    yesterday, today = date.today() - timedelta(days=1), date.today()  # noqa: DTZ011  the tests' machine keeps UTC
    ready = {"schemeId": scheme, "financialInstrumentId": account}
    for ref, day, status, can_update in (
        ("late", yesterday, "LATE", False),
        ("long-ago", date(1999, 12, 31), "LATE", False),
        ("today", today, "READY", True),
    ):
        made = await client.post(ALL, instruction(ref, settledByDate=day.isoformat(), **ready))
        assert (made.status_code, made.json()["status"]) == (201, status)
        assert made.json()["scheme"]["canUpdate"] is can_update
    incomplete = await client.post(ALL, instruction("incomplete", settledByDate="1999-12-31"))
    assert incomplete.json()["status"] == "INCOMPLETE"


async def test_an_unknown_customer_is_made(client: Client) -> None:
    await client.post(ALL, instruction(customerRef="new.one"))
    customer = await client.get("/v1/customer-vault/new.one")
    assert (customer.status_code, customer.json()["status"]) == (200, "ACTIVE")


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("200.00", "EUR", "200.00"),
        ("200", "EUR", "200.00"),
        ("200.1", "EUR", "200.10"),
        (200.1, "EUR", "200.10"),
        (200, "EUR", "200.00"),
        ("0.01", "EUR", "0.01"),
        ("0200.00", "EUR", "200.00"),
        ("999999999999.99", "EUR", "999999999999.99"),
        ("500", "JPY", "500"),
        ("1.234", "BHD", "1.234"),
        ("1.2345", "UYW", "1.2345"),
        (0.30, "EUR", "0.30"),
    ],
)
async def test_amounts_are_exact(client: Client, amount: Any, currency: str, shown: str) -> None:
    made = await client.post(ALL, instruction(amount=amount, currency=currency))
    assert made.status_code == 201, made.text
    assert f'"amount":{shown},' in made.text
    assert f'"amount":{shown},' in (await client.get(ONE)).text


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        ("null", "AMOUNT_IS_REQUIRED"),
        ('""', "AMOUNT_IS_REQUIRED"),
        ('"null"', "AMOUNT_IS_INVALID"),
        ('" 1.00"', "AMOUNT_IS_INVALID"),
        ('"1.00\\n"', "AMOUNT_IS_INVALID"),
        ('"1,00"', "AMOUNT_IS_INVALID"),
        ('"1 000.00"', "AMOUNT_IS_INVALID"),
        ('"1_000"', "AMOUNT_IS_INVALID"),
        ('"+1.00"', "AMOUNT_IS_INVALID"),
        ('"1."', "AMOUNT_IS_INVALID"),
        ('".5"', "AMOUNT_IS_INVALID"),
        ('"1e2"', "AMOUNT_IS_INVALID"),
        ("1e2", "AMOUNT_IS_INVALID"),
        ("1E-2", "AMOUNT_IS_INVALID"),
        ('"NaN"', "AMOUNT_IS_INVALID"),
        ('"Infinity"', "AMOUNT_IS_INVALID"),
        ('"-Infinity"', "AMOUNT_IS_INVALID"),
        ('"0x10"', "AMOUNT_IS_INVALID"),
        ('"\\u0661\\u0662"', "AMOUNT_IS_INVALID"),
        ('"\uff11"', "AMOUNT_IS_INVALID"),
        ("true", "AMOUNT_IS_INVALID"),
        ("[200]", "AMOUNT_IS_INVALID"),
        ('{"value": 200}', "AMOUNT_IS_INVALID"),
        ("1" * 65, "AMOUNT_OUT_OF_RANGE"),
        ("1" * 5000, "AMOUNT_OUT_OF_RANGE"),
        ('"0.' + "1" * 5000 + '"', "AMOUNT_OUT_OF_RANGE"),
        ("0", "AMOUNT_OUT_OF_RANGE"),
        ('"0.00"', "AMOUNT_OUT_OF_RANGE"),
        ('"-0.00"', "AMOUNT_OUT_OF_RANGE"),
        ('"-1.00"', "AMOUNT_OUT_OF_RANGE"),
        ("-1", "AMOUNT_OUT_OF_RANGE"),
        ('"1.001"', "AMOUNT_OUT_OF_RANGE"),
        ('"1.000"', "AMOUNT_OUT_OF_RANGE"),
        (repr(0.1 + 0.2), "AMOUNT_OUT_OF_RANGE"),
        ('"1000000000000.00"', "AMOUNT_OUT_OF_RANGE"),
        ("NaN", "REQUEST_BODY_INVALID"),
        ("Infinity", "REQUEST_BODY_INVALID"),
        ('"\\ud800"', "REQUEST_BODY_INVALID"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_what_is_no_amount(shared: Client, amount: str, code: str) -> None:
    text = json.dumps(instruction(amount="@")).replace('"@"', amount)
    assert refusal(await shared.post(ALL, content=text.encode())) == (400, [code])
    assert codes(await shared.get(ONE)) == ["INSTRUCTION_NOT_FOUND"]


@pytest.mark.parametrize(("amount", "currency"), [("1.5", "JPY"), ("1.00", "JPY"), ("1.2345", "BHD"), ("1.001", "CHF")])
async def test_decimals_that_the_currency_lacks(shared: Client, amount: str, currency: str) -> None:
    answer = await shared.post(ALL, instruction(amount=amount, currency=currency))
    assert refusal(answer) == (400, ["AMOUNT_OUT_OF_RANGE"])


FIELDS = {
    "instructionRef": "INSTRUCTION_REF",
    "customerRef": "CUSTOMER_REF",
    "direction": "DIRECTION",
    "amount": "AMOUNT",
    "currency": "CURRENCY",
    "country": "COUNTRY",
    "settledByDate": "SETTLED_BY_DATE",
}


async def test_all_that_is_required_in_field_order(client: Client) -> None:
    expected = [f"{code}_IS_REQUIRED" for code in FIELDS.values()]
    for body in ({}, dict.fromkeys(FIELDS), dict.fromkeys(FIELDS, "")):
        assert refusal(await client.post(ALL, body)) == (400, expected)
    # An order of fields of one's own changes nothing.
    assert refusal(await client.post(ALL, dict.fromkeys(reversed(FIELDS)))) == (400, expected)


@pytest.mark.parametrize("field", FIELDS)
async def test_each_field_is_required(client: Client, field: str) -> None:
    for empty in (None, ""):
        answer = await client.post(ALL, instruction(**{field: empty}))
        assert refusal(answer) == (400, [f"{FIELDS[field]}_IS_REQUIRED"])
        assert answer.json()["errors"][0]["metadata"]["field"] == field


@pytest.mark.parametrize("field", ["instructionRef", "customerRef"])
@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("a", []),
        ("A-z_0.9", []),
        ("a" * 50, []),
        (".", []),
        ("a" * 51, ["LENGTH_OUT_OF_RANGE"]),
        ("a\n", ["CONTAINS_INVALID_CHARACTERS"]),
        ("\n", ["CONTAINS_INVALID_CHARACTERS"]),
        (" ", ["CONTAINS_INVALID_CHARACTERS"]),
        ("a b", ["CONTAINS_INVALID_CHARACTERS"]),
        ("a/b", ["CONTAINS_INVALID_CHARACTERS"]),
        ("\u0661", ["CONTAINS_INVALID_CHARACTERS"]),
        ("ä", ["CONTAINS_INVALID_CHARACTERS"]),
        ("a\u200b", ["CONTAINS_INVALID_CHARACTERS"]),
        ("ä" * 51, ["LENGTH_OUT_OF_RANGE", "CONTAINS_INVALID_CHARACTERS"]),
        (7, ["CONTAINS_INVALID_CHARACTERS"]),
        ({}, ["CONTAINS_INVALID_CHARACTERS"]),
        (False, ["CONTAINS_INVALID_CHARACTERS"]),
    ],
    ids=lambda value: ascii(value)[:20],
)
async def test_references(shared: Client, field: str, ref: Any, found: list[str]) -> None:
    answer = await shared.post(ALL, instruction(uuid.uuid4().hex) | {field: ref})
    if found:
        assert refusal(answer) == (400, [f"{FIELDS[field]}_{code}" for code in found])
    else:
        assert (answer.status_code, answer.json()[field]) == (201, ref)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("direction", "credit", "DIRECTION_IS_NOT_RECOGNISED"),
        ("direction", "CREDIT ", "DIRECTION_IS_NOT_RECOGNISED"),
        ("direction", ["CREDIT"], "DIRECTION_IS_NOT_RECOGNISED"),
        ("currency", "EU", "CURRENCY_LENGTH_OUT_OF_RANGE"),
        ("currency", "EURO", "CURRENCY_LENGTH_OUT_OF_RANGE"),
        ("currency", "eur", "CURRENCY_NOT_SUPPORTED"),
        ("currency", "XXX", "CURRENCY_NOT_SUPPORTED"),
        ("currency", "XAU", "CURRENCY_NOT_SUPPORTED"),
        ("currency", 978, "CURRENCY_NOT_SUPPORTED"),
        ("country", "DEU", "COUNTRY_LENGTH_OUT_OF_RANGE"),
        ("country", "D", "COUNTRY_LENGTH_OUT_OF_RANGE"),
        ("country", "de", "COUNTRY_NOT_SUPPORTED"),
        ("country", "ZZ", "COUNTRY_NOT_SUPPORTED"),
        ("country", {}, "COUNTRY_NOT_SUPPORTED"),
        ("schemeId", "F" * 32, "SCHEME_ID_NOT_RECOGNISED"),
        ("schemeId", "f" * 32, "SCHEME_ID_NOT_RECOGNISED"),
        ("schemeId", "F" * 31, "SCHEME_ID_NOT_RECOGNISED"),
        ("schemeId", 1, "SCHEME_ID_NOT_RECOGNISED"),
        ("settledByDate", "2026-02-30", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "20261201", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "2026-12-1", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "2026-W49-2", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "01.12.2026", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "2026-12-01T00:00:00Z", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "2026-12-01\n", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "\u0662\u0660\u0662\u0666-12-01", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", "0000-01-01", "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", 1796083200000, "SETTLED_BY_DATE_IS_INVALID"),
        ("settledByDate", [], "SETTLED_BY_DATE_IS_INVALID"),
    ],
    ids=lambda value: ascii(value)[:24],
)
async def test_what_is_not_known(client: Client, field: str, value: Any, code: str) -> None:
    assert refusal(await client.post(ALL, instruction(**{field: value}))) == (400, [code])
    if field != "schemeId":
        assert (await client.post(ALL, instruction())).status_code == 201
        assert refusal(await client.put(ONE, {field: value})) == (400, [code])


async def test_a_scheme_carries_what_its_rules_take(client: Client, platform: Platform) -> None:
    scheme = await make_scheme(
        client, currencies=["EUR"], countries=["DE", "AT"], lowValueInclusive="1.00", highValueInclusive="500.00"
    )
    wrong: tuple[dict[str, Any], ...] = (
        {"direction": "DEBIT"},
        {"currency": "CHF"},
        {"country": "FR"},
        {"amount": "0.99"},
        {"amount": "500.01"},
    )
    for changed in wrong:
        answer = await client.post(ALL, instruction(schemeId=scheme, **changed))
        assert refusal(answer) == (400, ["SCHEME_ID_NOT_SUPPORTED"]), changed
        assert "amount" not in answer.json()["errors"][0]["metadata"]
    for ref, amount in (("low", "1.00"), ("high", "500.00")):
        assert (await client.post(ALL, instruction(ref, schemeId=scheme, amount=amount))).status_code == 201
    stranger = await platform.new_tenant()
    await make_order(stranger)
    assert codes(await stranger.post(ALL, instruction(schemeId=scheme))) == ["SCHEME_ID_NOT_RECOGNISED"]


async def test_an_account_is_the_customers_own(client: Client, platform: Platform) -> None:
    stranger = await platform.new_tenant()
    for account in (
        await make_account(client, "c-2"),
        await make_account(stranger),
        "0" * 8 + "-0000-7000-8000-" + "0" * 12,
    ):
        answer = await client.post(ALL, instruction(financialInstrumentId=account))
        assert refusal(answer) == (400, ["FINANCIAL_INSTRUMENT_NOT_FOUND"])
    assert (await client.post(ALL, instruction(financialInstrumentId="see file"))).status_code == 201


async def test_a_reference_is_used_once_in_an_order(client: Client) -> None:
    assert (await client.post(ALL, instruction())).status_code == 201
    assert refusal(await client.post(ALL, instruction(amount="1.00"))) == (400, ["INSTRUCTION_ALREADY_EXISTS"])
    assert (await client.get(ONE)).json()["amount"] == 200
    await make_order(client, "o-2", instruction())


async def test_a_cancelled_ones_reference_is_not_used_again(client: Client) -> None:
    scheme, account = await make_scheme(client), await make_account(client)
    await client.post(ALL, instruction(schemeId=scheme, financialInstrumentId=account))
    cancelled = await client.post(f"{ONE}/cancel", {"reason": "paid by hand"})
    assert cancelled.status_code == 200
    body = cancelled.json()
    assert body["status"] == "CANCELLED"
    assert body["forecastedSettlementDate"] is None
    assert body["scheme"]["canUpdate"] is body["financialInstrument"]["canUpdate"] is False
    assert (await client.get(ONE)).json() == body
    assert refusal(await client.post(ALL, instruction())) == (400, ["INSTRUCTION_CANCELLED"])
    assert refusal(await client.put(ONE, {"amount": "1.00"})) == (400, ["INSTRUCTION_CANCELLED"])
    assert refusal(await client.post(f"{ONE}/cancel", {"reason": ""})) == (400, ["INSTRUCTION_CANCELLED"])
    assert (await client.get(ONE)).json() == body


@pytest.mark.parametrize("content", [b"", b"  ", b"{}", b'{"reason": null}', b'{"reason": ""}'])
async def test_cancelling_needs_no_reason(client: Client, content: bytes) -> None:
    await client.post(ALL, instruction())
    assert (await client.post(f"{ONE}/cancel", content=content)).json()["status"] == "CANCELLED"


async def test_a_reason_is_short_and_text(client: Client) -> None:
    await client.post(ALL, instruction())
    for reason in ("x" * 501, 7):
        answer = await client.post(f"{ONE}/cancel", {"reason": reason})
        assert refusal(answer) == (400, ["REASON_LENGTH_OUT_OF_RANGE"])
    assert (await client.get(ONE)).json()["status"] == "INCOMPLETE"


async def test_a_change_leaves_what_it_does_not_name(client: Client) -> None:
    scheme, account = await make_scheme(client), await make_account(client)
    before = (await client.post(ALL, instruction(metadata={"a": "1"}))).json()
    for sent, changed in (
        ({}, {}),
        ({"amount": "7.5"}, {"amount": 7.5}),
        ({"amount": None, "country": "AT"}, {"country": "AT"}),
        ({"settledByDate": "2031-01-02"}, {"settledByDate": "2031-01-02", "forecastedSettlementDate": "2031-01-02"}),
        ({"metadata": {"b": "2", "c": None}}, {"metadata": {"b": "2"}}),
        ({"currency": "CHF"}, {"currency": "CHF"}),
        ({"direction": "DEBIT"}, {"direction": "DEBIT"}),
        ({"direction": "CREDIT"}, {"direction": "CREDIT"}),
        ({"schemeId": scheme}, {"scheme": {"schemeId": scheme, "source": "MANUALLY_SET", "canUpdate": True}}),
        ({"schemeId": ""}, {}),
        ({"instructionRef": "other", "unknown": 1}, {}),
    ):
        answer = await client.put(ONE, sent)
        assert answer.status_code == 200, answer.text
        after = answer.json()
        assert after["lastUpdated"] >= before["lastUpdated"]
        assert after == {**before, **changed, "lastUpdated": after["lastUpdated"]}, sent
        assert (await client.get(ONE)).json() == after
        before = after
    assert (await client.put(ONE, {"financialInstrumentId": account})).json()["status"] == "READY"


async def test_a_change_is_checked_as_a_whole(client: Client) -> None:
    scheme = await make_scheme(client, currencies=["EUR"], highValueInclusive="500.00")
    account = await make_account(client)
    await client.post(ALL, instruction(schemeId=scheme, financialInstrumentId=account))
    before = (await client.get(ONE)).json()
    for sent, expected in (
        ({"amount": "500.01"}, ["SCHEME_ID_NOT_SUPPORTED"]),
        ({"currency": "CHF"}, ["SCHEME_ID_NOT_SUPPORTED"]),
        ({"currency": "JPY"}, ["AMOUNT_OUT_OF_RANGE"]),
        ({"amount": "1.001"}, ["AMOUNT_OUT_OF_RANGE"]),
        ({"amount": "0"}, ["AMOUNT_OUT_OF_RANGE"]),
        ({"customerRef": "c-2"}, ["FINANCIAL_INSTRUMENT_NOT_FOUND"]),
        ({"customerRef": "a b", "direction": "x", "amount": "y"}, [
            "CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS", "DIRECTION_IS_NOT_RECOGNISED", "AMOUNT_IS_INVALID",
        ]),
        ({"schemeId": "0" * 32}, ["SCHEME_ID_NOT_RECOGNISED"]),
    ):  # fmt: skip
        assert refusal(await client.put(ONE, sent)) == (400, expected), sent
        assert (await client.get(ONE)).json() == before
    assert (await client.put(ONE, {"amount": "500", "direction": "CREDIT"})).json()["status"] == "READY"


async def test_once_its_money_is_asked_for_it_stays(client: Client, app: App) -> None:
    scheme, account = await make_scheme(client), await make_account(client)
    await client.post(ALL, instruction(schemeId=scheme, financialInstrumentId=account))
    world = World.of(app, client)
    for status in ("PROCESSING", "UNCONFIRMED", "COMPLETED", "FAILED"):
        async with world.operation() as op:
            await op.run("update instructions set status = %s where tenant_id = %s", status, op.tenant)
        before = (await client.get(ONE)).json()
        assert (before["status"], before["scheme"]["canUpdate"]) == (status, False)
        for answer in (await client.put(ONE, {"amount": "1.00"}), await client.post(f"{ONE}/cancel", {})):
            assert refusal(answer) == (400, ["INSTRUCTION_NOT_UPDATABLE"])
            assert answer.json()["errors"][0]["metadata"]["status"] == status
        assert (await client.get(ONE)).json() == before


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    for method, path, body in (("GET", ONE, None), ("PUT", ONE, {}), ("POST", f"{ONE}/cancel", {})):
        assert refusal(await client.request(method, path, json=body)) == (400, ["INSTRUCTION_NOT_FOUND"])
    for ref, code in (
        ("a%20b", "INSTRUCTION_REF_CONTAINS_INVALID_CHARACTERS"),
        ("a%0A", "INSTRUCTION_REF_CONTAINS_INVALID_CHARACTERS"),
        ("a" * 51, "INSTRUCTION_REF_LENGTH_OUT_OF_RANGE"),
    ):
        for method, path, body in (("GET", "", None), ("PUT", "", {}), ("POST", "/cancel", {})):
            assert refusal(await client.request(method, f"{ALL}/{ref}{path}", json=body)) == (400, [code])


async def test_what_happens_is_recorded(client: Client, app: App) -> None:
    await client.post(ALL, instruction())
    await client.put(ONE, {"amount": "1.00"})
    await client.post(f"{ONE}/cancel", {"reason": "of no more use"})
    await client.post(f"{ONE}/cancel", {"reason": "again"})
    world = World.of(app, client)
    made, changed, cancelled = await world.actions("instruction.")
    assert [made[0], changed[0], cancelled[0]] == ["instruction.create", "instruction.change", "instruction.cancel"]
    assert made[1] == changed[1] == cancelled[1]
    [refused] = await world.actions("POST /v1/order-management/{orderRef}/instruction/{instructionRef}/cancel")
    assert refused[2] == "INSTRUCTION_CANCELLED"
    async with world.operation() as op:
        events = await op.rows("select status, reason from instruction_events where tenant_id = %s", op.tenant)
    assert [tuple(row) for row in events] == [("CANCELLED", "cancelled by request")]
