"""The card vault as it runs: a process of `strongroom serve`, from the form to the provider, killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import ssl
import subprocess
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
from strongroom.vault.card_client import ForwardRequest
from tests.certificates import Authority
from tests.fixtures.platform import Client, Server, public_folder, run_command
from tests.vault.cards.numbers import VISA, card
from tests.vault.cards.provider import Provider, Received, answer, provider

TEMPLATE = '{"card":{"number":"{{number}}","expiry":"{{expiry_month}}/{{expiry_year}}"},"amount":1250}'
PASSPHRASE, PLATFORM_PASSPHRASE = "correct horse battery staple", "another four words drawn"
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
        self.served = served
        self.vault = served.card_vault("worker")

    @property
    def tenant_id(self) -> UUID:
        return UUID(self.tenant.tenant_id)

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


def run(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command on the installation, with the passphrase that it needs."""
    return run_command(*arguments, "--data-dir", str(server.data_dir), STRONGROOM_KEYS_PASSPHRASE=PLATFORM_PASSPHRASE)


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
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("STRONGROOM_CARDS_PASSPHRASE", PASSPHRASE)
                patch.setenv("STRONGROOM_KEYS_PASSPHRASE", PLATFORM_PASSPHRASE)
                await asyncio.to_thread(server.start)
            opened = json.loads(
                (await asyncio.to_thread(run, server, "accounts", "create", "--name", "Shop", "--json")).stdout
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
                    await made.vault.aclose()
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
    with psycopg.connect(url_of(open_shop.served.admin_url, CARDS).reveal()) as connection:
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


def test_the_vault_keeps_its_files_to_itself(open_shop: Shop) -> None:
    process, folder = open_shop.process(), open_shop.server.data_dir / "cards"
    for name in ("root.key", "database.secret", "transfers.key"):
        status = (folder / name).stat()
        assert (status.st_mode & 0o077, status.st_uid) == (0, process.uids().effective), name
    assert json.loads((folder / "root.key").read_text())["scrypt"]
    assert b"PRIVATE" not in (folder / "transfers.key").read_bytes()
    assert "Traceback" not in open_shop.server.log
    assert VISA not in open_shop.server.log


def test_the_vault_has_a_user_and_no_way_to_more_rights(open_shop: Shop) -> None:
    process = open_shop.process()
    assert status_of(process.pid)["NoNewPrivs"] == "1"
    # A Python that only root can reach, as in root's own folder, can't be left to another user; that is told.
    stays = "cards.stays_root" in open_shop.server.log
    expected = "strongroom-cards" if os.geteuid() == 0 and not stays else pwd.getpwuid(os.geteuid()).pw_name
    assert process.username() == expected


def test_the_vault_s_memory_is_neither_swapped_nor_dumped(open_shop: Shop) -> None:
    pid = open_shop.process().pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    status = status_of(pid)
    assert status["VmSwap"] == "0 kB"
    if os.geteuid() == 0:
        locked, resident = (int(status[name].split()[0]) for name in ("VmLck", "VmRSS"))
        assert locked >= resident


def test_secrets_are_in_nobody_s_environment_or_command_line(open_shop: Shop) -> None:
    vault = open_shop.process()
    database = (open_shop.server.data_dir / "cards" / "database.secret").read_bytes().hex()
    for process in open_shop.server.family()[1:]:
        seen = Path(f"/proc/{process.pid}/environ").read_bytes() + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert PASSPHRASE.encode() not in seen, process
        assert database.encode() not in seen, process
        if process.pid == vault.pid:
            assert b"STRONGROOM_" not in seen


async def test_nothing_leaves_but_to_listed_destinations(open_shop: Shop) -> None:
    token = await open_shop.take()
    for url in (
        "https://localhost:443/x", "https://169.254.169.254/latest", f"https://127.0.0.1:{open_shop.bank.port + 1}/x",
        f"http://127.0.0.1:{open_shop.bank.port}/x", f"https://127.0.0.1.:{open_shop.bank.port}/x",
        f"https://x@127.0.0.1:{open_shop.bank.port}/x", "https:///x", "file:///etc/passwd",
    ):  # fmt: skip
        wanted = ForwardRequest(
            reference="out", token=token, method="POST", url=url, content_type="application/json", body=TEMPLATE
        )
        with pytest.raises(Refused) as refused:
            await open_shop.vault.forward(open_shop.tenant_id, wanted)
        assert refused.value.code == "DESTINATION_NOT_ALLOWED", url

    async def elsewhere(request: Received) -> bytes:
        del request
        return answer(b"{}", status="307 Temporary Redirect", location="https://localhost:443/x")

    open_shop.bank.answer = elsewhere
    sent = await open_shop.vault.forward(open_shop.tenant_id, open_shop.request(token, "moved"))
    assert (sent.state, sent.status) == ("ANSWERED", 307)
    open_shop.bank.answer = None
    ports = {open_shop.bank.port, open_shop.served.config.port}
    ours = {open_shop.served.config.cards_port, open_shop.served.config.cards_inner_port}
    reached = {
        found.raddr.port
        for found in open_shop.process().net_connections("inet")
        if found.raddr and found.laddr.port not in ours
    }
    assert reached <= ports


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
