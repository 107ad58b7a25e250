"""The card vault as it runs: a process of `strongroom serve`, from the form to the provider, killed in the middle."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import find_served
from strongroom.kernel.config import Config
from strongroom.vault.card_client import CardVault, ForwardRequest
from tests.certificates import Authority
from tests.fixtures.platform import Client, Server, public_folder
from tests.vault.cards.numbers import VISA, card
from tests.vault.cards.provider import Provider, provider

TEMPLATE = '{"card":{"number":"{{number}}","expiry":"{{expiry_month}}/{{expiry_year}}"},"amount":1250}'
PATIENCE_S = 30.0


class Shop:
    """A served installation with a tenant in it, and a provider that the vault may send to."""

    def __init__(self, server: Server, bank: Provider, http: httpx.AsyncClient, tenant: Client) -> None:
        self.server = server
        self.bank = bank
        self.http = http
        self.tenant = tenant
        served = find_served(Installation(Config(data_dir=server.data_dir)))
        assert served is not None
        self.app = served.app(connections=1)

    @property
    def tenant_id(self) -> UUID:
        return UUID(self.tenant.tenant_id)

    @property
    def vault(self) -> CardVault:
        return self.app.card_vault("worker")

    async def session(self) -> dict[str, str]:
        opened = await self.tenant.post("/v1/customer-vault/c-1/card-session")
        assert opened.status_code == 201, opened.text
        return dict(opened.json())

    async def take(self, **changed: object) -> str:
        session = await self.session()
        headers = {"authorization": f"Session {session['sessionToken']}"}
        taken = await self.http.post(session["url"], json=card(**changed), headers=headers)
        assert taken.status_code == 201, taken.text
        return str(taken.json()["token"])

    def request(self, token: str, reference: str = "pay-1", body: str = TEMPLATE) -> ForwardRequest:
        return ForwardRequest(
            reference=reference, token=token, method="POST", url=f"{self.bank.url}/charges",
            content_type="application/json", body=body,
        )  # fmt: skip

    def process(self) -> psutil.Process:
        """The vault's process."""
        return next(
            process
            for process in psutil.Process(self.server.pid).children()
            if "strongroom.vault.cards" in process.cmdline()
        )


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Shop]:
    """See `Shop`."""
    authority = Authority(folder, "Bank Authority")
    server = Server(folder)
    cards = server.data_dir / "cards"
    cards.mkdir(parents=True, mode=0o711)
    (cards / "bank.pem").write_bytes(authority.ca.read_bytes())
    async with provider(authority.issue("127.0.0.1")) as bank:
        (cards / "egress.toml").write_text(
            f'[[destination]]\nhost = "127.0.0.1"\nport = {bank.port}\ntrust = "bank.pem"\n'
        )
        try:
            await asyncio.to_thread(server.start)
            opened = json.loads(
                (await asyncio.to_thread(server.run, "accounts", "create", "--name", "Shop", "--json")).stdout
            )
            trust = ssl.create_default_context(cafile=server.ca_file)
            async with httpx.AsyncClient(base_url=server.url, verify=trust, timeout=40) as http:
                account = Client(
                    http=http, account_id=opened["accountId"], public_key=opened["publicKey"],
                    private_key=opened["privateKey"],
                )  # fmt: skip
                made = Shop(server, bank, http, await account.new_tenant())
                try:
                    yield made
                finally:
                    await made.app.close()
        finally:
            await asyncio.to_thread(server.stop)


@pytest.fixture(scope="module")
async def open_shop() -> AsyncIterator[Shop]:
    with public_folder() as folder:
        async with shop(folder) as made:
            yield made


async def test_from_the_form_to_the_provider(open_shop: Shop) -> None:
    token = await open_shop.take()
    forwarded = await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "first"))
    assert (forwarded.state, forwarded.status, forwarded.body) == ("ANSWERED", 200, b'{"result":"approved"}')
    received = open_shop.bank.received[-1]
    assert json.loads(received.body) == {"card": {"number": VISA, "expiry": "12/2031"}, "amount": 1250}
    again = await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "first"))
    assert (again.replayed, again.body) == (True, forwarded.body)
    assert sum(request is received for request in open_shop.bank.received) == 1
