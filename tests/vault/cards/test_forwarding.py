"""Forwarding: sent once, recorded before and after, never guessed, and nothing of the number comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from strongroom.kernel.errors import Broken, Conflict, InFlight, Invalid, KeyReused, NotFound, Refused
from strongroom.outbound import Destination
from strongroom.vault.cards.forwarding import CLAIM, KEPT_FOR, MAX_TEMPLATE, Forward, read_egress
from tests.vault.cards.conftest import BY, Vault
from tests.vault.cards.numbers import VISA, card
from tests.vault.cards.provider import Received, answer

BODY = '{"number":"{{number}}","until":"{{expiry_month}}/{{expiry_year}}","name":"{{holder}}"}'
WITH_CODE = '{"number":"{{number}}","code":"{{cvv}}"}'


def wanted(vault: Vault, token: str, **changed: Any) -> Forward:
    request = Forward(
        reference="r-1", token=token, method="POST", url=f"{vault.bank.url}/charges",
        headers={"authorization": "Bearer provider-secret"}, content_type="application/json", body=BODY,
    )  # fmt: skip
    return dataclasses.replace(request, **changed)


async def take(vault: Vault, **changed: object) -> str:
    return (await vault.custody.take(vault.tenant, card(**changed), BY)).token


async def test_the_provider_gets_the_number_and_we_the_answer(vault: Vault) -> None:
    token = await take(vault)
    result = await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    assert (result.state, result.status) == ("ANSWERED", 200)
    assert result.answer is not None
    assert result.answer.body == b'{"result":"approved"}'
    [received] = vault.bank.received
    assert received.line == "POST /charges HTTP/1.1"
    assert received.headers["authorization"] == "Bearer provider-secret"
    assert json.loads(received.body) == {"number": VISA, "until": "12/2031", "name": "Erika Mustermann"}
    host = f"127.0.0.1:{vault.bank.port}"
    assert await vault.events() == [
        ("card.take", "done", ""), ("card.open", "done", f"forward to {host}"), ("card.forward", "done", f"{host} 200"),
    ]  # fmt: skip


async def test_the_same_reference_sends_nothing_again(vault: Vault) -> None:
    token = await take(vault)
    first = await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    again = await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    found = await vault.forwarder.find(vault.tenant, "r-1")
    assert again == found == dataclasses.replace(first, is_replay=True)
    assert len(vault.bank.received) == 1
    for changed in ({"body": WITH_CODE}, {"url": f"{vault.bank.url}/refunds"}, {"headers": {}}, {"method": "PUT"}):
        with pytest.raises(KeyReused):
            await vault.forwarder.forward(vault.tenant, wanted(vault, token, **changed), BY)


async def test_of_many_at_once_one_is_sent(vault: Vault) -> None:
    token = await take(vault)

    async def slow(request: Received) -> bytes:
        await asyncio.sleep(0.3)
        return answer(b"{}")

    vault.bank.answer = slow
    tries = [vault.forwarder.forward(vault.tenant, wanted(vault, token), BY) for _ in range(5)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert len(vault.bank.received) == 1
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, InFlight) for result in results if isinstance(result, BaseException))


async def test_no_answer_is_unconfirmed_and_stays_so(vault: Vault) -> None:
    async def silent(request: Received) -> bytes:
        await asyncio.sleep(5)
        return b""

    vault.bank.answer = silent
    token = await take(vault)
    result = await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    assert (result.state, result.code) == ("UNCONFIRMED", "OUTBOUND_ANSWER_LATE")
    again = await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    assert (again.state, again.code, len(vault.bank.received)) == ("UNCONFIRMED", "OUTBOUND_ANSWER_LATE", 1)
    assert (await vault.events())[-1][1] == "unknown"


async def test_what_certainly_did_not_leave_may_be_sent_again(vault: Vault) -> None:
    token = await take(vault)
    dead = wanted(vault, token, url="https://127.0.0.1:1/charges")
    for _ in range(2):
        result = await vault.forwarder.forward(vault.tenant, dead, BY)
        assert (result.state, result.code) == ("NOT_SENT", "OUTBOUND_NOT_CONNECTED")
    assert [event[:2] for event in await vault.events()].count(("card.forward", "refused")) == 2


async def test_a_vault_that_died_in_the_middle_leaves_it_unconfirmed(vault: Vault) -> None:
    token = await take(vault)
    request = wanted(vault, token)

    sent = asyncio.Event()

    async def never(received: Received) -> bytes:
        sent.set()
        await asyncio.sleep(60)
        return b""

    vault.bank.answer = never
    dying = asyncio.create_task(vault.forwarder.forward(vault.tenant, request, BY))
    await sent.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    with pytest.raises(InFlight):
        await vault.forwarder.find(vault.tenant, "r-1")
    with pytest.raises(InFlight):
        await vault.forwarder.forward(vault.tenant, request, BY)
    vault.clock.advance(CLAIM)
    for result in (
        await vault.forwarder.find(vault.tenant, "r-1"),
        await vault.forwarder.forward(vault.tenant, request, BY),
    ):
        assert (result.state, result.code) == ("UNCONFIRMED", "FORWARD_INTERRUPTED")
    assert len(vault.bank.received) == 1


async def test_the_security_code_goes_out_once(vault: Vault) -> None:
    token = await take(vault)
    await vault.forwarder.forward(vault.tenant, wanted(vault, token, body=WITH_CODE), BY)
    assert json.loads(vault.bank.received[0].body) == {"number": VISA, "code": "123"}
    with pytest.raises(Conflict) as refused:
        await vault.forwarder.forward(vault.tenant, wanted(vault, token, body=WITH_CODE, reference="r-2"), BY)
    assert refused.value.code == "CVV_NOT_AVAILABLE"
    assert len(vault.bank.received) == 1
    # What needs no code goes on.
    assert (await vault.forwarder.forward(vault.tenant, wanted(vault, token, reference="r-3"), BY)).state == "ANSWERED"


async def test_of_two_at_once_with_the_code_one_is_sent(vault: Vault) -> None:
    token = await take(vault)
    results = await asyncio.gather(
        *(
            vault.forwarder.forward(vault.tenant, wanted(vault, token, body=WITH_CODE, reference=f"r-{n}"), BY)
            for n in range(4)
        ),
        return_exceptions=True,
    )
    sent = [result for result in results if not isinstance(result, BaseException) and result.state == "ANSWERED"]
    assert (len(sent), len(vault.bank.received)) == (1, 1)
    for result in results:
        if isinstance(result, BaseException):
            assert isinstance(result, Conflict)
        elif result.state != "ANSWERED":
            assert (result.state, result.code) == ("NOT_SENT", "CVV_NOT_AVAILABLE")


async def test_the_number_doesn_t_come_back(vault: Vault) -> None:
    async def echo(request: Received) -> bytes:
        return answer(request.body, location=f"/cards/{VISA}", x_request_id="4111-1111-1111-1111", set_cookie=VISA)

    vault.bank.answer = echo
    token = await take(vault)
    result = await vault.forwarder.forward(vault.tenant, wanted(vault, token, body=WITH_CODE), BY)
    assert result.answer is not None
    assert result.answer.body == b'{"number":"41111111****1111","code":"123"}'
    assert result.answer.headers["location"] == "/cards/41111111****1111"
    assert result.answer.headers["x-request-id"] == "41111111****1111"
    assert "set-cookie" not in result.answer.headers


@pytest.mark.parametrize(
    "said",
    [
        answer(VISA[::-1].encode()),
        answer(VISA.encode().hex().encode()),
        answer(b"\x1f\x8b\x08", content_encoding="gzip"),
    ],
)
async def test_what_can_t_be_scrubbed_is_withheld(vault: Vault, said: bytes) -> None:
    async def say(request: Received) -> bytes:
        return said

    vault.bank.answer = say
    result = await vault.forwarder.forward(vault.tenant, wanted(vault, await take(vault)), BY)
    assert result.state == "ANSWERED"
    assert result.answer is not None
    assert (result.answer.withheld, result.answer.body) == (True, b"")


async def test_an_answer_that_is_too_large_is_unconfirmed(vault: Vault) -> None:
    async def much(request: Received) -> bytes:
        return answer(b"x" * 20_000)

    vault.bank.answer = much
    result = await vault.forwarder.forward(vault.tenant, wanted(vault, await take(vault)), BY)
    assert (result.state, result.code) == ("UNCONFIRMED", "OUTBOUND_ANSWER_TOO_LARGE")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/charges", "http://127.0.0.1:{port}/charges", "https://127.0.0.1/charges",
        "https://user:pass@127.0.0.1:{port}/charges", "https://127.0.0.1:{port}@example.org/", "//", "https://[::1",
    ],
)  # fmt: skip
async def test_only_listed_destinations_are_sent_to(vault: Vault, url: str) -> None:
    token = await take(vault)
    with pytest.raises(Refused) as refused:
        await vault.forwarder.forward(vault.tenant, wanted(vault, token, url=url.format(port=vault.bank.port)), BY)
    assert refused.value.code == "DESTINATION_NOT_ALLOWED"
    assert [event[0] for event in await vault.events()] == ["card.take"]


async def test_everything_that_is_wrong_with_a_request_is_told_in_field_order(vault: Vault) -> None:
    request = wanted(
        vault, "card_x", reference="a b", method="GET", url="https://127.0.0.1/{{number}}",
        headers={"x": "{{number}}"}, body="{}",
    )  # fmt: skip
    with pytest.raises(Invalid) as refused:
        await vault.forwarder.forward(vault.tenant, request, BY)
    assert [failure.code for failure in refused.value.failures] == [
        "FORWARD_REFERENCE_IS_INVALID", "FORWARD_METHOD_NOT_SUPPORTED", "TEMPLATE_PLACEHOLDER_MISPLACED",
        "FORWARD_HEADERS_INVALID", "TEMPLATE_WITHOUT_PLACEHOLDER",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "elsewhere"}, {"Content-Type": "text/plain"}, {"content-length": "1"}, {"x": "a\r\nb: c"},
        {"x y": "1"}, {"x": "ö"}, {"x": "a" * 5000}, {f"x{n}": "1" for n in range(31)},
    ],
)  # fmt: skip
async def test_headers_that_may_not_be_sent(vault: Vault, headers: dict[str, str]) -> None:
    with pytest.raises(Invalid) as refused:
        await vault.forwarder.forward(vault.tenant, wanted(vault, "card_x", headers=headers), BY)
    assert refused.value.code == "FORWARD_HEADERS_INVALID"


async def test_a_template_has_a_limit(vault: Vault) -> None:
    body = '{"a":"{{number}}' + "x" * MAX_TEMPLATE + '"}'
    with pytest.raises(Invalid) as refused:
        await vault.forwarder.forward(vault.tenant, wanted(vault, "card_x", body=body), BY)
    assert refused.value.code == "TEMPLATE_TOO_LARGE"


async def test_unknown_cards_and_references(vault: Vault) -> None:
    with pytest.raises(NotFound) as refused:
        await vault.forwarder.forward(vault.tenant, wanted(vault, "card_x"), BY)
    assert refused.value.code == "CARD_NOT_FOUND"
    with pytest.raises(NotFound) as refused:
        await vault.forwarder.find(vault.tenant, "r-1")
    assert refused.value.code == "FORWARD_NOT_FOUND"


async def test_answers_are_forgotten_after_their_time(vault: Vault) -> None:
    token = await take(vault)
    await vault.forwarder.forward(vault.tenant, wanted(vault, token), BY)
    await vault.rows("update forwards set created_at = created_at - %s where tenant_id = %s", KEPT_FOR, vault.tenant)
    vault.clock.advance(CLAIM)
    await vault.forwarder.forward(vault.tenant, wanted(vault, token, reference="r-2"), BY)
    assert len(await vault.rows("select 1 from forwards where tenant_id = %s", vault.tenant)) == 1


async def test_references_and_answers_are_kept_sealed(vault: Vault) -> None:
    async def said(request: Received) -> bytes:
        return answer(b'{"canary":"canary-answer"}')

    vault.bank.answer = said
    await vault.forwarder.forward(vault.tenant, wanted(vault, await take(vault), reference="canary-reference"), BY)
    row = str(await vault.rows("select t::text from forwards t where tenant_id = %s", vault.tenant))
    for canary in ("canary-reference", "canary-answer", "provider-secret"):
        assert canary not in row
        assert canary.encode().hex() not in row


def test_the_list_of_destinations(tmp_path: Path) -> None:
    path = tmp_path / "egress.toml"
    assert read_egress(path, loopback_ok=True) == {}
    path.write_text(
        '[[destination]]\nhost = "api.example.org"\n[[destination]]\nhost = "127.0.0.1"\nport = 9\ntrust = "ca.pem"'
    )
    assert read_egress(path, loopback_ok=True) == {
        Destination(host="api.example.org"): None,
        Destination(host="127.0.0.1", port=9, loopback_ok=True): tmp_path / "ca.pem",
    }


@pytest.mark.parametrize(
    "text",
    ["destination = 1", "[[destination]]", '[[destination]]\nhost = "*.example.org/"', "not toml",
     '[[destination]]\nhost = "127.0.0.1"', '[[destination]]\nhost = "a.test"\ntypo = 1'],
)  # fmt: skip
def test_a_list_that_can_t_be_read_stops_the_vault(tmp_path: Path, text: str) -> None:
    (tmp_path / "egress.toml").write_text(text)
    with pytest.raises(Broken) as refused:
        read_egress(tmp_path / "egress.toml", loopback_ok=False)
    assert refused.value.code == "EGRESS_FILE_INVALID"


async def test_a_request_does_not_print_its_body(vault: Vault) -> None:
    assert "{{number}}" not in repr(wanted(vault, "card_x"))
