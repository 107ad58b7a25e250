"""Sending letters: by SMTP over verified TLS, or, without a mail server, into a folder for development.

A letter is claimed, sent with no operation open, and then deleted. A process that dies in between leaves a claim that
runs out, and the letter goes out again: twice is better than never. One that can't be delivered is tried for two days.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

import structlog

from strongroom.audit import record
from strongroom.database import Databases
from strongroom.kernel.actors import system
from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Failure, Invalid, NotFound
from strongroom.kernel.ids import AccountId
from strongroom.kernel.secret import Secret
from strongroom.notices.letters import Letter, open_letter

log = structlog.get_logger(__name__)

AT_ONCE: Final = 50
CLAIM: Final = timedelta(minutes=5)
FIRST_PAUSE: Final = timedelta(minutes=1)
MAX_ATTEMPTS: Final = 12
"""With pauses that double up to `MAX_PAUSE`: about two days."""
MAX_PAUSE: Final = timedelta(hours=8)
TIMEOUT_S: Final = 20.0
_SUBMISSION: Final = 587
_SUBMISSIONS: Final = 465
_SENDER: Final = system("postman")


class Undelivered(Exception):
    """The letter was not taken. Says what the server said, or that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postman:
    """Takes letters to a mail server, or puts them into `folder` where there is no `server`. Without either, they wait.

    `server` is `smtp://user:password@host:587`, where TLS is begun by STARTTLS (RFC 3207), or `smtps://…:465`, where it
    is from the first byte (RFC 8314 section 3). `trust` is a PEM file with its authority; None: the system's.
    """

    sender: str
    folder: Path | None
    clock: Clock
    server: Secret[str] | None = None
    trust: Path | None = None

    async def deliver(self, mail_id: UUID, letter: Letter) -> None:
        """Deliver a letter. Raises Undelivered, and errors.Invalid (`MAIL_SERVER_INVALID`)."""
        message = self._message(mail_id, letter)
        if self.server is not None:
            await asyncio.to_thread(self._send, self.server.reveal(), message)
        elif self.folder is not None:
            await asyncio.to_thread(self._keep, self.folder / f"{mail_id}.eml", message)
        else:
            raise Undelivered("no mail server is configured")

    def _message(self, mail_id: UUID, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = Address("strongroom", addr_spec=self.sender)
        message["To"] = Address(addr_spec=letter.to)
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(self.clock.now())
        message["Message-ID"] = f"<{mail_id}@{self.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5
        message.set_content(letter.text)
        message.add_alternative(letter.html, subtype="html")
        return message

    @staticmethod
    def _keep(path: Path, message: EmailMessage) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        fresh.touch(mode=0o600)
        fresh.write_bytes(message.as_bytes())
        fresh.rename(path)

    def _send(self, server: str, message: EmailMessage) -> None:
        url = urlsplit(server)
        if url.scheme not in {"smtp", "smtps"} or not url.hostname:
            raise Invalid(
                Failure("MAIL_SERVER_INVALID", "The mail server is given as smtp://host:587 or smtps://host:465.")
            )
        context = ssl.create_default_context(cafile=self.trust)
        try:
            with self._connect(url.scheme, url.hostname, url.port, context) as connection:
                if url.username is not None:
                    connection.login(unquote(url.username), unquote(url.password or ""))
                connection.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            # The server's own words may repeat the address; the kind of error says enough.
            raise Undelivered(type(error).__name__) from error

    @staticmethod
    def _connect(scheme: str, host: str, port: int | None, context: ssl.SSLContext) -> smtplib.SMTP:
        if scheme == "smtps":
            return smtplib.SMTP_SSL(host, port or _SUBMISSIONS, timeout=TIMEOUT_S, context=context)
        connection = smtplib.SMTP(host, port or _SUBMISSION, timeout=TIMEOUT_S)
        try:
            connection.starttls(context=context)
        except BaseException:
            connection.close()
            raise
        return connection


async def send_due(databases: Databases, postman: Postman) -> int:
    """Send what is due in every region; returns how many letters were delivered."""
    delivered = 0
    for region in databases.regions:
        async with databases.operation(_SENDER, region=region) as op:
            due = await op.rows(
                "select account_id, mail_id from due_mails where due_at <= %s order by due_at limit %s", op.now, AT_ONCE
            )
        for account, mail_id in due:
            delivered += await _send_one(databases, postman, AccountId(account), mail_id)
    return delivered


async def _send_one(databases: Databases, postman: Postman, account: AccountId, mail_id: UUID) -> bool:
    claimed = await _claim(databases, account, mail_id)
    if claimed is None:
        return False
    letter, kind, attempts = claimed
    failure = ""
    try:
        await postman.deliver(mail_id, letter)
    except Undelivered as error:
        failure = str(error)
        log.warning("mail.undelivered", kind=kind, mail=str(mail_id), attempt=attempts, error=failure)
    gives_up = bool(failure) and attempts >= MAX_ATTEMPTS
    async with databases.operation(_SENDER, account=account) as op:
        if failure and not gives_up:
            pause = min(FIRST_PAUSE * 2 ** (attempts - 1), MAX_PAUSE)
            await op.run("update due_mails set due_at = %s where mail_id = %s", op.now + pause, mail_id)
            return False
        await op.run("delete from due_mails where account_id = %s and mail_id = %s", account, mail_id)
        await op.run("delete from mails where mail_id = %s", mail_id)
        await record(op, "mail.send", "mail", mail_id, outcome="refused" if gives_up else "done", detail=kind)
    return not gives_up


async def _claim(databases: Databases, account: AccountId, mail_id: UUID) -> tuple[Letter, str, int] | None:
    """The letter, unless another process has it."""
    try:
        async with databases.operation(_SENDER, account=account) as op:
            claimed = await op.run(
                "update due_mails set due_at = %s where account_id = %s and mail_id = %s and due_at <= %s",
                op.now + CLAIM,
                account,
                mail_id,
                op.now,
            )
            rows: Sequence[tuple[bytes, str, int]] = []
            if claimed:
                rows = await op.rows(
                    "update mails set attempts = attempts + 1 where mail_id = %s returning sealed, kind, attempts",
                    mail_id,
                )
            return next(((open_letter(op, mail_id, sealed), kind, tries) for sealed, kind, tries in rows), None)
    except NotFound:
        return None
