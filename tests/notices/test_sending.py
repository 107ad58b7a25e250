"""Letters on their way to a real SMTP server, and what becomes of those that aren't taken."""

from __future__ import annotations

import email
import email.policy
import mailbox
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest

from strongroom.cli.supervisor import choose_port
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.errors import Invalid
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.notices import Letter, Postman, queue_letter, send_due
from strongroom.notices.sending import CLAIM, MAX_ATTEMPTS, Undelivered
from tests.certificates import Authority
from tests.fixtures.platform import Client, Platform
from tests.people.browser import Browser, unique_address

VALUES = {"company": "Ärzte & Söhne", "address": "", "link": "https://localhost/x?<y>", "until": "2026-11-25 10:00 UTC"}
LETTER = Letter(to="ada@example.com", subject="Grüße", text="Guten Tag\n", html="<p>Guten Tag</p>")


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """An SMTP server in a process of its own, with the letters that it has taken."""

    port: int
    scheme: str
    trust: Path
    folder: Path

    @property
    def url(self) -> Secret[str]:
        return Secret(f"{self.scheme}://localhost:{self.port}")

    def letters(self) -> list[EmailMessage]:
        box = mailbox.Maildir(self.folder)
        return [email.message_from_bytes(box.get_bytes(key), policy=email.policy.default) for key in box.iterkeys()]  # type: ignore[misc]  # the default policy makes EmailMessages


@pytest.fixture(scope="module", params=["smtp", "smtps"])
def mail_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    folder = tmp_path_factory.mktemp(f"mail-{request.param}")
    authority = Authority(folder)
    certificate = authority.issue("localhost", "127.0.0.1")
    port = choose_port("127.0.0.1", 0)
    kind = "tls" if request.param == "smtp" else "smtps"
    with server_process(port, folder / "box", f"--{kind}cert={certificate.chain}", f"--{kind}key={certificate.key}"):
        yield MailServer(port=port, scheme=request.param, trust=authority.ca, folder=folder / "box")


class server_process:  # noqa: N801  used as a function
    """`aiosmtpd` while the block lasts."""

    def __init__(self, port: int, box: Path, *options: str) -> None:
        command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}", *options]
        self._port = port
        self._process = subprocess.Popen([*command, "-c", "aiosmtpd.handlers.Mailbox", str(box)])

    def __enter__(self) -> None:
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)


def postman(server: MailServer, **changes: object) -> Postman:
    made = Postman(
        sender="strongroom@example.com", folder=None, clock=SystemClock(), server=server.url, trust=server.trust
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of a Postman


async def test_a_letter_arrives_over_verified_tls(mail_server: MailServer) -> None:
    mail_id = new_uuid()
    await postman(mail_server).deliver(mail_id, LETTER)
    (found,) = [letter for letter in mail_server.letters() if str(mail_id) in letter["Message-ID"]]
    assert (found["To"], found["From"], found["Subject"]) == (
        "ada@example.com",
        "strongroom <strongroom@example.com>",
        "Grüße",
    )
    text, html = found.get_body(("plain",)), found.get_body(("html",))
    assert text is not None and html is not None
    assert (text.get_content(), html.get_content().strip()) == ("Guten Tag\n", "<p>Guten Tag</p>")


async def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing(
    mail_server: MailServer, tmp_path: Path
) -> None:
    before = len(mail_server.letters())
    stranger = Authority(tmp_path, "Somebody Else")
    with pytest.raises(Undelivered, match="SSLCertVerificationError"):
        await postman(mail_server, trust=stranger.ca).deliver(new_uuid(), LETTER)
    assert len(mail_server.letters()) == before


async def test_a_server_without_tls_gets_nothing(tmp_path: Path) -> None:
    port = choose_port("127.0.0.1", 0)
    with server_process(port, tmp_path / "box"):
        plain = Postman(
            sender="a@example.com", folder=None, clock=SystemClock(), server=Secret(f"smtp://127.0.0.1:{port}")
        )
        with pytest.raises(Undelivered, match="SMTPNotSupportedError"):
            await plain.deliver(new_uuid(), LETTER)
    assert list((tmp_path / "box" / "new").iterdir()) == []


async def test_what_is_no_mail_server_is_said() -> None:
    for url in ("http://localhost", "smtp://", "mail.example.com"):
        wrong = Postman(sender="a@example.com", folder=None, clock=SystemClock(), server=Secret(url))
        with pytest.raises(Invalid, match="smtp://host:587"):
            await wrong.deliver(new_uuid(), LETTER)


async def queue(platform: Platform, account: Client) -> UUID:
    async with platform.app.operation(system("test"), account=account_id(account)) as op:
        return await queue_letter(op, "invitation", "ada@example.com", {**VALUES, "address": "ada@example.com"})


def account_id(account: Client) -> AccountId:
    return AccountId(UUID(account.account_id))


def kept_in(folder: Path) -> list[EmailMessage]:
    return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in folder.iterdir()]


async def waiting(platform: Platform, account: Client) -> list[int]:
    """The attempts at the account's letters that still wait."""
    async with platform.app.operation(system("test"), account=account_id(account)) as op:
        return [row[0] for row in await op.rows("select attempts from mails order by mail_id")]


async def test_what_is_in_a_letter_is_escaped_where_it_must_be(
    platform: Platform, account: Client, tmp_path: Path
) -> None:
    mail_id = await queue(platform, account)
    folder = replace(platform.app.postman, folder=tmp_path / "out")
    assert await send_due(platform.app.databases, folder) >= 1
    path = tmp_path / "out" / f"{mail_id}.eml"
    assert path.stat().st_mode & 0o777 == 0o600
    letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert letter["Subject"] == "You are invited to Ärzte & Söhne on strongroom"
    text, html = letter.get_body(("plain",)), letter.get_body(("html",))
    assert text is not None and "https://localhost/x?<y>" in text.get_content()
    assert html is not None and "https://localhost/x?&lt;y&gt;" in html.get_content()
    assert await waiting(platform, account) == []


async def test_one_that_is_not_taken_is_tried_again_and_given_up_in_the_end(
    platform: Platform, account: Client, tmp_path: Path
) -> None:
    await queue(platform, account)
    clock = ManualClock(platform.app.clock.now() + timedelta(seconds=1))
    nowhere = Postman(sender="a@example.com", folder=None, clock=clock)
    async with platform.another_process(clock) as other:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            assert await waiting(platform, account) == [attempt - 1]
            await send_due(other.app.databases, nowhere)
            await send_due(other.app.databases, nowhere)  # not due yet: nothing happens
            clock.advance(timedelta(hours=8))
        assert await waiting(platform, account) == []
    async with platform.app.operation(system("test"), account=account_id(account)) as op:
        rows = await op.rows("select outcome, detail from audit_entries where action = 'mail.send'")
    assert rows == [("refused", "invitation")]


async def test_a_claim_of_a_process_that_died_runs_out(platform: Platform, account: Client, tmp_path: Path) -> None:
    mail_id = await queue(platform, account)
    async with platform.app.operation(system("test"), account=account_id(account)) as op:
        await op.run("update due_mails set due_at = %s where mail_id = %s", op.now + CLAIM, mail_id)
    folder = tmp_path / "out"
    await send_due(platform.app.databases, replace(platform.app.postman, folder=folder))
    assert not (folder / f"{mail_id}.eml").exists()
    clock = ManualClock(platform.app.clock.now() + CLAIM)
    async with platform.another_process(clock) as other:
        await send_due(other.app.databases, replace(platform.app.postman, folder=folder))
    assert (folder / f"{mail_id}.eml").exists()


async def test_who_is_invited_over_the_api_gets_the_link_by_mail_alone(
    platform: Platform, account: Client, tmp_path: Path
) -> None:
    address = unique_address()
    made = await account.post("/v1/account/users", {"emailAddress": address, "roles": ["account-admin"]})
    assert made.status_code == 201
    assert "link" not in made.text and "portal" not in made.text
    await send_due(platform.app.databases, replace(platform.app.postman, folder=tmp_path))
    letters = kept_in(tmp_path)
    (text,) = [letter.get_body(("plain",)) for letter in letters if letter["To"] == address]
    assert text is not None
    link = next(line for line in text.get_content().splitlines() if line.startswith("https://"))
    accepted = await Browser(platform=platform).accept(link)
    assert accepted.status_code == 200
