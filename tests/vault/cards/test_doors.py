"""The two doors, over TLS: who is let in, what they may ask, and how often; and the platform's routes beside them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from joserfc.jwk import RSAKey

from strongroom.assembly import Installation
from strongroom.cli.supervisor import choose_port
from strongroom.cli.workbenches import listening
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Forbidden, Refused, Unavailable
from strongroom.outbound import Destination, Outbound
from strongroom.vault.card_client import ForwardRequest
from strongroom.vault.card_operator import CardOperator
from strongroom.vault.cards.codes import SecurityCodes
from strongroom.vault.cards.custody import Custody
from strongroom.vault.cards.doors import MAX_CARD_BODY, InnerDoor, PublicDoor, Rights
from strongroom.vault.cards.forwarding import Egress, Forwarder
from strongroom.vault.cards.keys import CardKeys
from strongroom.vault.cards.listening import Listener, Request, Response, bind, server_context
from strongroom.vault.cards.operating import Operating
from strongroom.vault.cards.records import Records
from strongroom.vault.cards.rotation import Rotation
from strongroom.vault.cards.transfers import Transfers
from tests.certificates import Authority
from tests.fixtures.platform import Client, Platform
from tests.vault.cards.conftest import holder
from tests.vault.cards.numbers import VISA, card
from tests.vault.cards.provider import Provider, provider

BASE = "/v1/customer-vault/c-1"
HERE = "127.0.0.1"


class Seconds:
    """Time for the limits: so fast that nothing is ever too often, until it is stopped."""

    now = 0.0
    step = 10_000.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@dataclass(kw_only=True)
class House:
    """The API and a card vault beside it, served by this process."""

    platform: Platform
    http: httpx.AsyncClient
    installation: Installation
    bank: Provider
    seconds: Seconds
    custody: Custody
    url: str

    async def take(
        self, authorization: str, *, headers: dict[str, str] | None = None, **changed: Any
    ) -> httpx.Response:
        return await self.http.post(
            f"{self.url}/v1/cards", json=card(**changed), headers={"authorization": authorization, **(headers or {})}
        )

    async def session(self, client: Client, base: str = BASE) -> str:
        opened = await client.post(f"{base}/card-session")
        assert opened.status_code == 201, opened.text
        assert opened.json()["url"] == f"{self.url}/v1/cards"
        return f"Session {opened.json()['sessionToken']}"

    async def add_card(self, client: Client, base: str = BASE) -> dict[str, Any]:
        taken = await self.take(await self.session(client, base))
        added = await client.post(f"{base}/financial-instrument", {"type": "CARD", "cardToken": taken.json()["token"]})
        assert added.status_code == 202, added.text
        return dict(added.json())


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


@pytest.fixture(scope="module")
async def house(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder: Path = tmp_path_factory.mktemp("bank")
    ports = {name: choose_port(HERE, 0) for name in ("port", "cards_port", "cards_inner_port")}
    here = Installation(dataclasses.replace(installation.config, **ports))
    app = here.app(connections=4)
    await app.open()
    records = Records(here.cards_database_url)
    await records.open()
    held = holder(folder)
    custody = Custody(records, CardKeys(held, Environment.SANDBOX), SecurityCodes(), SystemClock())
    certificate, inner_certificate, authority = here.certificate(), here.cards_certificate(), Authority(folder)
    seconds = Seconds()
    async with (
        listening(app.surface, ports["port"], certificate),
        provider(authority.issue(HERE)) as bank,
        Outbound(
            allowed=[Destination(host=HERE, port=ports["port"], loopback_ok=True)], trust=here.ca_file
        ) as outbound,
        httpx.AsyncClient(verify=ssl.create_default_context(cafile=here.ca_file), timeout=30) as http,
    ):
        egress = Egress({Destination(host=HERE, port=bank.port, loopback_ok=True): authority.ca})
        transfers = Transfers(custody, RSAKey.generate_key(2048))
        public = PublicDoor(custody, transfers, Rights(outbound, f"https://{HERE}:{ports['port']}"), seconds)
        operating = Operating(custody, Rotation(custody, held), held, is_locked=False)
        inner = InnerDoor(custody, Forwarder(custody, egress), operating.routes)
        doors = [Listener(public.handle, public.max_body), Listener(inner.handle, inner.max_body)]
        await doors[0].start(bind(HERE, ports["cards_port"]), server_context(certificate.chain, certificate.key))
        context = server_context(inner_certificate.chain, inner_certificate.key, here.authority.certificate)
        await doors[1].start(bind(HERE, ports["cards_inner_port"]), context)
        platform = Platform(app)
        async with platform.http:
            yield House(
                platform=platform, http=http, installation=here, bank=bank, seconds=seconds, custody=custody,
                url=f"https://{HERE}:{ports['cards_port']}",
            )  # fmt: skip
        for door in doors:
            await door.stop()
        await egress.aclose()
    await records.close()
    await app.close()


@pytest.fixture
async def tenant(house: House) -> Client:
    return await house.platform.new_tenant()


async def test_a_form_s_card_becomes_a_customer_s_instrument(house: House, tenant: Client) -> None:
    taken = await house.take(await house.session(tenant))
    assert taken.status_code == 201
    told = taken.json()
    assert list(told) == [
        "token", "brand", "maskedNumber", "firstDigits", "lastDigits", "expiryMonth", "expiryYear", "fingerprint",
        "createdTimestamp",
    ]  # fmt: skip
    added = await tenant.post(f"{BASE}/financial-instrument", {"type": "CARD", "cardToken": told["token"]})
    assert added.status_code == 202
    assert (added.json()["type"], added.json()["displayName"]) == ("CARD", "VISA 41111111****1111")
    assert added.json()["details"] == {
        "token": told["token"], "brand": "VISA", "maskedNumber": "41111111****1111", "expiry": "2031-12",
        "fingerprint": told["fingerprint"],
    }  # fmt: skip
    again = await tenant.post(f"{BASE}/financial-instrument", {"type": "CARD", "cardToken": told["token"]})
    assert (again.status_code, again.json()["id"]) == (200, added.json()["id"])
    assert VISA not in taken.text + added.text


async def test_a_card_can_t_be_paid_with_yet_and_says_so(house: House, tenant: Client) -> None:
    added = await house.add_card(tenant)
    assert added["capabilities"] == {
        "valueType": "VARIABLE", "usageType": "MULTIPLE", "canCredit": False, "canDebit": False,
    }  # fmt: skip
    order = {
        "orderRef": "o-1",
        "instructions": [
            {
                "instructionRef": "i-1", "customerRef": "c-1", "direction": "DEBIT", "amount": "1.00",
                "currency": "EUR", "country": "DE", "settledByDate": "2030-01-01", "financialInstrumentId": added["id"],
            }
        ],
    }  # fmt: skip
    answer = await tenant.post("/v1/order-management", order)
    assert (answer.status_code, codes(answer)) == (400, ["FINANCIAL_INSTRUMENT_NOT_SUPPORTED"])


async def test_a_card_of_another_customer_or_tenant_is_refused(house: House, tenant: Client) -> None:
    token = (await house.take(await house.session(tenant))).json()["token"]
    other = "/v1/customer-vault/c-2/financial-instrument"
    answer = await tenant.post(other, {"type": "CARD", "cardToken": token})
    assert (answer.status_code, codes(answer)) == (400, ["CARD_OF_OTHER_CUSTOMER"])
    stranger = await house.platform.new_tenant()
    answer = await stranger.post(f"{BASE}/financial-instrument", {"type": "CARD", "cardToken": token})
    assert (answer.status_code, codes(answer)) == (400, ["CARD_NOT_FOUND"])


@pytest.mark.parametrize(
    ("token", "code"),
    [(None, "CARD_TOKEN_IS_REQUIRED"), (VISA, "CARD_TOKEN_IS_INVALID"), ("card_../x", "CARD_TOKEN_IS_INVALID")],
)
async def test_the_platform_takes_tokens_and_never_numbers(tenant: Client, token: object, code: str) -> None:
    answer = await tenant.post(f"{BASE}/financial-instrument", {"type": "CARD", "cardToken": token})
    assert (answer.status_code, codes(answer)) == (400, [code])
    assert VISA not in answer.text


async def test_forgetting_a_customer_forgets_their_cards(house: House, tenant: Client) -> None:
    token = (await house.add_card(tenant))["details"]["token"]
    for _ in range(2):
        assert (await tenant.delete(BASE)).status_code == 202
    vault = house.platform.app.card_vault("prove")
    with pytest.raises(Refused) as refused:
        await vault.describe(UUID(tenant.tenant_id), token)
    assert refused.value.code == "CARD_NOT_FOUND"


async def test_an_access_token_with_the_right_takes_a_card(house: House, tenant: Client) -> None:
    writer, reader = await tenant.new_key("tenant-card-write"), await tenant.new_key("tenant-transaction-write")
    for client in (writer, reader):
        await client.sign_in()
    taken = await house.take(f"Bearer {writer.token}", headers=writer.headers)
    assert taken.status_code == 201
    refused = await house.take(f"Bearer {reader.token}", headers=reader.headers)
    assert (refused.status_code, codes(refused)) == (403, ["FORBIDDEN"])
    nameless = await house.take(f"Bearer {writer.token}")
    assert (nameless.status_code, codes(nameless)) == (400, ["ACCOUNT_ID_IS_REQUIRED", "TENANT_ID_IS_REQUIRED"])
    assert (await tenant.delete(f"/v1/tenant/keys/{writer.public_key}")).status_code == 204
    revoked = await house.take(f"Bearer {writer.token}", headers=writer.headers)
    assert (revoked.status_code, codes(revoked)) == (401, ["TOKEN_REVOKED"])


@pytest.mark.parametrize("authorization", ["", "Session", "Session x", "Bearer x.y.z", "Basic eDp5", "Hmac a:b:c:d"])
async def test_nobody_else_gets_in(house: House, authorization: str) -> None:
    answer = await house.take(authorization)
    assert answer.status_code == 401
    assert codes(answer)[0] in {"CARD_SESSION_INVALID", "TOKEN_INVALID", "CARD_CREDENTIAL_REQUIRED"}


async def test_all_that_is_wrong_is_told_and_nothing_of_what_was_sent(house: House, tenant: Client) -> None:
    answer = await house.take(await house.session(tenant), number="4111111111111112", expiryMonth=13, cvv="99999")
    assert answer.status_code == 400
    assert codes(answer) == ["CARD_NUMBER_INVALID", "EXPIRY_MONTH_IS_INVALID", "CVV_INVALID"]
    assert not {"4111111111111112", "99999"} & set(answer.text.replace('"', " ").split())
    body = answer.json()
    assert set(body) == {"timestamp", "correlationId", "errors"}
    assert set(body["errors"][0]) == {"errorCode", "message", "messageTemplate", "metadata"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"number":' * 400])
async def test_a_body_that_is_no_object(house: House, tenant: Client, content: bytes) -> None:
    headers = {"authorization": await house.session(tenant)}
    answer = await house.http.post(f"{house.url}/v1/cards", content=content, headers=headers)
    assert (answer.status_code, codes(answer)) == (400, ["REQUEST_BODY_INVALID"])


async def test_a_form_on_any_page_may_ask(house: House) -> None:
    asked = await house.http.options(f"{house.url}/v1/cards", headers={"origin": "https://shop.test"})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
    assert "access-control-allow-credentials" not in asked.headers
    assert "max-age=" in asked.headers["strict-transport-security"]


async def test_paths_and_methods(house: House) -> None:
    assert (await house.http.get(f"{house.url}/health")).json() == {"status": "ok"}
    for path in ("/", "/v1/tenants/x/sessions", "/v1/cards/card_x"):
        assert (await house.http.get(house.url + path)).status_code == 404
    assert (await house.http.get(f"{house.url}/v1/cards")).status_code == 405


async def test_too_large_slow_and_senseless_requests_are_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.vault.cards.listening.REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr("strongroom.vault.cards.listening.IDLE_TIMEOUT_S", 0.5)
    address = (HERE, house.installation.config.cards_port)

    async def says(sent: bytes) -> bytes:
        context = ssl.create_default_context(cafile=house.installation.ca_file)
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=HERE)
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.read(1 << 16)
        writer.close()
        return answer.split(b"\r\n")[0]

    head = b"POST /v1/cards HTTP/1.1\r\nhost: x\r\ncontent-length: "
    assert await says(head + b"9000\r\n\r\n" + b"x" * (MAX_CARD_BODY + 1)) == b"HTTP/1.1 413 "
    assert await says(b"nonsense\r\n\r\n") == b"HTTP/1.1 400 "
    assert await says(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000) == b"HTTP/1.1 431 "
    assert await says(head + b"100\r\n\r\nslow") == b""
    assert await says(b"GET / HT") == b""
    with socket.create_connection(address, timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        plain.settimeout(5)
        told = await asyncio.to_thread(_all_of, plain)
    assert b"HTTP" not in told


def _all_of(plain: socket.socket) -> bytes:
    try:
        return plain.recv(4096)
    except OSError:
        return b""


async def test_trying_out_numbers_is_stopped(house: House, tenant: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [await house.session(tenant) for _ in range(4)]
    monkeypatch.setattr(house.seconds, "step", 0.0)
    house.seconds.now += 10_000
    refused = [await house.take(sessions[n // 4], number="4111111111111112") for n in range(12)]
    assert [answer.status_code for answer in refused] == [400] * 10 + [429] * 2
    assert codes(refused[-1]) == ["TOO_MANY_INVALID_CARDS"]
    assert "retry-after" in refused[-1].headers
    # Not even a good one is taken then; a minute later it is.
    assert (await house.take(sessions[3])).status_code == 429
    house.seconds.now += 61
    assert (await house.take(sessions[3])).status_code == 201


async def test_a_flood_is_stopped(house: House, monkeypatch: pytest.MonkeyPatch, tenant: Client) -> None:
    authorization = await house.session(tenant)
    monkeypatch.setattr(house.seconds, "step", 0.0)
    house.seconds.now += 10_000
    monkeypatch.setattr("strongroom.vault.cards.doors.network_of", lambda address: "flood")
    answers = await asyncio.gather(*(house.http.get(f"{house.url}/v1/transfers/{n}") for n in range(40)))
    assert {answer.status_code for answer in answers} == {401, 429}
    assert sum(answer.status_code == 401 for answer in answers) == 30
    assert (await house.take(authorization)).status_code == 429


async def test_only_our_processes_come_in_by_the_inner_door(house: House, tenant: Client) -> None:
    app, nobody = house.platform.app, UUID(tenant.tenant_id)
    port = house.installation.config.cards_inner_port
    url = f"https://{HERE}:{port}/v1/tenants/{nobody}/cards/card_x"
    trust = ssl.create_default_context(cafile=house.installation.ca_file)
    own = house.installation.certificate()
    wrong_use = ssl.create_default_context(cafile=house.installation.ca_file)
    wrong_use.load_cert_chain(own.chain, own.key)
    for context in (trust, wrong_use):
        context.check_hostname = False
        async with httpx.AsyncClient(verify=context) as http:
            with pytest.raises(httpx.TransportError):
                await http.get(url)
    with pytest.raises(Forbidden) as refused:
        await app.card_vault("worker").open_session(nobody, "")
    assert refused.value.code == "PROCESS_NOT_ALLOWED"
    request = ForwardRequest(
        reference="r", token="card_x", method="POST", url=house.bank.url, content_type="application/json", body="{}"
    )
    with pytest.raises(Forbidden):
        await app.card_vault("api").forward(nobody, request)
    with pytest.raises(Forbidden):
        await app.card_vault("stranger").describe(nobody, "card_x")


async def test_only_the_operator_looks_after_keys(house: House, tenant: Client) -> None:
    tenant_id = UUID(tenant.tenant_id)
    await house.take(await house.session(tenant))
    for process in ("api", "worker", "prove", "operators"):
        other = CardOperator(house.platform.app.card_vault(process), "anna")
        for asking in (other.keys(tenant_id), other.cards(tenant_id), other.rotate_root(), other.end_root(1)):
            with pytest.raises(Forbidden) as refused:
                await asking
            assert refused.value.code == "PROCESS_NOT_ALLOWED"
    operator = CardOperator(house.platform.app.card_vault("operator"), "anna")
    assert {key.state for key in (await operator.keys(tenant_id)).keys} == {"ACTIVE"}
    nobody = CardOperator(house.platform.app.card_vault("operator"), "no name at all")
    with pytest.raises(Refused) as refused_name:
        await nobody.begin(tenant_id, "seal")
    assert refused_name.value.code == "FIELD_IS_INVALID"


async def test_no_other_process_passes_for_the_vault(house: House) -> None:
    port = choose_port(HERE, 0)
    reached: list[Request] = []

    async def posing(request: Request) -> Response:
        reached.append(request)
        return Response(status=200, content=b"{}")

    here = Installation(dataclasses.replace(house.installation.config, cards_inner_port=port))
    certificate = here.certificate()
    poser = Listener(posing, lambda path: len(path) + 9_000)
    await poser.start(bind(HERE, port), server_context(certificate.chain, certificate.key, here.authority.certificate))
    vault = here.card_vault("api")
    try:
        with pytest.raises(Unavailable):
            await vault.open_session(UUID(int=1), "")
    finally:
        await vault.aclose()
        await poser.stop()
    assert reached == []


async def test_one_address_can_t_hold_all_connections(house: House) -> None:
    async def health(request: Request) -> Response:
        return Response(status=200, content=request.method.encode())

    certificate, port = house.installation.certificate(), choose_port(HERE, 0)
    door = Listener(health, len, per_address=2)
    await door.start(bind(HERE, port), server_context(certificate.chain, certificate.key))
    trust = ssl.create_default_context(cafile=house.installation.ca_file)
    held = [await asyncio.open_connection(HERE, port, ssl=trust) for _ in range(2)]
    for _, writer in held:
        writer.write(b"GET / HTTP/1.1\r\n")
    refused, writer = await asyncio.open_connection(HERE, port, ssl=trust)
    with contextlib.suppress(ConnectionError):
        assert await refused.read() == b""
    writer.close()
    held[0][1].close()
    async with asyncio.timeout(10):
        answered = b""
        while not answered:
            reader, writer = await asyncio.open_connection(HERE, port, ssl=trust)
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                answered = await reader.read()
            writer.close()
    assert answered.endswith(b"GET")
    held[1][1].close()
    await door.stop()


async def test_our_processes_forward_and_ask_again(house: House, tenant: Client) -> None:
    token = (await house.take(await house.session(tenant))).json()["token"]
    vault, tenant_id = house.platform.app.card_vault("worker"), UUID(tenant.tenant_id)
    request = ForwardRequest(
        reference="r-1", token=token, method="POST", url=f"{house.bank.url}/pay", content_type="application/json",
        body='{"pan":"{{number}}"}',
    )  # fmt: skip
    sent = await vault.forward(tenant_id, request)
    assert (sent.state, sent.status, sent.body, sent.withheld) == ("ANSWERED", 200, b'{"result":"approved"}', False)
    assert (await vault.find_forward(tenant_id, "r-1")).replayed
    assert (await vault.describe(tenant_id, token)).masked_number == "41111111****1111"
    with pytest.raises(Refused) as refused:
        await vault.forward(tenant_id, dataclasses.replace(request, reference="r-2", body="{}"))
    assert refused.value.code == "TEMPLATE_WITHOUT_PLACEHOLDER"


async def test_a_vault_that_is_away_is_told_as_such(installation: Installation) -> None:
    here = Installation(dataclasses.replace(installation.config, cards_inner_port=choose_port(HERE, 0)))
    app = here.app()
    try:
        with pytest.raises(Unavailable) as refused:
            await app.card_vault("api").open_session(UUID(int=1), "")
        assert refused.value.code == "CARD_VAULT_UNAVAILABLE"
    finally:
        await app.close()


async def test_an_api_that_is_away_leaves_sessions_working(house: House, tenant: Client) -> None:
    async with Outbound(allowed=[]) as nowhere:
        with pytest.raises(Unavailable) as refused:
            await Rights(nowhere, "https://127.0.0.1:1").require("take", {}, "c-1")
    assert refused.value.code == "RIGHTS_NOT_KNOWN"


async def test_two_keys_move_a_tenant_s_cards(house: House, tenant: Client) -> None:
    anna, bert = [await tenant.new_key("tenant-card-transfer") for _ in range(2)]
    for client in (anna, bert, tenant):
        await client.sign_in()
    assert (await house.take(f"Bearer {tenant.token}", headers=tenant.headers)).status_code == 201

    async def ask(client: Client, method: str, path: str, body: Any = None) -> httpx.Response:
        return await house.http.request(method, f"{house.url}/v1/transfers{path}", json=body, headers=client.headers)

    key = (await ask(anna, "GET", "/receiver-key")).json()["receiverKey"]
    asked = await ask(anna, "POST", "/exports", {"receiverKey": key})
    assert (asked.status_code, asked.json()["state"], asked.json()["requestedBy"]) == (
        201,
        "REQUESTED",
        anna.public_key,
    )
    path = f"/{asked.json()['transferId']}"
    alone = await ask(anna, "POST", f"{path}/approve")
    assert (alone.status_code, codes(alone)) == (403, ["TRANSFER_NEEDS_ANOTHER_PERSON"])
    assert (await ask(bert, "POST", f"{path}/approve")).json()["state"] == "APPROVED"
    part = await ask(anna, "GET", f"{path}/parts/1")
    done = part.json()["transfer"]
    assert (done["state"], done["count"], VISA in part.text) == ("COMPLETED", 1, False)
    taking = await ask(anna, "POST", "/imports", {"digest": done["digest"], "count": 1})
    into = f"/{taking.json()['transferId']}"
    assert (await ask(bert, "POST", f"{into}/approve")).status_code == 200
    moved = await ask(anna, "PUT", f"{into}/parts/1", {"content": part.json()["content"]})
    assert (moved.status_code, moved.json()["state"]) == (200, "COMPLETED")
    assert (await ask(anna, "GET", into)).json()["state"] == "COMPLETED"
    assert codes(await ask(anna, "GET", "/not-an-id")) == ["ID_IS_INVALID"]
    cancelled = (await ask(anna, "POST", "/exports", {"receiverKey": key})).json()["transferId"]
    assert (await ask(bert, "POST", f"/{cancelled}/cancel")).json()["state"] == "CANCELLED"
    stranger = await house.platform.new_tenant()
    await stranger.sign_in()
    assert codes(await ask(stranger, "GET", path)) == ["TRANSFER_NOT_FOUND"]
