"""The card vault as it runs: a process of `strongroom serve`, from the form to the provider, killed in the middle."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import psycopg
import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import find_served
from strongroom.database.databases import CARDS, url_of
from strongroom.kernel.config import Config
from strongroom.kernel.errors import InFlight, Refused, Unavailable
from strongroom.vault.card_client import CardVault, ForwardRequest
from tests.certificates import Authority
from tests.fixtures.platform import Client, Server, public_folder
from tests.vault.cards.numbers import VISA, card
from tests.vault.cards.provider import Provider, Received, answer, provider

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
        parts = [part for part in psutil.Process(self.server.pid).children() if part.status() != psutil.STATUS_ZOMBIE]
        return next(part for part in parts if "strongroom.vault.cards" in part.cmdline())


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


async def test_killed_in_the_middle_it_never_sends_twice(open_shop: Shop) -> None:
    token = await open_shop.take()
    on_its_way = asyncio.Event()

    async def never(request: Received) -> bytes:
        on_its_way.set()
        await asyncio.sleep(600)
        return answer(b"{}")

    open_shop.bank.answer = never
    body = '{"number":"{{number}}","code":"{{cvv}}"}'
    asking = asyncio.create_task(open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "killed", body)))
    await on_its_way.wait()
    before = open_shop.process()
    before.kill()
    with pytest.raises(Unavailable) as silent:
        await asking
    assert silent.value.code == "CARD_VAULT_SILENT"
    await eventually_up(open_shop, before)
    with pytest.raises(InFlight):
        await open_shop.vault.find_forward(open_shop.tenant_id, "killed")
    with psycopg.connect(url_of(open_shop.app.installation.admin_url, CARDS).reveal()) as connection:
        connection.execute("update forwards set claimed_until = now() where state = 'INTENDED'")
    told = await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "killed", body))
    assert (told.state, told.code) == ("UNCONFIRMED", "FORWARD_INTERRUPTED")
    # The code was in the memory of the one that died, and nowhere else.
    with pytest.raises(Refused) as gone:
        await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "after", body))
    assert gone.value.code == "CVV_NOT_AVAILABLE"
    sent = [request for request in open_shop.bank.received if b'"code"' in request.body]
    assert len(sent) == 1
    # All else goes on: the card is there, and a new one is taken.
    open_shop.bank.answer = None
    assert (await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "later"))).state == "ANSWERED"
    await open_shop.take()


async def eventually_up(shop: Shop, before: psutil.Process) -> None:
    """Until the supervisor has started another vault, and it answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            await shop.vault.describe(shop.tenant_id, "card_x")
        except Refused:
            break
        except Unavailable:
            assert time.monotonic() < deadline, shop.server.log
            await asyncio.sleep(0.2)
    assert shop.process().pid != before.pid


def test_the_vault_keeps_its_memory_and_files_to_itself(open_shop: Shop) -> None:
    pid = open_shop.process().pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    folder = open_shop.server.data_dir / "cards"
    for name in ("root.key", "database.secret", "transfers.key"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert (folder / "root.key").read_bytes() != (open_shop.server.data_dir / "keys" / "master.key").read_bytes()
    assert "Traceback" not in open_shop.server.log
    assert VISA not in open_shop.server.log
