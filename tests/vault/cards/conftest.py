"""The card vault's parts in this process, on the common installation's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from joserfc.jwk import RSAKey

from strongroom.assembly import Installation
from strongroom.database.databases import CARDS, url_of
from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits
from strongroom.vault.cards.codes import SecurityCodes
from strongroom.vault.cards.custody import Custody
from strongroom.vault.cards.forwarding import Egress, Forwarder
from strongroom.vault.cards.keys import CardKeys
from strongroom.vault.cards.records import By, Records
from strongroom.vault.cards.rotation import Rotation
from strongroom.vault.cards.transfers import Transfers
from strongroom.vault.holders import CARD_VAULT, FileHolder
from tests.certificates import Authority
from tests.vault.cards.provider import Provider, provider

ROOT = Secret(bytes(range(32)))
BY = By("tester", "c-1")
LIMITS = Limits(connect_s=2.0, idle_s=1.0, total_s=2.0, answer_bytes=10_000)


@dataclass(kw_only=True)
class Vault:
    """One card vault, with a tenant of its own and a clock that is told."""

    custody: Custody
    clock: ManualClock
    tenant: UUID
    admin_url: str
    bank: Provider
    forwarder: Forwarder
    transfers: Transfers
    holder: FileHolder
    rotation: Rotation
    another: Transfers
    """Another vault's: it has another key (and, for want of a second server, the same database)."""

    async def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """As administrator."""
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def events(self) -> list[tuple[str, str, str]]:
        """What the record says of the tenant: action, outcome, detail."""
        statement = "select action, outcome, detail from card_events where tenant_id = %s order by event_id"
        return [(row[0], row[1], row[2]) for row in await self.rows(statement, self.tenant)]


def holder(folder: Path, root: Secret[bytes] = ROOT, environment: Environment = Environment.SANDBOX) -> FileHolder:
    """A holder of this root, in a folder; it is put there as the first card vaults had it."""
    path = folder / CARD_VAULT.file
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(root.reveal())
    return FileHolder(folder, environment, SystemClock(), place=CARD_VAULT)


@pytest.fixture(scope="session")
def own_keys() -> tuple[RSAKey, RSAKey]:
    """Two vaults' keys to be handed cards under."""
    return RSAKey.generate_key(2048), RSAKey.generate_key(2048)


@pytest.fixture
async def vault(installation: Installation, tmp_path: Path, own_keys: tuple[RSAKey, RSAKey]) -> AsyncIterator[Vault]:
    records = Records(installation.cards_database_url)
    await records.open()
    clock = ManualClock(datetime.now(UTC))
    held = holder(tmp_path)
    custody = Custody(records, CardKeys(held, Environment.SANDBOX), SecurityCodes(), clock)
    authority = Authority(tmp_path)
    async with provider(authority.issue("127.0.0.1")) as bank:
        here = Destination(host="127.0.0.1", port=bank.port, loopback_ok=True)
        nowhere = Destination(host="127.0.0.1", port=1, loopback_ok=True)
        egress = Egress({here: authority.ca, nowhere: authority.ca}, LIMITS)
        yield Vault(
            custody=custody,
            clock=clock,
            tenant=uuid4(),
            admin_url=url_of(installation.admin_url, CARDS).reveal(),
            bank=bank,
            forwarder=Forwarder(custody, egress),
            transfers=Transfers(custody, own_keys[0]),
            another=Transfers(custody, own_keys[1]),
            holder=held,
            rotation=Rotation(custody, held),
        )
        await egress.aclose()
    await records.close()
